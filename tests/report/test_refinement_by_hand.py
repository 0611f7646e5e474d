"""What a report shows of an atlas that was fitted to an image."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from anamorph.report.inputs import ReportInputs
from anamorph.report.page import render
from anamorph.report.refinement import draw_refinement, objective

SHAPE = (16, 16)


@pytest.fixture
def fitted() -> Callable[..., ReportInputs]:
    truth = np.zeros(SHAPE, np.int32)
    truth[4:12, 4:12] = 5
    network, once = np.roll(truth, 4, 0), np.roll(truth, 2, 0)

    def make(**changes: Any) -> ReportInputs:
        everything: dict[str, Any] = {
            "title": "a by b",
            "kind": "segmentation",
            "affine": np.eye(3),
            "fixed": np.random.default_rng(0).uniform(0, 100, SHAPE).astype(np.float32),
            "fixed_labels": truth,
            "found_labels": truth,
            "earlier_labels": {"network": network, "atlas, one pass": once},
            "atlas_displacement_mm": np.zeros((2, *SHAPE), np.float32),
            "label_names": {5: "letter"},
            "seconds_by_stage": {"normalise": 0.1, "network": 1.0},
            "loss_by_stage": {"network": [3.0, 2.0, 1.5]},
        }
        return ReportInputs(**(everything | changes))

    return make


def test_every_step_has_a_column_and_its_dice(fitted) -> None:
    sheet = draw_refinement(fitted())
    assert sheet is not None
    assert [text for _, text in sheet.heads] == ["network", "atlas, one pass", "atlas, refined", "deformation"]
    assert [panel.caption for panel in sheet.panels] == ["Dice 0.500", "Dice 0.750", "Dice 1.00", ""]
    assert [line.style for line in sheet.panels[3].lines] == ["mesh"]
    assert [text for *_, text in sheet.key] == ["found", "true", "grid of the atlas"]


def test_without_a_truth_or_a_map_or_a_refinement(fitted) -> None:
    sheet = draw_refinement(fitted(fixed_labels=None, atlas_displacement_mm=None, loss_by_stage={}))
    assert sheet is not None
    assert [text for _, text in sheet.heads] == ["network", "atlas, one pass", "atlas"]
    assert {panel.caption for panel in sheet.panels} == {""}
    assert [text for *_, text in sheet.key] == ["found"]


def test_three_planes_of_three_dimensions(fitted) -> None:
    shape = (12, 12, 8)
    labels = np.zeros(shape, np.int32)
    labels[3:9, 3:9, 2:6] = 5
    solid = fitted(
        affine=np.eye(4), fixed=np.ones(shape, np.float32), fixed_labels=labels, found_labels=labels,
        earlier_labels={"network": np.roll(labels, 1, 0)}, atlas_displacement_mm=np.zeros((3, *shape), np.float32),
    )  # fmt: skip
    sheet = draw_refinement(solid)
    assert sheet is not None
    assert [text.partition(",")[0] for _, text in sheet.rows] == ["Axial", "Coronal", "Sagittal"]
    assert all(panel.lines for panel in sheet.panels)
    assert sum(bool(panel.caption) for panel in sheet.panels) == 2  # said once


def test_nothing_of_other_models(fitted) -> None:
    assert draw_refinement(fitted(earlier_labels={})) is None
    assert objective(fitted(earlier_labels={})) is None
    assert objective(fitted(loss_by_stage={})) is None
    assert "Fit" not in render(fitted(earlier_labels={}))


def test_the_objective_is_drawn_step_by_step(fitted) -> None:
    chart = objective(fitted())
    assert chart is not None
    assert [line.last for line in chart.lines] == ["1.50"]
    assert [text for _, text in chart.x_ticks] == ["0", "1", "2"]


def test_the_page_shows_it(fitted) -> None:
    html = render(fitted())
    assert '<a href="#refinement">Atlas</a>' in html
    assert "atlas, one pass" in html
    assert 'aria-label="objective by step"' in html
    assert html.count('id="refinement-i') == 1


def test_arrays_of_another_shape_are_refused(fitted) -> None:
    with pytest.raises(ValueError, match="lies on the fixed grid"):
        fitted(earlier_labels={"network": np.zeros((4, 4), np.int32)})
    with pytest.raises(ValueError, match="lies on the fixed grid"):
        fitted(atlas_displacement_mm=np.zeros((2, 4, 4), np.float32))
