"""What notebooks show: tables without outside resources, all text escaped."""

import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import resnets
from resnets.notebook import html_table

HOSTILE = '<script src="https://example.org/x.js"></script>'


class Reader(HTMLParser):
    """Collects tags and text; fails at a tag that is not closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert all(name == "style" for name, _ in attrs)
        self.open.append(tag)
        self.tags.add(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


PICTURE = re.compile('<img src="data:image/png;base64,[A-Za-z0-9+/=]+" alt="[a-z ]+">')


def read(page: str) -> Reader:
    reader = Reader()
    reader.feed(page)
    reader.close()
    assert reader.open == []
    assert reader.tags <= {"table", "caption", "thead", "tbody", "tr", "td", "th"}
    return reader


def test_text_in_a_table_is_escaped() -> None:
    reader = read(html_table([(HOSTILE, 1)], columns=("a&b", HOSTILE), title=HOSTILE))
    assert reader.text.count(HOSTILE) == 3


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of images whose classes have names that a page would obey."""
    folder = tmp_path_factory.mktemp("hostile")
    for number, name in enumerate(("<b>cat", "dog & <i>")):
        (folder / name).mkdir()
        for shade in range(20):
            pixels = np.full((8, 8, 3), 120 * number + shade, np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{shade}.png")
    (folder / "dog & <i>" / "<u>.png").write_bytes((folder / "<b>cat" / "3.png").read_bytes())
    return folder


def test_what_python_programs_get_is_a_table_in_a_notebook(hostile: Path) -> None:
    diagnosis = resnets.doctor(hostile)
    assert diagnosis.misleading  # the same pixels under two labels
    assert "<u>.png" in read(diagnosis._repr_html_()).text
    run = resnets.train(
        *(hostile, "resnet14"),
        **{"image_size": 8, "epochs": 1, "batch_size": 16, "output": False, "progress": False},
    )
    shown = read(run._repr_html_()).text
    assert "resnet14" in shown
    assert re.search(r"test accuracy\d+\.\d+ %", shown)
    evaluation = resnets.evaluate(run.model, hostile, split="all")
    assert re.search(r"accuracy\d+\.\d+ % \(\d+/41", read(evaluation._repr_html_()).text)
    assert "dog & <i>" in read(run.model._repr_html_()).text
    assert re.search(r"test accuracy\d+\.\d+ %", read(run.model._repr_html_()).text)
    assert re.search(r"validation loss.*1\d\.\d{4}", read(run.history._repr_html_()).text)
    explanations = resnets.explain(run.model, hostile / "dog & <i>" / "<u>.png")
    page, count = PICTURE.subn("", explanations._repr_html_())  # type: ignore[attr-defined]
    assert (count, "dog & <i>/<u>.png" in read(page).text) == (1, True)
    predictions = resnets.predict(run.model, hostile / "<b>cat", top=2)
    assert "<b>cat" in read(predictions._repr_html_()).text
    assert "dog & <i>" in read(predictions[0]._repr_html_()).text
    assert [*predictions] == predictions


def test_doctor_tells_of_data_that_cannot_be_listed(tmp_path: Path) -> None:
    Image.new("L", (4, 4)).save(tmp_path / "alone.png")
    assert resnets.doctor(tmp_path).misleading
    with pytest.raises(resnets.errors.UsageError):
        resnets.doctor(tmp_path / "none")
