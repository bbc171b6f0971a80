"""Large parquet files at an address, of a real web server: row groups are fetched, not files."""

import io
import json
import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from resnets.data.labelled import LabelledImages
from resnets.data.remote import copies
from resnets.data.remote.connections import _disconnect
from resnets.data.remote.failures import RemoteError
from resnets.data.sources import remote, row_groups
from resnets.data.sources.opening import read_source
from resnets.data.sources.remote import read_address
from resnets.data.storage import expect
from resnets.errors import ContentError, UsageError
from tests.hub_server import HubServer
from tests.in_process import call
from tests.range_server import RangeServer, serving

STRUCT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
GROUP, ROWS = 4, 14  # rows of a group, and of a file: the last group is smaller
SIDE = 100  # pixels: noise, so that a file is mostly images


def png(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def write(file: Path, seed: int, kind: Any = STRUCT) -> None:
    """A file as the hub's, with a column beside images and labels."""
    files: list[Any] = [png(seed * 1000 + row) for row in range(ROWS)]
    if kind == STRUCT:
        files = [{"bytes": data, "path": f"{row}.png"} for row, data in enumerate(files)]
    labels = ["ab"[row % 2] for row in range(ROWS)]
    rows = {"image": pa.array(files, kind), "label": labels, "patient": [*range(ROWS)]}
    pq.write_table(pa.table(rows), file, row_group_size=GROUP, write_page_checksum=True)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three files, all of them too large to be copied; and an empty cache."""
    monkeypatch.setenv("RESNETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(remote, "IN_MEMORY", 0)
    monkeypatch.setattr(row_groups, "_TAIL", 2000)
    folder = tmp_path / "set"
    folder.mkdir()
    for number, name in enumerate(("train-0", "train-1", "test-0")):
        write(folder / f"{name}.parquet", number)
    return folder


def let_go() -> None:
    """What the end of the process does."""
    _disconnect()
    while copies._in_use:
        os.close(copies._in_use.pop())


@pytest.fixture
def server(place: Path) -> Iterator[RangeServer]:
    with serving(place) as server:
        yield server
    let_go()


def opened(server: RangeServer, name: str = "train-{0..1}", limit: int = 0) -> LabelledImages:
    return read_address(f"{server.address}/{name}.parquet", limit).images["train"]


def group_bytes(place: Path, name: str = "train-1", group: int = 0) -> int:
    metadata = pq.read_metadata(place / f"{name}.parquet").row_group(group)
    (column,) = (c for c in map(metadata.column, range(4)) if c.path_in_schema == "image.bytes")
    size: int = column.total_compressed_size
    return size


def on_disk(tmp_path: Path) -> int:
    files = [path for path in tmp_path.glob("cache/copies/*/*") if path.is_file()]
    return sum(512 * path.stat().st_blocks for path in files)


@pytest.mark.parametrize("kind", [STRUCT, pa.binary(), pa.large_binary()], ids=str)
def test_images_labels_and_names_are_those_of_the_local_files(
    server: RangeServer, place: Path, kind: Any
) -> None:
    for number in range(2):
        write(place / f"train-{number}.parquet", number, kind)
    here, there = read_source(place).images["train"], opened(server)
    assert there.class_names == here.class_names == ("a", "b")
    assert there.labels.tolist() == here.labels.tolist()
    assert [*there.names] == [*here.names]
    assert [there.encoded(row) for row in range(2 * ROWS)] == [
        here.encoded(row) for row in range(2 * ROWS)
    ]
    assert there.storage.digests(20) == here.storage.digests(20)
    content = read_address(f"{server.address}/train-{{0..1}}.parquet", 0)
    assert content.columns["patient"]("train") == 2 * [*range(ROWS)]


def test_a_list_in_braces_names_the_files_of_several_splits(
    server: RangeServer, place: Path
) -> None:
    address = f"{server.address}/{{train-{{0..1}},test-0}}.parquet"
    with pytest.raises(UsageError):  # braces within braces
        read_address(address, 0)
    content = read_address(f"{server.address}/{{train-0,train-1,test-0}}.parquet", 0)
    assert {name: len(part) for name, part in content.images.items()} == {
        "train": 2 * ROWS,
        "test": ROWS,
    }
    assert content.images.keys() == read_source(place).images.keys()


def test_files_of_the_hub_are_read_where_it_redirects_to(place: Path) -> None:
    """Its answers to `resolve` are redirects to a store on another host."""
    files = {f"data/{file.name}": file.read_bytes() for file in place.glob("train-*.parquet")}
    with HubServer() as hub:
        hub.add("ann/photos", files, kind="dataset")
        address = f"{hub.address}/datasets/ann/photos/resolve/main/data/train-{{0..1}}.parquet"
        images = read_address(address, 0).images["train"]
        hub.asked.clear()
        assert images.encoded(ROWS + 1) == png(1001)
        stored = [path for method, path in hub.asked if path.startswith("/store/")]
        assert [path.rsplit("/", 1)[1] for path in stored] == ["train-1.parquet"]
    let_go()


def test_a_column_may_have_any_name(server: RangeServer, place: Path) -> None:
    features = {"info": {"features": {"a/b.c": {"_type": "Image"}}}}
    rows = {"a/b.c": pa.array([{"bytes": png(row)} for row in range(3)], STRUCT), "label": [0] * 3}
    table = pa.table(rows).replace_schema_metadata({"huggingface": json.dumps(features)})
    pq.write_table(table, place / "train-9.parquet")
    images = opened(server, "train-9")
    assert [images.encoded(row) for row in range(3)] == [*map(png, range(3))]


def test_opening_fetches_no_image_and_reading_one_fetches_its_row_group(
    server: RangeServer, place: Path, tmp_path: Path
) -> None:
    images = opened(server)
    whole = sum(file.stat().st_size for file in place.glob("train-*"))
    assert sum(stop - start for _, start, stop in server.asked) < whole / 4
    assert on_disk(tmp_path) < whole / 2
    server.asked.clear()
    assert images.encoded(ROWS + 1) == png(1001)
    assert images.encoded(ROWS + 2) == png(1002)
    assert sum(stop - start for _, start, stop in server.asked) == group_bytes(place)


def test_a_second_process_asks_only_whether_the_files_are_the_same(
    server: RangeServer, place: Path
) -> None:
    first = [opened(server).encoded(row) for row in (0, 20)]
    server.asked.clear()
    assert [opened(server).encoded(row) for row in (0, 20)] == first
    assert server.asked == []
    write(place / "train-1.parquet", 7)
    os.utime(place / "train-1.parquet", (1, 1))
    assert opened(server, "train-1").encoded(0) == png(7000)


def test_threads_that_expect_and_read_in_any_order_get_their_images(server: RangeServer) -> None:
    images = opened(server)
    orders = np.random.default_rng(0).permutation(2 * ROWS), np.arange(2 * ROWS)

    def read(order: Any) -> list[bool]:
        right = []
        for start in range(0, len(order), 5):
            part = [int(row) for row in order[start : start + 5]]
            expect(images.storage, part)
            right += [images.encoded(row) == png(row // ROWS * 1000 + row % ROWS) for row in part]
        return right

    with ThreadPoolExecutor(4) as threads:
        assert all(map(all, threads.map(read, orders * 2)))
    bytes_ = [(start, stop) for path, start, stop in server.asked if path == "/train-0.parquet"]
    assert len(bytes_) == len(set(bytes_))  # nothing comes twice


def _digest(images: LabelledImages, row: int, answers: Any) -> None:
    answers.put(images.storage.digests(row).digest)


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_another_process_reads_on(server: RangeServer, method: str) -> None:
    images = opened(server)
    expected = images.storage.digests(17).digest
    context: Any = multiprocessing.get_context(method)
    answers = context.Queue()
    process = context.Process(target=_digest, args=(images, 17, answers))
    process.start()
    assert answers.get(timeout=60) == expected
    process.join()


def test_the_cache_takes_no_more_than_allowed_and_what_is_missing_comes_again(
    server: RangeServer, tmp_path: Path
) -> None:
    everything = opened(server)
    for row in range(2 * ROWS):
        everything.encoded(row)
    limit = on_disk(tmp_path) // 2
    assert limit
    for path in tmp_path.glob("cache/copies/*/*.arrow"):
        path.unlink()
    content = read_address(f"{server.address}/train-{{0..1}}.parquet", limit)
    assert [text for text in content.warnings if "resnets shard" in text]
    images = content.images["train"]
    for row in (*range(2 * ROWS), 3):
        assert images.encoded(row) == png(row // ROWS * 1000 + row % ROWS)
        assert on_disk(tmp_path) <= limit + 4096  # the newest stays, whatever the block size
    labels_alone = read_address(f"{server.address}/train-0.parquet", limit, labelled=False)
    assert labels_alone.warnings == ()


def test_a_limit_that_no_row_group_fits_into_is_refused(server: RangeServer) -> None:
    with pytest.raises(UsageError, match=r"row group.*resnets shard"):
        opened(server, limit=2000)


@pytest.mark.parametrize("fault", ["503", "cut", "short"])
def test_an_answer_with_a_fault_is_asked_for_again(server: RangeServer, fault: str) -> None:
    images = opened(server)
    server.faults += [fault]
    assert images.encoded(ROWS) == png(1000)


def test_a_server_that_is_gone_is_no_damaged_file(server: RangeServer) -> None:
    images = opened(server)
    server.faults += ["refused"] * 9
    with pytest.raises(RemoteError, match="denied") as caught:
        images.encoded(ROWS)
    assert not isinstance(caught.value, ContentError)


def test_damage_is_named_by_its_address(server: RangeServer, place: Path) -> None:
    images = opened(server, "train-1")
    content = bytearray((place / "train-1.parquet").read_bytes())
    content[3000] ^= 1  # of an image in the first row group
    (place / "train-1.parquet").write_bytes(content)
    with pytest.raises(ContentError, match=rf"{server.address}/train-1\.parquet: not a readable"):
        images.encoded(1)
    assert images.encoded(GROUP) == png(1000 + GROUP)


@pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1" + bytes(90), b"PAR1" + 9 * b"PAR1"])
def test_what_is_no_parquet_file_is_named(server: RangeServer, place: Path, content: bytes) -> None:
    (place / "train-1.parquet").write_bytes(content)
    with pytest.raises(ContentError, match=r"train-1\.parquet: not a readable parquet file"):
        opened(server)


def test_a_damaged_or_missing_local_file_is_made_again(server: RangeServer, tmp_path: Path) -> None:
    opened(server).encoded(0)
    (kept,) = tmp_path.glob("cache/copies/*/*.arrow")
    kept.write_bytes(kept.read_bytes()[:100])
    assert opened(server).encoded(0) == png(0)


def test_it_is_trained_on_and_predicted(server: RangeServer, tmp_path: Path) -> None:
    """Streamed by worker processes, with a cache that holds a part."""
    data = f"{server.address}/train-{{0..1}}.parquet"
    line = ["train", data, "--output", "run", "--steps", "3", "--batch-size", "5", "--memory-gb"]
    line += ["0", "--workers", "2", "--cache", "300KB", "--network", "resnet14", "--no-report"]
    done = call(*line, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "resnets shard" in done.stderr + done.stdout
    done = call("predict", "run", data, "--csv", "--cache", "300KB", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 1 + 2 * ROWS
