"""What every kind of phantom promises: repeatable cases, and labels, landmarks and maps that are true."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from anamorph.data.cohort_files import read_cohort
from anamorph.data.files import read, read_labels
from anamorph.data.image import Image, Labelmap, Landmarks
from anamorph.data.phantoms import PhantomCase, PhantomScan, phantom, synthesise
from anamorph.data.phantoms.kinds import KINDS
from anamorph.data.phantoms.options import OPTIONS, options_for
from anamorph.data.transform_files import read_transform
from anamorph.errors import ConfigurationError
from anamorph.evaluation.folding import folding
from anamorph.evaluation.overlap import dice
from anamorph.spatial.transform import resample

SMOOTH = {"subject_smoothness_mm": 45.0}  # on coarse lattices, which saves time
COARSE = {
    "letter_b": {},
    "abdomen": {"ct_spacing": (18.0, 18.0, 18.0), "mr_spacing": (18.0, 18.0, 18.0)},
    "heart": {"spacing": 7.0, "mean_mm": 6.0, **SMOOTH, "smoothness_mm": 45.0},
    "brain": {"spacing": 8.0, "mean_mm": 7.0, **SMOOTH, "smoothness_mm": 45.0},
    "shapes": {
        "shape": (20, 18, 16),
        "spacing": 4.0,
        "labels": 4,
        "size_mm": 45.0,
        "mean_mm": 9.0,
        "smoothness_mm": 40.0,
    },
}
PAIRED = ["abdomen", "heart", "brain", "shapes"]
OF_COHORTS = ["remapped", "deformed"]
TEMPLATED = ["letter_b", "heart", "brain"]
DRAWN = [kind for kind in KINDS if kind != "sliced"]
"""Slices are cut, not drawn: tests/data/test_phantoms_sliced_by_hand.py."""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cohort of three letters, for what remaps the images of one."""
    folder = tmp_path_factory.mktemp("letters")
    synthesise("letter_b", 3, 4, folder, {"noise": 8.0}, test=1)
    synthesise("remapped", None, 4, folder / "aligned", {"cohort": folder})
    return folder


@pytest.fixture(scope="module")
def made(source: Path) -> dict[str, PhantomCase]:
    return {kind: phantom(kind, 7, options_of(kind, source)).case(0) for kind in DRAWN}


def options_of(kind: str, source: Path) -> dict:
    if kind == "deformed":
        return {"cohort": source / "aligned", "modality": "grey"}
    return COARSE.get(kind, {"cohort": source, "mean_mm": 3.0})


def landmarks_of(scan: PhantomScan) -> Landmarks:
    assert scan.landmarks is not None
    return scan.landmarks


def labels_of(scan: PhantomScan) -> Labelmap:
    assert scan.labels is not None
    return scan.labels


def equal(one: PhantomScan, other: PhantomScan) -> bool:
    return torch.equal(one.image.data, other.image.data) and torch.equal(labels_of(one).data, labels_of(other).data)


def agreement(fixed: Labelmap, moving: Labelmap, transform) -> list[float]:
    """Dice of each label of fixed with moving's under a map."""
    moved = resample(moving.data[None], moving.grid, fixed.grid, transform, "nearest")[0].numpy()
    there = fixed.data.numpy()
    return [dice(moved == label, there == label) for label in fixed.values()[1:] if (there == label).sum() > 12]


def test_kinds_and_options_are_of_the_same_names() -> None:
    assert list(KINDS) == list(OPTIONS)


@pytest.mark.parametrize("kind", [kind for kind in DRAWN if kind != "abdomen"])  # whose own tests show it
def test_the_seed_and_the_number_decide(kind: str, made: dict[str, PhantomCase], source: Path) -> None:
    population = phantom(kind, 7, options_of(kind, source))
    again = population.case(0)
    assert len(again.scans) == len(made[kind].scans)
    for one, other in zip(again.scans, made[kind].scans, strict=True):
        assert equal(one, other)
        np.testing.assert_array_equal(landmarks_of(one).points, landmarks_of(other).points)
    assert not equal(population.case(1).scans[-1], again.scans[-1])
    made_up = 0 if kind == "deformed" else -1
    other = phantom(kind, 8, options_of(kind, source)).case(0).scans[made_up]
    assert not torch.equal(other.image.data, again.scans[made_up].image.data)


