"""macJNet's two objectives against literal ones: pair by pair, voxel by voxel, class by class."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from anamorph.losses.macmind import BINS
from anamorph.methods.base import Domain
from anamorph.methods.macjnet import MacJNet, MacJNetSettings
from anamorph.networks.lapirn import LaplacianPyramid
from anamorph.networks.registration_unet import VoxelMorphNetwork
from tests.losses.test_descriptors_by_hand import macmind_by_hand
from tests.networks.test_spatial_transformer_by_hand import read

CLASSES = 2
MODALITIES = ("ct", "mr")
SMOOTHING = 1e-5

LAPIRN_DYNUNET: dict[str, Any] = {"registration": {"channels": 1}, "segmentation": {"features": 2}}
VOXELMORPH_UNET: dict[str, Any] = {
    "registration": {"kind": "voxelmorph", "encoder": (2, 2), "decoder": (2, 2, 2)},
    "segmentation": {"kind": "unet", "channels": (2, 3)},
}
DISPLACEMENTS: dict[str, Any] = {
    "registration": {"channels": 1, "diffeomorphic": False, "range_flow": 0.2},
    "alphas": (0.5, 0.25, 0.25),
    "concatenated": True,
    "distance": 1,
    "patch_size": 3,
}
CASES: dict[str, tuple[tuple[int, ...], dict[str, Any], int, float, bool]] = {
    "the paper's, several depths": ((32, 33), LAPIRN_DYNUNET | {"similarity": "mse"}, 4, 4.0, False),
    "voxelmorph and unet": ((9, 8), VOXELMORPH_UNET, 4, 2.0, True),
    "voxelmorph and unet, 3-D": ((5, 4, 4), VOXELMORPH_UNET, 2, 2.0, True),
    "displacements, another macMIND": ((9, 8), VOXELMORPH_UNET | DISPLACEMENTS, 4, 4.0, False),
}
"""Shape, settings, pairs, the network's smoothness over the diffusion of its velocity or displacement, masks."""


def made(shape: tuple[int, ...], settings: dict[str, Any], batch: dict[str, Tensor]) -> MacJNet:
    """A method whose displacements of these pairs reach a voxel at least, as after some steps."""
    torch.manual_seed(0)
    domain = Domain(shape, (1.0,) * len(shape), classes=CLASSES, modalities=MODALITIES)
    method = MacJNet(MacJNetSettings.model_validate(settings), domain)
    network = method.registration
    heads = [network.head.weight] if isinstance(network, VoxelMorphNetwork) else []
    heads += [level.head[2].weight for level in network.levels] if isinstance(network, LaplacianPyramid) else []  # pyright: ignore
    with torch.no_grad():
        while method.register(batch["fixed"], batch["moving"]).displacement.abs().max() < 1:
            for weights in heads:
                weights.mul_(1.5)
    return method


def pairs(shape: tuple[int, ...], count: int, masks: bool) -> dict[str, Tensor]:
    """The first of four pairs: labelled on both sides, one, the other and none."""
    generator = torch.Generator().manual_seed(1)
    batch: dict[str, Tensor] = {}
    for side, labelled in (("fixed", (True, True, False, False)), ("moving", (True, False, True, False))):
        batch[side] = torch.rand(4, 1, *shape, generator=generator)
        batch[f"{side}_labels"] = torch.randint(0, CLASSES + 1, (4, 1, *shape), generator=generator)
        batch[f"{side}_labelled"] = torch.tensor(labelled)
        if masks:
            batch[f"{side}_mask"] = (torch.rand(4, 1, *shape, generator=generator) > 0.3).float()
    return {name: tensor[:count] for name, tensor in batch.items()}


# -- the paper's words, one after the other ----------------------------------------------------------------------------


def warped(image: np.ndarray, displacement: np.ndarray, border: bool = False) -> np.ndarray:
    """image(x + u(x)); farther out than half a voxel the border value, or 0."""
    result = np.zeros((len(image), *displacement.shape[1:]))
    for x in np.ndindex(displacement.shape[1:]):
        point = (x + displacement[(slice(None), *x)]).tolist()
        if border or all(-0.5 <= p <= n - 0.5 for p, n in zip(point, image.shape[1:], strict=True)):
            result[(slice(None), *x)] = read(image, point)
    return result


