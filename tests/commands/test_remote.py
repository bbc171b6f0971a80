"""Commands on the address of shards: the same as on the local folder, from a real web server."""

import csv
import http.server
import io
import re
import shlex
import shutil
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file

from resnets.data.sources import opening
from resnets.data.sources.opening import read_source
from resnets.data.splits import SourceContent
from resnets.errors import ContentError
from resnets.evaluation.finding_images import matching_images
from resnets.images import decode
from resnets.networks import build
from tests.in_process import call
from tests.range_server import RangeServer, serving
from tests.spread import spread

MODEL = "resnet14_cifar10"


def words(line: str, **values: object) -> list[str]:
    for name, value in values.items():
        line = line.replace(name, str(value))
    return line.split()


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of 48 photos of two of the classes that the packaged network knows."""
    folder = tmp_path_factory.mktemp("remote")
    for number, label in enumerate(["cat", "dog"] * 24):
        pixels = np.random.default_rng(number).integers(0, 255, (40, 36, 3), np.uint8)
        pixels[..., number % 2] //= 2
        (folder / "photos" / label).mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / "photos" / label / f"{number}.jpg")
    done = call(*words("shard photos --output shards"), cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder / "shards"


@pytest.fixture
def server(shards: Path) -> Iterator[RangeServer]:
    with serving(shards) as running:
        yield running


@pytest.mark.slow
def test_training_sees_the_same_images_in_the_same_order(
    shards: Path, server: RangeServer, tmp_path: Path
) -> None:
    line = (
        "train DATA --network resnet14 --from none --epochs 1 --image-size 16 --batch-size 8 "
        "--seed 3 --no-report --workers 0 --threads 1 --output OUT"
    )
    for data, flags in ((shards, ""), (server.address, " --cache 1GB")):
        name = "away" if flags else "here"
        done = call(*words(line + flags, DATA=data, OUT=tmp_path / name), cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    here, away = (load_file(tmp_path / name / "model.safetensors") for name in ("here", "away"))
    assert here.keys() == away.keys()
    for name, weight in here.items():
        np.testing.assert_array_equal(weight, away[name])
    assert f'data = "{server.address}"' in (tmp_path / "away/config.toml").read_text("utf-8")


@pytest.mark.slow
def test_where_the_server_fails_in_the_middle_the_way_to_go_on_is_told(
    server: RangeServer, tmp_path: Path
) -> None:
    """By a command that a shell takes, and which goes on."""
    line = "--network resnet14 --from none --epochs 3 --image-size 16 --batch-size 8 --no-report"
    run = tmp_path / "my run"

    def fail() -> None:
        while not any((run / "checkpoints").glob("*")):
            time.sleep(0.005)
        server.faults.extend(["refused"] * 1000)

    watcher = threading.Thread(target=fail, daemon=True)
    watcher.start()
    how = (*line.split(), "--checkpoint-every", 1, "--workers", 0, "--threads", 1)
    done = call("train", server.address, *how, "--output", run)
    watcher.join()
    assert (done.returncode, "access denied" in done.stderr) == (1, True), done.stderr
    (hint,) = (line for line in done.stderr.splitlines() if line.startswith("To continue: "))
    server.faults.clear()
    again = call(*shlex.split(hint.removeprefix("To continue: resnets ")))
    assert again.returncode == 0, again.stderr
    assert (run / "model.safetensors").is_file()


@pytest.mark.slow
def test_where_images_turn_out_to_be_damaged_in_the_middle_the_way_to_go_on_is_told(
    shards: Path, tmp_path: Path
) -> None:
    """As an address that fails does: the state is kept, and goes on once they are repaired."""
    photos, run = tmp_path / "photos", tmp_path / "run"
    shutil.copytree(shards.parent / "photos", photos)
    for number, label in enumerate(["cat", "dog"] * 3):  # of another size: not held in memory
        Image.new("RGB", (30, 50), (number, 9, 9)).save(photos / label / f"tall{number}.jpg")
    files = sorted(photos.glob("*/*.jpg"))
    sound = {path: path.read_bytes() for path in files}
    ended = threading.Event()

    def damage() -> None:
        while not any((run / "checkpoints").glob("*")) and not ended.is_set():
            time.sleep(0.005)
        for path in files:
            path.write_bytes(sound[path][:200])

    watcher = threading.Thread(target=damage, daemon=True)
    watcher.start()
    line = "--network resnet14 --from none --epochs 6 --image-size 16 --batch-size 8 --no-report"
    how = (*line.split(), "--checkpoint-every", 1, "--workers", 0, "--threads", 1)
    crops = ("--smallest-crop", "0.3")
    done = call("train", photos, *how, *crops, "--output", run)
    ended.set()
    watcher.join()
    assert (done.returncode, "unreadable" in done.stderr) == (1, True), done.stderr
    (hint,) = (line for line in done.stderr.splitlines() if line.startswith("To continue: "))
    for path, content in sound.items():
        path.write_bytes(content)
    again = call(*shlex.split(hint.removeprefix("To continue: resnets ")))
    assert again.returncode == 0, again.stderr


def test_evaluation_tells_of_images_that_it_reads_only_to_find_near_duplicates(
    server: RangeServer, tmp_path: Path
) -> None:
    line = "train DATA --network resnet14 --from none --epochs 1 --image-size 16 --batch-size 8"
    more = "--no-report --workers 0 --threads 1 --output OUT"
    done = call(*words(f"{line} {more}", DATA=server.address, OUT=tmp_path / "run"))
    assert done.returncode == 0, done.stderr
    for label in ("cat", "dog"):
        (tmp_path / "new" / label).mkdir(parents=True)
        pixels = np.random.default_rng(len(label)).integers(0, 255, (36, 40, 3), np.uint8)
        Image.fromarray(np.roll(pixels, ord(label[0]))).save(tmp_path / "new" / label / "0.png")
    requests = {}
    for compared in (0, 5, 12):
        server.asked.clear()
        line = f"evaluate OUT NEW --engine torch --compared {compared}"
        done = call(*words(line, NEW=tmp_path / "new", OUT=tmp_path / "run"))
        assert done.returncode == 0, done.stderr
        assert (f"reading {compared} training" in done.stderr) == (compared > 0), done.stderr
        requests[compared] = len([path for path, *_ in server.asked if path.endswith(".tar")])
    assert requests[0] < requests[5] < requests[12]
    for line in ("report OUT NEW", "compare OUT MODEL NEW --latency 0"):
        files = words(line, NEW=tmp_path / "new", OUT=tmp_path / "run", MODEL=tmp_path / "b")
        shutil.copytree(tmp_path / "run", tmp_path / "b", dirs_exist_ok=True)
        done = call(*files, "--compared", 5)
        assert done.returncode == 0, done.stderr
        assert "reading 5 training" in done.stderr, line


@pytest.mark.slow
def test_evaluation_and_doctor_find_the_same(
    shards: Path, server: RangeServer, tmp_path: Path
) -> None:
    for line in ("evaluate MODEL DATA --split all --compared 0 --csv", "doctor DATA"):
        outputs = []
        for data in (shards, server.address):
            done = call(*words(line, MODEL=MODEL, DATA=data), cwd=tmp_path)
            assert done.returncode == 0, done.stderr
            outputs.append(done.stdout.replace(str(data), "DATA"))
        assert outputs[0] == outputs[1]


def test_doctor_fetches_each_image_once(server: RangeServer, tmp_path: Path) -> None:
    done = call("doctor", server.address, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    size = sum(path.stat().st_size for path in server.folder.glob("*.tar"))
    asked = [(start, stop) for path, start, stop in server.asked if path.endswith(".tar")]
    assert 0 < sum(stop - start for start, stop in asked) <= size


def test_prediction_names_the_originals(shards: Path, server: RangeServer, tmp_path: Path) -> None:
    rows = {}
    for data in (shards.parent / "photos", shards, server.address):
        done = call(*words("predict MODEL DATA --csv", MODEL=MODEL, DATA=data), cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        rows[str(data)] = list(csv.DictReader(io.StringIO(done.stdout)))
    photos, here, away = rows.values()
    assert here == away
    assert len(server.asked) < 10  # of which one or two for the index
    predictions = {row["image"]: row["prediction"] for row in here}
    assert {Path(row["image"]).name for row in photos} == {Path(name).name for name in predictions}
    by_name = {Path(name).name: value for name, value in predictions.items()}
    assert all(by_name[Path(row["image"]).name] == row["prediction"] for row in photos)


def test_a_part_is_the_same_from_here_and_away(
    shards: Path, server: RangeServer, tmp_path: Path
) -> None:
    for name, data in (("here", shards), ("away", server.address)):
        for part in ("1/2", "2/2"):
            line = f"predict MODEL DATA --part {part} --output {name}"
            done = call(*words(line, MODEL=MODEL, DATA=data), cwd=tmp_path)
            assert done.returncode == 0, done.stderr
        done = call("merge", name, "--output", f"{name}.parquet", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    here, away = (pq.read_table(tmp_path / f"{name}.parquet") for name in ("here", "away"))
    assert here.equals(away)
    assert here.num_rows == 48


def damage(tar: Path) -> None:
    """Change bytes of the first image in a tar file; its size stays."""
    content = bytearray(tar.read_bytes())
    content[600:700] = bytes(100)
    tar.write_bytes(content)


def test_a_part_of_images_whose_store_holds_other_bytes_is_not_done(
    shards: Path, tmp_path: Path
) -> None:
    shutil.copytree(shards, tmp_path / "copy")
    tar = next((tmp_path / "copy").glob("*.tar"))
    damage(tar)
    with serving(tmp_path / "copy") as running:
        line = words("predict MODEL DATA --part 1/1 --output p", MODEL=MODEL, DATA=running.address)
        done = call(*line, cwd=tmp_path)
        assert done.returncode == 1
        assert tar.name in done.stderr
        assert not list((tmp_path / "p").glob("*.parquet"))
        shutil.copy(shards / tar.name, tar)
        assert call(*line, cwd=tmp_path).returncode == 0
    assert not any(pq.read_table(next((tmp_path / "p").glob("*.parquet")))["error"].to_pylist())


def test_a_damaged_shard_here_ends_a_prediction_with_what_to_do(
    shards: Path, tmp_path: Path
) -> None:
    """As wrong bytes of a remote place do: nothing is written of a file that says nothing."""
    for harm in (damage, lambda tar: tar.write_bytes(tar.read_bytes()[:3000]), Path.unlink):
        shutil.copytree(shards, tmp_path / "copy")
        sources = matching_images(str(tmp_path / "copy")).sources  # opened before it is harmed
        harm(next((tmp_path / "copy").glob("*.tar")))
        with pytest.raises(OSError, match="all-000000"):
            any(source.loaded() is None for source in sources)
        line = "predict MODEL copy --parquet all.parquet"
        done = call(*words(line, MODEL=MODEL), cwd=tmp_path)
        assert (done.returncode, "resnets shard" in done.stderr) == (1, True), done.stderr
        assert not (tmp_path / "all.parquet").exists()
        shutil.rmtree(tmp_path / "copy")


def test_shards_without_their_index_are_told_alike_by_training_and_prediction(
    shards: Path, tmp_path: Path
) -> None:
    shutil.copytree(shards, tmp_path / "copy")
    (tmp_path / "copy" / "index.parquet").rename(tmp_path / "copy" / "all-000000.tar.shard-rows")
    reasons = []
    for line in ("predict MODEL copy", "train copy --output run"):
        done = call(*words(line, MODEL=MODEL), cwd=tmp_path)
        assert done.returncode == 1
        reasons.append(done.stderr.partition(": ")[2])
    assert reasons[0] == reasons[1]
    assert "without their index" in reasons[0]


def test_shards_of_shards_at_an_address_are_read_through_the_cache(
    server: RangeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RESNETS_CACHE", str(tmp_path / "cache"))
    line = "shard ADDRESS --output again --size 16 --cache 1GB --workers 0"
    fetched = []
    for _ in range(2):
        done = call(*words(line, ADDRESS=server.address), cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        fetched.append(sum(name.endswith(".tar") for name, *_ in server.asked))
        server.asked.clear()
        shutil.rmtree(tmp_path / "again")
    assert fetched[0] > 0
    assert fetched[1] == 0


@pytest.mark.soak
@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a full queue refuses")
def test_a_host_that_answers_nothing_at_all_is_told_soon(tmp_path: Path) -> None:
    """A port whose queue is full is as silent as a host that is not there."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as silent, ExitStack() as stack:
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(silent.getsockname())
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        done = call("doctor", f"{address}/shards", cwd=tmp_path)
        assert (done.returncode, "nothing answers there (after 2" in done.stderr) == (1, True)
        done = call("predict", "--server", address, __file__, cwd=tmp_path)
        assert (done.returncode, "nothing answers there" in done.stderr) == (1, True)


