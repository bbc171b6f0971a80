"""What a MODEL names: the file with its weights. Imports no torch."""

import contextlib
import difflib
import itertools
import json
import re
import sys
from functools import cache
from pathlib import Path

from resnets import shipped
from resnets.addresses import AS_FILE, refuse_address
from resnets.errors import UsageError
from resnets.escaping import say, shell_line
from resnets.files.outputs import writable, writable_folder
from resnets.files.reading import open_input, read_input, read_text
from resnets.files.writing import write_atomically
from resnets.headers import TORCH_ENDINGS
from resnets.model_file import is_model_file
from resnets.networks.catalog import CATALOG
from resnets.networks.checkpoints.hub_folder import is_hub_folder, read_hub_folder
from resnets.other_formats import ENDINGS
from resnets.pretrained.files import hub_folder, model_folder
from resnets.pretrained.reference import is_reference, read_reference
from resnets.pretrained.table import find_recommended, published
from resnets.run_files import CONFIG, LOG, MODEL, STATES

_LARGEST = 1 << 36  # bytes
_NEAREST = 3  # names in an error message
_MOST_LISTED = 1000  # entries of a folder among which they are looked for
RUNS = Path("runs")  # where runs are that were given no folder
_MODEL_IS = (
    "MODEL is a model file, an exported file (.onnx, .xml), the folder of a run, a folder of timm "
    "or transformers with config.json, the id of published weights (`resnets list --pretrained`), "
    "a network that has some by name, such as resnet50, or one of the package"
)


def find_weights(model: str | Path) -> Path:
    """The file of weights that ``model`` stands for, this project's or another's.

    Args:
        model: a file, the folder of a run, a network of the package by name, or published weights,
            which are downloaded if they are not in the cache: their id, or the name of a network
            for those that are recommended for it. A path that exists comes before a name or an id.

    Raises:
        UsageError: there is none; the message says what is there instead and what to do.
        ContentError: published weights can be neither found nor downloaded.
    """
    path, name = Path(model), Path(model).as_posix() if str(model) else ""
    if not name:  # pathlib would take it as the current folder
        raise UsageError("no MODEL given: its path is empty")
    file = path / MODEL if path.is_dir() else path
    if file.is_file():
        return file
    if is_hub_folder(path):
        return read_hub_folder(path).weights
    if not path.exists() and name in shipped.names():
        return shipped.shipped(name)
    row = None if path.exists() else find_recommended(name)
    if row:
        _tell_which(name, row.id)
        name = row.id
    if not path.exists() and is_reference(name):
        from resnets.pretrained.opening import open_published  # torch, after --help

        return open_published(read_reference(name))
    refuse_address(name, AS_FILE)
    raise UsageError(_why_there_is_none(path, file))


def fetch_weights(
    name: str, to: Path | None = None, *, accept_licence: bool = False, overwrite: bool = False
) -> Path:
    """Download published weights, or their newest version, into the cache or a folder.

    Args:
        name: their id; or the name of a network, for the weights that are recommended for it; or a
            network of the package, of which nothing is to be downloaded.
        to: the folder that gets a model file; None: only the cache.
        accept_licence: accept a licence that allows only non-commercial use.
        overwrite: replace the model file in that folder.

    Returns:
        The folder, or without one the model file.

    Raises:
        UsageError: it is no such name, or there is a file already.
        ContentError: the weights cannot be downloaded, or are damaged.
    """
    row = find_recommended(name)
    name = row.id if row else name
    is_shipped = row is None and name in shipped.names()
    if not is_shipped and not is_reference(name):
        raise UsageError(
            f"{name}: no id of published weights, such as timm/resnet50.a1_in1k, hf-hub:OWNER/NAME "
            "or torchvision/resnet50.IMAGENET1K_V2 (`resnets list --pretrained` shows them)"
            + meant(name)
        )
    target = to / MODEL if to else None
    if to and target:
        writable_folder(to)
        if target.exists() and not overwrite:
            raise UsageError(f"{target} exists; give another --to, or --overwrite")
        if to.is_dir():
            writable(target)
    if is_shipped:
        file = shipped.shipped(name)
    else:
        from resnets.pretrained.opening import open_published  # torch, after --help

        file = open_published(read_reference(name), again=True, accept_licence=accept_licence)
    if to and target:
        to.mkdir(parents=True, exist_ok=True)
        write_atomically(target, read_input(file, _LARGEST))
    return to or file


def find_model(model: str | Path) -> Path:
    """The file of a MODEL: a model file or an exported one, as `find_weights` finds it.

    For a folder with the config.json of timm or transformers, a model file is made and kept.

    Raises:
        UsageError: there is none, or it holds weights that do not say what their classes are and
            how images are prepared.
    """
    file = find_weights(model)
    if Path(model).is_dir():
        _tell_of_calibrated(file)
    if Path(model).is_dir() and is_hub_folder(Path(model)) and not is_model_file(file):
        from resnets.pretrained.opening import open_folder  # torch, after --help

        return open_folder(Path(model))
    if file.suffix.lower() not in TORCH_ENDINGS or _is_safetensors(file):
        return file
    run = file.parent.parent
    if file.parent.name == STATES and (run / CONFIG).is_file():
        raise UsageError(
            f"{file}: a checkpoint of a training run, no model file: "
            f"`{shell_line('resnets', 'train', '--resume', run)}` ends the run and writes "
            f"{run / MODEL}"
        )
    convert = shell_line("resnets", "convert", file, "--to", "resnets")
    raise UsageError(
        f"{file}: a checkpoint, no model file: it does not say what its classes are and how images "
        f"are prepared (`{convert}` makes a model file of it)"
    )


