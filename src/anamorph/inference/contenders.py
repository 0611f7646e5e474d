"""What an evaluation runs: nothing, our engine, trained models, atlases, other people's tools, or what they left.

A registrar takes the two images of a pair and gives a map from fixed to moving world points; a segmenter takes an image
and gives labels. Both say what that cost. What translates: ``image_translators``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch

from anamorph.data.cohort import Pair, Scan, subject_of
from anamorph.data.files import file_state, read_labels
from anamorph.data.image import Image, Labelmap
from anamorph.data.network_grid import counted_as, labels_to_network
from anamorph.data.plan import Plan
from anamorph.data.transform_files import read_transform
from anamorph.errors import ConfigurationError, InputError
from anamorph.evaluation.consistency import inverse_consistency_scores
from anamorph.evaluation.scores import Score
from anamorph.evaluation.topology import Topology
from anamorph.fusion.settings import FusionSettings
from anamorph.inference.atlas_folder import atlas_of
from anamorph.inference.atlas_segmentation import AtlasFit
from anamorph.inference.cost import Cost, measured
from anamorph.inference.model_card import model_name
from anamorph.inference.model_domain import admitted_pair
from anamorph.inference.model_folder import Model, read_model
from anamorph.inference.multi_atlas import segment_by_atlases
from anamorph.inference.multi_atlas_cases import RegionRule
from anamorph.inference.pair_alignment import pair_alignment
from anamorph.inference.peers.adapter import check_start, python_of, register_with_peer
from anamorph.inference.register import register, resolve_device
from anamorph.inference.register_model import learnt_aligned, register_with
from anamorph.inference.segment import segment_with
from anamorph.methods.atlas_istn import AtlasISTN
from anamorph.methods.both_ways import BothWays
from anamorph.pairwise.settings import PairwiseSettings
from anamorph.spatial.grid import Grid
from anamorph.spatial.transform import Affine, Transform

ENGINES = ("none", "rigid", "affine", "pairwise")
"""What needs no training: the images as their headers place them, and the pairwise engine up to a kind of map."""

TRANSFORM_SUFFIXES = (".h5", ".tfm", ".nii.gz")
LABEL_SUFFIXES = (".nii.gz", ".nii", ".nrrd", ".mha")

JOBS = ("align", "register", "weigh")
"""Stages of a segmentation by atlases whose results are kept."""


@dataclass(frozen=True, eq=False)
class Registered:
    """A map fixed world -> moving world, and what it cost; None where that is not known.

    Args:
        transform: the map.
        seconds, peak_mib, device: the cost.
        backward: the map moving world -> fixed world that was found beside it; None where but one is found.
    """

    transform: Transform
    seconds: float | None = None
    peak_mib: float | None = None
    device: str = "cpu"
    backward: Transform | None = None


@dataclass(frozen=True, eq=False)
class Segmented:
    """Labels, and what they cost; None where that is not known.

    Args:
        labels: what was found.
        seconds, peak_mib, device: the cost.
        scores: what else can be told of how they were found.
        atlas: the topology of each label of the method's atlas; empty where it has none.
        truth: the true labels where ``labels`` lie; None where that is the image's own grid.
    """

    labels: Labelmap
    seconds: float | None = None
    peak_mib: float | None = None
    device: str = "cpu"
    scores: tuple[Score, ...] = ()
    atlas: Mapping[int, Topology] = field(default_factory=dict)
    truth: Labelmap | None = None


def anything(pair: Pair) -> None:
    """No pair is refused by its modalities."""


@dataclass(frozen=True)
class Registrar:
    """One way to register.

    Args:
        name: in the tables.
        run: what to call with a pair and its two images.
        stamp: everything else that its result depends on, in words; a change makes finished rows void.
        admit: refuses (InputError) what it was not made for by the modalities of a pair alone.
    """

    name: str
    run: Callable[[Pair, Image, Image], Registered]
    stamp: str = ""
    admit: Callable[[Pair], None] = anything


@dataclass(frozen=True)
class Segmenter:
    """One way to segment; as ``Registrar``, with a scan and its image."""

    name: str
    run: Callable[[Scan, Image], Segmented]
    stamp: str = ""


def engine(name: str, device: str = "auto", settings: PairwiseSettings | None = None) -> Registrar:
    """One of ``ENGINES``."""
    if name not in ENGINES:
        raise ConfigurationError("E-EVA-010", f"{name!r} is no method", expected=", ".join(ENGINES))
    settings = settings or PairwiseSettings()
    if name in ("rigid", "affine"):
        settings = settings.model_copy(update={"transform": name})
    where = resolve_device(device)

    def run(pair: Pair, fixed: Image, moving: Image) -> Registered:
        if name == "none":
            return Registered(Affine.identity(fixed.grid.ndim))
        with measured(where) as cost:
            found = register(fixed, moving, settings=settings, device=device)
        return Registered(found.transform, cost.seconds, cost.peak_mib, where.type)

    return Registrar(name, run, settings.model_dump_json() + where.type)


def registering_model(model: Model, name: str, alignments: Path | None = None) -> Registrar:
    """A trained model for pairs; the time of the affine alignment that it asks for is part of its own.

    Args:
        model: as it is to be used.
        name: in the tables.
        alignments: folder where alignments are kept, as in ``pair_alignment``.
    """

    def admit(pair: Pair) -> None:
        plan = model.card.plan
        grid = Grid((1,) * plan.ndim, np.eye(plan.ndim + 1))
        nothing = torch.zeros(plan.channels, *grid.shape)
        admitted_pair(model, *(Image(nothing, grid, scan.modality) for scan in (pair.fixed, pair.moving)))

    def run(pair: Pair, fixed: Image, moving: Image) -> Registered:
        start, before = pair_alignment(pair, str(model.device), alignments) if learnt_aligned(model) else (None, Cost())
        with measured(model.device) as cost:
            found = register_with(model, fixed, moving, initial=start)
        peaks = [peak for peak in (before.peak_mib, cost.peak_mib) if peak is not None]
        seconds, peak = before.seconds + cost.seconds, max(peaks, default=None)
        return Registered(found.transform, seconds, peak, model.device.type, found.backward)

    stamp = f"{stamp_of(model)}{' both ways' if isinstance(model.method, BothWays) else ''}"
    return Registrar(name, run, stamp, admit)


def segmenting_model(model: Model, name: str, *, consistency: bool = False, native: bool = True) -> Segmenter:
    """A trained model for single images.

    Args:
        model: as it is to be used.
        name: in the tables.
        consistency: whether the map to an atlas is scored as well.
        native: whether it is judged on the image's own grid; if not, on the network's, with the truth brought there.
    """
    atlas = atlas_of(model).topology() if isinstance(model.method, AtlasISTN) else {}

    def run(scan: Scan, image: Image) -> Segmented:
        with measured(model.device) as cost:
            found = segment_with(model, image, native=native)
        scores = atlas_consistency(found.atlas) if consistency and found.atlas is not None else ()
        truth = None if native or scan.labels is None else _truth_on(found.labels.grid, scan.labels, model.card.plan)
        return Segmented(found.labels, cost.seconds, cost.peak_mib, model.device.type, tuple(scores), atlas, truth)

    return Segmenter(name, run, f"{stamp_of(model)} {consistency}{'' if native else ' on the network grid'}")


def _truth_on(grid: Grid, file: Path, plan: Plan) -> Labelmap:
    """True labels as a training with this plan sees them."""
    values = torch.tensor([0, *plan.labels])
    return Labelmap(values[labels_to_network(read_labels(file), plan, grid)], grid, names=plan.labels)


def segmenting_atlases(
    atlases: Sequence[Scan],
    name: str,
    *,
    registration: PairwiseSettings | Model,
    fusion: FusionSettings | Model,
    select: int | None = None,
    region: RegionRule = "coarse",
    cache: Path,
    device: str = "auto",
    labels: Collection[int] = (),
    count_as: Mapping[int, int] | None = None,
) -> Segmenter:
    """Labelled scans that are registered to the image; those of the image's own subject are left out.

    Seconds are those of all registrations, whenever they were done; memory is told where all were done at once. How
    many atlases took part is a score: one that fails is left out.

    Args:
        atlases: with labels.
        name: in the tables.
        registration, fusion, select, region, cache, device: as in ``segment_by_atlases``.
        labels: of the truth that the region "gold" is about; all if empty.
        count_as: label of the truth -> the one that it counts as before.
    """
    where, counted = resolve_device(device), dict(count_as or {})

    def run(scan: Scan, image: Image) -> Segmented:
        others = [atlas for atlas in atlases if subject_of(atlas.case) != subject_of(scan.case)]
        truth = None
        if region == "gold" and scan.labels is not None:
            truth = restricted(read_labels(scan.labels), labels, counted)
        with measured(where) as cost:
            found = segment_by_atlases(
                image, others, registration=registration, fusion=fusion, select=select, region=region, cache=cache,
                truth=truth, file=scan.image, device=device,
            )  # fmt: skip
        spared = max(
            0.0, sum(atlas.seconds for atlas in found.atlases) - sum(found.seconds.get(job, 0) for job in JOBS)
        )
        peak = cost.peak_mib if not any(atlas.cached for atlas in found.atlases) else None
        used = Score("atlases_used", float(sum(atlas.used for atlas in found.atlases)))
        return Segmented(found.labels, cost.seconds + spared, peak, where.type, (used,))

    parts = (part if isinstance(part, Model) else part.model_dump_json() for part in (registration, fusion))
    words = [stamp_of(part) if isinstance(part, Model) else part for part in parts]
    files = map(file_state, _files_of(atlases))
    about = f" {sorted(labels)} {sorted(counted.items())}" if region == "gold" else ""
    return Segmenter(name, run, " ".join([*words, f"{select} {region}{about} {where.type}", *files]))


def restricted(labelmap: Labelmap, labels: Collection[int], count_as: Mapping[int, int]) -> Labelmap:
    """Only some labels, the others being background.

    Args:
        labelmap: as it was read.
        labels: which; all if empty.
        count_as: label -> the one that it counts as before.
    """
    values = counted_as(labelmap.data.numpy(), count_as)
    if labels:
        values = np.where(np.isin(values, list(labels)), values, 0)
    return Labelmap.from_array(values, labelmap.grid.affine, dict(labelmap.names))


def _files_of(scans: Sequence[Scan]) -> Iterator[Path]:
    """Images and labels."""
    for scan in scans:
        yield from (file for file in (scan.image, scan.labels) if file is not None)


def atlas_consistency(fit: AtlasFit) -> list[Score]:
    """MICE and IC-DSC of the map that brought the atlas to an image, on the network's grid (Atlas-ISTN, table 6)."""
    linear = fit.grid.affine[:-1, :-1]
    with torch.inference_mode():  # of a copy, else the maps would be kept as long as the fit
        maps = replace(fit.found)
        forward, inverse = (
            np.tensordot(linear, field[0].double().cpu().numpy(), 1) for field in (maps.forward, maps.inverse)
        )
    atlas, names = fit.method.atlas_labels[0].double().cpu().numpy(), dict(enumerate(fit.plan.labels.values(), 1))
    return inverse_consistency_scores(atlas, forward, fit.grid.affine, inverse, fit.grid.affine, names)


