"""Fault catalogue, group T: transforms that are damaged, ambiguous, hostile or meant for another space."""

from __future__ import annotations

import errno
import os
import struct
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import torch

from anamorph.data.image import Image, Landmarks, Mask
from anamorph.data.transform_files import check_field_grid, read_transform, write_transform
from anamorph.errors import (
    AnamorphWarning,
    ConfigurationError,
    InputError,
    IntegrityError,
    NumericalError,
    ResourceError,
)
from anamorph.inference.warp import warp
from anamorph.spatial.grid import Grid
from anamorph.spatial.transform import Affine, Chain, Field

HDF5 = Path(__file__).parents[1] / "data" / "hdf5"
TEXT = "#Insight Transform File V1.0\n#Transform 0\nTransform: {}\nParameters: {}\nFixedParameters: 0 0 0\n"
AFFINE = "AffineTransform_double_3_3"
UNIT = "1 0 0 0 1 0 0 0 1 0 0 0"
TURN = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]


def oblique(offset: float = 30.0) -> Grid:
    affine = np.eye(4)
    affine[:3, :3] = TURN @ np.diag([0.7, 1.3, 2.9])
    affine[:3, 3] = offset
    return Grid((12, 11, 9), affine)


def smooth_field(grid: Grid, size_mm: float = 2.0, dtype: torch.dtype = torch.float32) -> Field:
    phase = grid.voxels() @ np.array([[0.3, 0.1, 0.2], [0.1, 0.4, 0.1], [0.2, 0.1, 0.5]])
    return Field(torch.from_numpy((np.sin(phase) * size_mm).T.reshape(3, *grid.shape).copy()).to(dtype), grid)


def save_nifti(path: Path, values: np.ndarray, intent: int, affine: np.ndarray | None = None) -> Path:
    image = nib.Nifti1Image(values.astype(np.float32), np.diag([1, 1.5, 2, 1]) if affine is None else affine)
    image.header["intent_code"] = intent
    image.header["qform_code"], image.header["sform_code"] = 1, 1
    nib.save(image, path)
    return path


def by_itk(transform: sitk.Transform, points: np.ndarray) -> np.ndarray:
    sign = np.array([-1.0, -1.0, 1.0])
    return np.array([transform.TransformPoint(p.tolist()) for p in points * sign]) * sign


@pytest.mark.parametrize("name", [pytest.param(name, id=f"T01-{name}") for name in ("t.h5", "t.nii.gz")])
def test_oblique_anisotropic_field(tmp_path: Path, name: str):
    field = smooth_field(oblique())
    write_transform(field, tmp_path / name)
    path = str(tmp_path / name)
    if name == "t.h5":
        theirs = sitk.ReadTransform(path)
    else:
        theirs = sitk.DisplacementFieldTransform(sitk.ReadImage(path, sitk.sitkVectorFloat64))
    points = field.grid.to_world(field.grid.voxels())
    assert np.abs(by_itk(theirs, points) - field(points)).max() < 1e-4


@pytest.mark.parametrize("row", ["T02"])
def test_four_axes_are_ambiguous(row: str, tmp_path: Path):
    values = np.random.default_rng(0).normal(size=(5, 6, 7, 3))
    path = save_nifti(tmp_path / "d.nii.gz", values, 0)
    with pytest.raises(InputError, match=r"E-TRF-002: d.nii.gz: .*\(x, y, z, 1, 3\).*assume"):
        read_transform(path)
    read = read_transform(path, assume="itk")
    assert isinstance(read, Field)
    expected = np.moveaxis(values, -1, 0) * np.array([-1, -1, 1])[:, None, None, None]
    assert np.abs(read.displacement.numpy() - expected).max() < 1e-6


@pytest.mark.parametrize("row", ["T02-image"])
def test_an_image_is_no_displacement(row: str, tmp_path: Path):
    with pytest.raises(InputError, match="E-TRF-002"):
        read_transform(save_nifti(tmp_path / "image.nii.gz", np.ones((5, 6, 7)), 0))


