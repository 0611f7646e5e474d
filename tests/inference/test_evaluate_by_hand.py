"""Methods over a tiny cohort: known shifts are scored, failures become rows, and what is finished is not done again."""

from __future__ import annotations

import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from anamorph.data.cohort import Cohort, Pair, Scan
from anamorph.data.files import read_labels, write
from anamorph.data.image import Image, Labelmap
from anamorph.data.layouts.folders import read_layout
from anamorph.data.transform_files import write_transform
from anamorph.errors import InputError
from anamorph.evaluation.appearance import OF_ONE_SCALE
from anamorph.evaluation.comparison import compare
from anamorph.inference.contenders import Registered, Registrar, engine, stored_labels, stored_transforms
from anamorph.inference.evaluate import chosen_pairs, evaluate_registration, evaluate_segmentation, spread
from anamorph.spatial.transform import Affine, Field

SHIFT = 3
AFFINE = np.diag([2.0, 2.0, 2.0, 1.0])


@pytest.fixture
def cohort(tmp_path: Path) -> Cohort:
    """Two cases of a box each, the second one three voxels further along the first axis."""
    for name in ("images", "labels"):
        (tmp_path / name).mkdir()
    for case, start in (("a", 4), ("b", 4 + SHIFT)):
        box = np.zeros((16, 14, 12), np.uint8)
        box[start : start + 5, 4:9, 4:9] = 1
        write(Image.from_array(box * 100.0 + np.arange(12), AFFINE), tmp_path / "images" / f"{case}.nii.gz")
        write(Labelmap.from_array(box, AFFINE), tmp_path / "labels" / f"{case}.nii.gz")
    return read_layout(tmp_path)


def pair_of(cohort: Cohort) -> Pair:
    return next(pair for pair in chosen_pairs(cohort, "between") if pair.fixed.case == "a")


def value(rows, method: str, metric: str) -> float:
    (found,) = (row.value for row in rows if (row.method, row.metric) == (method, metric))
    return found


def test_two_maps_of_one_method_are_held_against_each_other(cohort: Cohort, tmp_path: Path) -> None:
    """3 voxels there, 2 back: every point that stays inside is 2 mm off. The computed inverse is none of it."""
    there, back = np.eye(4), np.eye(4)
    there[0, 3], back[0, 3] = 2.0 * SHIFT, -2.0 * (SHIFT - 1)

    def run(pair: Pair, fixed: Image, moving: Image) -> Registered:
        return Registered(Affine(there), backward=Affine(back))

    rows = evaluate_registration([pair_of(cohort)], [Registrar("two", run), engine("none")], tmp_path / "rows")
    assert value(rows, "two", "inverse_consistency_mean_mm") == pytest.approx(2)
    assert value(rows, "two", "inverse_residual_mean_mm") == pytest.approx(0, abs=1e-6)
    assert not any(row.method == "none" and row.metric.startswith("inverse_consistency") for row in rows)


