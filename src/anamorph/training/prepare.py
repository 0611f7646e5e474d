"""A cohort made ready for training: a plan, every scan as tensors on the network's grid, and an index.

The plan is written first and the index last, so a folder without an index is not finished. Whatever was interrupted or
changed is taken up where it stands: a scan is done again only if its files, or what the plan says of it, differ.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from anamorph.data.cohort import Cohort, Scan
from anamorph.data.configuration import load, refusal, save
from anamorph.data.files import read
from anamorph.data.fingerprint import MAX_VOXELS, propose_plan
from anamorph.data.image import ReadPolicy
from anamorph.data.plan import Plan
from anamorph.data.prepared import PreparedCohort, PreparedScan, write_index
from anamorph.errors import AnamorphError, ConfigurationError, InputError, IntegrityError, NumericalError
from anamorph.training.alignment import middle_of_given, middle_of_reference, reference_scan, scans_together
from anamorph.training.cohort_rules import check_cohort, refuse_leaks, refuse_or_warn, without_unlabelled
from anamorph.training.preparation_settings import PreparationSettings
from anamorph.training.scan_warnings import ScanWarnings
from anamorph.training.tensors import Alignment, Reader, Sources, prepare_scan

Progress = Callable[[str, float], None]
Item = TypeVar("Item")

OWN = ("plan.yaml", "index.json", "tensors", "alignment")
"""What a prepared cohort's folder holds."""

BAD = (InputError, NumericalError, IntegrityError)
"""What makes a scan unusable, and no other."""

MOST_WORKERS = 4


def plan_for(
    cohort: Cohort,
    out: Path,
    settings: PreparationSettings,
    *,
    policy: ReadPolicy | None = None,
    progress: Progress | None = None,
) -> Plan:
    """The plan of ``out`` with what the settings decide, or a proposal where there is none. Nothing is written.

    Raises:
        ConfigurationError: E-CFG-009, E-CFG-010, E-COH-045, settings or a ``plan.yaml`` that do not fit; E-COH-047, an
            unknown reference; E-COH-048, alignment settings that belong to another alignment, or a bound for a grid
            that is planned already.
        InputError: as in ``propose_plan`` and, for what all are aligned to, ``read``.

    Warns:
        As ``propose_plan``; W-COH-053: labels of the training scans that no extra scan has, left out.
    """
    policy, decided, file = policy or ReadPolicy(), settings.fields_of_plan(), out / "plan.yaml"
    before = load(Plan, file) if file.exists() else None
    kind = decided.get("alignment", before.alignment if before else "none")
    _check_alignment(settings, kind)
    if settings.reference or kind == "reference":
        name = settings.reference or (before.reference if before else "")
        decided["reference"] = reference_scan(cohort, name).name
    if before is None:
        bound = settings.max_voxels or MAX_VOXELS
        decided["modalities"] = settings.intensities or {}
        counted = decided.pop("learn_as", {})
        plan = propose_plan(cohort, decided, max_voxels=bound, policy=policy, progress=progress)
        if counted:
            plan = _validated(_counting(plan.model_dump(), counted), ("learn_as",), None)
        plan = without_unlabelled(plan, cohort, policy, progress)
    else:
        if settings.max_voxels is not None:
            do = "say --shape and --spacing, or move plan.yaml away"
            raise ConfigurationError("E-COH-048", "--max-voxels, but the grid is planned", file=file, do=do)
        values = _counting(before.model_dump() | decided, decided.get("learn_as", {}))
        values["modalities"] = before.modalities | (settings.intensities or {})
        if (values["alignment"], values["reference"]) != (before.alignment, before.reference):
            values["middle"] = None
            values["reference"] = values["reference"] if kind == "reference" else ""
        plan = _validated(values, decided, file)
    return _with_middle(plan, cohort, settings.alignment_folder or out / "alignment", policy)


