"""Aligned images of several modalities, one of which is deformed elastically: pairs whose true maps are known.

    deformed(x) = original(x + u(x))          u: ``elastic``

So x + u(x) is the map from the deformed image's world to that of every other scan of the case, and its inverse, found
by iteration, the map to the deformed image from there. Labels are what linear interpolation gives the largest share.
A deformation that would fold, or nearly, is drawn anew.

Where a Dice is asked for in place of a magnitude, the magnitude is found at which the labels of the training cases, by
themselves and deformed, overlap so far on average: as far as the labels of an aligned pair do before registration.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from scipy.optimize import root_scalar

from anamorph.data.cohort import Scan, Split, subject_of
from anamorph.data.cohort_files import read_cohort
from anamorph.data.files import read_labels
from anamorph.data.image import Labelmap
from anamorph.data.landmark_formats import listed
from anamorph.data.phantoms.case import Phantom, PhantomCase
from anamorph.data.phantoms.elastic import FEWEST_VOXELS, elastic_displacement, in_voxels, least_determinant
from anamorph.data.phantoms.options import DeformedOptions
from anamorph.data.phantoms.remapped import moved, original
from anamorph.errors import ConfigurationError, InputError, warn
from anamorph.spatial.field import warp
from anamorph.spatial.grid import Grid
from anamorph.spatial.transform import Field

LEAST_DETERMINANT = 0.05
"""Of a deformation's derivative; with less its inverse cannot be found well."""
MOST_DRAWS = 20
"""Of one case's deformation."""
MAGNITUDE_MM, JUDGED_CASES = 10.0, 20
"""Where nothing else is asked for."""
GROWTH = 1.25
"""From one magnitude to the next that is tried until the Dice is low enough."""
ACCURACY_MM = 0.01
"""Of the magnitude that is found."""


@dataclass(frozen=True)
class Aligned:
    """A case of the cohort.

    Args:
        number: among those that are deformed.
        deformed: the scan that is.
        others: its other scans.
    """

    number: int
    deformed: Scan
    others: tuple[Scan, ...]