@pytest.mark.parametrize("intent", [pytest.param(1006, id="T03-1006"), pytest.param(1007, id="T03-1007")])
def test_both_intents_mean_what_itk_makes_of_them(tmp_path: Path, intent: int):
    values = np.random.default_rng(0).normal(size=(5, 6, 7, 1, 3))
    path = save_nifti(tmp_path / "d.nii.gz", values, intent)
    theirs = sitk.DisplacementFieldTransform(sitk.ReadImage(str(path), sitk.sitkVectorFloat64))
    ours = read_transform(path)
    points = np.random.default_rng(1).uniform(0, 4, (50, 3))
    assert np.abs(by_itk(theirs, points) - ours(points)).max() < 1e-4
    assert np.abs(ours(points) - points).max() > 0.5


@pytest.mark.parametrize("row", ["T03-unstated"])
def test_unstated_convention(row: str, tmp_path: Path):
    path = save_nifti(tmp_path / "d.nii.gz", np.ones((5, 6, 7, 1, 3)), 0)
    with pytest.raises(InputError, match="E-TRF-003"):
        read_transform(path)
    assert read_transform(path, assume="itk")(np.zeros((1, 3))).tolist() == [[-1, -1, 1]]


@pytest.mark.parametrize("row", ["T04-nifti"])
def test_nan_in_a_displacement(row: str, tmp_path: Path):
    values = np.zeros((5, 6, 7, 1, 3))
    values[1, 2, 3, 0, 1] = np.nan
    with pytest.raises(InputError, match=r"E-TRF-004: d\.nii\.gz: 1 of 630 "):
        read_transform(save_nifti(tmp_path / "d.nii.gz", values, 1007))


@pytest.mark.parametrize("number", [pytest.param(number, id=f"T04-{number}") for number in ("nan", "inf", "1e300")])
def test_nan_in_a_matrix(tmp_path: Path, number: str):
    (tmp_path / "t.tfm").write_text(TEXT.format(AFFINE, UNIT.replace("1", number, 1)))
    with pytest.raises(InputError, match=r"E-TRF-004: t\.tfm: 1 of 12 "):
        read_transform(tmp_path / "t.tfm")


@pytest.mark.parametrize("row", ["T04-h5"])
def test_nan_in_h5(row: str, tmp_path: Path):
    field = smooth_field(oblique())
    field.displacement[0, 1, 2, 3] = torch.nan
    write_transform(field, tmp_path / "t.h5")
    with pytest.raises(InputError, match="E-TRF-004"):
        read_transform(tmp_path / "t.h5")


@pytest.mark.parametrize("row", ["T05"])
def test_field_of_another_space(row: str):
    field = smooth_field(oblique())
    with pytest.raises(InputError, match=r"E-TRF-005: warp.h5 lies on .*\(grid \w{8}\), ct.nii on .*\(grid \w{8}\)"):
        check_field_grid(field, oblique(35.0), field_name="warp.h5", image_name="ct.nii")
    image = Image(torch.zeros(1, 4, 4, 4), Grid.from_spacing((4, 4, 4)))
    with pytest.raises(InputError, match="E-TRF-005"):
        warp(image, field, oblique(3000.0))


@pytest.mark.parametrize("row", ["T06"])
def test_points_and_voxels_outside_the_field(row: str):
    grid = Grid.from_spacing((10, 10, 10))
    field = Field(torch.ones(3, 10, 10, 10), grid)
    points = Landmarks(np.array([[4.0, 4, 4], [9.4, 4, 4], [9.6, 4, 4]]), ("in", "edge", "out"))
    with pytest.warns(AnamorphWarning, match="W-TRF-006: 1 of 3 landmarks .*: out$"):
        moved = warp(points, field, direction="fixed_to_moving")
    assert moved.points.tolist() == [[5, 5, 5], [10.4, 5, 5], [9.6, 4, 4]]
    image = Image(torch.ones(1, 10, 10, 10), grid)
    wider = grid.cropped((-5, 0, 0), (15, 10, 10))
    mask = Mask(torch.ones(10, 10, 10, dtype=torch.bool), grid, "mask.nii")
    said = []
    for data in (replace(image, name="image.nii"), mask):
        with pytest.warns(AnamorphWarning, match=r"W-TRF-006: about \d+ % of the voxels") as told:
            warp(data, field, wider)
        said += [str(line.message) for line in told]
    assert said[0] == said[1]  # which a screen tells once


