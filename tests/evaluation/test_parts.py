import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from resnets.deployment.engines import open_engine
from resnets.errors import ContentError, UsageError
from resnets.evaluation.parts import Part, merge
from resnets.evaluation.predict import Prediction, read
from resnets.evaluation.source import Source
from tests.in_process import call

SIX = ("ant", "bee", "cat", "dog", "eel", "fly")
Untrained = Callable[..., Path]


@given(total=st.integers(0, 500), parts=st.integers(1, 80))
def test_parts_are_the_list_in_order_and_of_almost_equal_length(total: int, parts: int) -> None:
    everything = list(range(total))
    slices = [Part(number, parts).of_list(everything) for number in range(1, parts + 1)]
    assert [each for part in slices for each in part] == everything
    assert max(map(len, slices)) - min(map(len, slices)) <= 1


@pytest.mark.parametrize("text", ["0/4", "5/4", "1/0", "1", "a/b", "-1/4", "1/4/2", "1/1000000"])
def test_what_is_no_part_is_refused(text: str) -> None:
    done = call("predict", __file__, "--part", text, "--output", "nowhere")
    assert done.returncode == 2
    assert text in done.stderr or "--part" in done.stderr


@pytest.fixture(scope="module")
def model(untrained: Untrained) -> Path:
    return untrained(SIX)


