r"""Rules that look for better patches around a voxel: non-local voting and joint label fusion.

Non-local voting, every atlas i and shift s with |s_a| <= search_radius being a candidate:

    w_is(x) = exp( -D_is(x) / h(x) ),   h(x) = smallest D at x + e,   for the ``nearest`` smallest D;  else 0
    its label: l_i(x + s)

Coupe et al. 2011, doi:10.1016/j.neuroimage.2010.09.018, with the constants of Ding et al. 2020
(doi:10.1007/978-3-030-59716-0_23): seven patches vote.

Joint label fusion, Wang et al. 2013, doi:10.1109/TPAMI.2012.143:

    s_i(x)  = argmin_s D_is(x)                                     the nearest such shift, where several are as good
    d_i(y)  = | f(y) - m_i(y + s_i(x)) |                           y in the patch of x
    M_x(i, j) = ( mean_y d_i(y) d_j(y) )^beta
    w(x)    = (M_x + a I)^-1 1 / ( 1' (M_x + a I)^-1 1 ),          a = alpha trace(M_x) / n
    its labels: l_i(x + s_i(x))

f and m are z-scored in their patches (ssd), or |.| is the length of the difference of two MIND descriptors. The paper's
a is 0.1 itself; here it is a share of the mean expected error, so that it means the same for any similarity. alpha = 1
is the paper's choice where z-scored patches correlate by 0.84. Atlases that err alike share their weight, and weights
may be negative, as in the paper.

Only voxels where labels differ within reach of the search are worked on. A shift that leaves the grid is no candidate.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import torch
from jaxtyping import Float, Int
from torch import Tensor

from anamorph.fusion.boxes import Contest, read
from anamorph.fusion.patches import FLOOR, Comparison, Mind, Prepared, shifted
from anamorph.fusion.rules import LEAST, Atlases, Rule
from anamorph.fusion.settings import FusionSettings
from anamorph.fusion.votes import Votes
from anamorph.fusion.windows import box_taps

CHUNK = 2**22
"""Features in flight when patches are collected."""


def shifts(ndim: int, radius: int) -> list[tuple[int, ...]]:
    """All shifts of a search, the shortest first."""
    return sorted(product(range(-radius, radius + 1), repeat=ndim), key=lambda s: (sum(a * a for a in s), s))


def non_local(atlases: Atlases, settings: FusionSettings) -> Rule:
    """The most similar patches of all atlases vote."""
    comparison = atlases.comparison(settings, box_taps(settings.patch_radius))
    radius = settings.search_radius

    def vote(contest: Contest) -> Votes:
        target = comparison.of_target(contest.box)
        best = labels = torch.empty(0, int(contest.where.sum()))
        for i in range(len(atlases.labels)):
            proposed = read(atlases.labels[i], contest.box, radius).long()
            prepared = comparison.of_atlas(i, contest.box, radius)
            for shift, distance in _distances(comparison, contest, target, prepared, radius):
                candidate = contest.pick(shifted((proposed[None],), shift, radius)[0][0])
                best, labels = _keep(best, labels, distance, candidate, settings.nearest)
        return Votes(labels, torch.exp(-best / (best[:1] + LEAST)))

    return Rule(vote, _per_voxel(comparison, 2 * settings.nearest), comparison.margin + radius, radius)


def _keep(best: Tensor, labels: Tensor, distance: Tensor, candidate: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """The ``most`` smallest distances, in order, and their labels; of equals, the earlier."""
    if len(best) < most:
        best = torch.cat([best.to(distance), distance[None]])
        labels = torch.cat([labels.to(candidate), candidate[None]])
        best, order = best.sort(dim=0, stable=True)
        return best, labels.gather(0, order)
    nearer = (distance < best[-1]).nonzero().flatten()
    rows = torch.cat([best[:, nearer], distance[nearer][None]])
    names = torch.cat([labels[:, nearer], candidate[nearer][None]])
    rows, order = rows.sort(dim=0, stable=True)
    best[:, nearer], labels[:, nearer] = rows[:most], names.gather(0, order)[:most]
    return best, labels


def joint(atlases: Atlases, settings: FusionSettings) -> Rule:
    """Weights that minimise the expected error of the vote, given how atlases err together."""
    comparison = atlases.comparison(settings, box_taps(settings.patch_radius))
    radius, count = settings.search_radius, len(atlases.labels)

    def vote(contest: Contest) -> Votes:
        target = comparison.of_target(contest.box)
        prepared = [comparison.of_atlas(i, contest.box, radius) for i in range(count)]
        found = torch.stack([_best_shift(comparison, contest, target, atlas, radius) for atlas in prepared])
        steps = torch.tensor(shifts(len(contest.box), radius), device=found.device).T
        places = contest.coordinates()
        around = (read(atlases.labels[i], contest.box, radius).long() for i in range(count))
        labels = [_at(own, places + radius + steps[:, best]) for own, best in zip(around, found, strict=True)]
        patches = _Patches(comparison, settings.patch_radius, target[0], [atlas[0] for atlas in prepared], radius)
        weights = torch.empty(found.shape, device=found.device)
        step = patches.most_voxels
        for start in range(0, found.shape[1], step):
            part = slice(start, start + step)
            errors = patches.errors(places[:, part], steps[:, found[:, part]])
            weights[:, part] = _joint_weights(errors, settings.alpha, settings.beta).T
        return Votes(torch.stack(labels), weights)

    return Rule(vote, _per_voxel(comparison, count), comparison.margin + radius, radius)


def _per_voxel(comparison: Comparison, kept: int) -> int:
    """Features of the target and of as many atlases as there are, and what is kept of the candidates."""
    channels = comparison.target.shape[0] * (2 * (comparison.target.ndim - 1) if comparison.measure.reach else 3)
    return channels * (1 + len(comparison.images)) + 2 * kept


def _distances(
    comparison: Comparison, contest: Contest, target: Prepared, atlas: Prepared, radius: int
) -> Iterator[tuple[tuple[int, ...], Float[Tensor, " voxels"]]]:
    """D of every shift at the contested voxels; infinite where a shift leaves the grid."""
    for shift in shifts(len(contest.box), radius):
        distance = comparison.measure.between(target, shifted(atlas, shift, radius))
        inside = contest.shifted_inside(shift)
        yield shift, contest.pick(distance if inside is None else distance.masked_fill(~inside, torch.inf))


def _best_shift(
    comparison: Comparison, contest: Contest, target: Prepared, atlas: Prepared, radius: int
) -> Int[Tensor, " voxels"]:
    """Index of the shift with the smallest D, the shortest of equals."""
    best = index = None
    for k, (_, distance) in enumerate(_distances(comparison, contest, target, atlas, radius)):
        if best is None or index is None:
            best, index = distance, torch.zeros_like(distance, dtype=torch.long)
        else:
            nearer = distance < best
            best, index = torch.where(nearer, distance, best), index.masked_fill(nearer, k)
    assert index is not None
    return index


def _at(values: Tensor, places: Tensor) -> Tensor:
    """Values ``*spatial`` at voxels, ndim x any."""
    return values[tuple(places)]


class _Patches:
    """Patches of the target and of all atlases, collected around contested voxels.

    Args:
        comparison: what is compared.
        radius: of a patch.
        target: features ``channels *padded``, ``radius`` voxels around the box.
        atlases: the same, ``search`` voxels farther around.
        search: its radius.
    """

    def __init__(self, comparison: Comparison, radius: int, target: Tensor, atlases: list[Tensor], search: int) -> None:
        self.normalised = not isinstance(comparison.measure, Mind)
        self.search = search
        self.target, self.atlases = (
            target.movedim(0, -1).contiguous(),
            [a.movedim(0, -1).contiguous() for a in atlases],
        )
        ndim = target.ndim - 1
        offsets = torch.tensor(list(product(range(2 * radius + 1), repeat=ndim)), device=target.device)
        self.offsets = offsets.T[:, None, :]

    @property
    def most_voxels(self) -> int:
        """Voxels whose patches are collected together."""
        patch = self.offsets.shape[2]
        return max(1, CHUNK // (patch * max(self.target.shape[-1], len(self.atlases))))

    def errors(
        self, places: Int[Tensor, "ndim voxels"], steps: Int[Tensor, "ndim atlases voxels"]
    ) -> Float[Tensor, "voxels atlases patch"]:
        """Differences d of each atlas at each voxel of the patches."""
        fixed = self._collected(self.target, places)
        own = []
        for i, atlas in enumerate(self.atlases):
            moving = self._collected(atlas, places + self.search + steps[:, i])
            own.append((fixed - moving).square_().sum(-1).sqrt_())
        return torch.stack(own, 1)

    def _collected(self, features: Tensor, places: Tensor) -> Float[Tensor, "voxels patch channels"]:
        patches = _at(features, places[:, :, None] + self.offsets)
        if not self.normalised:
            return patches
        variance, mean = torch.var_mean(patches, dim=1, correction=0, keepdim=True)
        return (patches - mean) * (variance + FLOOR).rsqrt()


def _joint_weights(
    errors: Float[Tensor, "voxels atlases patch"], alpha: float, beta: int
) -> Float[Tensor, "voxels atlases"]:
    """Weights w of each voxel. A whole beta keeps M positive semidefinite (Schur), so Cholesky serves."""
    together = _unit_trace(_unit_trace(errors @ errors.transpose(1, 2)) ** beta)
    together = together + alpha * torch.eye(errors.shape[1], device=errors.device)
    ones = errors.new_ones(len(errors), errors.shape[1], 1)
    solved = torch.cholesky_solve(ones, torch.linalg.cholesky(together))[..., 0]
    return solved / solved.sum(1, keepdim=True)


def _unit_trace(matrices: Tensor) -> Tensor:
    """Divided by the mean of their diagonals: what follows cannot underflow, and w does not change."""
    scale = matrices.diagonal(dim1=1, dim2=2).mean(1)[:, None, None]
    return matrices / torch.where(scale > 0, scale, 1)
