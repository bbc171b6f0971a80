"""The weights of one project under the names of another, with preprocessing and class names."""

import math
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from resnets import model_file, model_path
from resnets.deployment.exported.reading import refuse_exported
from resnets.errors import UsageError
from resnets.escaping import say
from resnets.files.outputs import refuse_existing, writable, writable_folder
from resnets.files.reading import existing, read_text
from resnets.format import plural
from resnets.headers import TORCH_ENDINGS
from resnets.images import Preprocessing
from resnets.images.preprocessing import IMAGENET_MEAN, IMAGENET_STD
from resnets.model_file import CONVERTED_FROM, Description, Model, custom_class
from resnets.networks.architecture import Filter

if TYPE_CHECKING:
    from resnets.data.sources.opening import Data
    from resnets.networks import ResNet

Project = Literal["torchvision", "timm", "huggingface", "resnets"]
Weightless = Literal["padding", "padding_after", "none"]  # shortcuts
FilterName = Literal["binomial", "average"]

_FILTERS: dict[str, Filter] = {"binomial": True, "average": "average"}
_CHOICES: dict[str, tuple[Any, ...]] = {  # by flag, what no weights show
    "strided_conv": (1, 2),
    "shortcut": get_args(Weightless),
    "blur": get_args(FilterName),
}
_CLASS_NAMES = "class names"  # in `Description.assumed`
_WEIGHT_FILES = (".safetensors", *TORCH_ENDINGS)


@dataclass(frozen=True)
class Conversion:
    """What is to be written, and how.

    Attributes:
        to: the project whose names to use.
        target: the file or folder to write.
        preprocessing: of the images: size, resize, crop_fraction, crop_mode, interpolation, mean
            and std, as far as they are chosen; None is not chosen.
        choices: what no weights show: strided_conv, shortcut and blur, likewise.
        class_names: one a logit, or a text file with one a line; None: those that are known.
        verify: labelled images on which the network will be measured; None: none.
        cache: for these at an address, how much of them to keep on the local disk.
        ignore_left_over: leave out weights that are not understood.
    """

    to: Project
    target: Path
    preprocessing: Mapping[str, Any] = field(default_factory=dict)
    choices: Mapping[str, Any] = field(default_factory=dict)
    class_names: "str | os.PathLike[str] | Sequence[str] | None" = None
    verify: str | None = None
    cache: str | None = None
    ignore_left_over: bool = False

    def data(self) -> "Data":
        """The images to verify on, with a cache of those at an address."""
        from resnets.data.sources.opening import with_cache

        return with_cache(self.verify or "", self.cache)

    @property
    def is_folder(self) -> bool:
        """Whether a folder is written."""
        weights_alone = self.target.suffix in _WEIGHT_FILES
        return self.to == "huggingface" or (self.to == "timm" and not weights_alone)

    @property
    def holds_description(self) -> bool:
        """Whether what is written says how images are prepared and what the classes are."""
        return self.to == "resnets" or self.is_folder

    @property
    def architecture_changes(self) -> dict[str, Any]:
        """The chosen fields of the architecture.

        Raises:
            UsageError: there is no such value.
        """
        chosen = {name: value for name, value in self.choices.items() if value is not None}
        for name, value in chosen.items():
            if value not in _CHOICES[name]:
                known = ", ".join(map(str, _CHOICES[name]))
                raise UsageError(f"{_flag(name)} {value!r} is not one of {known}")
        return chosen | {"blur": _FILTERS[chosen["blur"]]} if "blur" in chosen else chosen


