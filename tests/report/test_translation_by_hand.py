"""What the page of a translation draws: which columns, in which grey values, in 2-D and 3-D."""

from __future__ import annotations

import numpy as np
import pytest

from anamorph.report.inputs import ReportInputs
from anamorph.report.translation import ERROR, TRANSLATED, TRUE, draw_translation
from anamorph.report.verdict import judge

SHAPES = {"2d": (24, 20), "3d": (24, 20, 16)}


def inputs_of(shape: tuple[int, ...], truth: bool, kind: str = "translation", **more: object) -> ReportInputs:
    """A ball, its negative, and one that is 0.25 brighter."""
    away = np.linalg.norm(np.moveaxis(np.indices(shape), 0, -1) - np.array(shape) / 2, axis=-1)
    image = np.exp(-((away / 6) ** 2))
    images = {TRANSLATED: 1 - image}
    if truth:
        images |= {TRUE: 1.25 - image, ERROR: np.full(shape, -0.25)}
    values: dict = {"title": "a", "kind": kind, "affine": np.eye(len(shape) + 1), "fixed": image} | more
    return ReportInputs(further_images=images, **values)


@pytest.mark.parametrize("ndim", list(SHAPES))
def test_a_column_an_image_and_a_row_a_plane(ndim: str) -> None:
    sheet = draw_translation(inputs_of(SHAPES[ndim], truth=True))
    assert sheet is not None
    assert [text for _, text in sheet.heads] == ["Image", "Translation", "True image", "Error"]
    assert len(sheet.panels) == 4 * (1 if ndim == "2d" else 3)
    assert [text[:5] for _, text in sheet.rows] == ([] if ndim == "2d" else ["Axial", "Coron", "Sagit"])
    below_errors = [(sheet.panels[3].x, ("0", "0.250"))]
    assert [(bar.x, bar.ends) for bar in sheet.bars] == below_errors * (1 if ndim == "2d" else 3)
    without = draw_translation(inputs_of(SHAPES[ndim], truth=False))
    assert without is not None
    assert [text for _, text in without.heads] == ["Image", "Translation"]
    assert without.bars == ()


def test_nothing_is_drawn_of_anything_else() -> None:
    assert draw_translation(inputs_of((24, 20), truth=True, kind="registration")) is None
    assert draw_translation(ReportInputs(title="refused", kind="translation")) is None


def test_the_head_of_the_page_tells_the_error() -> None:
    scores = [
        {"metric": name, "label": "", "unit": unit, "value": value, "reason": ""}
        for name, unit, value in (("rmse", "intensity", 0.25), ("psnr_db", "dB", 12.0))
    ]
    tiles = {tile.name: tile for tile in judge(inputs_of((24, 20), truth=True, scores=scores)).tiles}
    assert (tiles["RMSE"].value, tiles["RMSE"].note) == ("0.25", "PSNR 12.0 dB")
    assert "RMSE" not in {
        tile.name for tile in judge(inputs_of((24, 20), truth=True, kind="registration", scores=scores)).tiles
    }
