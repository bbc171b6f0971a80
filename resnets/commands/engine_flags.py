"""The flags about the engine that predicts on this machine, and the engine that they open."""

import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from resnets.deployment.engines import EngineName
from resnets.errors import UsageError
from resnets.escaping import say

if TYPE_CHECKING:
    from resnets.evaluation.engine import Engine


@dataclass(frozen=True)
class EngineFlags:
    """How predictions are computed on this machine: the flags of these names."""

    max_error: float | None = None
    batch_size: int = 32
    engine: EngineName = "auto"
    threads: int = 0
    tta: bool = False

    def open_engine(self, file: Path, *, measure: bool) -> "Engine":
        """The engine that computes a file; what the user should know about it is told.

        Args:
            file: of the network.
            measure: whether the fastest runtime may be measured, which takes seconds.
        """
        from resnets.deployment.engines import open_engine
        from resnets.evaluation.statuses import doubt_in_words, engine_with_target, in_words
        from resnets.evaluation.tta import in_words as tta_in_words
        from resnets.evaluation.tta import with_tta

        predictor = open_engine(file, self.engine, self.threads, measure=measure)
        predictor = with_tta(engine_with_target(predictor, self.max_error), self.tta)
        if self.tta:
            say(tta_in_words(predictor.description), file=sys.stderr)
        if self.max_error is not None:
            say(in_words(predictor.description, self.max_error), file=sys.stderr)
        elif not self.tta and (doubt := doubt_in_words(predictor.description)):
            say(doubt, file=sys.stderr)
        return predictor

    def tell_why_torch(self, file: Path) -> None:
        """Say on standard error why torch computes a file, unless that was asked for."""
        from resnets.deployment.engines.opening import why_torch

        if self.engine == "auto" and (why := why_torch(file)):
            say(f"{file}: computed by {why}", file=sys.stderr)

    def refuse_for_server(self) -> None:
        """Refuse these flags where a server computes.

        Raises:
            UsageError: one was given.
        """
        usual = asdict(EngineFlags())
        for name, value in asdict(self).items():
            if value != usual[name]:
                flag = "--" + name.replace("_", "-")
                raise UsageError(f"{flag}: the server decides it; leave it out with --server")
