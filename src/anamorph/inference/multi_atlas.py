"""Label images by atlases: each is brought onto the image, and their labels are fused. No training is needed.

1. Each atlas is aligned to the target by an affine map, both in few voxels. Ranked by likeness, the first few go on.
2. Their foreground, brought over, marks a region of the target: where at least a quarter of them has a label.
3. Each atlas is registered to that region, by the pairwise engine from its alignment on, or by a trained model.
4. Labels are fused there, voxel by voxel (``anamorph.fusion``), or weighed by a trained model (SimNet).

What is found of an atlas goes into a folder and is mapped from there, so memory does not grow with their number, and an
interrupted run goes on. Steps 1 and 3, and a model's weights, are jobs that other processes and machines may do
(``inference.cluster``).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from anamorph.data.cohort import Scan
from anamorph.data.image import Image, Labelmap
from anamorph.errors import AnamorphError, ConfigurationError
from anamorph.fusion import FusionSettings
from anamorph.inference.model_domain import known_modality, refuse_task
from anamorph.inference.model_folder import Model
from anamorph.inference.multi_atlas_cases import RegionRule, Target
from anamorph.inference.multi_atlas_jobs import Map, one_by_one
from anamorph.inference.multi_atlas_stages import MultiAtlasSegmentation, Stages
from anamorph.inference.multi_atlas_work import weigher_of
from anamorph.pairwise.register import Progress
from anamorph.pairwise.settings import PairwiseSettings

MARGIN_MM = 15.0
"""Room about a region: what affine maps between people miss."""


def segment_by_atlases(
    target: Image,
    atlases: Sequence[Scan],
    *,
    cache: Path,
    registration: PairwiseSettings | Model | None = None,
    fusion: FusionSettings | Model | None = None,
    select: int | None = None,
    region: RegionRule = "coarse",
    margin_mm: float = MARGIN_MM,
    truth: Labelmap | None = None,
    file: Path | None = None,
    names: Mapping[int, str] | None = None,
    device: str = "auto",
    max_memory: int | None = None,
    map: Map = one_by_one,
    progress: Progress | None = None,
) -> MultiAtlasSegmentation:
    """Label one image.

    Args:
        target: one channel, on any grid.
        atlases: scans with labels, of any modality; one that fails is left out (W-ATL-004).
        cache: folder for what is found of each atlas; made where it is not there.
        registration: settings of the pairwise engine, ``PairwiseSettings()`` if absent, or a model that registers
            (the target is its fixed image). Whatever the engine finds is kept: ``least_gain`` has no say.
        fusion: ``FusionSettings()`` if absent, or a model that weighs atlases; not the rule "weighted".
        select: how many atlases to register, the likest first; all if absent.
        region: where to look closer.
        margin_mm: room about the region.
        truth: the target's labels, for the region "gold".
        file: of the target; an atlas with the same content is left out (W-ATL-005).
        names: of the labels.
        device: "auto" takes a GPU where there is one.
        max_memory: bytes that a registration stays within.
        map: who does the jobs; this process one by one, or ``cluster.open_cluster``.
        progress: told of stages.

    Raises:
        InputError: E-ATL-012, no atlas is left; E-ATL-015, no true labels for the region.
            E-MOD-005, no atlas is of a modality that the model registers.
        ConfigurationError: E-MOD-009, the model does not register; E-ATL-014, it does not weigh atlases; E-FUS-002, the
            rule takes weights from outside.
        ResourceError: the disk is full.
    """
    asked = Target(file.name if file else target.name, lambda: target, None if truth is None else lambda: truth, file)
    ((_, found),) = segment_targets(
        [asked], atlases, cache=cache, registration=registration, fusion=fusion, select=select, region=region,
        margin_mm=margin_mm, names=names, device=device, max_memory=max_memory, map=map, progress=progress,
    )  # fmt: skip
    if isinstance(found, AnamorphError):
        raise found
    return found


def segment_targets(
    targets: Sequence[Target],
    atlases: Sequence[Scan],
    *,
    cache: Path,
    registration: PairwiseSettings | Model | None = None,
    fusion: FusionSettings | Model | None = None,
    select: int | None = None,
    region: RegionRule = "coarse",
    margin_mm: float = MARGIN_MM,
    names: Mapping[int, str] | None = None,
    device: str = "auto",
    max_memory: int | None = None,
    map: Map = one_by_one,
    progress: Progress | None = None,
) -> Iterator[tuple[Target, MultiAtlasSegmentation | AnamorphError]]:
    """Label several images, the pairs of atlas and target dealt out together; arguments as in ``segment_by_atlases``.

    Yields:
        Each target and what was found, or why it failed.
    """
    registration, fusion = registration or PairwiseSettings(), fusion or FusionSettings()
    if isinstance(registration, Model):
        refuse_task(registration, "register")
        _refuse_strangers(registration, atlases)
    if isinstance(fusion, Model):
        weigher_of(fusion)
    else:
        refuse_weighted(fusion)
    stages = Stages(
        cache.absolute(), registration, fusion, select, region, margin_mm, device, max_memory, map, progress
    )
    yield from stages.run(targets, {scan.name: _anywhere(scan) for scan in atlases}, names or {})


def refuse_weighted(fusion: FusionSettings) -> None:
    """Refuse the rule whose weights nobody here would give.

    Raises:
        ConfigurationError: E-FUS-002.
    """
    if fusion.fusion == "weighted":
        expected = "a model that weighs atlases, such as simnet, or another rule"
        raise ConfigurationError("E-FUS-002", "weighted without weights", expected=expected)


def _refuse_strangers(model: Model, atlases: Sequence[Scan]) -> None:
    """Refuse atlases that are all of modalities that a registration model does not know as moving images.

    Raises:
        InputError: E-MOD-005.
    """
    refused: list[AnamorphError] = []
    for scan in atlases:
        try:
            known_modality(model, scan.modality, "moving", scan.name)
            return
        except AnamorphError as error:
            refused.append(error)
    if refused:
        raise refused[0]


def _anywhere(scan: Scan) -> Scan:
    """With paths that hold in other processes too."""
    labels = None if scan.labels is None else scan.labels.absolute()
    return replace(scan, image=scan.image.absolute(), labels=labels)
