"""The same Jacobian determinants as SimpleITK, away from the border."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
from scipy.ndimage import gaussian_filter

from anamorph.evaluation.folding import folding, jacobian_determinant

LPS = np.array([-1.0, -1.0, 1.0])


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.8, 1.4, 3.0)])
def test_random_smooth_displacement(spacing, seed):
    shape = (12, 14, 10)
    rng = np.random.default_rng(seed)
    displacement = np.stack([gaussian_filter(rng.standard_normal(shape), 1.5) for _ in range(3)]) * 12  # LPS mm
    peer = sitk.GetImageFromArray(np.moveaxis(displacement, 0, -1).transpose(2, 1, 0, 3), isVector=True)
    peer.SetSpacing(spacing)
    theirs = sitk.GetArrayFromImage(sitk.DisplacementFieldJacobianDeterminant(peer)).T
    affine = np.diag([*(LPS * spacing), 1.0])
    ours = jacobian_determinant(displacement * LPS[:, None, None, None], affine)
    inner = (slice(1, -1),) * 3
    np.testing.assert_allclose(ours[inner], theirs[inner], rtol=1e-4, atol=1e-4)
    mask = np.zeros(shape, bool)
    mask[inner] = True
    found = folding(displacement * LPS[:, None, None, None], affine, mask)
    assert found.folded_voxels == np.count_nonzero(theirs[inner] <= 0) > 0
