"""Which way things go, and what happens to labels."""

from __future__ import annotations

from contextlib import nullcontext

import numpy as np
import pytest
import torch

from anamorph.data.image import Image, Labelmap, Landmarks, Mask
from anamorph.errors import AnamorphWarning, ConfigurationError, InputError
from anamorph.inference.warp import warp
from anamorph.spatial.grid import Grid
from anamorph.spatial.transform import Affine, Chain, Field, Velocity

FIXED = Grid.from_spacing((12, 10, 8), (1.0, 2.0, 3.0))


def shift(*millimetres: float) -> Affine:
    matrix = np.eye(len(millimetres) + 1)
    matrix[:-1, -1] = millimetres
    return Affine(matrix)


MOVING = Grid(FIXED.shape, shift(100, 50, 20).matrix @ FIXED.affine)
TO_MOVING = Chain((shift(102, 50, 20), Affine.identity(3)))
"""Fixed -> moving: the moving image shows everything 2 mm further along the first axis."""


def dot(grid: Grid, *voxel: int) -> torch.Tensor:
    values = torch.zeros(grid.shape)
    values[voxel] = 1
    return values


@pytest.mark.parametrize(
    ("direction", "source", "target", "before", "after"),
    [
        ("moving_to_fixed", MOVING, FIXED, (5, 4, 3), (3, 4, 3)),
        ("fixed_to_moving", FIXED, MOVING, (3, 4, 3), (5, 4, 3)),
    ],
    ids=["moving_to_fixed", "fixed_to_moving"],
)
def test_images_labels_masks_and_landmarks_go_the_same_way(direction, source, target, before, after):
    values = dot(source, *before)
    image = warp(Image(values[None], source, "ct", name="a"), TO_MOVING, target, direction=direction)
    assert torch.allclose(image.data[0], dot(target, *after), atol=1e-5)
    assert (image.grid, image.modality, image.name) == (target, "ct", "a")
    labels = warp(Labelmap(values.int() * 7, source), TO_MOVING, target, direction=direction)
    assert torch.equal(labels.data, dot(target, *after).int() * 7)
    mask = warp(Mask(values > 0, source), TO_MOVING, target, direction=direction)
    assert torch.equal(mask.data, dot(target, *after) > 0)
    point = Landmarks(source.to_world(np.array([before])), ("p",))
    moved = warp(point, TO_MOVING, target, direction=direction)
    assert np.allclose(moved.points, target.to_world(np.array([after])))
    assert moved.names == ("p",)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32, np.uint32, np.int64])
def test_labels_keep_their_values_and_type(dtype):
    wanted = [0, 1, 200] if dtype == np.uint8 else [0, 2035, -3 if np.dtype(dtype).kind == "i" else 3]
    if np.dtype(dtype).itemsize >= 4:
        wanted += [70000, 16777217]
    if dtype == np.int64:
        wanted += [2**53 + 1, -(2**62) - 1]
    array = np.resize(np.array(wanted, dtype=dtype), FIXED.shape)
    labels = Labelmap.from_array(array, FIXED.affine, {2035: "hippocampus"})
    for interpolation in ("nearest", "linear"):
        warped = warp(labels, Affine.identity(3), FIXED, interpolation=interpolation)
        assert np.array_equal(warped.data.numpy(), array.astype(np.int64))
        assert warped.data.dtype == labels.data.dtype
        assert warped.dtype == np.dtype(dtype)
        assert warped.names == {2035: "hippocampus"}


@pytest.mark.parametrize(
    ("millimetres", "expected"),
    [(0.0, [5, 3, 3, 9]), (0.4, [5, 3, 3, 9]), (0.5, [3, 3, 3, 9]), (0.6, [3, 3, 9, 0])],
)
def test_the_largest_share_wins_the_lower_label_at_a_tie_and_nothing_beyond_the_border_L09(millimetres, expected):
    line = Grid.from_spacing((4, 1))
    labels = Labelmap(torch.tensor([[5], [3], [3], [9]], dtype=torch.int32), line)
    with pytest.warns(AnamorphWarning, match="W-LAB-007.*: 5$") if 5 not in expected else nullcontext():
        warped = warp(labels, shift(millimetres, 0.0), line, interpolation="linear")
    assert warped.data.flatten().tolist() == expected


