import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import resnets
from resnets.errors import UsageError
from resnets.evaluation.report.sheets import MOST
from resnets.images import decode
from tests.in_process import call as run

Shared = Callable[[str], Path]
CIFAR10 = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


@pytest.fixture(scope="module")
def model(untrained: Callable[..., Path]) -> Path:
    """An untrained network of three classes."""
    return untrained(("ant", "bee", "cat"), 16, 16)


@pytest.fixture(scope="module")
def photos(draw_noise: Callable[..., None], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two images of one name and a broken one."""
    folder = tmp_path_factory.mktemp("photos")
    draw_noise(folder / "a.png")
    draw_noise(folder / "deep" / "a.jpg", seed=1)
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff broken")
    return folder


@pytest.mark.parametrize("method", ["grad-cam", "occlusion"])
def test_each_readable_image_has_its_picture_and_all_are_on_the_sheet(
    method: str, model: Path, photos: Path, tmp_path: Path
) -> None:
    output = tmp_path / "new" / "folder"
    done = run("explain", model.parent, photos, "--output", output, "--method", method, "--json")
    assert done.returncode == 1, done.stderr
    rows = json.loads(done.stdout)
    assert [row["error"] is None for row in rows] == [True, False, True]
    assert [row["prediction"] == row["target"] for row in rows] == [True, True, True]
    assert [row["status"] for row in rows] == ["not calibrated", "unreadable", "not calibrated"]
    assert [row["overlay"] for row in rows] == [
        str(output / "a.png"),
        None,
        str(output / "a-2.png"),
    ]
    shapes = {path.name: decode(path).shape for path in output.iterdir()}
    assert shapes.keys() == {"a.png", "a-2.png", "contact-sheet.png"}
    assert shapes["a.png"] == shapes["a-2.png"] == (384, 384, 3)


def test_python_writes_the_pictures_that_the_command_writes(
    model: Path, photos: Path, tmp_path: Path
) -> None:
    theirs, ours = tmp_path / "command", tmp_path / "python"
    assert run("explain", model, photos, "--output", theirs).returncode == 1
    explained = resnets.explain(model, photos, top=3, output=ours)
    assert [each.path for each in explained] == [ours / "a.png", None, ours / "a-2.png"]
    contents = [
        {path.name: path.read_bytes() for path in folder.iterdir()} for folder in (theirs, ours)
    ]
    assert contents[0] == contents[1]
    np.testing.assert_array_equal(decode(ours / "a.png"), explained[0].overlay())
    with pytest.raises(UsageError, match="exists; give another `output`"):
        resnets.explain(model, photos, output=ours)
    assert all(each.path is None for each in resnets.explain(model, photos))


def test_the_picture_of_one_image_is_a_file_and_that_of_several_is_none(
    model: Path, photos: Path, tmp_path: Path
) -> None:
    (explained,) = resnets.explain(model, photos / "a.png", side=64, output=tmp_path / "one.PNG")
    assert explained.path == tmp_path / "one.PNG"
    assert decode(explained.path).shape == (64, 64, 3)
    with pytest.raises(UsageError, match="exists"):
        resnets.explain(model, photos / "a.png", output=explained.path)
    with pytest.raises(UsageError, match="3 images; give a folder"):
        resnets.explain(model, photos, output=tmp_path / "all.png")
    for name in ("all.html", "all.JPG"):
        with pytest.raises(UsageError, match="folder"):
            resnets.explain(model, photos, output=tmp_path / name)
        assert not (tmp_path / name).exists()
    done = run("explain", model, photos / "a.png", "--output", tmp_path / "two.png")
    assert done.returncode == 0
    assert {path.name for path in tmp_path.iterdir()} == {"one.PNG", "two.png"}
    (tmp_path / "folder.png").mkdir()  # a folder, whatever it is called
    resnets.explain(model, photos, output=tmp_path / "folder.png")
    assert (tmp_path / "folder.png" / "contact-sheet.png").is_file()


def test_a_picture_called_like_a_further_sheet_stays(
    model: Path, draw_noise: Callable[..., None], tmp_path: Path
) -> None:
    draw_noise(tmp_path / "contact-sheet-2.png")
    image = decode(tmp_path / "contact-sheet-2.png")
    sheet = Image.fromarray(image)
    sheet.filename = "contact-sheet-2.png"  # type: ignore[attr-defined]
    explained = resnets.explain(model, [sheet, *[image] * MOST], side=8, output=tmp_path / "out")
    assert explained[0].path == tmp_path / "out" / "contact-sheet-2.png"
    np.testing.assert_array_equal(decode(explained[0].path), explained[0].overlay())
    assert (tmp_path / "out" / "contact-sheet-3.png").is_file()


def test_nothing_is_written_over(model: Path, photos: Path, tmp_path: Path) -> None:
    file = photos / "a.png"
    output = tmp_path / "explained"
    first = run("explain", model, "-", "--output", output, stdin=file.read_bytes())
    assert first.returncode == 0, first.stderr
    before = {path: path.stat().st_mtime_ns for path in output.iterdir()}
    assert output / "standard input.png" in before
    again = run("explain", model, file, "--output", output)
    assert again.returncode == 2
    assert "explained exists; give another --output" in again.stderr
    assert {path: path.stat().st_mtime_ns for path in output.iterdir()} == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "no images given"),
        (["PHOTOS", "--target", "elk"], "the network knows ant, bee, cat"),
    ],
)
def test_wrong_use_is_told_and_leaves_no_folder(
    words: list[str], message: str, model: Path, photos: Path, tmp_path: Path
) -> None:
    output = tmp_path / "explained"
    words = [str(photos) if word == "PHOTOS" else word for word in words]
    done = run("explain", model, *words, "--output", output)
    assert done.returncode == 2
    assert message in done.stderr
    assert not output.exists()


def test_an_exported_file_cannot_be_looked_into(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"")
    done = run("explain", tmp_path / "model.onnx", photos, "--output", tmp_path / "out")
    assert done.returncode == 2
    assert "give the model file that it was made from" in done.stderr


@pytest.mark.slow
def test_a_published_network_explains_photos_and_survives_bad_files(
    shared: Shared, tmp_path: Path
) -> None:
    names, converted = tmp_path / "names.txt", tmp_path / "resnet20.safetensors"
    names.write_text("\n".join(CIFAR10), encoding="utf-8")
    source = shared("weights/akamaster_resnet20.th")
    run("convert", source, "--to", "resnets", "--output", converted, "--class-names", names)
    photo, bad = shared("photos/n03930630_pickup.JPEG"), shared("badimages/truncated")
    done = run("explain", converted, photo, bad, "--output", tmp_path / "out", "--json")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    pickup, *others = json.loads(done.stdout)
    assert pickup["prediction"] in ("automobile", "truck")
    assert any(row["error"] for row in others)
    assert decode(Path(pickup["overlay"])).shape == (384, 384, 3)
