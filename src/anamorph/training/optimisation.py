"""Optimisers, the fall of the learning rate, and the average of the weights."""

from __future__ import annotations

import math
from collections.abc import Iterable

from torch import nn, optim
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from anamorph.methods.base import Method
from anamorph.methods.schedule import Schedule

MOMENTUM = 0.99
"""Of sgd, as nnU-Net has it."""
POWER = 0.9
"""Of the polynomial decay."""


def optimiser_of(parameters: Iterable[nn.Parameter], schedule: Schedule) -> optim.Optimizer:
    """The schedule's optimiser; its rate is set before each step."""
    match schedule.optimiser:
        case "adam":
            return optim.Adam(parameters, betas=schedule.betas, weight_decay=schedule.weight_decay)
        case "adamw":
            return optim.AdamW(parameters, betas=schedule.betas, weight_decay=schedule.weight_decay)
        case "sgd":
            return optim.SGD(parameters, momentum=MOMENTUM, nesterov=True, weight_decay=schedule.weight_decay)


def decay(schedule: Schedule, epoch: int) -> float:
    """Factor of the learning rate in an epoch, counted from 0; 1 in the first."""
    done = epoch / schedule.epochs
    match schedule.decay:
        case "constant":
            return 1.0
        case "half_life":
            return 0.5 ** (epoch / schedule.half_life)
        case "polynomial":
            return (1 - done) ** POWER
        case "cosine":
            return (1 + math.cos(math.pi * done)) / 2
        case "linear":
            return min(1.0, 2 * (1 - done))


def average_of(method: Method, schedule: Schedule) -> AveragedModel | None:
    """Exponential moving average of the parameters, and a copy of the buffers; begins with the first step's weights."""
    if not schedule.average:
        return None
    return AveragedModel(method, multi_avg_fn=get_ema_multi_avg_fn(schedule.average))
