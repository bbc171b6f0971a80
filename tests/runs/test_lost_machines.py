"""Machines that are lost and come back while a network is trained on four: `make soak` runs this.

Each machine is a torchrun with one process, in a network namespace of its own where there can be
some. What is kept has the batches of an undisturbed run.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.machines import RECORDING, environment, kept, records
from tests.network_namespaces import Network, network, why_no_network

psutil = pytest.importorskip("psutil")
pytestmark = [pytest.mark.slow, pytest.mark.soak]

IMAGES, BATCH, EPOCHS = 1457, 50, 2  # of digits: 30 batches of 48 or 49 an epoch
STEPS = -(-IMAGES // BATCH) * EPOCHS
WORDS = ["digits", "--network", "resnet14", "--image-size", "8", "--epochs", str(EPOCHS)]
WORDS += ["--batch-size", str(BATCH), "--checkpoint-every", "5", "--no-report", "--output", "run"]
TIMES = "last_call_timeout=10,keep_alive_interval=3,keep_alive_max_attempt=5"
PATIENCE = 600  # seconds for one step of a test, on a machine that others use, too


class Cluster:
    """Four machines that train, of which the last one hosts the rendezvous."""

    def __init__(self, folder: Path, network: Network | None) -> None:
        self.folder, self.network = folder, network
        (folder / "train.py").write_text(RECORDING, encoding="utf-8")
        with socket.create_server(("127.0.0.1", 0)) as unused:
            self.port = unused.getsockname()[1]
        self.machines: dict[int, subprocess.Popen[bytes]] = {}

    def start(self, number: int, *, resume: bool = False) -> None:
        """Start a machine."""
        words = ["--resume", "run"] if resume else WORDS
        host, own = "127.0.0.1", "127.0.0.1"
        command = []
        if self.network:
            command = self.network.command(number)
            host, own = self.network.address(3), self.network.address(number)
        command += [sys.executable, "-m", "torch.distributed.run", "--nnodes=3:4"]
        command += ["--nproc-per-node=1", "--max-restarts=3", "--monitor-interval=0.2"]
        command += ["--rdzv-backend=c10d", "--rdzv-id=test", f"--local-addr={own}"]
        command += [f"--rdzv-conf=is_host={int(number == 3)},{TIMES}"]
        command += [f"--rdzv-endpoint={host}:{self.port}", "train.py", "train", *words]
        apart = {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
        apart |= {"GLOO_SOCKET_IFNAME": "eth0"} if self.network else {}
        with (self.folder / "output").open("ab") as output:
            self.machines[number] = subprocess.Popen(
                command,
                cwd=self.folder,
                env=environment(self.folder, slowly=0.02) | apart,
                stdout=output,
                stderr=output,
            )

    def send(self, number: int, which: signal.Signals) -> None:
        """Send a signal to all processes of a machine."""
        machine = psutil.Process(self.machines[number].pid)
        for process in (machine, *machine.children(recursive=True)):
            process.send_signal(which)

    def lose(self, number: int) -> None:
        """End a machine."""
        self.send(number, signal.SIGKILL)
        self.machines.pop(number).wait()

    def of(self, rank: int) -> int:
        """The machine of a process of the first attempt."""
        parents = psutil.Process(self.pid(rank)).parents()
        pids = [parent.pid for parent in parents]
        return next(number for number, machine in self.machines.items() if machine.pid in pids)

    def pid(self, rank: int) -> int:
        """The process of a rank."""
        return int(next(row["pid"] for row in records(self.folder) if row["rank"] == rank))

    def wait(self, step: int, processes: int = 4, after: float = 0.0) -> float:
        """Wait until so many processes have done a step.

        Args:
            step: or a later one.
            processes: how many.
            after: the attempt that this must be a later one than.

        Returns:
            The attempt.
        """
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            for row in records(self.folder):
                attempt = float(row["attempt"])
                if row["step"] >= step and row["processes"] == processes and attempt > after:
                    return attempt
            time.sleep(0.2)
        raise TimeoutError((self.folder / "output").read_text(errors="replace"))

    def ends(self) -> list[int]:
        """The exit codes of the machines."""
        return [machine.wait(PATIENCE) for machine in self.machines.values()]


@pytest.fixture
def cluster(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """Four machines that have done twelve steps."""
    reason = why_no_network()
    if reason and request.node.callspec.params["lose"] is the_network_for_twenty_seconds:
        pytest.skip(reason)
    with ExitStack() as stack:
        cluster = Cluster(tmp_path, None if reason else stack.enter_context(network(4)))
        try:
            for number in range(4):
                cluster.start(number)
            cluster.wait(12)
            yield cluster
        finally:
            for number, machine in cluster.machines.items():
                if machine.poll() is None:
                    cluster.send(number, signal.SIGKILL)
                    machine.wait()


def a_process(cluster: Cluster) -> None:
    os.kill(cluster.pid(2), signal.SIGKILL)


def the_first_process(cluster: Cluster) -> None:
    os.kill(cluster.pid(0), signal.SIGKILL)


def the_machine_of_the_first_process(cluster: Cluster) -> None:
    assert cluster.of(0) != 3
    cluster.lose(cluster.of(0))


def a_machine_for_a_while(cluster: Cluster) -> None:
    """The steps are so slow meanwhile that it comes back before the last of them."""
    number = cluster.of(1) if cluster.of(1) != 3 else cluster.of(2)
    pace = cluster.folder / "pace"
    pace.write_text("1")
    cluster.lose(number)
    without = cluster.wait(13, processes=3)
    cluster.start(number)
    cluster.wait(13, processes=4, after=without)
    pace.unlink()


def a_machine_that_stands_still(cluster: Cluster) -> None:
    cluster.send(1, signal.SIGSTOP)
    time.sleep(20)
    cluster.send(1, signal.SIGCONT)


def the_network_for_twenty_seconds(cluster: Cluster) -> None:
    assert cluster.network
    cluster.network.pull_out(1)
    time.sleep(3)
    before = max(row["step"] for row in records(cluster.folder))
    time.sleep(17)
    assert max(row["step"] for row in records(cluster.folder)) == before  # they do wait for it
    cluster.network.plug_in(1)


def the_machine_of_the_rendezvous(cluster: Cluster) -> None:
    cluster.lose(3)
    assert all(code != 0 for code in cluster.ends())
    for number in range(4):  # as SLURM or Kubernetes does
        cluster.start(number, resume=True)


@pytest.mark.parametrize(
    "lose",
    [
        a_process,
        the_first_process,
        the_machine_of_the_first_process,
        a_machine_for_a_while,
        a_machine_that_stands_still,
        the_network_for_twenty_seconds,
        the_machine_of_the_rendezvous,
    ],
)
def test_training_goes_on_with_the_same_batches(
    lose: Callable[[Cluster], None], cluster: Cluster
) -> None:
    lose(cluster)
    assert cluster.ends() == [0] * len(cluster.machines)
    steps = kept(cluster.folder)
    assert [*sorted(steps)] == [*range(STEPS)]
    for epoch in range(EPOCHS):
        first = epoch * STEPS // EPOCHS
        images = [image for step in range(first, first + STEPS // EPOCHS) for image in steps[step]]
        assert sorted(images) == [*range(IMAGES)]
    text = (cluster.folder / "run" / "log.jsonl").read_text("utf-8")
    end: dict[str, Any] = json.loads(text.splitlines()[-1])
    assert end["kind"] == "end"
    assert end["test"]["top1"]["value"] > 0.9  # 0.96 undisturbed
    stood_still = lose in (a_machine_that_stands_still, the_network_for_twenty_seconds)
    output = (cluster.folder / "output").read_text(errors="replace")
    assert ("are done)" in output) != stood_still  # the line of a run that goes on counts its steps
