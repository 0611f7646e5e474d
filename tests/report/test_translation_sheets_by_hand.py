"""Pictures of translations: which panels there are, one scale of errors a case, and its colours."""

from __future__ import annotations

import numpy as np
import pytest

from anamorph.evaluation.comparison import compare
from anamorph.evaluation.scores import Score
from anamorph.report.experiment_html import sheet_file
from anamorph.report.sheet import BAR, View, draw_sheet, telling_plane
from anamorph.report.translation_sheets import ERRORS, TranslatedCase, largest_error, sheet_of_translations

SHAPE = (24, 20, 16)


def a_case(ndim: int, **found: float) -> TranslatedCase:
    """A ball; what each method makes is brighter than the truth by a number."""
    shape = SHAPE[:ndim]
    away = np.linalg.norm(np.moveaxis(np.indices(shape), 0, -1) - np.array(shape) / 2, axis=-1)
    ball = np.exp(-((away / 6) ** 2))
    made = {name: (1 - ball + by, np.full(shape, by)) for name, by in found.items()}
    return TranslatedCase(ball, np.eye(ndim + 1), ("t1", "t2"), 1 - ball, made, (away < 3).astype(np.uint8))


@pytest.mark.parametrize("ndim", [2, 3])
def test_two_rows_a_case(ndim: int) -> None:
    cases = {"x": a_case(ndim, plain=0.5, ours=-0.25), "y": a_case(ndim, ours=0.125)}
    values = {("x", "plain"): 0.5, ("x", "ours"): 0.25, ("y", "ours"): 0.125}
    scores = [Score("rmse", value, case=case, method=method) for (case, method), value in values.items()]
    sheet = sheet_of_translations(cases, {"best": "y", "worst": "x"}, ["plain", "ours"], compare(scores))
    assert [text for _, text in sheet.heads] == ["image", "true", "plain", "ours"]
    assert [text for _, text in sheet.rows] == [
        "best: y (numbers: RMSE)",
        "distance from the true image",
        "worst: x (numbers: RMSE)",
        "distance from the true image",
    ]
    assert len(sheet.panels) == 3 + 1 + 4 + 2  # plain failed on y, and the first two columns have no error
    assert [panel.caption for panel in sheet.panels if panel.caption] == ["0.125", "0.500", "0.250"]
    first, second = (panel.x for panel in sheet.panels[-2:])
    assert (first, second) == tuple(panel.x for panel in sheet.panels[-4:-2])  # errors stand below what they are of
    assert [bar.ends for bar in sheet.bars] == [("0", "0.125"), ("0", "0.500")]
    for bar, row in zip(sheet.bars, (3, 7), strict=True):  # below the first error of a case, and above the next case
        assert sheet.panels[row].y + sheet.panels[row].height < bar.y < bar.y + BAR <= sheet.height
    assert "<svg" in sheet_file(sheet)


def test_one_scale_for_all_errors_of_a_case() -> None:
    assert largest_error([np.full(SHAPE, -0.5), np.full(SHAPE, 0.25)]) == 0.5
    assert largest_error([np.zeros(SHAPE)]) > 0
    assert largest_error([]) > 0


def test_colours_are_those_of_the_window() -> None:
    """No error is blue, the largest red; the same picture in grey is another."""
    image = np.zeros((16, 16))
    image[:, 8:] = 1.0
    plane = telling_plane((16, 16), np.eye(3), np.ones((16, 16)), [])
    grey, coloured = (View(plane, image, (0.0, 1.0), colours=colours) for colours in ("", ERRORS))
    sheet = draw_sheet("a", (), [("", [grey, None, coloured])], {})
    assert len(sheet.pictures) == 2
    assert len(sheet.panels) == 2
    assert sheet.panels[1].x > 2 * sheet.panels[0].width