@dataclass(frozen=True)
class Prepared:
    """A network, read and described as it will be written.

    Attributes:
        model: the network, with its new description.
        notes: what the user should know, a line each.
    """

    model: Model
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Source:
    """What is converted.

    Attributes:
        file: it was in.
        network: with its weights.
        description: if it is this project's model file.
        preprocessing: of the images, if it is known.
        class_names: one a logit, if they are known.
        notes: what the user should know, a line each.
    """

    file: str
    network: "ResNet"
    description: Description | None = None
    preprocessing: Preprocessing | None = None
    class_names: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def prepare(source: Path | Model, conversion: Conversion, *, overwrite: bool = False) -> Prepared:
    """Read what is converted, and describe it; nothing is written.

    Args:
        source: a file of weights, or a loaded network.
        conversion: what is to be written.
        overwrite: whether what is at the target may be replaced.

    Raises:
        UsageError: the target exists, or a choice is not allowed or would have no effect.
        ContentError: the source cannot be read, or holds weights that are not understood.
    """
    if conversion.to not in get_args(Project):
        raise UsageError(f"--to {conversion.to!r} is not one of {', '.join(get_args(Project))}")
    inputs = _inputs(source, conversion)
    flags = {n: v for n, v in conversion.preprocessing.items() if v is not None}
    if "resize" in flags and "crop_fraction" in flags:
        raise UsageError("--resize and --crop-fraction: give one of them")
    _check_target(conversion, overwrite, inputs)
    changes = conversion.architecture_changes
    content = _of_model(source, changes) if isinstance(source, Model) else None
    content = content or _read(inputs[0], changes, conversion.ignore_left_over)
    if "strided_conv" in changes and "bottleneck" not in content.network.architecture.block:
        raise UsageError(
            f"--strided-conv: {content.file} holds no bottlenecks, whose stride it places, so this "
            "would have no effect; leave it out"
        )
    _refuse_unused(flags | {"class_names": conversion.class_names}, conversion)
    names = _names(conversion, content)
    description = _described(content, flags, names)
    description = replace(description, assumed=_assumed(content, flags, names))
    notes = content.notes
    if description.assumed and (conversion.holds_description or conversion.verify is not None):
        notes = (*notes, _assumed_in_words(description))
    if conversion.holds_description:
        notes = (*notes, *_of_other_crops(description, conversion.to))
    if conversion.is_folder:
        notes = (*notes, *_left_behind(description))
    return Prepared(Model(content.network, description), notes)


def _left_behind(description: Description) -> tuple[str, ...]:
    """What a folder of another project has no place for, of what the network's file says."""
    from resnets.data.membership import TrainedOn  # numpy, which --help does not need

    names = []
    if "threshold" in description.calibration or description.familiarity:
        names.append("the thresholds by which predictions are ok, unsure or unfamiliar")
    if len(TrainedOn.from_dict(description.trained_on).trained):
        names.append("the digests of the training images, by which `evaluate` leaves them out")
    if not names:
        return ()
    return (f"the folder has no place for {', nor for '.join(names)}: keep the model file",)


def _of_other_crops(description: Description, project: str) -> tuple[str, ...]:
    """That a project cuts out another square of some images, where it does."""
    preprocessing = description.preprocessing
    theirs = {"timm": "even", "huggingface": "down"}.get(project, preprocessing.crop_rounding)
    if preprocessing.crop_mode == "squash" or preprocessing.crop_rounding == theirs:
        return ()
    how = {"even": "half to even", "down": "down"}
    return (
        f"{project}, and this package where it reads the folder, begin the square that is cut out "
        f"of some images one pixel elsewhere: where the rest is odd they round {how[theirs]}, and "
        f"this network rounds {how[preprocessing.crop_rounding]}. Measure it anew there",
    )


def write(prepared: Prepared, conversion: Conversion) -> None:
    """Write a network as the project has it.

    Raises:
        UsageError: the project has no such network, or cannot prepare images so.
    """
    from resnets.networks.checkpoints import conversion as weights
    from resnets.networks.checkpoints import hub_export

    network, known = prepared.model.network, prepared.model.description
    if conversion.to == "resnets":
        model_file.save(conversion.target, network, known)
    elif conversion.is_folder:
        temperature = float(known.calibration.get("temperature", 1.0))
        contents = hub_export.Contents(network, known.class_names, known.preprocessing, temperature)
        hub_export.write_folder(contents, conversion.to, conversion.target)
    else:
        theirs = weights.convert(network, conversion.to)
        weights.write({name: value.cpu() for name, value in theirs.items()}, conversion.target)


def beside(file: Path, to: str) -> Path:
    """Where the result goes by default."""
    endings = {"torchvision": ".pth", "resnets": ".safetensors"}
    name = file.name.partition(".")[0]
    return model_path.folder_beside(file) / f"{name}-{to}{endings.get(to, '')}"


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-').replace(' ', '-')}"