def prepare(
    cohort: Cohort,
    out: Path,
    settings: PreparationSettings | None = None,
    *,
    plan: Plan | None = None,
    policy: ReadPolicy | None = None,
    progress: Progress | None = None,
    skip_bad: bool = False,
) -> PreparedCohort:
    """Bring every scan of a cohort onto the network's grid.

    Args:
        cohort: what to prepare.
        out: folder for the result; an earlier one there is brought up to date.
        settings: what is decided about the plan, and how to work.
        plan: instead of ``plan_for(cohort, out, settings)``; the settings then say no more than how to work.
        policy: how to read files.
        progress: told of stages and how much of each is done.
        skip_bad: leave out scans that cannot be used, with a warning, instead of refusing at the end.

    Raises:
        ConfigurationError: as in ``plan_for``; E-OUT-016, ``out`` holds something else.
        InputError: E-COH-050, a cohort that contradicts itself; E-COH-051, the same image for training and for testing;
            E-COH-052, scans that cannot be used; E-COH-042, a modality that the plan does not know.
        IntegrityError: E-IO-027, a file changed meanwhile.

    Warns:
        W-COH-047: no validation scans, or one training case. W-COH-048: a scan left out. W-COH-049: one image twice.
        W-COH-044 to W-COH-046: nothing to see, unknown labels, labels lost on the network's grid. W-COH-053: labels
        that no extra scan has.
    """
    settings, policy = settings or PreparationSettings(), policy or ReadPolicy()
    tell = progress or (lambda stage, done: None)
    cohort = replace(cohort, scans=tuple(sorted(cohort.scans, key=lambda scan: (scan.case, scan.modality))))
    check_cohort(cohort)
    if not settings.masks:
        cohort = replace(cohort, scans=tuple(replace(scan, mask=None) for scan in cohort.scans))
    _refuse_other_files(out)
    workers = settings.workers or min(MOST_WORKERS, os.cpu_count() or 1)
    work = _Work(out, policy, settings.alignment_folder or out / "alignment", _hashes_before(out))
    for done in _each(work.hash, cohort.scans, workers):
        tell("files", done)
    refuse_leaks(cohort, {name: sources.hashes["image"] for name, sources in work.sources.items()})
    if plan is None:
        plan = plan_for(cohort, out, settings, policy=policy, progress=progress)
    plan = _with_middle(plan, cohort, work.given, policy)
    foreign = sorted(set(cohort.modalities) - set(plan.modalities))
    if foreign:
        do = "add it to plan.yaml, or move plan.yaml away"
        raise InputError("E-COH-042", f"modality {foreign[0]!r}", expected=" or ".join(plan.modalities), do=do)
    work.begin(cohort, plan)
    groups = scans_together(cohort, plan)
    # The engine occupies all processors by itself.
    workers = 1 if plan.alignment in ("within", "reference") else workers
    with work.warnings:
        for done in _each(work.prepare, groups, workers):
            tell("tensors", done)
    refuse_or_warn(cohort, work.failed, skip_bad)
    found = work.found
    scans = [found[scan.name][0] for scan in cohort.scans if scan.name in found]
    listed = [pair for pair in cohort.listed if pair.fixed.name in found and pair.moving.name in found]
    write_index(out, scans, listed, {name: facts for name, (_, facts) in found.items()})
    return PreparedCohort.open(out)


