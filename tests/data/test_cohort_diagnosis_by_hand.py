"""What is told of a cohort, worked out on small ones; and its clean copy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from anamorph.data import diagnosis
from anamorph.data.cohort import Cohort, Pair, Scan, Split
from anamorph.data.cohort_diagnosis import CohortFacts, describe_cohort, fix_cohort, same_images
from anamorph.data.cohort_files import NAME, read_cohort
from anamorph.data.diagnosis import describe
from anamorph.data.files import write
from anamorph.data.image import Image, Landmarks
from anamorph.data.landmark_files import write_landmarks
from anamorph.data.transform_files import write_transform
from anamorph.spatial.transform import Affine

SPACING = np.diag([1.0, 1.5, 2.0, 1.0])
SHAPE = (6, 7, 8)
SPLIT: list[Split] = ["train", "validation", "test"]


def noise(seed: int, low: float = 0, high: float = 200) -> np.ndarray:
    return np.random.default_rng(seed).uniform(low, high, SHAPE).astype(np.float32)


def boxes(*labels: int, dtype: Any = np.uint8) -> np.ndarray:
    """One slab of 6 x 7 voxels, 126 mm3, for each label."""
    values = np.zeros(SHAPE, dtype)
    for place, label in enumerate(labels):
        values[:, :, place] = label
    return values


@pytest.fixture
def three(tmp_path: Path) -> Callable[..., Cohort]:
    """``three(modality, **changes)``: cases c0, c1, c2 with two labels each; a change replaces a file's content."""

    def make(modality: str = "t1", **changes: Any) -> Cohort:
        scans = []
        for number in range(3):
            image, labels = tmp_path / f"c{number}.nii.gz", tmp_path / f"c{number}_labels.nii.gz"
            values, affine = changes.get(f"image{number}", noise(number, -900, 1500)), SPACING
            write(Image.from_array(values, affine), image)
            values, affine = changes.get(f"labels{number}", (boxes(1, 2), SPACING))
            nib.save(nib.Nifti1Image(values, affine), labels)
            scans.append(Scan(f"c{number}", modality, image, labels, split=SPLIT[number]))
        return Cohort(tmp_path, tuple(scans))

    return make


def of(found: CohortFacts, number: int) -> list[str]:
    return [problem.message for problem in found.scans[number].problems]


def test_a_healthy_cohort_and_its_label_volumes(three: Callable[..., Cohort]) -> None:
    found = describe_cohort(three("ct", labels2=(boxes(1, 2, 2), SPACING)))
    assert [of(found, number) for number in range(3)] == [[], [], []]
    assert found.problems == []
    assert found.label_volumes == {1: pytest.approx([126] * 3), 2: pytest.approx([126, 126, 252])}
    assert len(found.labelled) == 3
    low, high = found.scans[0].image.limits or (0, 0)
    assert (low, high) == pytest.approx(np.percentile(noise(0, -900, 1500), (1, 99)), rel=1e-6)


def test_labels_that_one_lacks_and_another_has_alone(three: Callable[..., Cohort]) -> None:
    found = describe_cohort(three(labels0=(boxes(1), SPACING), labels1=(boxes(1, 2, 7), SPACING)))
    assert of(found, 0) == ["W-COH-012: c0_labels.nii.gz: lacks label 2 (2 of 3 have it)"]
    assert of(found, 1) == ["W-COH-011: c1_labels.nii.gz: has label 7 (1 of 3 have it)"]
    assert of(found, 2) == []


def test_extra_scans_that_have_only_some_of_the_labels(three: Callable[..., Cohort], tmp_path: Path) -> None:
    """They are told once, and no scan stands out by it."""
    cohort, scans = three(), []
    for number in range(3, 8):
        image, labels = tmp_path / f"x{number}.nii.gz", tmp_path / f"x{number}_labels.nii.gz"
        write(Image.from_array(noise(number, -900, 1500), SPACING), image)
        nib.save(nib.Nifti1Image(boxes(2), SPACING), labels)
        scans.append(Scan(f"x{number}", "t1", image, labels, split="extra"))
    found = describe_cohort(Cohort(tmp_path, (*cohort.scans, *scans)))
    assert [of(found, number) for number in range(8)] == [[]] * 8
    assert [problem.message for problem in found.problems] == [
        "W-COH-053: label 1 of the training scans in no extra scan: it would be left out of the plan"
    ]
    unlabelled = tuple(replace(scan, labels=None) for scan in scans)
    assert describe_cohort(Cohort(tmp_path, (*cohort.scans, *unlabelled))).problems == []
    copy = (*cohort.scans, replace(scans[0], image=cohort.scans[2].image))
    assert [problem.code for problem in describe_cohort(Cohort(tmp_path, copy)).problems] == ["W-COH-053", "E-COH-024"]


def test_labels_of_which_none_is_left(three: Callable[..., Cohort]) -> None:
    found = describe_cohort(three(labels0=(boxes(), SPACING)))
    assert of(found, 0)[0] == "W-COH-013: c0_labels.nii.gz: no voxel has a label"
    assert of(found, 0)[1].startswith("W-COH-012: c0_labels.nii.gz: lacks label 1 (2 of 3 have it), 2 (2 of 3")


