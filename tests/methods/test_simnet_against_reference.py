"""The objectives of SimNet and of the patch network against literal ones: item by item, voxel by voxel."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from anamorph.methods.base import Domain
from anamorph.methods.patch_simnet import PatchSimNet, PatchSimNetSettings
from anamorph.methods.simnet import SimNet, SimNetSettings
from tests.methods.test_macjnet_against_reference import array, pairs, warped

REGISTRATION = {"channels": 2, "scales": 2}
CASES: dict[str, tuple[tuple[int, ...], int, int, bool]] = {
    "a structure": ((8, 9), 4, 1, False),
    "several, masks": ((8, 9), 4, 2, True),
    "3-D": ((5, 4, 4), 2, 2, False),
}
"""Shape, pairs, classes, masks."""


def case_of(name: str) -> tuple[dict[str, Tensor], Domain]:
    shape, count, classes, masks = CASES[name]
    batch = pairs(shape, count, masks)
    for side in ("fixed", "moving"):
        batch[f"{side}_labels"] = batch[f"{side}_labels"].clamp_max(classes)
    return batch, Domain(shape, (1.0,) * len(shape), classes=classes)


def awake(method: nn.Module) -> Any:
    """Heads that say something, as after some steps; the method as it is used, without random moves."""
    for name, parameter in method.named_parameters():
        if "heads" in name:
            nn.init.normal_(parameter, std=0.4)
    return method.eval()


def nearest(values: np.ndarray, displacement: np.ndarray) -> np.ndarray:
    """Of the nearest voxel, 0 beyond half a voxel outside: channels x grid."""
    result = np.zeros_like(values)
    for x in np.ndindex(displacement.shape[1:]):
        at = [math.floor(i + u + 0.5) for i, u in zip(x, displacement[(slice(None), *x)], strict=True)]
        if all(0 <= i < n for i, n in zip(at, values.shape[1:], strict=True)):
            result[(slice(None), *x)] = values[(slice(None), *at)]
    return result


def around(x: tuple[int, ...], reach: int) -> tuple[slice, ...]:
    return tuple(slice(max(i - reach, 0), i + reach + 1) for i in x)


# -- SimNet ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("patch_size", [3, 5])
def test_the_objective_of_simnet(case: str, patch_size: int) -> None:
    batch, domain = case_of(case)
    torch.manual_seed(0)
    settings = {"registration": REGISTRATION, "channels": 2, "scales": 2, "patch_size": patch_size}
    method: SimNet = awake(SimNet(SimNetSettings.model_validate(settings), domain))
    assert method.registration is not None
    with torch.no_grad():
        displacements = array(method.registration.deformation(batch["fixed"], batch["moving"]).displacement)
    assert np.abs(displacements).max() > 0.5
    total, count = 0.0, len(batch["fixed"])
    for item in range(count):
        if not (batch["fixed_labelled"][item] and batch["moving_labelled"][item]):
            continue
        truth = batch["fixed_labels"][item, 0].numpy()
        label = nearest(batch["moving_labels"][item].numpy(), displacements[item])[0]
        channels = [label == 1] if domain.classes == 1 else [label == value for value in range(1 + domain.classes)]
        seen = torch.from_numpy(np.stack(channels).astype(np.float32))
        with torch.no_grad():
            logits = method.similarity_network(torch.cat([batch["fixed"][item], seen])[None])[0][0, 0]
            similarity = method.similarity(batch["fixed"][item : item + 1], torch.from_numpy(label)[None, None])
        mask = array(batch["fixed_mask"])[item, 0] if "fixed_mask" in batch else np.ones(domain.shape)
        loss = 0.0
        for x in np.ndindex(domain.shape):
            s = 1 / (1 + math.exp(-float(logits[x])))
            assert float(similarity[(0, 0, *x)]) == pytest.approx(s, rel=1e-5)
            share = (truth == label)[around(x, patch_size // 2)].mean()
            loss -= mask[x] * (share * math.log(s) + (1 - share) * math.log(1 - s))
        total += loss / mask.sum() / count
    found = method.terms(batch, "network")
    assert list(found) == ["cross_entropy"]
    assert total > 0.1
    assert found["cross_entropy"].item() == pytest.approx(total, rel=2e-4)


# -- the patch network -------------------------------------------------------------------------------------------------


def dice(one: np.ndarray, other: np.ndarray, classes: int) -> float:
    """Of the labels of two patches, mean over the classes in either."""
    found = []
    for value in range(1, classes + 1):
        a, b = one == value, other == value
        if a.any() or b.any():
            found.append(2 * (a & b).sum() / (a.sum() + b.sum()))
    return float(np.mean(found)) if found else 1.0


@pytest.mark.parametrize("case", CASES)
def test_the_objective_of_the_patch_network(case: str) -> None:
    batch, domain = case_of(case)
    torch.manual_seed(0)
    ndim = domain.ndim
    settings = {
        "registration": REGISTRATION, "channels": (2, 3, 4), "patch_size": 3, "supports": 4, "reach": 3, "alike": 0.4
    }  # fmt: skip
    method: PatchSimNet = awake(PatchSimNet(PatchSimNetSettings.model_validate(settings), domain))
    assert method.registration is not None
    with torch.no_grad():
        displacements = array(method.registration.deformation(batch["fixed"], batch["moving"]).displacement)
    shifts = [tuple(shift) for shift in method._shifts()]
    assert len(shifts) == 4
    assert shifts[0] == (0,) * ndim
    total, count, used = 0.0, len(batch["fixed"]), 0
    for item in range(count):
        if not (batch["fixed_labelled"][item] and batch["moving_labelled"][item]):
            continue
        moved = warped(array(batch["moving"])[item], displacements[item], border=True)
        truth = batch["fixed_labels"][item, 0].numpy()
        label = nearest(batch["moving_labels"][item].numpy(), displacements[item])[0]
        images = batch["fixed"][item : item + 1], torch.from_numpy(moved).float()[None]
        with torch.no_grad():
            one, other = (array(method.similarity_network(image))[0] for image in images)
            similarity = method.similarity(images[0], torch.from_numpy(label)[None, None], images[1])
        mask = array(batch["fixed_mask"])[item, 0] if "fixed_mask" in batch else np.ones(domain.shape)
        losses, weights = [], []
        for x in np.ndindex(domain.shape):
            powers, alike = [], []
            for shift in shifts:
                at = tuple(i + s for i, s in zip(x, shift, strict=True))
                inside = all(0 <= i < n for i, n in zip(at, domain.shape, strict=True))
                e = other[(slice(None), *at)] if inside else np.zeros(len(other))
                powers.append(math.exp(-float(np.mean((one[(slice(None), *x)] - e) ** 2))))
                patches = []
                for labels, centre in ((truth, x), (label, at)):
                    patch = np.zeros((3,) * ndim, int)
                    for offset in np.ndindex(patch.shape):
                        y = tuple(c + o - 1 for c, o in zip(centre, offset, strict=True))
                        own = tuple(i + o - 1 for i, o in zip(x, offset, strict=True))
                        if all(0 <= i < n for i, n in zip((*y, *own), domain.shape * 2, strict=True)):
                            patch[offset] = labels[y]
                    patches.append(patch)
                alike.append(dice(patches[0], patches[1], domain.classes) > 0.4)
            assert float(similarity[(0, 0, *x)]) == pytest.approx(powers[0], rel=1e-4)
            if any(alike) and not all(alike):
                losses.append(-math.log(sum(np.array(powers)[alike]) / sum(powers)))
                weights.append(mask[x])
        used += len(losses)
        total += float(np.average(losses, weights=weights)) / count
    found = method.terms(batch, "network")
    assert used > 5
    assert total > 0.1
    assert found["cross_entropy"].item() == pytest.approx(total, rel=2e-4)
