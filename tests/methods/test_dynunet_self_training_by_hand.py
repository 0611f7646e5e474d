"""Cases without labels as pupils of the network itself: when, from whom, and what they learn."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from anamorph.losses import soft_dice
from anamorph.losses.segmentation import cross_entropy, divergence, one_hot
from anamorph.methods.base import Domain
from anamorph.methods.dynunet import DynUNet, DynUNetSettings

PLANE = Domain((16, 16), (1.0, 1.0), classes=2)


def method_of(**settings: Any) -> DynUNet:
    torch.manual_seed(0)
    values = {"features": 4, "weights": {"self_training": 0.5}, "self_training": {"begin": 0.4, "cycles": 3}} | settings
    return DynUNet(DynUNetSettings.model_validate(values), PLANE)


def batch_of(generator: torch.Generator, *labelled: bool) -> dict[str, Tensor]:
    labels = torch.randint(0, 3, (len(labelled), 1, 16, 16), generator=generator)
    image = labels + 0.1 * torch.randn(labels.shape, generator=generator)
    return {"image": image.float(), "labels": labels, "labelled": torch.tensor(labelled)}


def only(batch: dict[str, Tensor], *items: int) -> dict[str, Tensor]:
    return {key: value[list(items)] for key, value in batch.items()}


def copied(module: nn.Module) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in module.state_dict().items()}


def same(module: nn.Module, state: dict[str, Tensor]) -> bool:
    return all(torch.equal(value, state[key]) for key, value in module.state_dict().items())


def changed(method: DynUNet) -> None:
    for parameter in method.network.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)


def test_without_a_weight_there_is_nothing_of_it() -> None:
    method = DynUNet(DynUNetSettings(features=4), PLANE)
    assert set(method.weights_of("network")) == {"dice", "cross_entropy"}
    assert all(key.startswith("network.") for key in method.state_dict())


def test_the_weights_that_predict_are_renewed_at_the_start_of_each_cycle() -> None:
    method = method_of()
    assert method.teacher is not None
    renewed = []
    for step in range(100):
        before = copied(method.network)
        method.begin_step(step, 100)
        if same(method.teacher, before) and step > 0:
            renewed.append((step, int(method.cycle)))
        changed(method)
    assert renewed == [(40, 1), (60, 2), (80, 3)]
    assert all(not parameter.requires_grad for parameter in method.teacher.parameters())


def test_a_training_that_is_resumed_within_a_cycle_keeps_its_weights(generator) -> None:
    method, other = method_of(), method_of()
    assert other.teacher is not None
    method.begin_step(45, 100)
    assert method.teacher is not None
    frozen = copied(method.teacher)
    changed(method)
    other.load_state_dict(method.state_dict())
    other.begin_step(46, 100)
    assert same(other.teacher, frozen)
    batch = batch_of(generator, True, False)
    torch.testing.assert_close(other.terms(batch, "network"), method.terms(batch, "network"), rtol=0, atol=0)


def test_manual_labels_alone_teach_before(generator) -> None:
    method, plain = method_of(), method_of(weights={})
    plain.network.load_state_dict(method.network.state_dict())
    for labelled in ((True, False), (True, True), (False, False)):
        batch = batch_of(generator, *labelled)
        method.begin_step(39, 100)
        found, expected = method.terms(batch, "network"), plain.terms(batch, "network")
        assert list(found) == list(method.weights_of("network")) == ["dice", "cross_entropy", "self_training"]
        assert all(torch.equal(found[name], value) for name, value in expected.items())
        assert found["self_training"].item() == 0
        assert found["self_training"].requires_grad


@pytest.mark.parametrize("targets", ["hard", "soft"])
def test_cases_without_labels_learn_what_the_frozen_weights_predict(targets: str, generator) -> None:
    weights = {"dice": 2.0, "cross_entropy": 0.5, "self_training": 0.3}
    method = method_of(self_training={"begin": 0.5, "targets": targets}, weights=weights, deep_supervision=False)
    method.begin_step(50, 100)
    changed(method)
    batch = batch_of(generator, True, False, False, True)
    batch["mask"] = (torch.rand(4, 1, 16, 16, generator=generator) < 0.7).float()
    found = method.terms(batch, "network")
    known, unknown = only(batch, 0, 3), only(batch, 1, 2)
    assert method.teacher is not None
    q = method.teacher(unknown["image"])[0].softmax(1).detach()
    logits, mask = method.network(unknown["image"])[0], unknown["mask"]
    p = logits.softmax(1)
    if targets == "hard":
        labels = q.argmax(1, keepdim=True)
        dice = soft_dice(p[:, 1:], one_hot(labels, 2)[:, 1:], mask, squared=False)
        entropy = cross_entropy(logits, labels, mask)
    else:
        dice, entropy = soft_dice(p[:, 1:], q[:, 1:], mask), divergence(logits, q, mask)
    torch.testing.assert_close(found["self_training"], 2.0 * dice + 0.5 * entropy)
    alone = method.terms(known, "network")
    assert alone["self_training"].item() == 0
    for name in ("dice", "cross_entropy"):
        torch.testing.assert_close(found[name], alone[name])
    nothing = method.terms(unknown, "network")
    assert all(nothing[name].item() == 0 and nothing[name].requires_grad for name in ("dice", "cross_entropy"))
    torch.testing.assert_close(nothing["self_training"], found["self_training"])


def test_soft_predictions_of_its_own_teach_nothing_new(generator) -> None:
    method = method_of(self_training={"begin": 0.5, "targets": "soft"}, deep_supervision=False)
    method.begin_step(50, 100)
    found = method.terms(batch_of(generator, False), "network")["self_training"]
    assert found.item() == pytest.approx(0, abs=1e-5)


def test_gradients_reach_the_network_and_not_the_weights_that_predict(generator) -> None:
    method = method_of()
    method.begin_step(50, 100)
    changed(method)
    assert method.networks_of("network") == [method.network]
    sum(method.terms(batch_of(generator, True, False), "network").values(), torch.zeros(())).backward()
    for name, parameter in method.named_parameters():
        assert (parameter.grad is not None and bool(parameter.grad.any())) == name.startswith("network."), name


def test_one_labelled_case_and_many_others(generator) -> None:
    """Contrast differs from case to case: what one label says is carried to the rest."""
    labels = torch.zeros(6, 1, 16, 16, dtype=torch.int64)
    for item in range(6):
        row, column = torch.randint(2, 7, (2,), generator=generator).tolist()
        labels[item, 0, row : row + 6, column : column + 6] = 1
        labels[item, 0, row + 2 : row + 5, column + 2 : column + 5] = 2
    contrast = torch.linspace(1, 1.8, 6).view(6, 1, 1, 1)
    image = contrast * labels + 0.25 * torch.randn(labels.shape, generator=generator)
    batch = {"image": image.float(), "labels": labels, "labelled": torch.arange(6) == 0}
    method = method_of(weights={"self_training": 1.0}, self_training={"begin": 0.4, "cycles": 3})
    optimiser, steps, told = torch.optim.Adam(method.network.parameters(), lr=1e-2), 100, []
    for step in range(steps):
        method.begin_step(step, steps)
        terms = method.terms(batch, "network")
        optimiser.zero_grad()
        sum(terms.values(), torch.zeros(())).backward()
        optimiser.step()
        told.append(terms["self_training"].item())
    assert told[39] == 0 < told[40]
    assert told[-1] < 0.5 * max(told)
    right = method.eval().segment(batch["image"]).argmax(1, keepdim=True) == labels
    assert right[0].float().mean() > 0.95
    assert right[1:].float().mean() > 0.85


@pytest.mark.parametrize(
    "values",
    [
        {"weights": {"dice": 0.0, "cross_entropy": 0.0, "self_training": 1.0}},
        {"weights": {"self_training": -1.0}},
        {"self_training": {"begin": 0.0}},
        {"self_training": {"begin": 1.0}},
        {"self_training": {"cycles": 0}},
        {"self_training": {"targets": "mean"}},
    ],
)
def test_settings_that_make_no_sense(values: Any) -> None:
    with pytest.raises(ValidationError):
        DynUNetSettings.model_validate(values)
