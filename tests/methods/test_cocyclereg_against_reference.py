"""The objectives of CoCycleReg and of what it compares with, against literal ones: pair by pair, voxel by voxel."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from anamorph.methods.base import Domain, Method
from anamorph.methods.both_ways import BothWays
from anamorph.methods.cocyclereg import CoCycleReg
from anamorph.methods.cyclegan import CycleGAN
from anamorph.methods.nemar import NeMAR
from anamorph.methods.sepcyclereg import SepCycleReg
from anamorph.methods.translation import Translation
from anamorph.methods.vmind import VMIND
from tests.methods.test_macjnet_against_reference import array, diffusion, warped

PAIRS = 2
SMALL: dict[str, Any] = {
    "features": 2,
    "blocks": 1,
    "dropout": 0.0,
    "discriminator_features": 2,
    "discriminator_layers": 1,
}
UNET: dict[str, Any] = {"encoder": (2, 3), "decoder": (3, 2)}
KINDS: dict[type[Method], dict[str, Any]] = {
    CoCycleReg: SMALL | UNET,
    SepCycleReg: SMALL | UNET,
    NeMAR: SMALL | UNET,
    CycleGAN: SMALL,
    VMIND: UNET | {"similarity": "mse"},
}
SHAPES = {"2d": (6, 5), "3d": (6, 3, 4)}


def pairs(shape: tuple[int, ...], masks: bool) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    batch = {side: torch.rand(PAIRS, 1, *shape, generator=generator) for side in ("fixed", "moving")}
    if masks:
        for side in ("fixed", "moving"):
            batch[f"{side}_mask"] = (torch.rand(PAIRS, 1, *shape, generator=generator) > 0.3).float()
    return batch


def made(kind: type[Method], shape: tuple[int, ...], batch: dict[str, Tensor], changed: dict[str, Any]) -> Method:
    """A method whose displacements of these pairs reach a voxel at least, as after some steps."""
    torch.manual_seed(0)
    domain = Domain(shape, (1.0,) * len(shape), modalities=("t2", "t1"))
    method = kind(kind.Settings.model_validate(KINDS[kind] | changed), domain)
    if "register" in method.tasks:
        heads = [weights for name, weights in method.named_parameters() if "head.w" in name or "onto_" in name]
        with torch.no_grad():
            while min(field.abs().max() for field in fields_of(method, batch).values()) < 1:
                for weights in heads:
                    weights.mul_(1.5)
    return method


@torch.no_grad()
def fields_of(method: Method, batch: dict[str, Tensor], velocity: bool = False) -> dict[str, Tensor]:
    """By the grid that they live on; velocities on request."""
    fixed, moving = batch["fixed"], batch["moving"]
    found = method.register_both(fixed, moving) if isinstance(method, BothWays) else (method.register(fixed, moving),)
    fields = [field.velocity if velocity else field.displacement for field in found]
    return {side: field for side, field in zip(("fixed", "moving"), fields, strict=False) if field is not None}


# -- the papers' words, one after the other ----------------------------------------------------------------------------


class Pair:
    """One pair as arrays: y and x from -1 to 1, u_xy on the grid of y, and networks that take and give arrays."""

    def __init__(self, method: Method, batch: dict[str, Tensor], number: int) -> None:
        scaled = isinstance(method, Translation)
        self.method = method
        self.y, self.x = (array(batch[side])[number] for side in ("fixed", "moving"))
        if scaled:
            self.y, self.x = 2 * self.y - 1, 2 * self.x - 1
        here = {name: tensor[number : number + 1] for name, tensor in batch.items()}
        fields = fields_of(method, here) if "register" in method.tasks else {}
        self.u_xy, self.u_yx = (array(fields[side])[0] if side in fields else None for side in ("fixed", "moving"))
        smooth = fields_of(method, here, velocity=True) if fields else {}
        smooth = smooth or fields
        self.roughness = sum(diffusion(array(field)[0]) for field in smooth.values())
        masks = [
            array(batch[f"{side}_mask"])[number] if f"{side}_mask" in batch else None for side in ("fixed", "moving")
        ]
        everywhere = np.ones(self.y.shape[1:])
        self.of_y, self.of_x = (everywhere if mask is None else mask[0] for mask in masks)
        self.on_y, self.on_x = everywhere, everywhere
        if masks[0] is not None and masks[1] is not None:
            self.on_y = self.of_y * warped(masks[1], self.u_xy)[0] if self.u_xy is not None else everywhere
            self.on_x = self.of_x * warped(masks[0], self.u_yx)[0] if self.u_yx is not None else everywhere

    def to(self, side: str, image: np.ndarray) -> np.ndarray:
        """T_xy, whose answers are like the fixed images, or T_yx."""
        assert isinstance(self.method, Translation)
        with torch.no_grad():
            return array(self.method.translators[side](torch.tensor(image, dtype=torch.float32)[None]))[0]

    def cost(self, side: str, image: np.ndarray, real: bool) -> float:
        """Of the discriminator's answers."""
        assert isinstance(self.method, Translation)
        with torch.no_grad():
            answers = array(self.method.discriminators[side](torch.tensor(image, dtype=torch.float32)[None]))
        costs = []
        for answer in answers.flatten():
            if self.method.translation.adversarial_loss == "least_squares":
                costs.append((answer - (1.0 if real else 0.0)) ** 2)
            else:
                belief = 1 / (1 + math.exp(-answer))
                costs.append(-math.log(belief if real else 1 - belief))
        return float(np.mean(costs))

    def at(self, side: str, image: np.ndarray) -> np.ndarray:
        """Warped onto the grid of a side."""
        u = self.u_xy if side == "fixed" else self.u_yx
        assert u is not None
        return warped(image, u, border=True)


