"""The network that a training starts from: a trained one, or a new one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from resnets import model_file, model_path
from resnets.data.membership import Generation, TrainedOn
from resnets.errors import ContentError, UsageError
from resnets.images import Preprocessing
from resnets.images.preprocessing import IMAGENET_MEAN, IMAGENET_STD
from resnets.model_file import Description, custom_class, is_model_file
from resnets.networks import Architecture, ResNet, build
from resnets.networks.catalog import display_name, name_of, select
from resnets.networks.checkpoints.foreign import load_with_head, read_checkpoint
from resnets.networks.checkpoints.hub_folder import is_hub_folder, read_hub_folder
from resnets.networks.limits import refuse_claims, refuse_unsound
from resnets.pretrained.files import sha256
from resnets.pretrained.hub import commit_of
from resnets.pretrained.reference import is_reference, read_reference
from resnets.pretrained.table import find_recommended
from resnets.runs import checkpoint
from resnets.training.recipe import Recipe


@dataclass(frozen=True)
class StartingPoint:
    """A network as it was trained before.

    Attributes:
        network: on the CPU.
        class_names: of its logits; None where its file does not say.
        preprocessing: what it was trained to see; None where its file does not say.
        history: what it was trained on; with one generation at least.
        description: what its file says of it; None where it says less.
        fresh_head: whether its classifier is new, because its file has none, or one for another
            number of classes.
        training_size: side of the images that it was trained on, in pixels, where its publisher
            says so and it is to see others.
        left_out: names of weights that were in its file and are not used.
        published: where its file is published, if it was named by an id: id, commit, sha256.
    """

    network: ResNet
    class_names: tuple[str, ...] | None
    preprocessing: Preprocessing | None
    history: TrainedOn
    description: Description | None = None
    fresh_head: bool = False
    training_size: int | None = None
    left_out: tuple[str, ...] = ()
    published: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_of_imagenets_kind(self) -> bool:
        """Whether it is a network for photos in colour, most of which see ImageNet's mean and std.

        So do torchvision's and timm's, whatever they were trained on.
        """
        architecture = self.network.architecture
        return not architecture.is_for_small_images and architecture.in_channels == 3

    def preprocessing_like(self, plain: Preprocessing) -> Preprocessing | None:
        """What it is to see of an image: as before, but for the sizes and the white level.

        Args:
            plain: has these, and as many channels as the images; mean and std are not looked at.

        Returns:
            None where nobody knows what the network was trained to see.
        """
        if self.preprocessing is None and not self.is_of_imagenets_kind:
            return None
        sizes = {name: getattr(plain, name) for name in ("size", "resize", "white")}
        if self.preprocessing is None:
            known = Preprocessing(plain.size, plain.resize, IMAGENET_MEAN, IMAGENET_STD)
        else:
            known = self.preprocessing
        return replace(known, **sizes).with_channels(plain.channels)

    @property
    def unknown_preprocessing_in_words(self) -> str | None:
        """What is taken for the preprocessing that its file does not tell; None if it does."""
        if self.preprocessing is not None:
            return None
        used = "those of the training images here are used"
        if self.is_of_imagenets_kind:
            used = "ImageNet's are used, as for most networks for photos, and bilinear resizing"
        return (
            f"its file does not tell mean and std: {used} (`resnets convert --mean --std` writes "
            "one that does)"
        )


def read_starting_point(
    path: Path, num_classes: int, *, ignore_left_over: bool = False
) -> StartingPoint:
    """Read a network from a run's folder, a model file, a training state or a foreign checkpoint.

    Args:
        path: of the file or folder; or the id of published weights, or the name of a network, which
            stands for the weights that are recommended for it.
        num_classes: of the fresh classifier that a foreign checkpoint gets if it has none, or one
            for another number of classes.
        ignore_left_over: leave out weights of a foreign checkpoint that are not understood.

    Raises:
        UsageError: if there is nothing there.
        ContentError: if it cannot be used.
    """
    try:
        file = _with_its_folder(_with_weights_of_name(path))
        find = model_path.find_model if is_hub_folder(file) else model_path.find_weights
        path = find(file)
    except UsageError as error:
        raise UsageError(f"--from {error}") from None
    except ContentError as error:
        if path.exists():
            raise
        raise ContentError(f"{error}; --from none trains without published weights") from None
    if checkpoint.NAME.fullmatch(path.name):
        return from_state(checkpoint.read(path), path.name)
    if path.suffix == ".safetensors" and "format" in model_file.read_header(path):
        model = model_file.load(path)
        description = model.description
        history = _history_of(description.trained_on, path.name, description.data)
        return StartingPoint(
            model.network,
            description.class_names,
            description.preprocessing,
            history,
            description,
            training_size=_whole(description.data.get("training_size")),
            published=_published_as(file, path, history),
        )
    nobody = Generation("", unknown=f"{path.name} does not say which")
    network, fresh = load_with_head(path, num_classes, ignore_left_over=ignore_left_over)
    left_out = read_checkpoint(path).left_over.unknown if ignore_left_over else ()
    history = TrainedOn((nobody,))
    return StartingPoint(network, None, None, history, fresh_head=fresh, left_out=left_out)


def _with_weights_of_name(path: Path) -> Path:
    """The id of the weights that are recommended for a network's name; others as they are."""
    row = None if path.exists() else find_recommended(str(path))
    return Path(row.id) if row else path


def _whole(value: object) -> int | None:
    """A whole number above 0 as a file holds it; None for anything else."""
    return value if type(value) is int and value > 0 else None


