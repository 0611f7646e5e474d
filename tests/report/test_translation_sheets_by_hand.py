"""Pictures of translations: which panels there are, one scale of errors a case, and its colours."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from anamorph.data.image import Image, Labelmap
from anamorph.evaluation.comparison import compare
from anamorph.evaluation.scores import Score
from anamorph.inference.image_translators import JudgedTranslation
from anamorph.inference.translate import Translated, TranslationError
from anamorph.report.experiment_html import sheet_file
from anamorph.report.sheet import BAR, View, draw_sheet, telling_plane
from anamorph.report.translation_sheets import ERRORS, TranslatedCase, largest_error, sheet_of_translations
from anamorph.spatial.grid import Grid

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


def test_a_case_out_of_judged_translations() -> None:
    """Of several channels the first; labels on another grid would show another slice."""
    grid, values = Grid(SHAPE, np.diag([2.0, 2.0, 3.0, 1.0])), torch.arange(24 * 20 * 16, dtype=torch.float32)
    source, made, truth, error = (Image(factor * values.reshape(1, *SHAPE), grid, "ct") for factor in (1, 2, 3, -1))
    found = Translated(source, made, torch.ones(SHAPE, dtype=torch.bool), "file", (0.0, 1.0))
    judged = {"ours": JudgedTranslation(found, TranslationError(truth, error, ()))}
    labels = Labelmap(torch.ones(SHAPE, dtype=torch.int64), grid)
    case = TranslatedCase.of(judged, "mr", labels, {"ct": (0.0, 9.0)})
    assert case.modalities == ("ct", "mr")
    assert (case.source[1, 0, 0], case.truth[1, 0, 0]) == (320, 960)
    assert [picture[1, 0, 0] for picture in case.found["ours"]] == [640, -320]
    np.testing.assert_array_equal(case.affine, grid.affine)
    assert case.labels is not None
    assert case.windows == {"ct": (0.0, 9.0)}
    away = Labelmap(labels.data, Grid(SHAPE, np.eye(4)))
    assert TranslatedCase.of(judged, "mr", away).labels is None


def test_a_window_of_the_models_own() -> None:
    """Both sides: what lies above it is white."""
    bright = replace(a_case(2, ours=0.5), windows={"t1": (0.0, 1e-6), "t2": (0.0, 1e-6)})
    comparison = compare([Score("rmse", 0.5, case="x", method="ours")])
    plain, own = (
        sheet_of_translations({"x": case}, {"best": "x"}, ["ours"], comparison)
        for case in (a_case(2, ours=0.5), bright)
    )
    same = [a.picture == b.picture for a, b in zip(plain.panels, own.panels, strict=True)]
    assert same == [False, False, False, True]  # image, truth, translation; the error has its own


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