def stamp_of(model: Model) -> str:
    """What results of a model depend on: weights, settings and kind of device."""
    return f"{model.card.weights_sha256} {model.method.settings.model_dump_json()} {model.device.type}"


def peer(
    name: str, threads: int, time_limit: float, *, from_affine: bool = False, alignments: Path | None = None
) -> Registrar:
    """Another tool in its own environment.

    Args:
        name: of the tool.
        threads: of the CPU.
        time_limit: seconds for a pair.
        from_affine: whether it begins with our affine alignment of the pair, the time of which is then part of its own.
        alignments: folder where these are kept, as in ``pair_alignment``.

    Raises:
        ConfigurationError: E-PEE-001, it is not installed; E-PEE-004, it cannot begin with a map.
    """
    if from_affine:
        check_start(name)
    python_of(name)

    def run(pair: Pair, fixed: Image, moving: Image) -> Registered:
        start, before = pair_alignment(pair, "cpu", alignments) if from_affine else (None, Cost())
        found = register_with_peer(name, fixed, moving, initial=start, threads=threads, time_limit=time_limit)
        peak = max(float(found.peak_mib), before.peak_mib or 0.0)
        return Registered(found.transform, before.seconds + found.seconds, peak)

    return Registrar(name, run, f"{threads} threads{' from affine' if from_affine else ''}")


