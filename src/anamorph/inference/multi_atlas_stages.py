"""The stages of a multi-atlas segmentation, for several targets together, and what they find."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from anamorph.data.cohort import Scan
from anamorph.data.files import label_dtype
from anamorph.data.image import Image, Labelmap
from anamorph.errors import AnamorphError, ConfigurationError, ResourceError
from anamorph.fusion import Fused, FusionSettings, fuse
from anamorph.inference.model_domain import admitted, refuse_flat
from anamorph.inference.model_folder import Model
from anamorph.inference.multi_atlas_cache import store_model
from anamorph.inference.multi_atlas_cases import Arrays, AtlasFacts, Case, RegionRule, Target
from anamorph.inference.multi_atlas_jobs import Alignment, Facts, Job, Map, Registration, Weighing
from anamorph.inference.multi_atlas_region import Box, cropped, embedded
from anamorph.inference.multi_atlas_work import do
from anamorph.inference.register import refuse_small, resolve_device
from anamorph.inference.register_model import learnt_aligned
from anamorph.pairwise.register import Progress
from anamorph.pairwise.settings import PairwiseSettings
from anamorph.spatial.grid import Grid

LINEAR = ("search", "seed", "linear_similarity", "bins", "ct_window", "least_overlap")
"""Settings that a coarse alignment shares with the registration that goes on from it."""
DISK = "E-OUT-003"
"""A refusal that every other atlas would meet too."""

Result = TypeVar("Result")


@dataclass(frozen=True, eq=False)
class MultiAtlasSegmentation:
    """An image labelled by atlases.

    Args:
        image: what was segmented.
        labels: of every voxel of the image's own grid, with the values of the atlases' files.
        share: of the votes that the winner has, 0 to 1; 1 outside the region.
        entropy: of the votes, 0 where all agree to 1; 0 outside the region.
        region: grid of the part that was looked at.
        atlases: what each did, the used ones first.
        seconds: by stage, summed over the atlases, as far as they were not done before.
        fused: the votes in the region.
        box: the region's place in the image.
    """

    image: Image
    labels: Labelmap
    share: Float[Tensor, "*spatial"]
    entropy: Float[Tensor, "*spatial"]
    region: Grid
    atlases: tuple[AtlasFacts, ...]
    seconds: Mapping[str, float] = field(default_factory=dict)
    fused: Fused | None = None
    box: Box = ((), ())

    def probability(self, value: int) -> Float[Tensor, "*spatial"]:
        """The share of the votes that a label has, 0 the background, on the image's grid."""
        assert self.fused is not None
        return embedded(self.fused.probability(value), self.box, self.image.grid.shape, float(value == 0))

    def volumes(self) -> dict[int, float]:
        """Of every label that any of the atlases brought into the region, mm^d."""
        counts = dict(zip(*(part.tolist() for part in np.unique(self.labels.data, return_counts=True)), strict=True))
        return {label: counts.get(label, 0) * self.labels.grid.voxel_volume for label in self.labels.names}


