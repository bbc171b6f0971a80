import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from resnets.data.augmentation.crops import ResizedCrop
from resnets.data.augmentation.draws import Draws

sides = st.integers(1, 500)


@given(sides, sides, st.floats(0.01, 1), st.floats(1, 5), st.integers(0, 2**40))
def test_a_crop_is_inside_its_image(
    height: int, width: int, smallest: float, ratio: float, seed: int
) -> None:
    sizes = np.tile([height, width], (20, 1))
    boxes = ResizedCrop(smallest, ratio).boxes(Draws(seed, 0, 20, np.arange(20)), sizes)
    top, left, tall, wide = boxes.T
    assert (boxes[:, :2] >= 0).all()
    assert (boxes[:, 2:] >= 1).all()
    assert (top + tall <= height).all()
    assert (left + wide <= width).all()


def torchvision_box(
    random: np.random.Generator, height: int, width: int
) -> tuple[float, float, float, float]:
    """RandomResizedCrop as its documentation describes it, one image after another."""
    for _ in range(10):
        area = height * width * random.uniform(0.08, 1)
        shape = np.exp(random.uniform(np.log(3 / 4), np.log(4 / 3)))
        wide, tall = round((area * shape) ** 0.5), round((area / shape) ** 0.5)
        if 0 < wide <= width and 0 < tall <= height:
            top, left = random.integers(height - tall + 1), random.integers(width - wide + 1)
            return top, left, tall, wide
    raise AssertionError("ten crops of a nearly square image did not fit")


def test_crops_follow_the_law_of_the_sequential_algorithm() -> None:
    height, width, count = 240, 320, 4000
    random = np.random.default_rng(0)
    theirs = np.array([torchvision_box(random, height, width) for _ in range(count)])
    sizes = np.tile([height, width], (count, 1))
    ours = ResizedCrop(0.08, 4 / 3).boxes(Draws(0, 0, count, np.arange(count)), sizes)
    for column in range(4):
        assert stats.ks_2samp(ours[:, column], theirs[:, column]).pvalue > 0.001
    areas = [boxes[:, 2] * boxes[:, 3] for boxes in (ours, theirs)]
    assert stats.ks_2samp(*areas).pvalue > 0.001


def test_where_nothing_fits_the_largest_allowed_box_in_the_middle_is_taken() -> None:
    crop, draws = ResizedCrop(0.9, 4 / 3), Draws(0, 0, 2, np.arange(2))
    boxes = crop.boxes(draws, np.array([[10, 300], [300, 30]]))
    assert boxes.tolist() == [[0, 143, 10, 13], [130, 0, 40, 30]]


def test_a_crop_is_anywhere_in_the_image_equally_often() -> None:
    count = 6000
    sizes = np.tile([10, 10], (count, 1))
    boxes = ResizedCrop(0.6, 1.0).boxes(Draws(0, 0, count, np.arange(count)), sizes)
    for corner in (0, 1):
        of_nine = boxes[boxes[:, 2] == 9, corner]  # squares of 9 pixels begin at 0 or 1
        assert stats.binomtest(int(of_nine.sum()), len(of_nine)).pvalue > 0.001
        assert len(of_nine) > 1000