def _inputs(source: Path | Model, conversion: Conversion) -> list[Path]:
    """The files that are read, that of the weights first.

    Raises:
        UsageError: one is missing, or is an exported file.
    """
    files = []
    if isinstance(source, Path):
        refuse_exported(source, "convert writes its weights")
        files.append(source)
    if isinstance(conversion.class_names, str | os.PathLike):
        files.append(Path(conversion.class_names))
        existing(files[-1])
    return files


def _refuse_unused(flags: Mapping[str, Any], conversion: Conversion) -> None:
    """Refuse what a file of weights alone cannot hold, unless it is for `verify`.

    Raises:
        UsageError: it names the flags.
    """
    flags_set = [_flag(name) for name, value in flags.items() if value is not None]
    if flags_set and conversion.verify is None and not conversion.holds_description:
        raise UsageError(
            f"{', '.join(flags_set)}: {conversion.target.name} holds weights alone, so this would "
            "have no effect; leave it out, or write a model file (--to resnets) or a folder "
            "(--to timm, huggingface)"
        )


def _check_target(conversion: Conversion, overwrite: bool, inputs: Sequence[Path]) -> None:
    """Refuse to write over an input, or over what is there unless told to.

    Raises:
        UsageError: as it says.
    """
    from resnets.networks.checkpoints.hub_export import FILES

    target, parts = conversion.target, [conversion.target]
    if conversion.is_folder:
        writable_folder(target)
        parts = [target / name for name in FILES[conversion.to]] if target.is_dir() else []
    for part in parts:
        writable(part, inputs)
    refuse_existing(target, overwrite)


def _of_model(model: Model, changes: Mapping[str, Any]) -> _Source:
    """A loaded network.

    Raises:
        UsageError: it is of the user's own class, or its architecture is to be changed.
    """
    about = model.description
    if own := custom_class(about.architecture):
        raise UsageError(
            f"{own}: a network of your own, for whose weights no other project has names"
        )
    _refuse_changes(changes, "the network is loaded")
    return _Source("", model.network, about, about.preprocessing, about.class_names)


def _refuse_changes(changes: Mapping[str, Any], why: str) -> None:
    """Refuse changes to an architecture that is known. Raises UsageError."""
    if changes:
        raise UsageError(
            f"{', '.join(map(_flag, changes))}: {why}, so that nothing of it is left open; leave "
            "it out"
        )


def _read(file: Path, changes: dict[str, Any], ignore_left_over: bool) -> _Source:
    """The network in a file, and what is known of it.

    Raises:
        UsageError: the architecture of a model file is to be changed.
    """
    if model_file.is_model_file(file):
        _refuse_changes(changes, f"{file} holds a network with its architecture")
        model = model_file.load(file)
        return replace(_of_model(model, {}), file=str(file))
    from resnets.networks.checkpoints import hub_folder

    if not hub_folder.is_hub_folder(file.parent):
        return _Source(str(file), _loaded(file, changes, ignore_left_over))
    hub = hub_folder.read_hub_folder(file.parent)
    if hub.weights != file:
        return _Source(str(file), _loaded(file, changes, ignore_left_over))
    hub = replace(hub, changes=hub.changes | changes)
    if ignore_left_over:
        _list_left_out(file, hub.changes)
    network = hub.network(ignore_left_over=ignore_left_over)
    return _Source(str(file), network, None, hub.preprocessing, hub.class_names, hub.notes)


def _loaded(file: Path, changes: dict[str, Any], ignore_left_over: bool) -> "ResNet":
    """The network of a checkpoint; weights that are left out are listed."""
    from resnets.networks.checkpoints.foreign import load_checkpoint

    if ignore_left_over:
        _list_left_out(file, changes)
    return load_checkpoint(file, ignore_left_over=ignore_left_over, **changes)


def _list_left_out(file: Path, changes: Mapping[str, Any]) -> None:
    """Say which weights of a checkpoint are not understood, if any."""
    from resnets.networks.checkpoints.foreign import read_checkpoint

    if names := read_checkpoint(file, **changes).left_over.unknown:
        say(f"left out: {', '.join(names)}", file=sys.stderr)


def _described(source: _Source, flags: Mapping[str, Any], names: tuple[str, ...]) -> Description:
    """The description with the network's own architecture, the class names and what flags say.

    With other preprocessing, what was measured and fitted before is no longer true of it.
    """
    preprocessing, description = _preprocessing(source, dict(flags)), source.description
    if description is None:
        description = Description({}, names, preprocessing, data={CONVERTED_FROM: source.file})
    elif description.preprocessing != preprocessing:
        description = replace(description, metrics={}, calibration={}, familiarity={})
    architecture = source.network.architecture.to_dict()
    return replace(
        description, architecture=architecture, class_names=names, preprocessing=preprocessing
    )


