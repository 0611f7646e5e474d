"""A plan for a cohort, from what its training scans are like. Test and validation scans are not looked at.

==============  ================================================================================================
of the plan     proposed
==============  ================================================================================================
spacing         median over the training scans, along each world axis; larger, by one factor, where the grid would
                have more than ``max_voxels``
shape           the largest field of view, unless it is a stray one: then the 95th percentile
modalities      a CT, by its name or its values: the window of the pairwise engine; an MR: percentiles 1 to 99 of what
                is above 0, unless its values go on below; all else: of everything
labels          the union over the training scans
==============  ================================================================================================
"""

from __future__ import annotations

import math
import re
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment

from anamorph.data.cohort import Cohort, Scan
from anamorph.data.files import read, read_labels, read_volume
from anamorph.data.guard import sniff
from anamorph.data.image import Image, ReadPolicy
from anamorph.data.intensity import goes_below_zero
from anamorph.data.metaimage import open_metaimage
from anamorph.data.mgh import open_mgh
from anamorph.data.nifti import choose_affine, header_of_pair, open_nifti
from anamorph.data.nrrd import open_nrrd
from anamorph.data.plan import DIRECTIONS, Intensity, Plan
from anamorph.data.volume import choose_volume, in_plane_axes, place
from anamorph.errors import AnamorphError, AnamorphWarning, ConfigurationError, InputError, warn
from anamorph.spatial.grid import Grid

MAX_VOXELS = 128**3
"""Most voxels of a proposed grid: what a 3-D network of usual width trains on within about 10 GB."""

CT_WINDOW = Intensity(kind="window", low=-450, high=450)
"""In HU: soft tissue, and enough of lung and bone to align by."""

CT = re.compile(r"(^|[^a-z])(cb)?cta?([^a-z]|$)")
MR = re.compile(r"(^|[^a-z])(mri?|t1|t2|pd|flair|dwi|adc|swi|bold|epi|lge|bssfp)", re.IGNORECASE)
SAMPLES = 3
"""Training scans of a modality whose values are looked at."""

STRAY = 1.5
"""Factor by which the largest field of view may exceed the 95th percentile."""

LISTED = 8
"""Labels that a warning names at most."""

Progress = Callable[[str, float], None]


def propose_plan(
    cohort: Cohort,
    overrides: Mapping[str, Any] | None = None,
    *,
    max_voxels: int = MAX_VOXELS,
    policy: ReadPolicy | None = None,
    progress: Progress | None = None,
) -> Plan:
    """A plan that suits the training scans. Files that cannot be read are left to whoever reads them next.

    Args:
        cohort: whose headers and labels are read, and the values of a few images.
        overrides: fields of the plan that are decided already; "modalities" may name some of them. With a shape alone,
            the spacing grows until the fields of view fit.
        max_voxels: bound of a proposed shape; a spacing that is given stays.
        policy: how to read files.
        progress: told "plan" and how much is done.

    Raises:
        InputError: E-COH-040, no training scans; E-COH-044, 2-D and 3-D among them; else the first scan's where none
            of them can be read.
        ConfigurationError: E-COH-045, an orientation, spacing or shape for another dimension.

    Warns:
        W-COH-040: labels that only some of the labelled scans have. W-COH-041: a CT by name without HU. W-COH-042: the
        spacing was enlarged. W-COH-043: fields of view that reach beyond the grid.
    """
    given, policy = dict(overrides or {}), policy or ReadPolicy()
    train = cohort.of_split("train").scans
    if not train:
        do = "give some scans the split train"
        raise InputError("E-COH-040", "no training scans", file="cohort.csv", expected="at least one", do=do)
    tell = progress or (lambda stage, done: None)
    with warnings.catch_warnings():  # what is odd about a file is told when it is prepared
        warnings.simplefilter("ignore", AnamorphWarning)
        grids, labels = _read_all(train, policy, lambda done: tell("plan", done), want_labels="labels" not in given)
        images = {name: _samples(train, name, policy) for name in cohort.modalities}
    tell("plan", 1.0)
    ndim = _dimension(grids)
    given.setdefault("orientation", "RAS"[:ndim])
    for name in ("orientation", "spacing", "shape"):
        if name in given and len(given[name]) != ndim:
            found = f"{name} for {len(given[name])} axes"
            raise ConfigurationError("E-COH-045", found, expected=f"{ndim}, as the scans have")
    axes = [DIRECTIONS[letter][0] for letter in given["orientation"] if letter in DIRECTIONS]
    if sorted(axes) != list(range(ndim)):
        found = f"orientation {given['orientation']!r}"
        raise ConfigurationError("E-COH-045", found, expected=f"each axis once, as in {'RAS'[:ndim]}")
    sizes, extents = (np.array([measure(grid) for grid in grids.values()])[:, axes] for measure in (_sizes, _extents))
    given |= _grid(sizes, extents, given, max_voxels)
    chosen = given.get("modalities", {})
    given["modalities"] = {name: chosen.get(name) or _intensity(name, images[name]) for name in cohort.modalities}
    if "labels" not in given:
        given["labels"] = _union(labels, cohort.label_names)
    return Plan.model_validate(given)


