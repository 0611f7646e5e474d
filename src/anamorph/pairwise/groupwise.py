"""Group-wise alignment: the mean of many maps, and the template that images make when it is taken out of each.

A round brings every image I_i to the template by T_i = A_i o exp(v_i), from template points to points of I_i. With

    T_mean   = A o exp(v)            v = mean of v_i,  A = mean of A_i
    T'_i     = T_i o T_mean^-1
    template = mean over i of I_i o T'_i

the template moves to the middle of the group: the average of the warped images pulled through the inverse of the mean
map, with one interpolation of each image instead of two. Velocities have a plain mean. That of the matrices is the
barycentre of their group, whichever side they are multiplied from: A for which the logarithms of A_i A^-1 sum to 0.

Sources: A. Guimond, J. Meunier, J.-P. Thirion (2000), Average brain models: a convergence study,
doi:10.1006/cviu.1999.0815 (mean image through the inverse of the mean deformation); S. Joshi et al. (2004), Unbiased
diffeomorphic atlas construction for computational anatomy, doi:10.1016/j.neuroimage.2004.07.068; V. Arsigny et al.
(2006), doi:10.1007/11866565_113 (means of velocities); V. Arsigny et al. (2009), doi:10.1007/s10851-008-0135-9 (means
of the logarithms of affine maps).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import ceil
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy.linalg import expm, logm
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from anamorph.errors import NumericalError
from anamorph.pairwise.preparation import Scene
from anamorph.spatial.grid import Grid
from anamorph.spatial.transform import Affine, Chain, Transform, Velocity, resample
from anamorph.types import Matrix

LEAST_SEEN = 0.01
"""Share of the images that must see a voxel of the template; where fewer do it is 0."""

LEAST_TRUSTED = 0.1
"""The same for a voxel that an image is registered to."""

BARYCENTRE_STEPS = 50


def mean_affine(matrices: Sequence[Matrix]) -> Matrix:
    """The barycentre of homogeneous matrices; their order does not matter.

    Raises:
        NumericalError: E-ATL-004, some are turned against each other by half a turn or mirrored, so that there is none.
    """
    mean = np.mean(matrices, axis=0)
    if not np.linalg.det(mean[:-1, :-1]) > 1e-9:
        raise _turned()
    for _ in range(BARYCENTRE_STEPS):
        step = np.mean([_logarithm(matrix @ np.linalg.inv(mean)) for matrix in matrices], axis=0)
        mean = expm(step) @ mean
        if np.abs(step).max() < 1e-13 * max(1.0, float(np.abs(mean).max())):
            break
    return mean


def _logarithm(matrix: Matrix) -> Matrix:
    if not np.linalg.det(matrix[:-1, :-1]) > 0:
        raise _turned()
    logarithm = np.asarray(logm(matrix))
    if float(np.abs(np.imag(logarithm)).max()) > 1e-9:
        raise _turned()
    return np.real(logarithm)


def _turned() -> NumericalError:
    return NumericalError(
        "E-ATL-004",
        "maps of the cases that are turned against each other by half a turn or mirrored",
        expected="maps with a mean",
        do="check the headers, or leave out the cases that lie differently",
    )


def parts(transform: Transform) -> tuple[Velocity | None, Affine]:
    """A registration's velocity, if it has one, and the linear map that follows it.

    Raises:
        ValueError: it is made of anything else.
    """
    steps = transform.transforms if isinstance(transform, Chain) else (transform,)
    velocity = steps[0] if isinstance(steps[0], Velocity) else None
    linear = np.eye(transform.ndim + 1)
    for step in steps[velocity is not None :]:
        if not isinstance(step, Affine):
            raise ValueError(f"{transform!r} is no velocity followed by linear maps")
        linear = step.matrix @ linear
    return velocity, Affine(linear)


@dataclass(eq=False)
class MapMean:
    """The mean of maps that are told one after the other; memory grows by a matrix each.

    Args:
        with_linear: whether the linear parts have a part in it; otherwise its linear part is the identity.
    """

    with_linear: bool = True
    matrices: list[Matrix] = field(default_factory=list)
    _total: Tensor | None = None
    _first: Velocity | None = None

    def add(self, transform: Transform) -> None:
        """Tell one more map: a velocity followed by linear maps, or linear maps alone."""
        velocity, linear = parts(transform)
        self.matrices.append(linear.matrix)
        if velocity is None:
            return
        values = velocity.velocity.double()
        if self._total is None or self._first is None:
            self._first, self._total = velocity, values.clone()
        elif velocity.grid.same_as(self._first.grid, tolerance_mm=1e-6):
            self._total += values
        else:  # memory ran low in between, and the working grid shrank
            self._total += resample(values, velocity.grid, self._first.grid)

    def transform(self) -> Transform:
        """The mean, as a velocity followed by one linear map, or that alone."""
        ndim = len(self.matrices[0]) - 1
        linear = Affine(mean_affine(self.matrices)) if self.with_linear else Affine.identity(ndim)
        if self._total is None or self._first is None:
            return linear
        velocity = (self._total / len(self.matrices)).float()
        return Chain((Velocity(velocity, self._first.grid, self._first.steps), linear))


def centred(transform: Transform, mean: Transform) -> Chain:
    """A map with the group's mean taken out: T o T_mean^-1."""
    return Chain((mean.inverse(), transform))


