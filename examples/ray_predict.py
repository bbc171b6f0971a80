"""What a network says of more images than one machine can hold, with Ray Data.

    pip install "ray[data]"
    python examples/ray_predict.py MODEL IMAGES OUTPUT --workers 8

MODEL is what `resnets predict` takes, on a path that every machine of the cluster can read; IMAGES
is a folder of files or a bucket (s3://..., gs://...), OUTPUT a folder for parquet files with one
row an image, in the columns of `resnets predict`: its path, the prediction, the calibrated
probability, the status (ok, unsure, not calibrated, unfamiliar or unreadable), and the reason where
it cannot be read. Each worker loads the network once; images are streamed, never all in memory.
Without a cluster it runs on this machine.
"""

import pyarrow as pa
import tyro

from resnets import load, predict
from resnets.images.probing import ENDINGS as ENDINGS_OF

ENDINGS = [ending.removeprefix(".") for endings in ENDINGS_OF.values() for ending in endings]

ROWS = pa.schema(
    {
        "image": pa.string(),
        "prediction": pa.string(),
        "probability": pa.float64(),
        "status": pa.string(),
        "top1": pa.string(),
        "probability1": pa.float64(),
        "error": pa.string(),
    }
)


class Predictor:
    """Predicts batches of encoded images in one worker."""

    def __init__(self, model: str, device: str = "cpu") -> None:
        """Load a network once.

        Args:
            model: a model file.
            device: where it computes.
        """
        self.model = load(model, device)

    def __call__(self, batch: pa.Table) -> pa.Table:
        """From columns `path` and `bytes` to `ROWS`."""
        contents = batch["bytes"].to_pylist()
        found = predict(self.model, contents, batch_size=len(contents))
        paths = batch["path"].to_pylist()
        rows = [each.row() | {"image": path} for each, path in zip(found, paths, strict=True)]
        return pa.Table.from_pylist(rows, ROWS)


def main(
    model: tyro.conf.Positional[str],
    images: tyro.conf.Positional[str],
    output: tyro.conf.Positional[str],
    workers: int = 1,
    batch_size: int = 64,
    gpus: float = 0,
) -> None:
    """Predict with Ray Data.

    Args:
        model: a model file that every machine can read.
        images: folder or bucket of images.
        output: folder or bucket for parquet files.
        workers: how many networks run at once, over all machines.
        batch_size: images that a worker computes at once.
        gpus: of each worker, such as 1 or 0.5; 0 computes on the CPU.
    """
    import ray.data

    read = ray.data.read_binary_files(images, include_paths=True, file_extensions=ENDINGS)
    predicted = read.map_batches(
        Predictor,
        fn_constructor_args=(model, "cuda" if gpus else "cpu"),
        compute=ray.data.ActorPoolStrategy(size=workers),
        batch_size=batch_size,
        batch_format="pyarrow",
        num_gpus=gpus,
    )
    predicted.write_parquet(output)


if __name__ == "__main__":
    tyro.cli(main)
