"""How good a method is on the validation split: what decides which weights are kept.

A method that registers is judged by the Dice of labels that it warps, one that segments by the Dice of what it finds,
each averaged over the classes that occur, then over the sides of a pair that have labels, then over items. Where no
labels can tell, or a method learns neither of these, the weighted objective does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from anamorph.methods.base import Batch, Method
from anamorph.spatial.field import warp
from anamorph.training.items import SIDES, Items, on_device
from anamorph.training.players import Players, weighted
from anamorph.training.reading import Reader
from anamorph.training.sampling import spread

REGISTRATION, SEGMENTATION, OBJECTIVE = "registration_dice", "segmentation_dice", "objective"

Sample = dict[str, Any]
"""What a picture is made of: numpy arrays C I J (K) or I J (K) of one item, ``spacing`` in mm and ``epoch``."""


def measures_of(method: type[Method] | Method, items: Items) -> tuple[str, ...]:
    """What can be measured on these items."""
    found = []
    if items.plan.labels and method.judged_by == "answers":
        if "register" in method.tasks and items.kind == "pairs" and items.labelled.any():
            found.append(REGISTRATION)
        if "segment" in method.tasks and items.any_labelled.any():
            found.append(SEGMENTATION)
    return tuple(found) or (OBJECTIVE,)


class Validation:
    """Judges a method on the same items every time.

    Args:
        items: of the validation split; at least one.
        players: of the method that is trained, for its objective.
        most: of the items to look at.
    """

    def __init__(self, items: Items, players: Players, most: int) -> None:
        self.items, self.players, self.processes = items, players, players.processes
        self.measures = measures_of(players.method, items)
        labelled = items.labelled if REGISTRATION in self.measures else items.any_labelled
        usable = range(len(items)) if self.measures == (OBJECTIVE,) else labelled.nonzero()[0].tolist()
        self.chosen = [usable[place] for place in spread(len(usable), most)]
        self.reader = Reader(items)

    def score(self, method: Method, between: Callable[[float], None]) -> dict[str, float]:
        """Means over the items, by measure.

        Args:
            method: in evaluation mode, with the weights to judge.
            between: told between items how much is done; may raise to stop.
        """
        processes, count = self.processes, len(self.chosen)
        rounds = -(-count // processes.count)
        places = [number * processes.count + processes.index for number in range(rounds)]
        sums = torch.zeros(len(self.measures), 2, dtype=torch.float64, device=processes.device)
        batches = self.reader.batches([self.chosen[place : place + 1] for place in places])
        for number, (place, batch) in enumerate(zip(places, batches, strict=True)):
            between(number / rounds)
            if batch is not None:
                found = self._measure(method, on_device(batch, processes.device), self.chosen[place])
                sums += torch.tensor(found, dtype=torch.float64, device=processes.device)
        totals = processes.total(sums)
        return {
            name: total / number for name, (total, number) in zip(self.measures, totals.tolist(), strict=True) if number
        }

    def sample(self, method: Method) -> Sample:
        """The first item, and what the method makes of it."""
        return sample_of(method, self.items, self.chosen[0], self.players)

    @torch.no_grad()
    def _measure(self, method: Method, batch: Batch, item: int) -> list[tuple[float, float]]:
        """Sum and number of values, by measure."""
        found, modalities = [], [self.items.modality(item, side) for side in range(self.items.index.shape[1])]
        with self.players.autocast:
            for measure in self.measures:
                values = _MEASURES[measure](method, batch, modalities, self.players)
                found.append((sum(values), float(len(values))))
        return found


def choice_of(scores: Mapping[str, float]) -> float | None:
    """One number of them all, higher for better weights; None where there is none."""
    dices = [value for name, value in scores.items() if name != OBJECTIVE]
    if dices:
        return sum(dices) / len(dices)
    return -scores[OBJECTIVE] if OBJECTIVE in scores else None


def mean_dice(truth: Int[Tensor, "..."], found: Int[Tensor, "..."], classes: int) -> list[float]:
    """Mean Dice of the classes that occur in either; empty where none does."""
    pairs = torch.bincount((truth * (classes + 1) + found).flatten(), minlength=(classes + 1) ** 2)
    counts = pairs.view(classes + 1, classes + 1).double()
    both, either = counts.diagonal()[1:], (counts.sum(0) + counts.sum(1))[1:]
    dice = 2 * both[either > 0] / either[either > 0]
    return [float(dice.mean())] if len(dice) else []


@torch.no_grad()
def sample_of(method: Method, items: Items, item: int, players: Players) -> Sample:
    """One item as arrays, with what the method makes of it."""
    batch = on_device(items.load([item]), players.processes.device)
    sample: Sample = {"spacing": items.plan.spacing, "name": items.name(item)}
    with players.autocast:
        if items.kind == "pairs":
            names = ["fixed", "moving"]
            if "register" in method.tasks:
                displacement = method.register(batch["fixed"], batch["moving"]).displacement.float()
                sample["displacement"] = _array(displacement)
                sample["warped"] = _array(warp(batch["moving"], displacement))
                if bool(batch["moving_labelled"]):
                    sample["warped_labels"] = _array(_warped_labels(batch, displacement)[0])
        else:
            names = ["image"]
        if "segment" in method.tasks:
            probabilities = method.segment(batch[names[0]], items.modality(item))
            sample["prediction"] = _array(probabilities.argmax(1))
    for name in names:
        prefix = "" if name == "image" else f"{name}_"
        sample[name] = _array(batch[name])
        if bool(batch[f"{prefix}labelled"]):
            sample[f"{prefix}labels"] = _array(batch[f"{prefix}labels"][0])
    return sample


def template_of(method: Method, spacing: Sequence[float]) -> Sample:
    """What a method holds of the population, as arrays; empty where it has nothing of the kind."""
    found = method.template()
    if not found:
        return {}
    labels = found["labels"]
    return {
        "name": "atlas",
        "spacing": spacing,
        "template": _array(found["image"]),
        "template_labels": _array(labels.argmax(1)),
        "foreground": _array(1 - labels[:, :1]),
    }


def _registration(method: Method, batch: Batch, modalities: Sequence[str], players: Players) -> list[float]:
    displacement = method.register(batch["fixed"], batch["moving"]).displacement.float()
    return mean_dice(batch["fixed_labels"], _warped_labels(batch, displacement), method.domain.classes)


def _segmentation(method: Method, batch: Batch, modalities: Sequence[str], players: Players) -> list[float]:
    values: list[float] = []
    for side, modality in zip(SIDES["pairs" if "fixed" in batch else "cases"], modalities, strict=True):
        prefix = "" if side == "image" else f"{side}_"
        if bool(batch[f"{prefix}labelled"].all()):
            found = method.segment(batch[side], modality).argmax(1, keepdim=True)
            values += mean_dice(batch[f"{prefix}labels"], found, method.domain.classes)
    return [sum(values) / len(values)] if values else []


def _objective(method: Method, batch: Batch, modalities: Sequence[str], players: Players) -> list[float]:
    return [sum(float(weighted(method.terms(batch, name), players.weights[name])) for name in method.players)]


_MEASURES: dict[str, Callable[[Method, Batch, Sequence[str], Players], Sequence[float]]] = {
    REGISTRATION: _registration, SEGMENTATION: _segmentation, OBJECTIVE: _objective
}  # fmt: skip


def _warped_labels(batch: Batch, displacement: Tensor) -> Tensor:
    return warp(batch["moving_labels"].float(), displacement, mode="nearest").long()


def _array(tensor: Tensor) -> Any:
    """Without its batch axis."""
    return tensor[0].float().cpu().numpy() if tensor.is_floating_point() else tensor[0].cpu().numpy()
