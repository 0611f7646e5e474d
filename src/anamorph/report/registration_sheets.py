"""Pairs of a table of registrations as pictures: what methods make of a moving image, and of its grid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Integer

from anamorph.evaluation.comparison import Comparison
from anamorph.report.experiment_sheets import score_in_words
from anamorph.report.figures import window_of
from anamorph.report.inputs import Volume
from anamorph.report.sheet import Sheet, View, draw_sheet, telling_plane
from anamorph.types import Matrix

Labels = Integer[np.ndarray, "..."]


@dataclass(frozen=True, eq=False)
class Placed:
    """The moving image on the fixed grid: I J (K), its labels, and the map there, d I J (K), RAS mm."""

    image: Volume
    labels: Labels | None
    displacement_mm: Volume


@dataclass(frozen=True, eq=False)
class RegisteredCase:
    """A pair.

    Args:
        fixed: I J (K).
        affine: voxel -> RAS mm.
        modalities: of the fixed and of the moving image.
        truth: labels of the fixed image; None where there are none.
        before: the moving image as its header places it.
        found: method -> the same as that places it; methods that failed are absent.
    """

    fixed: Volume
    affine: Matrix
    modalities: tuple[str | None, str | None]
    truth: Labels | None
    before: Placed
    found: Mapping[str, Placed] = field(default_factory=dict)


def sheet_of_registrations(
    cases: Mapping[str, RegisteredCase],
    chosen: Mapping[str, str],
    methods: Sequence[str],
    names: Mapping[int, str],
    comparison: Comparison,
) -> Sheet:
    """Two rows a case: fixed, moving and warped images, and below these the moving image's grid, deformed.

    Labels of the fixed image are outlined as true, those of the moving one as found.

    Args:
        cases: by name.
        chosen: what a case stands for -> its name.
        methods: the columns.
        names: label -> name.
        comparison: where the numbers below the pictures come from.
    """
    rows: list[tuple[str, Sequence[View | None]]] = []
    for what, name in chosen.items():
        case = cases[name]
        wanted = [] if case.truth is None else [np.where(np.isin(case.truth, list(names)), case.truth, 0)]
        plane = telling_plane(case.fixed.shape, case.affine, case.fixed, wanted)
        own, other = window_of((case.fixed,), case.modalities[0]), window_of((case.before.image,), case.modalities[1])
        images: list[View | None] = [
            View(plane, case.fixed, own, case.truth),
            View(
                plane, case.before.image, other, case.truth, case.before.labels,
                caption=score_in_words(comparison, "none", name),
            ),
        ]  # fmt: skip
        fields: list[View | None] = [None, None]
        for method in methods:
            one = case.found.get(method)
            if one is None:
                images.append(None)
                fields.append(None)
                continue
            words = score_in_words(comparison, method, name)
            images.append(View(plane, one.image, other, case.truth, one.labels, caption=words))
            fields.append(View(plane, one.image, other, displacement_mm=one.displacement_mm))
        rows.append((f"{what}: {name} (numbers: {comparison.leading[0].title})", images))
        rows.append(("grid of the moving image, as it comes to lie", fields))
    heads = ("fixed", "moving", *methods)
    return draw_sheet(
        "Registrations", heads, rows, names, found_called="moving", mesh_called="grid of the moving image"
    )