@dataclass
class _Work:
    """What the threads share. Scans are kept by name, so their order does not depend on who is first."""

    out: Path
    policy: ReadPolicy
    given: Path
    before: Mapping[str, str]
    plan: Plan | None = None
    reference: Reader | None = None
    sources: dict[str, Sources] = field(default_factory=dict)
    failed: dict[str, AnamorphError] = field(default_factory=dict)
    found: dict[str, tuple[PreparedScan, dict[str, Any]]] = field(default_factory=dict)
    warnings: ScanWarnings = field(default_factory=ScanWarnings)

    def hash(self, scan: Scan) -> None:
        """What the scan's files hold."""
        try:
            self.sources[scan.name] = Sources.of(scan)
        except BAD as error:
            self.fail(scan, error)

    def fail(self, scan: Scan, error: AnamorphError) -> None:
        """The scan cannot be used; what it was read into is let go."""
        self.failed[scan.name] = error.with_traceback(None)

    def begin(self, cohort: Cohort, plan: Plan) -> None:
        """Folders and the plan; the index goes until all is done."""
        self.plan = plan
        if plan.alignment == "reference":
            scan = reference_scan(cohort, plan.reference)
            if scan.name in self.failed:
                raise self.failed[scan.name]
            self.reference = Reader(scan, self.sources[scan.name], self.policy)
        for folder in (self.out / "tensors", *([self.out / "alignment"] if plan.alignment != "none" else [])):
            folder.mkdir(parents=True, exist_ok=True)
        (self.out / "index.json").unlink(missing_ok=True)
        file = self.out / "plan.yaml"
        if not file.exists() or load(Plan, file) != plan:
            save(plan, file)

    def prepare(self, group: Sequence[Scan]) -> None:
        """Scans that belong together: where the rest of a case is aligned to its first, that one first."""
        assert self.plan is not None
        leader, middle = self.reference, None
        for scan in group:
            if scan.name in self.failed:
                continue
            reader = Reader(scan, self.sources[scan.name], self.policy)
            alignment = None
            if self.plan.alignment == "given":
                alignment = Alignment(folder=self.given)
            elif leader is not None and leader.scan.name != scan.name:
                alignment = Alignment(leader, middle=middle)
            try:
                with self.warnings.about(scan.name) as issued:
                    before = self.before.get(scan.name)
                    self.found[scan.name] = prepare_scan(reader, self.plan, self.out, alignment, issued, before)
            except BAD as error:
                if error.code == "E-IO-027":
                    raise
                self.fail(scan, error)
                continue
            if self.plan.alignment == "within" and leader is None:
                leader, middle = reader, self.found[scan.name][0].grid.centre


def _each(work: Callable[[Item], None], items: Sequence[Item], workers: int) -> Iterator[float]:
    """Work on all items, some at once; after each, the share that is done."""
    if workers == 1:
        for done, item in enumerate(items, 1):
            work(item)
            yield done / len(items)
        return
    with ThreadPoolExecutor(workers) as pool:
        try:
            for done, future in enumerate(as_completed([pool.submit(work, item) for item in items]), 1):
                future.result()
                yield done / len(items)
        finally:
            pool.shutdown(cancel_futures=True)


def _check_alignment(settings: PreparationSettings, kind: str) -> None:
    """Refuse what another alignment would need."""
    for name, needs in (("reference", "reference"), ("alignment_folder", "given")):
        if getattr(settings, name) is not None and kind != needs:
            flag = f"--{name.replace('_', '-')}"
            raise ConfigurationError("E-COH-048", f"{flag} with the alignment {kind!r}", expected=needs)


def _with_middle(plan: Plan, cohort: Cohort, given: Path, policy: ReadPolicy) -> Plan:
    """The plan, with the middle of the network's grid where all scans are aligned to one world."""
    if plan.middle is not None or plan.alignment not in ("reference", "given"):
        return plan
    if plan.alignment == "given":
        middle = middle_of_given(cohort, given, policy)
    else:
        middle = middle_of_reference(read(reference_scan(cohort, plan.reference).image, policy), plan)
    return plan.model_copy(update={"middle": middle})


def _counting(values: dict[str, Any], counted: Mapping[int, int]) -> dict[str, Any]:
    """A plan's values with labels that count as others, which are then none of its own."""
    if not counted:
        return values
    labels = {label: name for label, name in values["labels"].items() if label not in counted}
    return values | {"labels": labels, "learn_as": dict(counted)}


def _validated(values: Mapping[str, Any], decided: Iterable[str], file: Path | None) -> Plan:
    try:
        return Plan.model_validate(values)
    except ValidationError as error:
        names = {(name,): f"--{name.replace('_', '-')}" for name in decided}
        raise refusal(error, names, list(names), file, "") from None


def _refuse_other_files(out: Path) -> None:
    """Refuse a folder that holds anything but a prepared cohort."""
    if out.exists() and (not out.is_dir() or any(entry.name not in OWN for entry in out.iterdir())):
        do = "choose another --out"
        raise ConfigurationError("E-OUT-016", "holds something else than a prepared cohort", file=out, do=do)


def _hashes_before(out: Path) -> dict[str, str]:
    """What the tensors of an earlier preparation hashed to, by scan; nothing where there is no index."""
    try:
        content = json.loads((out / "index.json").read_text(encoding="utf-8"))
        return {f"{row['case']}_{row['modality']}": row["facts"]["tensors"] for row in content["scans"]}
    except (OSError, ValueError, KeyError, TypeError):
        return {}
