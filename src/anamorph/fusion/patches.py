r"""How far the surroundings of a voxel in an atlas are from those in the target, as maps.

With W_x the window around voxel x (its weights sum to one), f and m the intensities of target and atlas, z-scored over
the whole image, and mu, var, cov their moments under W_x:

    ssd        D = sum_y W_x(y) ( (f(y) - mu_f) / s_f - (m(y) - mu_m) / s_m )^2,   s^2 = var + floor         0 ... 4
    lncc       D = 1 - (cov / (s_f s_m))^2                                                                   0 ... 1
    mind       D = sum_y W_x(y) mean_c ( d_f,c(y) - d_m,c(y) )^2                                             0 ... 1
    local_mi   D = 1 - I_x(f, m) / max( H_x(f), H_x(m) )                                                     0 ... 1

d are the self-similarity channels exp(-D/V) of MIND (Heinrich et al. 2012, doi:10.1016/j.media.2012.05.008; patches of
3^d at distance 1). I and H are of the joint histogram under W_x, whose bins are equal parts of the range between the
first and the 99th percentile of each image. Channels of an image count alike.

Every floor is a share of the variance of the whole image, not of what is in view: a box of an image then gives the same
numbers as the whole. Beyond the border an image goes on with its outermost values.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from anamorph.errors import InputError
from anamorph.fusion.boxes import Box, read
from anamorph.fusion.settings import PatchSimilarity
from anamorph.fusion.windows import Taps, window_mean

FLOOR = 1e-3
"""Variance, as a share of that of the whole image, below which texture counts as noise."""

THINNED = 200_000
"""Voxels from which percentiles are read."""

Prepared = tuple[Tensor, ...]
"""What is computed once of an image, ``channels *spatial`` each. The first are its features."""


class Measure(Protocol):
    """One way to compare patches."""

    reach: int
    """Voxels that features read around their own, before the window."""

    def prepare(self, part: Tensor) -> Prepared:
        """What depends on one image alone, of scaled intensities ``channels *padded``."""
        ...

    def between(self, fixed: Prepared, moving: Prepared) -> Tensor:
        """D at each voxel, ``*inner``."""
        ...


class Moments:
    """ssd and lncc."""

    reach = 0

    def __init__(self, taps: Taps, squared: bool) -> None:
        self.taps, self.squared = taps, squared

    def prepare(self, part: Tensor) -> Prepared:
        """Intensities, their mean under the window, and 1 / s."""
        mean = window_mean(part, self.taps)
        variance = (window_mean(part.square(), self.taps) - mean.square()).clamp_min_(0)
        return part, mean, (variance + FLOOR).rsqrt()

    def between(self, fixed: Prepared, moving: Prepared) -> Tensor:
        """D at each voxel."""
        (f, mean_f, inverse_f), (m, mean_m, inverse_m) = fixed, moving
        correlation = (window_mean(f * m, self.taps) - mean_f * mean_m) * inverse_f * inverse_m
        if self.squared:
            return (1 - correlation.square()).clamp_min_(0).mean(0)
        own = 2 - FLOOR * (inverse_f.square() + inverse_m.square())  # var / (var + floor), of both images
        return (own - 2 * correlation).clamp_min_(0).mean(0)


class Mind:
    """Mean squared difference of MIND's channels."""

    reach = 2

    def __init__(self, taps: Taps) -> None:
        self.taps = taps

    def prepare(self, part: Tensor) -> Prepared:
        """The channels, 2 d for each channel of the image."""
        return (mind(part),)

    def between(self, fixed: Prepared, moving: Prepared) -> Tensor:
        """D at each voxel."""
        return window_mean((fixed[0] - moving[0]).square_().mean(0, keepdim=True), self.taps)[0]


class LocalInformation:
    """Mutual information under the window, of intensities scaled to [0, 1]."""

    reach = 0

    def __init__(self, taps: Taps, bins: int) -> None:
        self.taps, self.bins = taps, bins

    def prepare(self, part: Tensor) -> Prepared:
        """The bin of each voxel, and the entropy under the window in nats."""
        bins = (part * self.bins).floor().clamp(0, self.bins - 1)
        shares = (window_mean((bins == a).float(), self.taps) for a in range(self.bins))
        return bins, torch.stack([_surprise(p) for p in shares]).sum(0)

    def between(self, fixed: Prepared, moving: Prepared) -> Tensor:
        """D at each voxel; 1 where neither image shows anything."""
        (f, entropy_f), (m, entropy_m) = fixed, moving
        joint = torch.zeros_like(entropy_f)
        for a in range(self.bins):
            of_a = f == a
            if bool(of_a.any()):
                for b in range(self.bins):
                    joint += _surprise(window_mean((of_a & (m == b)).float(), self.taps))
        largest = torch.maximum(entropy_f, entropy_m)
        shared = (entropy_f + entropy_m - joint).clamp_min_(0)
        return 1 - (shared / torch.where(largest > 1e-6, largest, torch.inf)).clamp_max_(1).mean(0)