def distance(a: np.ndarray, b: np.ndarray, weight: np.ndarray, squared: bool = False) -> float:
    total = weights = 0.0
    for v in np.ndindex(weight.shape):
        apart = abs(a[0][v] - b[0][v])
        total += weight[v] * (apart**2 if squared else apart)
        weights += weight[v]
    return float(total / weights)


def cycles(pair: Pair, unwarped: bool, together: bool) -> dict[str, float]:
    y_hat, x_hat = pair.at("fixed", pair.to("fixed", pair.x)), pair.at("moving", pair.to("moving", pair.y))
    fakes = (pair.to("fixed", pair.x), pair.to("moving", pair.y)) if unwarped else (y_hat, x_hat)
    if together:
        x_again = pair.at("moving", pair.to("moving", y_hat))
        y_again = pair.at("fixed", pair.to("fixed", x_hat))
        cycle = distance(x_again, pair.x, pair.of_x) + distance(y_again, pair.y, pair.of_y)
    else:
        x_home, y_home = pair.at("moving", pair.at("fixed", pair.x)), pair.at("fixed", pair.at("moving", pair.y))
        x_told, y_told = pair.to("moving", pair.to("fixed", pair.x)), pair.to("fixed", pair.to("moving", pair.y))
        cycle = sum(distance(found, pair.x, pair.of_x) for found in (x_home, x_told))
        cycle += sum(distance(found, pair.y, pair.of_y) for found in (y_home, y_told))
    return {
        "fixed_real": pair.cost("fixed", pair.y, real=True),
        "fixed_fake": pair.cost("fixed", fakes[0], real=False),
        "moving_real": pair.cost("moving", pair.x, real=True),
        "moving_fake": pair.cost("moving", fakes[1], real=False),
        "adversarial": pair.cost("fixed", fakes[0], real=True) + pair.cost("moving", fakes[1], real=True),
        "similarity": distance(y_hat, pair.y, pair.on_y) + distance(x_hat, pair.x, pair.on_x),
        "cycle": cycle,
        "smoothness": pair.roughness,
    }