def dice_loss(a: np.ndarray, b: np.ndarray, weight: np.ndarray, squared: bool) -> float:
    """1 - Dice, mean over the classes."""
    losses = []
    for one, other in zip(a, b, strict=True):
        shared = both = SMOOTHING
        for x in np.ndindex(one.shape):
            p, q, w = one[x], other[x], weight[x]
            shared += w * 2 * p * q
            both += w * (p * p + q * q if squared else p + q)
        losses.append(1 - shared / both)
    return float(np.mean(losses))


def crisp(labels: np.ndarray) -> np.ndarray:
    return np.stack([(labels == label).astype(float) for label in range(1, CLASSES + 1)])


def softmax(logits: np.ndarray) -> np.ndarray:
    """Of every class without the background."""
    powers = np.exp(logits - logits.max(0))
    return (powers / powers.sum(0))[1:]


def diffusion(field: np.ndarray) -> float:
    return float(np.mean([np.mean(np.diff(field, axis=axis) ** 2) for axis in range(1, field.ndim)]))


def array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().double().numpy()


def literal_terms(method: MacJNet, batch: dict[str, Tensor], smoothness: float) -> dict[str, float]:
    """Both objectives, from what the networks find."""
    chosen, count = method.chosen, len(batch["fixed"])
    shape = batch["fixed"].shape[2:]
    with torch.no_grad():
        found = method.register(batch["fixed"], batch["moving"])
        logits = {
            side: [array(result) for result in method.segmentation[modality].logits(batch[side])]  # pyright: ignore
            for side, modality in zip(("fixed", "moving"), MODALITIES, strict=True)
        }
    field = found.displacement if found.velocity is None else found.velocity
    sums: dict[str, float] = dict.fromkeys(("similarity", "overlap", "smoothness", "supervised", "consistency"), 0.0)
    for pair in range(count):
        u = array(found.displacement)[pair]
        labelled = {side: bool(batch[f"{side}_labelled"][pair]) for side in logits}
        manual = {side: crisp(array(batch[f"{side}_labels"])[pair, 0]) for side in logits}
        predicted = {side: softmax(results[0][pair]) for side, results in logits.items()}
        mask = {
            side: array(batch[f"{side}_mask"])[pair] if f"{side}_mask" in batch else np.ones((1, *shape))
            for side in logits
        }
        seen = mask["fixed"][0] * warped(mask["moving"], u)[0] if "fixed_mask" in batch else np.ones(shape)

        fixed = array(batch["fixed"])[pair, 0]
        moved = warped(array(batch["moving"])[pair], u, border=True)[0]
        descriptors = [fixed[None], moved[None]]
        if chosen.similarity == "macmind":
            options = chosen.alphas, chosen.distance, chosen.patch_size, BINS, chosen.concatenated
            descriptors = [macmind_by_hand(image, *options) for image in (fixed, moved)]
        squares = ((descriptors[0] - descriptors[1]) ** 2).mean(0)
        sums["similarity"] += float((squares * seen).sum() / seen.sum()) / count

        labels = {side: manual[side] if labelled[side] else predicted[side] for side in logits}
        everywhere = np.ones(shape)
        sums["overlap"] += dice_loss(labels["fixed"], warped(labels["moving"], u), everywhere, squared=True) / count
        sums["smoothness"] += smoothness * diffusion(array(field)[pair]) / count

        for side, results in logits.items():
            if labelled[side]:
                weights = np.array([0.5**depth for depth in range(len(results))])
                for weight, result in zip(weights / weights.sum(), results, strict=True):
                    loss = dice_loss(softmax(result[pair]), manual[side], mask[side][0], squared=False)
                    sums["supervised"] += float(weight) * loss / count
        if not all(labelled.values()):
            moved_labels = warped(predicted["moving"], u)
            sums["consistency"] += dice_loss(predicted["fixed"], moved_labels, seen, squared=True) / count
    return sums


@pytest.mark.parametrize("case", CASES)
def test_both_objectives(case: str) -> None:
    shape, settings, count, smoothness, masks = CASES[case]
    batch = pairs(shape, count, masks)
    method = made(shape, settings, batch)
    expected = literal_terms(method, batch, smoothness)
    found = {**method.terms(batch, "registration"), **method.terms(batch, "segmentation")}
    assert list(found) == list(expected)
    for name, value in expected.items():
        assert value > 1e-3, name
        assert found[name].item() == pytest.approx(value, rel=2e-4), name