def _made_up(number: int) -> tuple[str, ...]:
    """Names of classes that nobody knows."""
    return tuple(f"class {index}" for index in range(number))


def _names(conversion: Conversion, source: _Source) -> tuple[str, ...]:
    """One class name a logit: as chosen, or as known, or the images', or made up."""
    number, chosen = source.network.architecture.num_classes, conversion.class_names
    if chosen is None and conversion.verify is not None and not source.class_names:
        from resnets.data.sources.opening import open_data

        names = tuple(open_data(conversion.data()).class_names)
        where = f"--verify {conversion.verify}"
        what = plural(len(names), "class")
    elif chosen is None:
        return source.class_names or _made_up(number)
    elif isinstance(chosen, str | os.PathLike):
        lines = read_text(Path(chosen)).splitlines()
        names, where = tuple(line.strip() for line in lines if line.strip()), os.fspath(chosen)
        what = plural(len(names), "name")
    else:
        names, where = tuple(map(str, chosen)), "--class-names"
        what = plural(len(names), "name")
    if len(names) != number:
        raise UsageError(f"{where}: {what}; the network has {plural(number, 'class')}")
    return names


def _assumed(source: _Source, flags: Mapping[str, Any], names: tuple[str, ...]) -> tuple[str, ...]:
    """What neither the source nor the flags say.

    Who gives mean and std knows how images are prepared, and so agrees with the size.
    """
    before = source.description.assumed if source.description else ()
    if source.preprocessing is None:
        before = ("mean", "std", "size")
    if source.description is None and names == _made_up(len(names)):
        before = (*before, _CLASS_NAMES)
    chosen = set(flags) | ({_CLASS_NAMES} if names != _made_up(len(names)) else set())
    if chosen >= {"mean", "std"}:
        chosen.add("size")
    return tuple(name for name in before if name not in chosen)


def _assumed_in_words(description: Description) -> str:
    """What was assumed, its values, and the flags that say otherwise."""
    preprocessing, names = description.preprocessing, description.class_names
    values = {
        "mean": " ".join(f"{value:.4g}" for value in preprocessing.mean),
        "std": " ".join(f"{value:.4g}" for value in preprocessing.std),
        "size": f"{preprocessing.size} pixels (images resized to {preprocessing.resize})",
        _CLASS_NAMES: f"{names[0]!r} to {names[-1]!r}",
    }
    assumed = ", ".join(f"{name} {values[name]}" for name in description.assumed)
    flags = ", ".join(_flag(name) for name in description.assumed)
    return f"its file does not tell what is assumed here: {assumed}; {flags} say otherwise"


def _preprocessing(source: _Source, flags: dict[str, Any]) -> Preprocessing:
    """What is known of the preprocessing, with what the flags say.

    A new size without `resize` or `crop_fraction` keeps the fraction that is cropped.
    """
    architecture, known = source.network.architecture, source.preprocessing
    channels, small = architecture.in_channels, architecture.is_for_small_images
    for name in ("mean", "std"):
        count = len(flags.get(name, ())) or channels
        if count != channels or (known is None and name not in flags and channels != 3):
            raise UsageError(
                f"the network takes {channels} channels; --mean and --std need as many numbers"
            )
    before = known or _usual(channels, 32 if small else 224)
    fraction = flags.pop("crop_fraction", None)
    size = flags.get("size", before.size)
    resize = flags.pop("resize", None)
    if fraction is not None and not 0 < fraction <= 1:
        raise UsageError(f"--crop-fraction {fraction}: it must be above 0 and at most 1")
    if resize is None:
        resize = math.floor(size / fraction) if fraction else before.resize * size // before.size
    return replace(before, resize=resize, **flags)


def _usual(channels: int, side: int) -> Preprocessing:
    """The preprocessing of most networks: 224 pixels cut from 256, or 32 pixels as they are."""
    mean, std = (IMAGENET_MEAN, IMAGENET_STD) if channels == 3 else ((0.5,) * channels,) * 2
    return Preprocessing(side, side * 8 // 7 if side == 224 else side, mean, std)
