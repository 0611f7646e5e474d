"""A whole segmentation by atlases as ``anamorph segment --atlases`` does it, of an image or of a cohort.

===========================  ==========================================================================================
``segmentation.nii.gz``      the labels
``share.nii.gz``             of the votes that the winner has
``uncertainty.nii.gz``       entropy of the votes, 0 to 1
``probability_VALUE.nii.gz`` on request, the share of the votes of each label
``atlases.csv``              what each atlas did
``scores.csv``               volumes; overlap and distances of surfaces with a truth
===========================  ==========================================================================================

Of a cohort, each image has a folder with these, and the two tables are of all as well.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch

from anamorph.data.cohort import Cohort, Scan, Split, subject_of
from anamorph.data.cohort_files import is_cohort, read_tables
from anamorph.data.configuration import load
from anamorph.data.files import atomic_write, read, write
from anamorph.data.fingerprint import read_grid
from anamorph.data.image import Image, Labelmap, ReadPolicy
from anamorph.data.landmark_formats import listed
from anamorph.errors import AnamorphError, ConfigurationError, InputError, warn
from anamorph.evaluation.cases import failed_case
from anamorph.evaluation.scores import Score, of_case, to_csv
from anamorph.fusion import FUSIONS, FusionSettings
from anamorph.inference.cluster import open_cluster, processes_for
from anamorph.inference.memory import estimated_memory
from anamorph.inference.model_folder import Model, read_model
from anamorph.inference.multi_atlas import MARGIN_MM, refuse_weighted, segment_targets
from anamorph.inference.multi_atlas_cache import state_of_file
from anamorph.inference.multi_atlas_cases import Target
from anamorph.inference.multi_atlas_stages import MultiAtlasSegmentation
from anamorph.inference.register import resolve_device
from anamorph.inference.request import PAIRWISE, SegmentationRequest
from anamorph.inference.run import geometry_of, hashes_of, labels_of, refuse_changes, rounded_seconds
from anamorph.inference.run_folder import Run
from anamorph.inference.segment_run import scored
from anamorph.inference.stages import Stages
from anamorph.pairwise.register import Progress
from anamorph.pairwise.settings import PairwiseSettings
from anamorph.spatial.grid import Grid

ATLAS_COLUMNS = (
    "target", "atlas", "rank", "similarity", "used", "agreement", "kept", "seconds", "cached", "failure",
)  # fmt: skip
CACHE = "cache"
METHOD = "atlases"
"""In the rows of the scores."""


@dataclass(frozen=True, eq=False)
class CaseResult:
    """What a run found of one image.

    Args:
        name: of the image.
        folder: where its files are, in the run's folder; empty for the folder itself.
        segmentation: None where it failed.
        truth: true labels on the image's grid, where there are any.
        scores: of it.
        failure: why it failed.
    """

    name: str
    folder: str
    segmentation: MultiAtlasSegmentation | None
    truth: Labelmap | None = None
    scores: Sequence[Score] = ()
    failure: str = ""


def folders_of(request: SegmentationRequest) -> tuple[Path, ...]:
    """Models and cohorts that it reads, and must not write into.

    Raises:
        ConfigurationError: E-ATL-016, the fusion is neither a name nor a folder.
    """
    if request.fusion is not None and str(request.fusion) not in FUSIONS and not request.fusion.exists():
        rules = ", ".join(name for name in FUSIONS if name != "weighted")
        expected = f"{rules} or the folder of a model"
        raise ConfigurationError("E-ATL-016", f"no fusion {str(request.fusion)!r}", expected=expected)
    named = {request.registration: (PAIRWISE,), request.fusion: tuple(FUSIONS)}
    folders = [path for path, names in named.items() if path is not None and str(path) not in names]
    return tuple(path for path in (request.model, request.atlases, *folders) if path is not None)


def run_multi_atlas(request: SegmentationRequest, run: Run, progress: Progress | None = None) -> Iterator[CaseResult]:
    """Segment, score and write every file but the reports and ``run.json``; one image after the other.

    An image of a cohort that fails is told (W-ATL-007), has a row ``failed`` with the reason among the scores, and does
    not stop the rest.

    Raises:
        AnamorphError: with the code and the class of what went wrong; ConfigurationError E-ATL-006, which scans?
        InputError: E-ATL-012, no atlas, E-ATL-013, none with labels, or E-ATL-017, nothing to segment.
    """
    if request.threads is not None:
        torch.set_num_threads(request.threads)
    assert request.atlases is not None
    cohort = read_tables(request.atlases)
    atlases = _atlases(request, cohort)
    registration, fusion = engine_of(request), fusion_of(request)
    alone = not is_cohort(request.image)
    files = request.inputs() if alone else {}
    run.facts["inputs"] = hashes = hashes_of(files)
    subjects = {scan.image.resolve(): subject_of(scan.case) for scan in cohort.scans}
    cases = {case.target.name: case for case in (_one if alone else _several)(request, subjects)}
    run.facts |= {"registration": _described(registration), "fusion": _described(fusion), "atlases": []}
    tables: tuple[list[Score], list[dict[str, Any]]] = [], []
    targets = [case.target for case in cases.values()]
    job_bytes = _job_bytes(request, targets, atlases, registration)
    with open_cluster(
        request.scheduler, _workers(request, len(targets) * len(atlases), job_bytes), job_bytes=job_bytes,
        max_memory=request.max_memory, threads=request.threads,
    ) as dealt:  # fmt: skip
        found = segment_targets(
            targets, atlases, cache=request.cache or run.folder / CACHE,
            registration=registration, fusion=fusion, select=request.select, region=request.region or "coarse",
            margin_mm=MARGIN_MM if request.margin is None else request.margin, names=cohort.label_names,
            device=request.device, max_memory=request.max_memory, map=dealt, progress=progress,
        )  # fmt: skip
        for target, segmentation in found:
            if isinstance(segmentation, AnamorphError):
                if alone:
                    raise segmentation
                warn("W-ATL-007", f"{target.name} is not segmented: {segmentation}")
                tables[0].extend(of_case(failed_case(str(segmentation)), target.name, METHOD))
                _write_tables(*tables, run)
                yield CaseResult(target.name, cases[target.name].folder, None, failure=str(segmentation))
                continue
            result = _finished(request, cases[target.name], segmentation, run)
            tables[0].extend(result.scores)
            tables[1].extend(_rows(target, segmentation))
            _write_tables(*tables, run)
            yield result
    run.facts["atlas_sha256"] = _hashes(atlases)
    refuse_changes(files, hashes)


def _atlases(request: SegmentationRequest, cohort: Cohort) -> list[Scan]:
    """Those that have labels.

    Raises:
        InputError: E-ATL-013, none has; E-ATL-012, there is no scan.

    Warns:
        W-ATL-004: some have not. W-ATL-009: fewer have than are to be selected.
    """
    scans = chosen_scans(cohort, request.atlas_split or "train", request.atlas_modality, "--atlas-modality")
    if not scans:
        found, do = f"no scan of the split {request.atlas_split or 'train'}", "choose --atlas-split"
        raise InputError("E-ATL-012", found, file=request.atlases, expected="an atlas at least", do=do)
    bare = [scan.name for scan in scans if scan.labels is None]
    if len(bare) == len(scans):
        found = f"none of {len(scans)} atlases has labels"
        raise InputError("E-ATL-013", found, file=request.atlases, do="choose --atlas-split, or a labelled cohort")
    if bare:
        verbs = ("has", "takes") if len(bare) == 1 else ("have", "take")
        found = f"{len(bare)} of {len(scans)} atlases {verbs[0]} no labels and {verbs[1]} no part: {listed(bare)}"
        warn("W-ATL-004", found, file=request.atlases)
    labelled = [scan for scan in scans if scan.labels is not None]
    if request.select is not None and request.select > len(labelled):
        there = "there is 1" if len(labelled) == 1 else f"there are {len(labelled)}"
        found = f"{request.select} atlases are to be selected, and {there}: all are taken"
        warn("W-ATL-009", found, file=request.atlases)
    return labelled


def _hashes(atlases: Iterable[Scan]) -> dict[str, dict[str, str]]:
    """Of the image and the labels of every atlas that can be read."""
    found: dict[str, dict[str, str]] = {}
    for scan in atlases:
        assert scan.labels is not None
        with suppress(InputError):  # the atlases' table says why it took no part
            found[scan.name] = {"image": state_of_file(scan.image), "labels": state_of_file(scan.labels)}
    return found


@dataclass(frozen=True)
class _Asked:
    """An image, where its files go, and how its truth is read."""

    target: Target
    folder: str = ""


Subjects = Mapping[Path, str]
"""Whom the images of the atlases' cohort show."""