GRID = "2 2 2 0 0 0 1 1 1 1 0 0 0 1 0 0 0 1"


def stored(kind: str, parameters: str, fixed: str) -> str:
    numbers = f"Parameters: {parameters}\nFixedParameters: {fixed}\n"
    return f"#Insight Transform File V1.0\nTransform: {kind}_double_3_3\n{numbers}"


BROKEN_TEXT = {
    "short": (TEXT.format(AFFINE, "1 0 0 0 1 0"), "E-TRF-007: .*6 parameters .* expected 12"),
    "no-parameters": (TEXT.format(AFFINE, ""), "E-TRF-007: .*0 parameters"),
    "unknown-class": (TEXT.format("ThinPlateSplineKernelTransform_double_3_3", UNIT), "E-TRF-007: .*ThinPlateSpline"),
    "no-class": (TEXT.format("Affine", UNIT), "E-TRF-007: .*'Affine'"),
    "words": (TEXT.format(AFFINE, UNIT.replace("0", "zero")), "E-TRF-007: .*line 4"),
    "bad-line": (TEXT.format(AFFINE, UNIT) + "Rubbish: 1\n", "E-TRF-007: .*line 6"),
    "header-only": ("#Insight Transform File V1.0\n", "E-TRF-007: .*no transform"),
    "empty": ("", "E-IO-002"),
    "no-centre": (stored("Euler3DTransform", "0 0 0 0 0 0", "1 2"), "E-TRF-007: .*2 fixed parameters"),
    "flat-class": (stored("Euler2DTransform", "0 0 0", "0 0"), "E-TRF-007: .*Euler2DTransform_double_3_3"),
    "field-short": (stored("DisplacementFieldTransform", "0 " * 23, GRID), "E-TRF-007: .*23 parameters .* expected 24"),
    "field-grid": (stored("DisplacementFieldTransform", "0 " * 24, GRID[:-2]), "E-TRF-007: .*17 fixed parameters"),
    "field-size": (stored("DisplacementFieldTransform", "0 " * 24, "2.5" + GRID[1:]), "E-TRF-007: .*2.5"),
    "field-flat": (stored("DisplacementFieldTransform", "0 " * 24, GRID[:-1] + "0"), "E-TRF-007: .*singular"),
    "field-spacing": (
        stored("DisplacementFieldTransform", "0 " * 24, GRID.replace("1 1 1 1", "1 -1 1 1")),
        "E-TRF-007: .*positive",
    ),
    "bspline": (stored("BSplineTransform", "0 " * 24, GRID), "E-TRF-007: .*B-spline.*expected a grid"),
    "nested": (
        stored("CompositeTransform", "", "") + "Transform: CompositeTransform_double_3_3\n",
        "E-TRF-007: .*class CompositeTransform",
    ),
    "two": (TEXT.format(AFFINE, UNIT) * 2, "E-TRF-007: .*2 transforms in no stated order"),
    "elastix": ('(Transform "EulerTransform")\n', "E-TRF-007: .*elastix"),
    "fsl": ("1 0 0 0\n0 1 0 0\n0 0 1 0\n0 0 0 1\n", "E-TRF-007: .*FSL"),
    "html": ("<!DOCTYPE html><html></html>", "E-TRF-007: .*web page"),
    "mixed": (TEXT.format("CompositeTransform_double_3_3", "") + "Transform: AffineTransform_double_2_2\n"
              "Parameters: 1 0 0 1 0 0\nFixedParameters: 0 0\n", "E-TRF-007: .*2-D and 3-D"),
}  # fmt: skip


@pytest.mark.parametrize("fault", [pytest.param(fault, id=f"T07-{fault}") for fault in BROKEN_TEXT])
@pytest.mark.parametrize("suffix", ["tfm", "txt"])
def test_broken_text(tmp_path: Path, fault: str, suffix: str):
    content, message = BROKEN_TEXT[fault]
    (tmp_path / f"t.{suffix}").write_text(content)
    with pytest.raises(InputError, match=message):
        read_transform(tmp_path / f"t.{suffix}")


