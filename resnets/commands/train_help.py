"""The help of `resnets train`: the flags that most users need, or all flags by topic."""

from collections.abc import Mapping, Sequence
from typing import Any

from resnets.commands.help_text import flags_of, help_text

_USUAL = (
    *("data", "--budget", "--epochs", "--network", "--from", "--freeze", "--recipe"),
    *("--image-size", "--batch-size", "--learning-rate", "--patience", "--seed"),
    *("--output", "--overwrite", "--resume", "--device", "--skip-unreadable", "--max-error"),
)
_TOPICS: Mapping[str, Sequence[str]] = {
    "data": (
        *(
            "data",
            "--validation",
            "--folds",
            "--group-by",
            "--skip-unreadable",
            "--repeats",
            "--workers",
            "--memory-gb",
            "--cache",
        ),
        *("--class-level", "--train-folder", "--validation-folder", "--test-folder", "--verbose"),
        *("--class-weights", "--balanced-sampling"),
    ),
    "the network": (
        *("--network", "--from", "--freeze", "--fit-head-first", "--freeze-statistics"),
        *("--image-size", "--training-size", "--resize", "--ignore-left-over", "--channels"),
        *("--stochastic-depth", "--dropout", "--zero-init"),
    ),
    "how long": (
        *("--recipe", "--epochs", "--steps", "--budget", "--replanned", "--patience"),
        *("--validation-every",),
    ),
    "progressive resizing": ("--progressive-resizing-scale", "--progressive-resizing-until"),
    "batches": (
        *("--batch-size", "--accumulate", "--no-even-batches", "--no-carry-over"),
        *("--batch-norm-images",),
        *("--sync-batch-norm", "--gradient-exchange", "--bucket-mb"),
    ),
    "the optimizer": (
        *("--optimizer", "--learning-rate", "--momentum", "--no-nesterov", "--weight-decay"),
        *("--decay-norms-and-biases", "--decay-biases", "--non-conv-learning-rate-scale"),
        *("--layer-decay", "--clip-norm"),
    ),
    "the learning rate schedule": (
        *("--schedule", "--warmup", "--warmup-epochs", "--warmup-steps", "--peak"),
        *("--first-rate", "--final-rate", "--milestones", "--gamma"),
    ),
    "the loss and weight averaging": (
        *("--label-smoothing", "--average-decay", "--average-every", "--average-from"),
    ),
    "augmentation": (
        *("--smallest-crop", "--crop-ratio", "--crop-padding", "--padding-mode", "--flip"),
        *("--mirror-characters", "--policy", "--policy-operations", "--policy-magnitude"),
        *("--policy-fill", "--policy-interpolation", "--erase", "--cutout", "--mixup", "--cutmix"),
    ),
    "the result": ("--max-error", "--other", "--no-image-digests", "--no-report"),
    "the run's folder and logs": (
        *("--output", "--overwrite", "--resume", "--checkpoint-every", "--keep", "--log-every"),
        *("--log-to", "--follow-test"),
    ),
    "the machine": (
        *("--device", "--precision", "--no-tf32", "--deterministic", "--no-channels-last"),
        *("--compile", "--threads", "--seed", "--wait-for-processes"),
    ),
}
_MORE = "resnets train --help-all lists all {count} flags, by topic."


def train_help(arguments: type, default: Any, *, everything: bool = False) -> str:
    """The text of `--help`, or of `--help-all`.

    Args:
        arguments: the dataclass that the flags are made of.
        default: an instance of it, whose values are shown.
        everything: every flag, by topic.
    """
    flags = flags_of(arguments, default)
    topics = _TOPICS if everything else {"what most users need": _USUAL}
    groups = {
        topic: [flags.get(name) or flags[_opposite(name)] for name in names]
        for topic, names in topics.items()
    }
    more = None if everything else _MORE.format(count=len(flags) - 1)
    return help_text(arguments, "resnets train", groups, short=not everything, epilog=more)


def _opposite(name: str) -> str:
    """The name of a switch where its default is the other one, as a recipe may have it."""
    return name.replace("--no-", "--", 1) if name.startswith("--no-") else f"--no-{name[2:]}"
