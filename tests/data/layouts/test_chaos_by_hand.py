"""CHAOS' folders after the conversion from DICOM, and its slices of labels on the grid of the image they belong to."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from jaxtyping import Integer
from PIL import Image as Picture

from anamorph.data.cohort import Cohort
from anamorph.data.files import read_labels, write
from anamorph.data.layouts import LAYOUTS, gathered
from anamorph.data.layouts.chaos import stacked
from anamorph.errors import AnamorphWarning, InputError

Dataset = Callable[..., Path]
TRAIN, TEST = "CHAOS_Train_Sets/Train_Sets", "CHAOS_Test_Sets/Test_Sets"


def volume(path: Path, values: tuple[int, ...] = (0,), shape: tuple[int, ...] = (3, 2, 2)) -> None:
    data = np.resize(np.array(values, np.uint8), shape)
    nib.Nifti1Image(data, np.eye(4)).to_filename(path)


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    """``dataset(*files)``: a folder with these files, empty ones but for volumes with labels 0 to 4."""

    def make(*files: str) -> Path:
        for name in files:
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if name.endswith(".nii.gz"):
                volume(path, (0, 1, 2, 3, 4))
            else:
                path.touch()
        return tmp_path

    return make


def rows(cohort: Cohort) -> list[tuple[str, str, str, str | None, str]]:
    """Case, modality, names of the files, split."""
    return [(s.case, s.modality, s.image.name, s.labels and s.labels.name, s.split) for s in cohort.scans]


def test_both_sets_after_the_conversion(dataset: Dataset) -> None:
    folder = dataset(
        f"{TRAIN}/CT/5/DICOM_anon/ct.nii.gz", f"{TRAIN}/CT/5/DICOM_anon/i0001,0000b.dcm",
        f"{TRAIN}/CT/5/DICOM_anon/ct.json", f"{TRAIN}/CT/5/Ground/liver_000.png", f"{TRAIN}/CT/5/Ground/labels.nii.gz",
        f"{TRAIN}/MR/5/T1DUAL/DICOM_anon/InPhase/a.nii.gz", f"{TRAIN}/MR/5/T1DUAL/DICOM_anon/OutPhase/b.nii.gz",
        f"{TRAIN}/MR/5/T1DUAL/Ground/l.nii.gz", f"{TRAIN}/MR/5/T2SPIR/DICOM_anon/c.nii.gz",
        f"{TRAIN}/MR/5/T2SPIR/Ground/IMG-0001.png", f"{TEST}/MR/40/T2SPIR/DICOM_anon/d.nii.gz",
        f"{TRAIN}/notes/DICOM_anon/e.nii.gz",
    )  # fmt: skip
    cohort = LAYOUTS["chaos"](folder)
    assert rows(cohort) == [
        ("ct05", "ct", "ct.nii.gz", "labels.nii.gz", "train"),
        ("mr05", "t1_in", "a.nii.gz", "l.nii.gz", "train"),
        ("mr05", "t1_out", "b.nii.gz", "l.nii.gz", "train"),
        ("mr05", "t2", "c.nii.gz", None, "train"),
        ("mr40", "t2", "d.nii.gz", None, "test"),
    ]
    assert cohort.label_names == {1: "liver", 2: "right kidney", 3: "left kidney", 4: "spleen"}
    assert LAYOUTS["chaos"](folder / TEST).scans[0].split == "test"
    assert LAYOUTS["chaos"](folder / TEST).label_names == {}


def test_folders_that_are_still_dicom(dataset: Dataset) -> None:
    folder = dataset("CT/1/DICOM_anon/i0000,0000b.dcm", "CT/2/DICOM_anon/i0000,0000b.dcm")
    with pytest.raises(InputError, match=r"E-FMT-008: .*2 folders of DICOM without a volume: CT/1/DICOM_anon, CT/2"):
        LAYOUTS["chaos"](folder)
    volume(folder / "CT/2/DICOM_anon/ct.nii.gz")
    with pytest.warns(
        AnamorphWarning, match=r"W-COH-038: .*1 folders of DICOM without a volume: CT/1/DICOM_anon; left"
    ):
        assert LAYOUTS["chaos"](folder).cases == ("ct02",)


@pytest.mark.parametrize(
    ("files", "found"),
    [
        ([], "no folder DICOM_anon"),
        (["CT/one/DICOM_anon/a.nii.gz"], "no folder DICOM_anon"),
        (["MR/1/FLAIR/DICOM_anon/a.nii.gz"], "no folder DICOM_anon"),
        (["CT/1/DICOM_anon/a.nii.gz", "CT/1/DICOM_anon/b.nii.gz"], r"2 volumes: a\.nii\.gz, b\.nii\.gz, expected one"),
    ],
)
def test_what_is_no_chaos(files: list[str], found: str, dataset: Dataset) -> None:
    with pytest.raises(InputError, match=f"E-COH-033: .*{found}"):
        LAYOUTS["chaos"](dataset(*files))


def test_labels_that_are_greys_yet(dataset: Dataset) -> None:
    """The liver is 63 in the MR and 255 in the CT."""
    folder = dataset("CT/1/DICOM_anon/a.nii.gz", "CT/1/Ground/liver_GT_000.png")
    volume(folder / "CT/1/Ground/labels.nii.gz", (0, 255))
    with pytest.raises(InputError, match=r"E-COH-033: .*labels 255, expected 1 liver, 2 right kidney"):
        LAYOUTS["chaos"](folder)


# -- slices ------------------------------------------------------------------------------------------------------------

LIVER, SPLEEN = (1, 0), (2, 3)
"""Column and row of one voxel each: the patient's right and front, and left and back."""


