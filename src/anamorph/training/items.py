"""What is learnt from: pairs or single cases of a prepared cohort, as indices until a batch needs their tensors."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from anamorph.data.cohort import PairRule, Split, subject_of
from anamorph.data.landmark_formats import listed
from anamorph.data.plan import Plan
from anamorph.data.prepared import PreparedCohort, PreparedScan
from anamorph.errors import InputError
from anamorph.methods import METHODS
from anamorph.training.configuration import LabelChoice, PairChoice, TrainingConfiguration

HostBatch = dict[str, np.ndarray]
"""A batch as it is stored: images float32, labels int16 and masks uint8 without channels."""

SIDES = {"pairs": ("fixed", "moving"), "cases": ("image",)}


@dataclass(frozen=True, eq=False)
class Items:
    """Pairs or cases of one split, or of the training split and the extra one.

    Args:
        kind: which of the two.
        scans: that they are made of.
        index: items x 2 (fixed, moving) or items x 1: rows of ``scans``.
        plan: of the cohort.
        keep: whether tensors stay in memory once they are read.
        extra: how many of them, the last, are of the split extra.
        hidden: rows of ``scans`` whose labels are not shown.
    """

    kind: Literal["pairs", "cases"]
    scans: tuple[PreparedScan, ...]
    index: np.ndarray
    plan: Plan
    keep: bool = False
    extra: int = 0
    hidden: frozenset[int] = frozenset()
    _kept: dict[int, dict[str, np.ndarray]] = field(init=False, default_factory=dict, repr=False)

    def __len__(self) -> int:
        return len(self.index)

    @property
    def main(self) -> int:
        """How many are not extra."""
        return len(self) - self.extra

    def name(self, item: int) -> str:
        """``CASE_MODALITY``, or two of them joined as ``Pair.name`` does."""
        return "-".join(self.scans[row].name for row in self.index[item])

    def modality(self, item: int, side: int = 0) -> str:
        """Of an item's only image, or of its fixed one (side 0) or moving one (1)."""
        return self.scans[self.index[item, side]].scan.modality

    def modalities(self, side: int) -> set[str]:
        """Those of all items' images on a side."""
        return {self.scans[row].scan.modality for row in np.unique(self.index[:, side])}

    @cached_property
    def used(self) -> np.ndarray:
        """Rows of the scans that occur in any item."""
        return np.unique(self.index)

    @cached_property
    def labelled(self) -> np.ndarray:
        """Of each item, whether all of its scans have labels, which are shown."""
        return np.all(self._shown[self.index], axis=1)

    @cached_property
    def any_labelled(self) -> np.ndarray:
        """Of each item, whether one of its scans has labels, which are shown."""
        return np.any(self._shown[self.index], axis=1)

    @cached_property
    def _shown(self) -> np.ndarray:
        """Of each scan, whether it has labels, which are shown."""
        has = [scan.classes is not None and row not in self.hidden for row, scan in enumerate(self.scans)]
        return np.array(has, dtype=bool)

    def without_hidden(self) -> Items:
        """Those items all of whose labels are shown; the very same where none are hidden."""
        if not self.hidden:
            return self
        return replace(self, index=self.index[~np.isin(self.index, list(self.hidden)).any(axis=1)])

    @cached_property
    def masked(self) -> bool:
        """Whether every scan has a mask: then batches have masks."""
        return all(self.scans[row].scan.mask is not None for row in self.used)

    @cached_property
    def bytes(self) -> int:
        """Of all tensors that the items are made of."""
        return sum(self.scans[row].file.stat().st_size for row in self.used)

    def load(self, items: Sequence[int]) -> HostBatch:
        """The tensors of some items.

        Raises:
            InputError: E-TRN-002, a file of tensors is missing or damaged.
        """
        batch: HostBatch = {}
        for side, rows in zip(SIDES[self.kind], self.index[list(items)].T, strict=True):
            prefix = "" if side == "image" else f"{side}_"
            found = [self._tensors(int(row)) for row in rows]
            nothing = np.zeros(self.plan.shape, np.int16)
            batch[side] = np.stack([tensors["image"] for tensors in found])
            batch[f"{prefix}labels"] = np.stack([tensors.get("labels", nothing) for tensors in found])
            batch[f"{prefix}labelled"] = np.array(["labels" in tensors for tensors in found])
            if self.masked:
                batch[f"{prefix}mask"] = np.stack([tensors["mask"] for tensors in found])
        if self.kind == "cases":
            batch["index"] = np.asarray(items, np.int64)
        return batch

    def image(self, row: int) -> np.ndarray:
        """The image of one of the scans, C I J (K).

        Raises:
            InputError: E-TRN-002, its file of tensors is missing or damaged.
        """
        return self._tensors(row)["image"]

    def check(self) -> None:
        """Look at the head of every file of tensors, before anything is learnt.

        Raises:
            InputError: E-TRN-002, one is missing, cut off or does not fit the plan.
        """
        for row in self.used:
            _check(self.scans[row], self.plan)

    def _tensors(self, row: int) -> dict[str, np.ndarray]:
        kept = self._kept.get(row)
        if kept is not None:
            return kept
        scan = self.scans[row]
        try:
            found = {name: tensor.numpy() for name, tensor in scan.load().items()}
        except (OSError, SafetensorError) as error:
            raise _damaged(scan) from error
        if row in self.hidden:
            found.pop("labels", None)
        if "labels" in found:
            found["labels"] = found["labels"].astype(np.int16)
        if self.keep:
            self._kept[row] = found
        return found