def test_of_an_image_in_shards_nobody_is_told_to_delete_it(tmp_path: Path) -> None:
    for name in ("ant/0.jpg", "bee/0.jpg"):
        (tmp_path / "photos" / name).parent.mkdir(parents=True)
        Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(tmp_path / "photos" / name)
    done = call(*words("shard photos --output shards"), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    images = next(iter(read_source(str(tmp_path / "shards")).images.values()))
    photos = next(iter(read_source(str(tmp_path / "photos")).images.values()))
    for each, way in ((images, "pass --skip-unreadable"), (photos, "repair or delete it")):
        with pytest.raises(ContentError, match=re.escape(f"({way}")):
            each.naming(0, lambda: decode(b"no image"))


def test_a_damaged_shard_is_written_again(shards: Path, tmp_path: Path) -> None:
    shutil.copytree(shards, tmp_path / "copy")
    tar = next((tmp_path / "copy").glob("*.tar"))
    damage(tar)
    for repaired in (True, False):
        done = call(*words("shard DATA --output copy", DATA=shards.parent / "photos"), cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert tar.read_bytes() == (shards / tar.name).read_bytes()
        assert ("kept)" in done.stdout) != repaired


def test_a_place_without_shards_or_out_of_reach_is_one_clear_line(
    server: RangeServer, tmp_path: Path
) -> None:
    done = call("doctor", server.address + "/none", cwd=tmp_path)
    assert done.returncode == 2
    assert "index.parquet: no such file" in done.stderr
    for line in ("evaluate MODEL DATA", "predict MODEL DATA"):
        server.faults = ["refused"]
        done = call(*words(line, MODEL=MODEL, DATA=server.address), cwd=tmp_path)
        assert done.returncode == 1
        assert "access denied" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    "command",
    [
        *("doctor DATA", "evaluate MODEL DATA", "calibrate MODEL DATA --output OUT.safetensors"),
        *("compare MODEL MODEL DATA", "report MODEL DATA --output OUT.html"),
        *("predict MODEL DATA", "explain MODEL DATA --output OUT", "find-lr DATA --plot OUT.png"),
        "convert MODEL --to torchvision --output OUT.pth --verify DATA",
        "export MODEL --to onnx --output OUT.onnx --data DATA",
    ],
)
def test_a_cache_is_for_addresses_and_has_a_size(
    server: RangeServer, shards: Path, tmp_path: Path, command: str
) -> None:
    for data, cache in ((shards.parent / "photos", "1GB"), (server.address, "much")):
        line = f"{command} --cache {cache}"
        done = call(*words(line, MODEL=MODEL, DATA=data, OUT=tmp_path / "out"), cwd=tmp_path)
        assert (done.returncode, cache in done.stderr) == (2, True), done.stderr


def test_tar_and_parquet_files_of_others_are_read_from_their_address(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is read as a whole once; then images by ranges, or from the copy of a parquet file."""
    monkeypatch.setenv("RESNETS_CACHE", str(tmp_path / "cache"))
    place = tmp_path / "set"
    shutil.copytree(shards, place)
    rows = pq.read_table(shards / "index.parquet", columns=["name", "label"]).to_pylist()
    images = [(shards.parent / "photos" / row["name"]).read_bytes() for row in rows]
    labels = [("cat", "dog")[row["label"]] for row in rows]
    pq.write_table(pa.table({"image": images, "label": labels}), place / "train-0.parquet")
    outputs, asked = list[str](), list[int]()
    with serving(place) as server:
        for name in ("index.parquet", "all-{000000..000000}.tar", "train-0.parquet"):
            for _ in range(2):
                server.asked.clear()
                line = "evaluate MODEL DATA --split all --compared 0 --csv"
                data = f"{server.address}/{name}"
                done = call(*words(line, MODEL=MODEL, DATA=data), cwd=tmp_path)
                assert done.returncode == 0, done.stderr
                outputs.append(done.stdout)
                asked.append(len(server.asked))
    assert len({*outputs}) == 1
    assert asked[3] < asked[2]
    assert asked[5] < asked[4]


def test_a_conversion_is_verified_on_an_address(server: RangeServer, tmp_path: Path) -> None:
    line = "convert MODEL --to resnets --output out.safetensors --verify DATA --cache 1GB"
    done = call(*words(line, MODEL=MODEL, DATA=server.address), cwd=tmp_path)
    assert (done.returncode, server.address in done.stdout) == (0, True), done.stderr


def test_a_conversion_opens_an_address_with_the_cache_that_was_asked_for(
    server: RangeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A checkpoint without class names takes those of the images, which are opened twice."""
    sizes = []
    read = opening.read_address

    def noted(address: str, cache_bytes: int) -> SourceContent:
        sizes.append(cache_bytes)
        return read(address, cache_bytes)

    monkeypatch.setattr(opening, "read_address", noted)
    network = build("resnet20", num_classes=2)
    torch.save(network.state_dict(), tmp_path / "other.pth")
    line = "convert other.pth --to resnets --output out.safetensors --verify DATA --cache 1GB"
    done = call(*words(line, DATA=server.address), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(sizes) >= 2
    assert set(sizes) == {10**9}


@pytest.mark.soak
def test_a_second_export_reads_its_images_from_the_cache(
    server: RangeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RESNETS_CACHE", str(tmp_path / "cache"))
    line = "export MODEL --to onnx --output out.onnx --overwrite --data DATA --cache 1GB"
    asked = list[int]()
    for _ in range(2):
        done = call(*words(line, MODEL=MODEL, DATA=server.address), cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        asked.append(sum(path.endswith(".tar") for path, _, _ in server.asked))
        server.asked.clear()
    assert asked[0] > asked[1] == 0


class Answers(http.server.BaseHTTPRequestHandler):
    """Answers every request with the status of its server."""

    status = 404

    def respond(self) -> None:
        self.send_error(self.status)

    do_GET = do_HEAD = do_POST = respond  # noqa: N815  (names of the standard library)

    def log_message(self, *_: object) -> None:
        """Nothing is printed."""


@pytest.mark.slow  # attempts are made again before an address is given up
@pytest.mark.parametrize(("status", "code"), [(None, 1), (500, 1), (404, 2)])
@pytest.mark.parametrize(
    "line",
    spread(
        [
            "predict --server ADDRESS photo.png",
            "predict MODEL ADDRESS",
            "evaluate MODEL ADDRESS/a.tar",
            "train ADDRESS/a.parquet --output run",
            "fetch timm/resnet18.a1_in1k",
            "predict hf-hub:some/network photo.png",
        ],
        every=3,
    ),
)
def test_what_does_not_answer_is_a_fault_and_what_is_not_there_a_missing_input(
    line: str, status: int | None, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The address is of a server that answers with a status; None: of one that has just ended."""
    Image.new("RGB", (8, 8)).save(tmp_path / "photo.png")
    handler = type("Handler", (Answers,), {"status": status})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        address = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        if status is None:
            server.shutdown()
            server.server_close()
        for name in ("HF_HOME", "HF_HUB_CACHE", "RESNETS_CACHE"):
            monkeypatch.setenv(name, str(tmp_path / "cache"))
        monkeypatch.setenv("HF_ENDPOINT", address)
        try:
            done = call(*words(line, MODEL=MODEL, ADDRESS=address), cwd=tmp_path)
        finally:
            server.shutdown()
            thread.join()
    assert done.returncode == code, done.stderr
