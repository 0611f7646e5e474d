"""How atlases came to label an image: where they disagree, and what each of them did."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from anamorph.report.figures import FOREGROUND, to_grey, window_of
from anamorph.report.inputs import ReportInputs
from anamorph.report.planes import Display, choose_planes
from anamorph.report.sheet import Sheet, View, draw_sheet
from anamorph.report.tables import format_value

MOST_NAMED = 12
"""Labels whose outlines are drawn in colours of their own; of more, all that is labelled has one outline."""


def draw_uncertainty(inputs: ReportInputs) -> Sheet | None:
    """How much the atlases disagree, a column a plane, with the outlines of what was found.

    Args:
        inputs: of a segmentation; None is drawn where it was not made by atlases.
    """
    found = inputs.found_labels
    if inputs.uncertainty is None or found is None or inputs.fixed is None or inputs.affine is None:
        return None
    names = {label: inputs.label_name(label) for label in inputs.labels}
    if len(names) > MOST_NAMED:
        found, names = (found != 0).astype(np.uint8), {1: "any label"}
    window = window_of((inputs.fixed,), inputs.fixed_modality)
    display = Display(inputs.shape, inputs.affine).cropped_to([to_grey(inputs.fixed, window) > FOREGROUND])
    planes = choose_planes(display, [labels for _, labels in inputs.labelmaps], inputs.fixed)
    views = [View(plane, inputs.uncertainty, (0.0, 1.0), None, found, caption=plane.caption) for plane in planes]
    heads = [plane.name for plane in planes] if len(planes) > 1 else []
    return draw_sheet("Where the atlases disagree", heads, [("", views)], names)


def atlas_rows(inputs: ReportInputs) -> Iterator[dict[str, Any]]:
    """Rows of the table, as texts."""
    for atlas in inputs.atlases:
        yield {
            "name": atlas["name"],
            "rank": "" if atlas["rank"] is None else str(atlas["rank"]),
            "similarity": "" if atlas["similarity"] is None else f"{atlas['similarity']:.3f}",
            "agreement": "" if atlas["agreement"] is None else format_value(atlas["agreement"]),
            "seconds": f"{atlas['seconds']:.1f}",
            "note": _note(atlas),
            "failed": bool(atlas["failure"]),
        }


def _note(atlas: Mapping[str, Any]) -> str:
    """What there is to say of an atlas besides numbers."""
    if atlas["failure"]:
        return str(atlas["failure"])
    if not atlas["used"]:
        return "not chosen"
    words = ["taken from the cache"] if atlas["cached"] else []
    return "; ".join([*words, *atlas["warnings"]])
