import matplotlib
import numpy as np

from resnets.evaluation.report.pictures import _HOTTEST, _OPACITY, overlay, square_picture


def test_no_heat_leaves_the_image_as_it_is_and_full_heat_has_one_colour() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    assert (overlay(pixels, np.zeros((8, 8), np.float32)) == pixels).all()
    hot = np.array(matplotlib.colormaps["turbo"](_HOTTEST)[:3]) * 255
    expected = _OPACITY * hot + (1 - _OPACITY) * pixels
    picture = overlay(pixels, np.ones((8, 8), np.float32))
    np.testing.assert_allclose(picture, expected, atol=0.5)


def test_heat_lies_where_it_belongs_on_a_larger_image() -> None:
    heat = np.zeros((8, 8), np.float32)
    heat[2, 5] = 1
    grey = np.full((80, 80, 3), 128, np.uint8)
    changed = (overlay(grey, heat) != grey).any(axis=2)
    rows, columns = np.nonzero(changed)
    assert abs(rows.mean() - 24.5) < 1
    assert abs(columns.mean() - 54.5) < 1


def test_a_box_that_rounding_pushes_beyond_the_edge_is_cut_at_it() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (10, 20, 3), np.uint8)
    beyond = square_picture(pixels, (0, 10, 10.0000001, 10.0000001), 50)
    assert (beyond == square_picture(pixels, (0, 10, 10, 10), 50)).all()