class Deformed(Phantom[DeformedOptions]):
    """The cases of a cohort, the deformed scan first, then the others as they are.

    Raises:
        ConfigurationError: E-SYN-008, no case has the modality that is to be deformed and another.
    """

    def __init__(self, options: DeformedOptions, seed: int) -> None:
        super().__init__(options, seed)
        cohort = read_cohort(options.cohort)
        self.modality = options.modality or cohort.modalities[-1]
        self.cases: list[Aligned] = []
        alone = []
        for case in cohort.cases:
            scans = {scan.modality: scan for scan in cohort.scans if scan.case == case}
            deformed = scans.pop(self.modality, None)
            if deformed is None or not scans:
                alone.append(case)
            else:
                self.cases.append(Aligned(len(self.cases), deformed, tuple(scans.values())))
        if not self.cases:
            found = f"no case with {self.modality} and another modality; there are {', '.join(cohort.modalities)}"
            raise ConfigurationError("E-SYN-008", found, expected="aligned images of one case", do="name a --modality")
        if alone:
            found = f"{len(alone)} cases without {self.modality} or another modality"
            warn("W-SYN-008", f"{found}, left out: {listed(alone)}")
        self.most, self.label_names = len(self.cases), cohort.label_names

    def case(self, index: int, split: Split | None = None) -> PhantomCase:
        """A case with one scan deformed, and its maps both ways."""
        aligned = self.cases[index]
        before = original(aligned.deformed, labelled=True)
        grid = before.image.grid
        displacement = self._displacement(aligned, grid, self.magnitude_mm)
        there = Field(torch.from_numpy(displacement), grid)
        back = there.inverse()
        scans = moved(before, back, there), *(original(scan, labelled=True) for scan in aligned.others)
        maps, maps_back = (there,) * len(aligned.others), (back,) * len(aligned.others)
        return PhantomCase(scans, maps, aligned.deformed.case, aligned.deformed.split, maps_back)

    def found(self) -> Mapping[str, float]:
        """The magnitude, and the Dice it was chosen for, where it was."""
        if self.options.dice is None:
            return {}
        return {"magnitude_mm": round(self.magnitude_mm, 3), "dice": round(self._mean_dice(self.magnitude_mm), 4)}

    @cached_property
    def magnitude_mm(self) -> float:
        """How far control points move along each axis at most.

        Raises:
            ConfigurationError: E-SYN-010, deformations fold before they are large enough.
            InputError: E-SYN-009, no training case has labels to judge by.
        """
        wanted = self.options.dice
        if wanted is None:
            return MAGNITUDE_MM if self.options.magnitude_mm is None else self.options.magnitude_mm
        low, high = 0.0, self.options.control_mm / 8
        while self._mean_dice(high) > wanted:
            low, high = high, high * GROWTH
        found = root_scalar(lambda size: self._mean_dice(size) - wanted, bracket=(low, high), xtol=ACCURACY_MM)
        return float(found.root)

    def _mean_dice(self, magnitude_mm: float) -> float:
        """Of the training cases, each of which counts by the mean of its structures."""
        return float(np.mean([self._dice(aligned, labels, magnitude_mm) for aligned, labels in self._judged]))

    @cached_property
    def _judged(self) -> list[tuple[Aligned, Labelmap]]:
        """Training cases with labels to judge by, those of one structure as 1.

        One of each subject, the middle one: of its slices that through what was sliced for, as where slices are held
        back.
        """
        sessions: dict[str, list[tuple[Aligned, Path]]] = {}
        for aligned in self.cases:
            scan = aligned.deformed
            if scan.split == "train" and scan.labels is not None:
                sessions.setdefault(subject_of(scan.case), []).append((aligned, scan.labels))
        found: list[tuple[Aligned, Labelmap]] = []
        for of_subject in sessions.values():
            aligned, path = of_subject[len(of_subject) // 2]
            labels = read_labels(path)
            data = labels.data.to(torch.int32)
            if self.options.judged:
                data = torch.isin(data, torch.tensor(self.options.judged)).to(torch.int32)
            if bool((data > 0).any()):
                found.append((aligned, Labelmap(data, labels.grid)))
            if len(found) == (self.options.judged_cases or JUDGED_CASES):
                break
        if not found:
            which = f" {', '.join(map(str, self.options.judged))}" if self.options.judged else ""
            problem = f"no training case whose {self.modality} has labels{which}"
            raise InputError("E-SYN-009", problem, expected="some to judge by", do="give --magnitude-mm, not --dice")
        return found

    def _dice(self, aligned: Aligned, labels: Labelmap, magnitude_mm: float) -> float:
        """Mean over the structures of a case, by the nearest voxel."""
        displacement = in_voxels(self._displacement(aligned, labels.grid, magnitude_mm), labels.grid)
        before, after = labels.data, warp(labels.data[None, None], displacement, mode="nearest")[0, 0]
        overlaps = []
        for label in labels.values():
            if label > 0:
                a, b = before == label, after == label
                overlaps.append(2 * int((a & b).sum()) / (int(a.sum()) + int(b.sum())))
        return float(np.mean(overlaps))

    def _displacement(self, aligned: Aligned, grid: Grid, magnitude_mm: float) -> np.ndarray:
        """The first deformation drawn that does not fold, d I J (K), mm; of a case and magnitude always the same."""
        if min(grid.shape) < FEWEST_VOXELS:
            found = f"an image of {' x '.join(map(str, grid.shape))} voxels"
            expected = f"{FEWEST_VOXELS} along every axis to deform"
            raise InputError("E-SYN-011", found, file=aligned.deformed.image, expected=expected)
        for draw in range(MOST_DRAWS):
            rng = self.generator(aligned.number, draw)
            unit = elastic_displacement(grid, rng, self.options.control_mm, self.options.smoothness_mm)
            displacement = np.float32(magnitude_mm) * unit
            if least_determinant(displacement, grid) >= LEAST_DETERMINANT:
                return displacement
        found = f"deformations by up to {magnitude_mm:.3g} mm at points {self.options.control_mm:g} mm apart fold"
        do = "move them less (a higher Dice), or take points farther apart or a wider Gaussian"
        raise ConfigurationError("E-SYN-010", found, expected="maps that can be inverted", do=do)
