"""Several processes of one run, as torchrun starts them, but forked from one that knows torch.

The launcher of torch and the imports of each process take longer than the runs of most tests. That
all goes as well by torchrun itself, `tests/runs/test_parallel.py` and the tutorials show.
"""

import atexit
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
from functools import cache
from pathlib import Path
from subprocess import PIPE, CompletedProcess
from tempfile import TemporaryDirectory
from typing import Any, NoReturn

_TORCHRUN = ("-m", "torch.distributed.run", "--standalone")


def several(
    *words: object, script: Path | None = None, processes: int = 2
) -> CompletedProcess[str]:
    """What `resnets WORDS`, or a script, gives in several processes that work together."""
    command = list(map(str, words))
    if sys.platform != "linux":  # elsewhere a fork may end a process that has used frameworks
        return by_torchrun(*command, script=script, processes=processes)
    with TemporaryDirectory() as folder, socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
        unused.close()
        group = {"WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": processes, "MASTER_PORT": port}
        names = {"MASTER_ADDR": "127.0.0.1", "TORCHELASTIC_RUN_ID": "tests"}
        environment = {**os.environ, **{name: str(value) for name, value in group.items()}, **names}
        order = {"words": command, "script": script and str(script), "environment": environment}
        server = _server()
        assert server.stdin is not None
        assert server.stdout is not None
        server.stdin.write(json.dumps(order | {"folder": folder, "cwd": str(Path.cwd())}) + "\n")
        server.stdin.flush()
        codes = json.loads(server.stdout.readline())
        outputs = [(Path(folder) / name).read_text(encoding="utf-8") for name in ("1", "2")]
    return CompletedProcess(command, next(filter(None, codes), 0), *outputs)  # of who fails first


def by_torchrun(
    *words: object, script: Path | None = None, processes: int = 2
) -> CompletedProcess[str]:
    """The same by torch's own launcher."""
    target = ["-m", "resnets"] if script is None else [str(script)]
    command = [sys.executable, *_TORCHRUN, f"--nproc-per-node={processes}", *target]
    command += map(str, words)
    return subprocess.run(
        command, capture_output=True, text=True, timeout=300, check=False, env=_environment()
    )


def _environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "error"}


@cache
def _server() -> "subprocess.Popen[str]":
    """A process that forks others, for as long as this one lasts."""
    command = [sys.executable, "-m", "tests.several_processes"]
    root = Path(__file__).parents[1]
    server = subprocess.Popen(
        command, stdin=PIPE, stdout=PIPE, text=True, env=_environment(), cwd=root
    )
    atexit.register(server.communicate)
    return server


def _serve() -> None:
    """Carry out the orders that come on the standard input, a line each."""
    import resnets.runs.train  # noqa: F401  (with torch)

    for line in sys.stdin:
        order = json.loads(line)
        running = {}
        for rank in range(int(order["environment"]["WORLD_SIZE"])):
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
    """Be one of the processes of a run."""
    from resnets.cli import main

    code: Any = 1
    os.environ.clear()
    os.environ.update(order["environment"], RANK=str(rank), LOCAL_RANK=str(rank))
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