@pytest.mark.parametrize("kind", DRAWN)
def test_scans_have_labels_and_at_least_six_named_landmarks(kind: str, made: dict[str, PhantomCase]) -> None:
    population, first = made[kind], made[kind].scans[0]
    assert len({scan.image.modality for scan in population.scans}) == len(population.scans)
    for scan in population.scans:
        assert labels_of(scan).grid.same_as(scan.image.grid)
        assert labels_of(scan).values()[0] == 0
        assert len(labels_of(scan).values()) > 1
        assert len(set(landmarks_of(scan).names)) == len(landmarks_of(scan)) >= 6
        assert landmarks_of(scan).names == landmarks_of(first).names


@pytest.mark.parametrize("kind", [*PAIRED, *OF_COHORTS])
def test_the_truth_of_a_pair_carries_landmarks_and_labels(kind: str, made: dict[str, PhantomCase]) -> None:
    fixed, moving = made[kind].scans[:2]
    (truth,) = made[kind].truth
    np.testing.assert_allclose(
        truth(landmarks_of(fixed).points), landmarks_of(moving).points, atol=0.05 if kind in OF_COHORTS else 1e-6
    )
    true, lazy = (agreement(labels_of(fixed), labels_of(moving), transform) for transform in (truth, None))
    assert np.mean(true) > np.mean(lazy) + 0.04
    found = folding(truth.displacement_on(fixed.image.grid), fixed.image.grid.affine)
    assert found.smallest > 0.1


@pytest.mark.parametrize("kind", TEMPLATED)
def test_every_scan_is_the_template_under_its_map(kind: str, made: dict[str, PhantomCase]) -> None:
    template = phantom(kind, 7, COARSE[kind]).template()
    assert template is not None
    for scan in made[kind].scans:
        assert scan.to_template is not None
        there = scan.to_template(landmarks_of(scan).points)
        assert np.linalg.norm(there - landmarks_of(template).points, axis=1).max() < 0.3
        true, lazy = (agreement(labels_of(scan), labels_of(template), way) for way in (scan.to_template, None))
        assert np.mean(true) > np.mean(lazy) + 0.08
        found = folding(scan.to_template.displacement_on(scan.image.grid), scan.image.grid.affine)
        assert found.smallest > 0.05


@pytest.mark.parametrize("kind", DRAWN)
def test_files_are_read_back_as_they_were_made(
    kind: str, made: dict[str, PhantomCase], source: Path, tmp_path: Path
) -> None:
    number = None if kind in OF_COHORTS else 1
    told: list[tuple[str, float]] = []
    synthesise(kind, number, 7, tmp_path, options_of(kind, source), progress=lambda *stage: told.append(stage))
    assert told[-1] == ("cases", 1.0)
    cohort = read_cohort(tmp_path)
    names = cohort.cases
    assert names == (("case0001",) if number else ("case0001", "case0002", "case0003"))
    scans = {scan.modality: scan for scan in cohort.scans if scan.case == names[0]}
    for expected in made[kind].scans:
        scan = scans[expected.image.modality or ""]
        image = read(scan.image)
        assert image.grid.same_as(expected.image.grid)
        torch.testing.assert_close(image.data, expected.image.data, rtol=0, atol=0)
        assert scan.labels is not None
        assert torch.equal(read_labels(scan.labels).data.long(), labels_of(expected).data.long())
    directions = 2 if kind == "deformed" else 1
    assert len(cohort.listed) == (directions * len(cohort.cases) if kind in (*PAIRED, *OF_COHORTS) else 0)
    for pair in cohort.listed[:1]:
        assert pair.displacement is not None
        fixed = made[kind].scans[0]
        found, true = read_transform(pair.displacement), made[kind].truth[0]
        grid = fixed.image.grid
        np.testing.assert_allclose(found.displacement_on(grid), true.displacement_on(grid), atol=2e-3)
    about = json.loads((tmp_path / "phantom.json").read_text())
    assert (about["kind"], about["seed"], about["cases"]) == (kind, 7, len(names))
    assert str(source) not in (tmp_path / "phantom.json").read_text()
    assert (tmp_path / "template").is_dir() == (kind in TEMPLATED)


