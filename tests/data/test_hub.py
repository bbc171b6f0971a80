"""Without a network: what the datasets library has in its cache, and what it has not."""

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

pytest.importorskip("datasets")

PREPARE = """
import sys, datasets
from pathlib import Path
from datasets.packaged_modules.parquet.parquet import Parquet

cache, *files = sys.argv[1:]
Parquet(
    cache_dir=cache,
    dataset_name="digits_10",
    config_name="plain",
    hash="0" * 40,
    data_files={Path(file).stem: [file] for file in files},
).download_and_prepare()
folder = Path(cache, "digits_10").rename(Path(cache, "someone___digits_10"))
next(folder.iterdir()).rename(folder / "plain")
"""

WRITE = """
import datasets, numpy as np, sys
from sklearn.datasets import load_digits
digits = load_digits()
features = datasets.Features(
    image=datasets.Image(), label=datasets.ClassLabel(names=[f"digit {n}" for n in range(10)])
)
pixels = (digits.images * 15).astype(np.uint8)
for name, chosen in (("train", slice(0, 200)), ("test", slice(200, 260)), ("extra", slice(0, 9))):
    content = {"image": list(pixels[chosen]), "label": digits.target[chosen]}
    datasets.Dataset.from_dict(content, features).to_parquet(f"{sys.argv[1]}/{name}.parquet")
"""

OPEN = """
import multiprocessing, sys
from resnets.data.sources import open_data

if __name__ == "__main__":
    splits = open_data(sys.argv[1])
    print(len(splits.train), len(splits.validation), len(splits.test))
    print(splits.class_names[3], splits.train.names[0], splits.warnings)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        image = pool.apply(splits.train.image, (5, 1))
    print(image.shape, (image == splits.train.image(5, 1)).all())
"""


@pytest.fixture(scope="module")
def python(
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[..., "subprocess.CompletedProcess[str]"]:
    """Run a program that has a cache of its own and no network."""
    folder = tmp_path_factory.mktemp("hub")

    def run(program: str, *arguments: str | Path) -> "subprocess.CompletedProcess[str]":
        file = folder / "program.py"
        file.write_text(program)
        environment: Mapping[str, str] = os.environ | {
            "HF_HUB_OFFLINE": "1",
            "HF_HOME": str(folder / "home"),
            "HF_DATASETS_CACHE": str(folder / "cache"),
        }
        command = [sys.executable, str(file), *map(str, arguments)]
        return subprocess.run(command, env=environment, text=True, capture_output=True, check=False)

    return run


@pytest.mark.slow
def test_a_data_set_in_the_cache_is_opened_without_a_network(
    python: Callable[..., "subprocess.CompletedProcess[str]"], tmp_path: Path
) -> None:
    written = python(WRITE, tmp_path)
    assert written.returncode == 0, written.stderr
    files = [tmp_path / f"{name}.parquet" for name in ("train", "test", "extra")]
    cache = Path(
        str(python("import datasets; print(datasets.config.HF_DATASETS_CACHE)").stdout).strip()
    )
    prepared = python(PREPARE, cache, *files)
    assert prepared.returncode == 0, prepared.stderr
    for source in ("hub:someone/digits_10", "hub:someone/digits_10@plain"):
        opened = python(OPEN, source)
        assert opened.stdout.splitlines() == [
            "180 20 60",
            f"digit 3 {source} train[1] (\"splits ignored: 'extra'\",)",
            "(8, 8, 1) True",
        ], opened.stderr
    missing = python(OPEN, "hub:someone/digits_10@other")
    assert "UsageError: hub:someone/digits_10@other: cannot be loaded: " in missing.stderr


@pytest.mark.slow
def test_without_cache_and_network_it_says_what_to_do(
    python: Callable[..., "subprocess.CompletedProcess[str]"],
) -> None:
    opened = python(OPEN, "hub:uoft-cs/cifar10")
    assert (
        "ContentError: hub:uoft-cs/cifar10: the hub cannot be reached, and there is no copy "
        in (opened.stderr)
    )
    assert "or download its parquet files elsewhere and pass their folder" in opened.stderr


@pytest.mark.parametrize("source", ["hub:", "hub:../here", "hub:a/b/c", "hub:@plain"])
def test_what_cannot_be_a_name_is_refused_before_any_request(source: str) -> None:
    from resnets.data.sources import open_data
    from resnets.errors import UsageError

    with pytest.raises(UsageError, match="is no name; write it as on the hub, such as hub:uoft"):
        open_data(source)
