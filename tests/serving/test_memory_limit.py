"""The limit of memory that --print writes follows the flags, and is above what servers take."""

import re
import sys
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("starlette", reason="the extra serve is not installed")

from resnets.cli import main
from resnets.serving.memory_limit import memory_limit, usual_memory
from resnets.serving.settings import Settings
from tests.serving.conftest import image_bytes
from tests.serving.test_server import server

MIB = 1 << 20


@pytest.mark.parametrize(
    "more",
    [
        {"workers": 2},
        {"max_pixels": 80_000_000},
        {"max_body": 64 * MIB},
        {"queue": 10_000},
        {"collect": Path("labels")},
        {"weights": 200 * MIB},
    ],
)
def test_it_grows_with_what_takes_memory(more: dict[str, Any]) -> None:
    def limit(weights: int = MIB, **settings: Any) -> int:
        return memory_limit(Settings(**({"max_pixels": 20_000_000} | settings)), weights)

    assert limit(**more) > limit()


def test_every_process_opens_all_models_and_takes_images(
    model_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def printed(*flags: str) -> int:
        assert main(["serve", str(model_file), *flags, "--print", "systemd"]) == 0
        (number,) = re.findall(r"^MemoryMax=(\d+)M$", capsys.readouterr().out, re.MULTILINE)
        return int(number)

    one = printed()
    assert printed("--workers", "4") > 3.5 * one
    assert printed("--max-pixels", "10", "--max-body", "4MiB") < one / 1.5
    assert usual_memory(Settings(), MIB) < memory_limit(Settings(), MIB)


@pytest.mark.soak
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells the peak of a process")
@pytest.mark.parametrize("workers", [1, 2])
def test_real_servers_stay_below_it(
    workers: int, model_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ("--workers", str(workers), "--max-pixels", "64", "--timeout", "200")
    assert main(["serve", str(model_file), *flags, "--print", "compose"]) == 0
    (limit,) = re.findall(r"mem_limit: (\d+)m", capsys.readouterr().out)
    pixels = np.tile(
        np.random.default_rng(0).integers(0, 256, (100, 100, 3), np.uint8), (78, 78, 1)
    )
    file = BytesIO()
    Image.fromarray(pixels).save(file, "WEBP", quality=50)
    with server(model_file, *flags) as (process, address):
        # small images with heat maps, and the largest ones in forms, which are held twice
        for query, body, kind in (
            ("?explain=1", image_bytes(), "image/png"),
            ("", *as_form(file.getvalue())),
            ("?explain=1", *as_form(file.getvalue())),
        ):
            request = urllib.request.Request(
                f"{address}/predict{query}", body, {"Content-Type": kind}
            )
            with ThreadPoolExecutor(8 * workers) as threads:
                list(threads.map(ask_for, [request] * 8 * workers))
        peak = sum(map(peak_of, [process.pid, *children_of(process.pid)]))
    assert 0.3 * int(limit) * MIB < peak < int(limit) * MIB


def as_form(content: bytes) -> tuple[bytes, str]:
    """A form with a file, and its content type."""
    head = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
    return head + content + b"\r\n--x--\r\n", "multipart/form-data; boundary=x"


def ask_for(request: urllib.request.Request) -> int:
    """The status of the answer to a request."""
    try:
        with urllib.request.urlopen(request, timeout=300) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def children_of(pid: int) -> list[int]:
    """The numbers of the processes that one has started."""
    threads = Path(f"/proc/{pid}/task").iterdir()
    return [
        int(word)
        for each in threads
        for word in (each / "children").read_text(encoding="utf-8").split()
    ]


def peak_of(pid: int) -> int:
    """The most bytes that a process has had resident."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    (kilobytes,) = re.findall(r"^VmHWM:\s+(\d+)", status, re.MULTILINE)
    return int(kilobytes) << 10
