"""What a training is about: its configuration with nothing left open, and the items of a prepared cohort."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from anamorph.data.files import sha256
from anamorph.data.landmark_formats import listed
from anamorph.data.plan import Plan
from anamorph.data.prepared import PreparedCohort, PreparedScan
from anamorph.errors import InputError, warn
from anamorph.inference.model_card import Appearance
from anamorph.inference.model_domain import appearance_of
from anamorph.inference.model_folder import domain_of
from anamorph.methods import METHODS
from anamorph.methods.base import Method
from anamorph.methods.both_ways import BothWays
from anamorph.training.configuration import TrainingConfiguration
from anamorph.training.items import SIDES, Items, choose_extra_items, choose_items, refuse_nothing, resolved
from anamorph.training.sampling import Sampler

MOST_IMAGES = 50
"""Of a modality, that are looked at to tell what it looks like."""


@dataclass(frozen=True, eq=False)
class Task:
    """What is learnt, and from what.

    Args:
        folder: of the prepared cohort.
        configuration: with the rule of pairs spelled out.
        plan: of the cohort. Of pairs the modality of all fixed images is the first, that of all moving ones the next; a
            method whose networks are about one modality each knows no others.
        training, extra, validation: the items of each split; those of extra that are learnt from.
        data: digest of plan and index.
        sides: the modality of all fixed and of all moving images, None where there are several; of single cases empty.
    """

    folder: Path
    configuration: TrainingConfiguration
    plan: Plan
    training: Items
    extra: Items
    validation: Items
    data: str
    sides: tuple[str | None, ...] = ()

    @classmethod
    def of(cls, prepared: PreparedCohort, configuration: TrainingConfiguration) -> Task:
        """The items that a configuration asks for.

        Raises:
            InputError: E-TRN-001, there are none; E-TRN-002, a file of theirs is damaged; E-TRN-003, no labels;
                E-TRN-013, labels that no extra scan has; E-TRN-017, several modalities where one is needed.
        """
        kind = METHODS[configuration.method]
        pairs, modality = configuration.pairs, configuration.modality
        if kind.items == "pairs":
            pairs = resolved(pairs, prepared)
            configuration = configuration.model_copy(update={"pairs": pairs})
        training = choose_items(prepared, "train", kind.items, pairs, modality, configuration.labelled)
        unlabelled = kind.learns_unlabelled(configuration.settings)
        teaching = training.any_labelled if "segment" in kind.tasks else None if unlabelled else training.labelled
        refuse_nothing(training, prepared, pairs, modality, teaching)
        if not unlabelled:
            training = training.without_hidden()
        extra = choose_extra_items(prepared, configuration, pairs)
        validation = choose_items(prepared, "validation", kind.items, pairs, modality)
        parts = (training, extra, validation)
        for items in parts:
            items.check()
        digest = "-".join(sha256(prepared.folder / name) for name in ("plan.yaml", "index.json"))
        sides = tuple(_only(parts, side) for side in range(2)) if kind.items == "pairs" else ()
        alone = kind.items == "pairs" and not {"segment", "translate"}.isdisjoint(kind.tasks)
        if alone:
            _refuse_mixed(parts, prepared.folder)
        plan = _ordered(prepared.plan, sides, alone)
        return cls(prepared.folder, configuration, plan, training, extra, validation, digest, sides)

    @cached_property
    def sampler(self) -> Sampler:
        """The order of the training items and of the extra ones, which are numbered after them."""
        schedule, count, extra = self.configuration.schedule, len(self.training), len(self.extra)
        drawn = min(extra, round(schedule.extra * count))
        seed = self.configuration.seed
        return Sampler(count, schedule.batch_size, schedule.steps_per_epoch, seed, extra, drawn)

    def method(self) -> Method:
        """The method before training; its weights are drawn from torch's generator."""
        kind = METHODS[self.configuration.method]
        return kind(self.configuration.settings, domain_of(self.plan))

    def warn_of_gaps(self) -> None:
        """Say that nothing can be validated, that extra scans are of no use, or that the training ends too soon."""
        if not len(self.validation):
            found = "no validation items: the last weights are kept"
            warn("W-TRN-012", f"{found}, good or not; give some cases the split validation")
        if self.extra.scans and not len(self.extra):
            found = f"none of {len(self.extra.scans)} extra scans can be learnt from"
            warn("W-TRN-013", f"{found}; look at their labels, modalities and pairs")
        configuration = self.configuration
        found = METHODS[configuration.method].out_of_reach(configuration.settings, configuration.schedule)
        if found:
            warn("W-TRN-014", found)

    def facts(self, trained: Mapping[str, Any], scores: Mapping[str, float]) -> dict[str, Any]:
        """What the model's card tells."""
        schedule = self.configuration.schedule.model_dump(mode="json")
        facts: dict[str, Any] = {
            "spacings": _spacings([part.scans[row] for part in (self.training, self.extra) for row in part.used]),
            "appearance": _appearance([self.training, self.extra]),
            "trained": {
                "items": len(self.training),
                "scans": len(self.training.used),
                **({"labelled_items": int(self.training.any_labelled.sum())} if self.training.hidden else {}),
                **({"extra_items": len(self.extra)} if len(self.extra) else {}),
                "validation_items": len(self.validation),
                "seed": self.configuration.seed,
                **trained,
                "schedule": schedule,
            },
            "scores": dict(scores),
        }
        if self.training.kind == "pairs":
            facts["pairs"] = self.configuration.pairs.model_dump()
            kind = METHODS[self.configuration.method]
            if issubclass(kind, BothWays) or not {"segment", "translate"}.isdisjoint(kind.tasks):
                facts["pairs"] |= dict(zip(("fixed_modality", "moving_modality"), self.sides, strict=True))
        else:
            facts["modality"] = self.configuration.modality
        return facts


