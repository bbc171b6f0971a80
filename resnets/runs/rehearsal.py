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
_PASSED_ON = ("SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT")  # torch's own list
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
    arguments = parse_args(list(flags))  # type: ignore[no-untyped-call]
    arguments.signals_to_handle = ",".join(_not_ignored())
    try:
        run(arguments)  # type: ignore[no-untyped-call]
    except ChildFailedError as error:
        code = error.get_first_failure()[1].exitcode
        return code if code > 0 else 128 - code
    except SignalException as stop:
        say(f"resnets launch: ended by {stop.sigval.name}", file=sys.stderr, flush=True)
        return 128 + int(stop.sigval)
    return 0


def _not_ignored() -> list[str]:
    """The signals that torchrun passes on, without those that this process is to ignore.

    Those are SIGHUP under nohup, and SIGINT in the background of a script.
    """
    numbers = [getattr(signal, name, None) for name in _PASSED_ON]
    here = [number for number in numbers if number is not None]
    return [number.name for number in here if signal.getsignal(number) != signal.SIG_IGN]


if __name__ == "__main__":
    sys.exit(_run(sys.argv[1:]))
