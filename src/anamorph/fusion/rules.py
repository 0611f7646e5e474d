r"""The rules that weigh whole atlases, voxel by voxel or once for all.

    majority    w_i(x) = 1
    weighted    w_i(x) = what is given from outside, as SimNet's similarity
    global      w_i(x) = ( mean of D_i over the image + e )^-p                           p = 1, patches of radius 2
    local       w_i(x) = ( D_i under a Gaussian window at x + e )^-p                     p = 1, sigma = 2
    block       w_i(x) = ( D_i in a box around x + e )^-p                                p = 3, radius 5
    local_mi    w_i(x) = ( I_x(f, m_i) / max(H_x(f), H_x(m_i)) )^p                       p = 3, radius 5

D is the distance of ``fusion.patches``, e = 0.001. The forms of global, local and block, and their constants, are those
of the code of Ding et al. 2020 (doi:10.1007/978-3-030-59716-0_23), there with squared differences of raw intensities:
1e12 / sum, 1 / (Gaussian + 1e-5) and (box)^-3. A common factor of all weights has no effect, and D has no unit, so
neither 1e12 nor 1e-5 is needed. Weighting by a power of a local similarity: Artaechevarria et al. 2009,
doi:10.1109/TMI.2009.2014372.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from anamorph.errors import ConfigurationError, InputError
from anamorph.fusion.boxes import Contest, boxes, read
from anamorph.fusion.patches import Comparison
from anamorph.fusion.settings import FusionSettings
from anamorph.fusion.votes import Votes
from anamorph.fusion.windows import Taps, box_taps, gaussian_taps

LEAST = 1e-3
"""e: distance below which two patches count as the same."""


@dataclass(frozen=True)
class Atlases:
    """What there is to fuse, all on one grid; items are read when they are needed.

    Args:
        labels: integers ``*spatial``.
        shape: of the grid.
        dtype: of the labels, int64 where they differ.
        target, images: intensities ``channels *spatial``.
        weights: from outside, ``*spatial``.
    """

    labels: Sequence[Tensor]
    shape: tuple[int, ...]
    dtype: torch.dtype
    target: Tensor | None = None
    images: Sequence[Tensor] | None = None
    weights: Sequence[Tensor] | None = None

    def comparison(self, settings: FusionSettings, taps: Taps) -> Comparison:
        """Ready to compare images.

        Raises:
            ConfigurationError: E-FUS-002, there are none.
        """
        if self.target is None or self.images is None:
            raise ConfigurationError(
                "E-FUS-002",
                f"{settings.fusion} without images",
                expected="the target and the images of the atlases",
                do="give both, or choose majority or staple",
            )
        similarity = "local_mi" if settings.fusion == "local_mi" else settings.similarity
        return Comparison(self.target, self.images, similarity, taps, settings.bins)


@dataclass(frozen=True)
class Rule:
    """A rule made ready for some atlases.

    Args:
        vote: of contested voxels.
        reach: voxels from which labels may come.
        per_voxel: numbers that voting keeps for a voxel of a box and of its halo.
        halo: voxels around a box that voting reads.
    """

    vote: Callable[[Contest], Votes]
    per_voxel: int
    halo: int = 0
    reach: int = 0


def majority(atlases: Atlases, settings: FusionSettings) -> Rule:
    """Every atlas counts alike."""

    def vote(contest: Contest) -> Votes:
        labels = contest.labels(atlases.labels)
        return Votes(labels, torch.ones(labels.shape, device=labels.device))

    return Rule(vote, per_voxel=2 * len(atlases.labels))


def weighted(atlases: Atlases, settings: FusionSettings) -> Rule:
    """Weights from outside.

    Raises:
        ConfigurationError: E-FUS-002, there are none.
        InputError: E-FUS-004, when one is met that is negative or not finite.
    """
    given = atlases.weights
    if given is None:
        raise ConfigurationError("E-FUS-002", "weighted without weights", expected="a map for each atlas")

    def vote(contest: Contest) -> Votes:
        weights = torch.stack([contest.pick(read(given[i], contest.box)).float() for i in range(len(given))])
        if not bool(((weights >= 0) & (weights < torch.inf)).all()):
            raise InputError(
                "E-FUS-004", "weights that are negative, NaN or infinite", expected="finite ones from 0 up"
            )
        return Votes(contest.labels(atlases.labels), weights)

    return Rule(vote, per_voxel=3 * len(atlases.labels))


def global_similarity(atlases: Atlases, settings: FusionSettings) -> Rule:
    """Each atlas counts by its distance over the whole image."""
    comparison = atlases.comparison(settings, box_taps(settings.patch_radius))
    per_voxel = _per_voxel(atlases)
    total = torch.zeros(len(atlases.labels), dtype=torch.float64)
    for box in boxes(atlases.shape, per_voxel, comparison.margin):
        target = comparison.of_target(box)
        for i in range(len(total)):
            total[i] += comparison.distance(target, i, box).sum(dtype=torch.float64).cpu()
    mean = total / torch.Size(atlases.shape).numel()
    weights = _falling(mean, settings.power or 1.0).float()

    def vote(contest: Contest) -> Votes:
        labels = contest.labels(atlases.labels)
        return Votes(labels, weights.to(labels.device)[:, None].expand(labels.shape))

    return Rule(vote, per_voxel, comparison.margin)


def local(atlases: Atlases, settings: FusionSettings) -> Rule:
    """Each atlas counts by its distance under a Gaussian window."""
    return _by_distance(atlases, settings, gaussian_taps(settings.sigma), settings.power or 1.0)


def block(atlases: Atlases, settings: FusionSettings) -> Rule:
    """Each atlas counts by its distance in a box."""
    return _by_distance(atlases, settings, box_taps(settings.block_radius), settings.power or 3.0)


def local_information(atlases: Atlases, settings: FusionSettings) -> Rule:
    """Each atlas counts by its mutual information with the target in a box."""
    power = settings.power or 3.0
    return _by_map(atlases, settings, box_taps(settings.block_radius), lambda distance: (1 - distance) ** power)


def _by_distance(atlases: Atlases, settings: FusionSettings, taps: Taps, power: float) -> Rule:
    return _by_map(atlases, settings, taps, lambda distance: _falling(distance, power))


def _by_map(atlases: Atlases, settings: FusionSettings, taps: Taps, weigh: Callable[[Tensor], Tensor]) -> Rule:
    comparison = atlases.comparison(settings, taps)

    def vote(contest: Contest) -> Votes:
        target = comparison.of_target(contest.box)
        distances = [contest.pick(comparison.distance(target, i, contest.box)) for i in range(len(atlases.labels))]
        return Votes(contest.labels(atlases.labels), weigh(torch.stack(distances)))

    return Rule(vote, _per_voxel(atlases), comparison.margin)


def _per_voxel(atlases: Atlases) -> int:
    """Labels and weights of all atlases, and the maps of one."""
    channels = 0 if atlases.target is None else atlases.target.shape[0]
    return 2 * len(atlases.labels) + 12 * channels


def _falling(distance: Tensor, power: float) -> Tensor:
    return (distance + LEAST) ** -power