def names_model(word: str) -> bool:
    """Whether a word stands for a MODEL, not for images, judged by its ending or its name."""
    path = Path(word)
    if path.is_dir():
        names = (MODEL, CONFIG)
        return any((path / name).is_file() for name in names) or is_hub_folder(path)
    endings = (".safetensors", *TORCH_ENDINGS, *ENDINGS)
    is_name = word in shipped.names() or word in CATALOG or is_reference(word)
    return path.suffix.lower() in endings or (is_name and not path.exists())


def _why_there_is_none(path: Path, file: Path) -> str:
    """The error message where `path` leads to no file of weights."""
    names = ", ".join(shipped.names())
    if (path / CONFIG).is_file():
        if _has_ended(path):
            again = shell_line("resnets", "train", "DATA", "--recipe", path / CONFIG)
            return (
                f"{path}: the record of a finished run, without its network ({MODEL}): bring that "
                f"file here, or `{again}` trains it anew"
            )
        resume = shell_line("resnets", "train", "--resume", path)
        return f"{path}: an unfinished run, without {MODEL}: `{resume}` ends it"
    if path.is_dir() and (inside := _weight_files_in(path)):
        return f"{path}: a folder with files of weights; give one of them, such as {inside[0]}"
    if path.is_dir():
        return f"{file}: no such file; {path} is not the folder of a run ({_MODEL_IS}: {names})"
    if str(path) in CATALOG:
        return (
            f"{path} is the name of an architecture, which has no weights: `resnets train DATA "
            f"--network {path}` trains it; {_MODEL_IS}: {names}"
        )
    what = "a device or a pipe, not a file" if path.exists() else f"no such file{meant(path)}"
    return f"{file}: {what}; {_MODEL_IS}: {names}"


def _weight_files_in(folder: Path) -> list[Path]:
    """The files in a folder whose names end as those of weights do, in order."""
    endings = (".safetensors", *TORCH_ENDINGS)
    return sorted(file for file in folder.iterdir() if file.name.lower().endswith(endings))


def _has_ended(run: Path) -> bool:
    """Whether a run was trained to its end and scored, by the last line of its log."""
    with contextlib.suppress(OSError, ValueError, RecursionError):
        last = json.loads(read_text(run / LOG).rstrip().rpartition("\n")[2])
        return isinstance(last, dict) and last.get("kind") == "end"
    return False


def meant(word: str | Path) -> str:
    """What a word that is no MODEL may be meant for, as the end of an error message.

    It is a network of the hub, or what is called almost like it: the runs and model files beside
    it, the usual runs, networks with published weights, and those of the package.
    """
    path, name = Path(word), Path(word).as_posix()
    if re.fullmatch(r"[A-Za-z0-9][\w-]*/[\w.-]+", name) and not (
        is_reference(name) or path.parent.is_dir()
    ):
        return f"; a network of the hub is hf-hub:{name}"
    known = {row.network: row.network for row in published() if find_recommended(row.network)}
    known |= {row.id: row.id for row in published()} | {each: each for each in shipped.names()}
    for folder in dict.fromkeys((RUNS, path.parent)):
        known |= {each.name: str(each) for each in _models_in(folder)}
    begun = [key for key in known if re.match(rf"{re.escape(path.name)}[._-]", Path(key).name)]
    like = difflib.get_close_matches(path.name, known, n=_NEAREST)
    near = list(dict.fromkeys([*begun[:_NEAREST], *like]))[:_NEAREST] if path.name else []
    return "; nearest: " + ", ".join(known[each] for each in near) if near else ""


def _models_in(folder: Path) -> list[Path]:
    """The first runs and model files in a folder."""
    try:
        entries = sorted(itertools.islice(folder.iterdir(), _MOST_LISTED))
    except OSError:
        return []
    return [entry for entry in entries if names_model(str(entry))]


@cache  # once is enough: a command may look a MODEL up more than once
def _tell_which(network: str, identifier: str) -> None:
    """Tell the user which weights the name of a network stands for."""
    say(f"{network}: its recommended weights are used, {identifier}", file=sys.stderr)


def calibrated_beside(file: Path) -> Path:
    """Where `calibrate` writes a model file by default: beside the one that it reads, or here.

    >>> calibrated_beside(Path("run/model.safetensors")).as_posix()
    'run/model-calibrated.safetensors'
    """
    return folder_beside(file) / f"{file.stem}-calibrated.safetensors"


@cache  # likewise
def _tell_of_calibrated(file: Path) -> None:
    """Tell the user of a folder that a newer calibration of its network is not what is used."""
    newer = calibrated_beside(file)
    with contextlib.suppress(OSError):
        if newer.stat().st_mtime_ns >= file.stat().st_mtime_ns:
            say(
                f"{file} is used; {newer} is newer and has another calibration: give that file as "
                "MODEL to use it",
                file=sys.stderr,
            )


def _is_safetensors(file: Path) -> bool:
    """By its first bytes: the length of its header, which is a table in JSON."""
    with open_input(file, _LARGEST) as content:
        return content.read(9)[8:] == b"{"


def files_of(model: str | Path) -> list[Path]:
    """The files that may be read for a MODEL: its own, and an exported one beside it."""
    path = Path(model) / MODEL if Path(model).is_dir() else Path(model)
    return [path, *(path.with_suffix(ending) for ending in (".onnx", ".xml", ".bin"))]


def folder_beside(file: Path) -> Path:
    """Where what is made from a MODEL goes by default: beside it, or here.

    Networks of the package, and published ones in a cache, have nothing beside them.
    """
    caches = (model_folder(), hub_folder())
    kept = file.parent == shipped.FOLDER or any(cache in file.parents for cache in caches)
    return Path() if kept else file.parent
