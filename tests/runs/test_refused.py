"""A training that is refused leaves every file as it is."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import resnets
from resnets.errors import ContentError, UsageError
from resnets.runs.setup import Setup

QUICK: dict[str, Any] = {"epochs": 2, "report": False, "progress": False}


@pytest.fixture
def begun(tmp_path: Path, draw_noise: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a run on tmp_path/photos, which it knows by a relative path."""
    for seed in range(20):
        draw_noise(tmp_path / f"photos/{'ab'[seed % 2]}/{seed}.png", 8, 8, seed)
    monkeypatch.chdir(tmp_path)
    run = resnets.train("photos", "resnet14", output="run", **QUICK)
    assert run.path is not None
    return tmp_path / run.path


def content(folder: Path) -> dict[Path, bytes]:
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != ".lock"]
    return {path: path.read_bytes() for path in files}


def resume(folder: Path, **changes: Any) -> resnets.Run:
    return resnets.resume(folder, progress=False, **changes)


def test_resuming_with_other_images_changes_nothing(
    begun: Path, draw_noise: Callable[..., None]
) -> None:
    before = content(begun)
    draw_noise(Path("photos/a/new.png"), 8, 8, 99)
    with pytest.raises(ContentError, match="there are 21 images"):
        resume(begun)
    for seed in range(20):
        draw_noise(Path(f"others/{'ab'[seed % 2]}/{seed}.png"), 8, 8, seed + 100)
    with pytest.raises(ContentError, match="changed"):
        resume(begun, data="others", threads=1, log_every=3)
    assert content(begun) == before
    Path("others/a/broken.png").write_bytes(b"nothing")  # the number is told first
    with pytest.raises(ContentError, match="there are 21 images") as caught:
        resume(begun, data="others")
    assert "began with photos" in str(caught.value)
    Path("photos/a/new.png").write_bytes(b"nothing")
    with pytest.raises(ContentError, match="there are 21 images") as caught:
        resume(begun)
    assert "began with photos" not in str(caught.value)
    Path("photos/a/new.png").unlink()
    assert resume(begun).metrics


@pytest.mark.parametrize("changes", [{"seed": 3}, {"log_to": ("none",)}, {"device": "cuda:77"}])
def test_resuming_with_what_is_not_allowed_changes_nothing(
    changes: dict[str, Any], begun: Path
) -> None:
    before = content(begun)
    with pytest.raises(ValueError, match=r"seed|log_to|cuda"):
        resume(begun, **changes)
    assert content(begun) == before


def test_a_refused_run_does_not_replace_another(
    begun: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise UsageError("not with this loss")

    before = content(begun)
    monkeypatch.setattr(Setup, "trainer", refuse)
    with pytest.raises(UsageError, match="loss"):
        resnets.train("photos", "resnet14", output=begun, overwrite=True, **QUICK)
    assert content(begun) == before


@pytest.mark.parametrize("changes", [{}, {"other": "elsewhere"}])
def test_resuming_where_the_data_is_not_found_says_how_to_name_it(
    changes: dict[str, Any],
    begun: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = content(begun)
    (tmp_path / "away").mkdir()
    monkeypatch.chdir(tmp_path / "away")
    data = {"data": "../photos"} if changes else {}
    with pytest.raises(UsageError, match=r"--resume .* (DATA|--other)"):
        resume(begun, **data, **changes)
    assert content(begun) == before
    assert resume(begun, data="../photos").metrics


@pytest.mark.parametrize("text", ["", "# nothing but a remark\n"])
def test_a_run_whose_configuration_is_empty_is_refused(text: str, begun: Path) -> None:
    (begun / "config.toml").write_text(text, encoding="utf-8")
    before = content(begun)
    with pytest.raises(ContentError, match="empty"):
        resume(begun)
    assert content(begun) == before


@pytest.mark.parametrize(
    ("network", "side", "batch_size", "reason"),
    [
        ("resnet18", 16, 8, "16 x 16 pixels.* at least 32 x 32"),
        ("resnet18", 32, 1, "batch norm needs more than one value .*`batch_size`"),
        ("resnet14", 2, 8, "2 x 2 pixels.* at least 4 x 4"),
        ("resnet14", 4, 1, "batch norm needs more than one value"),
    ],
)
def test_images_too_small_for_a_network_are_refused_before_the_run_has_a_folder(
    network: str,
    side: int,
    batch_size: int,
    reason: str,
    tmp_path: Path,
    draw_noise: Callable[..., None],
) -> None:
    for seed in range(20):
        draw_noise(tmp_path / f"photos/{'ab'[seed % 2]}/{seed}.png", 8, 8, seed)
    sizes = {"image_size": side, "batch_size": batch_size}
    with pytest.raises(UsageError, match=reason):
        resnets.train(tmp_path / "photos", network, output=tmp_path / "run", **sizes, **QUICK)
    assert not (tmp_path / "run").exists()


def test_a_network_that_there_is_not_is_refused_before_images_are_read(
    begun: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("resnets.runs.prepare.open_source", lambda *_, **__: pytest.fail("read"))
    with pytest.raises(UsageError, match="nearest: resnet18"):
        resnets.train("photos", "resnet1x", output="other", **QUICK)
    assert not Path("other").exists()
