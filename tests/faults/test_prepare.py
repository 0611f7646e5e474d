"""Group P: what cohorts do to their preparation."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from anamorph.data.cohort import Cohort, Split
from anamorph.data.files import read, read_labels, write
from anamorph.data.image import Image, Labelmap
from anamorph.data.prepared import PreparedCohort
from anamorph.errors import AnamorphError, AnamorphWarning, ConfigurationError, InputError, IntegrityError
from anamorph.training import tensors
from anamorph.training.prepare import PreparationSettings, prepare
from tests.training.scans import FIVE, write_scans


@pytest.fixture
def cohort(tmp_path: Path) -> Cohort:
    """Five flat cases of one modality: three to train, one to validate, one to test."""
    return write_scans(tmp_path / "scans", ndim=2, modalities=("t1",), splits=FIVE)


def refused(cohort: Cohort, out: Path, match: str, kind: type[AnamorphError] = InputError, **options) -> str:
    """The one line of a refusal that leaves nothing to train on."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AnamorphWarning)
        with pytest.raises(kind, match=match) as caught:
            prepare(cohort, out, **options)
    assert not (out / "index.json").exists()
    assert "\n" not in str(caught.value)
    assert str(out.parent) not in str(caught.value)
    return str(caught.value)


CUT: list[Callable[[Path], object]] = [
    lambda file: file.write_bytes(file.read_bytes()[: file.stat().st_size // 2]),
    lambda file: file.unlink(),
    lambda file: file.write_bytes(b"<!doctype html>"),
]


@pytest.mark.parametrize("damage", CUT, ids=["cut", "missing", "web page"])
@pytest.mark.parametrize("kind", ["image", "labels"])
@pytest.mark.parametrize("place", [1, 4], ids=["train", "test"])
def test_p01_one_unreadable_scan(cohort: Cohort, tmp_path: Path, damage, kind: str, place: int) -> None:
    damage(getattr(cohort.scans[place], kind))
    line = refused(cohort, tmp_path / "out", rf"E-COH-052: 1 of 5 scans cannot be used: c{place} \(t1\): E-")
    assert line.endswith("mend them, or leave them out with --skip-bad")
    with pytest.warns(AnamorphWarning, match=rf"W-COH-048: c{place} \(t1\) left out: E-"):
        found = prepare(cohort, tmp_path / "out", skip_bad=True)
    assert [scan.name for scan in found.scans] == [f"c{n}_t1" for n in range(5) if n != place]


def test_p01_all_that_is_bad_is_told_at_once(cohort: Cohort, tmp_path: Path) -> None:
    for scan in cohort.scans[1:]:
        scan.image.write_bytes(b"")
    line = refused(cohort, tmp_path / "out", "4 of 5 scans")
    assert "c1 (" in line
    assert "and 1 more" in line
    cohort.scans[0].image.write_bytes(b"")
    refused(cohort, tmp_path / "out", "E-IO-002", skip_bad=True)


def test_p03_labels_of_some_cases_are_missing(tmp_path: Path) -> None:
    cohort = write_scans(
        tmp_path / "scans", ndim=2, modalities=("t1",), splits=FIVE, labelled=lambda case: case in (0, 4)
    )
    found = prepare(cohort, tmp_path / "out")
    assert [scan.classes for scan in found.scans] == [(1, 2), None, None, None, (1, 2)]
    assert ["labels" in scan.load() for scan in found.scans] == [True, False, False, False, True]
    none = prepare(write_scans(tmp_path / "none", ndim=2, labelled=lambda case: False), tmp_path / "unlabelled")
    assert none.plan.labels == {}


def test_p04_one_case_and_no_validation_are_told(tmp_path: Path, warns: Callable) -> None:
    cohort = write_scans(tmp_path / "scans", ndim=2, splits=("train", "train"))
    with warns("W-COH-047", "no validation scans"):
        prepare(cohort, tmp_path / "two")
    with pytest.warns(AnamorphWarning) as issued:
        prepare(write_scans(tmp_path / "one", ndim=2, splits=("train",)), tmp_path / "single")
    told = [str(warning.message) for warning in issued]
    assert any("one training case (c0)" in line for line in told)
    assert any("no validation scans" in line for line in told)


def test_p04_the_same_image_in_two_splits_is_a_leak(cohort: Cohort, tmp_path: Path) -> None:
    cohort.scans[4].image.write_bytes(cohort.scans[0].image.read_bytes())
    line = refused(cohort, tmp_path / "out", "E-COH-051")
    assert "c4_t1 (test) is the very image of c0_t1 (train)" in line
    assert not (tmp_path / "out").exists()
    refused(cohort, tmp_path / "out", "E-COH-051", skip_bad=True)


def test_p04_an_extra_case_is_kept_apart_like_any_other(cohort: Cohort, tmp_path: Path) -> None:
    extra = replace(cohort, scans=(*cohort.scans[:1], replace(cohort.scans[1], split="extra"), *cohort.scans[2:]))
    cohort.scans[4].image.write_bytes(cohort.scans[1].image.read_bytes())
    line = refused(extra, tmp_path / "out", "E-COH-051")
    assert "c4_t1 (test) is the very image of c1_t1 (extra)" in line
    torn = (*extra.scans[:4], replace(cohort.scans[4], case="c1_ses-2"))
    refused(replace(cohort, scans=torn), tmp_path / "other", "E-COH-050: .* subject c1 in extra and test")


def test_p03_extra_cases_with_only_some_of_the_labels(tmp_path: Path) -> None:
    """What no extra case has is not learnt: there it would be learnt as background."""
    splits: tuple[Split, ...] = ("train", "validation", "extra", "extra", "extra")
    cohort = write_scans(tmp_path / "scans", ndim=2, modalities=("t1",), splits=splits)
    scans = list(cohort.scans)
    for scan in scans[2:4]:
        assert scan.labels is not None
        labels = read_labels(scan.labels)
        write(replace(labels, data=torch.where(labels.data == 3, 0, labels.data)), scan.labels)
    scans[4] = replace(scans[4], labels=None)
    with pytest.warns(AnamorphWarning) as issued:
        found = prepare(replace(cohort, scans=tuple(scans)), tmp_path / "out")
    first, *others = [str(warning.message) for warning in issued]
    assert first.startswith("W-COH-053: label 3 (label 3) of the training scans in none of 2 labelled extra scans: ")
    assert {line.partition(":")[0] for line in others} == {"W-COH-045"}
    assert found.plan.labels == {6: "label 6"}
    assert [scan.classes for scan in found.scans] == [(1,), (1,), (1,), (1,), None]
    scans[4] = cohort.scans[4]
    whole = prepare(replace(cohort, scans=tuple(scans)), tmp_path / "whole")
    assert list(whole.plan.labels) == [3, 6]


def test_p04_one_case_with_extra_ones_is_not_alone(tmp_path: Path) -> None:
    splits: tuple[Split, ...] = ("train", "validation", "extra")
    found = prepare(write_scans(tmp_path / "scans", ndim=2, splits=splits), tmp_path / "out")
    assert found.cohort.splits == ("train", "validation", "test", "extra")


def test_p04_an_image_twice_in_one_split_is_told(cohort: Cohort, tmp_path: Path, warns: Callable) -> None:
    cohort.scans[1].image.write_bytes(cohort.scans[0].image.read_bytes())
    labels = read_labels(cohort.scans[0].labels)  # pyright: ignore
    write(labels, cohort.scans[1].labels)  # pyright: ignore
    with warns("W-COH-049", "c1_t1 is the very image of c0_t1"):
        prepare(cohort, tmp_path / "out")


@pytest.mark.parametrize("case", ["c0", "c0_ses-2"])
def test_p04_a_subject_in_two_splits_is_refused(cohort: Cohort, tmp_path: Path, case: str) -> None:
    scans = (*cohort.scans[:4], replace(cohort.scans[4], case=case, modality="t2"))
    refused(replace(cohort, scans=scans), tmp_path / "out", "E-COH-050: .* subject c0 in test and train")


def test_p04_nothing_to_train_on(cohort: Cohort, tmp_path: Path) -> None:
    scans = tuple(replace(scan, split="test") for scan in cohort.scans)
    refused(replace(cohort, scans=scans), tmp_path / "out", "E-COH-040")


def test_p10_the_order_of_files_changes_nothing(cohort: Cohort, tmp_path: Path) -> None:
    turned = replace(cohort, scans=cohort.scans[::-1])
    one, other = prepare(cohort, tmp_path / "one"), prepare(turned, tmp_path / "other")
    assert (one.folder / "index.json").read_bytes() == (other.folder / "index.json").read_bytes()
    assert [scan.scan.split for scan in other.scans] == list(FIVE)


def test_n27_a_file_that_changes_meanwhile_is_refused(
    cohort: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def late(path: Path, *rest):
        image = read(path, *rest)
        os.utime(path, (0, 0))
        return image

    monkeypatch.setattr(tensors, "read", late)
    refused(cohort, tmp_path / "out", "E-IO-027", IntegrityError, skip_bad=True)


@pytest.mark.parametrize("case", ["../up", "a/b", ".hidden", "two\nlines"])
def test_a_name_that_leads_elsewhere_is_refused(cohort: Cohort, tmp_path: Path, case: str) -> None:
    scans = (replace(cohort.scans[0], case=case), *cohort.scans[1:])
    refused(replace(cohort, scans=scans), tmp_path / "out", "E-COH-050")
    twins = (cohort.scans[0], replace(cohort.scans[1], case="c0"), *cohort.scans[2:])
    refused(replace(cohort, scans=twins), tmp_path / "out", "E-COH-050: .* 2 scans named c0_t1")


def test_s_nobody_elses_folder_is_touched(cohort: Cohort, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("precious")
    refused(cohort, tmp_path / "out", "E-OUT-016", ConfigurationError)
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["thesis.txt"]
    refused(cohort, tmp_path / "scans", "E-OUT-016", ConfigurationError)


def test_a_modality_that_an_older_plan_does_not_know(cohort: Cohort, tmp_path: Path) -> None:
    prepare(cohort, tmp_path / "out")
    before = (tmp_path / "out" / "index.json").read_bytes()
    image = read(cohort.scans[0].image)
    other = replace(cohort.scans[0], modality="pet", image=tmp_path / "scans" / "pet.nii.gz")
    write(Image(image.data + 1, image.grid), other.image)
    more = (*cohort.scans, other)
    with pytest.raises(InputError, match=r"E-COH-042: modality 'pet', expected t1; add it to plan.yaml"):
        prepare(replace(cohort, scans=more), tmp_path / "out")
    assert (tmp_path / "out" / "index.json").read_bytes() == before


def test_g15_labels_that_lie_elsewhere(cohort: Cohort, tmp_path: Path, warns: Callable) -> None:
    scan = cohort.scans[1]
    labels = read_labels(scan.labels)  # pyright: ignore
    affine = labels.grid.affine.copy()
    affine[0, -1] += 0.5
    write(Labelmap.from_array(labels.data.numpy(), affine), scan.labels)  # pyright: ignore
    with warns("W-GEO-015", "0.5 mm"):
        prepare(cohort, tmp_path / "near")
    affine[0, -1] += 10
    write(Labelmap.from_array(labels.data.numpy(), affine), scan.labels)  # pyright: ignore
    refused(cohort, tmp_path / "far", "E-GEO-015")


def test_l07_labels_that_the_network_cannot_see_are_told(cohort: Cohort, tmp_path: Path, warns: Callable) -> None:
    scan = cohort.scans[1]
    labels = read_labels(scan.labels)  # pyright: ignore
    values = labels.data.numpy().copy()
    values[0, 0] = 12  # a single voxel in the corner, which the network's grid cuts off
    write(Labelmap.from_array(values, labels.grid.affine), scan.labels)  # pyright: ignore
    with pytest.warns(AnamorphWarning) as issued:
        found = prepare(cohort, tmp_path / "out", PreparationSettings(spacing=(2.0, 2.0), shape=(9, 9)))
    told = [str(warning.message) for warning in issued]
    assert any("W-COH-046: c1_t1_labels.nii.gz: label 12 has no voxel left" in line for line in told)
    assert found.by_name["c1_t1"].classes == (1, 2)
    values[0, 0], values[5, 5] = 0, 77
    write(Labelmap.from_array(values, labels.grid.affine), cohort.scans[3].labels)  # pyright: ignore
    with pytest.warns(AnamorphWarning, match="W-COH-045: c3_t1_labels.nii.gz: label 77 is not in the plan"):
        prepare(cohort, tmp_path / "out")


def test_v04_a_scan_that_shows_nothing_is_told(cohort: Cohort, tmp_path: Path, warns: Callable) -> None:
    image = read(cohort.scans[2].image)
    write(Image(torch.full_like(image.data, 7), image.grid), cohort.scans[2].image)
    with warns("W-COH-044", "c2_t1.nii.gz: shows nothing"):
        found = prepare(cohort, tmp_path / "out")
    assert float(found.scans[2].load()["image"].abs().max()) == 0


def test_one_warning_of_a_thousand_files_is_shown_a_few_times(tmp_path: Path) -> None:
    from PIL import Image as Picture

    from anamorph.data.cohort import Scan

    values = np.random.default_rng(0).integers(0, 255, (10, 9, 8), dtype=np.uint8)
    scans = []
    for n, picture in enumerate(values):
        Picture.fromarray(picture).save(tmp_path / f"p{n}.png")
        scans.append(Scan(f"p{n}", "photo", tmp_path / f"p{n}.png", split="validation" if n == 9 else "train"))
    with pytest.warns(AnamorphWarning) as issued:
        found = prepare(Cohort(tmp_path, tuple(scans)), tmp_path / "out")
    told = [str(warning.message) for warning in issued]
    assert [line[:9] for line in told] == ["W-FMT-010"] * 3 + ["W-COH-051"]
    assert told[-1] == "W-COH-051: W-FMT-010 7 more times; index.json names each"
    index = (tmp_path / "out" / "index.json").read_text()
    assert all(f"W-FMT-010: p{n}.png" in index for n in range(10))
    assert PreparedCohort.open(tmp_path / "out").scans == found.scans or len(found.scans) == 10
