import ast
import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch

from resnets import machine
from resnets.machine import _memory, cores, engine_threads, processor, settle_threads

PACKAGE = Path(machine.__file__).parent


def file_system(root: Path, files: Mapping[str, str]) -> Path:
    """A root with these files in it."""
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    return root


CPU_V2, CPU_V1 = "sys/fs/cgroup/{}cpu.max", "sys/fs/cgroup/{}cpu.cfs_{}_us"
QUOTAS = {
    "version 2, a container that sees itself as the top": (
        {"proc/self/cgroup": "0::/\n", CPU_V2.format(""): "50000 100000\n"},
        0.5,
    ),
    "version 2, a service inside of the tree": (
        {
            "proc/self/cgroup": "0::/system.slice/train.service\n",
            CPU_V2.format(""): "max 100000\n",
            CPU_V2.format("system.slice/train.service/"): "300000 100000\n",
        },
        3,
    ),
    "version 2, the group around it allows less": (
        {
            "proc/self/cgroup": "0::/jobs/7/step\n",
            CPU_V2.format("jobs/7/"): "200000 100000\n",
            CPU_V2.format("jobs/7/step/"): "900000 100000\n",
        },
        2,
    ),
    "version 2, a path of the host that the container lacks": (
        {"proc/self/cgroup": "0::/docker/1a2b\n", CPU_V2.format(""): "400000 100000\n"},
        4,
    ),
    "version 2, a group beside the container's": (
        {"proc/self/cgroup": "0::/../beside\n", CPU_V2.format(""): "100000 50000\n"},
        2,
    ),
    "version 1": (
        {
            "proc/self/cgroup": "9:memory:/x\n4:cpu,cpuacct:/docker/1a2b\n0::/\n",
            CPU_V1.format("cpu,cpuacct/", "quota"): "150000\n",
            CPU_V1.format("cpu,cpuacct/", "period"): "50000\n",
        },
        3,
    ),
    "version 1, nested": (
        {
            "proc/self/cgroup": "1:cpu:/jobs/7\n",
            CPU_V1.format("cpu/", "quota"): "-1\n",
            CPU_V1.format("cpu/", "period"): "100000\n",
            CPU_V1.format("cpu/jobs/7/", "quota"): "200000\n",
            CPU_V1.format("cpu/jobs/7/", "period"): "100000\n",
        },
        2,
    ),
    "no limit": ({"proc/self/cgroup": "0::/\n", CPU_V2.format(""): "max 100000\n"}, None),
    "nonsense": ({"proc/self/cgroup": "what\n0::/\n", CPU_V2.format(""): "1 0\n"}, None),
    "bytes": ({"proc/self/cgroup": "0::/\n", CPU_V2.format(""): "\u00b2 \u00b2\n"}, None),
    "no control groups": ({}, None),
}


@pytest.mark.parametrize("name", QUOTAS)
def test_the_tightest_quota_around_a_process_bounds_its_cores(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files, quota = QUOTAS[name]
    monkeypatch.setattr(machine, "_runnable_cores", lambda: 64)
    expected = 64 if quota is None else max(1, round(quota))
    assert cores(file_system(tmp_path, files)) == expected


def test_a_quota_above_what_the_process_may_run_on_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "_runnable_cores", lambda: 2)
    files = {"proc/self/cgroup": "0::/\n", CPU_V2.format(""): "800000 100000\n"}
    assert cores(file_system(tmp_path, files)) == 2


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="this system pins no processes")
def test_without_a_quota_there_are_as_many_cores_as_the_process_may_run_on() -> None:
    command = "from resnets.machine import cores; print(cores())"
    first = str(min(os.sched_getaffinity(0)))
    pinned = ["taskset", "-c", first, sys.executable, "-c", command]
    assert subprocess.run(pinned, capture_output=True, text=True, check=True).stdout == "1\n"


def test_where_no_process_is_pinned_the_machines_cores_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    assert cores(tmp_path) == os.cpu_count()


def test_every_question_of_how_many_has_the_quotas_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    from resnets.data.processes import worker_count
    from resnets.deployment.bench.runtimes import _default_threads

    monkeypatch.setattr(machine, "_runnable_cores", lambda: 64)
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(machine, "_quotas", lambda _: iter([3.0]))
    assert worker_count() == 3
    assert worker_count(None, processes=2) == 1
    assert _default_threads() == [1, 3]
    assert engine_threads() == 3
    assert machine.reading_threads() == 7
    assert machine.machine()["cores"] == 3


def test_a_runtime_chooses_its_threads_where_the_whole_machine_is_ours(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(machine, "cores", lambda: os.cpu_count())
    assert engine_threads() == 0
    assert engine_threads(5) == 5


def test_libraries_are_told_of_a_quota_and_of_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "")  # so that it is put back
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setattr(machine, "_runnable_cores", lambda: 64)
    for quotas, expected in ([], None), ([3.0], "3"), ([5.0], "3"):  # what is set stays
        monkeypatch.setattr(machine, "_quotas", lambda _, quotas=quotas: iter(quotas))
        machine.limit_threads()
        assert os.environ.get("OMP_NUM_THREADS") == expected


def test_threads_are_as_asked_and_by_default_no_more_than_cores() -> None:
    before = torch.get_num_threads()
    try:
        settle_threads(3)
        assert torch.get_num_threads() == 3
        settle_threads()
        assert torch.get_num_threads() == min(3, cores())
    finally:
        torch.set_num_threads(before)


def test_cores_are_counted_in_one_module() -> None:
    counting = {"cpu_count", "process_cpu_count", "sched_getaffinity"}
    places = {
        path.name
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if (isinstance(node, ast.Attribute) and node.attr in counting)
        or (isinstance(node, ast.alias) and node.name in counting)
    }
    assert places == {"machine.py"}


def test_the_processor_is_what_the_system_says_it_is(tmp_path: Path) -> None:
    info = tmp_path / "cpuinfo"
    info.write_text(
        "processor\t: 0\nmodel name\t: Fast 9000 @ 3: GHz\n\nmodel name\t: Other\n",
        encoding="utf-8",
    )
    assert processor(info) == "Fast 9000 @ 3: GHz"
    assert processor(tmp_path / "none") == (platform.processor() or platform.machine())


@pytest.mark.skipif(platform.system() != "Linux", reason="reads /proc/meminfo")
def test_memory_is_what_the_kernel_says() -> None:
    kib = int(Path("/proc/meminfo").read_text(encoding="utf-8").split("MemTotal:")[1].split()[0])
    assert _memory() == pytest.approx(kib / 2**20, abs=0.1)


def test_no_more_cores_than_the_machine_has() -> None:
    assert 1 <= machine.machine()["cores"] <= (os.cpu_count() or 1)
