"""Tissues painted layer by layer on world points."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from anamorph.data.phantoms.shapes import Distance, Number, Solid, Vector, boxes, meeting

BRICK_VOXELS = 20
"""Small enough that most solids are far from most bricks, large enough that numpy has something to do in each."""


@dataclass(frozen=True, eq=False)
class Layer:
    """A solid filled with a tissue. Its label replaces the one below; None leaves that as it is."""

    solid: Solid
    tissue: str
    label: int | None


@dataclass(eq=False)
class Anatomy:
    """Layers from the outermost to the innermost, and named points.

    Args:
        unevenness: a smooth shift (3 N points -> 3 N mm) that makes every surface a little irregular.
    """

    unevenness: Distance
    layers: list[Layer] = field(default_factory=list)
    landmarks: dict[str, np.ndarray] = field(default_factory=dict)

    def paint(self, solid: Solid, tissue: str, label: int | None = None) -> None:
        """Add a layer over all others."""
        self.layers.append(Layer(solid, tissue, label))

    def mark(self, name: str, point: Vector) -> None:
        """Name a point given in the frame in which the solids are built."""
        self.landmarks[name] = np.asarray(point, float)

    def render(
        self, points: np.ndarray, tissues: Mapping[str, tuple[Number, ...]], background: str, edge_mm: float
    ) -> tuple[np.ndarray, np.ndarray]:
        """Tissue properties and labels at world points.

        Args:
            points: 3 N, RAS+ mm.
            tissues: properties by tissue, the same number P for each.
            background: the tissue where no layer is.
            edge_mm: width over which two tissues mix at a surface: the partial volume of a voxel of that size.

        Returns:
            P N float32 properties, N int32 labels.
        """
        properties = np.empty((len(tissues[background]), points.shape[1]), np.float32)
        labels = np.empty(points.shape[1], np.int32)
        lower, upper = boxes([layer.solid for layer in self.layers])
        for where in bricks(points, BRICK_VOXELS * edge_mm):
            moved = (points[:, where] + self.unevenness(points[:, where])).astype(np.float32)
            layers = [self.layers[k] for k in meeting(lower, upper, moved, edge_mm)]
            properties[:, where], labels[where] = painted(layers, moved, tissues, background, edge_mm)
        return properties, labels

    def landmark_points(self) -> np.ndarray:
        """World points of the landmarks, N 3: the unevenness is undone by fixed-point iteration."""
        wanted = np.stack(list(self.landmarks.values()), axis=1)
        points = wanted.copy()
        for _ in range(50):
            points = wanted - self.unevenness(points)
        return points.T


def bricks(points: np.ndarray, width_mm: float) -> list[np.ndarray]:
    """Indices of the points (3 N) in each cube of a given width."""
    cell = np.floor((points - points.min(axis=1, keepdims=True)) / width_mm).astype(np.int64)
    counts = cell.max(axis=1) + 1
    number = (cell[0] * counts[1] + cell[1]) * counts[2] + cell[2]
    order = np.argsort(number, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(number[order])) + 1)


def painted(
    layers: Sequence[Layer],
    points: np.ndarray,
    tissues: Mapping[str, tuple[Number, ...]],
    background: str,
    edge_mm: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Properties (P N) and labels (N) after blending the layers in turn."""
    properties = np.repeat(np.array(tissues[background], np.float32)[:, None], points.shape[1], axis=1)
    labels = np.zeros(points.shape[1], np.int32)
    for layer in layers:
        distance = layer.solid.distance(points)
        share = np.clip(0.5 - distance / np.float32(edge_mm), 0, 1)
        for old, new in zip(properties, np.array(tissues[layer.tissue], np.float32), strict=True):
            old += share * (new - old)
        if layer.label is not None:
            labels[distance < 0] = layer.label
    return properties, labels