@dataclass(eq=False)
class Stages:
    """What is the same for all targets; see ``multi_atlas.segment_by_atlases``."""

    cache: Path
    registration: PairwiseSettings | Model
    fusion: FusionSettings | Model
    select: int | None
    rule: RegionRule
    margin_mm: float
    device: str
    max_memory: int | None
    map: Map
    progress: Progress | None
    refused: dict[str, AnamorphError] = field(default_factory=dict)

    def run(
        self, targets: Sequence[Target], atlases: Mapping[str, Scan], names: Mapping[int, str]
    ) -> Iterator[tuple[Target, MultiAtlasSegmentation | AnamorphError]]:
        """All of them, the last one target by target."""
        cases = {str(place): Case(target, dict(atlases), self.cache) for place, target in enumerate(targets)}
        models = any(isinstance(player, Model) for player in (self.registration, self.fusion))
        self.each(cases, lambda _, case: case.look(models, self.rule, self.check))
        aligned = self.jobs("align", cases, lambda _, case: self.alignments(case))
        self.each(cases, lambda key, case: self.place(case, aligned[key]))
        registered = self.jobs("register", cases, lambda _, case: self.registrations(case))
        weighed = self.jobs("weigh", cases, lambda key, case: self.weighings(case, registered[key]))
        for place, (key, case) in enumerate(cases.items()):
            jobs, share = (registered[key], weighed[key]), (place / len(cases), 1 / len(cases))
            found = self.guarded(key, lambda case=case, jobs=jobs, share=share: self.fuse(case, *jobs, names, share))
            yield case.target, self.refused[key] if found is None else found
        self.tell("fuse", 1.0)

    def check(self, image: Image) -> None:
        """Refuse a target that every atlas would fail on.

        Raises:
            InputError, ConfigurationError: E-GEO-019, too few voxels; E-MOD-005, E-MOD-010, unknown to a model.
            NumericalError: E-VAL-004, no contrast.
        """
        refuse_small(image, "the target")
        refuse_flat(image)
        for player in (self.registration, self.fusion):
            if isinstance(player, Model):
                _refuse_stranger(player, image)

    def alignments(self, case: Case) -> dict[str, Job]:
        """Of every atlas; none where a model needs none and nothing is chosen by likeness."""
        engine = self.registration
        needed = isinstance(engine, PairwiseSettings) or learnt_aligned(engine)
        if not needed and self.rule == "none" and self.select is None:
            return {}
        settings = PairwiseSettings(transform="affine", least_gain=0)
        if isinstance(engine, PairwiseSettings):
            shared = {name: getattr(engine, name) for name in LINEAR}
            kind = engine.transform if engine.transform in ("rigid", "similarity") else "affine"
            settings = settings.model_copy(update={**shared, "transform": kind})
        return case.alignments(settings, self.device)

    def place(self, case: Case, aligned: Mapping[str, Job]) -> None:
        """Choose atlases and region."""
        if aligned:
            case.rank(self.select)
        case.find_region(self.rule, self.margin_mm, aligned)

    def registrations(self, case: Case) -> dict[str, Job]:
        """Of every chosen atlas."""
        if isinstance(self.registration, Model):
            assert case.whole is not None
            engine, target = store_model(self.cache, self.registration), case.whole
            with_matrix = self.rule != "none" or learnt_aligned(self.registration)
        else:
            engine, target = self.registration, case.region_file
            with_matrix = True
        base = Registration(
            target, case.region, case.atlases[case.chosen[0]], self.cache, None, engine, self.device, self.max_memory
        )
        return case.registrations(base, with_matrix)

    def weighings(self, case: Case, registered: Mapping[str, Job]) -> dict[str, Job]:
        """Of every registered atlas, where a model weighs them."""
        if not isinstance(self.fusion, Model):
            return {}
        model, jobs = store_model(self.cache, self.fusion), {}
        for name in case.chosen:
            registration = registered[name]
            assert isinstance(registration, Registration)
            assert case.whole is not None
            jobs[name] = Weighing(registration, case.whole, model)
        return jobs

    def fuse(
        self,
        case: Case,
        registered: Mapping[str, Job],
        weighed: Mapping[str, Job],
        names: Mapping[int, str],
        share: tuple[float, float],
    ) -> MultiAtlasSegmentation:
        """The labels of a target, and how its atlases voted; ``share`` is where it begins, and what it is of all."""
        case.refuse_none_left()
        case.question_labels()
        begin, device = time.perf_counter(), resolve_device(self.device)
        self.tell("fuse", share[0])
        entries = [registered[name].entry for name in case.chosen]
        labels, images = Arrays(entries, "labels", device), Arrays(entries, "image", device)
        weights = Arrays([weighed[name].entry for name in case.chosen], "weight", device) if weighed else None
        settings = FusionSettings(fusion="weighted") if isinstance(self.fusion, Model) else self.fusion
        image = case.image()
        part = cropped(image, case.box).data.to(device)
        fused = fuse(
            labels, settings, target=part, images=images, weights=weights,
            progress=lambda done: self.tell("fuse", share[0] + done * share[1]),
        )  # fmt: skip
        there = {value for name in case.chosen for value in case.facts[Registration, name].labels}
        called = {value: names.get(value, f"label {value}") for value in sorted(there)}
        values = torch.tensor(sorted({0, *called}), device=device)
        agreement = {name: agreement_of(fused.labels, labels[place], values) for place, name in enumerate(case.chosen)}
        shape = image.grid.shape
        whole = embedded(_wide(fused.labels.cpu()), case.box, shape, 0.0)
        dtype = label_dtype(values.cpu().numpy(), np.dtype(np.uint8))
        return MultiAtlasSegmentation(
            image=image,
            labels=Labelmap(whole, image.grid, dtype, called, case.target.name),
            share=embedded(fused.share.cpu(), case.box, shape, 1.0),
            entropy=embedded(fused.entropy.cpu(), case.box, shape, 0.0),
            region=case.region,
            atlases=case.told(agreement),
            seconds={**self.seconds(case), "fuse": time.perf_counter() - begin},
            fused=fused,
            box=case.box,
        )

    def seconds(self, case: Case) -> dict[str, float]:
        """Of the jobs of a target that were not done before, by stage."""
        stages = {Alignment: "align", Registration: "register", Weighing: "weigh"}
        spent = dict.fromkeys(stages.values(), 0.0)
        for (kind, _), facts in case.facts.items():
            spent[stages[kind]] += 0.0 if facts.cached else facts.seconds
        return {stage: seconds for stage, seconds in spent.items() if seconds}

    def each(self, cases: Mapping[str, Case], work: Callable[[str, Case], None]) -> None:
        """Something for every target that is still with us."""
        for key, case in cases.items():
            self.guarded(key, lambda key=key, case=case: work(key, case))

    def guarded(self, key: str, work: Callable[[], Result]) -> Result | None:
        """A refusal concerns one target; a full disk concerns all."""
        if key in self.refused:
            return None
        try:
            return work()
        except AnamorphError as error:
            _stop_if_disk(error)
            self.refused[key] = error
            return None

    def jobs(
        self, stage: str, cases: Mapping[str, Case], make: Callable[[str, Case], dict[str, Job]]
    ) -> dict[str, dict[str, Job]]:
        """A stage of all targets, dealt out together: what there was to do, by target and atlas."""
        made = {key: self.guarded(key, lambda key=key, case=case: make(key, case)) or {} for key, case in cases.items()}
        flat = [(key, name, job) for key, jobs in made.items() for name, job in jobs.items()]
        if flat:
            self.tell(stage, 0.0)
        for done, (place, found) in enumerate(self.map(do, [job for *_, job in flat])):
            key, name, job = flat[place]
            _stop_if_disk(found)
            cases[key].take(type(job), name, found)
            self.tell(stage, (done + 1) / len(flat))
        return made

    def tell(self, stage: str, done: float) -> None:
        """Whoever asked."""
        if self.progress is not None:
            self.progress(stage, done)