def choose_items(
    prepared: PreparedCohort,
    split: Split,
    kind: Literal["pairs", "cases"],
    pairs: PairChoice,
    modality: str | None = None,
    labelled: LabelChoice = LabelChoice(),  # noqa: B008
) -> Items:
    """The items of a split; there may be none. ``labelled`` says whose labels are shown."""
    scans = tuple(scan for scan in prepared.scans if scan.scan.split == split)
    if kind == "pairs":
        index = _pairs(prepared, scans, pairs)
    else:
        chosen = [row for row, scan in enumerate(scans) if modality in (None, scan.scan.modality)]
        index = np.array(chosen, np.int32).reshape(-1, 1)
    return Items(kind, scans, index, prepared.plan, hidden=_hidden(scans, labelled))


def choose_extra_items(prepared: PreparedCohort, configuration: TrainingConfiguration, pairs: PairChoice) -> Items:
    """The items of the split extra that are learnt from; where labels alone teach, those that have some.

    Args:
        prepared: where they are looked for.
        configuration: of the training.
        pairs: its choice, with the rule spelled out.

    Raises:
        InputError: E-TRN-013, a method that segments would learn as background what is labelled in none of them.
    """
    method = METHODS[configuration.method]
    if not configuration.schedule.extra:
        return Items(method.items, (), np.empty((0, len(SIDES[method.items])), np.int32), prepared.plan)
    items = choose_items(prepared, "extra", method.items, pairs, configuration.modality)
    if "segment" in method.tasks:
        _refuse_unlabelled_classes(items, prepared)
    if method.learns_unlabelled(configuration.settings):
        return items
    return replace(items, index=items.index[items.labelled])


def with_extra(items: Items, extra: Items) -> Items:
    """The items of the training split, then extra ones; the very same where there are none."""
    if not len(extra):
        return items
    index = np.concatenate([items.index, extra.index + len(items.scans)])
    return replace(items, scans=items.scans + extra.scans, index=index, extra=len(extra))


def resolved(pairs: PairChoice, prepared: PreparedCohort) -> PairChoice:
    """The choice with its rule spelled out."""
    if pairs.rule is not None:
        return pairs
    scans_of = Counter((scan.scan.case, scan.scan.split) for scan in prepared.scans)
    rule: PairRule = "listed" if prepared.listed else "within" if max(scans_of.values(), default=0) > 1 else "between"
    return pairs.model_copy(update={"rule": rule})


def refuse_nothing(
    items: Items, prepared: PreparedCohort, pairs: PairChoice, modality: str | None, teaching: np.ndarray | None
) -> None:
    """Refuse to train on nothing.

    Args:
        items: of the training split.
        prepared: where they were looked for.
        pairs, modality: what was looked for.
        teaching: of each item, whether its labels teach; None where images do as well.

    Raises:
        InputError: E-TRN-001, no items; E-TRN-003, no labels where they are needed.
    """
    counts = Counter(scan.scan.modality for scan in items.scans)
    found = ", ".join(f"{number} {name}" for name, number in sorted(counts.items())) or "none"
    if not len(items):
        if items.kind == "cases":
            wanted = f"images of modality {modality}" if modality else "images"
        else:
            sides = (f"{side} {name}" for side, name in zip(SIDES["pairs"], _modalities(pairs), strict=True) if name)
            wanted = " ".join([f"pairs {pairs.rule}", *sides])
        listed = f", {len(prepared.listed)} listed pairs" if pairs.rule == "listed" else ""
        raise InputError(
            "E-TRN-001", f"no {wanted} to train on; scans of the training split: {found}{listed}",
            file=prepared.folder, do="choose others, or change the splits and prepare again",
        )  # fmt: skip
    if teaching is not None and not teaching.any():
        sides = " on both sides" if items.any_labelled.any() else ""
        found = f"none of {len(items)} training {items.kind} has labels{sides}"
        ways = ["show a share of the labels above 0"] * bool(items.hidden)
        ways += ["train lapirn or voxelmorph, which need none"] * (items.kind == "pairs")
        do = ", or ".join(ways)
        raise InputError("E-TRN-003", found, file=prepared.folder, expected="some with labels", do=do)


