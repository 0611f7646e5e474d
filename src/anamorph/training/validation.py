"""How good a method is on the validation split: what decides which weights are kept.

A method that registers is judged by the Dice of labels that it warps, one that segments by the Dice of what it finds,
each averaged over the classes that occur, then over the sides of a pair that have labels, then over items. One that
registers both ways is judged by either direction. Where no labels can tell, a method that translates is judged by how
far its images are from those of the other side, and any other, or one that learns none of these, by the weighted
objective.

Translated images are compared with the pair's other image after the method's own registration, or as they lie where it
has none: then what the pair is askew stays in the number, which so prefers blurred images. Of pairs of two subjects it
would mean nothing, and the objective decides.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from anamorph.data.cohort import subject_of
from anamorph.methods.base import Batch, Deformation, Method
from anamorph.methods.both_ways import OTHER, BothWays, Side
from anamorph.methods.both_ways import SIDES as PAIR
from anamorph.methods.translation import HEALTH, Translation
from anamorph.spatial.field import warp
from anamorph.training.items import SIDES, Items, on_device
from anamorph.training.players import Players, weighted
from anamorph.training.reading import Reader
from anamorph.training.sampling import spread

REGISTRATION, SEGMENTATION, OBJECTIVE = "registration_dice", "segmentation_dice", "objective"
BACKWARD = "backward_registration_dice"
"""Of the fixed image's labels, brought onto the moving one by a method that registers both ways."""
TRANSLATION = "translation_rmse"
"""Of translated images and those of the other side, in prepared intensities, mean over what can be translated to."""
DICES = (REGISTRATION, BACKWARD, SEGMENTATION)

Sample = dict[str, Any]
"""What a picture is made of: numpy arrays C I J (K) or I J (K) of one item, ``spacing`` in mm and ``epoch``."""


def measures_of(method: Method, items: Items) -> tuple[str, ...]:
    """What can be measured on these items."""
    found = []
    if items.plan.labels and method.judged_by == "answers":
        if "register" in method.tasks and items.kind == "pairs" and items.labelled.any():
            found += [REGISTRATION, BACKWARD] if isinstance(method, BothWays) else [REGISTRATION]
        if "segment" in method.tasks and items.any_labelled.any():
            found.append(SEGMENTATION)
    if (
        isinstance(method, Translation)
        and method.judged_by == "answers"
        and ("register" in method.tasks or _one(items))
    ):
        found.append(TRANSLATION)
    return tuple(found) or (OBJECTIVE,)


def _one(items: Items) -> bool:
    """Whether both images of every pair show the same subject."""
    cases = [[subject_of(items.scans[row].scan.case) for row in rows] for rows in items.index]
    return all(len(set(subjects)) == 1 for subjects in cases)


