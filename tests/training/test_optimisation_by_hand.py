"""Rates, optimisers and averages against numbers worked out by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from anamorph.methods.base import Domain
from anamorph.methods.schedule import Schedule
from anamorph.training.optimisation import average_of, decay, optimiser_of
from tests.training.tiny import Align, AlignSettings


@pytest.mark.parametrize(
    ("kind", "factors"),
    [
        ("constant", {0: 1, 5: 1, 9: 1}),
        ("half_life", {0: 1, 2: 0.5, 4: 0.25, 1: 0.5**0.5}),
        ("polynomial", {0: 1, 5: 0.5**0.9, 9: 0.1**0.9}),
        ("cosine", {0: 1, 5: 0.5}),
        ("linear", {0: 1, 4: 1, 5: 1, 6: 0.8, 9: 0.2}),
    ],
)
def test_the_rate_falls_as_its_name_says(kind: str, factors: dict[int, float]) -> None:
    schedule = Schedule.model_validate({"epochs": 10, "decay": kind, "half_life": 2.0})
    for epoch, factor in factors.items():
        assert decay(schedule, epoch) == pytest.approx(factor)


@pytest.mark.parametrize(
    ("name", "kind", "expected"),
    [
        ("adam", torch.optim.Adam, {"betas": (0.5, 0.9), "weight_decay": 0.1}),
        ("adamw", torch.optim.AdamW, {"betas": (0.5, 0.9), "weight_decay": 0.1}),
        ("sgd", torch.optim.SGD, {"momentum": 0.99, "nesterov": True, "weight_decay": 0.1}),
    ],
)
def test_optimisers(name: str, kind: type, expected: dict[str, Any]) -> None:
    schedule = Schedule.model_validate({"optimiser": name, "betas": (0.5, 0.9), "weight_decay": 0.1})
    found = optimiser_of(nn.Linear(2, 2).parameters(), schedule)
    assert type(found) is kind
    assert {key: found.param_groups[0][key] for key in expected} == expected


def test_the_average_forgets_at_its_rate_and_copies_buffers() -> None:
    method = Align(AlignSettings(), Domain((8, 8), (1.0, 1.0)))
    average = average_of(method, Schedule(average=0.75))
    assert average is not None
    weight, statistics = method.network[0].weight, method.network[1].running_mean
    for value in (1.0, 2.0, 4.0):
        with torch.no_grad():
            weight.fill_(value)
            statistics.fill_(value)
        average.update_parameters(method)
    assert average.module.network[0].weight.unique().tolist() == pytest.approx([0.75 * 1.25 + 0.25 * 4])
    assert average.module.network[1].running_mean.unique().tolist() == [4.0]
    assert average_of(method, Schedule()) is None
