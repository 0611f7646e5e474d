"""What the abdominal pair promises: truth, labels, landmarks, contrast."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
import torch

from anamorph.data.phantoms import abdomen, phantom
from anamorph.data.phantoms.abdominal_patient import LABEL_OF
from anamorph.evaluation.folding import folding
from anamorph.evaluation.overlap import dice
from anamorph.spatial.transform import resample

COARSE = {"fixed_spacing": (7.0, 7.0, 8.0), "moving_spacing": (7.5, 7.5, 9.0)}
HUGE = {"fixed_spacing": (20.0, 20.0, 20.0), "moving_spacing": (22.0, 22.0, 22.0)}


@pytest.fixture(scope="module")
def pair():
    return abdomen(1, **COARSE)


def values_at(labels, points):
    voxels = np.rint(labels.grid.to_voxel(points)).astype(int)
    return labels.data.numpy()[tuple(voxels.T)]


@pytest.fixture(scope="module")
def tiny():
    """The same patient in huge voxels."""
    return abdomen(1, **HUGE)


def test_the_seed_decides_everything(tiny):
    again, other = abdomen(1, **HUGE), abdomen(2, **HUGE)
    for name in ("fixed", "moving", "fixed_labels", "moving_labels"):
        assert torch.equal(getattr(again, name).data, getattr(tiny, name).data)
        assert not torch.equal(getattr(other, name).data, getattr(tiny, name).data)
    np.testing.assert_array_equal(again.moving_landmarks.points, tiny.moving_landmarks.points)
    assert np.abs(other.fixed_landmarks.points - tiny.fixed_landmarks.points).max() > 3


def test_spacing_changes_the_voxels_and_nothing_else(tiny, pair):
    np.testing.assert_array_equal(tiny.fixed_landmarks.points, pair.fixed_landmarks.points)
    np.testing.assert_array_equal(tiny.moving_landmarks.points, pair.moving_landmarks.points)


def test_grids_differ_in_spacing_orientation_and_obliqueness(pair):
    assert nib.aff2axcodes(pair.fixed.grid.affine) == ("L", "P", "S")
    assert nib.aff2axcodes(pair.moving.grid.affine) == ("R", "A", "S")
    np.testing.assert_allclose(pair.fixed.grid.spacing, COARSE["fixed_spacing"])
    np.testing.assert_allclose(pair.moving.grid.spacing, COARSE["moving_spacing"])
    assert (nib.affines.obliquity(pair.moving.grid.affine) > np.radians(3)).all()
    assert pair.fixed_labels.grid.same_as(pair.fixed.grid)
    assert pair.moving_labels.grid.same_as(pair.moving.grid)
    assert (pair.fixed.modality, pair.moving.modality) == ("ct", "t2")


def test_every_structure_is_in_both_images(pair):
    assert set(pair.label_names) == set(LABEL_OF.values())
    for labels in (pair.fixed_labels, pair.moving_labels):
        assert labels.values() == [0, *sorted(pair.label_names)]


def test_the_truth_is_a_diffeomorphism_worth_finding(pair):
    displacement = pair.truth.displacement_on(pair.fixed.grid)
    found = folding(displacement, pair.fixed.grid.affine)
    assert found.smallest > 0.3
    assert found.sd_log_jacobian > 0.05
    assert 5 < np.linalg.norm(displacement, axis=0).mean() < 30
    points = pair.fixed.grid.to_world(pair.fixed.grid.voxels())[::5]
    assert np.linalg.norm(pair.truth.inverse()(pair.truth(points)) - points, axis=1).max() < 0.1


def test_the_truth_carries_labels_onto_labels_and_its_absence_does_not(pair):
    def warped(transform):
        data = pair.moving_labels.data[None].float()
        return resample(data, pair.moving.grid, pair.fixed.grid, transform, "nearest")[0].numpy()

    fixed, true, lazy = pair.fixed_labels.data.numpy(), warped(pair.truth), warped(None)
    for organ, reached in (("liver", 0.9), ("spleen", 0.75), ("left kidney", 0.75), ("lungs", 0.85)):
        label = LABEL_OF[organ]
        assert dice(true == label, fixed == label) > reached
        assert dice(true == label, fixed == label) > dice(lazy == label, fixed == label) + 0.05


def test_landmarks_are_pairs_under_the_truth(pair):
    assert pair.fixed_landmarks.names == pair.moving_landmarks.names
    assert len(set(pair.fixed_landmarks.names)) >= 10
    np.testing.assert_array_equal(pair.truth(pair.fixed_landmarks.points), pair.moving_landmarks.points)
    assert pair.fixed.grid.contains(pair.fixed_landmarks.points).all()
    assert pair.moving.grid.contains(pair.moving_landmarks.points).all()


@pytest.mark.parametrize(
    ("landmark", "organ"),
    [
        ("centre of the tumour", "liver tumour"),
        ("fundus of the gallbladder", "gallbladder"),
        ("centre of L1", "vertebrae"),
        ("centre of L3", "vertebrae"),
        ("aortic bifurcation", "aorta"),
        ("pylorus", "stomach"),
    ],
)
def test_landmarks_lie_in_their_structures(landmark, organ, pair):
    row = pair.fixed_landmarks.names.index(landmark)
    for labels, landmarks in ((pair.fixed_labels, pair.fixed_landmarks), (pair.moving_labels, pair.moving_landmarks)):
        near = landmarks.points[row] + np.stack(np.meshgrid(*[(-5, 0, 5)] * 3, indexing="ij"), -1).reshape(-1, 3)
        assert LABEL_OF[organ] in values_at(labels, near)


def test_patient_right_is_right(pair):
    centre = {
        organ: pair.fixed.grid.to_world(np.argwhere(pair.fixed_labels.data.numpy() == LABEL_OF[organ]).mean(0))
        for organ in ("liver", "spleen", "right kidney", "left kidney", "vertebrae", "stomach", "lungs", "colon")
    }
    assert centre["liver"][0] > 20 > -20 > centre["spleen"][0]
    assert centre["right kidney"][0] > 30 > -30 > centre["left kidney"][0]
    assert centre["right kidney"][2] < centre["left kidney"][2]  # the liver pushes it down
    assert centre["vertebrae"][1] < centre["stomach"][1] - 40
    assert centre["lungs"][2] > centre["liver"][2] > centre["colon"][2]


def test_hounsfield_units_and_magnitudes(pair):
    ct, labels = pair.fixed.data[0].numpy(), pair.fixed_labels.data.numpy()
    for organ, low, high in (("liver", 85, 125), ("spleen", 90, 140), ("vertebrae", 120, 330), ("lungs", -880, -600)):
        assert low < np.median(ct[labels == LABEL_OF[organ]]) < high
    np.testing.assert_array_equal(ct, np.rint(ct))
    assert -1100 < ct.min() < -950
    assert pair.moving.data.min() >= 0


def test_contrast_is_not_monotonic(pair):
    def medians(image, labels):
        values, where = image.data[0].numpy(), labels.data.numpy()
        organs = ("gallbladder", "liver", "spleen", "aorta", "vertebrae")
        return [np.median(values[where == LABEL_OF[organ]]) for organ in organs]

    ct, mr = medians(pair.fixed, pair.fixed_labels), medians(pair.moving, pair.moving_labels)
    rank = np.argsort(np.argsort(np.array(mr)[np.argsort(ct)]))
    steps = np.sign(np.diff(rank))
    assert len(set(steps)) == 2  # MR rises here and falls there as CT rises


@pytest.mark.parametrize("organ", ["liver", "spleen", "left kidney", "stomach", "pancreas"])
@pytest.mark.parametrize("which", ["fixed", "moving"])
def test_no_interval_of_intensities_segments_an_organ(which, organ, pair):
    image = getattr(pair, which).data[0].numpy()
    organ_voxels = getattr(pair, f"{which}_labels").data.numpy() == LABEL_OF[organ]
    bounds = np.quantile(image[organ_voxels], np.linspace(0, 1, 15))
    best = max(dice((image >= low) & (image <= high), organ_voxels) for low in bounds for high in bounds if high > low)
    assert best < 0.75


@pytest.fixture(scope="module")
def plain():
    """The same patient as ``pair``, without contrast agent and T1-weighted."""
    return abdomen(1, **COARSE, protocol="plain-t1")


def test_another_protocol_changes_the_contrast_and_nothing_else(pair, plain):
    for name in ("fixed_labels", "moving_labels"):
        assert torch.equal(getattr(plain, name).data, getattr(pair, name).data)
    assert (plain.fixed.modality, plain.moving.modality) == ("ct", "t1")
    extra = ("bottom of the hepatic fissure", "upper end of the hepatic fissure")
    assert tuple(name for name in plain.fixed_landmarks.names if name not in extra) == pair.fixed_landmarks.names
    assert set(plain.fixed_landmarks.names) - set(pair.fixed_landmarks.names) == set(extra)
    row = plain.fixed_landmarks.names.index(extra[0])
    near = plain.fixed_landmarks.points[row] + np.stack(np.meshgrid(*[(-8, 0, 8)] * 3, indexing="ij"), -1).reshape(
        -1, 3
    )
    assert LABEL_OF["liver"] in values_at(plain.fixed_labels, near)


def test_without_contrast_agent_vessels_hardly_show_and_t1_turns_t2_round(pair, plain):
    def medians(image, labels, *organs):
        values, where = image.data[0].numpy(), labels.data.numpy()
        return [float(np.median(values[where == LABEL_OF[organ]])) for organ in organs]

    liver, aorta, tumour = medians(plain.fixed, plain.fixed_labels, "liver", "aorta", "liver tumour")
    assert aorta < liver < 80
    assert tumour < liver
    organs = ("liver", "spleen", "gallbladder")
    t1, t2 = (medians(one.moving, one.moving_labels, *organs) for one in (plain, pair))
    assert t1[0] > t1[1] > t1[2]
    assert t2[0] < t2[1] < t2[2]


@pytest.mark.parametrize("organ", ["liver", "liver tumour"])
@pytest.mark.parametrize("which", ["fixed", "moving"])
def test_no_interval_segments_liver_or_tumour_without_contrast_agent(which, organ, plain):
    image = getattr(plain, which).data[0].numpy()
    organ_voxels = getattr(plain, f"{which}_labels").data.numpy() == LABEL_OF[organ]
    bounds = np.quantile(image[organ_voxels], np.linspace(0, 1, 15))
    best = max(dice((image >= low) & (image <= high), organ_voxels) for low in bounds for high in bounds if high > low)
    assert best < 0.75


def test_the_liver_alone_can_be_asked_for():
    options = {"ct_spacing": (20.0, 20.0, 20.0), "mr_spacing": (22.0, 22.0, 22.0), "structures": "liver"}
    population = phantom("abdomen", 0, options)
    assert population.label_names == {1: "liver", 2: "liver tumour"}
    for scan in population.case(1).scans:
        assert set(scan.labels.values()) == {0, 1, 2}
