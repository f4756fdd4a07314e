import math

import pytest
from PIL import Image

from worker.training.drawing import PreviewRow, draw_curve, draw_sheet, thinned, wrapped


def colours(image: Image.Image) -> set[tuple[int, ...]]:
    return {colour for _, colour in image.getcolors(2**24) or []}  # type: ignore[misc]  # RGB


LINE = (38, 96, 190)


def test_the_curve_is_drawn_through_every_loss() -> None:
    image = draw_curve({step: 1 / step for step in range(1, 400)}, "mira")
    assert image.size == (960, 540)
    assert LINE in colours(image)


def test_a_falling_loss_falls_on_the_picture() -> None:
    image = draw_curve({1: 1.0, 100: 0.1}, "mira")
    columns = [[y for y in range(540) if image.getpixel((x, y)) == LINE] for x in (120, 900)]
    assert max(columns[0]) < min(columns[1])


@pytest.mark.parametrize(
    "losses", [{}, {1: math.nan}, {5: 0.1}, {1: 0.1, 2: 0.1}, {1: 0.0}, {1: -1e30, 2: 1e30}]
)
def test_odd_losses_still_make_a_picture(losses: dict[int, float]) -> None:
    drawn = LINE in colours(draw_curve(losses, "x"))
    assert drawn is any(math.isfinite(loss) for loss in losses.values())


def test_thinning_keeps_both_ends() -> None:
    points = [(step, 0.0) for step in range(3000)]
    kept = thinned(points, 100)
    assert len(kept) == 100
    assert (kept[0], kept[-1]) == (points[0], points[-1])


def test_the_sheet_has_a_row_for_each_prompt() -> None:
    red, blue = Image.new("RGB", (64, 96), "red"), Image.new("RGB", (1024, 512), "blue")
    rows = [PreviewRow("a person", 1, red, blue), PreviewRow("long " * 80, 2, None, blue)]
    sheet = draw_sheet(rows, "mira")
    single = draw_sheet(rows[:1], "mira")
    assert sheet.width == single.width
    assert sheet.height - single.height > 512
    assert {(255, 0, 0), (0, 0, 255)} <= colours(sheet)


def test_wrapping_cuts_words_that_are_too_wide() -> None:
    assert wrapped("aa bb cc", len, 5) == ["aa bb", "cc"]
    assert wrapped("a" * 9, len, 4) == ["aaaa"]
    assert wrapped("", len, 4) == []
