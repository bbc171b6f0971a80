"""The user's own parts of a training from Python: data, a network, a loss, an augmentation.

No file holds Python objects: the configuration of the run names them, and they are given again when
it goes on.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from resnets.data.sources.opening import Data
from resnets.errors import UsageError
from resnets.networks.evaluation_mode import evaluating
from resnets.runs.job import Job
from resnets.training.recipe import NETWORK_FIELDS, Recipe

_COLOURS = (3, 1)  # channels that a network may take, as they are tried
_PYTHON_ALONE = "no file holds Python code: go on with resnets.resume(folder, {}) in Python"


@dataclass(frozen=True)
class CustomParts:
    """Parts of a training that are the user's own; None where they are this package's.

    Attributes:
        data: labelled images, where they are not on disk under the name that the job has for them.
        network: from normalised images (N, C, S, S) float32 to logits (N, K).
        loss: from logits (N, K) float32 and targets to a mean or a value for each image; see
            `optimisation.CustomLoss`.
        augmentation: from images (B, H, W, C) uint8 to such images; see `batches.augmented`.
    """

    data: Data | None = None
    network: nn.Module | None = None
    loss: Callable[[Tensor, Tensor], Tensor] | None = None
    augmentation: Callable[[Tensor], Tensor] | None = None

    def __post_init__(self) -> None:
        network: object = self.network
        if not isinstance(network, nn.Module | None):
            raise UsageError(f"network is {network!r:.60}; it must be a name or a torch.nn.Module")
        for name in ("loss", "augmentation"):
            value = getattr(self, name)
            if value is not None and not callable(value):
                raise UsageError(f"{name} is {value!r:.60}; it must be a function or an object")

    @property
    def names(self) -> str | None:
        """What config.toml says of them but the data, such as "network Net, loss focal"."""
        parts = {"network": self.network, "loss": self.loss, "augmentation": self.augmentation}
        descriptions = [f"{name} {_name(part)}" for name, part in parts.items() if part is not None]
        return ", ".join(descriptions) or None

    def refuse_others(self, job: Job) -> None:
        """Refuse other parts than the job needs, as those that the run began with.

        Raises:
            UsageError: something is missing, too much, or called otherwise.
        """
        if self.network is not None and job.start:
            kind = type(self.network).__name__
            raise UsageError(f"start and a network of your own: load the weights into {kind} first")
        required = job.own
        if self.names == required:
            return
        if required is None:
            raise UsageError(f"the run was begun without {self.names} of your own; leave it out")
        words = ", ".join(f"{part.partition(' ')[0]}=..." for part in required.split(", "))
        contrast = f", not {self.names}" if self.names else ""
        raise UsageError(
            f"the run needs your own {required}{contrast}: {_PYTHON_ALONE.format(words)}"
        )


NO_CUSTOM_PARTS = CustomParts()


def notices(custom: CustomParts, recipe: Recipe) -> Iterator[str]:
    """What a user should know of parts of their own, a line each."""
    if custom.names:
        yield f"Your own {custom.names}: no file holds code, so resume takes it again"
    unused = {
        "label_smoothing": recipe.label_smoothing > 0,
        "class_weights": recipe.class_weights != "none",
    }
    if custom.loss is not None and any(unused.values()):
        names = " and ".join(name for name, is_set in unused.items() if is_set)
        yield f"The recipe's {names} belongs to its own loss and is not used"


def _name(part: object) -> str:
    """What a function is called, or the class of an object."""
    return str(getattr(part, "__name__", type(part).__name__))


def refuse_fit(custom: "CustomParts", recipe: Recipe, start: str | None) -> None:
    """Refuse what does not go with a classifier that is fitted to features.

    Raises:
        UsageError: a length of the run, a part of the user's own, or no network whose features it
            could use.
    """
    if recipe.fit_head_first and not start:
        raise UsageError(
            "fit_head_first (as in the recipe transfer) fits the classifier to the features of a "
            "trained network: say which one by --from, such as resnet20_cifar10, which is in the "
            "package; or leave it out (--no-fit-head-first, --recipe quick)"
        )
    if recipe.freeze != "all":
        return
    if recipe.steps or recipe.patience or recipe.epochs not in (None, 1):
        raise UsageError(
            "--freeze all: the classifier is fitted to convergence, so that --epochs, --steps and "
            "--patience have no meaning; leave them out"
        )
    if custom.network is None and not start:
        raise UsageError(
            "--freeze all fits the classifier of a trained network: say which one by "
            "--from, such as resnet20_cifar10, which is in the package"
        )
    for name, part in (("loss", custom.loss), ("augmentation", custom.augmentation)):
        if part is not None:
            raise UsageError(
                f"--freeze all fits the classifier to features that are computed once: "
                f"your own {name} has no part in it; leave it out, or freeze fewer stages"
            )


def refuse_settings(network: nn.Module, recipe: Recipe) -> None:
    """Refuse what is asked of a network of the user's own and can only be done to a ResNet.

    Raises:
        UsageError: it names the argument, and what to do instead.
    """
    kind = type(network).__name__
    changes = [name for name in NETWORK_FIELDS if getattr(recipe, name) is not None]
    if changes:
        raise UsageError(f"{changes[0]} changes ResNets; {kind} is your own: change it")
    if recipe.freeze is not None:
        raise UsageError(
            f"freeze counts the stages of a ResNet; in {kind}, freeze by requires_grad_(False)"
        )
    if recipe.freeze_statistics:
        raise UsageError(
            f"freeze_statistics is for ResNets; {kind} is your own: put its norms into evaluation "
            "mode whenever train() is called"
        )
    if not any(parameter.requires_grad for parameter in network.parameters()):
        raise UsageError(f"{kind} has no parameter that could be trained")


def channels_of(network: nn.Module, sizes: tuple[int, ...], num_classes: int) -> int:
    """The channels of the images that a network takes: 3 (RGB) where it can, else 1 (grey).

    Args:
        network: on any device.
        sizes: sides of the images that it will get, in pixels.
        num_classes: K.

    Raises:
        UsageError: it takes neither, or does not give logits (N, K).
    """
    failures = []
    for channels in _COLOURS:
        try:
            all_outputs = [_outputs(network, (2, channels, size, size)) for size in sizes]
        except Exception as error:  # any: it is the user's code that raises
            failures.append(error)
            continue
        for size, outputs in zip(sizes, all_outputs, strict=True):
            _refuse_outputs(network, outputs, (2, channels, size, size), num_classes)
        return channels
    size, (first, *_) = sizes[0], failures
    reason = " ".join(str(first).split())[:200]
    raise UsageError(
        f"{type(network).__name__} cannot take images (2, 3, {size}, {size}): {reason}; "
        "image_size= changes their size"
    ) from first


def _outputs(network: nn.Module, shape: tuple[int, ...]) -> Any:
    """What a network gives for black images."""
    device = next(network.parameters()).device
    with evaluating(network), torch.no_grad():
        return network(torch.zeros(shape, device=device))


def _refuse_outputs(
    network: nn.Module, outputs: Any, shape: tuple[int, ...], num_classes: int
) -> None:
    """Refuse what is not one logit for each class. Raises UsageError."""
    expected = (shape[0], num_classes)
    if isinstance(outputs, Tensor) and outputs.shape == expected and outputs.is_floating_point():
        return
    actual = f"a tensor {tuple(outputs.shape)}" if isinstance(outputs, Tensor) else type(outputs)
    raise UsageError(
        f"{type(network).__name__} gives {actual} for images {shape}; the data has {num_classes} "
        f"classes, so it must be logits {expected}"
    )
