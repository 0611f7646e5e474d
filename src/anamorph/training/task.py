"""What a training is about: its configuration with nothing left open, and the items of a prepared cohort."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from anamorph.data.files import sha256
from anamorph.data.plan import Plan
from anamorph.data.prepared import PreparedCohort, PreparedScan
from anamorph.errors import warn
from anamorph.inference.model_folder import domain_of
from anamorph.methods import METHODS
from anamorph.methods.base import Method
from anamorph.training.configuration import TrainingConfiguration
from anamorph.training.items import Items, choose_extra_items, choose_items, refuse_nothing, resolved
from anamorph.training.sampling import Sampler


@dataclass(frozen=True, eq=False)
class Task:
    """What is learnt, and from what.

    Args:
        folder: of the prepared cohort.
        configuration: with the rule of pairs spelled out.
        plan: of the cohort; the modality of the fixed images is the first, where one was chosen.
        training, extra, validation: the items of each split; those of extra that are learnt from.
        data: digest of plan and index.
    """

    folder: Path
    configuration: TrainingConfiguration
    plan: Plan
    training: Items
    extra: Items
    validation: Items
    data: str

    @classmethod
    def of(cls, prepared: PreparedCohort, configuration: TrainingConfiguration) -> Task:
        """The items that a configuration asks for.

        Raises:
            InputError: E-TRN-001, there are none; E-TRN-002, a file of theirs is damaged; E-TRN-003, no labels;
                E-TRN-013, labels that no extra scan has.
        """
        kind = METHODS[configuration.method]
        pairs, modality = configuration.pairs, configuration.modality
        if kind.items == "pairs":
            pairs = resolved(pairs, prepared)
            configuration = configuration.model_copy(update={"pairs": pairs})
        training, validation = (
            choose_items(prepared, split, kind.items, pairs, modality) for split in ("train", "validation")
        )
        refuse_nothing(training, prepared, pairs, modality, teaches=kind.tasks == ("segment",))
        extra = choose_extra_items(prepared, configuration, pairs)
        for items in (training, extra, validation):
            items.check()
        digest = "-".join(sha256(prepared.folder / name) for name in ("plan.yaml", "index.json"))
        plan = _fixed_first(prepared.plan, pairs.fixed_modality)
        return cls(prepared.folder, configuration, plan, training, extra, validation, digest)

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
        """Say that nothing can be validated, or extra scans are of no use."""
        if not len(self.validation):
            found = "no validation items: the last weights are kept"
            warn("W-TRN-012", f"{found}, good or not; give some cases the split validation")
        if self.extra.scans and not len(self.extra):
            found = f"none of {len(self.extra.scans)} extra scans can be learnt from"
            warn("W-TRN-013", f"{found}; look at their labels, modalities and pairs")

    def facts(self, trained: Mapping[str, Any], scores: Mapping[str, float]) -> dict[str, Any]:
        """What the model's card tells."""
        schedule = self.configuration.schedule.model_dump(mode="json")
        facts: dict[str, Any] = {
            "spacings": _spacings([part.scans[row] for part in (self.training, self.extra) for row in part.used]),
            "trained": {
                "items": len(self.training),
                "scans": len(self.training.used),
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
        else:
            facts["modality"] = self.configuration.modality
        return facts


def _fixed_first(plan: Plan, modality: str | None) -> Plan:
    if modality not in plan.modalities:
        return plan
    others = {name: found for name, found in plan.modalities.items() if name != modality}
    return plan.model_copy(update={"modalities": {modality: plan.modalities[modality], **others}})


def _spacings(scans: list[PreparedScan]) -> dict[str, tuple[tuple[float, ...], tuple[float, ...]]]:
    """Least and largest voxel size of each modality's originals, mm along the network's axes."""
    found: dict[str, list[np.ndarray]] = {}
    for scan in scans:
        native, network = (_directions(grid.affine) for grid in (scan.native, scan.grid))
        found.setdefault(scan.scan.modality, []).append(
            np.asarray(scan.native.spacing)[np.abs(network.T @ native).argmax(axis=1)]
        )
    return {name: (_rounded(np.min(sizes, axis=0)), _rounded(np.max(sizes, axis=0))) for name, sizes in found.items()}


def _directions(affine: np.ndarray) -> np.ndarray:
    """Unit vectors of the voxel axes, as columns."""
    axes = affine[:-1, :-1]
    return axes / np.linalg.norm(axes, axis=0)


def _rounded(lengths: np.ndarray) -> tuple[float, ...]:
    return tuple(round(float(length), 6) for length in lengths)
