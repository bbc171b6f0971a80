import numpy as np
import pytest

from resnets.evaluation.report.sheets import (
    _GAP,
    _LINE,
    _MARGIN,
    Line,
    Tile,
    _font,
    _shortened,
    contact_sheet,
)


def tile(grey: int, *lines: Line, pictures: int = 1) -> Tile:
    return Tile((np.full((20, 30, 3), grey, np.uint8),) * pictures, lines)


@pytest.mark.parametrize("count", [1, 2, 7, 30])
def test_every_image_is_on_the_sheet_once(count: int) -> None:
    greys = range(10, 10 + count)
    sheet = np.asarray(contact_sheet([tile(grey, pictures=2) for grey in greys], side=40))
    for grey in greys:
        assert (sheet == grey).all(axis=2).sum() == 2 * 40 * 40


def test_text_stays_below_its_own_image() -> None:
    long = Line("an endless name " * 20, bold=True, share=0.5)
    sheet = np.asarray(contact_sheet([tile(0, long, long), tile(0, long)], side=60))
    assert sheet.shape[1] == 2 * _MARGIN + 2 * 60 + _GAP
    ink = (sheet < 255).any(axis=2)
    assert not ink[:, _MARGIN + 60 : _MARGIN + 60 + _GAP].any()
    assert not ink[:, :_MARGIN].any()
    assert ink[_MARGIN + 60 + _LINE :, _MARGIN : _MARGIN + 60].any()


def test_the_bar_is_as_long_as_its_share() -> None:
    def bar(share: float) -> int:
        sheet = np.asarray(contact_sheet([tile(0, Line("", share=share))], side=200))
        blue = (sheet == (0x39, 0x87, 0xE5)).all(axis=2)
        return int(blue.any(axis=0).sum())

    assert [bar(share) for share in (0.25, 0.5, 1.0)] == [50, 100, 200]


def test_a_title_wider_than_the_images_widens_the_sheet() -> None:
    narrow, wide = (contact_sheet([tile(0)], title, side=40) for title in ("", "a long title" * 5))
    assert wide.width > narrow.width
    assert (np.asarray(wide)[:, -_MARGIN:] == 255).all()


def test_long_names_keep_both_ends() -> None:
    short_name = _shortened("n02099601_golden_retriever.JPEG", 120, _font(13))
    assert short_name.startswith("n020")
    assert short_name.endswith("JPEG")
    assert _font(13).getlength(short_name) <= 120
