"""Turns of a step: every player evaluates its terms and steps its own networks, one after the other."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from anamorph.methods.base import Batch, Method
from anamorph.methods.schedule import Schedule
from anamorph.training.distributed import Processes
from anamorph.training.optimisation import optimiser_of

MIXED = {"float16": torch.float16, "bfloat16": torch.bfloat16}
"""Precisions that only part of the operations run in."""


@dataclass(frozen=True)
class Turns:
    """What a step came to, over the whole batch.

    Args:
        terms: "player.term" -> value, not weighted.
        finite: whether all terms and gradients are.
        signals: sums of what the processes had to tell each other.
    """

    terms: Mapping[str, float]
    finite: bool
    signals: tuple[float, ...]


class Players:
    """The players of a method with their optimisers.

    Args:
        method: whose players.
        schedule: how they learn.
        processes: who each have a share of every batch.
    """

    def __init__(self, method: Method, schedule: Schedule, processes: Processes) -> None:
        self.method, self.schedule, self.processes = method, schedule, processes
        self.parameters = {player: _parameters(method, player) for player in method.players}
        self.optimisers = {player: optimiser_of(found, schedule) for player, found in self.parameters.items()}
        kind = processes.device.type
        self.autocast = torch.autocast(kind, MIXED.get(schedule.precision), enabled=schedule.precision in MIXED)
        self.scaler = torch.amp.GradScaler(kind, enabled=schedule.precision == "float16")
        self.scaler.scale(torch.zeros((), device=processes.device))  # so that it has its scale where a batch is empty

    @property
    def weights(self) -> dict[str, dict[str, float]]:
        """Of every player's terms, as they are now."""
        return {player: dict(self.method.weights_of(player)) for player in self.method.players}

    def rate_of(self, player: str) -> float:
        """The learning rate that a player begins with."""
        return self.schedule.learning_rates.get(player, self.schedule.learning_rate)

    def step(self, batch: Batch | None, share: float, factor: float, signals: tuple[float, ...] = ()) -> Turns:
        """One turn of every player.

        Args:
            batch: this process's part of the batch; None where it has no item of it.
            share: the part's share of the batch's items.
            factor: of all learning rates.
            signals: numbers to sum over the processes on the way.
        """
        told: list[Tensor] = [torch.tensor(signals, device=self.processes.device)]
        norms: list[Tensor] = []
        weights = self.weights
        for player in self.method.players:
            terms, norm = self._turn(player, weights[player], batch, share, factor)
            told.append(terms)
            norms.append(norm)
        sums = self.processes.total(torch.cat(told)).tolist()
        names = [f"{player}.{term}" for player in self.method.players for term in weights[player]]
        values = dict(zip(names, sums[len(signals) :], strict=True))
        finite = all(map(math.isfinite, [*values.values(), *torch.stack(norms).tolist()]))
        return Turns(values, finite, tuple(sums[: len(signals)]))

    def _turn(
        self, player: str, weights: Mapping[str, float], batch: Batch | None, share: float, factor: float
    ) -> tuple[Tensor, Tensor]:
        """The player's terms times the share, and the norm of the whole batch's gradient."""
        optimiser = self.optimisers[player]
        for group in optimiser.param_groups:
            group["lr"] = self.rate_of(player) * factor
        optimiser.zero_grad()
        learning = [parameter for parameter in self.parameters[player] if parameter.requires_grad]
        told = torch.zeros(len(weights), device=self.processes.device)
        if batch is not None:
            told = share * self._backward(player, weights, batch, share, learning)
        self.processes.total_gradients(learning)
        learnt = [parameter for parameter in learning if parameter.grad is not None]
        if not learnt:
            return told, torch.zeros((), device=self.processes.device)
        self.scaler.unscale_(optimiser)
        norm = nn.utils.get_total_norm([parameter.grad for parameter in learnt if parameter.grad is not None])
        if self.schedule.clip_norm is not None:
            nn.utils.clip_grads_with_norm_(learnt, self.schedule.clip_norm, norm)
        self.scaler.step(optimiser)
        self.scaler.update()
        return told, norm

    def _backward(
        self, player: str, weights: Mapping[str, float], batch: Batch, share: float, learning: list[nn.Parameter]
    ) -> Tensor:
        """The terms; the gradient of their weighted sum reaches the player's own parameters and no others."""
        with self.autocast:
            terms = self.method.terms(batch, player)
        objective = weighted(terms, weights)
        # A displacement that is NaN makes grid_sample's gradient on the CPU write beyond its memory.
        harmless = objective.device.type != "cpu" or bool(objective.isfinite())
        if objective.requires_grad and learning and harmless:
            self.scaler.scale(share * objective).backward(inputs=learning)
        return torch.stack([terms[name].detach().float() for name in weights])

    def state(self) -> dict[str, Any]:
        """What the next step depends on, besides the weights."""
        optimisers = {player: optimiser.state_dict() for player, optimiser in self.optimisers.items()}
        return {"optimisers": optimisers, "scaler": self.scaler.state_dict()}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Continue from ``state()``."""
        for player, optimiser in self.optimisers.items():
            optimiser.load_state_dict(state["optimisers"][player])
        self.scaler.load_state_dict(state["scaler"])


def weighted(terms: Mapping[str, Tensor], weights: Mapping[str, float]) -> Tensor:
    """The sum of terms times weights of the same names."""
    if terms.keys() != weights.keys():
        raise ValueError(f"terms and weights share their names, found {sorted(terms)} and {sorted(weights)}")
    return torch.stack([weights[name] * terms[name].float() for name in weights]).sum()


def _parameters(method: Method, player: str) -> list[nn.Parameter]:
    """Of the player's networks, each once, in order."""
    found = [parameter for network in method.networks_of(player) for parameter in network.parameters()]
    return list(dict.fromkeys(found))
