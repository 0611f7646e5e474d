"""Boxes about structures, the parts of atlases that belong to them, and where a network looks."""

from __future__ import annotations

import numpy as np
import torch

from anamorph.data.image import Image
from anamorph.inference.multi_atlas_region import cropped, embedded, part_met, part_seen, region_about, view_of_network
from anamorph.spatial.grid import Grid
from anamorph.spatial.transform import Affine


def test_the_box_has_its_margin_and_lies_on_a_raster_of_8_mm() -> None:
    grid = Grid.from_spacing((100, 60), (2.0, 1.0))
    mask = torch.zeros(50, 30, dtype=torch.bool)  # the same view in voxels twice as long
    mask[20:30, 10:20] = True  # voxels 40 to 60, and 20 to 40
    assert region_about(mask, grid.resized((50, 30)), grid, 0.0) == ((40, 16), (20, 24))
    assert region_about(mask, grid.resized((50, 30)), grid, 10.0) == ((32, 8), (36, 48))
    assert region_about(mask, grid.resized((50, 30)), grid, 1000.0) == ((0, 0), (100, 60))
    assert region_about(torch.zeros(50, 30, dtype=torch.bool), grid.resized((50, 30)), grid, 10.0) is None
    coarse = Grid.from_spacing((100, 60), (20.0, 0.5))  # a raster of one voxel, and of 16
    assert region_about(mask, coarse.resized((50, 30)), coarse, 0.0) == ((40, 16), (20, 32))


def test_a_small_structure_gets_a_box_that_can_be_registered() -> None:
    grid = Grid.from_spacing((64, 10))
    mask = torch.zeros(grid.shape, dtype=torch.bool)
    mask[32, 5] = True
    box = region_about(mask, grid, grid, 0.0)
    assert box is not None
    (first, _), shape = box
    assert first <= 32 - 7
    assert shape[0] >= 16
    assert shape[1] == 10


def test_the_part_of_an_atlas_follows_the_alignment_with_room() -> None:
    region = Grid.from_spacing((20, 20)).cropped((40, 40), (20, 20))
    atlas = Grid.from_spacing((200, 200))
    shift = np.array([[1.0, 0, 30], [0, 1, -10], [0, 0, 1]])
    assert part_seen(region, shift, atlas) == ((66, 26), (28, 28))  # edges at 69.5 and 89.5, 3 beyond
    assert part_seen(region, np.array([[1.0, 0, 900], [0, 1, 0], [0, 0, 1]]), atlas) == ((0, 0), (200, 200))


def test_the_part_that_is_met_holds_every_point_of_the_region() -> None:
    region, atlas = Grid.from_spacing((30, 20, 10)), Grid.from_spacing((80, 90, 70))
    matrix = np.array([[0.9, 0.2, 0, 20], [-0.2, 1.1, 0.1, 30], [0, 0, 1.3, 10], [0, 0, 0, 1]])
    start, shape = part_met(region, Affine(matrix), atlas)
    voxels = Affine(matrix)(region.to_world(region.voxels()))
    assert (voxels >= start).all()
    assert (voxels <= np.add(start, shape) - 1).all()
    assert np.prod(shape) < 0.25 * np.prod(atlas.shape)


def test_a_crop_keeps_every_voxel_where_it_was() -> None:
    grid = Grid((6, 5), np.array([[0.0, 2, 7], [-3, 0, 1], [0, 0, 1]]))
    values = torch.arange(30.0).reshape(1, 6, 5)
    part = cropped(Image(values, grid, valid=values[0] > 3), ((2, 1), (3, 4)))
    assert torch.equal(part.data, values[:, 2:5, 1:5])
    np.testing.assert_allclose(part.grid.to_world(np.array([0, 0])), grid.to_world(np.array([2, 1])))
    assert part.valid is not None
    assert part.valid.shape == (3, 4)
    back = embedded(part.data[0], ((2, 1), (3, 4)), (6, 5), -1.0)
    assert torch.equal(back[2:5, 1:5], values[0, 2:5, 1:5])
    assert int((back == -1).sum()) == 30 - 12


def test_a_network_looks_as_in_its_training_unless_the_image_is_longer() -> None:
    own = Grid.from_spacing((20, 20)).cropped((40, 0), (20, 20))  # in the middle of the first axis
    image = Grid.from_spacing((100, 20))
    seen = view_of_network(own, image, np.array([80.0, 3.0]))
    np.testing.assert_allclose(seen.to_world(np.array([0, 0])), [70, 0], atol=0.5)  # the second axis as it was
    np.testing.assert_allclose(view_of_network(own, image, np.array([99.0, 0])).affine[0, 2], 80, atol=0.5)
    np.testing.assert_allclose(view_of_network(own, image, np.array([-9.0, 0])).affine[0, 2], 0, atol=0.5)
    assert view_of_network(own, Grid.from_spacing((20, 10)), np.array([3.0, 3.0])).same_as(own)
