"""The heart: chambers where they belong, in contrasts that do not tell them apart."""

from __future__ import annotations

import numpy as np
import pytest

from anamorph.data.phantoms import PhantomScan, phantom
from anamorph.data.phantoms.heart_anatomy import LABEL_NAMES
from anamorph.evaluation.overlap import dice
from anamorph.spatial.transform import Chain

LABEL_OF = {name: label for label, name in LABEL_NAMES.items()}
COARSE = {"spacing": 4.0, "subject_smoothness_mm": 40.0, "smoothness_mm": 40.0}


@pytest.fixture(scope="module")
def scans() -> dict[str, PhantomScan]:
    made = {}
    for scanner in ("routine", "hard"):
        ct, mr = phantom("heart", 3, {**COARSE, "scanner": scanner}).case(0).scans
        made |= {f"ct {scanner}": ct, f"mr {scanner}": mr}
    return made


@pytest.fixture(scope="module")
def mean_heart() -> PhantomScan:
    return phantom("heart", 0, COARSE).template()


def arrays(scan: PhantomScan) -> tuple[np.ndarray, np.ndarray]:
    assert scan.labels is not None
    return scan.image.data[0].numpy(), scan.labels.data.numpy()


@pytest.mark.parametrize("name", LABEL_NAMES.values())
@pytest.mark.parametrize("which", ["ct routine", "mr routine", "ct hard", "mr hard"])
def test_no_interval_of_intensities_segments_a_chamber(which: str, name: str, scans: dict) -> None:
    image, labels = arrays(scans[which])
    chamber = labels == LABEL_OF[name]
    bounds = np.quantile(image[chamber], np.linspace(0, 1, 15))
    best = max(dice((image >= low) & (image <= high), chamber) for low in bounds for high in bounds if high > low)
    assert best < 0.7


def test_before_noise_all_blood_of_a_side_is_alike(mean_heart: PhantomScan) -> None:
    image, labels = arrays(mean_heart)
    median = {name: float(np.median(image[labels == label])) for name, label in LABEL_OF.items()}
    assert median["left ventricle"] == median["left atrium"]
    assert median["right ventricle"] == median["right atrium"]
    assert median["left ventricle"] > median["right ventricle"] > median["left ventricular myocardium"] + 100


def test_volumes_are_those_of_an_adult(mean_heart: PhantomScan) -> None:
    _, labels = arrays(mean_heart)
    millilitres = {name: (labels == label).sum() * 0.064 for name, label in LABEL_OF.items()}
    for name, low, high in (
        ("left ventricular myocardium", 80, 140),
        ("left ventricle", 70, 160),
        ("right ventricle", 80, 180),
        ("right atrium", 50, 120),
        ("left atrium", 50, 120),
    ):
        assert low < millilitres[name] < high


def test_each_chamber_is_where_it_belongs(mean_heart: PhantomScan) -> None:
    _, labels = arrays(mean_heart)
    centre = {
        name: mean_heart.image.grid.to_world(np.argwhere(labels == label).mean(axis=0))
        for name, label in LABEL_OF.items()
    }
    assert centre["right atrium"][0] > centre["left ventricle"][0] + 30  # to the patient's right
    assert centre["right ventricle"][1] > centre["left atrium"][1] + 30  # in front
    assert centre["left atrium"][2] > centre["left ventricle"][2] + 10  # above
    muscle = labels == LABEL_OF["left ventricular myocardium"]
    cavity = labels == LABEL_OF["left ventricle"]
    grown = np.zeros_like(cavity)
    for axis in range(3):
        for step in (-1, 1):
            grown |= np.roll(cavity, step, axis)
    edge = grown & ~cavity
    assert (muscle & edge).sum() > 0.7 * edge.sum()  # the muscle wraps the cavity


def test_subjects_differ_in_the_size_of_their_chambers() -> None:
    hearts = phantom("heart", 0, {"subject_smoothness_mm": 40.0, "spacing": 6.0, "scans": "ct"})
    volumes = []
    for index in range(4):
        _, labels = arrays(hearts.case(index).scans[0])
        volumes.append([(labels == label).sum() for label in LABEL_NAMES])
    spread = np.std(volumes, axis=0) / np.mean(volumes, axis=0)
    assert (spread > 0.04).all()
    assert (spread < 0.5).all()


def test_a_hard_scanner_has_thick_slices_and_more_noise(scans: dict) -> None:
    routine, hard = scans["ct routine"].image, scans["ct hard"].image
    np.testing.assert_allclose(routine.grid.spacing, 4.0)
    np.testing.assert_allclose(hard.grid.spacing, (4.0, 4.0, 12.0))
    noise = []
    for which in ("ct routine", "ct hard"):
        image, labels = arrays(scans[which])
        within = (labels == LABEL_OF["left atrium"])[1:] & (labels == LABEL_OF["left atrium"])[:-1]
        noise.append(np.median(np.abs(np.diff(image, axis=0)[within])))
    assert noise[1] > 1.3 * noise[0]


@pytest.mark.parametrize(("scans_wanted", "expected"), [("ct", ["ct", "ct"]), ("unpaired", ["ct", "mr"])])
def test_unpaired_and_single_modalities(scans_wanted: str, expected: list[str]) -> None:
    hearts = phantom("heart", 0, {"spacing": 10.0, "subject_smoothness_mm": 50.0, "scans": scans_wanted})
    cases = [hearts.case(index) for index in range(2)]
    assert [scan.image.modality for case in cases for scan in case.scans] == expected
    assert not any(case.truth for case in cases)


def test_nothing_asked_is_the_mean_heart() -> None:
    still = {"subject_mm": 0.0, "subject_degrees": 0.0, "subject_stretch": 0.0, "subject_shift_mm": 0.0}
    hearts = phantom("heart", 5, {"spacing": 8.0, "scans": "ct", **still})
    template, scan = hearts.template(), hearts.case(0).scans[0]
    assert isinstance(scan.to_template, Chain)
    np.testing.assert_array_equal(arrays(template)[1], arrays(scan)[1])
