"""The spline lattice: a partition of unity that agrees with scipy's B-splines and survives refinement."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.interpolate import BSpline

from anamorph.pairwise.settings import PairwiseSettings
from anamorph.pairwise.velocity import (
    SplineVelocity,
    _refit,
    along_axes,
    bending_energy,
    lattice_matrices,
    spline_matrix,
)
from anamorph.spatial.grid import Grid


@given(st.integers(1, 12), st.lists(st.floats(-3, 15), min_size=1, max_size=9))
def test_weights_sum_to_one_everywhere(nodes, positions):
    weights = spline_matrix(nodes, np.array(positions))
    np.testing.assert_allclose(weights.sum(1), 1, atol=1e-12)
    assert (weights >= 0).all()


def test_weights_are_cubic_b_splines():
    inside = np.linspace(2, 6, 23)
    kernel = BSpline.basis_element([-2, -1, 0, 1, 2], extrapolate=False)
    expected = np.nan_to_num(kernel(inside[:, None] - np.arange(9)[None]))
    np.testing.assert_allclose(spline_matrix(9, inside), expected, atol=1e-12)


@settings(max_examples=20)
@given(st.integers(4, 9), st.integers(0, 9))
def test_a_finer_lattice_says_the_same(nodes, seed):
    coefficients = np.random.default_rng(seed).standard_normal(nodes)
    at = (np.arange(200) + 0.5) / 200
    finer = _refit(nodes, 2 * nodes).double().numpy() @ coefficients
    coarse, fine = (
        spline_matrix(nodes, at * nodes - 0.5) @ coefficients,
        spline_matrix(2 * nodes, at * 2 * nodes - 0.5) @ finer,
    )
    assert np.abs(coarse - fine)[30:-30].max() < 0.05 * np.abs(coefficients).max()


@pytest.mark.parametrize("ndim", [2, 3])
def test_a_velocity_is_the_same_on_a_part_of_the_view(ndim):
    view = Grid((20, 18, 16)[:ndim], np.diag([-1.5, 2.0, 3.0, 1.0])[[*range(ndim), 3]][:, [*range(ndim), 3]])
    velocity = SplineVelocity(torch.randn(1, ndim, *(6, 5, 4)[:ndim]), view)
    part = view.cropped((3, 2, 4)[:ndim], (8, 9, 7)[:ndim])
    box = tuple(slice(a, a + n) for a, n in zip((3, 2, 4), part.shape, strict=False))
    torch.testing.assert_close(velocity.on(part), velocity.on(view)[(..., *box)])


def test_a_lattice_reproduces_a_linear_velocity_and_it_costs_nothing():
    view = Grid.from_spacing((24, 24, 24), 2.0)
    line = torch.arange(8.0).view(1, 1, 8, 1, 1).expand(1, 3, 8, 8, 8)
    dense = along_axes(line, lattice_matrices((8, 8, 8), view, view))[..., 6:-6, 6:-6, 6:-6]
    assert float(bending_energy(dense, view.spacing)) < 1e-10
    steps = dense.diff(dim=2)
    torch.testing.assert_close(steps, torch.full_like(steps, 8 / 24), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "wrong",
    [
        {"levels": (2, 4)},
        {"levels": (4,)},
        {"patch_size": 4},
        {"ct_window": (5.0, 5.0)},
        {"smoothness": -1.0},
        {"smoth": 1},
    ],
)
def test_settings_that_make_no_sense_are_refused(wrong):
    with pytest.raises(ValueError, match=r"levels|patch_size|ct_window|smoothness|smoth"):
        PairwiseSettings(**wrong)