def _refuse_stranger(model: Model, image: Image) -> None:
    """Refuse a target that a model does not know, in the words of who segments.

    Raises:
        InputError, ConfigurationError: as ``admitted`` of a fixed image.
    """
    try:
        admitted(model, image, "fixed")
    except ConfigurationError as error:
        found, do = "the modality of the image is open", "name it with --modality"
        raise ConfigurationError(error.code, found, file=image.name or None, expected=error.expected, do=do) from error


def _wide(labels: Tensor) -> Tensor:
    """As labelmaps have them."""
    return labels if labels.dtype == torch.int64 else labels.int()


def _stop_if_disk(found: Facts | Exception) -> None:
    if isinstance(found, ResourceError) and found.code == DISK:
        raise found


def agreement_of(fused: Tensor, labels: Tensor, values: Tensor) -> float:
    """Mean Dice over the labels that either has; 1 where there is none.

    Args:
        fused, labels: on one grid.
        values: all that occur, rising.
    """
    a, b = (torch.searchsorted(values, one.flatten().to(values)) for one in (fused, labels))
    count = len(values)
    sizes = (torch.bincount(a, minlength=count) + torch.bincount(b, minlength=count)).double()
    both = torch.bincount(a[a == b], minlength=count).double()
    there = (sizes > 0) & (values != 0)
    return float((2 * both / sizes)[there].mean()) if bool(there.any()) else 1.0
