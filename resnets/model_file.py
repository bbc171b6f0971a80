"""The model file, which every command takes: weights and their description, as safetensors.

The header of a safetensors file holds a table of text values. Here each value is JSON, so that
the file is enough to rebuild its network, to prepare images as in training and to tell its figures.
There is no pickle, and nothing in the file is evaluated. `read_description` needs no torch.
"""

import contextlib
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from resnets.errors import ContentError, UsageError
from resnets.escaping import escaped, shell_line
from resnets.fields import from_table
from resnets.files.folders import is_cached
from resnets.files.reading import regular
from resnets.files.writing import write_atomically
from resnets.format import percent, plural
from resnets.golden import golden_of
from resnets.headers import TORCH_ENDINGS, parse_json, read_safetensors_header
from resnets.images import Preprocessing
from resnets.integrity import DIGEST, UNSTAMPED, stamped, verify_file
from resnets.json_text import to_json
from resnets.networks.architecture import Architecture
from resnets.networks.catalog import display_name
from resnets.networks.limits import refuse_claims, refuse_large_images
from resnets.notebook import html_table

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

    from resnets.networks import ResNet

_FORMAT = 1  # raised when a file written today could not be read by yesterday's code
_ADDED_LATER = {"trained_on", "familiarity", "golden", "assumed"}  # not in files of before
CONVERTED_FROM = "converted_from"  # in `Description.data`: the file whose weights these are
_LARGEST = 1 << 36  # bytes
_SHOWN = 10  # class names in the table of a notebook
_SHOWN_IN_LINE, _LONGEST = 3, 60  # class names in a line, and characters of a name
_CUSTOM = "own"  # in the place of an architecture: the class of a network of the user's own code


@dataclass(frozen=True)
class Description:
    """What a model file says about its network.

    Attributes:
        architecture: `Architecture.to_dict()`, enough to rebuild the network; or {"own": CLASS},
            where it is a module of the user's own, whose code no file holds.
        class_names: one name per logit, in order.
        preprocessing: how an image becomes what the network sees.
        recipe: how the network was trained.
        metrics: figures by name, each with the number of images behind it.
        data: the source, its fingerprint and how it was split.
        calibration: temperature and rejection threshold, empty if never fitted.
        versions: of this package and of what it ran on.
        trained_on: digests of the images it was trained on; empty if they are unknown.
        familiarity: the score that recognises unfamiliar images, and its threshold; empty if
            never fitted.
        golden: the seed of a synthetic image and its probabilities, by which `resnets serve` checks
            the network that it opened; made when the file is written, empty in older files.
        assumed: what of the preprocessing and the class names was assumed by `resnets convert`, as
            the file that it converted does not say: "mean", "std", "size", "class names".
    """

    architecture: dict[str, Any]
    class_names: tuple[str, ...]
    preprocessing: Preprocessing
    recipe: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    calibration: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=lambda: current_versions())
    trained_on: dict[str, Any] = field(default_factory=dict)
    familiarity: dict[str, Any] = field(default_factory=dict)
    golden: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)
    assumed: tuple[str, ...] = ()

    @property
    def origin(self) -> Mapping[str, Any]:
        """Where the weights were published, if they are as others published them; else empty."""
        generations = self.trained_on.get("generations") or [{}]
        origin: Mapping[str, Any] = generations[0].get("origin", {})
        return origin

    @property
    def in_a_line(self) -> str:
        """Network, classes, data and accuracy, in one short line: the digests alone fill pages."""
        try:
            return escaped(", ".join(self._parts_of_line()))
        except (AttributeError, LookupError, TypeError, ValueError):
            return "damaged"  # but it can be shown all the same

    def _parts_of_line(self) -> Iterator[str]:
        """Each part of the line; what is unknown is left out."""
        yield custom_class(self.architecture) or _name_of(self.architecture)
        names = ", ".join(self.class_names[:_SHOWN_IN_LINE])
        more = ", ..." if len(self.class_names) > _SHOWN_IN_LINE else ""
        yield f"{plural(len(self.class_names), 'class')} ({_shortened(names)}{more})"
        published = " ".join(map(str, self.origin.values()))
        if published:
            yield f"published weights {_shortened(published)}"
        elif source := self.data.get("source"):
            yield f"trained on {_shortened(str(source))}"
        for split, score in self.metrics.items():
            if accuracy := _accuracy(score):
                yield f"{split.replace('_', '-')} accuracy {accuracy}"

    @property
    def assumed_in_words(self) -> str:
        """What was assumed when the file was made, in a sentence; empty if nothing was."""
        if not self.assumed:
            return ""
        return (
            f"assumed: {escaped(', '.join(self.assumed))} (the file that was converted does not "
            "tell them; where they are others, predictions are wrong: `resnets convert` takes them)"
        )

    def __repr__(self) -> str:
        return f"<Description: {self.in_a_line}>"

    def to_header(self) -> dict[str, str]:
        """The description as text values, for the header of a safetensors file."""
        values = asdict(self) | {"preprocessing": self.preprocessing.to_dict()}
        if not self.assumed:  # files stay as earlier versions wrote them
            del values["assumed"]
        texts = {name: to_json(value, sort=True) for name, value in values.items()}
        return {"format": f"resnets/{_FORMAT}"} | texts

    @classmethod
    def from_header(cls, header: Mapping[str, str], source: str) -> "Description":
        """Read what `to_header` wrote.

        Raises:
            ContentError: naming `source`, if it is not such a header or is of a newer format.
        """
        _check_format(header.get("format", ""), source)
        names = [item.name for item in fields(cls)]
        try:
            values = {
                name: parse_json(header[name])
                for name in names
                if name in header or name not in _ADDED_LATER
            }
        except KeyError as error:
            raise ContentError(f"{source}: the header has no {error.args[0]!r}") from None
        except ContentError as error:
            raise ContentError(f"{source}: the header is damaged ({error})") from None
        try:
            return _without_converted_source(from_table(cls, values))
        except ContentError as error:
            raise ContentError(f"{source}: {error}") from None


