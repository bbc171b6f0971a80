import os
import platform
from pathlib import Path

import pytest

from resnets.machine import machine, memory, processor


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
    assert memory() == pytest.approx(kib / 2**20, abs=0.1)


def test_no_more_cores_than_the_machine_has() -> None:
    assert 1 <= machine()["cores"] <= (os.cpu_count() or 1)