@pytest.mark.parametrize("kept", [pytest.param(n, id=f"T07-mat-{n}-bytes") for n in (10, 30, 100, 150, 180)])
def test_broken_matlab(tmp_path: Path, kept: int):
    write_transform(Affine.identity(3), tmp_path / "t.mat")
    (tmp_path / "t.mat").write_bytes((tmp_path / "t.mat").read_bytes()[:kept])
    with pytest.raises(InputError, match="E-TRF-007"):
        read_transform(tmp_path / "t.mat")


@pytest.mark.parametrize("row", ["T07-mat-huge"])
def test_matlab_that_declares_more_than_it_has(row: str, tmp_path: Path):
    (tmp_path / "t.mat").write_bytes(struct.pack("<5I", 0, 2**31, 2**31, 0, 4) + b"abc\0" + bytes(100))
    with pytest.raises(InputError, match=r"E-TRF-007: .*truncated"):
        read_transform(tmp_path / "t.mat")


@pytest.mark.parametrize("row", ["T08"])
def test_half_an_h5_is_refused_in_one_line(row: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    composite = sitk.CompositeTransform([sitk.AffineTransform(3), sitk.TranslationTransform(3, (1, 2, 3))])
    sitk.WriteTransform(composite, str(tmp_path / "whole.h5"))
    content = (tmp_path / "whole.h5").read_bytes()
    (tmp_path / "half.h5").write_bytes(content[: len(content) // 2])
    found = f"truncated: {len(content) // 2} of {len(content)} bytes"
    with pytest.raises(InputError, match=f"^E-TRF-008: half.h5: {found}; copy the file again$"):
        read_transform(tmp_path / "half.h5")
    # The HDF5 library would write a stack of its own past Python.
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("row", ["T08-anywhere"])
def test_h5_cut_or_damaged_anywhere_is_never_a_crash(row: str, tmp_path: Path):
    write_transform(Chain((smooth_field(Grid.from_spacing((3, 3, 3))), Affine.identity(3))), tmp_path / "t.h5")
    content = (tmp_path / "t.h5").read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    for at in rng.integers(0, len(content), 100):
        damaged = bytearray(content)
        damaged[at : at + 8] = rng.bytes(min(8, len(content) - at))
        (tmp_path / "damaged.h5").write_bytes(damaged if rng.random() < 0.7 else content[:at])
        try:
            read_transform(tmp_path / "damaged.h5")
        except (InputError, IntegrityError, ResourceError):
            refused += 1
    assert refused > 25


@pytest.mark.parametrize(
    ("matrix", "code"),
    [
        pytest.param("1 0 0 0 1 0 0 0 0 0 0 0", "E-TRF-009", id="T09-singular"),
        pytest.param("-1 0 0 0 1 0 0 0 1 0 0 0", "W-TRF-009", id="T09-reflecting"),
    ],
)
def test_degenerate_affine(tmp_path: Path, matrix: str, code: str):
    (tmp_path / "t.tfm").write_text(TEXT.format(AFFINE, matrix))
    if code.startswith("E"):
        with pytest.raises(InputError, match=code):
            read_transform(tmp_path / "t.tfm")
    else:
        with pytest.warns(AnamorphWarning, match=code):
            read = read_transform(tmp_path / "t.tfm")
        assert read(np.ones((1, 3))).tolist() == [[-1, 1, 1]]


@pytest.mark.parametrize("row", ["T10"])
def test_inverse_of_a_folded_field(row: str):
    grid = Grid.from_spacing((16, 16, 16))
    fold = torch.from_numpy(4 * np.sin(1.5 * grid.voxels())).float().T.reshape(3, *grid.shape)
    image = Image(torch.ones(1, *grid.shape), grid)
    with pytest.raises(NumericalError, match="E-TRF-010"):
        warp(image, Field(fold, grid), grid, direction="fixed_to_moving")


@pytest.mark.parametrize("row", ["T10-landmarks"])
def test_landmarks_that_the_inverse_misses(row: str):
    grid = Grid.from_spacing((16, 16, 16))
    fold = torch.zeros(3, *grid.shape)
    fold[0, 8, 8, 8] = 4.0
    landmarks = Landmarks(np.array([[3.0, 3, 3], [9.0, 8, 8]]), ("calm", "folded"))
    with pytest.warns(AnamorphWarning, match="W-TRF-010"):
        warp(landmarks, Field(fold, grid))


@pytest.mark.parametrize("row", ["T11"])
def test_chain_of_twenty_in_order(row: str, tmp_path: Path):
    rng = np.random.default_rng(0)
    steps = tuple(Affine(np.eye(4) + np.vstack([rng.normal(size=(3, 4)) * 0.1, np.zeros(4)])) for _ in range(20))
    chain = Chain(steps)
    points = rng.uniform(-50, 50, (30, 3))
    write_transform(chain, tmp_path / "ours.h5")
    theirs = sitk.ReadTransform(str(tmp_path / "ours.h5"))
    assert np.abs(by_itk(theirs, points) - chain(points)).max() < 1e-9
    sitk.WriteTransform(theirs, str(tmp_path / "theirs.h5"))
    read = read_transform(tmp_path / "theirs.h5")
    assert isinstance(read, Chain)
    assert len(read.transforms) == 20
    assert np.abs(read(points) - chain(points)).max() < 1e-9
    assert np.abs(Chain(steps[::-1])(points) - chain(points)).max() > 1


@pytest.mark.parametrize("row", ["T11-once"])
def test_one_resampling_through_any_chain(row: str):
    # Half a voxel there and back: two interpolations would blur the edge, one leaves it.
    grid = Grid.from_spacing((8, 8, 8))
    edge = torch.zeros(1, 8, 8, 8)
    edge[:, 4:] = 1
    matrix = np.eye(4)
    matrix[0, 3] = 0.5
    there = Affine(matrix)
    warped = warp(Image(edge, grid), Chain((there, there.inverse()) * 10), grid)
    assert torch.equal(warped.data, edge)


HOSTILE = {
    "external_link": (IntegrityError, "E-TRF-013", 6),
    "external_data": (IntegrityError, "E-TRF-013", 6),
    "soft_link": (IntegrityError, "E-TRF-013", 6),
    "huge": (ResourceError, "E-MEM-016", 4),
}


@pytest.mark.parametrize("name", [pytest.param(name, id=f"T13-{name}") for name in HOSTILE])
def test_h5_that_points_elsewhere_or_declares_terabytes(name: str):
    kind, code, exit_code = HOSTILE[name]
    with pytest.raises(kind, match=code) as caught:
        read_transform(HDF5 / f"{name}.h5")
    assert caught.value.exit_code == exit_code


@pytest.mark.parametrize("row", ["T14"])
def test_float32_field_ten_metres_away(row: str, tmp_path: Path):
    grid = oblique(10_000.0)
    field = smooth_field(grid)
    points = grid.to_world(np.random.default_rng(0).uniform(0, np.array(grid.shape) - 1, (200, 3)))
    for name in ("t.h5", "t.nii.gz"):
        write_transform(field, tmp_path / name)
        assert np.abs(read_transform(tmp_path / name)(points) - field(points)).max() < 1e-3


@pytest.mark.parametrize("row", ["T16"])
def test_overwriting_a_transform_takes_a_word(row: str, tmp_path: Path):
    write_transform(Affine.identity(3), tmp_path / "t.tfm")
    before = (tmp_path / "t.tfm").read_bytes()
    other = Affine(np.diag([2.0, 2.0, 2.0, 1.0]))
    with pytest.raises(ConfigurationError, match=r"E-TRF-016: t\.tfm") as caught:
        write_transform(other, tmp_path / "t.tfm")
    assert caught.value.exit_code == 2
    assert (tmp_path / "t.tfm").read_bytes() == before
    write_transform(other, tmp_path / "t.tfm", overwrite=True)
    assert (tmp_path / "t.tfm").read_bytes() != before


@pytest.mark.parametrize("row", ["T16-full-disk"])
def test_full_disk_leaves_the_old_file(row: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write_transform(Affine.identity(3), tmp_path / "t.h5")
    before = (tmp_path / "t.h5").read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ResourceError, match="E-OUT-003"):
        write_transform(smooth_field(oblique()), tmp_path / "t.h5", overwrite=True)
    assert (tmp_path / "t.h5").read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["t.h5"]