def read_grid(path: Path, policy: ReadPolicy) -> Grid:
    """Where the voxels of a file are, from its header alone where the format has one. Errors as in ``read``."""
    path = header_of_pair(Path(path))
    sniffed = sniff(path)
    if sniffed.kind == "nifti":
        nifti = open_nifti(path, sniffed)
        shape, _, _ = choose_volume(nifti.shape, policy, path)
        affine = choose_affine(nifti, in_plane_axes(shape, path), policy)
    elif sniffed.kind in ("nrrd", "metaimage") and not sniffed.compressed:
        itk = open_nrrd(path) if sniffed.kind == "nrrd" else open_metaimage(path)
        shape, _, _ = choose_volume(itk.shape, policy, path)
        shape, affine = shape[: len(itk.affine) - 1], itk.affine
    elif sniffed.kind == "mgh":
        mgh = open_mgh(path, sniffed)
        shape, _, _ = choose_volume(mgh.shape, policy, path)
        affine = mgh.affine
    else:
        return read_volume(path, policy).grid
    return place(np.broadcast_to(np.uint8(0), shape), affine, policy, path).grid


def is_ct(modality: str) -> bool:
    """Whether a modality's name says CT: ct, CTA, ct_venous, low-dose ct, ..."""
    return CT.search(modality.lower()) is not None


def _read_all(
    scans: Sequence[Scan], policy: ReadPolicy, tell: Callable[[float], None], want_labels: bool
) -> tuple[dict[str, Grid], dict[str, dict[int, str]]]:
    """Grids of the scans, and their labels with names, by scan."""
    grids: dict[str, Grid] = {}
    labels: dict[str, dict[int, str]] = {}
    failure: AnamorphError | None = None
    for count, scan in enumerate(scans):
        tell(count / len(scans))
        try:
            grids[scan.name] = read_grid(scan.image, policy)
            if scan.labels is not None and want_labels:
                found = read_labels(scan.labels, policy)
                labels[scan.name] = {value: found.names.get(value, "") for value in _values(found.data.numpy())}
        except AnamorphError as error:
            failure = failure or error
    if not grids:
        raise failure or InputError("E-COH-040", "no training scans", expected="at least one")
    return grids, labels


def _values(labels: np.ndarray) -> list[int]:
    """The values present; by a table where they lie close together, which a sort takes ten times as long for."""
    low, high = int(labels.min()), int(labels.max())
    if high - low > 2**20:
        return [int(value) for value in np.unique(labels)]
    present = np.zeros(high - low + 1, dtype=bool)
    present[labels - low] = True
    return [int(value) + low for value in np.flatnonzero(present)]


def _samples(scans: Sequence[Scan], modality: str, policy: ReadPolicy) -> list[Image]:
    """A few images of a modality, evenly chosen among those that can be read."""
    of = [scan for scan in scans if scan.modality == modality]
    images = []
    for place_ in sorted({round(share * (len(of) - 1)) for share in np.linspace(0, 1, SAMPLES)} if of else ()):
        try:
            images.append(read(of[place_].image, policy))
        except AnamorphError:
            continue
    return images


def _intensity(modality: str, images: Sequence[Image]) -> Intensity:
    seen = [_looks_like_ct(image) for image in images]
    hounsfield = 2 * sum(seen) > len(seen)
    if is_ct(modality) and (hounsfield or not images or any(float(image.data.min()) < -200 for image in images)):
        return CT_WINDOW
    if is_ct(modality):
        low = min(float(image.data.min()) for image in images)
        warn("W-COH-041", f"values of modality {modality!r} begin at {low:.4g}: no HU, so percentiles are used")
    elif hounsfield:
        return CT_WINDOW
    below_zero = [goes_below_zero(image.data.numpy()) for image in images]
    positive = MR.search(modality) and 2 * sum(below_zero) <= len(below_zero)
    return Intensity(content="positive" if positive else "all")