def slices(folder: Path, kind: str = "mr") -> Path:
    """Four slices of 4 x 5 pixels: the liver in all, the spleen in the last."""
    folder.mkdir(exist_ok=True)
    for number in range(4):
        pixels = np.zeros((5, 4), np.uint8)
        pixels[LIVER[1], LIVER[0]] = 63 if kind == "mr" else 255
        if number == 3 and kind == "mr":
            pixels[SPLEEN[1], SPLEEN[0]] = 252
        picture = Picture.fromarray(pixels)
        picture = picture.convert("1") if kind == "ct" else picture
        picture.save(folder / f"IMG-0004-{number + 9:05}.png")
    return folder


def image(path: Path, affine: np.ndarray, shape: tuple[int, ...] = (4, 5, 4)) -> Path:
    nib.Nifti1Image(np.zeros(shape, np.int16), affine).to_filename(path)
    return path


@pytest.mark.parametrize("upwards", [True, False])
@pytest.mark.parametrize("axes", ["LAS", "RAS", "LPI", "SLP"])
def test_slices_are_placed_by_where_the_patient_is(axes: str, upwards: bool, tmp_path: Path) -> None:
    """Whatever the converter did with the image's axes, an organ is found at one place in the world."""
    order = nib.orientations.axcodes2ornt(tuple("RAS"))  # of the world's axes
    wanted = nib.orientations.axcodes2ornt(tuple(axes))
    away = nib.orientations.ornt_transform(order, wanted)
    world = np.diag([2.0, 3.0, 4.0, 1.0])
    affine = world @ nib.orientations.inv_ornt_aff(away, (4, 5, 4))
    shape = tuple(np.array((4, 5, 4))[np.argsort(away[:, 0])])
    file = image(tmp_path / "image.nii.gz", affine, shape)
    found = stacked(slices(tmp_path / "Ground"), file, "mr", upwards=upwards)
    assert found.grid.shape == shape
    places = {label: found.grid.to_world(np.argwhere(found.data.numpy() == label)) for label in (1, 4)}
    heights = [0.0, 4.0, 8.0, 12.0]
    # Columns from right to left, rows from front to back.
    liver = [[2.0 * (3 - LIVER[0]), 3.0 * (4 - LIVER[1]), height] for height in heights]
    spleen = [[2.0 * (3 - SPLEEN[0]), 3.0 * (4 - SPLEEN[1]), heights[-1 if upwards else 0]]]
    np.testing.assert_allclose(sorted(places[1].tolist()), liver)
    np.testing.assert_allclose(places[4], spleen)
    assert found.names[4] == "spleen"