def test_shares_of_several_neighbours_add_up():
    square = Grid.from_spacing((2, 2))
    labels = Labelmap(torch.tensor([[8, 2], [2, 4]], dtype=torch.int32), square)
    # The shares are 0.36 for label 8, 0.24 + 0.24 for label 2 and 0.16 for label 4.
    middle = Grid((1, 1), np.array([[1, 0, 0.4], [0, 1, 0.4], [0, 0, 1]]))
    with pytest.warns(AnamorphWarning, match="W-LAB-007: 2 labels have no voxel left: 4, 8"):
        warped = warp(labels, Affine.identity(2), middle, interpolation="linear")
    assert warped.data.item() == 2


def test_a_map_without_background_gets_background_where_it_is_not_seen():
    line = Grid.from_spacing((3, 1))
    labels = Labelmap(torch.full((3, 1), 4, dtype=torch.int32), line)
    for interpolation in ("nearest", "linear"):
        warped = warp(labels, shift(1.0, 0.0), line, interpolation=interpolation)
        assert warped.data.flatten().tolist() == [4, 4, 0]


@pytest.mark.parametrize("row", ["L07"])
def test_lost_labels_are_listed(row: str):
    data = torch.zeros(FIXED.shape, dtype=torch.int32)
    data[6, 5, 4], data[:4, :4, :4] = 31, 7
    coarse = FIXED.resized((4, 4, 3))
    with pytest.warns(AnamorphWarning, match=r"W-LAB-007: atlas\.nii: 1 labels have no voxel left: 31"):
        warp(Labelmap(data, FIXED, name="atlas.nii"), Affine.identity(3), coarse)


@pytest.mark.parametrize("row", ["L08"])
def test_five_hundred_labels(row: str):
    array = np.arange(960, dtype=np.int32).reshape(FIXED.shape) % 500 * 1000
    labels = Labelmap.from_array(array, FIXED.affine)
    for interpolation in ("nearest", "linear"):
        assert np.array_equal(warp(labels, Affine.identity(3), FIXED, interpolation=interpolation).data, array)


def test_an_image_is_filled_with_its_minimum_or_with_what_is_asked():
    image = Image(torch.full((1, 4, 4), 40.0), Grid.from_spacing((4, 4)))
    image.data[0, 0, 0] = -1000.0
    far = shift(2.0, 0.0)
    assert warp(image, far, image.grid).data[0, -1].tolist() == [-1000.0] * 4
    assert warp(image, far, image.grid, fill=7.0).data[0, -1].tolist() == [7.0] * 4


def test_what_was_masked_out_stays_so():
    valid = torch.ones(6, 6, dtype=torch.bool)
    valid[2, 2] = False
    image = Image(torch.rand(1, 6, 6), Grid.from_spacing((6, 6)), valid=valid)
    warped = warp(image, shift(0.5, 0.0), image.grid)
    assert warped.valid is not None
    assert np.argwhere(~warped.valid.numpy()).tolist() == [[1, 2], [2, 2]]


def test_landmarks_go_back_where_they_came_from():
    rng = np.random.default_rng(0)
    smooth = torch.nn.functional.interpolate(
        torch.from_numpy(rng.normal(size=(1, 3, 4, 4, 4))), (12, 10, 8), mode="trilinear"
    )
    chain = Chain((Velocity(smooth[0], FIXED), Affine(shift(5, 6, 7).matrix @ np.diag([1.2, 0.9, 1.1, 1]))))
    points = Landmarks(FIXED.to_world(rng.uniform(3, [8, 6, 4], (30, 3))))
    there = warp(points, chain, direction="fixed_to_moving")
    back = warp(there, chain, direction="moving_to_fixed")
    assert np.abs(back.points - points.points).max() < 1e-4
    assert np.abs(there.points - points.points).max() > 1


def test_a_field_somewhere_else_is_refused():
    field = Field(torch.zeros(3, 4, 4, 4), Grid.from_spacing((4, 4, 4)))
    with pytest.raises(InputError, match="E-TRF-005"):
        warp(Image(torch.zeros(1, *MOVING.shape), MOVING), field, MOVING)


def test_an_image_needs_a_grid():
    with pytest.raises(ConfigurationError, match="E-CFG-005"):
        warp(Mask(torch.ones(4, 4, 4, dtype=torch.bool), Grid.from_spacing((4, 4, 4))), Affine.identity(3))


def test_dimensions_have_to_agree():
    image = Image(torch.zeros(1, 4, 4, 4), Grid.from_spacing((4, 4, 4)))
    with pytest.raises(InputError, match="E-TRF-005: 3-D data, a 3-D transform, a 2-D grid"):
        warp(image, Affine.identity(3), Grid.from_spacing((4, 4)))