class Validation:
    """Judges a method on the same items every time.

    Args:
        items: of the validation split; at least one.
        players: of the method that is trained, for its objective.
        most: of the items to look at.

    Attributes:
        health: how the players of a method that translates stood in the last validation, means over the items; empty
            of other methods.
    """

    def __init__(self, items: Items, players: Players, most: int) -> None:
        self.items, self.players, self.processes = items, players, players.processes
        self.measures = measures_of(players.method, items)
        labelled = items.labelled if REGISTRATION in self.measures else items.any_labelled
        by_labels = not set(DICES).isdisjoint(self.measures)
        usable = labelled.nonzero()[0].tolist() if by_labels else range(len(items))
        self.chosen = [usable[place] for place in spread(len(usable), most)]
        self.reader = Reader(items)
        self.health: dict[str, float] = {}
        self._health = health_names(players.method)

    def score(self, method: Method, between: Callable[[float], None]) -> dict[str, float]:
        """Means over the items, by measure.

        Args:
            method: in evaluation mode, with the weights to judge.
            between: told between items how much is done; may raise to stop.
        """
        processes, count = self.processes, len(self.chosen)
        rounds = -(-count // processes.count)
        places = [number * processes.count + processes.index for number in range(rounds)]
        names = [*self.measures, *self._health]
        sums = torch.zeros(len(names), 2, dtype=torch.float64, device=processes.device)
        batches = self.reader.batches([self.chosen[place : place + 1] for place in places])
        for number, (place, batch) in enumerate(zip(places, batches, strict=True)):
            between(number / rounds)
            if batch is not None:
                found = self._measure(method, on_device(batch, processes.device), self.chosen[place])
                sums += torch.tensor(found, dtype=torch.float64, device=processes.device)
        totals = dict(zip(names, processes.total(sums).tolist(), strict=True))
        means = {name: total / number for name, (total, number) in totals.items() if number}
        self.health = {name: means[name] for name in self._health if name in means}
        return {name: means[name] for name in self.measures if name in means}

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
            health = method.health(batch) if isinstance(method, Translation) else {}
        return found + [(health[name], 1.0) for name in self._health]


def health_names(method: Method) -> tuple[str, ...]:
    """What ``method.health`` tells; empty of a method that does not translate."""
    return (
        tuple(f"{side}_{name}" for side in method.targets for name in HEALTH) if isinstance(method, Translation) else ()
    )


def choice_of(scores: Mapping[str, float]) -> float | None:
    """One number of them all, higher for better weights: the mean Dice where there is any; None where there is none."""
    dices = [value for name, value in scores.items() if name not in (TRANSLATION, OBJECTIVE)]
    if dices:
        return sum(dices) / len(dices)
    return next((-scores[name] for name in (TRANSLATION, OBJECTIVE) if name in scores), None)


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
            sample["modalities"] = tuple(items.modality(item, PAIR.index(side)) for side in PAIR)
            if "register" in method.tasks:
                displacement = method.register(batch["fixed"], batch["moving"]).displacement.float()
                sample["displacement"] = _array(displacement)
                sample["warped"] = _array(warp(batch["moving"], displacement))
                if bool(batch["moving_labelled"]):
                    sample["warped_labels"] = _array(_warped_labels(batch, displacement)[0])
            if isinstance(method, Translation):
                for side in method.targets:
                    made = method.translate(batch[OTHER[side]], items.modality(item, PAIR.index(OTHER[side])))
                    sample[f"{OTHER[side]}_translated"] = _array(made)
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


def _backward(method: Method, batch: Batch, modalities: Sequence[str], players: Players) -> list[float]:
    displacement = _fields(method, batch)["moving"].displacement.float()
    found = warp(batch["fixed_labels"].float(), displacement, mode="nearest").long()
    return mean_dice(batch["moving_labels"], found, method.domain.classes)


def _translation(method: Method, batch: Batch, modalities: Sequence[str], players: Players) -> list[float]:
    assert isinstance(method, Translation)
    fields, errors = _fields(method, batch), list[float]()
    for side in method.targets:
        found = method.translate(batch[OTHER[side]], modalities[PAIR.index(OTHER[side])]).float()
        if side in fields:
            found = warp(found, fields[side].displacement.float(), outside="border")
        counted = batch.get(f"{side}_mask", torch.ones_like(found[:, :1])).expand_as(found)
        squares = counted * (found - batch[side]).square()
        errors.append(float((squares.sum() / counted.sum().clamp_min(1)).sqrt()))
    return [sum(errors) / len(errors)]


def _fields(method: Method, batch: Batch) -> dict[Side, Deformation]:
    """By the side on whose grid they live; empty of a method that does not register."""
    if isinstance(method, BothWays):
        return dict(zip(PAIR, method.register_both(batch["fixed"], batch["moving"]), strict=True))
    return {"fixed": method.register(batch["fixed"], batch["moving"])} if "register" in method.tasks else {}


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
    REGISTRATION: _registration, BACKWARD: _backward, SEGMENTATION: _segmentation, TRANSLATION: _translation,
    OBJECTIVE: _objective,
}  # fmt: skip


def _warped_labels(batch: Batch, displacement: Tensor) -> Tensor:
    return warp(batch["moving_labels"].float(), displacement, mode="nearest").long()


def _array(tensor: Tensor) -> Any:
    """Without its batch axis."""
    return tensor[0].float().cpu().numpy() if tensor.is_floating_point() else tensor[0].cpu().numpy()
