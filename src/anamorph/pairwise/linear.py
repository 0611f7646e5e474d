"""Rigid, similarity and affine alignment: a few parameters, a smooth objective, a quasi-Newton method, coarse to fine.

    minimise over p    similarity( F, M(A_p x) )        A_p as in spatial.affine, about the fixed image's centre

Parameters are scaled so that a unit step of any of them moves the fixed image's voxels by about one millimetre.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

from anamorph.pairwise.comparison import Compare
from anamorph.pairwise.preparation import Scene
from anamorph.spatial.affine import affine_points, matrix_from_parameters, parameters_from_matrix
from anamorph.spatial.field import sample
from anamorph.types import AffineKind


def compare_linear(fixed: Scene, moving: Scene, matrix: Tensor, compare: Compare) -> tuple[Tensor, float]:
    """The similarity under a world matrix 1 (d+1) (d+1), and the share of the fixed image's weight that overlaps."""
    to_moving = torch.from_numpy(moving.grid.inverse_affine).to(matrix)
    to_world = torch.from_numpy(fixed.grid.affine.copy()).to(matrix)
    points = affine_points((to_moving @ matrix @ to_world).to(moving.image), fixed.grid.shape)
    warped = sample(moving.image, points, outside="border")
    seen = _coverage(moving, points.detach())
    weight = seen if fixed.mask is None else seen * fixed.mask
    total = fixed.image.numel() if fixed.mask is None else float(fixed.mask.sum())
    return compare(fixed.image, warped, fixed.mask, seen), float(weight.sum()) / total


def _coverage(moving: Scene, points: Tensor) -> Tensor:
    size = torch.tensor(moving.grid.shape, dtype=points.dtype, device=points.device)
    size = size.view(1, -1, *[1] * (points.dim() - 2))
    inside = ((points >= -0.5) & (points <= size - 0.5)).all(1, keepdim=True).to(moving.image)
    return inside if moving.mask is None else inside * sample(moving.mask, points)


def refine_linear(
    fixed: Scene, moving: Scene, start: np.ndarray, kind: AffineKind, compare: Compare, iterations: int = 40
) -> tuple[np.ndarray, float]:
    """World matrix of the given kind that matches best near ``start``, and its similarity.

    Never returns anything worse than where it began.
    """
    ndim, centre = fixed.grid.ndim, fixed.centre
    scale = _scales(fixed, kind)
    initial = (parameters_from_matrix(start, kind, centre) / scale).numpy()

    def objective(scaled: np.ndarray) -> tuple[float, np.ndarray]:
        p = torch.from_numpy(scaled).requires_grad_(True)
        matrix = matrix_from_parameters((p * scale)[None], kind, ndim, centre)
        value, overlap = compare_linear(fixed, moving, matrix, compare)
        (gradient,) = torch.autograd.grad(value, p)
        return float(value.detach()) if overlap > 0 else np.inf, gradient.double().numpy()

    result = minimize(objective, initial, jac=True, method="L-BFGS-B", options={"maxiter": iterations, "ftol": 1e-7})
    best = torch.from_numpy(np.asarray(result.x))
    matrix = matrix_from_parameters((best * scale)[None], kind, ndim, centre)[0].numpy()
    return matrix, float(result.fun)


def _scales(fixed: Scene, kind: AffineKind) -> Tensor:
    """What a unit of each scaled parameter stands for: mm, or radians and log scales that move the rim by a mm."""
    ndim = fixed.grid.ndim
    radius = float(np.sqrt((((np.array(fixed.grid.shape) - 1) * fixed.grid.spacing) ** 2).sum() / 12))
    number = len(parameters_from_matrix(np.eye(ndim + 1), kind))
    return torch.tensor([1.0] * ndim + [1 / radius] * (number - ndim), dtype=torch.float64)