def _one(request: SegmentationRequest, subjects: Subjects) -> Iterator[_Asked]:
    if request.split is not None:
        found = f"split {request.split} would do nothing with an image"
        raise ConfigurationError("E-CFG-007", found, expected="a cohort", do="leave it out")
    plain = _policy(request)
    image = read(request.image, replace(plain, volume=request.volume), request.modality)
    path = request.labels
    truth = None if path is None else lambda: labels_of(image, path, plain)
    subject = subjects.get(request.image.resolve())
    yield _Asked(Target(request.image.name, lambda: image, truth, request.image, subject))


def _several(request: SegmentationRequest, subjects: Subjects) -> Iterator[_Asked]:
    """Every scan of a cohort that is asked for; each is read when its turn comes."""
    plain = _policy(request)
    idle = [name for name in ("labels", "volume") if getattr(request, name) is not None]
    if idle:
        found = f"{', '.join(idle)} would do nothing with a cohort"
        raise ConfigurationError("E-CFG-007", found, expected="an image", do="leave it out")
    scans = chosen_scans(read_tables(request.image), request.split or "test", request.modality, "--modality")
    if not scans:
        found = f"no scan of the split {request.split or 'test'}"
        raise InputError("E-ATL-017", found, file=request.image, expected="one to segment", do="choose --split")
    for scan in scans:

        def image(scan: Scan = scan) -> Image:
            return read(scan.image, plain, scan.modality)

        def truth(scan: Scan = scan) -> Labelmap:
            assert scan.labels is not None
            return labels_of(image(scan), scan.labels, plain)

        known = None if scan.labels is None else truth
        yield _Asked(Target(scan.name, image, known, scan.image, subjects.get(scan.image.resolve())), scan.name)


