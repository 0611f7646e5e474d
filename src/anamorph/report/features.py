"""Images and what descriptors see in them, side by side: a row an image, a column a descriptor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from anamorph.report.figures import FOREGROUND, to_grey, window_of
from anamorph.report.inputs import Volume
from anamorph.report.planes import Display, Plane, choose_planes
from anamorph.report.sheet import Sheet, View, draw_sheet
from anamorph.types import Matrix

PlaneName = Literal["axial", "coronal", "sagittal"]


@dataclass(frozen=True, eq=False)
class Described:
    """An image.

    Args:
        image: I J (K).
        affine: voxel -> RAS mm.
        modality: of the image.
        maps: descriptor -> its map, I J (K).
    """

    image: Volume
    affine: Matrix
    modality: str | None
    maps: Mapping[str, Volume]


def sheet_of_features(
    described: Mapping[str, Described], plane: PlaneName = "axial", at_mm: float | None = None
) -> Sheet:
    """Each image in one slice, and its maps; those of one descriptor share their grey values, set by what is no air.

    Args:
        described: name -> image, all with the same descriptors.
        plane: which slice; an image in 2-D has only one.
        at_mm: where it lies along its axis, RAS mm; the middle of what is bright if absent.
    """
    descriptors: Sequence[str] = [*next(iter(described.values())).maps]
    windows = {name: window_of((one.image,), one.modality) for name, one in described.items()}
    bodies = {name: to_grey(one.image, windows[name]) > FOREGROUND for name, one in described.items()}
    planes = {name: _plane(one, bodies[name], plane, at_mm) for name, one in described.items()}
    greys = {}
    for descriptor in descriptors:
        cuts = (
            (planes[name].cut(one.maps[descriptor]), planes[name].cut(bodies[name])) for name, one in described.items()
        )
        greys[descriptor] = window_of([cut[body] if body.any() else cut for cut, body in cuts], None)
    rows = []
    for name, one in described.items():
        views = [View(planes[name], one.image, windows[name], caption=planes[name].caption)]
        views += [View(planes[name], one.maps[descriptor], greys[descriptor]) for descriptor in descriptors]
        rows.append((name, views))
    return draw_sheet("Feature maps", ("image", *descriptors), rows, {})


def _plane(one: Described, body: np.ndarray, wanted: PlaneName, at_mm: float | None) -> Plane:
    display = Display(one.image.shape, one.affine).cropped_to([body])
    planes = choose_planes(display, (), one.image)
    chosen = next((found for found in planes if found.name.lower() == wanted), planes[0])
    if at_mm is None or display.flat:
        return chosen
    middle = (np.array(display.turned_shape) - 1) / 2
    first, second = (display.turned_affine @ [*_along(middle, chosen.axis, place), 1] for place in (0, 1))
    index = (at_mm - first[chosen.axis]) / (second - first)[chosen.axis]
    return replace(chosen, index=int(np.clip(round(index), 0, display.turned_shape[chosen.axis] - 1)))


def _along(middle: np.ndarray, axis: int, place: int) -> np.ndarray:
    """A voxel in the middle of a slice."""
    found = middle.copy()
    found[axis] = place
    return found
