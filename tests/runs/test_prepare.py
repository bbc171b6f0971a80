"""What a run says of its data before the first step."""

from collections.abc import Callable
from pathlib import Path

import pytest

import resnets

Draw = Callable[..., None]


@pytest.mark.parametrize(
    ("own", "drawn"), [(("train", "val"), "test"), (("train", "test"), "validation")]
)
def test_images_that_are_drawn_from_train_are_counted_with_those_that_are_left(
    own: tuple[str, ...],
    drawn: str,
    tmp_path: Path,
    draw_noise: Draw,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for seed in range(60):
        split, label = own[seed % 2], "ab"[seed // 2 % 2]
        draw_noise(tmp_path / f"{split}/{label}/{seed}.png", 8, 8, seed)
    resnets.train(tmp_path, "resnet14", epochs=1, report=False, output=False)
    said = capsys.readouterr()
    (line,) = [line for line in (said.out + said.err).splitlines() if "rawn from" in line]
    assert "train" in line
    assert f"4 {drawn} images" in line  # a tenth of either class, rounded: 2 of 15
    assert "26 images left" in line
