"""Group G of the fault catalogue, as far as reading a file goes."""

from __future__ import annotations

from itertools import permutations, product

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from anamorph.data.files import check_same_space, read, write
from anamorph.data.image import Image, ReadPolicy
from anamorph.spatial.grid import Grid

SHIFT = np.array([[1, 0, 0, 30], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])


def with_forms(head, sform, sform_code, qform, qform_code):
    header = nib.Nifti1Header(bytes(head.raw[:348]))
    header.set_qform(qform, qform_code)
    header.set_sform(sform, sform_code)
    head.raw[:348] = header.binaryblock
    return head.plain()


CODE_PAIRS = [
    pytest.param(s, q, id=f"{'G03' if s == q == 0 else 'G01'}-s{s}-q{q}") for s, q in product((0, 1, 2, 4), repeat=2)
]


@pytest.mark.parametrize(("sform_code", "qform_code"), CODE_PAIRS)
def test_two_forms_30_mm_apart(sform_code, qform_code, head, refuses, warns):
    path = with_forms(head, head.affine, sform_code, SHIFT @ head.affine, qform_code)
    if sform_code and qform_code:
        with refuses("E-GEO-001", 3, head.folder):
            read(path)
        with warns("W-GEO-002"):
            np.testing.assert_allclose(read(path, ReadPolicy(xform="sform")).grid.affine, head.affine, atol=1e-5)
        with warns("W-GEO-002"):
            believed = read(path, ReadPolicy(xform="qform")).grid.affine
        np.testing.assert_allclose(believed, SHIFT @ head.affine, atol=1e-5)
    elif sform_code:
        np.testing.assert_allclose(read(path).grid.affine, head.affine, atol=1e-5)
    elif qform_code:
        np.testing.assert_allclose(read(path).grid.affine, SHIFT @ head.affine, atol=1e-5)
    else:
        with warns("W-GEO-003"):
            np.testing.assert_allclose(read(path).grid.affine, nib.load(path).affine)
        with refuses("E-GEO-003", 3, head.folder):
            read(path, ReadPolicy(strict=True))


@pytest.mark.parametrize("row", ["G01"])
def test_difference_is_told_in_mm_and_degrees(row, head):
    angle = np.radians(10)
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    path = with_forms(head, head.affine, 1, turn @ head.affine, 1)
    corners = Grid(head.values.shape, head.affine).corners
    farthest = np.linalg.norm(corners - (corners @ turn[:3, :3].T), axis=1).max()
    with pytest.raises(ValueError, match=rf"differ by {farthest:.3g} mm and 10 degrees.*--xform"):
        read(path)


@pytest.mark.parametrize("row", ["G02"])
def test_forms_slightly_apart(row, head, warns):
    shifted = head.affine.copy()
    shifted[0, 3] += 0.05
    path = with_forms(head, head.affine, 1, shifted, 1)
    with warns("W-GEO-002"):
        np.testing.assert_allclose(read(path).grid.affine, head.affine, atol=1e-5)


def place_with_sform(head, affine):
    image = nib.Nifti1Image(head.values, affine)
    image.set_sform(affine, 1)
    image.set_qform(None, 0)
    return head.save(image)


def rounded_rotation(decimals):
    a, b, c = np.radians([12, -7, 31])
    x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    y = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    z = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = np.round(x @ y @ z, decimals)
    return affine


def sheared(amount):
    affine = np.diag([1, 1.5, 2, 1.0])
    affine[0, 1] = amount
    return affine


GENERAL = [
    *[pytest.param(sheared(amount), id=f"G04-{amount}") for amount in (1e-4, 1e-3, 0.3)],
    *[pytest.param(rounded_rotation(decimals), id=f"G05-{decimals}") for decimals in (2, 3, 4)],
]


@pytest.mark.parametrize("affine", GENERAL)
def test_general_affine_survives_reading_and_writing(affine, head):
    image = read(place_with_sform(head, affine))
    np.testing.assert_allclose(image.grid.affine, affine, atol=1e-6)
    write(image, head.folder / "again.nii.gz")
    again = read(head.folder / "again.nii.gz")
    assert again.grid.same_as(image.grid)
    assert again.data.equal(image.data)


@pytest.mark.parametrize("row", ["G04"])
@pytest.mark.parametrize("name", ["head.nrrd", "head.mha"])
def test_shear_is_not_written_where_it_cannot_be_read(row, name, head, refuses):
    image = Image.from_array(head.values, sheared(0.3))
    with refuses("E-GEO-004", 3, head.folder):
        write(image, head.folder / name)