def test_labels_that_are_no_integers(three: Callable[..., Cohort]) -> None:
    found = describe_cohort(three(labels0=(boxes(1, 2, dtype=np.float32) * 1.25, SPACING)))
    assert of(found, 0)[0].startswith("E-LAB-002: c0_labels.nii.gz: values up to 0.5 away")
    assert found.scans[0].refused
    assert len(found.labelled) == 2


def shifted(millimetres: float) -> np.ndarray:
    affine = SPACING.copy()
    affine[0, 3] = millimetres
    return affine


def test_labels_beside_their_image(three: Callable[..., Cohort]) -> None:
    changes = {"labels0": (boxes(1, 2), shifted(0.25)), "labels1": (boxes(1, 2), shifted(12))}
    found = describe_cohort(three(**changes, labels2=(boxes(1, 2)[:3], SPACING)))
    assert of(found, 0) == ["W-GEO-015: c0_labels.nii.gz: 0.25 mm away from its image"]
    assert of(found, 1)[0].startswith("E-GEO-015: c1_labels.nii.gz: 12 mm away from its image, expected the same")
    assert of(found, 2)[0].startswith("E-GEO-015: c2_labels.nii.gz: size (3, 7, 8), expected (6, 7, 8)")
    # resized to 6 voxels, the 3 end at -0.5 and 2.5: the outer voxel centres then lie at 2.25 instead of 5
    assert of(found, 2)[0].endswith("(the fields of view end 2.75 mm apart)")


def test_nan_is_counted(three: Callable[..., Cohort]) -> None:
    values = noise(0)
    values[0, 0, :3] = np.nan
    path = three().scans[0].image
    nib.save(nib.Nifti1Image(values, SPACING), path)
    cohort = Cohort(path.parent, (Scan("c0", "t1", path),))
    assert of(describe_cohort(cohort), 0) == ["W-VAL-001: c0.nii.gz: 3 of 336 values are NaN or Inf; masked out"]


def test_a_ct_that_is_not_in_hu(three: Callable[..., Cohort]) -> None:
    found = describe_cohort(three("ct", image0=noise(0, 100, 2500), image1=noise(1, -0.9, 0.9)))
    assert of(found, 0)[0].startswith("W-COH-018: c0.nii.gz: values 10")
    assert of(found, 0)[0].endswith("are hardly HU, where air is -1000 and soft tissue 0 to 100")
    assert of(found, 1)[-1].startswith("W-COH-017")
    assert of(found, 1)[0].startswith("W-COH-018: c1.nii.gz: values -0.")
    assert of(describe_cohort(three("t2", image0=noise(0, 100, 2500))), 0) == []


def test_a_modality_of_one_scan(three: Callable[..., Cohort]) -> None:
    cohort = three()
    scans = (*cohort.scans[:2], Scan("c2", "t2", cohort.scans[2].image, split="test"))
    found = describe_cohort(Cohort(cohort.root, scans))
    assert [problem.message for problem in found.problems] == ["W-COH-020: one scan only of modality t2"]


def test_two_and_three_dimensions_do_not_mix(three: Callable[..., Cohort], tmp_path: Path) -> None:
    cohort = three()
    write(Image.from_array(noise(7)[..., 0], np.eye(3)), tmp_path / "flat.nii")
    scans = (*cohort.scans, Scan("d", "t1", tmp_path / "flat.nii"))
    found = describe_cohort(Cohort(tmp_path, scans))
    assert [problem.code for problem in found.problems] == ["E-COH-025"]
    assert "1 images in 2-D and 3 in 3-D" in found.problems[0].message
    assert found.refused


def test_landmarks_outside_and_of_an_unknown_space(three: Callable[..., Cohort], tmp_path: Path) -> None:
    write_landmarks(Landmarks(np.array([[1.0, 2, 3], [1, 2, 300]]), ("in", "out")), tmp_path / "points.csv")
    (tmp_path / "bare.csv").write_text("x,y,z\n1,2,3\n")
    cohort = three()
    scans = [Scan("a", "t1", cohort.scans[0].image, landmarks=tmp_path / name) for name in ("points.csv", "bare.csv")]
    first, second = (describe_cohort(Cohort(tmp_path, (scan,))) for scan in scans)
    assert of(first, 0) == ["W-LMK-020: points.csv: 1 of 2 lie outside the image: out"]
    assert first.scans[0].landmarks is not None
    assert of(second, 0)[0].startswith("E-LMK-019: bare.csv: no coordinate system")


def test_the_map_of_a_pair_is_read_too(three: Callable[..., Cohort], tmp_path: Path) -> None:
    cohort = three()
    (tmp_path / "broken.tfm").write_text("nothing")
    write_transform(Affine(np.eye(4)), tmp_path / "map.tfm")
    a, b = Scan("a", "t1", cohort.scans[0].image), Scan("b", "t1", cohort.scans[1].image)
    pairs = (Pair(a, b, tmp_path / "map.tfm"), Pair(b, a, tmp_path / "broken.tfm"))
    found = describe_cohort(Cohort(tmp_path, (a, b), pairs))
    assert [problem.code for problem in found.problems] == ["W-COH-021", "E-TRF-007"]


