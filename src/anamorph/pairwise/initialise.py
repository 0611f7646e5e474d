"""Where to begin: the headers' word, the centres, and a search over rotations, judged at a coarse resolution.

Every start is a rigid world matrix. Starts that bring too little into overlap are left out; the rest are ranked by
similarity, the best few refined rigidly, and the best of those wins. The headers' own placement wins a near tie, since
two images of one session are usually placed right.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import permutations, product
from typing import Literal

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from anamorph.errors import NumericalError
from anamorph.pairwise.comparison import Compare
from anamorph.pairwise.linear import compare_linear, refine_linear
from anamorph.pairwise.preparation import Scene, halved

COARSE_VOXELS = 12_000
"""Most voxels of the fixed image in the search, about 10 mm for a head; a small image's axes are at least halved."""

REFINED_STARTS = 6
"""Starts that are refined before one is chosen."""

LARGEST_JITTER = 3.0
"""Degrees of the random turns."""

HEADER_ADVANTAGE = 0.02
"""Share by which a start must beat the headers' placement."""


@dataclass(frozen=True)
class Start:
    """A rigid start and how it was found.

    Args:
        matrix: fixed world -> moving world.
        origin: in words.
        similarity: the loss, weighed by the overlap: 1 - overlap (1 - loss). The loss alone sees the overlap only, and
            would often find the least of it the most alike.
        overlap: share of the smaller image that lies in the other.
    """

    matrix: np.ndarray
    origin: str
    similarity: float
    overlap: float


def find_start(
    fixed: Scene,
    moving: Scene,
    compare: Compare,
    search: Literal["header", "auto", "full"],
    least_overlap: float,
    seed: int = 0,
) -> Start:
    """The best start.

    Args:
        fixed: the image that stays.
        moving: the image that is placed.
        compare: a similarity of ``losses``.
        search: how far to look.
        least_overlap: share of the smaller image that has to overlap.
        seed: of the small random turns that keep starts off the axes.

    Raises:
        NumericalError: E-REG-013, no start brings the images into overlap.
    """
    fixed, moving = _coarse(fixed, moving)
    starts = [
        _judge(fixed, moving, matrix, origin, compare) for matrix, origin in _candidates(fixed, moving, search, seed)
    ]
    possible = [start for start in starts if start.overlap >= least_overlap]
    if not possible:
        raise _apart(max(start.overlap for start in starts), least_overlap)
    if search == "header":
        return possible[0]
    ranked = sorted(possible, key=lambda start: start.similarity)[:REFINED_STARTS]
    header = [start for start in possible if start.origin == "header"]
    refined = []
    for start in [*header, *(s for s in ranked if s.origin != "header")]:
        matrix, _ = refine_linear(fixed, moving, start.matrix, "rigid", compare, iterations=25)
        refined.append(_judge(fixed, moving, matrix, start.origin, compare))
    refined = [start for start in refined if start.overlap >= least_overlap] or header or ranked
    best = min(refined, key=lambda start: start.similarity)
    if refined[0].origin == "header" and refined[0].similarity <= best.similarity * (1 + HEADER_ADVANTAGE):
        return refined[0]
    return best


def given_start(fixed: Scene, moving: Scene, compare: Compare, matrix: np.ndarray, least_overlap: float) -> Start:
    """A start of the user's own.

    Raises:
        NumericalError: E-REG-013, it does not bring the images into overlap.
    """
    fixed, moving = _coarse(fixed, moving)
    start = _judge(fixed, moving, matrix, "given", compare)
    if start.overlap < least_overlap:
        raise _apart(start.overlap, least_overlap)
    return start


def _coarse(fixed: Scene, moving: Scene) -> tuple[Scene, Scene]:
    return (
        fixed.with_voxels(min(COARSE_VOXELS, halved(fixed.grid))),
        moving.with_voxels(min(2 * COARSE_VOXELS, halved(moving.grid))),
    )


def _apart(overlap: float, least: float) -> NumericalError:
    return NumericalError(
        "E-REG-013",
        f"the images overlap by {overlap:.0%} at most",
        expected=f"at least {least:.0%}",
        do="check the headers, or use --search auto or an --initial transform",
    )


def _judge(fixed: Scene, moving: Scene, matrix: np.ndarray, origin: str, compare: Compare) -> Start:
    with torch.no_grad():
        value, share = compare_linear(fixed, moving, torch.tensor(matrix)[None], compare)
    volumes = [np.prod(s.grid.shape) * s.grid.voxel_volume for s in (fixed, moving)]
    overlap = min(1.0, share * volumes[0] / min(volumes))
    return Start(matrix, origin, 1 - overlap * (1 - float(value)), overlap)


def _candidates(fixed: Scene, moving: Scene, search: str, seed: int) -> Iterator[tuple[np.ndarray, str]]:
    ndim = fixed.grid.ndim
    yield np.eye(ndim + 1), "header"
    if search == "header":
        return
    anchors = {
        "header": (fixed.grid.centre, fixed.grid.centre),
        "centre of mass": (fixed.centre, moving.centre),
        "centre of view": (fixed.grid.centre, moving.grid.centre),
    }
    for rotation, turn in _rotations(ndim, search, np.random.default_rng(seed)):
        for anchor, (here, there) in anchors.items():
            if anchor == "header" and not turn:
                continue
            matrix = np.eye(ndim + 1)
            matrix[:ndim, :ndim] = rotation
            matrix[:ndim, ndim] = there - rotation @ here
            yield matrix, f"{anchor}{', ' if turn else ''}{turn}"


def _rotations(ndim: int, search: str, rng: np.random.Generator) -> Iterator[tuple[np.ndarray, str]]:
    """The identity, moderate turns, and for a full search every axis-aligned turn as well."""
    yield np.eye(ndim), ""
    angles = (0, -25, 25) if ndim == 3 else (0, -15, 15, -30, 30, -45, 45)
    for degrees in product(angles, repeat=3 if ndim == 3 else 1):
        if any(degrees):
            around = np.add(degrees, rng.uniform(-LARGEST_JITTER, LARGEST_JITTER, len(degrees)))
            yield _turned(around), f"turned by {', '.join(f'{a:.0f}' for a in around)} degrees"
    if search == "full":
        for aligned in _axis_aligned(ndim):
            yield aligned, f"axes turned to {aligned.astype(int).tolist()}"


def _turned(degrees: np.ndarray) -> np.ndarray:
    if len(degrees) == 3:
        return Rotation.from_euler("xyz", degrees, degrees=True).as_matrix()
    c, s = np.cos(np.deg2rad(degrees[0])), np.sin(np.deg2rad(degrees[0]))
    return np.array([[c, -s], [s, c]])


def _axis_aligned(ndim: int) -> Iterator[np.ndarray]:
    """Every rotation that carries axes to axes, the identity left out: 23 in 3-D, 3 in 2-D."""
    for order in permutations(range(ndim)):
        for signs in product((1.0, -1.0), repeat=ndim):
            matrix = np.zeros((ndim, ndim))
            matrix[range(ndim), order] = signs
            if np.linalg.det(matrix) > 0 and not np.array_equal(matrix, np.eye(ndim)):
                yield matrix
