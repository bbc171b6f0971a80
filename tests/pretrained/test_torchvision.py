"""Files of torchvision's weights, by a server on this machine in place of its own."""

import hashlib
import io
import socket
import threading
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from resnets.errors import ContentError
from resnets.model_file import load
from resnets.pretrained import torchvision
from resnets.pretrained.opening import open_published
from resnets.pretrained.reference import Reference, read_reference
from resnets.pretrained.table import Published
from tests.hub_server import Fault, HubServer
from tests.pretrained.conftest import filled

ID = "torchvision/resnet18.IMAGENET1K_V1"
FILE = "resnet18-f37072fd.pth"


@pytest.fixture(scope="module")
def of_resnet18() -> dict[str, torch.Tensor]:
    return filled("resnet18")


@pytest.fixture(scope="module")
def content(of_resnet18: dict[str, torch.Tensor]) -> bytes:
    """The file of torchvision, with other weights."""
    stream = io.BytesIO()
    torch.save(of_resnet18, stream)
    return stream.getvalue()


@pytest.fixture
def known(content: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """The table has the checksum of that file."""
    row = read_reference(ID).row
    assert row is not None
    other = replace(row, sha256=hashlib.sha256(content).hexdigest()[:8])

    def find_other(self: Reference) -> Published:
        return other

    monkeypatch.setattr(Reference, "row", property(find_other))


def test_a_file_is_downloaded_once_and_read(
    published: HubServer, known: None, content: bytes, of_resnet18: dict[str, torch.Tensor]
) -> None:
    published.files[FILE] = content
    model = load(open_published(read_reference(ID)))
    loaded = model.network.state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in of_resnet18.items())
    seen = model.description.preprocessing
    assert (seen.size, seen.resize, seen.interpolation) == (224, 256, "bilinear")
    assert model.description.class_names[207].startswith("golden retriever")
    assert model.description.origin["licence"] == "bsd-3-clause"
    open_published(read_reference(ID))
    assert [path for _, path in published.asked].count(f"/files/{FILE}") == 1


def test_an_interrupted_download_goes_on_where_it_ended(
    published: HubServer, known: None, content: bytes, tmp_path: Path
) -> None:
    published.files[FILE] = content
    published.faults["/files/*"] = Fault(cut=3_000_000, times=2)
    sizes = [0]
    for _ in range(2):  # the second attempt, which is cut as well, adds to what the first has left
        with pytest.raises(ContentError, match="goes on from there"):
            torchvision.torchvision_files(read_reference(ID))
        (part,) = (tmp_path / "torch" / "hub" / "checkpoints").iterdir()
        assert 0 < part.stat().st_size - sizes[-1] <= 3_000_000
        sizes.append(part.stat().st_size)
    files = torchvision.torchvision_files(read_reference(ID))
    assert files.weights.read_bytes() == content
    assert [path.name for path in files.weights.parent.iterdir()] == [FILE]


def test_a_file_with_another_checksum_is_not_kept(
    published: HubServer, content: bytes, tmp_path: Path
) -> None:
    published.files[FILE] = content  # whose checksum is not f37072fd
    with pytest.raises(ContentError, match=r"damaged or was changed.*f37072fd"):
        torchvision.torchvision_files(read_reference(ID))
    assert not list((tmp_path / "torch" / "hub" / "checkpoints").iterdir())


def test_a_damaged_copy_is_replaced_by_fetch_only(
    published: HubServer, known: None, content: bytes, tmp_path: Path
) -> None:
    published.files[FILE] = content
    folder = tmp_path / "torch" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    (folder / FILE).write_bytes(content[:-1] + b"x")
    with pytest.raises(ContentError, match=r"damaged.*resnets fetch"):
        torchvision.torchvision_files(read_reference(ID))
    files = torchvision.torchvision_files(read_reference(ID), again=True)
    assert files.weights.read_bytes() == content


@pytest.mark.parametrize("offline", [True, False])
def test_without_a_network_a_line_names_the_file_and_the_folder(
    published: HubServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, offline: bool
) -> None:
    if offline:
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("RESNETS_TORCHVISION_URL", "http://127.0.0.1:9")
    with pytest.raises(ContentError) as caught:
        torchvision.torchvision_files(read_reference(ID))
    for word in (f"https://download.pytorch.org/models/{FILE}", str(tmp_path / "torch"), "--to"):
        assert word in str(caught.value)


def test_a_server_that_takes_no_connection_is_not_waited_for(
    published: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its queue of one is full: the kernel answers no more requests to connect."""
    monkeypatch.setattr(torchvision, "_CONNECTING", 0.2)
    with ExitStack() as stack:
        full = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(3):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        address = f"http://127.0.0.1:{full.getsockname()[1]}"
        monkeypatch.setenv("RESNETS_TORCHVISION_URL", address)
        end = threading.Timer(8, full.close)  # or it would be waited for
        end.start()
        with pytest.raises(ContentError, match="is not reached"):
            torchvision.torchvision_files(read_reference(ID))
        end.cancel()
        assert full.fileno() >= 0, "it was closed, not given up"


@pytest.mark.parametrize("beginning", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nresn"])
def test_a_server_that_falls_silent_is_given_up(
    published: HubServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, beginning: bytes
) -> None:
    """It has longer than for the connection; what it sent is kept, and it is asked once."""
    monkeypatch.setattr(torchvision, "_CONNECTING", 100)
    monkeypatch.setattr(torchvision, "_PATIENCE", 0.5)
    taken: list[socket.socket] = []

    def end_it() -> None:
        for connection in taken:
            connection.close()

    def answer(server: socket.socket) -> None:
        with suppress(OSError):
            while True:
                taken.append(server.accept()[0])
                taken[-1].sendall(beginning)

    with socket.create_server(("127.0.0.1", 0)) as silent:
        thread = threading.Thread(target=answer, args=(silent,), daemon=True)
        thread.start()
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        monkeypatch.setenv("RESNETS_TORCHVISION_URL", address)
        end = threading.Timer(8, end_it)
        end.start()
        message = "goes on from there" if beginning else "is not reached"
        with pytest.raises(ContentError, match=message):
            torchvision.torchvision_files(read_reference(ID))
        end.cancel()
        assert [each.fileno() >= 0 for each in taken] == [True]
        silent.shutdown(socket.SHUT_RDWR)
    thread.join()
    taken[0].close()
    parts = [path.read_bytes() for path in (tmp_path / "torch").rglob("*.part")]
    assert parts == ([b"resn"] if beginning else [])


@pytest.mark.parametrize("code", [401, 403])
def test_a_server_that_refuses_is_told_with_what_to_do(published: HubServer, code: int) -> None:
    published.faults["/files/*"] = Fault(code)
    with pytest.raises(ContentError) as caught:
        torchvision.torchvision_files(read_reference(ID))
    text = str(caught.value)
    assert "\n" not in text
    for word in (ID, str(code), "RESNETS_TORCHVISION_URL", f"pytorch.org/models/{FILE}"):
        assert word in text


def test_a_file_that_the_server_lacks_is_told(published: HubServer) -> None:
    with pytest.raises(ContentError, match="404"):
        torchvision.torchvision_files(read_reference(ID))
