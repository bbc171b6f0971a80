"""How a run is carried out: for a command or a program, as a new run or one that goes on."""

from dataclasses import dataclass

from resnets.runs.custom_parts import NO_CUSTOM_PARTS, CustomParts


@dataclass(frozen=True)
class Manner:
    """How a run is carried out.

    Attributes:
        custom: what the user's program brings of its own.
        resume: whether the run that is in the folder goes on.
        overwrite: whether the run that is in the folder is replaced.
        as_command: whether the process is there for this run alone, so that signals end it.
        began: when it began, by `time.monotonic`.
        again: whether torchrun has started the processes again, and so the run goes on.
    """

    custom: CustomParts = NO_CUSTOM_PARTS
    resume: bool = False
    overwrite: bool = False
    as_command: bool = False
    began: float = 0.0
    again: bool = False