def _policy(request: SegmentationRequest) -> ReadPolicy:
    return ReadPolicy(request.xform, request.strict, request.nonfinite, None, request.max_memory)


def chosen_scans(cohort: Cohort, split: Split | Literal["all"], modality: str | None, flag: str) -> tuple[Scan, ...]:
    """The scans of one split and one modality, which ``flag`` chooses.

    Raises:
        ConfigurationError: E-ATL-006, the modality is open or not there.
    """
    part = cohort if split == "all" else cohort.of_split(split)
    there = part.modalities
    if (modality is None and len(there) > 1) or (modality is not None and modality not in there):
        found = f"modalities {', '.join(there)}" if modality is None else f"no modality {modality!r}"
        expected = "one" if modality is None else ", ".join(there) or f"one in the split {split}"
        raise ConfigurationError("E-ATL-006", found, expected=expected, do=f"choose one with {flag}")
    return tuple(scan for scan in part.scans if modality in (None, scan.modality))


def engine_of(request: SegmentationRequest) -> PairwiseSettings | Model:
    """What registers."""
    if request.registration is not None and str(request.registration) != PAIRWISE:
        return read_model(request.registration, request.device)
    path = request.registration_settings
    return PairwiseSettings() if path is None else load(PairwiseSettings, path)


def fusion_of(request: SegmentationRequest) -> FusionSettings | Model:
    """What fuses.

    Raises:
        ConfigurationError: E-FUS-002, the rule takes weights from outside.
    """
    if request.fusion_settings is not None:
        settings = load(FusionSettings, request.fusion_settings)
        refuse_weighted(settings)
        return settings
    if request.fusion is None or str(request.fusion) in FUSIONS:
        return FusionSettings.model_validate({"fusion": str(request.fusion or "joint")})
    return read_model(request.fusion, request.device)


