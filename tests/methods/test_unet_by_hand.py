"""U-Net and DynUNet: terms worked out on paper, probabilities, largest components, and a task that is learnt."""

from __future__ import annotations

import math

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from anamorph.errors import ConfigurationError
from anamorph.losses.segmentation import one_hot
from anamorph.methods.base import Batch, Domain
from anamorph.methods.dynunet import DynUNet, DynUNetSettings, DynUNetWeights
from anamorph.methods.segmentation import keep_largest_components, probabilities_of_regressed
from anamorph.methods.unet import UNet, UNetSettings, UNetWeights

PLANE = Domain((16, 16), (1.0, 1.0), classes=1)
VOLUME = Domain((9, 10, 12), (1.0, 1.0, 2.0), classes=2)
SMALL = {"unet": (UNet, UNetSettings(channels=(4, 8))), "dynunet": (DynUNet, DynUNetSettings(features=4))}


class Says(nn.Module):
    """A network that says what it is told to."""

    def __init__(self, *outputs: Tensor) -> None:
        super().__init__()
        self.outputs = outputs

    def forward(self, image: Tensor) -> Tensor:
        return self.outputs[0]


class SaysAll(Says):
    def forward(self, image: Tensor) -> list[Tensor]:
        return list(self.outputs)


def cases(domain: Domain, generator: torch.Generator, batch: int = 4) -> dict[str, Tensor]:
    """Bright and brighter boxes in noise."""
    labels = torch.zeros(batch, 1, *domain.shape, dtype=torch.int64)
    for item in range(batch):
        for label in range(1, domain.classes + 1):
            box = [
                slice(s := int(torch.randint(0, n // 2, (1,), generator=generator)), s + n // 2) for n in domain.shape
            ]
            labels[(item, 0, *box)] = label
    image = labels + 0.1 * torch.randn(labels.shape, generator=generator)
    return {"image": image.float(), "labels": labels, "labelled": torch.ones(batch, dtype=torch.bool)}


def small(name: str, domain: Domain, **settings) -> UNet | DynUNet:
    torch.manual_seed(0)
    kind, chosen = SMALL[name]
    return kind(type(chosen)(**dict(chosen) | settings), domain)


def test_regressed_labels():
    labels = torch.zeros(1, 1, 16, 16, dtype=torch.int64)
    labels[..., 8:] = 1
    batch = {"image": labels.float(), "labels": labels, "labelled": torch.tensor([True])}
    method = UNet(UNetSettings(label_smoothing_sigma=0.0), PLANE)
    method.network = Says(torch.full((1, 2, 16, 16), 0.5))
    assert method.terms(batch, "network")["mse"].item() == pytest.approx(0.25)
    smoothed = UNet(UNetSettings(), PLANE)
    smoothed.network = Says(one_hot(labels, 1, 0.5))
    assert smoothed.terms(batch, "network")["mse"].item() == 0
    smoothed.network = Says(one_hot(labels, 1))
    assert smoothed.terms(batch, "network")["mse"] > 1e-4


def test_dice_and_cross_entropy():
    labels = torch.zeros(1, 1, 16, 16, dtype=torch.int64)
    labels[..., 4:8, :8] = 1  # 32 voxels
    batch = {"image": labels.float(), "labels": labels, "labelled": torch.tensor([True])}
    method = UNet(UNetSettings(loss="dice_ce"), PLANE)
    method.network = Says(torch.zeros(1, 2, 16, 16))
    terms = method.terms(batch, "network")
    assert terms["dice"].item() == pytest.approx(1 - 2 * 16 / (128 + 32))
    assert terms["cross_entropy"].item() == pytest.approx(math.log(2))
    assert method.weights_of("network") == {"dice": 1, "cross_entropy": 1}
    only = UNet(UNetSettings(loss="dice", weights=UNetWeights(dice=2.0)), PLANE)
    assert only.weights_of("network") == {"dice": 2}
    assert list(only.terms(cases(PLANE, torch.Generator().manual_seed(1)), "network")) == ["dice"]


def test_depths_weigh_half_of_the_one_above():
    labels = torch.zeros(1, 1, 16, 16, dtype=torch.int64)
    batch = {"image": labels.float(), "labels": labels, "labelled": torch.tensor([True])}
    method = small("dynunet", PLANE)
    right = torch.stack([torch.full((16, 16), 90.0), torch.zeros(16, 16)]).unsqueeze(0)
    method.network = SaysAll(torch.zeros(1, 2, 16, 16), right)
    assert method.terms(batch, "network")["cross_entropy"].item() == pytest.approx(2 / 3 * math.log(2))
    method.network = SaysAll(right, torch.zeros(1, 2, 16, 16))
    assert method.terms(batch, "network")["cross_entropy"].item() == pytest.approx(1 / 3 * math.log(2))


def test_a_weight_of_zero_leaves_a_term_out(generator):
    method = small("dynunet", PLANE, weights=DynUNetWeights(cross_entropy=0.0))
    assert method.weights_of("network").keys() == method.terms(cases(PLANE, generator), "network").keys() == {"dice"}


@pytest.mark.parametrize("name", list(SMALL))
def test_what_is_not_labelled_teaches_nothing(name, generator):
    method = small(name, VOLUME)
    batch = cases(VOLUME, generator)
    part = {key: value[:2] for key, value in batch.items()}
    alone = method.terms(part, "network")
    batch["labelled"][2:] = False
    batch["labels"][2:] = 0
    torch.testing.assert_close(method.terms(batch, "network"), alone)
    batch["labelled"][:] = False
    none = method.terms(batch, "network")
    sum(none.values(), start=torch.zeros(())).backward()
    assert all(value.item() == 0 for value in none.values())
    assert all(p.grad is not None and not p.grad.any() for p in method.parameters())


@pytest.mark.parametrize("name", list(SMALL))
@pytest.mark.parametrize("masked", [False, True])
def test_gradients_of_halves_average_to_those_of_the_whole(name, masked, generator):
    settings = {"loss": "dice_ce"} if name == "unet" else {}
    method = small(name, VOLUME, **settings).double()
    batch = cases(VOLUME, generator)
    batch["image"] = batch["image"].double()
    if masked:
        batch["mask"] = (torch.rand(4, 1, *VOLUME.shape, generator=generator) < 0.5).float()
        batch["mask"][0, 0, 4:] = 0

    def gradients(part: Batch) -> list[Tensor]:
        total = sum(method.terms(part, "network").values(), start=torch.zeros(()))
        return list(torch.autograd.grad(total, list(method.parameters())))

    whole = gradients(batch)
    halves = [gradients({key: value[s] for key, value in batch.items()}) for s in (slice(0, 2), slice(2, 4))]
    for together, first, second in zip(whole, *halves, strict=True):
        torch.testing.assert_close(together, (first + second) / 2, rtol=1e-4, atol=1e-6)


def test_masked_voxels_do_not_count(generator):
    for settings in (UNetSettings(loss="dice_ce"), UNetSettings(label_smoothing_sigma=0.0)):
        method = UNet(settings, PLANE)
        batch = cases(PLANE, generator)
        outputs = torch.randn(4, 2, 16, 16, generator=generator)
        batch["mask"] = torch.ones(4, 1, 16, 16)
        batch["mask"][..., 10:, :] = 0
        method.network = Says(outputs)
        before = method.terms(batch, "network")
        outputs[:, :, 10:] = 7 * torch.randn(4, 2, 6, 16, generator=generator)
        torch.testing.assert_close(method.terms(batch, "network"), before)


@pytest.mark.parametrize("name", list(SMALL))
@pytest.mark.parametrize("domain", [PLANE, VOLUME])
@pytest.mark.parametrize("largest", [False, True])
def test_probabilities_of_images_of_any_size(name, domain, largest, generator):
    method = small(name, domain, largest_component=largest).eval()
    image = torch.randn(2, 1, *[n + 3 for n in domain.shape], generator=generator)
    found = method.segment(image, "ct")
    assert found.shape == (2, 1 + domain.classes, *image.shape[2:])
    torch.testing.assert_close(found.sum(1), torch.ones(2, *image.shape[2:]))
    assert found.min() >= 0
    assert found.max() <= 1 + 1e-6


def test_regressed_outputs_as_probabilities():
    outputs = torch.tensor([[0.9, 0.3, -0.1], [1.3, 1.2, 0.0], [-0.2, -0.3, -0.1], [0.0, 0.0, 0.0], [2e-7, 0.0, 0.0]])
    found = probabilities_of_regressed(outputs.view(5, 3, 1, 1)).view(5, 3)
    expected = [[0.75, 0.25, 0], [13 / 25, 12 / 25, 0], [0, 0, 1], [1, 0, 0], [1, 0, 0]]
    torch.testing.assert_close(found, torch.tensor(expected))


def test_each_class_keeps_its_largest_part():
    labels = torch.zeros(1, 1, 10, 10, dtype=torch.int64)
    labels[..., 0:3, 0:3] = 1
    labels[..., 3, 3] = 1  # touches by a corner
    labels[..., 7:9, 7:9] = 1
    labels[..., 0, 9] = 2
    labels[..., 5:7, 0] = 2
    probabilities = 0.6 * one_hot(labels, 2) + torch.tensor([0.1, 0.25, 0.05]).view(1, 3, 1, 1)
    probabilities /= probabilities.sum(1, keepdim=True)
    before = probabilities.clone()
    found = keep_largest_components(probabilities)
    expected = labels[:, 0].clone()
    expected[..., 7:9, 7:9] = 0
    expected[..., 0, 9] = 0
    assert torch.equal(found.argmax(1), expected)
    assert torch.equal(probabilities, before)
    torch.testing.assert_close(found.sum(1), torch.ones(1, 10, 10))
    same = found.argmax(1) == labels[:, 0]
    assert torch.equal(found[:, :, same[0]], before[:, :, same[0]])
    assert keep_largest_components(found) is found


def test_parts_are_sought_in_every_item_and_in_three_dimensions():
    labels = torch.zeros(2, 1, 6, 6, 6, dtype=torch.int64)
    labels[0, 0, 0, 0, :2] = 1
    labels[0, 0, 4:, 4:, 4:] = 1
    labels[1, 0, 0, 0, :2] = 1
    labels[1, 0, 1, 1, 2] = 1  # by a corner
    kept = keep_largest_components(one_hot(labels, 1)).argmax(1)
    assert [int(item.sum()) for item in kept] == [8, 3]


def test_background_wins_even_where_two_classes_shared_the_voxel():
    probabilities = torch.zeros(1, 3, 1, 5)
    probabilities[0, 1, 0, :2] = 1
    probabilities[0, 0, 0, 2:4] = 1
    probabilities[0, 1:, 0, 4] = 0.5
    assert keep_largest_components(probabilities).argmax(1).tolist() == [[[1, 1, 0, 0, 0]]]


@pytest.mark.parametrize("name", list(SMALL))
@pytest.mark.parametrize("domain", [PLANE, VOLUME])
def test_boxes_are_learnt(name, domain, generator):
    method = small(name, domain)
    batch = cases(domain, generator)
    optimiser = torch.optim.Adam(method.parameters(), lr=1e-2)
    for _ in range(150):
        optimiser.zero_grad()
        sum(method.terms(batch, "network").values(), start=torch.zeros(())).backward()
        optimiser.step()
    method.eval()
    for known, least in ((batch, 0.95), (cases(domain, generator), 0.9)):
        right = method.segment(known["image"]).argmax(1, keepdim=True) == known["labels"]
        assert right.float().mean() > least


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (UNetSettings, {"loss": "l2"}),
        (UNetSettings, {"loss": "mse", "weights": {"dice": 2.0}}),
        (UNetSettings, {"loss": "dice_ce", "weights": {"dice": 0.0, "cross_entropy": 0.0}}),
        (UNetSettings, {"channels": ()}),
        (UNetSettings, {"label_smoothing_sigma": -1.0}),
        (DynUNetSettings, {"weights": {"dice": 0.0, "cross_entropy": 0.0}}),
        (DynUNetSettings, {"features": 0}),
    ],
)
def test_settings_that_make_no_sense(kind, values):
    with pytest.raises(ValidationError):
        kind.model_validate(values)


@pytest.mark.parametrize("settings", [UNetSettings(loss="dice", weights=UNetWeights(dice=0.5)), DynUNetSettings()])
def test_settings_survive_being_written(settings):
    assert type(settings).model_validate(settings.model_dump(mode="json")) == settings


@pytest.mark.parametrize("name", list(SMALL))
def test_without_labels_there_is_nothing_to_learn(name):
    with pytest.raises(ConfigurationError, match="E-MOD-020"):
        small(name, Domain((16, 16), (1.0, 1.0)))