@pytest.fixture(scope="module")
def photos(draw_noise: Callable[..., None], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five images in nested folders, one of them broken."""
    folder = tmp_path_factory.mktemp("photos")
    for number, name in enumerate(("a.png", "deep/b.png", "deep/c.png", "z.png")):
        draw_noise(folder / name, seed=number)
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff broken")
    return folder


def predict(*words: object) -> tuple[int, str]:
    done = call("predict", *words)
    return done.returncode, done.stderr


@pytest.mark.parametrize("parts", [1, 3, 7])
def test_the_parts_are_one_run(model: Path, photos: Path, tmp_path: Path, parts: int) -> None:
    """Seven parts of five images: some are empty."""
    words = (model, photos, "--top", 2, "--features")
    assert predict(*words, "--parquet", tmp_path / "one.parquet")[0] == 1
    for number in reversed(range(1, parts + 1)):
        code, message = predict(
            *words, "--part", f"{number}/{parts}", "--output", tmp_path / "parts"
        )
        assert code == 0, message
    done = call("merge", tmp_path / "parts", "--output", tmp_path / "all.parquet")
    assert done.returncode == 1  # as for one run, for the broken image
    assert "1 of 5 images cannot be read" in done.stderr
    one, merged = (pq.read_table(tmp_path / f"{name}.parquet") for name in ("one", "all"))
    assert merged.schema.equals(one.schema, check_metadata=True)
    for name in ("image", "prediction", "status", "top2", "error"):
        assert merged[name].equals(one[name]), name
    for name in ("probability", "probability2"):
        assert merged[name].to_pylist() == pytest.approx(one[name].to_pylist(), abs=1e-6)


def test_features_are_those_of_the_network_as_lists_of_one_length(
    model: Path, photos: Path, tmp_path: Path
) -> None:
    predict(model, photos, "--features", "--parquet", tmp_path / "t.parquet")
    table = pq.read_table(tmp_path / "t.parquet")
    kind = table.schema.field("features").type
    assert pa.types.is_fixed_size_list(kind)
    rows = {Path(row["image"]).name: row["features"] for row in table.to_pylist()}
    assert rows.pop("broken.jpg") == [None] * kind.list_size
    engine = open_engine(model)
    source = Source("a.png", photos / "a.png")
    frame = read(source, engine.description.preprocessing)
    assert not isinstance(frame, str)
    expected = engine.features(frame[None])
    assert np.allclose(rows["a.png"], expected[0], atol=1e-6)
    assert all(len(row) == kind.list_size == expected.shape[1] for row in rows.values())


def test_a_part_that_is_there_is_not_predicted_again(
    model: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = (model, photos, "--part", "2/3", "--output", tmp_path)
    assert predict(*words)[0] == 0
    monkeypatch.setattr("resnets.deployment.engines.opening.open_engine", None)
    code, message = predict(*words)
    assert (code, "done already" in message) == (0, True)
    assert len(list(tmp_path.iterdir())) == 1


def test_what_holds_for_every_part_is_told_with_the_first(
    model: Path, photos: Path, tmp_path: Path
) -> None:
    words = (model, photos, "--output", tmp_path)
    tells = [
        number
        for number in (1, 2, 3)
        if "not calibrated" in predict(*words, "--part", f"{number}/3")[1]
    ]
    assert tells == [1]


def test_a_part_that_is_interrupted_is_not_there_until_it_is_whole(
    model: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = (model, photos, "--part", "1/2", "--output", tmp_path)

    def interrupted(*_: object, **__: object) -> Iterator[Prediction]:
        yield Prediction("a.png")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("resnets.evaluation.predict.predict", interrupted)
        assert predict(*words)[0] == 130
    assert not list(tmp_path.iterdir())
    assert predict(*words)[0] == 0
    assert len(list(tmp_path.iterdir())) == 1


def test_parts_of_another_model_list_number_or_settings_are_refused_and_not_mixed(
    model: Path, photos: Path, untrained: Untrained, tmp_path: Path
) -> None:
    assert predict(model, photos, "--part", "1/2", "--output", tmp_path)[0] == 0
    second = ("--part", "2/2", "--output", tmp_path)
    cases = {
        "another model": (untrained(SIX, resize=24), photos, *second),
        "images": (model, photos / "deep", *second),
        "other images": (model, *[photos / "a.png"] * 5, *second),
        "with --top 1, not with --top 2": (model, photos, "--top", 2, *second),
        "one of 2 parts": (model, photos, "--part", "1/3", "--output", tmp_path),
    }
    for reason, words in cases.items():
        code, message = predict(*words)
        assert (code, reason in message) == (2, True), message
    assert len(list(tmp_path.iterdir())) == 1


def test_merging_names_the_parts_that_are_missing(
    model: Path, photos: Path, tmp_path: Path
) -> None:
    for number in (2, 4):
        predict(model, photos, "--part", f"{number}/7", "--output", tmp_path / "parts")
    done = call("merge", tmp_path / "parts", "--output", tmp_path / "all.parquet")
    assert done.returncode == 1  # as for shards without their index: not all of it is there yet
    assert "missing of 7 parts: 1, 3, 5 to 7" in done.stderr
    _, command, _ = done.stderr.split("`")
    shown = command.replace("resnets predict", "echo")  # what a shell makes of it
    if shutil.which("bash"):
        lines = subprocess.run(["bash", "-c", shown], capture_output=True, text=True, check=True)
        assert re.findall(r"--part (\S+)", lines.stdout) == ["1/7", "3/7", "5/7", "6/7", "7/7"]
    assert not (tmp_path / "all.parquet").exists()


def test_merging_refuses_what_is_mixed_or_damaged(
    model: Path, photos: Path, untrained: Untrained, tmp_path: Path
) -> None:
    parts, other = tmp_path / "parts", tmp_path / "other"
    predict(model, photos, "--part", "1/2", "--output", parts)
    predict(untrained(SIX, resize=24), photos, "--part", "2/2", "--output", other)
    name = "part-00002-of-00002.parquet"
    words = ("merge", parts, "--output", tmp_path / "all.parquet")
    for content, code, reason in (
        ((other / name).read_bytes(), 2, "another model"),
        ((other / name).read_bytes()[:-20], 1, "damaged"),
        ((parts / "part-00001-of-00002.parquet").read_bytes(), 2, "holds part 1"),
    ):
        (parts / name).write_bytes(content)
        done = call(*words)
        assert (done.returncode, reason in done.stderr) == (code, True), done.stderr
    (parts / name).unlink()
    predict(model, photos, "--part", "2/2", "--output", parts)
    again = shutil.copy(parts / name, parts / "part-00002-of-00003.parquet")
    done = call(*words)
    assert (done.returncode, again.name in done.stderr) == (2, True)
    assert not (tmp_path / "all.parquet").exists()
    again.unlink()
    assert "5 rows" in call(*words).stderr


def test_no_damage_of_a_part_gets_into_the_joined_file(
    model: Path, photos: Path, tmp_path: Path
) -> None:
    """A flipped bit in the numbers of a page is no error to readers of parquet files."""
    parts, target = tmp_path / "parts", tmp_path / "all.parquet"
    words = (model, photos, "--features", "--output", parts)
    for number in (1, 2):
        assert predict(*words, "--part", f"{number}/2")[0] == 0
    merge(parts, target)
    whole, part = target.read_bytes(), parts / "part-00002-of-00002.parquet"
    content = part.read_bytes()
    for place in range(4, len(content), len(content) // 150):
        part.write_bytes(content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :])
        try:
            merge(parts, target)
        except (ContentError, UsageError):
            continue
        assert target.read_bytes() == whole, f"byte {place} of {len(content)}"
    middle = len(content) // 2
    part.write_bytes(content[:middle] + bytes([content[middle] ^ 4]) + content[middle + 1 :])
    done = call("merge", parts, "--output", target)
    assert (done.returncode, "damaged" in done.stderr) == (1, True)
    first = parts / "part-00001-of-00002.parquet"
    sound = first.read_bytes()
    first.write_bytes(sound[:-30])  # both are named
    done = call("merge", parts, "--output", target)
    assert (done.returncode, first.name in done.stderr, part.name in done.stderr) == (1, True, True)
    for number, expected in ((1, sound), (2, content)):
        assert predict(*words, "--part", f"{number}/2")[0] == 0
        file = parts / f"part-0000{number}-of-00002.parquet"
        assert file.read_bytes() == expected


def test_shards_that_were_written_anew_between_two_parts_are_noticed(
    model: Path, photos: Path, tmp_path: Path
) -> None:
    """Parts of versions that did not note what the images hold go with any."""
    sound = photos / "deep"

    def shard(quality: int) -> None:
        words = ("--output", tmp_path / "shards", "--size", 16, "--quality", quality)
        done = call("shard", sound.parent, *words, "--skip-unreadable")
        assert done.returncode == 0, done.stderr

    def part(number: int, folder: str) -> tuple[int, str]:
        words = ("--part", f"{number}/2", "--output", tmp_path / folder)
        return predict(model, tmp_path / "shards", *words)

    def merge() -> tuple[int, str]:
        done = call("merge", tmp_path / "parts", "--output", tmp_path / "all.parquet")
        return done.returncode, done.stderr

    shard(90)
    assert (part(1, "parts")[0], part(1, "before")[0], part(2, "before")[0]) == (0, 0, 0)
    shard(30)
    for number in (1, 2):
        code, message = part(number, "parts")
        assert (code, "written anew" in message) == (2, True), message
    assert part(2, "after")[0] == 0
    name = "part-00002-of-00002.parquet"
    shutil.copy(tmp_path / "after" / name, tmp_path / "parts" / name)
    code, message = merge()
    assert (code, "written anew" in message) == (2, True), message
    table = pq.read_table(tmp_path / "parts" / name)
    record = json.loads(table.schema.metadata[b"resnets.part"])
    del record["stored_digest"]
    earlier = table.replace_schema_metadata({"resnets.part": json.dumps(record)})
    pq.write_table(earlier, tmp_path / "parts" / name)
    assert merge()[0] == 0


def test_flags_that_do_not_go_together_are_refused(
    model: Path, photos: Path, tmp_path: Path
) -> None:
    part = ("--part", "1/2", "--output", tmp_path / "parts")
    for words in (
        ("--part", "1/2"),
        ("--output", tmp_path / "parts"),
        (*part, "--json"),
        (*part, "--sort", tmp_path / "sorted"),
        ("--features",),
        ("--features", "--sort", tmp_path / "sorted", "--parquet", tmp_path / "t.parquet"),
        (*part, "--server", "http://127.0.0.1:1"),
    ):
        assert predict(model, photos, *words)[0] == 2, words
    assert call("predict", model, "-", *part, stdin=b"x").returncode == 2
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.soak
def test_64_parts_as_processes_of_which_some_are_killed_are_one_run(
    model: Path, draw_noise: Callable[..., None], tmp_path: Path
) -> None:
    """Processes predict 16 parts each in a loop; one is killed on its way and started again."""
    for number in range(130):
        draw_noise(tmp_path / "photos" / f"{number:03}.png", seed=number)
    script = (
        "import sys; from resnets.cli import main\n"
        "first, words = int(sys.argv[1]), sys.argv[2:]\n"
        "for part in range(first, 65, 4):\n"
        "    assert main(['predict', *words, '--part', f'{part}/64', '--output', 'parts']) == 0\n"
    )
    command = [sys.executable, "-c", script]

    def start(first: int) -> "subprocess.Popen[bytes]":
        words = [*command, str(first), str(model), "photos"]
        return subprocess.Popen(words, cwd=tmp_path, stderr=subprocess.DEVNULL)

    victim = start(1)
    while len(list((tmp_path / "parts").glob("part-*"))) < 3:
        assert victim.poll() is None
    victim.kill()
    victim.wait()
    processes = [start(first) for first in (1, 2, 3, 4)]
    assert [process.wait(timeout=300) for process in processes] == [0] * 4
    assert call("merge", "parts", "--output", "all.parquet", cwd=tmp_path).returncode == 0
    assert (
        call("predict", model, "photos", "--parquet", "one.parquet", cwd=tmp_path).returncode == 0
    )
    one, merged = (pq.read_table(tmp_path / f"{name}.parquet") for name in ("one", "all"))
    assert (
        merged.drop("probability")
        .drop("probability1")
        .equals(one.drop("probability").drop("probability1"))
    )
    assert merged["probability"].to_pylist() == pytest.approx(
        one["probability"].to_pylist(), abs=1e-6
    )


def test_a_part_says_what_it_was_made_from(model: Path, photos: Path, tmp_path: Path) -> None:
    predict(model, photos, "--part", "1/2", "--output", tmp_path)
    (file,) = tmp_path.iterdir()
    record = json.loads(pq.read_schema(file).metadata[b"resnets.part"])
    assert (record["part"], record["parts"], record["images"]) == (1, 2, 5)
    assert record["settings"]["top"] == 1


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows ends a process without a signal")
def test_a_part_that_the_scheduler_ends_leaves_nothing(
    model: Path, draw_noise: Callable[..., None], tmp_path: Path
) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    draw_noise(photos / "0.png", seed=0)
    for number in range(1, 3000):
        os.link(photos / "0.png", photos / f"{number}.png")
    words = ("predict", model, photos, "--part", "1/1", "--output", tmp_path / "out")
    command = [sys.executable, "-m", "resnets", *map(str, words)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        while not list(tmp_path.glob("out/.part-*")):
            assert process.poll() is None
            time.sleep(0.01)
        process.terminate()
        assert process.wait() == -signal.SIGTERM
    assert not list((tmp_path / "out").iterdir())


def test_what_a_killed_part_has_left_goes_with_the_next_one(
    model: Path, photos: Path, tmp_path: Path
) -> None:
    """But not what another process may be writing now; and merging takes it away, too."""
    output = tmp_path / "out"
    output.mkdir()

    def leave() -> None:
        for age, name in ((100_000, "old"), (10_000, "new")):
            file = output / f".part-00001-of-00001.parquet.{name}"
            file.touch()
            os.utime(file, (time.time() - age,) * 2)

    words = (model, photos, "--part", "1/1", "--output", output)
    for command in (("predict", *words), ("merge", output, "--output", tmp_path / "all.parquet")):
        leave()
        call(*command)
        assert [path.suffix for path in output.glob(".part*")] == [".new"], command


def test_a_part_whose_file_was_cut_off_is_predicted_again(
    model: Path, photos: Path, tmp_path: Path
) -> None:
    words = (model, photos, "--output", tmp_path / "out", "--part")
    for part in ("1/2", "2/2"):
        assert predict(*words, part)[0] == 0
    first = tmp_path / "out" / "part-00001-of-00002.parquet"
    whole = pq.read_table(first)
    for content in (first.read_bytes()[:-20], b""):
        first.write_bytes(content)
        code, message = predict(*words, "2/2")  # which needs nothing of the other
        assert (code, "done already" in message) == (0, True)
        code, message = predict(*words, "1/2")
        assert (code, "predicted again" in message) == (0, True), message
        assert pq.read_table(first).equals(whole)


def test_a_file_under_the_name_of_a_part_that_is_none_is_kept(
    model: Path, photos: Path, tmp_path: Path
) -> None:
    file = tmp_path / "out" / "part-00001-of-00002.parquet"
    file.parent.mkdir()
    file.write_bytes(b"my only copy")
    for part in ("1/2", "2/2"):
        code, message = predict(model, photos, "--output", file.parent, "--part", part)
        assert (code, file.name in message) == (1, True), message
    assert [path.read_bytes() for path in file.parent.iterdir()] == [b"my only copy"]


def test_a_table_is_not_written_under_the_name_of_another_kind(
    model: Path, photos: Path, tmp_path: Path
) -> None:
    assert predict(model, photos, "--part", "1/1", "--output", tmp_path / "out")[0] == 0
    for words in (
        ("predict", model, photos, "--parquet", tmp_path / "all.csv"),
        ("merge", tmp_path / "out", "--output", tmp_path / "all.CSV"),
    ):
        done = call(*words)
        assert (done.returncode, "is written, not" in done.stderr) == (2, True), done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"out"}