def _described(part: PairwiseSettings | FusionSettings | Model) -> dict[str, Any]:
    return part.facts if isinstance(part, Model) else part.model_dump(mode="json")


def _workers(request: SegmentationRequest, jobs: int, job_bytes: int) -> int | None:
    """How many processes of this machine; None with a scheduler.

    On a GPU a single one, since others would share it.
    """
    if request.scheduler is not None or request.workers is not None:
        return request.workers
    if resolve_device(request.device).type == "cuda":
        return 1
    return processes_for(jobs, job_bytes, request.max_memory, request.threads)


def _job_bytes(
    request: SegmentationRequest,
    targets: Sequence[Target],
    atlases: Sequence[Scan],
    registration: PairwiseSettings | Model,
) -> int:
    """Of the largest thing that a worker does, by the first target and the first atlas that can be read; else 0."""
    settings = registration if isinstance(registration, PairwiseSettings) else PairwiseSettings()
    grids = [
        next(_grids((file for file in files if file is not None), _policy(request)), None)
        for files in ([target.file for target in targets], [scan.image for scan in atlases])
    ]
    return 0 if grids[0] is None or grids[1] is None else estimated_memory(grids[0], grids[1], settings)


def _grids(files: Iterable[Path], policy: ReadPolicy) -> Iterator[Grid]:
    for file in files:
        with suppress(AnamorphError):  # whoever reads it for good will say so
            yield read_grid(file, policy)


def _finished(request: SegmentationRequest, case: _Asked, found: MultiAtlasSegmentation, run: Run) -> CaseResult:
    """Score and write one image."""
    stages = Stages()
    with stages("evaluate"):
        truth = None if case.target.truth is None else case.target.truth()
        scores = scored(found, truth, request.ignore_labels, METHOD, case.target.name, "atlases")
    if not case.folder:
        run.facts["seconds"] = rounded_seconds(found.seconds, stages)
        run.facts["geometry"] = {"image": geometry_of(found.image.grid), "region": geometry_of(found.region)}
        run.facts["labels"] = {str(value): name for value, name in found.labels.names.items()}
    run.facts["atlases"] += _rows(case.target, found)
    folder = f"{case.folder}/" if case.folder else ""
    (run.folder / folder).mkdir(exist_ok=True)
    write(found.labels, run.path(f"{folder}segmentation.nii.gz"))
    maps = {"share": found.share, "uncertainty": found.entropy}
    if request.probabilities:
        maps |= {f"probability_{value}": found.probability(value) for value in (0, *found.labels.names)}
    for name, values in maps.items():
        write(Image(values[None].float().contiguous(), found.image.grid), run.path(f"{folder}{name}.nii.gz"))
    if folder:
        _write_tables(list(scores), _rows(case.target, found), run, folder)
    return CaseResult(case.target.name, case.folder, found, truth, scores)


def _rows(target: Target, found: MultiAtlasSegmentation) -> list[dict[str, Any]]:
    return [{"target": target.name, **asdict(facts)} for facts in found.atlases]


def _write_tables(scores: list[Score], atlases: list[dict[str, Any]], run: Run, folder: str = "") -> None:
    """What there is so far."""
    with atomic_write(run.path(f"{folder}scores.csv")) as part:
        part.write_text(to_csv(scores), encoding="utf-8")
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(ATLAS_COLUMNS)
    table.writerows([{**row, "atlas": row["name"]}[name] for name in ATLAS_COLUMNS] for row in atlases)
    with atomic_write(run.path(f"{folder}atlases.csv")) as part:
        part.write_text(text.getvalue(), encoding="utf-8")
