"""How an atlas came to fit an image: what the network says, the atlas after one pass, and after its refinement."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from anamorph.evaluation.overlap import dice
from anamorph.report.curves import Curve, curve
from anamorph.report.figures import window_of
from anamorph.report.inputs import ReportInputs, Volume
from anamorph.report.sheet import Sheet, View, changing_planes, draw_sheet
from anamorph.report.tables import format_value


def draw_refinement(inputs: ReportInputs) -> Sheet | None:
    """A row a plane, where the last step changed much; a column a step, and the grid of the atlas.

    Args:
        inputs: of a segmentation; None is drawn where nothing came before its answer.
    """
    if not inputs.earlier_labels or inputs.found_labels is None or inputs.fixed is None or inputs.affine is None:
        return None
    steps = {**inputs.earlier_labels, "atlas, refined" if inputs.loss_by_stage else "atlas": inputs.found_labels}
    last = list(inputs.earlier_labels.values())[-1]
    planes = changing_planes(inputs.shape, inputs.affine, inputs.fixed, last, inputs.found_labels)
    window = window_of((inputs.fixed,), inputs.fixed_modality)
    captions = {name: _mean_dice(inputs, labels) for name, labels in steps.items()}
    rows = []
    for plane in planes:
        views = [
            View(plane, inputs.fixed, window, inputs.fixed_labels, labels, caption=captions[name])
            for name, labels in steps.items()
        ]
        if inputs.atlas_displacement_mm is not None:
            views.append(View(plane, inputs.fixed, window, displacement_mm=inputs.atlas_displacement_mm))
        captions = dict.fromkeys(steps, "")  # said once
        rows.append((f"{plane.name}, {plane.caption}" if plane.caption else "", views))
    heads = [*steps, *(["deformation"] if inputs.atlas_displacement_mm is not None else [])]
    names = {label: inputs.label_name(label) for label in inputs.labels}
    return draw_sheet("How the atlas came to fit the image", heads, rows, names)


def objective(inputs: ReportInputs) -> Curve | None:
    """What the refinement made smaller, by step, with the step that is kept; None where there was none."""
    losses = [loss for losses in inputs.loss_by_stage.values() for loss in losses]
    if not inputs.earlier_labels or len(losses) < 2:
        return None
    kept = min(range(len(losses)), key=losses.__getitem__)
    chart = curve("objective", dict(enumerate(losses)), range(len(losses)), kept)
    return replace(chart, lines=(replace(chart.lines[0], last=format_value(losses[kept])),))


def _mean_dice(inputs: ReportInputs, labels: Volume) -> str:
    """Mean Dice over the labels that are in either; empty without a truth."""
    truth = inputs.fixed_labels
    if truth is None:
        return ""
    values = [dice(truth == label, labels == label) for label in inputs.labels]
    values = [value for value in values if not math.isnan(value)]
    return f"Dice {format_value(float(np.mean(values)))}" if values else ""