def test_a_map_without_an_inverse_has_all_scores_but_those_of_the_inverse(cohort: Cohort, tmp_path: Path) -> None:
    pair = pair_of(cohort)

    def fold(pair: Pair, fixed: Image, moving: Image) -> Registered:
        random = torch.rand(3, *fixed.grid.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        return Registered(Field(30 * random, fixed.grid))

    rows = evaluate_registration([pair], [Registrar("folds", fold)], tmp_path / "rows")
    assert value(rows, "folds", "folded_fraction") > 0.1
    assert 0 <= value(rows, "folds", "dice_mean") < 1
    missing = [row for row in rows if row.metric.startswith("inverse_residual")]
    assert len(missing) == 3
    assert all(math.isnan(row.value) and row.reason.startswith("E-TRF-010") for row in missing)
    assert [str(row) for row in evaluate_registration([pair], [Registrar("folds", fold)], tmp_path / "rows")] == [
        str(row) for row in rows
    ]


def test_known_maps_are_scored_and_a_failure_is_a_row(cohort: Cohort, tmp_path: Path) -> None:
    pair, maps = pair_of(cohort), tmp_path / "maps"
    maps.mkdir()
    matrix = np.eye(4)
    matrix[0, 3] = 2.0 * SHIFT
    write_transform(Affine(matrix), maps / f"{pair.name}.tfm")
    asked = []

    def broken(pair: Pair, fixed: Image, moving: Image) -> Registered:
        asked.append(pair.name)
        raise InputError("E-XXX-001", "nothing")

    methods = [engine("none"), stored_transforms(maps), Registrar("broken", broken)]
    rows = evaluate_registration([pair], methods, tmp_path / "rows")
    assert value(rows, "none", "dice_mean") == pytest.approx(2 * 2 / 10)
    assert value(rows, "maps", "dice_mean") == 1.0
    assert value(rows, "maps", "folded_voxels") == 0
    (failure,) = (row for row in rows if row.method == "broken")
    assert (failure.metric, failure.reason) == ("failed", "E-XXX-001: nothing")
    # What is finished is read again, number by number; a failure is tried again.
    (maps / f"{pair.name}.tfm").unlink()
    again = evaluate_registration([pair], methods, tmp_path / "rows")
    assert [str(row) for row in again] == [str(row) for row in rows]
    assert asked == [pair.name] * 2


def test_a_scale_is_shared_within_a_modality_only(cohort: Cohort, tmp_path: Path) -> None:
    alike = pair_of(cohort)
    apart = replace(alike, moving=replace(alike.moving, modality="t2"))
    told = [
        {row.metric for row in evaluate_registration([pair], [engine("none")], tmp_path / pair.moving.modality)}
        for pair in (alike, apart)
    ]
    assert told[0] - told[1] == set(OF_ONE_SCALE)
    assert not told[1] - told[0]


def test_labels_from_elsewhere(cohort: Cohort, tmp_path: Path) -> None:
    found = Path(shutil.copytree(tmp_path / "labels", tmp_path / "found"))
    rows = evaluate_segmentation(cohort.scans, [stored_labels(found)], tmp_path / "rows")
    assert [row.value for row in rows if row.metric == "dice_mean"] == [1.0, 1.0]
    (found / "a.nii.gz").write_bytes((found / "b.nii.gz").read_bytes())
    # What was scored before is not kept.
    rows = evaluate_segmentation(cohort.scans[:1], [stored_labels(found)], tmp_path / "rows")
    assert [row.value for row in rows if row.metric == "dice_mean"] == [pytest.approx(0.4)]
    with pytest.raises(InputError, match="E-EVA-011"):
        stored_labels(tmp_path / "images" / "none")


def test_the_topology_of_what_was_found_is_told(cohort: Cohort, tmp_path: Path) -> None:
    found = Path(shutil.copytree(tmp_path / "labels", tmp_path / "found"))
    torn = read_labels(found / "a.nii.gz")
    torn.data[0, 0, 0] = 1
    write(torn, found / "a.nii.gz")
    asked = (cohort.scans, [stored_labels(found)], tmp_path / "rows")
    assert not any(row.metric == "components" for row in evaluate_segmentation(*asked, topology=False))
    rows = {(row.case, row.metric): row.value for row in evaluate_segmentation(*asked)}  # what is kept lacks them
    a, b = (scan.name for scan in cohort.scans)
    assert (rows[a, "components"], rows[a, "stray_voxels"], rows[a, "betti_error"]) == (2, 1, 1)
    assert (rows[b, "components"], rows[b, "topological_success"], rows[b, "cavities"]) == (1, 1, 0)
    table = {column.metric: column for column in compare(evaluate_segmentation(*asked)).columns if not column.label}
    assert table["topological_success_mean"].cells["found"].summary.mean == 0.5
    assert table["components_mean"].cells["found"].summary.mean == 1.5


def test_no_pairs_and_an_even_choice(cohort: Cohort) -> None:
    with pytest.raises(InputError, match="E-EVA-013"):
        chosen_pairs(cohort, None)
    scans = [Scan(str(n), "ct", Path(str(n))) for n in range(10)]
    assert [scan.case for scan in spread(scans, 4)] == ["0", "3", "6", "9"]
    assert len(spread(scans, None)) == 10


def test_labels_that_are_judged_as_one(cohort: Cohort, tmp_path: Path) -> None:
    """Half of the box of b has another label; both count as the first, and rows that told them apart are void."""
    labels = tmp_path / "labels" / "b.nii.gz"
    other = read_labels(labels)
    other.data[:, :6] *= 2
    labels.unlink()
    write(other, labels)
    pair, rows = pair_of(cohort), tmp_path / "rows"
    apart = evaluate_registration([pair], [engine("none")], rows)
    assert {row.label for row in apart if row.metric == "dice"} == {"1", "2"}
    together = evaluate_registration([pair], [engine("none")], rows, count_as={2: 1})
    assert [(row.label, row.value) for row in together if row.metric == "dice"] == [("1", pytest.approx(0.4))]
    assert value(together, "none", "dice_mean") == pytest.approx(0.4)