def _without_converted_source(description: Description) -> Description:
    """The description with a checkpoint that earlier versions named as its data in its place."""
    source = str(description.data.get("source", ""))
    if len(description.data) > 1 or not source.endswith((".safetensors", *TORCH_ENDINGS)):
        return description
    return replace(description, data={CONVERTED_FROM: source})


def architecture_of(network: object) -> dict[str, Any]:
    """`Description.architecture` of a network, of this package or of the user's own."""
    architecture = getattr(network, "architecture", None)
    if isinstance(architecture, Architecture):
        return architecture.to_dict()
    return {_CUSTOM: type(network).__name__}


def custom_class(architecture: Mapping[str, Any]) -> str:
    """The class of a network of the user's own; empty for networks of this package.

    >>> custom_class({"own": "Net"}), custom_class({"block": "residual"})
    ('Net', '')
    """
    return str(architecture.get(_CUSTOM, ""))


@dataclass(frozen=True)
class Model:
    """A network in evaluation mode, and its description.

    Attributes:
        network: one of this package; or a module of the user's own, from images (N, C, S, S) to
            logits (N, K), which has no features: `custom_class(description.architecture)` tells.
        description: of its file.
    """

    network: "ResNet"
    description: Description

    def __repr__(self) -> str:
        return f"<Model: {self.description.in_a_line}>"

    def _repr_html_(self) -> str:
        """For notebooks."""
        about = self.description
        names = ", ".join(about.class_names[:_SHOWN])
        others = len(about.class_names) - _SHOWN
        more = f" and {others:,} more" if others > 0 else ""
        side, channels = about.preprocessing.size, about.preprocessing.channels
        rows = [
            ("network", custom_class(about.architecture) or _name_of(about.architecture)),
            ("classes", f"{names}{more}"),
            ("image", f"{side} x {side} pixels, {plural(channels, 'channel')}"),
            ("trained on", about.data.get("source", "")),
            *((f"{split} accuracy", _accuracy(score)) for split, score in about.metrics.items()),
        ]
        return html_table([row for row in rows if row[1]], title="Model")