def _with_its_folder(path: Path) -> Path:
    """The folder of weights that a config.json beside them describes; another path as it is."""
    is_described = path.is_file() and not is_model_file(path) and is_hub_folder(path.parent)
    return path.parent if is_described and read_hub_folder(path.parent).weights == path else path


def _published_as(model: Path, file: Path, history: TrainedOn) -> Mapping[str, str]:
    """Where weights are published that the user named by an id; empty for those of a path.

    Args:
        model: an id, a path or a name.
        file: that was found by it.
        history: of the network in it. A model file of ours that somebody published, or that was
            made of published weights, tells where those were published, not where it is itself.
    """
    if model.exists() or not is_reference(model.as_posix()):
        return {}
    reference = read_reference(model.as_posix())
    origin = history.generations[0].origin
    if origin.get("id") == reference.id:
        return origin
    return {"id": reference.id, "commit": commit_of(file), "sha256": sha256(file)}


def from_state(state: dict[str, Any], name: str) -> StartingPoint:
    """The network of a training state: the mean of its weights, if it has one.

    Args:
        state: as it was saved.
        name: of its file.
    """
    with checkpoint.fitting(name):
        if name_of_own := custom_class(state["architecture"]):
            raise UsageError(
                f"{name} is of {name_of_own}, a network of its user's own code: load its weights "
                "into the module, and train that"
            )
        network = with_weights(Architecture.from_dict(state["architecture"]), final_weights(state))
        preprocessing = Preprocessing.from_dict(state["preprocessing"])
        history = _history_of(state.get("trained_on", {}), name, {})
        return StartingPoint(network, tuple(state["class_names"]), preprocessing, history)


def final_weights(state: dict[str, Any]) -> dict[str, Tensor]:
    """The weights of a training state: their mean, if it has one."""
    trainer = state["trainer"]
    average = trainer["average"]
    weights: dict[str, Tensor] = trainer["network"]
    return average["network"] if average and average["updates"] else weights


def _history_of(trained_on: Any, name: str, data: Mapping[str, Any]) -> TrainedOn:
    """What a file of ours says of the images that its network was trained on.

    Args:
        trained_on: as it stands in the file; empty in those of earlier versions.
        name: of the file.
        data: as `Description.data`.

    Raises:
        ContentError: it is damaged.
    """
    history = TrainedOn.from_dict(trained_on)
    if history:
        return history
    counts = data.get("counts", {})
    train, validation = (sum(counts.get(split, {}).values()) for split in ("train", "validation"))
    unknown = f"{name} has no digests of them"
    return TrainedOn((Generation(str(data.get("source", "")), train, validation, unknown=unknown),))


def continued(start: StartingPoint, recipe: Recipe, class_names: Sequence[str]) -> ResNet:
    """The network for new training: changed as the recipe says, and with a head for the classes."""
    before = start.network.architecture
    changes = {"in_channels": before.in_channels} | recipe.network_changes()
    channels = changes.pop("in_channels")
    network = with_weights(replace(before, **changes), start.network.state_dict())
    if channels != before.in_channels:
        network.adapt_channels(channels)
    if start.fresh_head or keeps_head(start, class_names):
        return network
    return network.replace_head(len(class_names))


def keeps_head(start: StartingPoint, class_names: Sequence[str]) -> bool:
    """Whether the classifier is for these classes, or for as many where nobody knows which."""
    if start.fresh_head:
        return False
    if start.class_names is None:
        return start.network.architecture.num_classes == len(class_names)
    return start.class_names == tuple(class_names)


def head_in_words(start: StartingPoint, class_names: Sequence[str]) -> str:
    """What becomes of the classifier of the network that a training starts from."""
    if not keeps_head(start, class_names):
        return "its classifier is replaced by a fresh one, for the classes here"
    if start.class_names is None:
        return (
            f"its classifier is kept, as it has the {len(class_names)} classes that the data has "
            "(the file does not say which)"
        )
    return "its classifier is kept"


def fresh_network(recipe: Recipe, num_classes: int) -> ResNet:
    """The recipe's network, freshly initialised. The recipe's network must be decided."""
    return build(recipe.network, num_classes=num_classes, **recipe.network_changes())


def with_weights(architecture: Architecture, weights: dict[str, Tensor]) -> ResNet:
    """A network of that architecture, with those weights."""
    refuse_claims(architecture, {name: tuple(value.shape) for name, value in weights.items()})
    network = build(architecture)
    refuse_unsound(weights, "the network to start from")
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        raise ContentError(f"the weights do not fit the network: {error}") from None
    return network


def recipe_for_start(recipe: Recipe, start: StartingPoint, path: str) -> Recipe:
    """The recipe with the network that was read, and the image size that it was trained with.

    Args:
        recipe: its network is "auto", or the one that was read.
        start: what was read.
        path: where from, for the error.

    Raises:
        UsageError: the recipe asks for another network.
    """
    name = display_name(start.network.architecture)
    if recipe.network not in ("auto", name) and name_of(select(recipe.network)) != name:
        raise UsageError(
            f"--network {recipe.network}: --from {path} holds another network ({name}), which is "
            f"what is trained then; leave out one of the two"
        )
    recipe = replace(recipe, network=name)
    preprocessing = start.preprocessing
    if recipe.image_size or preprocessing is None:
        return recipe
    return replace(
        recipe,
        image_size=preprocessing.size,
        training_size=recipe.training_size or start.training_size,
        resize=recipe.resize or preprocessing.resize,
    )