def linear_part(transform: Transform) -> Affine:
    """The linear maps of a chain in order, as one; deformations are left out."""
    matrix = np.eye(transform.ndim + 1)
    for step in transform.transforms if isinstance(transform, Chain) else (transform,):
        if isinstance(step, Affine):
            matrix = step.matrix @ matrix
    return Affine(matrix)


def deformation_on(transform: Transform, grid: Grid) -> Float[np.ndarray, "ndim *spatial"]:
    """What a map does beyond its linear part L: L^-1(T(x)) - x at every voxel of a grid, RAS mm, d I J (K)."""
    return Chain((transform, linear_part(transform).inverse())).displacement_on(grid)


class Template(NamedTuple):
    """An image of the group, and how many of its images see each voxel."""

    image: Float[Tensor, "*spatial"]
    seen: Float[Tensor, "*spatial"] | None = None

    def without(
        self, image: Float[Tensor, "*spatial"], seen: Float[Tensor, "*spatial"]
    ) -> tuple[Float[Tensor, "*spatial"], Bool[Tensor, "*spatial"]]:
        """The mean of the others, for the image that is registered next, and where any of them sees something.

        The template keeps a share of every image, noise included, which would hold the image where it is. A template
        that is no mean stays as it is.

        Args:
            image: as it was told to ``ImageMean.add``, times what it sees.
            seen: how much of each voxel it sees.
        """
        if self.seen is None:
            return self.image, torch.ones(self.image.shape, dtype=torch.bool)
        rest = self.seen - seen
        valid = rest > LEAST_TRUSTED * float(self.seen.max())
        others = (self.image * self.seen - image) / rest.clamp_min(LEAST_SEEN)
        return torch.where(valid, others, torch.zeros_like(others)).clamp(0, 1), valid


class ImageMean:
    """The mean of images on one grid, told one after the other; where one sees nothing it has no part in it.

    Args:
        grid: of the mean.
        channels: of every image.
    """

    def __init__(self, grid: Grid, channels: int = 1) -> None:
        self.grid, self.count = grid, 0
        self._total = torch.zeros((channels, *grid.shape), dtype=torch.float64)
        self._seen = torch.zeros(grid.shape, dtype=torch.float64)

    def add(self, values: Float[Tensor, "channels *spatial"], seen: Float[Tensor, "*spatial"]) -> None:
        """Tell one more image, already multiplied by how much of each voxel it sees, 0 to 1."""
        self._total += values
        self._seen += seen
        self.count += 1

    def mean(self) -> Float[Tensor, "channels *spatial"]:
        """The mean, float32; 0 where hardly any image sees anything."""
        enough = self._seen > LEAST_SEEN * max(self.count, 1)
        mean = self._total / torch.where(enough, self._seen, torch.ones_like(self._seen))
        return torch.where(enough, mean, torch.zeros_like(mean)).float()

    def template(self) -> Template:
        """The first channel as a template."""
        return Template(self.mean()[0], self._seen.float())


def seen_through(
    scene: Scene, transform: Transform, grid: Grid
) -> tuple[Float[Tensor, "1 *spatial"], Float[Tensor, "*spatial"]]:
    """A scene on another grid through a map, times how much of each voxel it sees, and that share."""
    weight = torch.ones_like(scene.image[0, 0]) if scene.mask is None else scene.mask[0, 0].to(scene.image)
    both = resample(torch.stack([scene.image[0, 0] * weight, weight]).cpu(), scene.grid, grid, transform)
    return both[:1], both[1]


def common_grid(grids: Iterable[Grid]) -> Grid:
    """A grid along the world's axes with the median spacing and extent of many, in the mean of their middles."""
    spacings, extents, middles = [], [], []
    for grid in grids:
        directions = np.abs(grid.affine[:-1, :-1] / grid.spacing)
        world, axes = linear_sum_assignment(-directions)
        along = axes[np.argsort(world)]
        spacings.append(grid.spacing[along])
        extents.append((grid.spacing * grid.shape)[along])
        middles.append(grid.centre)
    spacing, extent = np.median(spacings, axis=0), np.median(extents, axis=0)
    shape = [max(1, ceil(length / step - 1e-6)) for length, step in zip(extent, spacing, strict=True)]
    affine = np.diag([*spacing, 1.0])
    affine[:-1, -1] = np.mean(middles, axis=0) - spacing * (np.array(shape) - 1) / 2
    return Grid(tuple(shape), affine)


def about_centres(centres: Sequence[np.ndarray]) -> list[Affine]:
    """The shifts from the mean of world points to each of them: where an alignment begins that knows nothing else."""
    mean = np.mean(centres, axis=0)
    shifts = []
    for centre in centres:
        matrix = np.eye(len(mean) + 1)
        matrix[:-1, -1] = centre - mean
        shifts.append(Affine(matrix))
    return shifts
