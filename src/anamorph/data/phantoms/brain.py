"""Brains in T1, T2 and FLAIR contrast by synthesis from labels.

A case is a labelmap under a random map; its images are drawn from its labels. Where several labelmaps are given, the
cases take them in turn.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from anamorph.data.cohort import Split
from anamorph.data.image import Image, Labelmap, Landmarks, Mask
from anamorph.data.phantoms.brain_anatomy import (
    LANDMARKS,
    MUSCLE,
    SCALP,
    SKULL,
    SUBCORTICAL,
    TISSUE_OF,
    built_in_brain,
)
from anamorph.data.phantoms.brain_tumour import with_tumour
from anamorph.data.phantoms.case import Phantom, PhantomCase, PhantomScan
from anamorph.data.phantoms.deformation import pair_map, preimages, subject_map
from anamorph.data.phantoms.label_contrast import (
    Contrast,
    cropped,
    fine_grid,
    labels_at,
    outermost_points,
    random_contrast,
    read_labelmap,
    signal_at,
)
from anamorph.data.phantoms.options import BrainOptions
from anamorph.data.phantoms.scanners import QUALITIES, SITES, Site, averaged, magnetic_resonance, sliced
from anamorph.errors import InputError
from anamorph.spatial.grid import Grid
from anamorph.spatial.transform import Affine, Chain, Transform

TISSUES = {
    # T1-weighted (inversion-prepared gradient echo), T2-weighted, FLAIR; texture of all is TEXTURE of their signal
    "csf": (190, 960, 120),
    "gm": (530, 470, 560),
    "wm": (800, 310, 420),
    "deep": (600, 400, 520),
    "thalamus": (640, 390, 490),
    "pallidum": (720, 280, 420),
    "stem": (740, 340, 450),
    "skull": (120, 90, 90),
    "scalp": (900, 620, 600),
    "muscle": (380, 260, 330),
    "tumour": (430, 700, 740),
    "oedema": (560, 720, 830),
    "none": (0, 0, 0),
}
TISSUES_1_TO_3 = {1: "csf", 2: "gm", 3: "wm"}
UNTOLD = (SKULL, SCALP, MUSCLE)
"""Made, but no labels of the cohort."""
COLUMNS = {"label": ("label", "label number"), "tissue": ("tissue", "class"), "name": ("name", "label name")}
"""Headers that a table of tissues may have."""
COLUMN = {"t1": 0, "t2": 1, "flair": 2}
MIXED_WITH = {"t1": "t2", "t2": "t1", "flair": "t1"}
"""The sequence that another site's weighting is nearer to."""
TEXTURE, SCAN_SPREAD, LABEL_SPREAD = 0.045, 0.05, 0.03
"""Standard deviations, as fractions of the signal: within a tissue, from scan to scan, from label to label."""
FADED = 0.55
"""What a hard scanner leaves of the differences between tissues."""


@dataclass(frozen=True, eq=False)
class Source:
    """A labelmap to make brains of.

    Args:
        labels: cropped to their content, with the names that are known.
        tissue_of: what each label is made of; where it is empty, contrasts can only be random.
        landmarks: named points.
    """

    labels: Labelmap
    tissue_of: Mapping[int, str]
    landmarks: Landmarks


