"""Labels and landmarks that belong to the images of a run."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from anamorph.data.files import write
from anamorph.data.image import Image, Labelmap, ReadPolicy
from anamorph.errors import AnamorphWarning, InputError
from anamorph.inference.run import labels_of
from anamorph.spatial.grid import Grid


@pytest.fixture
def image() -> Image:
    return Image(torch.rand(1, 10, 9, 8), Grid.from_spacing((10, 9, 8), 2.0))


def test_labels_on_a_finer_grid_are_brought_over(image, tmp_path):
    fine = image.grid.resized((20, 18, 16))
    data = torch.zeros(fine.shape, dtype=torch.int32)
    data[4:12, 4:12, 4:12] = 70000
    write(Labelmap(data, fine, np.dtype(np.int32)), tmp_path / "labels.nii.gz")
    with pytest.warns(AnamorphWarning, match=r"W-GEO-015.*another grid"):
        labels = labels_of(image, tmp_path / "labels.nii.gz", ReadPolicy())
    assert labels.grid.same_as(image.grid)
    expected = torch.zeros(image.grid.shape, dtype=torch.int32)
    expected[2:6, 2:6, 2:6] = 70000
    assert torch.equal(labels.data, expected)


def testlabels_of_the_same_size_elsewhere_are_refused(image, tmp_path):
    shifted = image.grid.cropped((3, 0, 0), image.grid.shape)
    write(Labelmap(torch.ones(shifted.shape, dtype=torch.int32), shifted), tmp_path / "labels.nii.gz")
    with pytest.raises(InputError, match=r"E-GEO-015.*6 mm away"):
        labels_of(image, tmp_path / "labels.nii.gz", ReadPolicy())