def _name_of(architecture: Mapping[str, Any]) -> str:
    """What screens call a network of this package."""
    return display_name(Architecture.from_dict(architecture))


def _shortened(text: str) -> str:
    """A text for a line, without the end of a long one.

    >>> len(_shortened("n" * 1000))
    60
    """
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."


def _accuracy(score: Any) -> str:
    """The accuracy of a split in a description, in percent; empty if it has none."""
    top1 = score.get("top1") if isinstance(score, Mapping) else None
    return percent(top1["count"] / top1["total"], 2) if top1 and top1["total"] else ""


def _check_format(text: str, source: str) -> None:
    """Refuse a file that is not ours, or is from a later version of this package."""
    kind, _, number = text.partition("/")
    if kind != "resnets" or not re.fullmatch("[0-9]{1,9}", number):
        raise ContentError(
            f"{source}: a safetensors file, but not a model file of resnets "
            "(`resnets inspect` tells what it holds, `resnets convert --to resnets` makes it one)"
        )
    if int(number) > _FORMAT:
        raise ContentError(
            f"{source}: written in format {number}; this version reads up to {_FORMAT} "
            "(pip install --upgrade resnets)"
        )


def check_claims(description: Description, source: object) -> Architecture:
    """The architecture in a description, if its parts fit each other and the memory.

    Raises:
        ContentError: naming `source`, if they do not.
    """
    if name := custom_class(description.architecture):
        raise ContentError(
            f"{source}: the weights of {name}, a network of its user's own code, which no file "
            "holds; in Python, resnets.load(path, network=...) puts them into such a module"
        )
    try:
        architecture = Architecture.from_dict(description.architecture)
        refuse_large_images(architecture, description.preprocessing)
    except ValueError as error:  # also a UsageError: what a file says is its content
        raise ContentError(f"{source}: {error}") from None
    names, channels = len(description.class_names), description.preprocessing.channels
    if names != architecture.num_classes or channels != architecture.in_channels:
        raise ContentError(
            f"{source}: {names} class names and images of {channels} channels, for a network of "
            f"{plural(architecture.num_classes, 'class')} and {architecture.in_channels} channels"
        )
    return architecture


def current_versions() -> dict[str, str]:
    """Versions of the software that determines results."""
    versions = {"python": ".".join(map(str, sys.version_info[:3]))}
    for name in ("resnets", "torch", "numpy", "pillow"):
        with contextlib.suppress(PackageNotFoundError):
            versions[name] = version(name)
    return versions


def read_header(path: str | Path) -> dict[str, str]:
    """The text values in the header of a safetensors file, without reading a weight.

    Raises:
        OSError: if the file cannot be read.
        ContentError: if it is not a safetensors file.
    """
    return read_safetensors_header(path).metadata


def is_model_file(path: str | Path) -> bool:
    """Whether a file is one of this project's, by its header.

    Raises:
        OSError: if it cannot be read.
    """
    try:
        return read_header(path).get("format", "").startswith("resnets/")
    except ContentError:
        return False


def read_description(path: str | Path) -> Description:
    """What a model file says about its network. Imports no torch and reads no weight.

    Raises:
        OSError: if the file cannot be read.
        ContentError: if it is not a model file, is damaged, or is of a newer format.
    """
    return Description.from_header(read_header(path), str(path))


