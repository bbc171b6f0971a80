import json
from collections.abc import Callable
from pathlib import Path

import pytest

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