def on_device(batch: HostBatch, device: torch.device) -> dict[str, Tensor]:
    """A batch as methods take it: labels and masks with a channel, int64 and float32."""
    tensors: dict[str, Tensor] = {}
    for name, values in batch.items():
        tensor = torch.from_numpy(values).to(device)
        if name.endswith("labels"):
            tensor = tensor.to(torch.int64).unsqueeze(1)
        elif name.endswith("mask"):
            tensor = tensor.to(torch.float32).unsqueeze(1)
        tensors[name] = tensor
    return tensors


def _refuse_unlabelled_classes(items: Items, prepared: PreparedCohort) -> None:
    """Refuse labels of the plan that none of the labelled extra scans has (E-TRN-013)."""
    found = [classes for row in items.used if (classes := items.scans[row].classes) is not None]
    present = {number for classes in found for number in classes}
    labels = items.plan.labels.items()
    absent = [f"{label} ({name})" for number, (label, name) in enumerate(labels, 1) if number not in present]
    if found and absent:
        raise InputError(
            "E-TRN-013", f"label {listed(absent)} in none of {len(found)} labelled extra scans", file=prepared.folder,
            expected="each in some, since elsewhere it is learnt as background",
            do="delete it from plan.yaml and prepare again, or give these scans the split train",
        )  # fmt: skip


def _hidden(scans: Sequence[PreparedScan], labelled: LabelChoice) -> frozenset[int]:
    """Rows of the scans of subjects whose labels are not shown.

    Subjects are ranked by the SHA-256 of seed and name: the same draw for every method, on any machine.
    """
    subjects = {subject_of(scan.scan.case) for scan in scans if scan.classes is not None}
    ranked = sorted(subjects, key=lambda name: hashlib.sha256(f"labels:{labelled.seed}:{name}".encode()).digest())
    shown = set(ranked[: max(1, round(labelled.share * len(ranked))) if labelled.share else 0])
    return frozenset(row for row, scan in enumerate(scans) if subject_of(scan.scan.case) in subjects - shown)


def _modalities(pairs: PairChoice) -> tuple[str | None, str | None]:
    return pairs.fixed_modality, pairs.moving_modality


def _pairs(prepared: PreparedCohort, scans: Sequence[PreparedScan], pairs: PairChoice) -> np.ndarray:
    """Rows of fixed and moving scans, in the order of ``Cohort.pairs`` but without an object a pair."""
    fixed, moving = (
        np.array([modality in (None, scan.scan.modality) for scan in scans], dtype=bool)
        for modality in _modalities(pairs)
    )
    if pairs.rule == "listed":
        row_of = {scan.name: row for row, scan in enumerate(scans)}
        rows = [(row_of[p.fixed.name], row_of[p.moving.name]) for p in prepared.listed if p.fixed.name in row_of]
        index = np.array([(f, m) for f, m in rows if fixed[f] and moving[m]], np.int32)
        return index.reshape(-1, 2)
    case = np.unique([scan.scan.case for scan in scans], return_inverse=True)[1]
    allowed = case[:, None] == case[None, :]
    if pairs.rule == "between":
        allowed = ~allowed
    np.fill_diagonal(allowed, False)
    allowed &= fixed[:, None] & moving[None, :]
    return np.argwhere(allowed).astype(np.int32).reshape(-1, 2)


def _check(scan: PreparedScan, plan: Plan) -> None:
    wanted: dict[str, tuple[int, ...]] = {"image": (plan.channels, *plan.shape)}
    if scan.classes is not None:
        wanted["labels"] = plan.shape
    if scan.scan.mask is not None:
        wanted["mask"] = plan.shape
    try:
        with safe_open(scan.file, "numpy") as file:
            found = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise _damaged(scan) from error
    for name, shape in wanted.items():
        if found.get(name) != shape:
            raise InputError(
                "E-TRN-002", f"{scan.name}: {name} of shape {found.get(name)}", file=scan.file,
                expected=f"{shape} as the plan says", do="run anamorph prepare again",
            )  # fmt: skip


def _damaged(scan: PreparedScan) -> InputError:
    found = "its tensors are damaged or cut off" if scan.file.exists() else "its tensors are not there"
    return InputError("E-TRN-002", f"{scan.name}: {found}", file=scan.file, do="run anamorph prepare again")
