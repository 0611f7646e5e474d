"""Adversarial losses of a few answers, worked out on paper."""

from __future__ import annotations

import math

import pytest
import torch

from anamorph.losses.adversarial import ADVERSARIAL, least_squares, vanilla


def test_least_squares_is_the_distance_from_what_the_answers_should_be() -> None:
    answers = torch.tensor([[[[1.0, 0.5], [0.0, -1.0]]]])
    assert least_squares(answers, True).item() == pytest.approx((0 + 0.25 + 1 + 4) / 4)
    assert least_squares(answers, False).item() == pytest.approx((1 + 0.25 + 0 + 1) / 4)


def test_vanilla_is_the_cross_entropy_of_logits() -> None:
    answers = torch.tensor([[[2.0, -1.0]]])
    real = [1 / (1 + math.exp(-logit)) for logit in (2.0, -1.0)]
    assert vanilla(answers, True).item() == pytest.approx(-sum(map(math.log, real)) / 2)
    assert vanilla(answers, False).item() == pytest.approx(-sum(math.log(1 - p) for p in real) / 2)


@pytest.mark.parametrize(("name", "cost", "answer"), [("least_squares", 0.25, 0.5), ("vanilla", math.log(2), 0.0)])
def test_who_cannot_tell_pays_the_same_on_either_kind(name: str, cost: float, answer: float) -> None:
    answers = torch.full((2, 1, 3, 3), answer)
    assert ADVERSARIAL[name](answers, True).item() == pytest.approx(cost)
    assert ADVERSARIAL[name](answers, False).item() == pytest.approx(cost)


@pytest.mark.parametrize("name", ADVERSARIAL)
@pytest.mark.parametrize("real", [True, False])
def test_a_gradient_leads_towards_the_answer(name: str, real: bool) -> None:
    answers = torch.full((1, 1, 2, 2), 0.5, requires_grad=True)
    ADVERSARIAL[name](answers, real).backward()
    assert answers.grad is not None
    assert ((answers.grad < 0) if real else (answers.grad > 0)).all()


@pytest.mark.parametrize("name", ADVERSARIAL)
def test_half_precision_and_great_answers_stay_finite(name: str) -> None:
    answers = torch.tensor([[[300.0, -300.0]]], dtype=torch.float16)
    assert ADVERSARIAL[name](answers, True).isfinite()
    assert ADVERSARIAL[name](answers, True).dtype == torch.float32
