"""torchrun for a rehearsal: ends in a line, not in a traceback, and with the code of its processes.

python -m resnets.runs.rehearsal FLAGS ... is torchrun with these flags.
"""

import logging
import signal
import sys
from collections.abc import Sequence

from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import parse_args, run

from resnets.escaping import say

_LOGGER = "torch.distributed.elastic"
_ENDED = "failed (exitcode: %s) local_rank: %s"  # begins torch's message of a process that ended
_REFUSED = 2  # exit code of wrong usage


class _Ends(logging.Handler):
    """Tells of each process that ended early, in a line; one that was refused has said why."""

    def emit(self, record: logging.LogRecord) -> None:
        """Pass on one of torch's messages."""
        if not str(record.msg).startswith(_ENDED) or not isinstance(record.args, tuple):
            return
        code, rank = record.args[:2]
        if isinstance(code, int) and code != _REFUSED:
            say(f"resnets launch: process {rank} ended {_how(code)}", file=sys.stderr, flush=True)


def _how(code: int) -> str:
    """How a process ended, by its exit code.

    >>> _how(1), _how(-9)
    ('with exit code 1', 'by SIGKILL')
    """
    return f"with exit code {code}" if code >= 0 else f"by {signal.Signals(-code).name}"


def _run(flags: Sequence[str]) -> int:
    """Be torchrun with these flags. Returns the exit code."""
    logger = logging.getLogger(_LOGGER)
    logger.addHandler(_Ends())
    logger.propagate = False
    try:
        run(parse_args(list(flags)))  # type: ignore[no-untyped-call]
    except ChildFailedError as error:
        code = error.get_first_failure()[1].exitcode
        return code if code > 0 else 128 - code
    except SignalException as stop:
        return 128 + int(stop.sigval)
    return 0


if __name__ == "__main__":
    sys.exit(_run(sys.argv[1:]))