def test_three_times_the_same_image() -> None:
    scans = [Scan(case, "t1", Path(case), split=split) for case, split in zip("abcd", ["train"] * 4, strict=True)]
    problems = same_images([(scan, "x") for scan in scans])
    assert [problem.message for problem in problems] == ["W-COH-023: a_t1 and b_t1 hold the same image, as do 2 more"]
    assert same_images([(scan, scan.case) for scan in scans]) == []


def test_every_file_is_read_once(three: Callable[..., Cohort], monkeypatch: pytest.MonkeyPatch) -> None:
    """Also the labels that several modalities of a case share."""
    cohort = three()
    shared = cohort.scans[0].labels
    scans = [Scan("c", kind, scan.image, shared) for kind, scan in zip(("a", "b", "c"), cohort.scans, strict=True)]
    read: list[str] = []
    original = diagnosis.read_volume

    def counting(path: Path, *rest: Any) -> Any:
        read.append(path.name)
        return original(path, *rest)

    monkeypatch.setattr(diagnosis, "read_volume", counting)
    describe_cohort(Cohort(cohort.root, tuple(scans)))
    assert sorted(read) == ["c0.nii.gz", "c0_labels.nii.gz", "c1.nii.gz", "c2.nii.gz"]


def test_progress_runs_from_nothing_to_all(three: Callable[..., Cohort]) -> None:
    told: list[tuple[str, float]] = []
    describe_cohort(three(), progress=lambda stage, done: told.append((stage, done)))
    assert told == [("reading", 0.0), ("reading", 1 / 3), ("reading", 2 / 3), ("reading", 1.0)]


def test_a_clean_copy_mends_what_is_harmless_and_refers_to_the_rest(
    three: Callable[..., Cohort], tmp_path: Path
) -> None:
    cohort = three(labels1=(boxes(1, 2, dtype=np.float32) + np.float32(1e-5), SPACING))
    renamed = tmp_path / "c0.nii"
    cohort.scans[0].image.rename(renamed)
    scans = (Scan("c0", "t1", renamed, cohort.scans[0].labels), *cohort.scans[1:])
    cohort = Cohort(tmp_path, scans, label_names={1: "liver"})
    before = {file: file.read_bytes() for file in tmp_path.iterdir()}
    found = describe_cohort(cohort)
    assert [of(found, number)[0][:9] for number in (0, 1)] == ["W-NII-005", "W-LAB-002"]
    clean = tmp_path / "clean"
    clean.mkdir()
    copies = fix_cohort(found, clean)
    assert [(copy.name, [problem.code for problem in copy.mended]) for copy in copies] == [
        ("images/c0_t1.nii.gz", ["W-NII-005"]),
        ("labels/c1_t1.nii.gz", ["W-LAB-002"]),
    ]
    again = read_cohort(clean)
    assert again.scans[0].image == clean / "images/c0_t1.nii.gz"
    assert again.scans[0].labels == tmp_path / "c0_labels.nii.gz"
    assert again.scans[1].labels == clean / "labels/c1_t1.nii.gz"
    assert again.scans[2] == cohort.scans[2]
    assert again.label_names == {1: "liver"}
    assert [of(describe_cohort(again), number) for number in range(3)] == [[], [], []]
    assert describe(clean / "labels/c1_t1.nii.gz", content="labels").value_range == (0, 2)
    assert {file: file.read_bytes() for file in before} == before


def test_a_clean_copy_keeps_the_pairs(three: Callable[..., Cohort], tmp_path: Path) -> None:
    cohort = three()
    scans = (cohort.scans[0], Scan("c3", "t1", cohort.scans[1].image))
    found = describe_cohort(Cohort(tmp_path, scans, (Pair(*scans),)))
    clean = tmp_path / "clean"
    clean.mkdir()
    assert fix_cohort(found, clean) == []
    assert [pair.name for pair in read_cohort(clean).listed] == ["c0_t1-c3_t1"]


def test_what_cannot_be_mended_stays_where_it_is(tmp_path: Path) -> None:
    """A slice under another format's name: read with a warning that a 3-D copy would mend."""
    write(Image.from_array(noise(0)[..., 0], np.eye(3)), tmp_path / "slice.nii")
    (tmp_path / "slice.nii").rename(tmp_path / "slice.nrrd")
    found = describe_cohort(Cohort(tmp_path, (Scan("a", "t1", tmp_path / "slice.nrrd"),)))
    assert of(found, 0)[0].startswith("W-FMT-013")
    clean = tmp_path / "clean"
    clean.mkdir()
    copies = fix_cohort(found, clean)
    assert [copy.refusal and copy.refusal.code for copy in copies] == ["E-OUT-006"]
    assert read_cohort(clean).scans[0].image == tmp_path / "slice.nrrd"
    assert (clean / NAME).read_text().splitlines()[1] == "a,t1,../slice.nrrd,,,,train"
