"""What stands in a transform file, to the byte, and HDF5 layouts of other writers."""

from __future__ import annotations

import gzip
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from anamorph.data.displacement_files import orthonormal_grid
from anamorph.data.transform_files import check_field_grid, describe_grid, read_transform, write_transform
from anamorph.errors import ConfigurationError, InputError, ResourceError
from anamorph.spatial.grid import Grid
from anamorph.spatial.transform import Affine, Chain, Field, Velocity

HDF5 = Path(__file__).parent / "hdf5"


def shift(*millimetres: float) -> Affine:
    matrix = np.eye(len(millimetres) + 1)
    matrix[:-1, -1] = millimetres
    return Affine(matrix)


def field(dtype: torch.dtype = torch.float32) -> Field:
    grid = Grid.from_spacing((3, 4, 5), (1.0, 2.0, 3.0))
    return Field(torch.arange(180, dtype=dtype).reshape(3, 3, 4, 5) / 16, grid)


def test_text_holds_lps_numbers(tmp_path: Path):
    matrix = np.array([[0.0, -2.0, 0.0, 1.0], [1.0, 0.0, 0.5, 2.0], [0.25, 0.0, 1.0, 3.0], [0, 0, 0, 1]])
    write_transform(Affine(matrix), tmp_path / "a.tfm")
    assert (tmp_path / "a.tfm").read_text() == (
        "#Insight Transform File V1.0\n"
        "#Transform 0\n"
        "Transform: AffineTransform_double_3_3\n"
        "Parameters: 0.0 -2.0 0.0 1.0 0.0 -0.5 -0.25 0.0 1.0 -1.0 -2.0 3.0\n"
        "FixedParameters: 0.0 0.0 0.0\n"
    )


def test_displacement_nifti_has_five_axes_intent_1007_and_both_forms(tmp_path: Path):
    write_transform(field(), tmp_path / "d.nii.gz")
    image = nib.load(tmp_path / "d.nii.gz")
    assert image.shape == (3, 4, 5, 1, 3)
    assert image.header["intent_code"] == 1007
    assert (image.header["qform_code"], image.header["sform_code"]) == (1, 1)
    assert image.header.get_data_dtype() == np.float32
    values = np.asanyarray(image.dataobj)[1, 2, 3, 0]
    expected = field().displacement[:, 1, 2, 3].numpy() * [-1, -1, 1]
    assert values.tolist() == expected.tolist()


def test_two_dimensional_displacement_has_two_components(tmp_path: Path):
    flat = Field(torch.ones(2, 4, 3), Grid.from_spacing((4, 3)))
    write_transform(flat, tmp_path / "d.nii")
    assert nib.load(tmp_path / "d.nii").shape == (4, 3, 1, 1, 2)
    read = read_transform(tmp_path / "d.nii")
    assert read.ndim == 2
    assert torch.equal(read.displacement, flat.displacement)


def test_scaled_integers_and_a_single_slice_are_read(tmp_path: Path):
    values = np.arange(24, dtype=np.float32).reshape(4, 2, 1, 1, 3) / 10
    image = nib.Nifti1Image(values, np.diag([1.0, 2, 3, 1]), dtype=np.float32)
    image.header.set_intent("vector")
    image.header.set_data_dtype(np.int16)
    image.set_sform(image.affine, 1)
    image.set_qform(image.affine, 1)
    nib.save(image, tmp_path / "d.nii")
    read = read_transform(tmp_path / "d.nii")
    assert isinstance(read, Field)
    assert read.grid.shape == (4, 2, 1)
    expected = np.moveaxis(values[..., 0, :], -1, 0) * np.array([-1, -1, 1])[:, None, None, None]
    assert np.abs(read.displacement.numpy() - expected).max() < 1e-4


@pytest.mark.parametrize("name", ["t.h5", "t.nii", "t.nii.gz"])
def test_equal_input_gives_equal_bytes_without_a_trace_of_the_machine(tmp_path: Path, name: str):
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        write_transform(field(), tmp_path / folder / name)
    content = (tmp_path / "one" / name).read_bytes()
    assert content == (tmp_path / "two" / name).read_bytes()
    plain = gzip.decompress(content) if name.endswith(".gz") else content
    assert b"Linux" not in plain
    assert name.encode() not in plain


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_field_comes_back_exactly_from_h5(tmp_path: Path, dtype: torch.dtype):
    write_transform(field(dtype), tmp_path / "t.h5")
    read = read_transform(tmp_path / "t.h5")
    assert isinstance(read, Field)
    assert read.displacement.dtype == dtype
    assert torch.equal(read.displacement, field(dtype).displacement)
    assert read.grid.same_as(field().grid, tolerance_mm=1e-12)


def test_chain_keeps_its_order(tmp_path: Path):
    double = Affine(np.diag([2.0, 2.0, 2.0, 1.0]))
    chain = Chain((shift(1, 0, 0), double))
    point = np.array([[1.0, 0.0, 0.0]])
    for name in ("t.h5", "t.tfm", "t.mat"):
        write_transform(chain, tmp_path / name)
        assert read_transform(tmp_path / name)(point).tolist() == [[4.0, 0.0, 0.0]]


