"""A picture of one item as a training goes on: what is learnt from, and what the method makes of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from anamorph.data.files import atomic_write

SIDE = 200
"""Pixels of the longest edge of a panel."""
GAP, TITLE = 6, 18
LINES = 12
"""Lines of the deformed grid along the longest axis."""
COLOURS = ((230, 85, 60), (60, 150, 230), (90, 190, 90), (240, 190, 50), (170, 100, 210), (70, 200, 200))
"""Of the outlines of classes, again from the start where there are more."""

TITLES = {
    "fixed": "{fixed}, fixed",
    "moving": "{moving}, moving",
    "warped": "{moving}, warped",
    "moving_translated": "{moving} as {fixed}",
    "fixed_translated": "{fixed} as {moving}",
}
"""Of the images of a pair of two modalities."""

Plane = Float[np.ndarray, "rows columns"]
Classes = Int[np.ndarray, "rows columns"]


def draw_sample(sample: Mapping[str, Any], path: Path) -> None:
    """Write a row of panels for the middle slice along each axis, as PNG; labels are outlines over their image.

    Args:
        sample: arrays of one item: ``fixed moving warped displacement``, ``*_labels`` and ``*_translated`` of a pair,
            ``image labels`` of a case, ``prediction``; or of an atlas: ``template template_labels foreground``; with
            ``name``, ``epoch`` and ``spacing`` in mm, and ``modalities`` of a pair, the fixed one first.
        path: of the file.
    """
    shape = next(sample[name].shape[1:] for name in ("fixed", "image", "template") if name in sample)
    spacing = np.asarray(sample["spacing"], float)
    scale = SIDE / float(np.max(spacing * shape))
    planes = [(0, 1)] if len(shape) == 2 else [(0, 1), (0, 2), (1, 2)]
    rows = [_row(sample, plane, shape, spacing * scale) for plane in planes]
    widths = [max(panel.width for panel in column) for column in zip(*(row.values() for row in rows), strict=True)]
    heights = [max(panel.height for panel in row.values()) for row in rows]
    size = GAP + sum(width + GAP for width in widths), 2 * TITLE + GAP + sum(height + GAP for height in heights)
    canvas = Image.new("RGB", size, (16, 16, 16))
    writing, font = ImageDraw.Draw(canvas), ImageFont.load_default(12)
    writing.text((GAP, 3), f"{sample['name']}, epoch {sample['epoch']}", (200, 200, 200), font)
    top = 2 * TITLE
    for row, height in zip(rows, heights, strict=True):
        left = GAP
        for (title, panel), width in zip(row.items(), widths, strict=True):
            if top == 2 * TITLE:
                writing.text((left, TITLE + 2), title, (255, 255, 255), font)
            canvas.paste(panel, (left, top))
            left += width + GAP
        top += height + GAP
    with atomic_write(path) as part:
        canvas.save(part, "PNG")


def _row(
    sample: Mapping[str, Any], plane: tuple[int, int], shape: Sequence[int], pixels: np.ndarray
) -> dict[str, Image.Image]:
    """Title -> panel of one plane."""

    def cut(name: str) -> np.ndarray | None:
        """The middle slice, with the plane's second axis pointing up; without channels but the first."""
        values = sample.get(name)
        if values is None:
            return None
        values = values if values.ndim == len(shape) else values[0]
        return _shown(values[tuple(slice(None) if axis in plane else n // 2 for axis, n in enumerate(shape))])

    def panel(image: str, classes: str = "", like: str = "") -> Image.Image:
        """In grey values of its own, or of another image, which a translation is to look like."""
        values = cut(image)
        assert values is not None
        limits = np.percentile(sample[like or image][0], (0.5, 99.5))
        return _panel(values, limits, cut(classes), size)

    size = tuple(max(1, round(shape[axis] * pixels[axis])) for axis in plane)
    if "template" in sample:
        panels = {
            "mean image": panel("template"),
            "largest share": panel("template", "template_labels"),
            "foreground": panel("foreground"),
        }
    elif "image" in sample:
        panels = {"image": panel("image"), "truth": panel("image", "labels")}
    else:
        modalities = dict(zip(("fixed", "moving"), sample.get("modalities", ()), strict=False))
        two = len({*modalities.values()} - {""}) == 2

        def title(name: str) -> str:
            return TITLES[name].format(**modalities) if two else name.replace("_", " ")

        panels = {title(side): panel(side, f"{side}_labels") for side in ("fixed", "moving")}
        if "warped" in sample:
            panels[title("warped")] = panel("warped", "warped_labels")
            panels["deformation"] = _grid(sample["displacement"], plane, size)
        for side, other in (("moving", "fixed"), ("fixed", "moving")):
            if (name := f"{side}_translated") in sample:
                panels[title(name)] = panel(name, f"{side}_labels", other)
    if "prediction" in sample:
        panels["segmented"] = panel("image" if "image" in sample else "fixed", "prediction")
    return panels


def _panel(values: Plane, limits: np.ndarray, classes: Classes | None, size: tuple[int, ...]) -> Image.Image:
    low, high = (float(limit) for limit in limits)
    grey = np.clip((values - low) / max(high - low, 1e-12), 0, 1)
    width, height = size
    image = Image.fromarray((255 * grey).astype(np.uint8)).resize((width, height), Image.Resampling.BICUBIC)
    pixels = np.repeat(np.asarray(image)[:, :, None], 3, axis=2)
    for label in () if classes is None else np.unique(classes[classes > 0]).tolist():
        pixels[_outline(classes == label, (width, height))] = COLOURS[(label - 1) % len(COLOURS)]
    return Image.fromarray(pixels)


def _outline(mask: Bool[np.ndarray, "rows columns"], size: tuple[int, int]) -> Bool[np.ndarray, "height width"]:
    """The outermost pixels of a mask that is enlarged, its corners rounded; however small it is, some are left."""
    share = np.asarray(Image.fromarray(mask.astype(np.float32)).resize(size, Image.Resampling.BILINEAR))
    inside = share >= min(0.5, float(share.max()))
    return inside & np.logical_not(ndimage.binary_erosion(inside))


def _grid(
    displacement: Float[np.ndarray, "ndim *spatial"], plane: tuple[int, int], size: tuple[int, ...]
) -> Image.Image:
    """Lines of a regular grid in the moving image, pulled as the moving image is."""
    shape = displacement.shape[1:]
    middle = tuple(slice(None) if axis in plane else n // 2 for axis, n in enumerate(shape))
    between = max(shape) / LINES
    value = np.zeros(size)
    for place, axis in enumerate(plane):
        per_voxel = size[place] / shape[axis]
        here = (np.arange(size[place]) + 0.5) / per_voxel - 0.5
        moved = Image.fromarray(displacement[axis][middle].astype(np.float32))
        fine = np.asarray(moved.resize((size[1], size[0]), Image.Resampling.BILINEAR))
        lines = (here.reshape([-1, 1] if place == 0 else [1, -1]) + fine) / between
        off = np.abs(lines - np.round(lines)) * between * per_voxel
        value = np.maximum(value, np.clip(1.5 - off, 0, 1))
    return Image.fromarray((255 * _shown(value)).astype(np.uint8)).convert("RGB")


def _shown(values: np.ndarray) -> np.ndarray:
    """A plane of two axes of RAS as rows and columns: the patient's right is on the left, as in all other pages."""
    return values.T[::-1, ::-1]
