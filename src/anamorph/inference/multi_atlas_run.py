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
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch

from anamorph.data.cohort import Cohort, Scan, Split
from anamorph.data.cohort_files import is_cohort, read_tables
from anamorph.data.configuration import load
from anamorph.data.files import atomic_write, read, write
from anamorph.data.fingerprint import read_grid
from anamorph.data.image import Image, Labelmap, ReadPolicy
from anamorph.errors import AnamorphError, ConfigurationError, InputError, warn
from anamorph.evaluation.scores import Score, to_csv
from anamorph.fusion import FUSIONS, FusionSettings
from anamorph.inference.cluster import open_cluster
from anamorph.inference.memory import estimated_memory
from anamorph.inference.model_folder import Model, read_model
from anamorph.inference.multi_atlas import MARGIN_MM, segment_targets
from anamorph.inference.multi_atlas_cases import Target
from anamorph.inference.multi_atlas_stages import MultiAtlasSegmentation
from anamorph.inference.request import PAIRWISE, SegmentationRequest
from anamorph.inference.run import geometry_of, hashes_of, labels_of, refuse_changes
from anamorph.inference.run_folder import Run
from anamorph.inference.segment_run import scored
from anamorph.pairwise.register import Progress
from anamorph.pairwise.settings import PairwiseSettings

ATLAS_COLUMNS = (
    "target", "atlas", "rank", "similarity", "used", "agreement", "kept", "seconds", "cached", "failure",
)  # fmt: skip
CACHE = "cache"


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
        expected = f"{', '.join(FUSIONS)} or the folder of a model"
        raise ConfigurationError("E-ATL-016", f"no fusion {request.fusion.name!r}", expected=expected)
    named = {request.registration: (PAIRWISE,), request.fusion: tuple(FUSIONS)}
    folders = [path for path, names in named.items() if path is not None and str(path) not in names]
    return tuple(path for path in (request.model, request.atlases, *folders) if path is not None)


def run_multi_atlas(request: SegmentationRequest, run: Run, progress: Progress | None = None) -> Iterator[CaseResult]:
    """Segment, score and write every file but the reports and ``run.json``; one image after the other.

    An image of a cohort that fails is told (W-ATL-007), and does not stop the rest.

    Raises:
        AnamorphError: with the code and the class of what went wrong; ConfigurationError E-ATL-006, which scans?
        InputError: E-ATL-012, no atlas, or E-ATL-017, nothing to segment.
    """
    if request.threads is not None:
        torch.set_num_threads(request.threads)
    assert request.atlases is not None
    cohort = read_tables(request.atlases)
    scans = chosen_scans(cohort, request.atlas_split or "train", request.atlas_modality)
    atlases = [scan for scan in scans if scan.labels is not None]
    registration, fusion = engine_of(request), fusion_of(request)
    alone = not is_cohort(request.image)
    files = request.inputs() if alone else {}
    run.facts["inputs"] = hashes = hashes_of(files)
    cases = {case.target.name: case for case in (_one(request) if alone else _several(request))}
    run.facts |= {"registration": _described(registration), "fusion": _described(fusion), "atlases": []}
    tables: tuple[list[Score], list[dict[str, Any]]] = [], []
    with open_cluster(
        request.scheduler, request.workers, job_bytes=_job_bytes(request, cases, atlases, registration),
        max_memory=request.max_memory,
    ) as dealt:  # fmt: skip
        found = segment_targets(
            [case.target for case in cases.values()], atlases, cache=request.cache or run.folder / CACHE,
            registration=registration, fusion=fusion, select=request.select, region=request.region or "coarse",
            margin_mm=MARGIN_MM if request.margin is None else request.margin, names=cohort.label_names,
            device=request.device, max_memory=request.max_memory, map=dealt, progress=progress,
        )  # fmt: skip
        for target, segmentation in found:
            if isinstance(segmentation, AnamorphError):
                if alone:
                    raise segmentation
                warn("W-ATL-007", f"{target.name} is not segmented: {segmentation}")
                yield CaseResult(target.name, cases[target.name].folder, None, failure=str(segmentation))
                continue
            result = _finished(request, cases[target.name], segmentation, run)
            tables[0].extend(result.scores)
            tables[1].extend(_rows(target, segmentation))
            _write_tables(*tables, run)
            yield result
    refuse_changes(files, hashes)


@dataclass(frozen=True)
class _Asked:
    """An image, where its files go, and how its truth is read."""

    target: Target
    folder: str = ""


