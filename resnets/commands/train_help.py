"""The help of `resnets train`: the flags that most users need, or all flags by topic."""

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

import tyro

from resnets.commands.arguments import parser_of

_USUAL = (
    *("data", "--budget", "--epochs", "--network", "--from", "--freeze", "--recipe"),
    *("--image-size", "--batch-size", "--learning-rate", "--patience", "--seed"),
    *("--output", "--overwrite", "--resume", "--device", "--skip-unreadable", "--max-error"),
)
_TOPICS: Mapping[str, Sequence[str]] = {
    "data": (
        *("data", "--validation", "--group-by", "--skip-unreadable", "--repeats", "--workers"),
        *("--class-level", "--train-folder", "--validation-folder", "--test-folder", "--verbose"),
        *("--class-weights", "--balanced-sampling"),
    ),
    "the network": (
        *("--network", "--from", "--freeze", "--image-size", "--training-size", "--resize"),
        *("--stochastic-depth", "--dropout", "--zero-init"),
    ),
    "how long": ("--recipe", "--epochs", "--steps", "--budget", "--replanned", "--patience"),
    "progressive resizing": ("--progressive-resizing-scale", "--progressive-resizing-until"),
    "batches": ("--batch-size", "--accumulate", "--sync-batch-norm"),
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
        *("--device", "--precision", "--no-channels-last", "--compile", "--threads", "--seed"),
    ),
}
_SAY_NOTHING = (
    *(" (default: None)", " (default: '')", " (default: )", " (default: False)"),
    " (default: True)",  # the flag is then shown as --FLAG, --no-FLAG
)
_MORE = "resnets train --help-all lists all {count} flags, by topic."


def train_help(arguments: type, default: Any, *, everything: bool = False) -> str:
    """The text of `--help`, or of `--help-all`.

    Args:
        arguments: the dataclass that the flags are made of.
        default: an instance of it, whose values are shown.
        everything: every flag, by topic.
    """
    flags = _flags(arguments, default)
    topics = _TOPICS if everything else {"what most users need": _USUAL}
    parser = argparse.ArgumentParser(
        "resnets train",
        usage="resnets train DATA [FLAGS]",
        description=arguments.__doc__ and _outdented(arguments.__doc__),
        epilog=None if everything else _MORE.format(count=len(flags) - 1),
        formatter_class=_Formatter,
        add_help=False,
    )
    for topic, names in topics.items():
        group = parser.add_argument_group(topic)
        for name in names:
            _add(group, flags.get(name) or flags[_opposite(name)], short=not everything)
    return parser.format_help()


def _flags(arguments: type, default: Any) -> dict[str, argparse.Action]:
    """Each flag by its first name, as tyro describes it; DATA as `data`."""
    config = (tyro.conf.FlagCreatePairsOff,)
    parser = parser_of(arguments, default=default, config=config)
    actions = [action for action in parser._actions if "--help" not in action.option_strings]
    return {(action.option_strings or [action.dest])[0]: action for action in actions}


def _opposite(name: str) -> str:
    """The name of a switch where its default is the other one, as a recipe may have it."""
    return name.replace("--no-", "--", 1) if name.startswith("--no-") else f"--no-{name[2:]}"


def _add(group: Any, flag: argparse.Action, *, short: bool) -> None:
    """A flag with its help; in short, the first sentence of it."""
    text = " ".join(str(flag.help).split()).replace("%", "%%")
    for empty in _SAY_NOTHING:
        text = text.removesuffix(empty)
    sentence, stop, rest = text.partition(". ")
    if short and stop:
        default = rest[rest.rindex(" (default: ") :] if " (default: " in rest else ""
        text = sentence + "." + default
    if flag.nargs == 0:
        group.add_argument(*_switch(flag), action="store_true", help=text)
    else:
        names = flag.option_strings or [flag.dest]
        group.add_argument(*names, metavar=_metavar(flag), help=text)


def _switch(flag: argparse.Action) -> list[str]:
    """The names of a switch; both of them where it is on by default."""
    return [
        name
        for own in flag.option_strings
        for name in ((own.replace("--no-", "--", 1), own) if own.startswith("--no-") else (own,))
    ]


def _metavar(flag: argparse.Action) -> str:
    """What stands for the value: the choices, or a word."""
    choices = [str(choice) for choice in flag.choices or ()]
    return "|".join(choices) or str(flag.metavar).removeprefix("{None}|").removeprefix("[").rstrip(
        "]"
    )


def _outdented(docstring: str) -> str:
    """A docstring without its indentation."""
    first, _, rest = docstring.strip().partition("\n")
    return "\n".join([first, *(line.removeprefix("    ") for line in rest.splitlines())])


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """Flags on the left, what they do from column 28 on."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=28, width=100)