def save(path: str | Path, network: "ResNet", description: Description) -> None:
    """Write a model file, at once or not at all: a reader never sees half a file.

    Args:
        path: where to; an existing file is replaced.
        network: its weights are written in the types that they have.
        description: `architecture` must be the network's own.

    Raises:
        UsageError: if the network has no classifier.
    """
    from safetensors.torch import save as serialise

    if _CUSTOM not in description.architecture and "fc.weight" not in network.state_dict():
        raise UsageError(
            f"{path}: the network has no classifier, so that a model file cannot hold it: give it "
            "one with reset_classifier(number of classes)"
        )
    weights = {name: value.detach().cpu().contiguous() for name, value in _state(network).items()}
    header = with_golden(description, network).to_header() | {DIGEST: UNSTAMPED}
    write_atomically(Path(path), stamped(serialise(weights, metadata=header)))


def with_golden(description: Description, network: "ResNet") -> Description:
    """The description with the golden image's probabilities; without for the user's own modules."""
    if _CUSTOM in description.architecture:
        return replace(description, golden={})
    golden = golden_of(network, description.preprocessing, description.calibration)
    return replace(description, golden=golden)


def _state(network: "ResNet") -> "dict[str, Tensor]":
    """The weights by name, none of them sharing memory with another."""
    values = network.state_dict().items()
    return {name: value.clone() for name, value in values if hasattr(value, "clone")}


def load(path: str | Path, device: str = "cpu", network: "Module | None" = None) -> Model:
    """Rebuild the network that a model file describes, in evaluation mode.

    Args:
        path: the model file.
        device: where the network shall be.
        network: a module of the user's own, for whose class the file has weights; it gets them.

    Raises:
        OSError: if the file cannot be read.
        UsageError: `network` is given, and the file needs none.
        ContentError: if it is not a model file, is damaged, or its weights do not fit its
            architecture or are no finite numbers.
    """
    header = read_safetensors_header(path)
    description = Description.from_header(header.metadata, str(path))
    if network is not None and not custom_class(description.architecture):
        raise UsageError(f"{path}: the file says which network it is; load it without network=")
    architecture = check_claims(description, path) if network is None else None
    _verify(path, header.metadata.get(DIGEST), description)
    if architecture is None:
        _fill(cast("Module", network), path, sound=False)  # masks, say, may be infinite
        return Model(cast("ResNet", network).to(device).eval(), description)
    from resnets.networks import build

    try:
        refuse_claims(architecture, header.shapes)
        built = build(architecture)
    except ValueError as error:  # also what torch raises for sizes that do not go together
        raise ContentError(f"{path}: {error}") from None
    _fill(built, path)
    return Model(built.to(device).eval(), description)


def _verify(path: str | Path, digest: str | None, description: Description) -> None:
    """Refuse a damaged file; say how one in the cache, made of others' weights, is made anew.

    Raises:
        OSError: it cannot be read.
        ContentError: it has changed since it was written.
    """
    try:
        verify_file(path, digest)
    except ContentError as error:
        if not is_cached(path):
            raise
        published = description.origin.get("id")
        how = "delete it, and it is made anew"
        if published:
            how = f"`{shell_line('resnets', 'fetch', published)}` replaces it"
        raise ContentError(f"{error}; {how}") from None


def _fill(network: "Module", path: str | Path, sound: bool = True) -> None:
    """Give a network the weights of a file.

    Raises:
        ContentError: they do not fit, or, where they must be `sound`, are no finite numbers.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from resnets.networks.limits import refuse_unsound

    try:
        weights = load_file(regular(path, _LARGEST))
        if sound:
            refuse_unsound(weights, path)
        network.load_state_dict(weights)
    except (SafetensorError, RuntimeError) as error:
        reason = str(error).splitlines()[-1].strip()
        raise ContentError(f"{path}: the weights do not fit the architecture: {reason}") from None


def update(path: str | Path, **changes: Any) -> Description:
    """Replace parts of the description in a model file; its weights stay as they are.

    Args:
        path: the model file.
        changes: fields of `Description` and their new values.
    """
    model = load(path)
    description = replace(model.description, **changes)
    save(path, model.network, description)
    return description
