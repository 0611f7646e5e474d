"""The mean of cases in the space of an atlas, from sums over batches, and the mean of their maps, taken out of it.

With Phi_i = T_i o exp(v_i) from points of the atlas to points of case i,

    z        = mean of z_i o Phi_i                          an update of the atlas, which lies where the atlas does
    Phi_mean = exp(mean of log T_i) o exp(mean of v_i)
    z'       = z o Phi_mean^-1                              the same in the middle of the cases

An atlas that follows z stays where it began, however far all cases lie from there, since z comes from it. One that
follows z' rests only where the mean of the maps is the identity.

Sources: A. Guimond, J. Meunier, J.-P. Thirion (2000), Average brain models: a convergence study,
doi:10.1006/cviu.1999.0815 (mean image through the inverse of the mean deformation); V. Arsigny et al. (2006),
doi:10.1007/11866565_113 (means of velocities); V. Arsigny et al. (2009), doi:10.1007/s10851-008-0135-9 (means of the
logarithms of affine maps).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from jaxtyping import Float
from scipy.linalg import logm
from torch import Tensor

from anamorph.errors import InputError
from anamorph.networks.spatial_transformer import AtlasTransformation, HalfVelocity
from anamorph.spatial.affine import Matrices


def sums_of(*values: Float[Tensor, "batch ..."]) -> tuple[Tensor, ...]:
    """Number of the cases, and sums over them of each of the values, in double precision."""
    count = torch.tensor(len(values[0]), device=values[0].device)
    return count, *(each.double().sum(0, keepdim=True) for each in values)


def means_of(parts: Iterable[Sequence[Tensor]]) -> tuple[Float[Tensor, "1 ..."], ...]:
    """Of each of the values, from the sums over batches, which are added in their order.

    Raises:
        InputError: E-TRN-003, there is no case.
    """
    count, totals = 0, []
    for cases, *part in parts:
        count += int(cases)
        totals = totals or [torch.zeros(())] * len(part)
        totals = [total.to(more.device) + more for total, more in zip(totals, part, strict=True)]
    if not count:
        raise without_labels()
    return tuple((total / count).float() for total in totals)


def without_labels() -> InputError:
    """The refusal of cases that no atlas can be made of."""
    return InputError("E-TRN-003", "no case has labels", expected="some with labels")


def map_parts(maps: AtlasTransformation) -> tuple[HalfVelocity, Matrices]:
    """Of each case what the mean map is made of: v_i, and log T_i between voxels, B (d+1) (d+1); 0 without a T_i.

    Each T_i turns by less than a right angle and does not mirror, so that its logarithm is real.
    """
    ndim = len(maps.shape)
    if maps.matrix is None:
        return maps.velocity, maps.velocity.new_zeros(len(maps.velocity), ndim + 1, ndim + 1)
    found = [np.real(logm(matrix)) for matrix in maps.matrix.double().cpu().numpy()]
    return maps.velocity, torch.from_numpy(np.stack(found)).to(maps.velocity.device)


def mean_map(means: Sequence[Tensor], shape: Sequence[int], squarings: int) -> AtlasTransformation:
    """Phi_mean.

    Args:
        means: of what ``map_parts`` gives.
        shape: of the images.
        squarings: of the integration.
    """
    velocity, logarithm = means
    return AtlasTransformation(velocity, torch.matrix_exp(logarithm), shape, squarings)