def _one(request: SegmentationRequest) -> Iterator[_Asked]:
    plain = _policy(request)
    image = read(request.image, replace(plain, volume=request.volume), request.modality)
    path = request.labels
    truth = None if path is None else lambda: labels_of(image, path, plain)
    yield _Asked(Target(request.image.name, lambda: image, truth, request.image))


def _several(request: SegmentationRequest) -> Iterator[_Asked]:
    """Every scan of a cohort that is asked for; each is read when its turn comes."""
    plain = _policy(request)
    idle = [name for name in ("labels", "volume") if getattr(request, name) is not None]
    if idle:
        found = f"{', '.join(idle)} would do nothing with a cohort"
        raise ConfigurationError("E-CFG-007", found, expected="an image", do="leave it out")
    scans = chosen_scans(read_tables(request.image), request.split or "test", request.modality)
    if not scans:
        found = f"no scan of the split {request.split or 'test'}"
        raise InputError("E-ATL-017", found, file=request.image, expected="one to segment", do="choose --split")
    for scan in scans:

        def image(scan: Scan = scan) -> Image:
            return read(scan.image, plain, scan.modality)

        def truth(scan: Scan = scan) -> Labelmap:
            assert scan.labels is not None
            return labels_of(image(scan), scan.labels, plain)

        yield _Asked(Target(scan.name, image, None if scan.labels is None else truth, scan.image), scan.name)


def _policy(request: SegmentationRequest) -> ReadPolicy:
    return ReadPolicy(request.xform, request.strict, request.nonfinite, None, request.max_memory)


def chosen_scans(cohort: Cohort, split: Split | Literal["all"], modality: str | None) -> tuple[Scan, ...]:
    """The scans of one split and one modality.

    Raises:
        ConfigurationError: E-ATL-006, the modality is open or not there.
    """
    part = cohort if split == "all" else cohort.of_split(split)
    there = part.modalities
    if (modality is None and len(there) > 1) or (modality is not None and modality not in there):
        found = f"modalities {', '.join(there)}" if modality is None else f"no modality {modality!r}"
        expected = "one" if modality is None else ", ".join(there) or f"one in the split {split}"
        do = "choose one with --modality, or --atlas-modality"
        raise ConfigurationError("E-ATL-006", found, expected=expected, do=do)
    return tuple(scan for scan in part.scans if modality in (None, scan.modality))


def engine_of(request: SegmentationRequest) -> PairwiseSettings | Model:
    """What registers."""
    if request.registration is not None and str(request.registration) != PAIRWISE:
        return read_model(request.registration, request.device)
    path = request.registration_settings
    return PairwiseSettings() if path is None else load(PairwiseSettings, path)


def fusion_of(request: SegmentationRequest) -> FusionSettings | Model:
    """What fuses."""
    if request.fusion_settings is not None:
        return load(FusionSettings, request.fusion_settings)
    if request.fusion is None or str(request.fusion) in FUSIONS:
        return FusionSettings.model_validate({"fusion": str(request.fusion or "joint")})
    return read_model(request.fusion, request.device)


def _described(part: PairwiseSettings | FusionSettings | Model) -> dict[str, Any]:
    return part.facts if isinstance(part, Model) else part.model_dump(mode="json")


def _job_bytes(
    request: SegmentationRequest,
    cases: Mapping[str, _Asked],
    atlases: Sequence[Scan],
    registration: PairwiseSettings | Model,
) -> int:
    """Of the largest thing that a worker does, by the first target and the first atlas."""
    if request.workers is None or not atlases:
        return 0
    settings = registration if isinstance(registration, PairwiseSettings) else PairwiseSettings()
    file = next(iter(cases.values())).target.file
    assert file is not None
    policy = _policy(request)
    return estimated_memory(read_grid(file, policy), read_grid(atlases[0].image, policy), settings)


def _finished(request: SegmentationRequest, case: _Asked, found: MultiAtlasSegmentation, run: Run) -> CaseResult:
    """Score and write one image."""
    begin = time.perf_counter()
    truth = None if case.target.truth is None else case.target.truth()
    scores = scored(found, truth, request.ignore_labels, "atlases", case.target.name, "atlases")
    if not case.folder:
        seconds = {**found.seconds, "evaluate": time.perf_counter() - begin}
        run.facts["seconds"] = {name: round(value, 3) for name, value in seconds.items()}
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