def _looks_like_ct(image: Image) -> bool:
    """Air far below zero and soft tissue near it: no MR or ultrasound image is like this."""
    low, high = float(image.data.min()), float(image.data.max())
    return low <= -900 and high >= 100 and float(((image.data > -200) & (image.data < 300)).float().mean()) > 0.01


def _dimension(grids: Mapping[str, Grid]) -> int:
    found = {grid.ndim: name for name, grid in grids.items()}
    if len(found) > 1:
        both = " and ".join(f"{ndim}-D ({name})" for ndim, name in sorted(found.items()))
        raise InputError("E-COH-044", both, expected="scans of one dimension", do="make a cohort of each")
    return next(iter(found))


def _sizes(grid: Grid) -> np.ndarray:
    """Voxel size along each world axis, of the voxel axis that is nearest to it, mm."""
    towards = np.abs(grid.affine[:-1, :-1]) / grid.spacing
    world, axis = linear_sum_assignment(-towards)
    return grid.spacing[axis][np.argsort(world)]


def _extents(grid: Grid) -> np.ndarray:
    """Length of the box along the world axes that holds the field of view, mm."""
    ends = np.array(list(product(*[(-0.5, n - 0.5) for n in grid.shape])))
    return np.ptp(grid.to_world(ends), axis=0)


def _grid(sizes: np.ndarray, extents: np.ndarray, given: Mapping[str, Any], max_voxels: int) -> dict[str, Any]:
    """Spacing and shape, along the plan's axes; see the module."""
    largest, usual = extents.max(0), np.percentile(extents, 95, axis=0, method="higher")
    cover = np.where(largest > STRAY * usual, usual, largest)
    median = np.median(sizes, axis=0)
    spacing = np.array(given.get("spacing") or median, dtype=np.float64)
    if given.get("shape"):
        shape = np.array(given["shape"])
        if not given.get("spacing"):
            spacing = spacing * max(1.0, float((cover / (shape * spacing)).max()))
    else:
        shape = _shape(cover, spacing)
        while not given.get("spacing") and shape.prod() > max_voxels:
            spacing = spacing * max(1.01, (shape.prod() / max_voxels) ** (1 / len(shape)) * 0.99)
            shape = _shape(cover, spacing)
    spacing = np.array([float(f"{length:.6g}") for length in spacing])
    if (spacing > median * 1.001).any() and not given.get("spacing"):
        limit = "the shape that is asked for" if given.get("shape") else f"{max_voxels} voxels (--max-voxels)"
        warn("W-COH-042", f"voxels of {_by(spacing)} mm instead of {_by(median)}, to stay within {limit}")
    cut = np.any(extents > (shape + 1) * spacing, axis=1)
    if cut.any():
        found = f"{cut.sum()} of {len(extents)} training scans reach beyond the network's grid"
        warn("W-COH-043", f"{found} of {_by(shape)} voxels; a larger --shape or --spacing holds them")
    return {"spacing": tuple(spacing.tolist()), "shape": tuple(int(n) for n in shape)}


def _shape(extent: np.ndarray, spacing: np.ndarray) -> np.ndarray:
    return np.maximum(1, [math.ceil(voxels - 1e-2) for voxels in extent / spacing])


def _union(labels: Mapping[str, Mapping[int, str]], known: Mapping[int, str]) -> dict[int, str]:
    """Every label of the training scans in rising order, as the cohort calls it, or the first file that names it."""
    counts = Counter(value for found in labels.values() for value in found if value != 0)
    rare = [f"{value} (in {count})" for value, count in sorted(counts.items()) if count < len(labels)]
    if rare:
        more = f" and {len(rare) - LISTED} more" if len(rare) > LISTED else ""
        warn("W-COH-040", f"not in all {len(labels)} labelled training scans: label {', '.join(rare[:LISTED])}{more}")
    names = {value: next(filter(None, (found.get(value) for found in labels.values())), "") for value in counts}
    return {value: known.get(value) or names[value] or f"label {value}" for value in sorted(counts)}


def _by(numbers: np.ndarray) -> str:
    return " x ".join(f"{number:.4g}" for number in numbers)
