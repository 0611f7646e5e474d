"""The plan that is proposed: from the training scans, and from them alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from anamorph.data.cohort import Cohort, Scan
from anamorph.data.files import read, write
from anamorph.data.fingerprint import CT_WINDOW, is_ct, propose_plan, read_grid
from anamorph.data.image import Image, Labelmap, ReadPolicy
from anamorph.data.plan import Intensity
from anamorph.errors import AnamorphError, AnamorphWarning


def scan_of(folder: Path, case: str, shape, affine, modality="t1", labels=None, values=None, split="train") -> Scan:
    affine = np.asarray(affine, dtype=np.float64)
    affine = np.diag([*affine, 1.0]) if affine.ndim == 1 else affine
    image = folder / f"{case}_{modality}.nii.gz"
    values = np.random.default_rng(0).uniform(1, 100, shape) if values is None else values
    write(Image.from_array(np.asarray(values, dtype=np.float32), affine), image)
    scan = Scan(case, modality, image, split=split)
    if labels is not None:
        array = np.zeros(shape, dtype=np.int32)
        array.flat[: len(labels)] = labels
        file = folder / f"{case}_{modality}_labels.nii.gz"
        write(Labelmap.from_array(array, affine), file)
        scan = replace(scan, labels=file)
    return scan


def test_spacing_is_the_median_and_the_shape_holds_every_view(tmp_path: Path) -> None:
    sizes = [((8, 9, 10), (1.0, 1, 3)), ((8, 9, 10), (2.0, 1, 4)), ((12, 9, 10), (1.5, 1, 5))]
    cohort = Cohort(tmp_path, tuple(scan_of(tmp_path, f"c{n}", *size) for n, size in enumerate(sizes)))
    plan = propose_plan(cohort)
    assert (plan.orientation, plan.spacing) == ("RAS", (1.5, 1.0, 4.0))
    assert plan.shape == (12, 9, 13)  # 18 mm, 9 mm, 50 mm
    turned = propose_plan(cohort, {"orientation": "SLP"})
    assert (turned.spacing, turned.shape) == ((4.0, 1.5, 1.0), (13, 12, 9))
    given = propose_plan(cohort, {"spacing": (3.0, 3.0, 5.0)})
    assert (given.spacing, given.shape) == ((3.0, 3.0, 5.0), (6, 3, 10))


def test_axes_count_where_they_point(tmp_path: Path) -> None:
    c, s = np.cos(0.2), np.sin(0.2)
    affine = np.eye(4)
    affine[:3, :3] = [[0, 0, 3], [-2 * c, s, 0], [2 * s, c, 0]]  # voxel axes run to P, S and R
    cohort = Cohort(tmp_path, (scan_of(tmp_path, "c", (10, 20, 5), affine),))
    plan = propose_plan(cohort)
    assert plan.spacing == pytest.approx((3, 2, 1), rel=1e-5)
    extent = np.array([15, 20 * c + 20 * s, 20 * s + 20 * c])
    assert plan.shape == tuple(np.ceil(extent / [3, 2, 1] - 1e-2).astype(int))


def test_a_stray_field_of_view_does_not_decide(tmp_path: Path) -> None:
    scans = [scan_of(tmp_path, f"c{n:02}", (8, 8), (1.0, 1.0)) for n in range(40)]
    scans.append(scan_of(tmp_path, "whole body", (8, 30), (1.0, 1.0)))
    with pytest.warns(AnamorphWarning, match=r"W-COH-043: 1 of 41 training scans reach beyond"):
        assert propose_plan(Cohort(tmp_path, tuple(scans))).shape == (8, 8)


def test_a_large_grid_gets_larger_voxels(tmp_path: Path) -> None:
    cohort = Cohort(tmp_path, (scan_of(tmp_path, "c", (40, 20), (1.0, 2.0)),))
    with pytest.warns(AnamorphWarning, match=r"W-COH-042: voxels of .* 1 x 2, .* 200 voxels \(--max-voxels\)"):
        plan = propose_plan(cohort, max_voxels=200)
    assert np.prod(plan.shape) <= 200
    assert plan.spacing[1] == pytest.approx(2 * plan.spacing[0], rel=1e-5)
    assert (np.array(plan.shape) * plan.spacing >= [39.9, 39.9]).all()
    with pytest.warns(AnamorphWarning, match="the shape that is asked for"):
        plan = propose_plan(cohort, {"shape": (10, 10)})
    assert (plan.shape, plan.spacing) == ((10, 10), (4.0, 8.0))
    kept = propose_plan(cohort, {"spacing": (1.0, 2.0)}, max_voxels=200)
    assert kept.shape == (40, 20)
    assert propose_plan(cohort, {"shape": (64, 64)}).spacing == (1.0, 2.0)


HU = np.linspace(-1000, 400, 64).reshape(8, 8)


@pytest.mark.parametrize(
    ("modality", "values", "expected"),
    [
        ("ct", HU, CT_WINDOW),
        ("CTA", HU, CT_WINDOW),
        ("plain", HU, CT_WINDOW),
        ("ct", HU.clip(-300), CT_WINDOW),  # cropped to the body
        ("t1", None, Intensity(content="positive")),
        ("MR_late", None, Intensity(content="positive")),
        ("t1", np.linspace(-1.5, 3.0, 64).reshape(8, 8), Intensity(content="all")),  # of zero mean
        ("us", None, Intensity(content="all")),
        ("octane", None, Intensity(content="all")),
    ],
)
def test_intensities_follow_from_name_and_values(tmp_path: Path, modality, values, expected) -> None:
    cohort = Cohort(tmp_path, (scan_of(tmp_path, "c", (8, 8), (1.0, 1.0), modality, values=values),))
    assert propose_plan(cohort).modalities == {modality: expected}
    chosen = Intensity(kind="zscore")
    assert propose_plan(cohort, {"modalities": {modality: chosen}}).modalities == {modality: chosen}


def test_g21_a_ct_without_hu_is_told(tmp_path: Path) -> None:
    cohort = Cohort(tmp_path, (scan_of(tmp_path, "c", (8, 8), (1.0, 1.0), "ct"),))
    with pytest.warns(AnamorphWarning, match="W-COH-041: values of modality 'ct' begin at"):
        assert propose_plan(cohort).modalities["ct"].kind == "percentiles"


def test_names_of_ct() -> None:
    assert all(map(is_ct, ("ct", "CT", "cta", "cbct", "ct_venous", "low-dose CT", "ct2")))
    assert not any(map(is_ct, ("mr", "dict", "oct", "section", "t1")))


def test_l10_labels_are_the_union_and_rare_ones_are_told(tmp_path: Path) -> None:
    found = [[0, 1, 2035], [0, 1], [1, 2**24 + 1]]
    scans = [scan_of(tmp_path, f"c{n}", (4, 4), (1.0, 1.0), labels=values) for n, values in enumerate(found)]
    scans.append(scan_of(tmp_path, "unlabelled", (4, 4), (1.0, 1.0)))
    with pytest.warns(AnamorphWarning, match=r"W-COH-040: .* all 3 .* label 2035 \(in 1\), 16777217 \(in 1\)"):
        plan = propose_plan(Cohort(tmp_path, tuple(scans)))
    assert plan.labels == {1: "label 1", 2035: "label 2035", 16777217: "label 16777217"}
    assert propose_plan(Cohort(tmp_path, tuple(scans)), {"labels": {1: "one"}}).labels == {1: "one"}


def test_only_training_scans_are_read(tmp_path: Path) -> None:
    train = scan_of(tmp_path, "a", (4, 5), (1.0, 2.0), labels=[1])
    others = [
        replace(train, case=split, image=tmp_path / "absent.nii", labels=tmp_path / "absent.nii", split=split)
        for split in ("validation", "test")
    ]
    only_there = replace(others[0], modality="pet")
    plan = propose_plan(Cohort(tmp_path, (train, *others, only_there)))
    assert (plan.shape, plan.labels, list(plan.modalities)) == ((4, 5), {1: "label 1"}, ["pet", "t1"])


def test_a_scan_that_cannot_be_read_is_left_to_others(tmp_path: Path) -> None:
    good = scan_of(tmp_path, "a", (4, 5), (1.0, 2.0))
    bad = Scan("b", "t1", tmp_path / "bad.nii.gz")
    bad.image.write_bytes(b"<html>")
    assert propose_plan(Cohort(tmp_path, (good, bad))).shape == (4, 5)
    with pytest.raises(AnamorphError, match="E-IO-003: bad"):
        propose_plan(Cohort(tmp_path, (bad,)))


WRONG = [
    ({}, "test", "E-COH-040"),
    ({"spacing": (1.0, 1.0, 1.0)}, "train", "E-COH-045"),
    ({"shape": (8,)}, "train", "E-COH-045"),
    ({"orientation": "RAS"}, "train", "E-COH-045"),
    ({"orientation": "RX"}, "train", "E-COH-045"),
]


@pytest.mark.parametrize(("overrides", "split", "code"), WRONG)
def test_what_cannot_be_planned_is_refused(tmp_path: Path, overrides, split, code) -> None:
    cohort = Cohort(tmp_path, (scan_of(tmp_path, "a", (4, 5), (1.0, 2.0), split=split),))
    with pytest.raises(AnamorphError, match=code):
        propose_plan(cohort, overrides)


def test_two_and_three_dimensions_do_not_mix(tmp_path: Path) -> None:
    flat, deep = scan_of(tmp_path, "a", (4, 5), (1.0, 2.0)), scan_of(tmp_path, "b", (4, 5, 6), (1.0, 2.0, 1.0))
    with pytest.raises(AnamorphError, match=r"E-COH-044: 2-D \(a_t1\) and 3-D \(b_t1\)"):
        propose_plan(Cohort(tmp_path, (flat, deep)))


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".nrrd", ".mha"])
@pytest.mark.parametrize("shape", [(4, 5), (4, 5, 6)])
def test_a_header_alone_tells_the_grid(tmp_path: Path, suffix, shape) -> None:
    affine = np.diag([*(1.5, -2, 3)[: len(shape)], 1.0])
    affine[:-1, -1] = 7
    write(Image.from_array(np.zeros(shape), affine), tmp_path / f"a{suffix}")
    grid = read_grid(tmp_path / f"a{suffix}", ReadPolicy())
    assert grid.same_as(read(tmp_path / f"a{suffix}").grid, 1e-9)
