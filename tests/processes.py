"""Processes of their own, forked from one that has imported torch.

The imports of a process, and the launcher of torch, take longer than what most tests run there.
That several processes go as well by torchrun itself, `tests/runs/test_parallel.py` and the
tutorials show.
"""

import atexit
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import warnings
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from subprocess import PIPE, CompletedProcess
from tempfile import TemporaryDirectory
from typing import Any, NoReturn

_ONE_THREAD = {"OMP_NUM_THREADS": "1"}
_TORCHRUN = ("-m", "torch.distributed.run", "--standalone")


def forked(
    *words: object, script: Path | None = None, environment: Mapping[str, str] = os.environ
) -> CompletedProcess[str]:
    """What `resnets WORDS`, or a script with these words, gives in a process of its own."""
    if sys.platform != "linux":  # elsewhere a fork may end a process that has used frameworks
        command = [sys.executable, *_target(script), *map(str, words)]
        return subprocess.run(
            command, capture_output=True, text=True, check=False, env=dict(environment)
        )
    return _in_forks(words, script, environment, 1)


def several(
    *words: object, script: Path | None = None, processes: int = 2
) -> CompletedProcess[str]:
    """The same in several processes that work together, each warning an error."""
    if sys.platform != "linux":
        return by_torchrun(*words, script=script, processes=processes)
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    group = {"WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": processes, "MASTER_PORT": port}
    names = {"MASTER_ADDR": "127.0.0.1", "TORCHELASTIC_RUN_ID": f"tests-{port}"}
    environment = _environment() | {name: str(value) for name, value in group.items()} | names
    return _in_forks(words, script, environment, processes)


def by_torchrun(
    *words: object, script: Path | None = None, processes: int = 2
) -> CompletedProcess[str]:
    """The same by torch's own launcher."""
    command = [sys.executable, *_TORCHRUN, f"--nproc-per-node={processes}", *_target(script)]
    command += map(str, words)
    return subprocess.run(
        command, capture_output=True, text=True, timeout=300, check=False, env=_environment()
    )


def _target(script: Path | None) -> list[str]:
    return ["-m", "resnets"] if script is None else [str(script)]


def _environment() -> dict[str, str]:
    return os.environ | _ONE_THREAD | {"PYTHONWARNINGS": "error"}


def _in_forks(
    words: Iterable[object],
    script: Path | None,
    environment: Mapping[str, str],
    processes: int,
) -> CompletedProcess[str]:
    command = list(map(str, words))
    with TemporaryDirectory() as folder:
        order = {
            "words": command,
            "script": script and str(script),
            "environment": dict(environment),
            "processes": processes,
            "folder": folder,
            "cwd": str(Path.cwd()),
        }
        server = _server()
        assert server.stdin is not None
        assert server.stdout is not None
        server.stdin.write(json.dumps(order) + "\n")
        server.stdin.flush()
        codes = json.loads(server.stdout.readline())
        outputs = [(Path(folder) / name).read_text(encoding="utf-8") for name in ("1", "2")]
    return CompletedProcess(command, next(filter(None, codes), 0), *outputs)  # of who fails first


@cache
def _server() -> "subprocess.Popen[str]":
    """A process that forks others, for as long as this one lasts."""
    command = [sys.executable, "-m", "tests.processes"]
    root = Path(__file__).parents[1]
    server = subprocess.Popen(
        command, stdin=PIPE, stdout=PIPE, text=True, env=os.environ | _ONE_THREAD, cwd=root
    )
    atexit.register(server.communicate)
    return server


def _serve() -> None:
    """Carry out the orders that come on the standard input, a line each."""
    import resnets.runs.train  # noqa: F401  (with torch)

    for line in sys.stdin:
        order = json.loads(line)
        running = {}
        for rank in range(order["processes"]):
            child = os.fork()
            if not child:
                _be(rank, order)
            running[child] = rank
        codes = []
        while running:
            child, status = os.wait()
            del running[child]
            codes.append(os.waitstatus_to_exitcode(status))
            if codes[-1]:  # the others would wait for it
                for other in running:
                    os.kill(other, signal.SIGTERM)
        sys.stdout.write(json.dumps(codes) + "\n")
        sys.stdout.flush()


def _be(rank: int, order: dict[str, Any]) -> NoReturn:
    """Be one of the processes of an order."""
    from resnets.cli import main

    code: Any = 1
    os.environ.clear()
    os.environ.update(order["environment"])
    if order["processes"] > 1:
        os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank))
    if os.environ.get("PYTHONWARNINGS") == "error":
        warnings.simplefilter("error")
    os.chdir(order["cwd"])
    for stream in (1, 2):
        file = Path(order["folder"]) / str(stream)
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND), stream)
    try:
        if order["script"] is None:
            code = main(order["words"])
        else:
            sys.argv = [order["script"], *order["words"]]
            runpy.run_path(order["script"], run_name="__main__")
            code = 0
    except SystemExit as end:
        code = end.code or 0
    except BaseException as error:
        sys.excepthook(type(error), error, error.__traceback__)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else 1)


if __name__ == "__main__":
    _serve()
