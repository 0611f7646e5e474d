"""The table of scores: what does not exist says why, in the frame, in CSV and in JSON."""

from __future__ import annotations

import csv
import io
import json
import math
from dataclasses import replace

import numpy as np
import pytest

from anamorph.errors import InputError
from anamorph.evaluation.appearance import appearance_scores
from anamorph.evaluation.folding import folding_scores, inverse_residual_scores
from anamorph.evaluation.landmarks import landmark_scores
from anamorph.evaluation.overlap import label_overlap
from anamorph.evaluation.scores import (
    COLUMNS,
    Score,
    from_csv,
    mean_name,
    mean_score,
    of_case,
    to_csv,
    to_frame,
    to_json,
)
from anamorph.evaluation.surface import label_surface

EMPTY, FULL = np.zeros((4, 5, 6), np.int32), np.ones((4, 5, 6), np.int32)


def both_tables(fixed, warped):
    scores = [*label_overlap(fixed, warped, {1: "liver"}), *label_surface(fixed, warped, (1.0, 2.0, 3.0), {1: "liver"})]
    return {score.metric: score for score in scores}


@pytest.mark.parametrize(
    ("fixed", "warped", "reason", "dice", "distance"),
    [
        pytest.param(EMPTY, EMPTY, "empty in both images", math.nan, math.nan, id="L21"),
        pytest.param(EMPTY, FULL, "empty in the truth", 0.0, math.inf, id="L21-fixed"),
        pytest.param(FULL, EMPTY, "empty in the result", 0.0, math.inf, id="L21-warped"),
    ],
)
def test_empty_structures_are_spelled_out(fixed, warped, reason, dice, distance):
    scores = both_tables(fixed, warped)
    for metric in ("dice", "jaccard", "volume_similarity", "nsd_2mm"):
        assert scores[metric].value == pytest.approx(dice, nan_ok=True)
    for metric in ("hd_mm", "hd95_mm", "assd_mm"):
        assert scores[metric].value == pytest.approx(distance, nan_ok=True)
    assert {score.reason for score in scores.values() if score.label} == {reason}
    rows = json.loads(json.dumps(to_json(scores.values()), allow_nan=False))
    for row in rows:
        assert row["value"] is None or math.isfinite(row["value"])
        assert row["value"] is not None or row["reason"]
    cells = list(csv.DictReader(io.StringIO(to_csv(scores.values()))))
    assert [cell["value"] in ("", "inf") for cell in cells] == [row["value"] is None for row in rows]


def test_full_against_full_has_no_reason():
    scores = both_tables(FULL, FULL)
    assert {score.reason for score in scores.values()} == {""}
    assert scores["dice"].value == scores["nsd_2mm"].value == 1
    assert scores["hd_mm"].value == 0


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_no_missing_number_without_a_reason(value):
    with pytest.raises(ValueError, match="without a reason"):
        Score("dice", value)


def test_every_undefined_score_has_its_reason():
    nothing = np.zeros((3, 3, 3), bool)
    image, flat = np.arange(27.0).reshape(3, 3, 3), np.ones((3, 3, 3))
    displacement, affine = np.zeros((3, 3, 3, 3)), np.eye(4)
    far, broken = affine.copy(), displacement.copy()
    far[:3, 3] = 100
    broken[0, 1, 1, 1] = np.nan
    no_points = np.zeros((0, 3))
    for scores, reason in (
        (appearance_scores(image, image, nothing), "the mask is empty"),
        (appearance_scores(flat, image), "the fixed image is constant"),
        (appearance_scores(image, np.where(image > 3, image, np.nan)), "the warped image is not finite"),
        (folding_scores(displacement, affine, nothing), "the mask is empty"),
        (folding_scores(broken, affine), "the displacement is not finite"),
        (inverse_residual_scores(displacement, affine, displacement, far), "no point stays inside both grids"),
        (inverse_residual_scores(broken, affine, displacement, affine), "a displacement is not finite"),
        (landmark_scores(no_points, no_points, lambda points: points), "no landmarks"),
        (landmark_scores(np.ones((2, 3)), np.ones((2, 3)), lambda points: points * np.inf), "the transform maps"),
    ):
        assert {score.reason.startswith(reason) for score in scores} == {True}
        json.dumps(to_json(scores), allow_nan=False)


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t=", "\r\n @", " ="])
def test_formulas_become_text_and_numbers_stay_numbers(start):
    name = f"{start}HYPERLINK(evil)"
    text = to_csv([Score("jacobian_min", -0.125, label=name, case=name, method="ours")])
    (row,) = csv.DictReader(io.StringIO(text, newline=""))
    assert row["label"] == row["case"] == f"'{name.strip()}"
    assert row["value"] == "-0.125"
    assert row["method"] == "ours"


