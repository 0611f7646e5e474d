"""Pictures of registrations: which panels there are, whose labels they outline, and the deformed grids."""

from __future__ import annotations

import numpy as np
import pytest

from anamorph.evaluation.comparison import compare
from anamorph.evaluation.scores import Score
from anamorph.report.experiment_html import sheet_file
from anamorph.report.registration_sheets import Placed, RegisteredCase, sheet_of_registrations

SHAPE = (24, 20, 16)


def ball(shape: tuple[int, ...], by: float) -> np.ndarray:
    place = np.moveaxis(np.indices(shape), 0, -1) - np.array(shape) / 2
    place[..., 0] -= by
    return np.exp(-((np.linalg.norm(place, axis=-1) / 6) ** 2))


def a_case(ndim: int, labelled: bool = True, **found: float) -> RegisteredCase:
    """A ball that methods bring so far beside its place."""
    shape = SHAPE[:ndim]

    def placed(by: float) -> Placed:
        image, displacement = ball(shape, by), np.zeros((ndim, *shape))
        displacement[0] = by
        return Placed(1 - image, (image > 0.6).astype(np.int64) if labelled else None, displacement)

    truth = (ball(shape, 0.0) > 0.6).astype(np.int64) if labelled else None
    made = {name: placed(by) for name, by in found.items()}
    return RegisteredCase(ball(shape, 0.0), np.eye(ndim + 1), ("t1", "t2"), truth, placed(4.0), made)


@pytest.mark.parametrize("ndim", [2, 3])
def test_two_rows_a_case(ndim: int) -> None:
    cases = {"x": a_case(ndim, plain=2.0, ours=0.0), "y": a_case(ndim, ours=1.0)}
    values = {("x", "none"): 0.25, ("x", "plain"): 0.5, ("x", "ours"): 1.0, ("y", "none"): 0.375, ("y", "ours"): 0.75}
    scores = [Score("dice", value, case=case, method=method) for (case, method), value in values.items()]
    chosen = {"best": "x", "worst": "y"}
    sheet = sheet_of_registrations(cases, chosen, ["plain", "ours"], {1: "ball"}, compare(scores))
    assert [text for _, text in sheet.heads] == ["fixed", "moving", "plain", "ours"]
    assert [text for _, text in sheet.rows] == [
        "best: x (numbers: Dice)",
        "grid of the moving image, as it comes to lie",
        "worst: y (numbers: Dice)",
        "grid of the moving image, as it comes to lie",
    ]
    assert [panel.caption for panel in sheet.panels if panel.caption] == ["0.250", "0.500", "1.00", "0.375", "0.750"]
    assert len(sheet.panels) == 4 + 2 + 3 + 1  # plain failed on y, and the first two columns have no grid
    styles = [[line.style for line in panel.lines] for panel in sheet.panels]
    assert styles == [
        ["truth"],
        *[["found", "truth"]] * 3,
        *[["mesh"]] * 2,
        ["truth"],
        *[["found", "truth"]] * 2,
        ["mesh"],
    ]
    same = sheet.panels[3].lines
    assert same[0].path == same[1].path  # where the map is the true one, both outlines are one
    assert sheet.panels[1].lines[0].path != sheet.panels[1].lines[1].path
    assert [text for *_, text in sheet.key] == ["moving", "true", "grid of the moving image"]
    assert "<svg" in sheet_file(sheet)


def test_pairs_without_labels_have_no_outlines() -> None:
    scores = [Score("map_error_mean_mm", 1.0, case="x", method="ours")]
    cases = {"x": a_case(3, labelled=False, ours=1.0)}
    sheet = sheet_of_registrations(cases, {"best": "x"}, ["ours"], {}, compare(scores))
    assert [[line.style for line in panel.lines] for panel in sheet.panels] == [[], [], [], ["mesh"]]