def stored_transforms(folder: Path) -> Registrar:
    """Maps that another tool has left in a folder, as ``PAIR.h5``, ``PAIR.tfm`` or ``PAIR.nii.gz``."""

    def run(pair: Pair, fixed: Image, moving: Image) -> Registered:
        return Registered(read_transform(_stored(folder, pair.name, TRANSFORM_SUFFIXES), grid=fixed.grid))

    return Registrar(folder.name, run, _state(folder))


def stored_labels(folder: Path) -> Segmenter:
    """Segmentations that another tool has left in a folder, as ``CASE_MODALITY.nii.gz`` or ``CASE.nii.gz``."""

    def run(scan: Scan, image: Image) -> Segmented:
        try:
            path = _stored(folder, scan.name, LABEL_SUFFIXES)
        except InputError:
            path = _stored(folder, scan.case, LABEL_SUFFIXES)
        return Segmented(read_labels(path))

    return Segmenter(folder.name, run, _state(folder))


def _state(folder: Path) -> str:
    """What lies in a folder of results, so that other files are other results.

    Raises:
        InputError: E-EVA-011, there is no such folder.
    """
    if not folder.is_dir():
        raise InputError("E-EVA-011", "no such folder", file=folder, expected="a folder with a file for each case")
    return " ".join(map(file_state, sorted(folder.iterdir())))


def _stored(folder: Path, name: str, suffixes: Sequence[str]) -> Path:
    for suffix in suffixes:
        if (path := folder / f"{name}{suffix}").exists():
            return path
    found = f"nothing for {name}"
    raise InputError("E-EVA-011", found, file=folder, expected=" or ".join(f"{name}{suffix}" for suffix in suffixes))


def read_models(folders: Sequence[Path], device: str) -> dict[str, Model]:
    """Models by their names in the tables, as ``model_name``.

    Raises:
        ConfigurationError: E-EVA-012, two of one name.
        AnamorphError: as ``read_model``.
    """
    models: dict[str, Model] = {}
    for folder in folders:
        name = model_name(folder)
        if name in models:
            raise ConfigurationError("E-EVA-012", f"two models of the name {name}", do="rename one of the folders")
        models[name] = read_model(folder, device)
    return models