def _surprise(p: Tensor) -> Tensor:
    """-p log p, 0 at 0."""
    return -torch.xlogy(p, p)


def mind(image: Float[Tensor, "channels *padded"]) -> Float[Tensor, "descriptors *inner"]:
    """MIND channels wherever they can be computed: each axis gets shorter by four voxels."""
    differences = []
    for axis in range(1, image.ndim):
        steps = image.narrow(axis, 1, image.shape[axis] - 1) - image.narrow(axis, 0, image.shape[axis] - 1)
        means = window_mean(steps.square_(), (1 / 3,) * 3)
        for other in range(1, image.ndim):
            if other != axis:
                means = means.narrow(other, 1, means.shape[other] - 2)
        differences += [means.narrow(axis, start, image.shape[axis] - 4) for start in (0, 1)]
    stacked = torch.stack(differences)
    variance = stacked.mean(0).clamp_min_(FLOOR)
    return stacked.div_(variance).neg_().exp_().flatten(0, 1)


class Comparison:
    """The target and the images of the atlases, ready to be compared in any box. Atlases are read one at a time.

    Args:
        target: ``channels *spatial``.
        images: of the atlases, on the same grid.
        similarity: what is compared.
        taps: the window.
        bins: of local_mi.

    Raises:
        InputError: E-FUS-003, NaN or infinite intensities.
    """

    def __init__(
        self,
        target: Float[Tensor, "channels *spatial"],
        images: Sequence[Float[Tensor, "channels *spatial"]],
        similarity: PatchSimilarity,
        taps: Taps,
        bins: int,
    ) -> None:
        self.target, self.images = target, images
        self.measure: Measure
        if similarity == "local_mi":
            self.measure = LocalInformation(taps, bins)
        else:
            self.measure = Mind(taps) if similarity == "mind" else Moments(taps, squared=similarity == "lncc")
        scale = _percentiles if similarity == "local_mi" else _z_score
        self.target_scale = scale(_finite(target, "the target"))
        self.scales = [scale(_finite(images[i], f"the image of atlas {i + 1}")) for i in range(len(images))]
        self.window = len(taps) // 2

    @property
    def margin(self) -> int:
        """Voxels around a box that are read, search apart."""
        return self.window + self.measure.reach

    def of_target(self, box: Box) -> Prepared:
        """What is compared of the target; its maps fill the box."""
        return self.measure.prepare(_scaled(read(self.target, box, self.margin), self.target_scale))

    def of_atlas(self, i: int, box: Box, search: int = 0) -> Prepared:
        """The same of an atlas, its maps ``search`` voxels larger than the box at each end."""
        return self.measure.prepare(_scaled(read(self.images[i], box, self.margin + search), self.scales[i]))

    def distance(self, target: Prepared, i: int, box: Box) -> Float[Tensor, "*box"]:
        """D of atlas ``i`` at each voxel of the box."""
        return self.measure.between(target, self.of_atlas(i, box))


def shifted(prepared: Prepared, shift: Sequence[int], search: int) -> Prepared:
    """Views of what was prepared ``search`` voxels around a box, as if the box lay ``shift`` voxels farther on."""
    views = []
    for x in prepared:
        for axis, step in enumerate(shift, start=1):
            x = x.narrow(axis, search + step, x.shape[axis] - 2 * search)
        views.append(x)
    return tuple(views)


Scale = tuple[Tensor, Tensor]
"""What to subtract from each channel and what to divide it by then."""


def _finite(image: Tensor, name: str) -> Tensor:
    if not bool(torch.isfinite(image).all()):
        raise InputError("E-FUS-003", f"NaN or infinite intensities in {name}", expected="finite ones", do="fill them")
    return image


def _z_score(image: Tensor) -> Scale:
    deviation, mean = torch.std_mean(image.float().flatten(1), dim=1, correction=0)
    return mean, torch.where(deviation > 0, deviation, 1)


def _percentiles(image: Tensor) -> Scale:
    values = image.float().flatten(1)
    values = values[:, :: max(1, values.shape[1] // THINNED)]
    low, high = torch.quantile(values, values.new_tensor([0.01, 0.99]), dim=1)
    return low, torch.where(high > low, high - low, 1)


def _scaled(part: Tensor, scale: Scale) -> Tensor:
    offset, extent = (s.view(-1, *[1] * (part.ndim - 1)) for s in scale)
    return (part.float() - offset) / extent