def test_slices_of_a_ct_become_a_volume_that_the_layout_reads(tmp_path: Path) -> None:
    place = tmp_path / "CT" / "7"
    (place / "DICOM_anon").mkdir(parents=True)
    file = image(place / "DICOM_anon" / "ct.nii.gz", np.diag([-1.0, 1.0, 3.0, 1.0]))
    write(stacked(slices(place / "Ground", "ct"), file, "ct", upwards=False), place / "Ground" / "labels.nii.gz")
    (scan,) = LAYOUTS["chaos"](tmp_path).scans
    assert scan.labels is not None
    labels = read_labels(scan.labels)
    assert labels.values() == [0, 1]
    assert labels.data[1, 4].tolist() == [1, 1, 1, 1]


@pytest.mark.parametrize("upwards", [True, False])
def test_the_image_tells_which_slice_is_the_highest(upwards: bool, tmp_path: Path) -> None:
    """What is of one label has one intensity, if the slices are taken the right way."""
    ground = slices(tmp_path / "Ground")
    values = np.random.default_rng(0).normal(100, 30, (4, 5, 4))
    for height in range(4):
        values[LIVER[0], LIVER[1], height] = 60 + height
    Picture.fromarray(np.eye(5, 4, dtype=np.uint8) * 63).save(ground / "IMG-0004-00009.png")
    lowest = 0 if upwards else 3
    for place in range(4):
        values[place, place, lowest] = 58
    file = tmp_path / "image.nii.gz"
    nib.Nifti1Image(values.astype(np.float32), np.diag([-1.0, -1.0, 1.0, 1.0])).to_filename(file)
    found = stacked(ground, file, "mr", upwards=None).data.numpy()
    np.testing.assert_array_equal(found, stacked(ground, file, "mr", upwards=upwards).data.numpy())
    np.testing.assert_array_equal(found[:, :, lowest], np.eye(4, 5))
    image(file, np.eye(4))
    with pytest.raises(InputError, match=r"E-COH-033: .*fit the image as well upside down"):
        stacked(ground, file, "mr")


def test_slices_are_read_as_they_come(tmp_path: Path) -> None:
    """Those of the MR fit one way, and are told for both phases; of an even image nothing tells which way is up."""
    place = tmp_path / "MR" / "7" / "T1DUAL"
    place.mkdir(parents=True)
    values = np.random.default_rng(0).normal(100, 30, (4, 5, 4))
    values[LIVER[0], LIVER[1]] = 60
    ground = slices(place / "Ground")
    Picture.fromarray(np.full((5, 4), 252, np.uint8)).save(ground / "IMG-0004-00012.png")
    values[:, :, 0] = 20
    for phase in ("InPhase", "OutPhase"):
        file = place / "DICOM_anon" / phase / "mr.nii.gz"
        file.parent.mkdir(parents=True)
        nib.Nifti1Image(values.astype(np.float32), np.diag([-1.0, -1.0, 1.0, 1.0])).to_filename(file)
    cohort = LAYOUTS["chaos"](tmp_path, tmp_path / "out")
    assert [scan.labels and scan.labels.name for scan in cohort.scans] == ["mr07_t1_in.nii.gz", "mr07_t1_out.nii.gz"]
    for scan in cohort.scans:
        assert scan.labels is not None
        found = read_labels(scan.labels).data.numpy()
        assert (found[:, :, 0] == 4).all()
        assert (found[LIVER[0], LIVER[1], 1:] == 1).all()
    image(place / "DICOM_anon" / "InPhase" / "mr.nii.gz", np.diag([-1.0, -1.0, 1.0, 1.0]))
    with pytest.warns(
        AnamorphWarning, match=r"W-COH-039: Ground: labels of mr07_t1_in are left out: E-COH-033.*upside"
    ):
        cohort = LAYOUTS["chaos"](tmp_path, tmp_path / "other")
    assert [scan.labels is None for scan in cohort.scans] == [True, False]


