import contextlib
import csv
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pyarrow.parquet as pq
import pytest

from resnets import api
from tests.calibration import calibration_at
from tests.in_process import call
from tests.spread import spread

Shared = Callable[[str], Path]
Untrained = Callable[..., Path]


def predict(*words: str | Path, stdin: bytes = b"") -> CompletedProcess[str]:
    return call("predict", *words, stdin=stdin)


SIX = ("ant", "bee", "cat", "dog", "eel", "fly")


@pytest.fixture(scope="module")
def model(untrained: Untrained) -> Path:
    """An untrained network of six classes."""
    return untrained(SIX)


@pytest.fixture(scope="module")
def photos(draw_noise: Callable[..., None], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three images, one of them broken, in nested folders."""
    folder = tmp_path_factory.mktemp("photos")
    draw_noise(folder / "a.png")
    draw_noise(folder / "deep" / "b.JPG", seed=1)
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff broken")
    (folder / ".hidden.png").write_bytes(b"")
    return folder


def test_a_broken_image_is_a_row_with_its_reason_and_the_others_are_predicted(
    model: Path, photos: Path
) -> None:
    done = predict(model, photos, "--json", "--top", "6")
    assert done.returncode == 1
    rows = json.loads(done.stdout)
    assert [Path(row["image"]).name for row in rows] == ["a.png", "broken.jpg", "b.JPG"]
    assert [row["status"] for row in rows] == ["not calibrated", "unreadable", "not calibrated"]
    assert rows[1]["prediction"] is None
    assert rows[1]["error"]
    for row in (rows[0], rows[2]):
        listed = [row[f"probability{rank}"] for rank in range(1, 7)]
        assert sum(listed) == pytest.approx(1)
        assert listed == sorted(listed, reverse=True)
        assert (row["prediction"], row["probability"]) == (row["top1"], row["probability1"])


def test_every_form_and_way_of_naming_gives_the_same_answers(
    model: Path, photos: Path, tmp_path: Path
) -> None:
    file = photos / "a.png"
    rows = json.loads(predict(model, file, "--json").stdout)
    piped = json.loads(predict(model, "-", "--json", stdin=file.read_bytes()).stdout)
    assert piped == [rows[0] | {"image": "standard input"}]
    matched = predict(model, photos / "*.png", "--csv").stdout
    (line,) = csv.DictReader(io.StringIO(matched))
    assert float(line["probability"]) == rows[0]["probability"]
    assert predict(model, file, "--parquet", tmp_path / "t.parquet").returncode == 0
    assert pq.read_table(tmp_path / "t.parquet").to_pylist() == rows


def test_what_is_less_probable_than_the_threshold_is_predicted_but_unsure(
    untrained: Untrained, photos: Path
) -> None:
    unsure = untrained(SIX, calibration=calibration_at(0.999))
    (row,) = json.loads(predict(unsure, photos / "a.png", "--json").stdout)
    assert row["status"] == "unsure"
    assert row["prediction"] == row["top1"] in SIX
    table = predict(unsure, photos / "a.png").stdout.splitlines()
    assert table[0].split() == ["image", "prediction", "probability", "status"]
    assert table[1].split()[-1] == "unsure"
    plain = untrained(SIX)
    (sharper,) = json.loads(predict(plain, photos / "a.png", "--json").stdout)
    assert row["probability"] < sharper["probability"]


def test_a_class_called_unknown_is_told_from_an_unsure_prediction(
    untrained: Untrained, photos: Path
) -> None:
    """No text stands for both: the prediction is the same, the status is another."""
    (first,) = api.predict(untrained(SIX), photos / "a.png")
    names = tuple("unknown" if name == first.prediction else name for name in SIX)
    sure, unsure = (
        api.predict(untrained(names, calibration=calibration_at(least)), photos / "a.png")[0]
        for least in (0.0, 1.0)
    )
    assert (sure.prediction, sure.status) == ("unknown", "ok")
    assert (unsure.prediction, unsure.status) == ("unknown", "unsure")
    assert replace(unsure, status="ok") == sure


@pytest.mark.slow
def test_no_file_crashes_or_hangs_it(model: Path, shared: Shared) -> None:
    """Every file of public suites of damaged and odd images, in one process."""
    folder = shared("badimages")
    files = [Path(where) / name for where, _, names in os.walk(folder) for name in names]
    done = predict(model, *files, "--json")
    assert done.returncode == 1
    rows = json.loads(done.stdout)
    assert len(rows) == len(files)
    assert all(
        (row["prediction"] is None) == (row["status"] == "unreadable") == bool(row["error"])
        for row in rows
    )
    assert sum(row["error"] is None for row in rows) > 70
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "no images given"),
        (["nothing/*.png"], "nothing/*.png: no such image"),
        (["PHOTOS", "--top", "7"], "top is 7; the network has 6 classes"),
        (["PHOTOS", "--batch-size", "0"], "batch size 0"),
        (["PHOTOS", "--json", "--csv"], "choose one"),
    ],
)
def test_wrong_use_is_told(words: list[str], message: str, model: Path, photos: Path) -> None:
    done = predict(model, *[str(photos) if word == "PHOTOS" else word for word in words])
    assert done.returncode == 2
    assert message in done.stderr


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("runn", "runn: no model"),
        ("resnet20_cifr10", "nearest: resnet20_cifar10"),
        ("ann/my-photos", "hf-hub:ann/my-photos"),
        ("nowhere.png", "nowhere.png: no such image"),
    ],
)
def test_a_first_word_that_is_neither_model_nor_image_is_named(
    word: str, message: str, photos: Path
) -> None:
    for done in (predict(word, photos), predict(word)):
        assert done.returncode == 2
        assert message in done.stderr


@pytest.mark.parametrize("name", ["a.png", "broken.jpg", "."])
def test_json_is_laid_out_as_by_the_standard_library(model: Path, photos: Path, name: str) -> None:
    text = predict(model, photos / name, "--json").stdout
    assert text == json.dumps(json.loads(text), indent=2) + "\n"


PREDICT = (
    "import signal; from resnets import cli; "
    "signal.signal(signal.SIGINT, signal.default_int_handler); "  # the tests may ignore it
    "raise SystemExit(cli.main())"
)


def predicting(rows: Path, *words: object, **streams: Any) -> "subprocess.Popen[str]":
    """A process that predicts into a file."""
    command = [sys.executable, "-c", PREDICT, "predict", *map(str, words)]
    with rows.open("wb") as file:
        return subprocess.Popen(command, stdout=file, text=True, **streams)


def read(form: str, text: str) -> list[dict[str, Any]]:
    return json.loads(text) if form == "--json" else list(csv.DictReader(io.StringIO(text)))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows sends no signals to one process")
@pytest.mark.parametrize("form", spread(["--csv", "--json"]))
def test_ctrl_c_leaves_the_rows_of_what_was_predicted(
    model: Path, photos: Path, form: str, tmp_path: Path
) -> None:
    images, rows = tmp_path / "images", tmp_path / "rows"
    images.mkdir()
    for number in range(20_000):
        (images / f"{number:05}.png").hardlink_to(photos / "a.png")
    words = (model, images, form, "--batch-size", "4", "--engine", "torch")
    with predicting(rows, *words, stderr=subprocess.PIPE) as process:
        while rows.stat().st_size < 1000:  # a few rows, which are there long before the end
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        assert process.wait() == 130
        assert process.stderr is not None
        message = process.stderr.read()
    written = read(form, rows.read_text(encoding="utf-8"))
    assert f"{len(written):,}/20,000 images were predicted" in message
    assert all(row["prediction"] in SIX for row in written)
    assert [Path(row["image"]).name for row in written] == [
        f"{number:05}.png" for number in range(len(written))
    ]


WRITE = """
import signal, sys
from resnets.commands.prediction_output import Form, collect
from resnets.evaluation.predict import Prediction

signal.signal(signal.SIGINT, signal.default_int_handler)  # the tests may ignore it
form = Form(1, None, False, sys.argv[1] == "--json", sys.argv[1] == "--csv", None, False)
try:
    collect((Prediction(str(n) * 200_000, error="no image") for n in range(5)), 5, form)
except KeyboardInterrupt:
    sys.exit(130)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows sends no signals to one process")
@pytest.mark.parametrize("form", spread(["--csv", "--json"]))
@pytest.mark.parametrize(("signals", "unbuffered"), [(1, ""), (1, "1"), (2, "")])
def test_ctrl_c_while_a_reader_pauses_breaks_no_row(
    form: str, signals: int, unbuffered: str
) -> None:
    """A row is longer than what a pipe holds; a second Ctrl-C does not wait for the reader."""
    command = [sys.executable, "-c", WRITE, form]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    environment = os.environ | {"PYTHONUNBUFFERED": unbuffered}
    with subprocess.Popen(command, env=environment, **streams) as process:
        assert process.stdout is not None
        start = process.stdout.read(1)  # it writes, and waits for the pipe soon
        for _ in range(signals):
            time.sleep(0.2)
            process.send_signal(signal.SIGINT)
        if signals == 2:
            assert process.wait(20) == -signal.SIGINT
            return
        time.sleep(0.2)
        text = (start + process.stdout.read()).decode()
    assert process.returncode == 130
    csv.field_size_limit(1 << 20)
    assert [row["image"] for row in read(form, text)] == ["0" * 200_000]


@pytest.mark.soak
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such terminals")
@pytest.mark.parametrize("form", ["--csv", "--json"])
def test_a_bar_at_the_terminal_and_rows_in_a_file_do_not_mix(
    model: Path, photos: Path, form: str, tmp_path: Path
) -> None:
    import pty

    for number in range(30):
        (tmp_path / f"{number:05}.png").hardlink_to(photos / "a.png")
    terminal, inside = pty.openpty()
    rows = tmp_path / "rows"
    with (
        os.fdopen(terminal, "rb", buffering=0) as screen,
        predicting(rows, model, tmp_path, form, stderr=inside) as process,
    ):
        os.close(inside)
        shown = b""
        with contextlib.suppress(OSError):  # of a terminal that nobody writes to any more
            while part := screen.read(1000):
                shown += part
        assert process.wait() == 0
    assert b"100%" in shown
    assert b"prediction" not in shown
    assert len(read(form, rows.read_text(encoding="utf-8"))) == 30


@pytest.mark.parametrize("name", ["a.png", "broken.jpg", "."])
def test_a_csv_has_the_same_columns_whether_all_some_or_no_images_can_be_read(
    model: Path, photos: Path, name: str
) -> None:
    header = predict(model, photos / name, "--csv", "--top", "2").stdout.splitlines()[0]
    ranked = "top1,probability1,top2,probability2"
    assert header == f"image,prediction,probability,status,{ranked},error"


def test_parquet_has_one_schema_whether_all_some_or_no_images_can_be_read(
    model: Path, photos: Path, tmp_path: Path
) -> None:
    tables = []
    for name in ("a.png", "broken.jpg", "."):
        path = tmp_path / f"{len(tables)}.parquet"
        predict(model, photos / name, "--parquet", path, "--top", "2")
        tables.append(pq.read_table(path))
    assert tables[0].schema == tables[1].schema == tables[2].schema
    assert str(tables[0].schema.field("error").type) == "string"
    assert tables[0].column_names[-3:] == ["top2", "probability2", "error"]


@pytest.mark.parametrize("form", ["csv", "json"])
def test_a_name_for_the_output_is_told_where_it_goes(
    form: str, tmp_path: Path, draw_noise: Callable[..., None]
) -> None:
    draw_noise(tmp_path / "a.png")
    refused = call("predict", tmp_path / "a.png", f"--{form}", f"p.{form}")
    assert refused.returncode == 2
    assert f"--{form} > p.{form}" in refused.stderr
    (tmp_path / f"shots.{form}").mkdir()  # a folder of such a name is one of images
    draw_noise(tmp_path / f"shots.{form}" / "b.png")
    assert call("predict", tmp_path / f"shots.{form}", f"--{form}").returncode == 0


@pytest.mark.parametrize("words", [(), ("--top", "3")])
def test_a_row_of_an_unreadable_image_has_the_keys_of_the_others(
    words: tuple[str, ...], tmp_path: Path, draw_noise: Callable[..., None]
) -> None:
    draw_noise(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"no image")
    rows = json.loads(call("predict", tmp_path, "--json", *words).stdout)
    assert [*rows[0]] == [*rows[1]]
    assert {row["error"] is None for row in rows} == {True, False}
    table = call("predict", tmp_path, *words).stdout
    assert table.count(str(tmp_path / "b.png")) == 1
    alone = call("explain", "resnet20_cifar10", tmp_path / "b.png", "--output", tmp_path / "maps")
    assert alone.returncode == 1
    assert not [*(tmp_path / "maps").glob("*.png")]


@pytest.mark.skipif(os.name == "nt", reason="Windows allows no such names")
@pytest.mark.parametrize("command", ["predict", "explain"])
def test_a_row_names_its_file_once_also_where_the_name_has_a_line_break(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("two\nlines.png").write_bytes(b"a text")
    printed = call(command, "resnet20_cifar10", "two\nlines.png")
    assert printed.returncode == 1
    assert (printed.stdout + printed.stderr).count(r"two\nlines.png") == 1
