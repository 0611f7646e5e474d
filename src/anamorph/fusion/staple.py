r"""STAPLE: how reliable each atlas is and what the truth is, estimated together by expectation-maximisation.

    E    W_x(t) ~ pi_t prod_i theta_i(t, l_i(x))
    M    theta_i(t, l) = sum_{x: l_i(x) = l} W_x(t) / sum_x W_x(t)

Warfield et al. 2004, doi:10.1109/TMI.2004.828354, with several labels as Rohlfing et al. 2004,
doi:10.1109/TMI.2004.830803. pi_t is the share of label t among all votes of all atlases and stays as it is; theta
begins at 0.99999 on its diagonal. Both are as in ITK, and so are the results for two labels.

With more labels, the truth of a contested voxel is taken to be one of those that are proposed there: candidates then
are as many as atlases, however many labels exist. theta has n K^2 numbers, a few MB for 200 labels.

Voxels with the same labels of all atlases share their W, so the steps run over the different patterns of labels, which
are counted once. Steps end when no entry of theta moves by more than 1e-7, and after ``iterations`` at the latest, for
in flat likelihoods the end may be far; where theta then still moves by more than 0.001, W-FUS-001 says so.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from anamorph.errors import warn
from anamorph.fusion.boxes import Contest, boxes, find_contest
from anamorph.fusion.rules import Atlases, Rule
from anamorph.fusion.settings import FusionSettings
from anamorph.fusion.votes import Votes, first_proposers

SURE = 0.99999
"""How often an atlas is taken to be right at first."""

SETTLED = 1e-7
"""Change of a probability that ends the steps."""

OPEN = 1e-3
"""Change that is told where the steps run out: below it hardly a voxel changes any more."""

LEAST = 1e-12
"""Least probability of a confusion: one that was never seen must not veto what all other atlases say."""

CHUNK = 2**22
"""Pattern entries in flight."""


def staple(atlases: Atlases, settings: FusionSettings) -> Rule:
    """Labels by their posterior probability, given what every atlas confuses.

    Warns:
        W-FUS-001: the steps ran out while the estimate still moved by more than a thousandth.
    """
    per_voxel = 2 * len(atlases.labels)
    patterns, counts = _patterns(atlases, per_voxel)
    values = patterns.unique()
    estimate = _Performance(torch.searchsorted(values, patterns), counts, len(values))
    moved = estimate.run(settings.iterations)
    if moved > OPEN:
        found = f"STAPLE was stopped after {settings.iterations} steps, when probabilities still moved by {moved:.2g}"
        warn("W-FUS-001", f"{found}; more iterations would settle it")

    def vote(contest: Contest) -> Votes:
        labels = contest.labels(atlases.labels)
        return Votes(labels, estimate.posterior(torch.searchsorted(values, labels)).float())

    return Rule(vote, per_voxel)


def _patterns(atlases: Atlases, per_voxel: int) -> tuple[Int[Tensor, "atlases patterns"], Int[Tensor, " patterns"]]:
    """The different columns of labels, and how many voxels have each."""
    patterns = counts = None
    for box in boxes(atlases.shape, per_voxel, 0):
        first, contest = find_contest(atlases.labels, atlases.shape, box)
        agreed, many = first.unique(return_counts=True)
        found = [agreed.expand(len(atlases.labels), -1)]
        numbers = [many]
        if contest is not None:
            labels = contest.labels(atlases.labels)
            disputed, times = labels.unique(dim=1, return_counts=True)
            removed, fewer = labels[0].unique(return_counts=True)
            many.index_add_(0, torch.searchsorted(agreed, removed), -fewer)
            found.append(disputed)
            numbers.append(times)
        if patterns is not None and counts is not None:
            found.append(patterns)
            numbers.append(counts)
        patterns, place = torch.cat(found, 1).unique(dim=1, return_inverse=True)
        counts = torch.zeros(patterns.shape[1], dtype=torch.long, device=place.device)
        counts.index_add_(0, place, torch.cat(numbers))
    assert patterns is not None
    assert counts is not None
    return patterns[:, counts > 0], counts[counts > 0]


class _Performance:
    """theta of each atlas, from patterns of label indices and the number of voxels that have them."""

    def __init__(self, patterns: Int[Tensor, "atlases patterns"], counts: Int[Tensor, " patterns"], kinds: int) -> None:
        agreed = (patterns == patterns[:1]).all(0)
        self.patterns, self.counts = patterns[:, ~agreed], counts[~agreed].double()
        self.unanimous, self.kinds = torch.zeros_like(counts[:1].double()).repeat(kinds), kinds
        self.unanimous[patterns[0, agreed]] = counts[agreed].double()
        votes = self.unanimous * len(patterns)
        for own in self.patterns:
            votes = votes.index_add(0, own, self.counts)
        self.prior = votes / votes.sum()
        wrong = (1 - SURE) / max(kinds - 1, 1)
        right = torch.eye(kinds, dtype=torch.float64, device=patterns.device) * (SURE - wrong)
        self.theta = (right + wrong).repeat(len(patterns), 1, 1)

    def run(self, iterations: int) -> float:
        """Expectation and maximisation in turn; by how much the last turn moved theta."""
        moved = 0.0
        for _ in range(iterations):
            before, self.theta = self.theta, self._maximised()
            moved = float((self.theta - before).abs().max())
            if moved < SETTLED:
                break
        return moved

    def posterior(self, labels: Int[Tensor, "atlases voxels"]) -> Float[Tensor, "atlases voxels"]:
        """W of what each atlas proposes; nought where an earlier one proposes the same."""
        step = max(1, CHUNK // len(labels))
        parts = [self._posterior(labels[:, i : i + step]) for i in range(0, labels.shape[1], step)]
        return torch.cat(parts, 1) if parts else self.prior.new_zeros(labels.shape)

    def _posterior(self, labels: Tensor) -> Tensor:
        log_theta = self.theta.clamp_min(LEAST).log()
        likelihood = self.prior.log()[labels]
        for theta, said in zip(log_theta, labels, strict=True):
            likelihood += theta[labels, said]
        return likelihood.masked_fill(~first_proposers(labels), -torch.inf).softmax(0)

    def _maximised(self) -> Tensor:
        """theta, given W; unanimous voxels are in doubt among all labels, K^2 numbers for all of them."""
        whole = (self.prior.log()[:, None] + self.theta.clamp_min(LEAST).log().sum(0)).softmax(0) * self.unanimous
        result = whole.repeat(len(self.theta), 1, 1)
        posterior = self.posterior(self.patterns) * self.counts
        for truth, weight in zip(self.patterns, posterior, strict=True):
            some = weight > 0
            for theta, said in zip(result, self.patterns, strict=True):
                theta.view(-1).index_add_(0, truth[some] * self.kinds + said[some], weight[some])
        total = result.sum(2, keepdim=True)
        return result / torch.where(total > 0, total, 1)
