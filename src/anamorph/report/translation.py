"""An image and what a translation made of it, slice by slice; with the true image, and how far it is from that."""

from __future__ import annotations

import numpy as np

from anamorph.report.figures import FOREGROUND, to_grey, window_of
from anamorph.report.inputs import ReportInputs
from anamorph.report.planes import Display, choose_planes
from anamorph.report.sheet import Sheet, View, draw_sheet
from anamorph.report.translation_sheets import ERRORS, largest_error

TRANSLATED, TRUE, ERROR = "Translation", "True image", "Error"
"""Of ``further_images``; the error is the translation less the true image."""


def window_of_target(inputs: ReportInputs) -> tuple[float, float]:
    """The one window of a translation and of the true image."""
    images = inputs.further_images
    return window_of((images.get(TRUE, images[TRANSLATED]),), inputs.moving_modality, inputs.windows)


def draw_translation(inputs: ReportInputs) -> Sheet | None:
    """A row a plane; the translation and the true image have one window.

    Args:
        inputs: of a translation; None is drawn of anything else, and where there is no image.
    """
    images, source = inputs.further_images, inputs.fixed
    if inputs.kind != "translation" or source is None or inputs.affine is None or TRANSLATED not in images:
        return None
    own = window_of((source,), inputs.fixed_modality, inputs.windows)
    made = window_of_target(inputs)
    shown = [("Image", source, own), (TRANSLATED, images[TRANSLATED], made)]
    if TRUE in images and ERROR in images:
        largest = largest_error([images[ERROR]])
        shown += [(TRUE, images[TRUE], made), (ERROR, np.abs(images[ERROR]), (0.0, largest))]
    display = Display(inputs.shape, inputs.affine).cropped_to([to_grey(source, own) > FOREGROUND])
    planes, rows = choose_planes(display, [], source), []
    for plane in planes:
        views = [View(plane, image, window, colours=ERRORS if name == ERROR else "") for name, image, window in shown]
        rows.append((f"{plane.name} {plane.caption}" if len(planes) > 1 else "", views))
    return draw_sheet("An image and its translation", [name for name, _, _ in shown], rows, {})