def test_csv_keeps_every_digit():
    value = 0.1 + 0.2
    (row,) = csv.DictReader(io.StringIO(to_csv([Score("dice", value)])))
    assert float(row["value"]) == value


def test_frame_has_one_row_a_score_and_the_columns_in_order():
    scores = of_case([Score("dice", 0.5, label="liver"), Score("dice", 0.25, label="spleen")], "case 1", "ours")
    frame = to_frame(scores)
    assert tuple(frame.columns) == COLUMNS == tuple(to_json(scores)[0])
    assert frame["value"].mean() == 0.375
    assert set(frame["case"]) == {"case 1"}
    assert tuple(to_frame([]).columns) == COLUMNS


def test_the_mean_skips_what_does_not_exist_and_names_what_is_infinite():
    liver, spleen = Score("hd_mm", 2.0, "mm", "liver"), Score("hd_mm", 4.0, "mm", "spleen")
    absent = Score("hd_mm", math.nan, "mm", "cyst", "empty in both images")
    lost = Score("hd_mm", math.inf, "mm", "tumour", "empty in the result")
    assert mean_score([liver, spleen, absent], "hd_mean_mm") == Score("hd_mean_mm", 3.0, "mm")
    assert mean_score([liver, lost], "hd_mean_mm").reason == "infinite for tumour"
    nameless = [replace(score, label=label) for score, label in ((liver, "1"), (lost, "2"))]
    assert mean_score(nameless, "hd_mean_mm").reason == "infinite for label 2"
    assert mean_score([absent], "hd_mean_mm").reason
    assert mean_score([], "hd_mean_mm").reason


def test_what_was_written_is_read_again():
    scores = [
        Score("dice", 0.1 + 0.2, label='left, "upper" lobe', case="=1+1", method="ours"),
        Score("hd95_mm", math.inf, "mm", "tumour", "empty in the result", "c", "'quoted"),
        Score("jacobian_min", -1e-300, case="-c", method="@m"),
    ]
    assert from_csv(to_csv(scores)) == scores
    (undefined,) = from_csv(to_csv([Score("dice", math.nan, label="cyst", reason="empty in both images")]))
    assert math.isnan(undefined.value)
    assert undefined.reason == "empty in both images"


def test_tables_of_other_programs_are_read():
    text = "\ufeffmetric,value,case,remark\r\ndice,0.5,c1,fine\r\n\r\ndice,,c2,\r\n"
    first, second = from_csv(text)
    assert first == Score("dice", 0.5, case="c1")
    assert math.isnan(second.value)
    assert second.reason == "no reason given"


@pytest.mark.parametrize(
    ("text", "code", "words"),
    [
        ("", "E-EVA-001", "no column metric and no column value"),
        ("case,value\nc,1\n", "E-EVA-001", "no column metric"),
        ('metric,value\n"dice,0.5\n', "E-EVA-001", "no CSV"),
        ("metric,value\ndice,good\n", "E-EVA-002", "line 2 has the value 'good'"),
        ("metric,value\ndice,0.5\ndice\n", "E-EVA-002", "line 3"),
        ("metric,value\ndice,0.5,1\n", "E-EVA-002", "line 2"),
    ],
)
def test_tables_that_are_none(text, code, words):
    with pytest.raises(InputError, match=words) as refusal:
        from_csv(text)
    assert refusal.value.code == code


def test_the_unit_stays_at_the_end_of_a_name():
    names = ("dice", "hd95_mm", "nsd_2mm", "mice_voxels", "psnr_db")
    means = ("dice_mean", "hd95_mean_mm", "nsd_2mm_mean", "mice_mean_voxels", "psnr_mean_db")
    assert tuple(map(mean_name, names)) == means