SFORM_ROWS = (280, "<12f")
UNUSABLE = [
    pytest.param((SFORM_ROWS, [0] * 12), "E-GEO-006", id="G06-zero"),
    pytest.param((SFORM_ROWS, [1, 1, 0, 0, 1, 1, 0, 0, 0, 0, 1, 0]), "E-GEO-006", id="G06-singular"),
    pytest.param((SFORM_ROWS, [np.nan, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0]), "E-GEO-007", id="G07-direction"),
    pytest.param((SFORM_ROWS, [1, 0, 0, np.nan, 0, 1, 0, 0, 0, 0, 1, 0]), "E-GEO-007", id="G07-origin"),
    pytest.param((SFORM_ROWS, [1, 0, 0, np.inf, 0, 1, 0, 0, 0, 0, 1, 0]), "E-GEO-007", id="G07-inf"),
]


@pytest.mark.parametrize(("patch", "code"), UNUSABLE)
def test_unusable_sform(patch, code, head, refuses, warns):
    (offset, form), values = patch
    path = head.patch(offset, form, *values).plain()
    with refuses(code, 3, head.folder):
        read(path)
    with warns("W-GEO-006"):
        np.testing.assert_allclose(read(path, ReadPolicy(xform="qform")).grid.affine, head.affine, atol=1e-5)


@pytest.mark.parametrize("size", [pytest.param(0, id="G08-zero"), pytest.param(np.nan, id="G08-nan")])
@pytest.mark.parametrize("qform_code", [0, 1])
def test_voxel_size_unusable_beside_a_valid_sform(size, qform_code, head, warns, equals_head):
    path = head.patch(76, "<4f", 1, size, 1.5, 2).patch(252, "<h", qform_code).plain()
    with warns("W-GEO-008"):
        equals_head(path)


@pytest.mark.parametrize("row", ["G08-qform-alone"])
def test_voxel_size_unusable_without_a_sform(row, head, refuses):
    path = head.patch(76, "<4f", 1, 0, 1.5, 2).patch(254, "<h", 0).plain()
    with refuses("E-GEO-006", 3, head.folder):
        read(path)


AXIS_ORDERS = [
    pytest.param(order, flips, id=f"G09-{''.join(map(str, order))}{''.join('+-'[f] for f in flips)}")
    for order in permutations(range(3))
    for flips in product((0, 1), repeat=3)
]


def reordered(values, affine, order, flips):
    """The same voxels at the same places, listed along other axes."""
    change = np.zeros((4, 4))
    change[3, 3] = 1
    for new, (old, flip) in enumerate(zip(order, flips, strict=True)):
        change[old, new] = -1 if flip else 1
        change[old, 3] = values.shape[old] - 1 if flip else 0
    values = values.transpose(order)
    return np.flip(values, [axis for axis, flip in enumerate(flips) if flip]), affine @ change


@pytest.mark.parametrize(("order", "flips"), AXIS_ORDERS)
@pytest.mark.parametrize("direction", ["straight", "oblique", "sheared"])
def test_axis_order_changes_nothing_in_the_world(order, flips, direction, head):
    affine = {"straight": head.affine, "oblique": rounded_rotation(9) @ head.affine, "sheared": sheared(0.3)}[direction]
    reference = Image.from_array(head.values, affine)
    values, other = reordered(head.values, affine, order, flips)
    path = head.save(nib.Nifti1Image(np.ascontiguousarray(values), other), "reordered.nii")
    image = read(path)
    points = reference.grid.to_world(reference.grid.voxels())
    voxels = image.grid.to_voxel(points)
    found = image.data[0].numpy()[tuple(np.rint(voxels).astype(int).T)]
    np.testing.assert_array_equal(found, head.values.ravel())
    assert np.abs(image.grid.to_world(np.rint(voxels)) - points).max() < 0.01
    if direction != "sheared":
        peer = sitk.ReadImage(str(path))
        theirs = np.array([peer.TransformContinuousIndexToPhysicalPoint([3.0, 4.0, 5.0])]) * [-1, -1, 1]
        np.testing.assert_allclose(image.grid.to_world(np.array([[3.0, 4.0, 5.0]])), theirs, atol=0.01)


@pytest.mark.parametrize("size", [pytest.param(1e-6, id="G10-small"), pytest.param(1e6, id="G10-large")])
def test_implausible_voxel_size(size, head, warns, refuses):
    path = place_with_sform(head, np.diag([size, size, size, 1]))
    with warns("W-GEO-010"):
        read(path)
    with refuses("E-GEO-010", 3, head.folder):
        read(path, ReadPolicy(strict=True))


IMAGE_GRID = Grid((16, 18, 20), np.diag([1, 1.5, 2, 1]))


def moved(millimetres):
    affine = IMAGE_GRID.affine.copy()
    affine[0, 3] += millimetres
    return Grid(IMAGE_GRID.shape, affine)