# -- labels beside their images ----------------------------------------------------------------------------------------


def in_phase_and_out(
    folder: Path, affine: np.ndarray, shape: tuple[int, ...] = (3, 2, 2)
) -> Integer[np.ndarray, "..."]:
    """Case 21, whose labels lie on the grid of the in-phase image, while the other image has another header."""
    place = folder / "MR/21/T1DUAL"
    for phase in ("InPhase", "OutPhase"):
        (place / "DICOM_anon" / phase).mkdir(parents=True)
    (place / "Ground").mkdir()
    volume(place / "DICOM_anon/InPhase/a.nii.gz", (0, 7))
    nib.Nifti1Image(np.arange(np.prod(shape), dtype=np.int16).reshape(shape), affine).to_filename(
        place / "DICOM_anon/OutPhase/b.nii.gz"
    )
    volume(place / "Ground/labels.nii.gz", (0, 1, 2, 3, 4))
    return read_labels(place / "Ground/labels.nii.gz").data.numpy()


@pytest.mark.parametrize("flipped", [False, True])
def test_labels_of_the_other_phase_are_written_on_its_grid(flipped: bool, tmp_path: Path) -> None:
    """Voxel by voxel, whatever the direction of its axes."""
    affine = np.diag([1.01, 1.0, -1.0 if flipped else 1.0, 1.0])
    affine[:3, 3] = [0.2, 0.0, 1.0 if flipped else 0.0]
    labels = in_phase_and_out(tmp_path / "raw", affine)
    with pytest.warns(AnamorphWarning, match="W-COH-039: .*labels of mr21_t1_out, .*written on its grid"):
        cohort = gathered("chaos", tmp_path / "raw", tmp_path / "out")
    same, other = cohort.scans
    assert same.labels is not None
    assert same.labels.parent.name == "Ground"
    written = tmp_path / "out/labels/mr21_t1_out.nii.gz"
    assert other.labels == written
    found = read_labels(written)
    np.testing.assert_allclose(found.grid.affine, affine, atol=1e-6)
    np.testing.assert_array_equal(found.data.numpy(), labels[:, :, ::-1] if flipped else labels)


def test_labels_of_another_size_are_left_out(tmp_path: Path) -> None:
    in_phase_and_out(tmp_path / "raw", np.eye(4), (3, 3, 2))
    with pytest.warns(AnamorphWarning, match=r"W-COH-039: .*\(3, 2, 2\) voxels, .* image of \(3, 3, 2\); left out"):
        cohort = gathered("chaos", tmp_path / "raw", tmp_path / "out")
    assert [scan.labels is None for scan in cohort.scans] == [False, True]
    assert not (tmp_path / "out").exists()


def test_slices_that_do_not_fit(tmp_path: Path) -> None:
    file = image(tmp_path / "image.nii.gz", np.eye(4), (4, 5, 3))
    ground = slices(tmp_path / "Ground")
    with pytest.raises(InputError, match=r"E-COH-033: .*make up \(4, 5, 4\) voxels, expected \(4, 5, 3\)"):
        stacked(ground, file, "mr", upwards=True)
    image(file, np.eye(4))
    Picture.fromarray(np.full((5, 4), 100, np.uint8)).save(ground / "IMG-0004-00009.png")
    with pytest.raises(InputError, match=r"E-COH-033: .*greys 100, expected 63, 126, 189 and 252"):
        stacked(ground, file, "mr", upwards=True)
    Picture.fromarray(np.zeros((6, 4), np.uint8)).save(ground / "IMG-0004-00009.png")
    with pytest.raises(InputError, match=r"E-COH-033: .*4 slices of 2 sizes"):
        stacked(ground, file, "mr", upwards=True)
    with pytest.raises(InputError, match=r"E-COH-033: .*0 slices of 0 sizes"):
        stacked(tmp_path / "absent", file, "mr", upwards=True)
