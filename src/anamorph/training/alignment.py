"""Affine alignment of a cohort before training: by the pairwise engine, or as somebody else found it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from anamorph.data.cohort import Cohort, Scan
from anamorph.data.fingerprint import is_ct, read_grid
from anamorph.data.image import Image, Mask, ReadPolicy
from anamorph.data.network_grid import network_grid
from anamorph.data.plan import Plan
from anamorph.data.transform_files import read_transform
from anamorph.errors import AnamorphError, ConfigurationError, InputError
from anamorph.inference.register import as_affine, is_linear, register
from anamorph.pairwise.settings import PairwiseSettings
from anamorph.spatial.transform import Affine

ENGINE = PairwiseSettings(transform="affine")
"""How scans are aligned."""


def align(reference: Image, image: Image, reference_mask: Mask | None = None, mask: Mask | None = None) -> Affine:
    """The affine map from the reference's world to the image's, by the pairwise engine. Errors as in ``register``."""
    sides = (
        replace(side, modality="ct" if is_ct(side.modality or "") else side.modality) for side in (reference, image)
    )
    return register(*sides, settings=ENGINE, fixed_mask=reference_mask, moving_mask=mask).linear


def given_alignment(folder: Path, scan: Scan) -> Affine:
    """The alignment of a scan in a folder, ``CASE_MODALITY.tfm``: reference world -> the scan's world.

    Raises:
        InputError: E-COH-046, a deformation; else as in ``read_transform``.
    """
    file = folder / f"{scan.name}.tfm"
    found = read_transform(file)
    if not is_linear(found):
        raise InputError("E-COH-046", "a deformation", file=file, expected="an affine map")
    return as_affine(found)


def reference_scan(cohort: Cohort, name: str) -> Scan:
    """The scan that all are aligned to: the one of that name, or the first of the training scans.

    Raises:
        ConfigurationError: E-COH-047, no training scan of that name.
    """
    train = cohort.of_split("train").scans
    for scan in train:
        if name in ("", scan.name):
            return scan
    expected = f"CASE_MODALITY of a training scan, as {train[0].name}" if train else "a training scan"
    raise ConfigurationError("E-COH-047", f"reference {name!r}", expected=expected)


def scans_together(cohort: Cohort, plan: Plan) -> list[tuple[Scan, ...]]:
    """Scans that have to be prepared together, the one that the others are aligned to first."""
    if plan.alignment == "within":
        order = list(plan.modalities)
        cases: dict[str, list[Scan]] = {}
        for scan in cohort.scans:
            cases.setdefault(scan.case, []).append(scan)
        return [tuple(sorted(scans, key=lambda scan: order.index(scan.modality))) for scans in cases.values()]
    return [(scan,) for scan in cohort.scans]


def middle_of_given(cohort: Cohort, folder: Path, policy: ReadPolicy) -> tuple[float, ...]:
    """Median over the training scans of the middle of their fields of view, in the reference's world.

    Scans that cannot be read are left to whoever reads them next; where none can, the first refusal is raised.
    """
    middles: list[np.ndarray] = []
    failure: AnamorphError | None = None
    for scan in cohort.of_split("train").scans:
        try:
            centre = read_grid(scan.image, policy).centre
            middles.append(given_alignment(folder, scan).inverse()(centre[None])[0])
        except AnamorphError as error:
            failure = failure or error
    if failure is not None and not middles:
        raise failure
    return tuple(float(f"{value:.9g}") for value in np.median(middles, axis=0))


def middle_of_reference(image: Image, plan: Plan) -> tuple[float, ...]:
    """The middle of the network's grid about the reference."""
    grid = network_grid(image, plan.model_copy(update={"middle": None, "offset": None}))
    return tuple(float(value) for value in grid.centre)
