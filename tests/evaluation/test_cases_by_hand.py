"""What is said about one case: everything that its inputs allow, under names that the list of metrics knows."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import pytest

from anamorph.evaluation.cases import (
    LandmarkPairs,
    cost_scores,
    failed_case,
    registration_scores,
    segmentation_scores,
)
from anamorph.evaluation.consistency import inverse_consistency_scores
from anamorph.evaluation.metrics import FAILED, LEADING, METRICS, metric_of
from anamorph.evaluation.topology import topology, topology_scores

SHIFT = np.array([2.0, 0.0, -3.0])
SPACING = (1.0, 2.0, 3.0)
AFFINE = np.diag([*SPACING, 1.0])
SHAPE = (8, 8, 8)
METRICS_PAGE = Path(__file__).parents[2] / "docs" / "reference" / "metrics.md"


def whole_registration():
    labels = np.zeros(SHAPE, np.int32)
    labels[2:5, 2:5, 2:5], labels[5:7, 5:7, 5:7] = 1, 2
    image = np.random.default_rng(0).normal(size=SHAPE)
    there = np.broadcast_to(SHIFT[:, None, None, None], (3, *SHAPE)).astype(np.float32)
    points = np.array([[1.0, 2.0, 3.0], [4.0, 4.0, 6.0]])
    return registration_scores(
        displacement_mm=there,
        affine=AFFINE,
        transform=lambda at: at + SHIFT,
        fixed=image,
        warped=image + 0.1,
        same_scale=True,
        fixed_labels=labels,
        warped_labels=labels,
        names={1: "liver", 2: "tumour"},
        landmarks=LandmarkPairs(points, points + SHIFT + [0, 3, 4], ("dome", "hilum")),
        true_mm=there.astype(float) + 1,
        true_mask=labels > 0,
        inverse_mm=-there,
        inverse_affine=AFFINE,
        backward_mm=-there + np.float32([[[[0.0]]], [[[3.0]]], [[[4.0]]]]),
    )


def by_name(rows):
    return {(row.metric, row.label): row.value for row in rows}


def test_a_registration_whose_answers_are_known():
    found = by_name(whole_registration())
    assert found["folded_voxels", ""] == found["folded_fraction", ""] == found["folded_per_mille", ""] == 0
    assert found["sd_log_jacobian", ""] == pytest.approx(0)
    assert found["tre_mean_mm", ""] == found["tre_mm", "dome"] == 5
    assert found["map_error_mean_mm", ""] == pytest.approx(math.sqrt(3))
    assert found["inverse_residual_max_mm", ""] == 0
    summaries = {found[f"inverse_consistency_{name}_mm", ""] for name in ("mean", "p95", "max")}
    assert min(summaries) == pytest.approx(max(summaries)) == 5
    assert found["dice_mean", ""] == found["recall", "liver"] == found["nsd_2mm_mean", ""] == 1
    assert found["hd95_mean_mm", ""] == found["voe", "tumour"] == found["rvd_mean", ""] == 0
    assert found["rmse", ""] == pytest.approx(0.1)
    assert found["normalised_cross_correlation", ""] == pytest.approx(1)


def test_what_is_not_given_is_not_scored():
    nothing = np.zeros((2, 4, 4))
    rows = registration_scores(displacement_mm=nothing, affine=np.eye(3), fixed=np.ones((4, 4)))
    assert {row.metric for row in rows} == {
        "folded_voxels", "folded_fraction", "folded_per_mille", "sd_log_jacobian", "jacobian_min", "jacobian_max"
    }  # fmt: skip
    image = np.arange(16.0).reshape(4, 4)
    rows = registration_scores(displacement_mm=nothing, affine=np.eye(3), fixed=image, warped=image)
    of_one_scale = {"rmse", "psnr_db", "structural_similarity"}
    assert not of_one_scale & {row.metric for row in rows}  # of two modalities they would mean nothing
    rows = registration_scores(displacement_mm=nothing, affine=np.eye(3), fixed=image, warped=image, same_scale=True)
    assert of_one_scale < {row.metric for row in rows}


def test_one_in_eight_voxels_folds():
    there = np.zeros((2, 8, 1))
    there[0, 4:] = -5.0  # x jumps back by 5 between rows 3 and 4: the central difference is negative at both
    found = by_name(registration_scores(displacement_mm=there, affine=np.eye(3)))
    assert found["folded_voxels", ""] == 2
    assert found["folded_per_mille", ""] == 1000 * found["folded_fraction", ""] == 250


def test_the_spacing_comes_from_the_affine():
    truth = np.zeros(SHAPE, np.int32)
    truth[2, 2, 2] = 1
    turn = np.eye(4)
    turn[:3, :3] = np.linalg.qr(np.random.default_rng(2).normal(size=(3, 3)))[0]
    rows = registration_scores(
        displacement_mm=np.zeros((3, *SHAPE)),
        affine=turn @ AFFINE,
        fixed_labels=truth,
        warped_labels=np.roll(truth, 1, 2),
    )
    assert by_name(rows)["hd_mm", "1"] == pytest.approx(3)


def test_a_segmentation_with_a_structure_that_is_missed_and_one_that_is_nowhere():
    truth = np.zeros((6, 6), np.int32)
    truth[1:3, 1:3], truth[4, 4] = 1, 2
    predicted = truth * (truth == 1)
    rows = segmentation_scores(truth, predicted, (1.0, 1.0), {1: "a", 2: "b", 3: "c"}, nsd_tolerance_mm=1.0)
    found = by_name(rows)
    assert found["recall", "b"] == 0
    assert math.isnan(found["precision", "b"])
    assert found["hd95_mm", "b"] == found["hd95_mean_mm", ""] == math.inf
    assert math.isnan(found["dice", "c"])
    assert found["dice_mean", ""] == 0.5
    assert found["nsd_1mm_mean", ""] == 0.5
    reasons = {row.label: row.reason for row in rows if row.metric == "dice"}
    assert reasons == {"a": "", "b": "empty in the result", "c": "empty in both images"}


def test_costs_and_failures():
    cpu = by_name(cost_scores(1.5, "cpu", 512.0))
    assert cpu == {("seconds_cpu", ""): 1.5, ("peak_memory_mib", ""): 512}
    gpu = by_name(cost_scores(0.1, "gpu", peak_gpu_memory_mib=1024.0))
    assert gpu == {("seconds_gpu", ""): 0.1, ("peak_gpu_memory_mib", ""): 1024}
    (failure,) = failed_case("E-REG-013: the images do not overlap")
    assert failure.metric == FAILED
    assert math.isnan(failure.value)


def every_row():
    labels = np.ones((4, 4), np.int64)
    still = np.zeros((2, 4, 4))
    return [
        *whole_registration(),
        *inverse_consistency_scores(labels, still, np.eye(3), still, np.eye(3)),
        *cost_scores(1.0, "cpu", 1.0),
        *cost_scores(1.0, "gpu", None, 1.0),
        *topology_scores(labels, truth=labels, atlas={1: topology(labels == 1)}),
        *topology_scores(np.ones((3, 3, 3), np.int64)),
    ]


COUNTS = ("components", "holes", "tunnels", "cavities")
"""Of which nobody knows what is better without the truth."""


def test_every_metric_is_known_by_its_name_and_unit():
    for row in every_row():
        about = metric_of(row.metric)
        known = about.title in {metric.title for metric in METRICS.values()} or about.title.startswith("NSD")
        assert known or ", " in about.title, row.metric
        assert about.unit == row.unit, row.metric
        assert about.higher_is_better is not None or row.metric.startswith(("jacobian", *COUNTS)), row.metric


def test_every_metric_is_explained_on_its_page():
    explained = set(re.findall(r"^\| `([^`]+)`", METRICS_PAGE.read_text(encoding="utf-8"), re.MULTILINE))
    assert explained == {*METRICS, "nsd_Tmm"}


@pytest.mark.parametrize(
    ("name", "title", "higher"),
    [
        ("dice_mean", "Dice", True),
        ("hd95_mean_mm", "HD95", False),
        ("tre_p95_mm", "TRE, 95th percentile", False),
        ("map_error_median_mm", "Map error, median", False),
        ("inverse_residual_max_mm", "Inverse residual, largest", False),
        ("nsd_0.5mm", "NSD at 0.5 mm", True),
        ("nsd_2mm_mean", "NSD at 2 mm", True),
        ("jacobian_max", "Largest Jacobian", None),
        ("something_new", "Something new", None),
    ],
)
def test_names_of_summaries(name, title, higher):
    assert metric_of(name).title == title
    assert metric_of(name).higher_is_better is higher


def test_the_leading_metrics_exist():
    for name in LEADING:
        assert metric_of(name.replace("*", "2")).higher_is_better is not None
