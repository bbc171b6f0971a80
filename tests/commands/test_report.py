"""`resnets report`, as people run it, and what a browser makes of its page."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tinyhtml5.parser import HTMLParser

from resnets.model_file import read_description
from tests.in_process import call as resnets
from tests.processes import several

CIFAR10 = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
QUICK = ["digits", "--network", "resnet14", "--image-size", "8", "--epochs", "3"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a short run of two processes, the first of which ended with the report."""
    folder = tmp_path_factory.mktemp("runs") / "short"
    words = ["train", *QUICK, "--output", str(folder), "--device", "cpu"]
    done = several(*words)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(f"wrote {folder / 'report.html'}") == 1
    return folder


def sections(path: Path) -> dict[str, str]:
    """The page's text by heading, after a strict parse."""
    text = path.read_text(encoding="utf-8")
    parser = HTMLParser()
    parser.parse(text)
    assert not parser.errors
    parts = re.split(r"<h2[^>]*>([^<]*)</h2>", text)
    plain = [re.sub(r"<[^>]*>", "", part).replace("\xa0", " ") for part in parts]
    return dict(zip(plain[1::2], plain[2::2], strict=True))


def test_training_ends_with_a_page_that_tells_everything(run: Path) -> None:
    by_heading = sections(run / "report.html")
    assert [*by_heading] == [
        "Verdict", "What to look at", "What to do next", "Learning curves", "Classes",
        "Confusion matrix", "Calibration", "Images of other things", "Worst mistakes",
        "Labels that look wrong", "Duplicates of training and validation images",
        "How to reproduce it",
    ]  # fmt: skip
    text = (run / "report.html").read_text(encoding="utf-8")
    assert "on 179 images, the test split of digits" in text
    assert text.count("<svg") == 5  # three curves, the confusion matrix, the reliability diagram
    assert (
        "179 images with 1,618 training or validation images"
        in by_heading["Duplicates of training and validation images"]
    )
    assert by_heading["What to do next"].count("resnets ") == 3  # a command each
    torchrun = "torchrun --nproc-per-node 2 -m resnets train digits"
    assert torchrun in by_heading["How to reproduce it"]
    assert "data fingerprint" in by_heading["How to reproduce it"]
    assert (run / "report.html").stat().st_size < 300_000


