"""Linear maps as parameters and matrices, differentiable, for 2-D and 3-D.

A homogeneous matrix maps points by ``y = L (x - c) + c + t`` with

    L = R(rotation) diag(exp(log_scale)) H(shear)

``R`` a rotation (axis-angle vector in 3-D, one angle in 2-D, radians), ``H`` unit upper triangular, ``c`` a fixed
centre. Every kind uses a prefix of the parameter vector:

===========  ==================================================  ====  ====
kind         parameters, in order                                2-D   3-D
===========  ==================================================  ====  ====
translation  translation                                         2     3
rigid        + rotation                                          3     6
similarity   + one log scale                                     4     7
affine       + log scales (one an axis instead of one), shears   6     12
===========  ==================================================  ====  ====
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from anamorph.types import AffineKind, DisplacementBatch

Parameters = Float[Tensor, "batch parameters"]
Matrices = Float[Tensor, "batch rows columns"]


def number_of_parameters(kind: AffineKind, ndim: int) -> int:
    """Length of the parameter vector."""
    pairs = ndim * (ndim - 1) // 2
    return {"translation": ndim, "rigid": ndim + pairs, "similarity": ndim + pairs + 1, "affine": ndim * (ndim + 1)}[
        kind
    ]


def rotation_matrix(rotation: Float[Tensor, "batch angles"]) -> Matrices:
    """Rotation from one angle (2-D) or an axis-angle vector (3-D), in radians: B d d.

    Source: the exponential map of the rotation group; smooth at zero, which gradient descent needs.
    """
    if rotation.shape[1] == 1:
        generators = torch.tensor([[[0.0, -1.0], [1.0, 0.0]]])
    else:
        generators = torch.zeros(3, 3, 3)
        for k, (i, j) in enumerate([(2, 1), (0, 2), (1, 0)]):
            generators[k, i, j], generators[k, j, i] = 1.0, -1.0
    return torch.matrix_exp(torch.einsum("bk,kij->bij", rotation, generators.to(rotation)))


def matrix_from_parameters(
    parameters: Parameters, kind: AffineKind, ndim: int, centre: Sequence[float] | np.ndarray | None = None
) -> Matrices:
    """Homogeneous matrices B (d+1) (d+1) of the given kind, about ``centre`` (default the origin)."""
    if parameters.shape[1] != number_of_parameters(kind, ndim):
        expected = number_of_parameters(kind, ndim)
        raise ValueError(f"{kind} in {ndim}-D has {expected} parameters, found {parameters.shape[1]}")
    batch, pairs = len(parameters), ndim * (ndim - 1) // 2
    linear = torch.eye(ndim, dtype=parameters.dtype, device=parameters.device).expand(batch, ndim, ndim)
    if kind != "translation":
        linear = rotation_matrix(parameters[:, ndim : ndim + pairs])
    if kind == "similarity":
        linear = linear * parameters[:, -1].exp().view(-1, 1, 1)
    if kind == "affine":
        scale = torch.diag_embed(parameters[:, ndim + pairs : 2 * ndim + pairs].exp())
        shear = torch.diag_embed(torch.ones_like(parameters[:, :ndim]))
        rows, columns = torch.triu_indices(ndim, ndim, 1, device=parameters.device)
        shear[:, rows, columns] = parameters[:, 2 * ndim + pairs :]
        linear = linear @ scale @ shear
    c = torch.zeros(ndim) if centre is None else torch.tensor(np.asarray(centre, dtype=np.float64))
    c = c.to(parameters)
    offset = parameters[:, :ndim] + c - linear @ c
    last = torch.zeros(batch, 1, ndim + 1, dtype=parameters.dtype, device=parameters.device)
    last[..., -1] = 1
    return torch.cat([torch.cat([linear, offset.unsqueeze(-1)], 2), last], 1)


def parameters_from_matrix(
    matrix: np.ndarray, kind: AffineKind, centre: Sequence[float] | np.ndarray | None = None
) -> Float[Tensor, " parameters"]:
    """Parameters (float64) of the map of this kind nearest to a homogeneous matrix; exact where the matrix is of it.

    Raises:
        ValueError: the matrix reflects or is singular, so no rotation is near it.
    """
    from scipy.spatial.transform import Rotation  # costs tenths of a second, which reading a matrix need not pay

    matrix = np.asarray(matrix, dtype=np.float64)
    ndim = len(matrix) - 1
    linear, c = matrix[:ndim, :ndim], np.zeros(ndim) if centre is None else np.asarray(centre, dtype=np.float64)
    determinant = np.linalg.det(linear)
    if not determinant > 0:
        raise ValueError(f"no rotation is near a map of determinant {determinant:.3g}")
    translation = linear @ c + matrix[:ndim, ndim] - c
    if kind == "translation":
        return torch.from_numpy(translation)
    if kind == "affine":
        rotation, upper = np.linalg.qr(linear)
        signs = np.sign(np.diag(upper))
        rotation, upper = rotation * signs, signs[:, None] * upper
        scale = np.diag(upper)
        shear = (upper / scale[:, None])[np.triu_indices(ndim, 1)]
        rest = [*np.log(scale), *shear]
    else:
        # The nearest rotation of the polar decomposition, and the scale that goes with it (B. Horn et al. 1988).
        left, stretches, right = np.linalg.svd(linear)
        rotation = left @ right
        rest = [np.log(stretches.mean())] if kind == "similarity" else []
    if ndim == 2:
        angles = [np.arctan2(rotation[1, 0], rotation[0, 0])]
    else:
        angles = list(Rotation.from_matrix(rotation).as_rotvec())
    return torch.tensor([*translation, *angles, *rest], dtype=torch.float64)


def affine_points(matrix: Matrices, shape: Sequence[int]) -> Float[Tensor, "batch ndim *spatial"]:
    """Where each voxel of ``shape`` goes under matrices between voxel coordinates: B d I J (K)."""
    ndim = len(shape)
    points = matrix[:, :ndim, ndim].view(-1, ndim, *[1] * ndim)
    for axis, n in enumerate(shape):
        along = torch.arange(n, dtype=matrix.dtype, device=matrix.device)
        step = matrix[:, :ndim, axis].view(-1, ndim, *[1] * ndim)
        points = points + step * along.view(*[1] * (2 + axis), n, *[1] * (ndim - axis - 1))
    return points


def affine_displacement(matrix: Matrices, shape: Sequence[int]) -> DisplacementBatch:
    """The displacement of matrices between voxel coordinates of one grid: B d I J (K), voxels."""
    unit = torch.eye(matrix.shape[1], dtype=matrix.dtype, device=matrix.device)
    return affine_points(matrix - unit, shape)