def _only(parts: Sequence[Items], side: int) -> str | None:
    """The modality of all images on a side; None where there are several."""
    found = set[str]().union(*(items.modalities(side) for items in parts))
    return found.pop() if len(found) == 1 else None


def _ordered(plan: Plan, sides: Sequence[str | None], alone: bool) -> Plan:
    """The plan with the modalities of the sides first, or without any others."""
    names = dict.fromkeys([*(name for name in sides if name is not None), *(() if alone else plan.modalities)])
    if [*names] == [*plan.modalities]:
        return plan
    return plan.model_copy(update={"modalities": {name: plan.modalities[name] for name in names}})


def _refuse_mixed(parts: Sequence[Items], folder: Path) -> None:
    """Refuse several modalities on one side, where each side has networks of its own (E-TRN-017)."""
    for side, name in enumerate(SIDES["pairs"]):
        found = sorted(set[str]().union(*(items.modalities(side) for items in parts)))
        if len(found) > 1:
            raise InputError(
                "E-TRN-017", f"{name} images of {listed(found)}", file=folder, expected="one modality a side",
                do="name --fixed-modality and --moving-modality",
            )  # fmt: skip


def _spacings(scans: list[PreparedScan]) -> dict[str, tuple[tuple[float, ...], tuple[float, ...]]]:
    """Least and largest voxel size of each modality's originals, mm along the network's axes."""
    found: dict[str, list[np.ndarray]] = {}
    for scan in scans:
        native, network = (_directions(grid.affine) for grid in (scan.native, scan.grid))
        found.setdefault(scan.scan.modality, []).append(
            np.asarray(scan.native.spacing)[np.abs(network.T @ native).argmax(axis=1)]
        )
    return {name: (_rounded(np.min(sizes, axis=0)), _rounded(np.max(sizes, axis=0))) for name, sizes in found.items()}


def _appearance(parts: Sequence[Items]) -> dict[str, Appearance]:
    """What the images of each modality look like, where there are several to take one for another."""
    found: dict[str, list[tuple[Items, int]]] = {}
    for part in parts:
        for row in part.used:
            found.setdefault(part.scans[row].scan.modality, []).append((part, int(row)))
    if len(found) < 2:
        return {}
    chosen = {name: rows[:: -(-len(rows) // MOST_IMAGES)] for name, rows in found.items()}
    looks = {name: appearance_of([part.image(row) for part, row in rows]) for name, rows in chosen.items()}
    return {name: look for name, look in looks.items() if look is not None}


def _directions(affine: np.ndarray) -> np.ndarray:
    """Unit vectors of the voxel axes, as columns."""
    axes = affine[:-1, :-1]
    return axes / np.linalg.norm(axes, axis=0)


def _rounded(lengths: np.ndarray) -> tuple[float, ...]:
    return tuple(round(float(length), 6) for length in lengths)