def test_the_command_writes_the_same_page_again(run: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    done = resnets("report", run, "digits", "--output", page)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith(f"See {page}\n")
    before, after = sections(run / "report.html"), sections(page)
    assert "torchrun --nproc-per-node 2 -m" in after["What to do next"]  # as the run, by its log
    assert before == after


@pytest.mark.soak
def test_images_are_compared_with_training_images_alone_where_no_others_were_seen(
    tmp_path: Path,
) -> None:
    run, page = tmp_path / "run", tmp_path / "page.html"
    fewer = ["--validation", "0", "--output", run]
    done = resnets("train", *QUICK, *fewer)
    assert done.returncode == 0, done.stderr
    assert resnets("report", run, "digits", "--output", page).returncode == 0
    for written in (run / "report.html", page):
        by_heading = sections(written)
        assert "training images" in by_heading["Duplicates of training images"]
        assert "validation" not in by_heading["Duplicates of training images"]


def test_a_model_file_alone_has_no_curves_and_says_so(run: Path, tmp_path: Path) -> None:
    model, page = tmp_path / "digits.safetensors", tmp_path / "page.html"
    model.write_bytes((run / "model.safetensors").read_bytes())
    done = resnets("report", model, "digits", "--output", page, "--compared", "0")
    assert done.returncode == 0, done.stderr
    by_heading = sections(page)
    assert "log of the training is missing" in by_heading["Learning curves"]
    assert "switched off" in by_heading["Duplicates of training and validation images"]
    assert "--epochs 3" in by_heading["How to reproduce it"]


@pytest.mark.soak
def test_a_page_that_cannot_be_written_costs_no_model(run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    (copy / "report.html").unlink()
    (copy / "model.safetensors").unlink()
    (copy / "report.html").mkdir()  # no file can take its place
    done = resnets("train", "--resume", copy)
    assert done.returncode == 0, done.stderr
    assert "no report (IsADirectoryError" in done.stdout
    saved, before = (read_description(each / "model.safetensors") for each in (copy, run))
    assert saved.metrics["test"]["top1"] == before.metrics["test"]["top1"]
    assert '"kind": "end"' in (copy / "log.jsonl").read_text(encoding="utf-8").splitlines()[-1]


@pytest.mark.soak
def test_a_network_of_others_is_reported_on(shared: Callable[[str], Path], tmp_path: Path) -> None:
    """The published ResNet-20 on some of CIFAR-10's images; one of them is in both splits."""
    names, model = tmp_path / "names.txt", tmp_path / "resnet20.safetensors"
    names.write_text("\n".join(CIFAR10), encoding="utf-8")
    source = shared("weights/akamaster_resnet20.th")
    done = resnets("convert", source, "--to", "resnets", "--output", model, "--class-names", names)
    assert done.returncode == 0, done.stderr
    data = some_of(shared("data/cifar10"), tmp_path / "cifar")
    page = tmp_path / "page.html"
    done = resnets("report", model, data, "--output", page)
    assert done.returncode == 0, done.stderr
    assert "No verdict" in done.stdout
    by_heading = sections(page)
    assert "1 of them (0.3 %) repeat" in by_heading["Duplicates of training and validation images"]
    assert "The same pixels" in by_heading["Duplicates of training and validation images"]
    assert "does not say how this network was trained" in by_heading["How to reproduce it"]
    assert "(Grad-CAM)" in by_heading["Worst mistakes"]


def some_of(source: Path, target: Path) -> Path:
    """300 training and 300 test images, one of them in both."""
    target.mkdir()
    tables = {}
    for split in ("train", "test"):
        file = sorted(source.rglob(f"{split}*.parquet"))[0]
        tables[split] = pq.read_table(file).slice(0, 300)
    both = pa.concat_tables([tables["test"].slice(0, 299), tables["train"].slice(5, 1)])
    pq.write_table(tables["train"], target / "train-00000-of-00001.parquet")
    pq.write_table(both, target / "test-00000-of-00001.parquet")
    return target


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["nowhere", "digits"], 2, "nowhere: no such file; MODEL is a model file"),
        (["RUN", "digits", "--compared", "-1"], 2, "--compared -1: a number of images"),
        (["RUN", "digits", "--output", "/nowhere/page.html"], 2, "there is no folder /nowhere"),
        ([__file__, "digits"], 1, "not a safetensors file"),
        (["BROKEN", "digits"], 1, "log.jsonl: line 1 is not a record of a run"),
    ],
)
def test_wrong_use_and_bad_files_are_told_apart(
    words: list[str], code: int, message: str, run: Path, tmp_path: Path
) -> None:
    (tmp_path / "model.safetensors").write_bytes((run / "model.safetensors").read_bytes())
    (tmp_path / "log.jsonl").write_text("[1]\n[2]\n", encoding="utf-8")
    known = {"RUN": str(run), "BROKEN": str(tmp_path)}
    done = resnets("report", *[known.get(word, word) for word in words])
    assert done.returncode == code
    assert message in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("width", [320, 390, 1280])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_a_browser_shows_it_all_without_asking_anyone(
    run: Path, browser: Any, width: int, dark: bool
) -> None:
    browser.open(run / "report.html", width, dark=dark)
    asked = [each["request"]["url"] for each in browser.told("Network.requestWillBeSent")]
    assert {url.partition(":")[0] for url in asked} <= {"file", "data"}
    assert sum(url.startswith("file:") for url in asked) == 1
    assert not browser.told("Log.entryAdded")
    assert not browser.told("Runtime.consoleAPICalled")
    assert not browser.told("Runtime.exceptionThrown")
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    assert browser.evaluate("document.images.length") > 0
    assert browser.evaluate("[...document.images].every(each => each.naturalWidth > 0)")
    ground = browser.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (ground == "rgb(255, 255, 255)") == (not dark)