def test_the_same_seed_writes_the_same_bytes_and_more_cases_change_none(tmp_path: Path) -> None:
    for folder, cases in (("two", 2), ("again", 2), ("three", 3)):
        synthesise("letter_b", cases, 1, tmp_path / folder)
    first = {path.relative_to(tmp_path / "two"): path.read_bytes() for path in (tmp_path / "two").rglob("*.*")}
    assert {
        path.relative_to(tmp_path / "again"): path.read_bytes() for path in (tmp_path / "again").rglob("*.*")
    } == first
    changed = {name.name for name, content in first.items() if (tmp_path / "three" / name).read_bytes() != content}
    assert changed == {"cohort.csv", "phantom.json"}


def test_splits_are_the_last_cases(tmp_path: Path) -> None:
    cohort = synthesise("letter_b", 6, 0, tmp_path, validation=1, test=2)
    assert [scan.split for scan in cohort.scans] == ["train"] * 3 + ["validation"] + ["test"] * 2


def test_without_truth_there_are_pairs_but_no_maps(tmp_path: Path) -> None:
    cohort = synthesise("shapes", 1, 0, tmp_path, {"shape": (16, 16), "truth": False})
    assert [pair.displacement for pair in cohort.listed] == [None]
    assert not (tmp_path / "maps").exists()


@pytest.mark.parametrize(
    ("kind", "given", "code", "says"),
    [
        ("hart", {}, "E-SYN-001", "heart"),
        ("heart", {"protocol": "plain-t1"}, "E-SYN-002", "option of abdomen, not of heart"),
        ("heart", {"sapcing": 2.0}, "E-SYN-002", "of no kind"),
        ("heart", {"spacing": -1.0}, "E-SYN-002", "spacing"),
        ("heart", {"scans": "ct", "mean_mm": 2.0}, "E-SYN-002", "mean_mm would change nothing"),
        ("remapped", {}, "E-SYN-002", "cohort"),
        ("deformed", {"dice": 0.8}, "E-SYN-002", "cohort"),
        ("brain", {"modalities": ("t1", "t1")}, "E-SYN-002", "twice"),
        ("brain", {"modalities": ("t1",), "degrees": 3.0}, "E-SYN-002", "degrees would change nothing"),
        ("brain", {"tissues": "table.csv"}, "E-SYN-002", "there is none"),
        ("brain", {"labelmap": ("a.nii",), "skull": True}, "E-SYN-002", "skull would change nothing"),
        ("shapes", {"labelmap": ("a.nii",), "size_mm": 9.0}, "E-SYN-002", "size_mm would change nothing"),
        ("shapes", {"subject_mm": 9.0}, "E-SYN-002", "subject_mm would change nothing"),
    ],
)
def test_what_does_not_fit_is_refused_not_ignored(kind: str, given: dict, code: str, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says) as refused:
        options_for(kind, given)
    assert refused.value.code == code


@pytest.mark.parametrize(("cases", "test"), [(None, 0), (2, 3)])
def test_numbers_of_cases_that_do_not_fit(cases: int | None, test: int, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as refused:
        synthesise("letter_b", cases, 0, tmp_path / "out", test=test)
    assert refused.value.code == "E-SYN-003"
    assert not (tmp_path / "out").exists()


def test_the_names_of_labels_are_those_that_occur(made: dict[str, PhantomCase], source: Path) -> None:
    for kind in COARSE:
        named = phantom(kind, 7, options_of(kind, source)).label_names
        for scan in made[kind].scans:
            assert set(labels_of(scan).values()[1:]) <= set(named)


def test_images_are_finite_and_of_one_channel(made: dict[str, PhantomCase]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for case in made.values():
            for scan in case.scans:
                Image(scan.image.data, scan.image.grid)
                assert len(scan.image.data) == 1