class Brain(Phantom[BrainOptions]):
    """Scans of one case lie on equal grids, each in a place and shape of its own."""

    def __init__(self, options: BrainOptions, seed: int) -> None:
        super().__init__(options, seed)
        scanner = Site(QUALITIES[options.scanner], FADED if options.scanner == "hard" else 1.0)
        self.sites = [SITES[name] for name in options.sites or filter(None, [options.site])] or [scanner]
        tissues, names = read_tissues(options.tissues) if options.tissues else ({}, {})
        if options.labelmap:
            self.sources = [from_file(path, tissues, options.contrast == "preset") for path in options.labelmap]
        else:
            labels = cropped(built_in_brain(skull=options.skull))
            self.sources = [
                Source(labels, TISSUE_OF, Landmarks(np.array(list(LANDMARKS.values()), float), tuple(LANDMARKS)))
            ]
        present = sorted({label for source in self.sources for label in source.labels.values()} - {0, *UNTOLD})
        self.tumour, self.oedema = present[-1] + 1, present[-1] + 2
        names = names or self.sources[0].labels.names
        self.label_names = {label: names.get(label, f"label {label}") for label in present}
        if options.tumour:
            self.label_names |= {self.tumour: "tumour", self.oedema: "oedema"}
        if options.subcortical:
            self.label_names = {1: "subcortical structures"}

    def case(self, index: int, split: Split | None = None) -> PhantomCase:
        """One subject; the scans after the first are deformed against it."""
        source, site = self.sources[index % len(self.sources)], self.sites[index % len(self.sites)]
        grid = fine_grid(source.labels.grid, self.options.spacing)
        subject: Transform = subject_map(grid, self.generator(index, 0), self.options)
        points, to_template = source.landmarks.points, subject
        if self.options.tumour:
            source, push = self._with_tumour(source, self.generator(index, 1))
            points, to_template = push.inverse()(points), Chain((subject, push))
        points = preimages(subject, points)
        scans, truth = [], []
        for number, modality in enumerate(self.options.modalities):
            streams = self.generator(index, 2 + 2 * number), self.generator(index, 3 + 2 * number)
            moved = pair_map(grid, streams[1], self.options) if number else Affine.identity(3)
            scan = self._scan(modality, source, grid, subject, moved, site, streams[0])
            landmarks = Landmarks(moved(points), source.landmarks.names)
            back = Chain((moved.inverse(), to_template)) if len(self.sources) == 1 else None
            scans.append(replace(scan, landmarks=landmarks, to_template=back))
            truth.append(moved)
        return PhantomCase(tuple(scans), tuple(truth[1:]))

    def template(self) -> PhantomScan | None:
        """The labelmap in the first contrast, without noise, where there is only one labelmap."""
        if len(self.sources) > 1:
            return None
        source = self.sources[0]
        grid = fine_grid(source.labels.grid, self.options.spacing)
        still = Affine.identity(3)
        scan = self._scan(self.options.modalities[0], source, grid, still, still, self.sites[0], None)
        return replace(scan, landmarks=source.landmarks, to_template=still)

    def _with_tumour(self, source: Source, rng: np.random.Generator) -> tuple[Source, Transform]:
        labels = source.labels.data.numpy()
        counts = np.bincount(labels[labels > 0])
        white = [label for label in np.flatnonzero(counts).tolist() if source.tissue_of.get(label) == "wm"]
        white = white or [int(counts.argmax())]
        sizes = self.options.tumour_mm, self.options.oedema_mm
        changed, push = with_tumour(labels, source.labels.grid, white, self.tumour, self.oedema, rng, *sizes)
        tissue_of = {**source.tissue_of, self.tumour: "tumour", self.oedema: "oedema"} if source.tissue_of else {}
        return replace(source, labels=replace(source.labels, data=torch.from_numpy(changed)), tissue_of=tissue_of), push

    def _scan(
        self,
        modality: str,
        source: Source,
        fine: Grid,
        subject: Transform,
        moved: Transform,
        site: Site,
        rng: np.random.Generator | None,
    ) -> PhantomScan:
        """A scan on ``fine``, or on thicker slices of it, of a subject that was moved; ideal without random numbers."""
        labels = source.labels.data.numpy()
        grid, quality = sliced(fine, site.quality), site.quality
        drawing = np.random.default_rng(0) if rng is None else rng
        if self.options.contrast == "random":
            contrast = random_contrast(labels, drawing)
        else:
            contrast = self._preset(modality, source, site, rng)
        where = subject(preimages(moved, fine.to_world(fine.voxels())))
        signal = signal_at(labels, source.labels.grid, where, contrast, drawing, 0.4 * self.options.spacing)
        found = labels_at(labels, source.labels.grid, where).reshape(fine.shape)
        found = found[..., quality.slices // 2 :: quality.slices][..., : grid.shape[-1]]
        image = averaged(signal.reshape(fine.shape), quality)
        if rng is not None:
            image = magnetic_resonance(image, grid, rng, 16.0, 0.12, quality)
        told = np.where(np.isin(found, UNTOLD), 0, found)
        brain = told > 0
        if not self.options.skull:
            image = np.where(brain, image, 0)
        if self.options.subcortical:
            told = np.isin(told, SUBCORTICAL).astype(told.dtype)
        return PhantomScan(
            Image(torch.from_numpy(image.astype(np.float32))[None], grid, modality),
            Labelmap(torch.from_numpy(told), grid, np.dtype(np.uint8), self.label_names),
            mask=Mask(torch.from_numpy(brain), grid),
        )

    def _preset(self, modality: str, source: Source, site: Site, rng: np.random.Generator | None) -> Contrast:
        """The sequence's contrast, a little different in every scan and, less so, in every label."""
        own, other = COLUMN[modality], COLUMN[MIXED_WITH[modality]]
        signal = {name: row[own] + site.weighting * (row[other] - row[own]) for name, row in TISSUES.items()}
        grey, kept = signal["gm"], site.contrast
        drawn = {name: 1.0 if rng is None else float(np.exp(rng.normal(0, SCAN_SPREAD))) for name in TISSUES}
        contrast = {}
        for label, tissue in source.tissue_of.items():
            mean = drawn[tissue] * (grey + kept * (signal[tissue] - grey))
            if rng is not None:
                mean *= float(np.exp(rng.normal(0, LABEL_SPREAD)))
            contrast[label] = (mean, 0.0 if rng is None else TEXTURE * mean)
        return contrast


def from_file(path: Path, tissues: Mapping[int, str], needed: bool) -> Source:
    """A labelmap of yours.

    Args:
        path: the file, 3-D.
        tissues: what its labels are made of; without any, labels 1 to 3 are csf, gm and wm.
        needed: whether every label must have a tissue.

    Raises:
        InputError: E-SYN-005, labels without a tissue; and whatever ``read_labelmap`` refuses.
    """
    content = read_labelmap(path, (3,))
    present = content.values()[1:]
    tissues = tissues or (TISSUES_1_TO_3 if set(present) <= set(TISSUES_1_TO_3) else {})
    without = [label for label in present if label not in tissues]
    if needed and without:
        found = f"{len(without)} labels without a tissue, such as {without[0]}"
        raise InputError("E-SYN-005", found, file=path, do="name them with --tissues, or use --contrast random")
    names = dict(tissues) if tissues == TISSUES_1_TO_3 else {}
    used = {label: tissues[label] for label in present if label in tissues} if not without else {}
    return Source(replace(content, names=names), used, outermost_points(content))


def read_tissues(path: Path) -> tuple[dict[int, str], dict[int, str]]:
    """Label -> tissue, and label -> name, of a CSV with the columns label, tissue and, if wanted, name.

    Raises:
        InputError: E-SYN-006, with the line, for anything else.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = [[cell.strip() for cell in row] for row in csv.reader(file)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError("E-SYN-006", "it cannot be read as a table", file=path, expected="CSV") from error
    header = [cell.lower() for cell in rows[0]] if rows else []
    place = {column: k for k, cell in enumerate(header) for column, words in COLUMNS.items() if cell in words}
    if not {"label", "tissue"} <= set(place):
        raise InputError("E-SYN-006", f"columns {', '.join(header)}", file=path, expected="label and tissue")
    tissues, names = {}, {}
    for line, row in enumerate(rows[1:], start=2):
        found = {column: row[k] if k < len(row) else "" for column, k in place.items()}
        label, tissue = found["label"], found["tissue"].lower()
        if not label.isdecimal() or (tissue and tissue not in TISSUES):
            expected = f"a label and one of {', '.join(TISSUES)}"
            raise InputError("E-SYN-006", f"line {line}: {label!r} {tissue!r}", file=path, expected=expected)
        if tissue:
            tissues[int(label)] = tissue
        if found.get("name"):
            names[int(label)] = found["name"]
    return tissues, names
