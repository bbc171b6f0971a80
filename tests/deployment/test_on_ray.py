"""Prediction on a Ray cluster: what workers and the writer of parts do, and real clusters."""

import os
import pickle
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resnets.data.places import LocalFolder
from resnets.data.sources.opening import read_source
from resnets.deployment import on_ray
from resnets.deployment.engines.selection import digest
from resnets.deployment.on_ray import WorkerTask
from resnets.errors import ContentError, MissingExtra
from resnets.evaluation.finding_images import matching_images
from resnets.evaluation.parts import ROW, Part, missing_parts, record_of, write_parts
from resnets.evaluation.prediction_table import schema_of
from resnets.evaluation.source import Source, StoredImage, to_send
from tests.in_process import call
from tests.range_server import serving

Untrained = Callable[..., Path]
SCHEMA = pa.schema({"image": pa.string(), "error": pa.string()})


@pytest.fixture(scope="module")
def model(untrained: Untrained) -> Path:
    return untrained(("ant", "bee", "cat"))


@pytest.fixture(scope="module")
def photos(draw_noise: Callable[..., None], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of folders with eight images and a broken one."""
    folder = tmp_path_factory.mktemp("ray")
    for number in range(8):
        draw_noise(folder / "photos" / f"{number % 2}" / f"{number}.png", seed=number)
    (folder / "photos" / "broken.jpg").write_bytes(b"\xff\xd8\xff broken")
    return folder / "photos"


@pytest.fixture(scope="module")
def shards(photos: Path) -> Path:
    """The eight images in shards."""
    place = photos.parent / "shards"
    done = call("shard", photos, "--output", place, "--skip-unreadable", "--workers", 0)
    assert done.returncode == 0, done.stderr
    return place


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts of at most three images."""
    monkeypatch.setattr("resnets.evaluation.parts.ROWS", 3)


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A cluster of one worker in this process, whose blocks are done in any order; it counts."""
    done: list[int] = []

    @contextmanager
    def predicted(
        task: WorkerTask, sources: Sequence[Source], parts: Sequence[Part], **_: Any
    ) -> Iterator[Iterator[pa.Table]]:
        worker = on_ray._Worker(task)
        blocks = list(on_ray._blocks(task, sources, parts))
        random.Random(0).shuffle(blocks)
        tables = list(on_ray._without_failures(map(worker, blocks)))
        done.append(sum(map(len, tables)))
        yield iter(tables)

    monkeypatch.setattr(on_ray, "predicted_on_ray", predicted)
    return done


def check_equal(output: Path, model: Path, photos: Path, *words: object, broken: int = 1) -> None:
    """The merged parts are what one run writes; `broken` is 1 if an image cannot be read."""
    cwd = photos.parent
    assert call("merge", output, "--output", output / "all.parquet").returncode == broken
    one = output / "one.parquet"
    done = call("predict", model, photos.name, *words, "--parquet", one, cwd=cwd)
    assert done.returncode == broken
    merged, expected = pq.read_table(output / "all.parquet"), pq.read_table(one)
    assert merged.schema.equals(expected.schema)
    close = [name for name in merged.schema.names if name.startswith(("probability", "feat"))]
    assert merged.drop_columns(close).equals(expected.drop_columns(close))
    for name in close:
        flat = [
            table[name].combine_chunks().flatten() if name == "features" else table[name]
            for table in (merged, expected)
        ]
        assert flat[0].to_pylist() == pytest.approx(flat[1].to_pylist(), abs=1e-6)


@pytest.mark.usefixtures("small_parts")
def test_rows_from_workers_in_any_order_are_those_of_one_run(
    model: Path, photos: Path, tmp_path: Path, in_this_process: list[int]
) -> None:
    words = ("--top", 2, "--features", "--batch-size", 2)
    command = ("predict", model, photos.name, *words, "--on", "ray", "--output", tmp_path)
    done = call(*command, cwd=photos.parent)
    assert (done.returncode, "1 of 9 images" in done.stderr) == (0, True), done.stderr
    assert len(list(tmp_path.glob("part-*-of-00003.parquet"))) == 3
    check_equal(tmp_path, model, photos, *words)


@pytest.mark.usefixtures("small_parts")
def test_parts_that_are_there_are_not_predicted_again(
    model: Path, photos: Path, tmp_path: Path, in_this_process: list[int]
) -> None:
    """The parts are those of --part: either command goes on with the other's."""
    words = ("predict", model, photos.name, "--output", tmp_path)
    assert call(*words, "--part", "2/3", cwd=photos.parent).returncode == 0
    assert call(*words, "--on", "ray", cwd=photos.parent).returncode == 0
    assert in_this_process == [6]
    again = call(*words, "--on", "ray", cwd=photos.parent)
    assert (again.returncode, "done already" in again.stderr) == (0, True)
    assert in_this_process == [6]
    check_equal(tmp_path, model, photos)


@pytest.mark.usefixtures("small_parts")
def test_of_shards_workers_read_their_own_images(
    model: Path, shards: Path, tmp_path: Path, in_this_process: list[int]
) -> None:
    """From a folder and from a web server; a folder that is on no worker's machine is an error."""
    words = ("--on", "ray", "--output")
    assert call("predict", model, shards.name, *words, "here", cwd=shards.parent).returncode == 0
    check_equal(shards.parent / "here", model, shards, broken=0)
    with serving(shards) as server:
        assert call("predict", model, server.address, *words, tmp_path).returncode == 0
        assert any(name.endswith(".tar") for name, *_ in server.asked)
    check_equal(tmp_path, model, shards, broken=0)
    assert in_this_process == [8, 8]

    sources = [
        replace(
            each,
            content=replace(
                each.content,
                storage=replace(each.content.storage, folder=LocalFolder(tmp_path / "none")),
            ),
        )
        for each in matching_images(str(shards)).sources
    ]
    task = WorkerTask(
        *(Path.cwd(), model, digest(model), "torch", 1, None, False, 1, 4, False, schema_of(1))
    )
    blocks = on_ray._blocks(task, sources, [Part(1, 1)])
    with pytest.raises(ContentError, match="same path"):
        list(on_ray._without_failures(map(on_ray._Worker(task), blocks)))


def test_what_ray_carries_of_an_image_in_shards_is_its_place(shards: Path) -> None:
    """Neither its bytes nor the index of all images: the eight images have 1 kB each, and more."""
    sources = matching_images(str(shards)).sources
    assert min(len(source.loaded()) for source in sources) > 1_000
    few, many = (len(pickle.dumps(to_send(sources[:count]))) for count in (2, 8))
    assert (many - few) / 6 < 200
    assert few < 1_000


def test_images_that_are_stored_otherwise_are_sent_as_they_are() -> None:
    """Those of others' parquet files, say; here pixels in memory."""
    storage = read_source("digits").images["all"].storage
    (sent,) = to_send([Source("a digit", StoredImage(storage, 3))])
    assert isinstance(sent.content, np.ndarray)
    assert np.array_equal(sent.content, storage.read(3))


def test_what_a_worker_lacks_is_told_with_the_name_of_its_machine(
    model: Path, photos: Path, tmp_path: Path, untrained: Untrained, in_this_process: list[int]
) -> None:
    words = ("predict", model, photos, "--on", "ray", "--output", tmp_path)

    def lost(task: WorkerTask) -> None:
        """The worker's machine has another file under the model's path."""
        raise ContentError(f"{task.file}: no such file")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(WorkerTask, "engine_of_worker", lost)
        done = call(*words)
    assert (done.returncode, "no such file" in done.stderr) == (1, True), done.stderr
    assert not list(tmp_path.iterdir())


def test_a_worker_refuses_another_model_and_images_that_are_all_absent(
    model: Path, photos: Path, tmp_path: Path
) -> None:
    task = WorkerTask(
        *(Path.cwd(), model, digest(model), "torch", 1, None, False, 1, 4, False, schema_of(1))
    )
    absent = [Source("a.png", tmp_path / "a.png"), Source("b.png", tmp_path / "b.png")]
    here = [Source("broken.jpg", photos / "broken.jpg")]
    for wrong, sources, reason in (
        (replace(task, file_digest="0"), here, "another file"),
        (task, absent, "same path"),
    ):
        blocks = on_ray._blocks(wrong, sources, [Part(1, 1)])
        tables = on_ray._without_failures(map(on_ray._Worker(wrong), blocks))
        with pytest.raises(ContentError, match=reason):
            list(tables)


def tables_of_rows(starts: Sequence[int], total: int) -> list[pa.Table]:
    """Consecutive rows from each start to the next one."""
    return [
        pa.table(
            {
                "image": [f"{row}.png" for row in range(start, end)],
                "error": pa.nulls(end - start, pa.string()),
                ROW: list(range(start, end)),
            }
        )
        for start, end in zip(starts, [*starts[1:], total], strict=True)
    ]


@settings(max_examples=20)
@given(total=st.integers(1, 40), number=st.integers(1, 7), data=st.data())
def test_parts_are_in_the_order_of_the_list_however_their_rows_arrive(
    total: int, number: int, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    number = min(number, total)
    folder = tmp_path_factory.mktemp("parts")
    record = record_of(Part(1, number), [f"{row}.png" for row in range(total)], "model", {})
    parts = missing_parts(record, folder)
    starts = {part.bounds(total)[0] for part in parts}
    starts |= data.draw(st.sets(st.integers(0, total - 1)))
    tables = data.draw(st.permutations(tables_of_rows(sorted(starts), total)))
    list(write_parts(tables, record, folder, SCHEMA))
    part_tables = [pq.read_table(part.file(folder)) for part in parts]
    assert pa.concat_tables(part_tables)["image"].to_pylist() == [
        f"{row}.png" for row in range(total)
    ]
    assert not missing_parts(record, folder)


@pytest.mark.parametrize("starts", [[0, 2, 4], [0, 2, 2, 6], [2, 4, 6]])
def test_rows_that_are_lost_or_there_twice_are_refused(tmp_path: Path, starts: list[int]) -> None:
    record = record_of(Part(1, 1), [f"{row}.png" for row in range(8)], "model", {})
    every = dict(zip((0, 2, 4, 6), tables_of_rows((0, 2, 4, 6), 8), strict=True))
    with pytest.raises(ContentError, match="again"):
        list(write_parts([every[start] for start in starts], record, tmp_path, SCHEMA))
    assert not list(tmp_path.iterdir())


def test_without_ray_one_line_says_what_to_install(
    model: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(module: str, extra: str) -> None:
        raise MissingExtra(f"{module} is not installed: {extra}")

    monkeypatch.setattr(on_ray, "require", missing)
    done = call("predict", model, photos, "--on", "ray", "--output", tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
    assert "ray is not installed" in done.stderr


def test_flags_that_do_not_go_with_ray_are_refused(
    model: Path, photos: Path, tmp_path: Path
) -> None:
    on = ("--on", "ray", "--output", tmp_path / "parts")
    for words in (
        ("--on", "ray"),
        ("--on", "dask", "--output", tmp_path / "parts"),
        ("--address", "auto"),
        ("--workers", "2"),
        (*on, "--workers", "-1"),
        (*on, "--part", "1/2"),
        (*on, "--json"),
        (*on, "--parquet", tmp_path / "t.parquet"),
        (*on, "--sort", tmp_path / "sorted"),
        (*on, "--server", "http://127.0.0.1:1"),
    ):
        assert call("predict", model, photos, *words).returncode == 2, words
    assert call("predict", model, "-", *on, stdin=b"x").returncode == 2
    assert not list(tmp_path.iterdir())


@pytest.fixture
def ray_settings(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Ray, if it is installed; no statistics are sent, and its sockets have short names."""
    for name, value in {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_TMPDIR": "/tmp",
        "RAY_AUTH_MODE": "disabled",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    return pytest.importorskip("ray", reason="ray[data] is not installed")


@pytest.mark.slow
@pytest.mark.soak
@pytest.mark.skipif(sys.platform == "win32", reason="Ray on Windows is not tested")
def test_a_cluster_that_is_started_for_the_command_predicts_as_one_process(
    model: Path, shards: Path, tmp_path: Path, ray_settings: Any
) -> None:
    """Of shards behind a web server, which the process of a worker reads for itself."""
    with serving(shards) as server:
        words = ("predict", model, server.address, "--on", "ray", "--workers", 1)
        done = call(*words, "--output", tmp_path)
        assert (done.returncode, "8 rows" in done.stderr) == (0, True), done.stderr
        assert not ray_settings.is_initialized()
        wrong = call(*words, "--top", 2, "--output", tmp_path)
        assert (wrong.returncode, "--top 2" in wrong.stderr) == (2, True), wrong.stderr
    check_equal(tmp_path, model, shards, broken=0)


SMALL_PARTS = (
    "import signal, sys; from resnets import cli; from resnets.evaluation import parts; "
    "signal.signal(signal.SIGINT, signal.default_int_handler); "  # the tests may ignore it
    "parts.ROWS = 50; sys.exit(cli.main())"
)


@pytest.mark.slow
@pytest.mark.soak
@pytest.mark.skipif(sys.platform != "linux", reason="looks at processes as Linux shows them")
@pytest.mark.usefixtures("ray_settings")
@pytest.mark.parametrize("moment", ["Ray starts", "Ray works"])
def test_an_interrupt_ends_with_one_line_and_leaves_whole_parts(
    model: Path, draw_noise: Callable[..., None], tmp_path: Path, moment: str
) -> None:
    """To all processes of the terminal, as Ctrl-C; the same command then does the rest."""
    draw_noise(tmp_path / "one.png", 640, 480)
    (tmp_path / "photos").mkdir()
    for number in range(500):
        (tmp_path / "photos" / f"{number:04}.png").hardlink_to(tmp_path / "one.png")
    output = tmp_path / "parts"
    words = ("predict", model, "photos", "--on", "ray", "--workers", "1", "--output", output)
    command = [sys.executable, "-c", SMALL_PARTS, *map(str, words)]
    with subprocess.Popen(
        command, cwd=tmp_path, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        starts = moment == "Ray starts"
        while not (children.read_bytes() if starts else [*output.glob("part-*")]):
            assert process.poll() is None
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGINT)
        _, printed = process.communicate(timeout=180)  # Ray ends slowly beside other work
    assert process.returncode == 128 + signal.SIGINT, printed
    assert printed.splitlines()[-1] == "resnets predict: interrupted"
    assert len(printed.splitlines()) == (1 if starts else 2), printed
    done = sorted(output.iterdir())
    assert len(done) < 10
    assert all(pq.read_table(file).num_rows == 50 for file in done)
    assert bool(done) == (not starts)
    before = [file.stat().st_mtime_ns for file in done]
    subprocess.run(command, cwd=tmp_path, check=True)
    assert [file.stat().st_mtime_ns for file in done] == before
    check_equal(output, model, tmp_path / "photos", broken=0)


@pytest.mark.slow
@pytest.mark.soak
@pytest.mark.skipif(sys.platform == "win32", reason="Ray on Windows is not tested")
@pytest.mark.filterwarnings("ignore")  # of Ray's test cluster
def test_a_machine_that_is_lost_costs_time_and_no_rows(
    model: Path, draw_noise: Callable[..., None], tmp_path: Path, ray_settings: Any
) -> None:
    """Two nodes of one core; the second is killed while both predict."""
    from ray.cluster_utils import Cluster

    draw_noise(tmp_path / "one.png", 640, 480)
    (tmp_path / "photos").mkdir()
    for number in range(2_000):  # about a minute for one core
        (tmp_path / "photos" / f"{number:04}.png").hardlink_to(tmp_path / "one.png")
    (tmp_path / "photos" / "broken.jpg").write_bytes(b"\xff\xd8\xff broken")
    head = {"num_cpus": 1, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    output, left = tmp_path / "parts", list[int]()

    def kill() -> None:
        """Once both nodes work, and a part is there."""
        while not (ray_settings.is_initialized() and list(output.glob("part-*"))):
            time.sleep(0.1)
        while ray_settings.available_resources().get("CPU", 0):
            time.sleep(0.1)
        cluster.remove_node(victim, allow_graceful=False)
        left.append(21 - len(list(output.glob("part-*"))))

    try:
        victim = cluster.add_node(num_cpus=1)
        killer = threading.Thread(target=kill, daemon=True)
        killer.start()
        words = ("--on", "ray", "--address", cluster.address, "--output", output)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("resnets.evaluation.parts.ROWS", 100)
            done = call("predict", model, "photos", *words, cwd=tmp_path)
        killer.join(60)
        assert done.returncode == 0, done.stderr
        assert left[0] > 2
    finally:
        ray_settings.shutdown()
        cluster.shutdown()
    check_equal(output, model, tmp_path / "photos")


def test_a_cluster_that_is_not_reached_is_one_line(
    model: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray's errors are of any type: here two that it raised."""

    def init(address: str, **_: object) -> None:
        raise Exception("The node timed out") if address == "local" else ConnectionError("nobody")

    ray = SimpleNamespace(is_initialized=lambda: False, init=init, shutdown=lambda: None)
    monkeypatch.setattr(on_ray, "require", lambda *_: ray)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    words = ("predict", model, photos, "--on", "ray", "--output", tmp_path)
    for address, code, reason in (((), 1, "timed out"), (("--address", "auto"), 2, "auto")):
        done = call(*words, *address)
        assert (done.returncode, reason in done.stderr) == (code, True), done.stderr
        assert done.stderr.count("\n") == 1


def test_an_interrupt_while_ray_starts_waits_until_it_has_and_then_ends_it(
    model: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Real Ray ends the process by SIGSEGV where it is interrupted at the wrong moment."""
    steps: list[str] = []

    def step(name: str) -> None:
        signal.raise_signal(signal.SIGINT)
        steps.append(name)

    ray = SimpleNamespace(
        is_initialized=lambda: False,
        init=lambda *_, **__: step("started"),
        shutdown=lambda: step("ended"),
    )
    monkeypatch.setattr(on_ray, "require", lambda *_: ray)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        done = call("predict", model, photos, "--on", "ray", "--output", tmp_path)
    finally:
        signal.signal(signal.SIGINT, before)
    assert steps == ["started", "ended"]
    assert (done.returncode, done.stderr) == (130, "resnets predict: interrupted\n")


def test_an_address_where_no_ray_answers_is_one_line_at_once(
    model: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing there, something else, and something that is silent: Ray would try for minutes."""
    monkeypatch.setattr(on_ray, "_PATIENCE", 0.3)
    words = ("predict", model, photos, "--on", "ray", "--output", tmp_path, "--address")
    with socket.create_server(("127.0.0.1", 0)) as silent, serving(tmp_path) as other:
        unused = socket.create_server(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        unused.close()
        addresses = {
            f"127.0.0.1:{port}": "refused",
            f"ray://127.0.0.1:{port}": "refused",
            "127.0.0.1:99999": "99999",
            other.address.removeprefix("http://"): "something else",
            f"127.0.0.1:{silent.getsockname()[1]}": "timed out",
        }
        for address, reason in addresses.items():
            done = call(*words, address)
            assert (done.returncode, reason in done.stderr) == (1, True), done.stderr
            assert done.stderr.count("\n") == 1
