"""``resnets calibrate``: temperature and thresholds fitted anew, without training."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from resnets.commands import run
from resnets.commands.flags import Cache
from resnets.commands.notices import print_notices, tell_assumed
from resnets.deployment.exported.reading import refuse_exported
from resnets.errors import UsageError
from resnets.escaping import say, shell_line
from resnets.files.outputs import refuse_existing, writable

if TYPE_CHECKING:
    from resnets.evaluation.recalibration import CalibrationImages
    from resnets.model_file import Description

_Split = Literal["auto", "validation", "test", "all"]
_ENDING = ".safetensors"


def main(argv: list[str]) -> int:
    """Run ``resnets calibrate`` with ``argv``."""
    return run(calibrate, argv, config=(tyro.conf.FlagCreatePairsOff,))


def calibrate(
    model: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="MODEL")],
    data: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="DATA")],
    /,
    max_error: float = 0.02,
    output: Path | None = None,
    overwrite: bool = False,
    split: _Split = "auto",
    batch_size: int = 256,
    device: str = "auto",
    skip_unreadable: bool = False,
    cache: Cache = None,
    as_json: Annotated[bool, tyro.conf.arg(name="json")] = False,
) -> None:
    """Fit temperature and thresholds anew on your own labelled images, without training.

    The weights stay as they are; the temperature, the confidence below which a prediction is
    unsure, and the familiarity below which an image is unfamiliar, are fitted to these images. A
    network that has no familiarity score, such as a converted one, gets one if there are at least
    two images of each of its classes. Use images like those to be predicted, which the network
    was not trained on. A new model file is written. Exported files have the temperature inside
    their graph: export the new file again.

    Args:
        model: a model file, the folder of a run, published weights by id, such as
            timm/resnet50.a1_in1k, or a network of the package by name.
        data: as for `resnets train`: a folder of class folders, parquet files, a table, ...
        max_error: target for the share of wrong predictions among those that are sure (status ok).
            Thresholds for other targets are stored as well, for --max-error of `predict`.
        output: the model file to write; by default MODEL-calibrated.safetensors beside MODEL, or
            here for a network of the package. MODEL itself, with --overwrite, changes it in place.
        overwrite: replace what is at `output`.
        split: which images. auto: the test split where the data has one or the network was trained
            on this data, else the validation split of the data, else all images. Images that the
            network was trained on are left out; with `all`, near-duplicates of its training and
            validation images too, where these are available. Of copies, and of photos of one class
            that look alike (a burst), one is taken.
        batch_size: images computed at once; the figures do not depend on it.
        device: auto (a GPU if there is one), cpu, cuda, mps or xpu.
        skip_unreadable: leave out images that cannot be read, instead of ending with an error.
        cache: for shards at an address, how much of them to keep on the local disk, such as 50GB.
        as_json: print the calibration as JSON.
    """
    from resnets import model_file, model_path
    from resnets.data.sources.opening import files_of, refuse_missing, with_cache
    from resnets.deployment.engines import open_network
    from resnets.deployment.engines.swapped import refuse_swapped
    from resnets.evaluation.calibration import check_error_rate
    from resnets.evaluation.evaluate import outputs_and_features
    from resnets.evaluation.recalibration import (
        choose_calibration_images,
        familiarity_in_words,
        recalibrate,
        refit_familiarity,
    )

    refuse_swapped([model], [data])
    check_error_rate(max_error)
    file = model_path.find_model(model)
    refuse_missing(data)
    target = _place(file, output, overwrite)
    writable(target, files_of(data))  # the model itself may be changed in place: --overwrite
    loaded = open_network(file, device=device)
    tell_assumed(loaded.description)
    images = with_cache(data, cache)
    chosen = choose_calibration_images(
        images, loaded.description, split, file=file, skip_unreadable=skip_unreadable
    )
    outputs = outputs_and_features(loaded, chosen.images, batch_size)
    labels, before = chosen.images.labels, loaded.description
    calibrated = recalibrate(
        before, outputs.logits, labels, chosen.what, max_error, chosen.candidates, chosen.members
    )
    after, why_none = refit_familiarity(calibrated, outputs.features, labels)
    model_file.save(target, loaded.network, after)
    unfamiliar = familiarity_in_words(after, why_none)
    _show(replace(chosen, remarks=(unfamiliar, *chosen.remarks)), before, after, target, as_json)
    if not as_json and target != file:
        use = shell_line("resnets", "predict", target, "IMAGES")
        say(f"to use it, give this file as MODEL, as in `{use}`; {model} stays as it was")


def _place(file: Path, output: Path | None, overwrite: bool) -> Path:
    """Where the new model file goes; refused before any work.

    Raises:
        UsageError: the model is an exported file, or the place is taken, not for a model file, or
            cannot be written.
    """
    from resnets.model_path import calibrated_beside

    refuse_exported(file, "calibrate changes its temperature, so that it is to be exported again")
    target = output or calibrated_beside(file)
    if target.suffix != _ENDING:
        raise UsageError(f"--output {target}: a model file ends in {_ENDING}")
    writable(target)
    refuse_existing(target, overwrite)
    return target


def _show(
    chosen: "CalibrationImages",
    before: "Description",
    after: "Description",
    target: Path,
    as_json: bool,
) -> None:
    """Tell what was measured and where the result is."""
    from resnets.evaluation.calibration import Calibration
    from resnets.evaluation.familiarity import familiarity_of
    from resnets.evaluation.recalibration import changes, remarks
    from resnets.json_text import to_json

    all_remarks = [*chosen.remarks, *remarks(chosen.images.labels, after.class_names)]
    print_notices(chosen.warnings, chosen.skipped, machine=as_json)
    if as_json:
        record: dict[str, Any] = {
            "file": str(target),
            "images": chosen.what,
            "remarks": all_remarks,
        }
        familiarity = familiarity_of(after.familiarity)
        record |= {"warnings": chosen.warnings, "skipped": chosen.skipped}
        record["familiarity"] = familiarity and {
            "threshold": familiarity.threshold,
            "lost": asdict(familiarity.lost),
        }
        print(to_json(record | {"calibration": after.calibration}, indent=2))
        return
    for line in (
        *Calibration.from_dict(after.calibration).in_words().splitlines(),
        changes(before, after),
        *all_remarks,
        f"saved {target} (files exported before keep the old values; to write them "
        f"again: `{shell_line('resnets', 'export', target, '--to', 'onnx')}`)",
    ):
        say(line)
