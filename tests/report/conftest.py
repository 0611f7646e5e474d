"""A small made-up registration to report on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from anamorph.report.inputs import ReportInputs

SHAPE = (20, 24, 16)
SPACING = (2.0, 1.5, 3.0)


@pytest.fixture
def made_up() -> Callable[..., ReportInputs]:
    """``made_up(**changes)``: a ball in a body, warped by a known shift, with labels, scores, warnings and facts."""

    def make(**changes: Any) -> ReportInputs:
        i, j, k = np.meshgrid(*(np.linspace(-1, 1, n) for n in SHAPE), indexing="ij")
        body = (i / 0.8) ** 2 + (j / 0.8) ** 2 + k**2 < 1
        ball = (i - 0.2) ** 2 + (j + 0.1) ** 2 + k**2 < 0.15
        fixed = (body * 60.0 + ball * 80.0 + 5 * i).astype(np.float32)
        labels = (body.astype(np.int32) * 3) + ball * 4
        displacement = np.zeros((3, *SHAPE), np.float32)
        displacement[0] = 2 * np.sin(3 * j)
        everything: dict[str, Any] = {
            "title": "mr.nii.gz onto ct.nii.gz",
            "affine": np.diag([*SPACING, 1.0]),
            "fixed": fixed,
            "before": np.roll(200 - fixed, 3, axis=0),
            "warped": 200 - fixed,
            "displacement_mm": displacement,
            "jacobian": (1 + 0.2 * np.cos(3 * j)).astype(np.float32),
            "fixed_labels": labels,
            "warped_labels": np.roll(labels, 1, axis=1),
            "label_names": {3: "Body", 7: "Ball"},
            "scores": [
                {"metric": "folded_fraction", "label": "", "unit": "", "value": 0.0, "reason": ""},
                {"metric": "dice_mean", "label": "", "unit": "", "value": 0.5, "reason": "", "stage": "before"},
                {"metric": "dice_mean", "label": "", "unit": "", "value": 0.9, "reason": "", "stage": "after"},
                {"metric": "dice", "label": "Body", "unit": "", "value": 0.5, "reason": "", "stage": "before"},
                {"metric": "dice", "label": "Body", "unit": "", "value": 0.9, "reason": "", "stage": "after"},
                {"metric": "hd95_mm", "label": "Body", "unit": "mm", "value": None, "reason": "no voxel has the label"},
                {"metric": "tre_mm", "label": "hilum", "unit": "mm", "value": 1.5, "reason": ""},
            ],
            "warnings": ["W-NII-004: mr.nii.gz: read as plain NIfTI"],
            "settings": {"seed": 0, "affine": {"levels": [2, 1], "use_moments": True}},
            "facts": {"Anamorph": "0.1.0", "Fixed image": {"File": "ct.nii.gz", "Shape": "20 x 24 x 16"}},
            "seconds_by_stage": {"read": 0.5, "affine": 2.0},
            "loss_by_stage": {"affine": [3.0, 2.0, 1.5]},
        }
        return ReportInputs(**(everything | changes))

    return make


@pytest.fixture
def made_up_2d(made_up: Callable[..., ReportInputs]) -> ReportInputs:
    """The middle slice of the same."""
    volume = made_up()
    names = ("fixed", "before", "warped", "jacobian", "fixed_labels", "warped_labels")
    slices = {name: getattr(volume, name)[:, :, 8] for name in names}
    assert volume.displacement_mm is not None
    return made_up(affine=np.diag([2.0, 1.5, 1.0]), displacement_mm=volume.displacement_mm[:2, :, :, 8], **slices)
