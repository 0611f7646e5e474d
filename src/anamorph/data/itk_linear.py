"""The ways ITK's classes spell a linear map in numbers, as of ITK 5.4: angles, versors, scales, matrices.

x -> L (x - centre) + centre + translation, in LPS mm.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

Numbers = Float[np.ndarray, " _"]


@dataclass(frozen=True)
class LinearKind:
    """How one ITK class spells a matrix.

    Args:
        count: parameters in 2-D or 3-D.
        read: parameters, fixed parameters and dimension -> linear part, translation and centre.
        ndim: the only dimension, if there is one.
        centred: whether the fixed parameters begin with the centre.
    """

    count: Callable[[int], int]
    read: Callable[[Numbers, Numbers, int], tuple[np.ndarray, np.ndarray, np.ndarray]]
    ndim: int | None = None
    centred: bool = True


def _turn(angle: float) -> np.ndarray:
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, -s], [s, c]])


def _about(axis: int, angle: float) -> np.ndarray:
    """Rotation by ``angle`` about one axis, right-handed."""
    c, s = np.cos(angle), np.sin(angle)
    j, k = (axis + 1) % 3, (axis + 2) % 3
    matrix = np.eye(3)
    matrix[j, j], matrix[j, k], matrix[k, j], matrix[k, k] = c, -s, s, c
    return matrix


def _euler(angles: np.ndarray, zyx: bool) -> np.ndarray:
    x, y, z = (_about(axis, angle) for axis, angle in enumerate(angles))
    return z @ y @ x if zyx else z @ x @ y


def _versor(vector: np.ndarray) -> np.ndarray:
    """Rotation by the unit quaternion with this vector part and a scalar part that is not negative."""
    x, y, z = vector
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + 2 * np.sqrt(max(0.0, 1 - vector @ vector)) * cross + 2 * cross @ cross


def _skew(numbers: np.ndarray) -> np.ndarray:
    """Off-diagonal entries by rows."""
    matrix = np.zeros((3, 3))
    matrix[~np.eye(3, dtype=bool)] = numbers
    return matrix


def _upper(numbers: np.ndarray) -> np.ndarray:
    matrix = np.eye(3)
    matrix[np.triu_indices(3, 1)] = numbers
    return matrix


def _affine(p: Numbers, c: Numbers, n: int):
    return p[: n * n].reshape(n, n), p[n * n :], c[:n]


LINEAR: dict[str, LinearKind] = {
    "IdentityTransform": LinearKind(lambda n: 0, lambda p, c, n: (np.eye(n), np.zeros(n), np.zeros(n)), centred=False),
    "TranslationTransform": LinearKind(lambda n: n, lambda p, c, n: (np.eye(n), p, np.zeros(n)), centred=False),
    "ScaleTransform": LinearKind(lambda n: n, lambda p, c, n: (np.diag(p), np.zeros(n), c[:n])),
    "AffineTransform": LinearKind(lambda n: n * n + n, _affine),
    "MatrixOffsetTransformBase": LinearKind(lambda n: n * n + n, _affine),
    "Euler2DTransform": LinearKind(lambda n: 3, lambda p, c, n: (_turn(p[0]), p[1:], c[:2]), 2),
    "Rigid2DTransform": LinearKind(lambda n: 3, lambda p, c, n: (_turn(p[0]), p[1:], c[:2]), 2),
    "Similarity2DTransform": LinearKind(lambda n: 4, lambda p, c, n: (p[0] * _turn(p[1]), p[2:], c[:2]), 2),
    "Euler3DTransform": LinearKind(lambda n: 6, lambda p, c, n: (_euler(p[:3], bool(c[3:].any())), p[3:], c[:3]), 3),
    "VersorTransform": LinearKind(lambda n: 3, lambda p, c, n: (_versor(p), np.zeros(3), c[:3]), 3),
    "VersorRigid3DTransform": LinearKind(lambda n: 6, lambda p, c, n: (_versor(p[:3]), p[3:], c[:3]), 3),
    "Similarity3DTransform": LinearKind(lambda n: 7, lambda p, c, n: (p[6] * _versor(p[:3]), p[3:6], c[:3]), 3),
    "ScaleVersor3DTransform": LinearKind(
        lambda n: 9, lambda p, c, n: (_versor(p[:3]) + np.diag(p[6:] - 1), p[3:6], c[:3]), 3
    ),
    "ScaleSkewVersor3DTransform": LinearKind(
        lambda n: 15, lambda p, c, n: (_versor(p[:3]) + np.diag(p[6:9] - 1) + _skew(p[9:]), p[3:6], c[:3]), 3
    ),
    "ComposeScaleSkewVersor3DTransform": LinearKind(
        lambda n: 12, lambda p, c, n: (_versor(p[:3]) @ np.diag(p[6:9]) @ _upper(p[9:]), p[3:6], c[:3]), 3
    ),
}
