"""How many pieces, holes, cavities and tunnels a structure has: what a warp by a diffeomorphism must not change.

With b0 pieces, b1 holes (2-D) or tunnels (3-D) and b2 cavities, the Betti numbers, the Euler number is their
alternating sum:

    2-D    euler = b0 - b1            3-D    euler = b0 - b1 + b2

b0 counts connected components, the last Betti number the components of the background less the outer one; the Euler
number is counted cell by cell, and the tunnels are what is left. Voxels and background are connected in opposite ways,
or a closed curve would not have an inside: foreground across corners and background across faces (``full``), or the
other way round (``face``).

How far a structure's topology is from the right one is the sum of the differences of its Betti numbers, |b0 - b0'| +
|b1 - b1'| + |b2 - b2'|, its Betti error; it is a topological success where that is 0.

Sources: T. Y. Kong and A. Rosenfeld (1989), Digital topology: introduction and survey,
doi:10.1016/0734-189X(89)90147-3; N. Byrne et al. (2023), A persistent homology-based topological loss for CNN-based
multiclass segmentation of CMR, doi:10.1109/TMI.2022.3203309 (Betti error, topological success).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np
from jaxtyping import Bool, Int
from scipy.ndimage import find_objects, generate_binary_structure, label

from anamorph.evaluation.overlap import EMPTY_IN_BOTH
from anamorph.evaluation.scores import Score

Connectivity = Literal["full", "face"]


@dataclass(frozen=True)
class Topology:
    """The Betti numbers of a structure, and what lies apart from its largest piece.

    Args:
        components: connected pieces, b0.
        tunnels: b1; the holes of a 2-D structure, the handles of a 3-D one.
        cavities: b2, enclosed background; 0 in 2-D.
        voxels: of the structure.
        stray_voxels: those outside its largest piece.
    """

    components: int
    tunnels: int
    cavities: int
    voxels: int
    stray_voxels: int

    @property
    def euler_number(self) -> int:
        """b0 - b1 + b2: 1 for a disc and a ball, 0 for a ring and a solid torus, 2 for a hollow ball."""
        return self.components - self.tunnels + self.cavities

    def betti_error(self, other: Topology) -> int:
        """By how much the Betti numbers of two structures differ, in all."""
        return (
            abs(self.components - other.components)
            + abs(self.tunnels - other.tunnels)
            + abs(self.cavities - other.cavities)
        )


def euler_number(mask: Bool[np.ndarray, "..."], connectivity: Connectivity = "full") -> int:
    """The Euler number of a mask I J (K): its cells counted with the sign of their dimension.

    ``full``: voxels are closed cubes, whose faces, edges and corners they share with their neighbours. ``face``: voxels
    are points, joined by the edges, squares and cubes of which they are all corners.
    """
    padded = np.pad(mask, 1)
    total = 0
    for count in range(mask.ndim + 1):
        for axes in combinations(range(mask.ndim), count):
            cells = padded
            for axis in axes:
                length = cells.shape[axis] - 1
                near, far = (np.take(cells, np.arange(length) + shift, axis) for shift in (0, 1))
                cells = near | far if connectivity == "full" else near & far
            dimension = mask.ndim - count if connectivity == "full" else count
            total += (-1) ** dimension * int(np.count_nonzero(cells))
    return total


def topology(mask: Bool[np.ndarray, "..."], connectivity: Connectivity = "full") -> Topology:
    """Pieces, tunnels and cavities of a mask I J (K); all 0 where it is empty. Beyond its edge is background."""
    voxels = int(np.count_nonzero(mask))
    if not voxels:
        return Topology(0, 0, 0, 0, 0)
    full, face = (generate_binary_structure(mask.ndim, rank) for rank in (mask.ndim, 1))
    inner, outer = (full, face) if connectivity == "full" else (face, full)
    pieces, components = label(mask, inner)  # pyright: ignore[reportGeneralTypeIssues]
    _, regions = label(~np.pad(mask, 1), outer)  # pyright: ignore[reportGeneralTypeIssues]
    enclosed = int(regions) - 1
    largest = int(np.bincount(pieces[mask]).max())
    if mask.ndim == 2:
        return Topology(int(components), enclosed, 0, voxels, voxels - largest)
    tunnels = int(components) + enclosed - euler_number(mask, connectivity)
    return Topology(int(components), tunnels, enclosed, voxels, voxels - largest)


def label_topology(
    labels: Int[np.ndarray, "..."], names: Mapping[int, str] | None = None, connectivity: Connectivity = "full"
) -> dict[int, Topology]:
    """The topology of each label of a labelmap I J (K), by default of all but 0, each looked at within its own box."""
    values = sorted(names) if names is not None else [int(value) for value in np.unique(labels) if value != 0]
    places = np.searchsorted(values, labels).clip(max=max(len(values) - 1, 0)) if values else labels
    ranks = np.where(np.array(values)[places] == labels, places + 1, 0) if values else np.zeros_like(labels)
    boxes = find_objects(ranks, len(values)) if values else []
    empty = Topology(0, 0, 0, 0, 0)
    return {
        value: empty if box is None else topology(labels[box] == value, connectivity)
        for value, box in zip(values, boxes, strict=True)
    }


def topology_scores(
    labels: Int[np.ndarray, "..."],
    names: Mapping[int, str] | None = None,
    connectivity: Connectivity = "full",
    *,
    truth: Int[np.ndarray, "..."] | None = None,
    atlas: Mapping[int, Topology] | None = None,
) -> list[Score]:
    """Pieces, holes (2-D) or tunnels and cavities (3-D), and stray voxels of each label; and whether they are right.

    Args:
        labels: I J (K).
        names: which labels, and what they are called; by default all but 0.
        connectivity: of the labels; the background's is the other one.
        truth: true labels on any grid: adds the Betti error and the topological success of each label.
        atlas: the topology of an atlas's labels: adds the Betti error against that.
    """
    found = label_topology(labels, names, connectivity)
    if names is None:
        names = {value: str(value) for value in found}
    right = {} if truth is None else label_topology(truth, names, connectivity)
    rows = []
    for value, one in found.items():
        absent = value in right and not right[value].voxels
        nowhere = "" if one.voxels else EMPTY_IN_BOTH if absent else "no voxel has this label"
        numbers = {"components": one.components, "holes": one.tunnels}
        if labels.ndim == 3:
            numbers = {"components": one.components, "tunnels": one.tunnels, "cavities": one.cavities}
        numbers["stray_voxels"] = one.stray_voxels
        rows += [_score(metric, number, names[value], nowhere) for metric, number in numbers.items()]
        if value in right:
            error, missing = one.betti_error(right[value]), EMPTY_IN_BOTH if absent and not one.voxels else ""
            rows.append(_score("betti_error", error, names[value], missing))
            rows.append(_score("topological_success", error == 0, names[value], missing))
        if atlas is not None and value in atlas:
            rows.append(_score("atlas_betti_error", one.betti_error(atlas[value]), names[value], ""))
    return rows


def _score(metric: str, number: int, label: str, missing: str) -> Score:
    unit = "voxels" if metric == "stray_voxels" else ""
    return Score(metric, math.nan if missing else float(number), unit, label, missing)
