"""Images that are enlarged much are told by each command, once."""

from collections.abc import Callable
from pathlib import Path

import pytest

from resnets.data.sources.shards import read_shards
from resnets.evaluation.enlarging import much_enlarged, sources_enlarged
from resnets.evaluation.source import Source, StoredImage
from tests.in_process import call
from tests.range_server import serving

NAMES = ("ant", "bee")
Untrained = Callable[..., Path]
Draw = Callable[..., None]


@pytest.fixture
def photos(draw_noise: Draw, tmp_path: Path) -> Path:
    """Two classes of two images of 20 x 10 pixels, and one that is damaged."""
    for number in range(4):
        draw_noise(tmp_path / NAMES[number % 2] / f"{number}.png", 20, 10, seed=number)
    return tmp_path


def test_a_size_counts_as_much_from_three_times_on() -> None:
    assert much_enlarged(100, 299) == ""
    assert "100" in much_enlarged(100, 300)
    assert "3 times" in much_enlarged(100, 300)


@pytest.mark.parametrize(("side", "is_told"), [(29, False), (30, True)])
def test_the_network_s_size_and_the_shorter_sides_of_the_images_decide(
    side: int, is_told: bool, untrained: Untrained, photos: Path
) -> None:
    model = untrained(NAMES, side, side)
    (photos / "damaged.png").write_bytes(b"\x89PNG")
    predicted = call("predict", model, photos, "--json")
    (photos / "damaged.png").unlink()
    evaluated = call("evaluate", model, photos)
    assert evaluated.returncode == 0, evaluated.stderr
    for done in (predicted, evaluated):
        lines = [line for line in done.stderr.splitlines() if "enlarged" in line]
        assert len(lines) == is_told
        assert all("10 pixels" in line and "to 30" in line for line in lines)


def test_standard_input_and_shards_are_looked_at_too(untrained: Untrained, photos: Path) -> None:
    model = untrained(NAMES, 64, 64)
    image = (photos / "ant" / "0.png").read_bytes()
    assert "enlarged 6 times" in call("predict", model, "-", stdin=image).stderr
    shards = photos.parent / f"{photos.name}-shards"
    assert call("shard", photos, "--output", shards).returncode == 0
    for words in (("predict", model, shards), ("evaluate", model, shards)):
        assert call(*words).stderr.count("enlarged 6 times") == 1


def test_of_a_place_that_is_away_no_second_image_is_asked_for(
    photos: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Each would take minutes of attempts, before the command says what is wrong."""
    shards = tmp_path_factory.mktemp("shards")
    assert call("shard", photos, "--output", shards / "here").returncode == 0
    with serving(shards / "here") as server:
        (images,) = read_shards(server.address).images.values()
        sources = [Source(name, StoredImage(images.storage, n)) for n, name in enumerate("abcd")]
        server.asked.clear()
        server.faults += ["refused"] * 100
        assert sources_enlarged(sources, 64) == ""
        assert len(server.asked) <= 2  # for all four together, and perhaps for the first again
        server.faults.clear()
        assert "enlarged" in sources_enlarged(sources, 64)