def test_velocity_is_stored_as_its_flow(tmp_path: Path):
    grid = Grid.from_spacing((6, 6, 6))
    velocity = Velocity(torch.full((3, 6, 6, 6), 0.25), grid)
    write_transform(velocity, tmp_path / "t.h5")
    read = read_transform(tmp_path / "t.h5")
    assert isinstance(read, Field)
    assert torch.equal(read.displacement, velocity.field.displacement)


@pytest.mark.parametrize("name", ["symbol_tables", "deflated_chunks", "version_18", "misspelt"])
def test_hdf5_layouts_of_other_writers(name: str):
    chain = read_transform(HDF5 / f"{name}.h5")
    assert isinstance(chain, Chain)
    displacement, affine = chain.transforms
    assert isinstance(affine, Affine)
    assert affine.matrix[:3, 3].tolist() == [-1, -2, 3]
    assert isinstance(displacement, Field)
    assert displacement.grid.affine.tolist() == [[-1, 0, 0, -10], [0, -1, 0, -20], [0, 0, 1, 30], [0, 0, 0, 1]]
    # Parameter 3 (i + 3 j + 12 k) + d is a quarter of its index; voxel (1, 2, 3) begins at 129.
    assert displacement.displacement[:, 1, 2, 3].tolist() == [-129 / 4, -130 / 4, 131 / 4]


def test_hdf5_numbers_within_the_memory_limit(tmp_path: Path):
    from anamorph.data.image import ReadPolicy

    write_transform(field(), tmp_path / "t.h5")
    assert read_transform(tmp_path / "t.h5", ReadPolicy(max_bytes=1440)).ndim == 3
    with pytest.raises(ResourceError, match="E-MEM-016"):
        read_transform(tmp_path / "t.h5", ReadPolicy(max_bytes=1439))


def test_empty_composite_is_the_identity(tmp_path: Path):
    (tmp_path / "t.tfm").write_text(
        "#Insight Transform File V1.0\n#Transform 0\nTransform: CompositeTransform_double_2_2\n"
    )
    assert read_transform(tmp_path / "t.tfm")(np.ones((1, 2))).tolist() == [[1.0, 1.0]]


@pytest.mark.parametrize("name", ["t.tfm", "t.txt", "t.mat"])
def test_a_matrix_file_holds_no_deformation(tmp_path: Path, name: str):
    with pytest.raises(ConfigurationError, match="E-TRF-017"):
        write_transform(Chain((shift(1, 2, 3), field())), tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_a_chain_needs_a_grid_to_become_a_displacement(tmp_path: Path):
    chain = Chain((shift(1, 2, 3), shift(1, 0, 0)))
    with pytest.raises(ConfigurationError, match="E-TRF-017"):
        write_transform(chain, tmp_path / "d.nii.gz")
    write_transform(chain, tmp_path / "d.nii.gz", field().grid)
    assert read_transform(tmp_path / "d.nii.gz")(np.zeros((1, 3))).tolist() == [[2.0, 2.0, 3.0]]


def test_an_unknown_suffix_is_refused(tmp_path: Path):
    with pytest.raises(ConfigurationError, match="E-OUT-002"):
        write_transform(shift(1, 2, 3), tmp_path / "t.xfm")


def test_the_orthonormal_grid_holds_the_sheared_one():
    affine = np.array([[1.0, 0.4, 0.1, 5.0], [0.0, 2.0, -0.3, -7.0], [0.1, 0.0, -3.0, 11.0], [0, 0, 0, 1]])
    sheared = Grid((7, 6, 5), affine)
    around = orthonormal_grid(sheared)
    axes = around.affine[:3, :3] / around.spacing
    assert np.abs(axes.T @ axes - np.eye(3)).max() < 1e-12
    assert np.linalg.det(axes) < 0
    assert around.contains(sheared.corners, margin=1e-6).all()
    assert np.allclose(around.spacing, sheared.spacing)
    assert np.allclose(around.centre, sheared.centre)


def test_an_orthonormal_grid_is_its_own():
    grid = field().grid
    assert orthonormal_grid(grid).same_as(grid, tolerance_mm=1e-9)


def test_check_field_grid_compares_places():
    check_field_grid(Chain((field(), shift(1, 2, 3))), field().grid)
    check_field_grid(shift(1, 2, 3), field().grid)
    with pytest.raises(InputError, match="E-TRF-005"):
        check_field_grid(field(), field().grid.resized((6, 8, 10)))


def test_grids_are_told_apart_to_a_thousandth_of_a_millimetre():
    grid = field().grid
    moved = grid.affine.copy()
    moved[0, 3] += 1e-5
    assert describe_grid(Grid(grid.shape, moved)) == describe_grid(grid)
    moved[0, 3] += 2e-3
    assert describe_grid(Grid(grid.shape, moved)) != describe_grid(grid)