@pytest.mark.parametrize("row", ["G15"])
def test_image_and_its_labels(row, tmp_path, refuses, warns):
    noisy = Grid(IMAGE_GRID.shape, IMAGE_GRID.affine + 1e-8 * np.array([[1, -1, 1, 0]] * 3 + [[0] * 4]))
    check_same_space(IMAGE_GRID, noisy, "labels.nii")
    with warns("W-GEO-015", r"0\.5 mm"):
        check_same_space(IMAGE_GRID, moved(0.5), "labels.nii")
    with refuses("E-GEO-015", 3, tmp_path):
        check_same_space(IMAGE_GRID, moved(3), "labels.nii")
    with refuses("E-GEO-015", 3, tmp_path):
        check_same_space(IMAGE_GRID, Grid((16, 18, 21), IMAGE_GRID.affine), "labels.nii")


def with_axes(head, values, intent=0):
    image = nib.Nifti1Image(values, head.affine)
    image.header["intent_code"] = intent
    return head.save(image)


@pytest.mark.parametrize("row", ["G16"])
def test_four_axes_of_one_volume(row, head, warns, equals_head):
    path = with_axes(head, head.values[..., None])
    with warns("W-GEO-016"):
        equals_head(path)


@pytest.mark.parametrize("row", ["G17"])
@pytest.mark.parametrize("name", ["head.nii.gz", "head.nrrd", "head.mha"])
def test_several_volumes(row, name, head, refuses):
    values = np.stack([head.values, head.values + 1, head.values + 2], -1)
    path = head.folder / name
    if name == "head.nrrd":
        lines = "NRRD0004\ntype: short\ndimension: 4\nspace: RAS\nsizes: 16 18 20 3\nendian: little\nencoding: raw\n"
        directions = "space directions: (1,0,0) (0,1.5,0) (0,0,2) none\nkinds: domain domain domain list\n\n"
        path.write_bytes((lines + directions).encode() + values.tobytes("F"))
    elif name == "head.mha":
        lines = "NDims = 4\nDimSize = 16 18 20 3\nElementSpacing = 1 1.5 2 1\nElementType = MET_SHORT\n"
        path.write_bytes((lines + "ElementDataFile = LOCAL\n").encode() + values.tobytes("F"))
    else:
        with_axes(head, values)
    with refuses("E-GEO-017", 3, head.folder):
        read(path)
    with refuses("E-GEO-017", 3, head.folder):
        read(path, ReadPolicy(volume=3))
    for volume in range(3):
        image = read(path, ReadPolicy(volume=volume))
        np.testing.assert_array_equal(image.data[0].numpy(), head.values + volume)


@pytest.mark.parametrize("row", ["G18"])
@pytest.mark.parametrize("intent", [0, 1006, 1007])
def test_vectors(row, intent, head, refuses):
    path = with_axes(head, np.zeros((16, 18, 20, 1, 3), np.float32), intent)
    with refuses("E-GEO-018", 3, head.folder):
        read(path)


SIZES = [
    pytest.param((1, 1, 1), id="G19-one-voxel"),
    pytest.param((1, 1, 9), id="G19-one-line"),
    pytest.param((9,), id="G19-one-axis"),
]


@pytest.mark.parametrize("shape", SIZES)
def test_too_few_axes(shape, head, refuses):
    path = with_axes(head, np.ones(shape, np.int16))
    with refuses("E-GEO-019", 3, head.folder):
        read(path)


@pytest.mark.parametrize("shape", [pytest.param((3, 3, 3), id="G19-3x3x3"), pytest.param((5, 500, 500), id="G19-thin")])
def test_odd_sizes_are_read(shape, head):
    assert read(with_axes(head, np.ones(shape, np.int16))).grid.shape == shape


SLICES = [
    pytest.param((16, 18), (0, 1), id="G19-two-axes"),
    pytest.param((16, 18, 1), (0, 1), id="G19-axial"),
    pytest.param((16, 1, 20), (0, 2), id="G19-coronal"),
    pytest.param((1, 18, 20), (1, 2), id="G19-sagittal"),
]


@pytest.mark.parametrize(("shape", "axes"), SLICES)
def test_one_slice_is_a_2d_image_in_the_plane_of_the_world(shape, axes, head):
    image = read(with_axes(head, np.arange(np.prod(shape)).reshape(shape).astype(np.int16)))
    keep = [*axes, 3]
    np.testing.assert_allclose(image.grid.affine, head.affine[np.ix_(keep, keep)], atol=1e-6)
    assert image.data.shape == (1, *image.grid.shape)
    np.testing.assert_array_equal(image.data.numpy().ravel(), np.arange(np.prod(shape)))


@pytest.mark.parametrize("row", ["G19-oblique"])
def test_oblique_slice_keeps_its_lengths(row, head, warns):
    affine = rounded_rotation(9) @ head.affine
    image = nib.Nifti1Image(head.values[:, :, :1], affine)
    with warns("W-GEO-019"):
        grid = read(head.save(image)).grid
    corners = Grid((16, 18, 1), affine).corners[::2]
    for a, b in product(range(4), repeat=2):
        expected = np.linalg.norm(corners[a] - corners[b])
        assert np.linalg.norm(grid.corners[a] - grid.corners[b]) == pytest.approx(expected, abs=1e-4)