def nemar(pair: Pair) -> dict[str, float]:
    registered_first = pair.to("fixed", pair.at("fixed", pair.x))
    translated_first = pair.at("fixed", pair.to("fixed", pair.x))
    beside = {name: np.concatenate([pair.x, image]) for name, image in (("y", pair.y), ("r", registered_first))}
    beside["t"] = np.concatenate([pair.x, translated_first])
    return {
        "fixed_real": pair.cost("fixed", beside["y"], real=True),
        "fixed_registered_first": pair.cost("fixed", beside["r"], real=False),
        "fixed_translated_first": pair.cost("fixed", beside["t"], real=False),
        "adversarial": pair.cost("fixed", beside["r"], real=True) + pair.cost("fixed", beside["t"], real=True),
        "similarity": sum(distance(found, pair.y, pair.on_y) for found in (registered_first, translated_first)),
        "smoothness": pair.roughness,
    }


def cyclegan(pair: Pair) -> dict[str, float]:
    y_fake, x_fake = pair.to("fixed", pair.x), pair.to("moving", pair.y)
    return {
        "fixed_real": pair.cost("fixed", pair.y, real=True),
        "fixed_fake": pair.cost("fixed", y_fake, real=False),
        "moving_real": pair.cost("moving", pair.x, real=True),
        "moving_fake": pair.cost("moving", x_fake, real=False),
        "adversarial": pair.cost("fixed", y_fake, real=True) + pair.cost("moving", x_fake, real=True),
        "cycle": distance(pair.to("moving", y_fake), pair.x, pair.of_x)
        + distance(pair.to("fixed", x_fake), pair.y, pair.of_y),
        "identity": distance(pair.to("fixed", pair.y), pair.y, pair.of_y)
        + distance(pair.to("moving", pair.x), pair.x, pair.of_x),
    }


def vmind(pair: Pair) -> dict[str, float]:
    onto_y, onto_x = pair.at("fixed", pair.x), pair.at("moving", pair.y)
    return {
        "similarity": distance(onto_y, pair.y, pair.on_y, squared=True)
        + distance(onto_x, pair.x, pair.on_x, squared=True),
        "smoothness": pair.roughness,
    }


CASES: dict[str, tuple[type[Method], dict[str, Any], bool, Callable[[Pair], dict[str, float]]]] = {
    "cocyclereg, warped": (CoCycleReg, {}, False, lambda pair: cycles(pair, unwarped=False, together=True)),
    "cocyclereg, unwarped, masks": (
        CoCycleReg, {"discriminated": "unwarped"}, True, lambda pair: cycles(pair, unwarped=True, together=True),
    ),
    "cocyclereg, velocities": (
        CoCycleReg, {"diffeomorphic": True}, False, lambda pair: cycles(pair, unwarped=False, together=True),
    ),
    "sepcyclereg, masks": (SepCycleReg, {}, True, lambda pair: cycles(pair, unwarped=False, together=False)),
    "nemar, masks": (NeMAR, {}, True, nemar),
    "nemar, least squares": (NeMAR, {"adversarial_loss": "least_squares"}, False, nemar),
    "cyclegan, masks": (CycleGAN, {}, True, cyclegan),
    "vmind, masks": (VMIND, {}, True, vmind),
}  # fmt: skip


@pytest.mark.parametrize("ndim", SHAPES)
@pytest.mark.parametrize("case", CASES)
def test_every_term(case: str, ndim: str) -> None:
    kind, changed, masks, literal = CASES[case]
    batch = pairs(SHAPES[ndim], masks)
    method = made(kind, SHAPES[ndim], batch, changed)
    each = [literal(Pair(method, batch, number)) for number in range(PAIRS)]
    expected = {name: float(np.mean([terms[name] for terms in each])) for name in each[0]}
    found = {name: term for player in method.players for name, term in method.terms(batch, player).items()}
    assert list(found) == list(expected)
    for name, value in expected.items():
        assert value > 1e-4, name
        assert found[name].item() == pytest.approx(value, rel=5e-4), name
