"""What `--freeze` can mean for a network, and which settings `--freeze all` uses. No torch here."""

from pathlib import Path

from resnets import model_file, model_path, shipped
from resnets.errors import UsageError
from resnets.fields import differences
from resnets.networks.architecture import Architecture
from resnets.networks.catalog import select
from resnets.pretrained.table import find_recommended
from resnets.training.recipe import Recipe

_USED = {  # by the fit of a classifier, of a recipe and its augmentation
    *("network", "freeze", "image_size", "resize", "channels", "validation", "seed"),
    *("class_weights", "flip"),
    *("channels_last", "threads", "workers"),
    *("epochs", "steps", "patience"),  # `custom_parts.refuse_fit` has its own words for these
}
_DEEPEST = "resnet18"  # of the networks that are chosen where none is named: of most stages


def has_use(name: str, recipe: Recipe) -> bool:
    """Whether a field of a recipe or of its augmentation matters to how the recipe trains."""
    return recipe.freeze != "all" or name in _USED


def refuse_unused(recipe: Recipe, start: Recipe, optimizer: str | None = None) -> None:
    """Refuse settings that `--freeze all` cannot use, where a user has set them.

    Args:
        recipe: as the user wants it.
        start: what it was before the user's changes, which may have any values.
        optimizer: the user's choice, of which `start` has the values already; None for none.

    Raises:
        UsageError: it names them.
    """
    changed = [name.rpartition(".")[2] for name, _ in differences(recipe, start)]
    names = ["optimizer"] * (optimizer is not None) + changed
    unused = [f"--{name.replace('_', '-')}" for name in names if not has_use(name, recipe)]
    if unused:
        raise UsageError(
            f"--freeze all fits the classifier to features that are computed once, without steps "
            f"and with flips alone as augmentation; {', '.join(unused)} would have no effect: "
            f"leave {'it' if len(unused) == 1 else 'them'} out, or freeze fewer stages"
        )


def refuse_processes_for_head(recipe: Recipe, processes: int) -> None:
    """Refuse several processes where only the classifier is fitted.

    Raises:
        UsageError: `--freeze all` in more than one process.
    """
    if recipe.freeze == "all" and processes > 1:
        raise UsageError(
            f"--freeze all takes one pass in one process; these are {processes}: start it without "
            "torchrun"
        )


def refuse_missing_stage(recipe: Recipe, start: str | None) -> None:
    """Refuse to freeze a stage that the network does not have, where it is known without weights.

    Args:
        recipe: names the stage.
        start: of what the training starts from; None for a fresh network.

    Raises:
        UsageError: it names the stages that there are.
    """
    architecture = _architecture_of(recipe, start) if isinstance(recipe.freeze, int) else None
    if architecture is not None:
        architecture.check_stage(recipe.freeze)


def _architecture_of(recipe: Recipe, start: str | None) -> Architecture | None:
    """The network that will be trained; None where only its weights tell."""
    if start is None:
        return select(_DEEPEST if recipe.network == "auto" else recipe.network)
    if not Path(start).exists() and start not in shipped.names():
        row = find_recommended(start)
        return None if row is None else select(row.network)
    try:
        file = model_path.find_weights(start)
    except UsageError:
        return None  # it is refused where it is read
    if not model_file.is_model_file(file):
        return None
    return model_file.check_claims(model_file.read_description(file), file)
