"""BiRegNet's objective against a literal one: pair by pair, direction by direction, voxel by voxel."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from anamorph.methods.base import Domain
from anamorph.methods.biregnet import BiRegNet, BiRegNetSettings
from anamorph.networks.local_net import deformations_of
from tests.methods.test_macjnet_against_reference import array, crisp, pairs, warped

CLASSES = 2
SMOOTHING = 1e-5

ALL = {"overlap": 1.0, "consistency": 0.3, "bending": 0.2}
CASES: dict[str, tuple[tuple[int, ...], dict[str, Any], int, bool]] = {
    "journal": ((8, 9), {}, 4, False),
    "journal, masks": ((8, 9), {}, 4, True),
    "journal, 3-D": ((5, 4, 4), {"sigmas": (0.0, 1.0)}, 2, False),
    "2020, mixed": ((8, 9), {"attention": False, "consistency": "label", "weights": ALL, "sigmas": (0, 2)}, 4, False),
    "single direction": ((8, 9), {"direction": "single", "weights": ALL}, 4, False),
    "velocities": ((8, 9), {"velocity": True, "weights": ALL}, 3, False),
}
"""Shape, settings, pairs, masks."""


def made(shape: tuple[int, ...], settings: dict[str, Any]) -> BiRegNet:
    """A method that moves voxels, as after some steps."""
    torch.manual_seed(0)
    domain = Domain(shape, (1.0,) * len(shape), classes=CLASSES)
    method = BiRegNet(BiRegNetSettings.model_validate({"channels": 2, "scales": 2, **settings}), domain)
    for parameter in method.backbone.heads.parameters():
        nn.init.normal_(parameter, std=0.4)
    return method.eval()


def blurred(labels: np.ndarray, sigma: float) -> np.ndarray:
    """By a Gaussian of three sigma to either side, 0 outside; classes x grid."""
    if sigma == 0:
        return labels
    reach = int(3 * sigma + 0.5)
    taps = [math.exp(-0.5 * (i / sigma) ** 2) for i in range(-reach, reach + 1)]
    for axis in range(1, labels.ndim):
        result = np.zeros_like(labels)
        for at in np.ndindex(labels.shape):
            for step, tap in zip(range(-reach, reach + 1), taps, strict=True):
                other = (*at[:axis], at[axis] + step, *at[axis + 1 :])
                if 0 <= other[axis] < labels.shape[axis]:
                    result[at] += tap / sum(taps) * labels[other]
        labels = result
    return labels


def dice_loss(a: np.ndarray, b: np.ndarray, sigmas: tuple[float, ...]) -> float:
    """Equation (4): mean over scales and classes."""
    losses = []
    for sigma in sigmas:
        for one, other in zip(blurred(a, sigma), blurred(b, sigma), strict=True):
            shared = both = SMOOTHING
            for x in np.ndindex(one.shape):
                shared += 2 * one[x] * other[x]
                both += one[x] + other[x]
            losses.append(1 - shared / both)
    return float(np.mean(losses))


def bending(u: np.ndarray) -> float:
    """Equation (7) of one field: every second difference squared, a mean over the places where it can be taken."""
    axes, total = range(1, u.ndim), 0.0
    for a in axes:
        for b in axes:
            total += float(np.mean(np.diff(np.diff(u, axis=a), axis=b) ** 2))
    return total


def literal_terms(method: BiRegNet, batch: dict[str, Tensor]) -> dict[str, float]:
    chosen, count = method.chosen, len(batch["fixed"])
    squarings = chosen.squarings if chosen.velocity else None
    with torch.no_grad():
        found = deformations_of(method.backbone, squarings, batch["fixed"], batch["moving"])
    sums: dict[str, float] = dict.fromkeys(method.weights_of("network"), 0.0)
    both_ways = chosen.direction == "both"
    for pair in range(count):
        u, *rest = (array(deformation.displacement)[pair] for deformation in found)
        fixed, moving = (array(batch[side])[pair] for side in ("fixed", "moving"))
        labels = [crisp(array(batch[f"{side}_labels"])[pair, 0]) for side in ("fixed", "moving")]
        labelled = bool(batch["fixed_labelled"][pair]) and bool(batch["moving_labelled"][pair])
        if labelled:
            loss = dice_loss(labels[0], warped(labels[1], u), chosen.sigmas)
            if both_ways:
                loss += dice_loss(labels[1], warped(labels[0], rest[0]), chosen.sigmas)
            sums["overlap"] += loss / count
        if "bending" in sums:
            fields = [f.displacement if f.velocity is None else f.velocity for f in found]
            sums["bending"] += sum(bending(array(field)[pair]) for field in fields) / count
        if chosen.consistency == "image":
            back = warped(warped(fixed, rest[0], border=True), u, border=True)
            forth = warped(warped(moving, u, border=True), rest[0], border=True)
            for side, image, other in (("fixed", fixed, back), ("moving", moving, forth)):
                mask = array(batch[f"{side}_mask"])[pair] if f"{side}_mask" in batch else np.ones_like(image)
                sums["consistency"] += float((np.abs(image - other) * mask).sum() / mask.sum()) / count
        if chosen.consistency == "label" and labelled:
            back = warped(warped(labels[0], rest[0]), u)
            forth = warped(warped(labels[1], u), rest[0])
            loss = dice_loss(labels[0], back, chosen.sigmas) + dice_loss(labels[1], forth, chosen.sigmas)
            sums["consistency"] += loss / count
    return sums


@pytest.mark.parametrize("case", CASES)
def test_the_objective(case: str) -> None:
    shape, settings, count, masks = CASES[case]
    batch, method = pairs(shape, count, masks), made(shape, settings)
    assert method.register(batch["fixed"], batch["moving"]).displacement.abs().max() > 0.5
    expected = literal_terms(method, batch)
    found = method.terms(batch, "network")
    assert list(found) == list(expected)
    for name, value in expected.items():
        assert value > 1e-3, name
        assert found[name].item() == pytest.approx(value, rel=2e-4), name
