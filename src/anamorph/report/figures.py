"""The pictures of a report: small raster images, and lines as SVG paths that lie over them.

A picture and its lines share one coordinate system, ``UNITS`` wide over the frame, so that a page can stack, clip and
toggle them. Grey values are 8-bit windows of the slice; the Jacobian's colours are laid over grey where it is not 1.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import to_hex
from PIL import Image

from anamorph.report.contours import edges, grid_lines, grid_step, outline, svg_path
from anamorph.report.inputs import ReportInputs
from anamorph.report.planes import Display, Plane, choose_planes

UNITS = 1000
LARGEST_PICTURE = 640
TALLEST_FRAME = 1.2
FOREGROUND = 0.12
CT_WINDOW = (-160.0, 240.0)
BONE, BRIGHT = 600.0, 90.0
"""HU of dense bone, and the percentile of what is between air and that which the window of a CT reaches: spongy bone is
less than the rest above it, chambers with contrast agent are more."""
NEARLY_CONSTANT = 0.6
"""Least length of a displacement over its largest from which colours begin at the least, not at 0."""
WARM, COOL, FOLDED = (1.0, 0.36, 0.2), (0.2, 0.6, 1.0), (1.0, 0.0, 1.0)
LABEL_COLOURS = (
    *("#56b4e9", "#e69f00", "#2fc59a", "#f0e442", "#cc79a7", "#ff7f50"),
    *("#9b8cff", "#a6d854", "#f781bf", "#66d9e8", "#d9a066", "#c0c0c0"),
)


@dataclass(frozen=True)
class LabelLines:
    """One label's outline in a slice, in each of the labelmaps; empty where it is not."""

    name: str
    colour: str
    fixed: str
    warped: str
    found: str


@dataclass(frozen=True)
class Figure:
    """What a page draws of one slice.

    Args:
        key: unique, fit for an identifier.
        name: of the plane.
        caption: where it lies.
        letters: of the four sides: left, right, top, bottom.
        frame: width and height of the drawing.
        box: x, y, width and height of the pictures inside the frame.
        pictures: data URIs by name.
        lines: SVG paths by name.
        labels: outlines of the labels that meet the slice.
    """

    key: str
    name: str
    caption: str
    letters: tuple[str, str, str, str] | None
    frame: tuple[float, float]
    box: tuple[float, float, float, float]
    pictures: Mapping[str, str]
    lines: Mapping[str, str]
    labels: tuple[LabelLines, ...]


@dataclass(frozen=True)
class Legend:
    """A colour bar: ``stops`` are (position in [0, 1], colour), ``ticks`` are (position, text)."""

    title: str
    stops: tuple[tuple[float, str], ...]
    ticks: tuple[tuple[float, str], ...]


@dataclass(frozen=True)
class Figures:
    """All slices and what holds for every one of them; the planes of a 3-D grid meet at ``crossing_mm``, RAS."""

    planes: tuple[Figure, ...] = ()
    legends: Mapping[str, Legend] = field(default_factory=dict)
    grid_step_mm: float = 0.0
    crossing_mm: tuple[float, ...] = ()

    @property
    def has(self) -> Mapping[str, bool]:
        """Which pictures, lines and outlines there are in any plane."""
        there = {name for plane in self.planes for name in (*plane.pictures, *plane.lines)}
        names = ("fixed", "before", "warped", "grid", "displacement", "jacobian")
        return {name: name in there for name in names} | {"labels": any(plane.labels for plane in self.planes)}


def window_of(
    images: Iterable[np.ndarray | None],
    modality: str | None,
    windows: Mapping[str, tuple[float, float]] | None = None,
) -> tuple[float, float]:
    """The grey window for images that are to be compared: black and white level.

    A modality of ``windows`` gets its own. CT in Hounsfield units gets [-160, 240], and more where contrast agent takes
    a large share; all else the 1st percentile, and the 99.5th of what lies above it.

    Args:
        images: of one scale; None and non-finite voxels are left out.
        modality: of the images.
        windows: by modality.
    """
    if modality is not None and windows and modality in windows:
        return windows[modality]
    samples = [image.ravel()[:: max(1, image.size // 200_000)] for image in images if image is not None]
    values = np.concatenate(samples).astype(np.float64) if samples else np.zeros(1)
    values = values[np.isfinite(values)]
    if not values.size:
        return 0.0, 1.0
    if (modality or "").upper() == "CT" and np.ptp(values) > CT_WINDOW[1] - CT_WINDOW[0]:
        low, high = CT_WINDOW
        tissue = values[(values > low) & (values < BONE)]
        return low, max(high, float(np.percentile(tissue, BRIGHT))) if tissue.size else high
    low = float(np.percentile(values, 1))
    above = values[values > low]
    high = float(np.percentile(above, 99.5)) if above.size else low
    return low, max(high, low + 1e-6 * max(1.0, abs(low)))


def to_grey(image: np.ndarray, window: tuple[float, float]) -> np.ndarray:
    """Values in [0, 1], float32; NaN is black."""
    low, high = window
    grey = np.subtract(image, low, dtype=np.float32)
    grey /= high - low
    np.fmax(grey, 0, out=grey)  # fmax and fmin prefer a number to NaN
    return np.fmin(grey, 1, out=grey)


def draw(inputs: ReportInputs) -> Figures:
    """Every picture and line of a report."""
    if not inputs.shape or inputs.affine is None:
        return Figures()
    moving_window = window_of((inputs.before, inputs.warped), inputs.moving_modality)
    windows = {
        "fixed": window_of((inputs.fixed,), inputs.fixed_modality),
        "before": moving_window,
        "warped": moving_window,
    }
    images = [(inputs.fixed, windows["fixed"]), (inputs.warped, moving_window), (inputs.before, moving_window)]
    masks = [to_grey(image, window) > FOREGROUND for image, window in images if image is not None]
    display = Display(inputs.shape, inputs.affine).cropped_to(masks[:2])
    shown = next((image for image, _ in images if image is not None), None)
    planes = choose_planes(display, [labelmap for _, labelmap in inputs.labelmaps], shown)
    step = grid_step(display)
    limits = _colour_limits(inputs)
    frame_mm = _frame_mm(planes)
    figures = tuple(_figure(inputs, plane, windows, limits, step, frame_mm) for plane in planes)
    return Figures(figures, _legends(limits), step, _crossing_mm(planes))


def _crossing_mm(planes: tuple[Plane, ...]) -> tuple[float, ...]:
    voxel = np.ones(4)
    for plane in planes:
        voxel[plane.axis] = plane.index
    return tuple((planes[0].display.turned_affine @ voxel)[:3].tolist()) if len(planes) == 3 else ()


def _frame_mm(planes: tuple[Plane, ...]) -> tuple[float, float]:
    """One frame for all planes, so that a centimetre is as long in each."""
    widest = max(plane.size_mm[0] for plane in planes)
    tallest = max(plane.size_mm[1] for plane in planes)
    return max(widest, tallest / TALLEST_FRAME), tallest


def _figure(
    inputs: ReportInputs,
    plane: Plane,
    windows: Mapping[str, tuple[float, float]],
    limits: Mapping[str, tuple[float, float]],
    step: float,
    frame_mm: tuple[float, float],
) -> Figure:
    scale = UNITS / frame_mm[0]
    width, height = (side * scale for side in plane.size_mm)
    frame = (float(UNITS), round(frame_mm[1] * scale, 1))
    box = (round((frame[0] - width) / 2, 1), round((frame[1] - height) / 2, 1), round(width, 1), round(height, 1))
    pixel = (plane.pixel_mm[0] * scale, plane.pixel_mm[1] * scale)

    images = {"fixed": inputs.fixed, "before": inputs.before, "warped": inputs.warped}
    grey = {name: to_grey(plane.cut(image), windows[name]) for name, image in images.items() if image is not None}
    pictures = {name: encode(np.repeat(slice_[..., None], 3, axis=2)) for name, slice_ in grey.items()}
    lines = {f"{name}-edges": svg_path(edges(slice_, plane.pixel_mm), pixel) for name, slice_ in grey.items()}

    if inputs.displacement_mm is not None:
        lines["grid"] = svg_path(grid_lines(inputs.displacement_mm, plane, step), pixel)
        length = np.linalg.norm([plane.cut(component) for component in inputs.displacement_mm], axis=0)
        share = to_grey(length, limits["displacement"])
        pictures["displacement"] = encode(colormaps["inferno"](share)[..., :3])
    if inputs.jacobian is not None:
        determinant = plane.cut(inputs.jacobian)
        lines["folds"] = svg_path(outline(determinant <= 0), pixel)
        under = grey.get("fixed", np.full(determinant.shape, 0.5, np.float32))
        pictures["jacobian"] = encode(_jacobian_colours(determinant, under, limits["jacobian"][1]))
    return Figure(
        plane.name.lower(), plane.name, plane.caption, plane.letters, frame, box, pictures, lines,
        tuple(_label_lines(inputs, plane, pixel)),
    )  # fmt: skip


def encode(rgb: np.ndarray, largest: int = LARGEST_PICTURE, quality: int = 94) -> str:
    """Rows x columns x 3 in [0, 1] as a WebP data URI, its longer side ``largest`` pixels at most."""
    image = Image.fromarray(np.rint(rgb * 255).astype(np.uint8))
    if max(image.size) > largest:
        image.thumbnail((largest, largest))
    file = io.BytesIO()
    image.save(file, "WEBP", quality=quality, method=4)
    return "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode()


def label_colour(inputs: ReportInputs, label: int) -> str:
    """Hexadecimal colour of a label, the same in every slice and in the viewer."""
    return LABEL_COLOURS[inputs.labels.index(label) % len(LABEL_COLOURS)]


def _label_lines(inputs: ReportInputs, plane: Plane, pixel: tuple[float, float]) -> Iterator[LabelLines]:
    slices = {name: plane.cut(labelmap) for name, labelmap in inputs.labelmaps}
    present = {label for slice_ in slices.values() for label in np.unique(slice_).tolist()}
    for label in sorted(present - {0}):
        paths = {name: svg_path(outline(slice_ == label), pixel) for name, slice_ in slices.items()}
        lines = (paths.get(name, "") for name in ("fixed", "warped", "found"))
        yield LabelLines(inputs.label_name(label), label_colour(inputs, label), *lines)


def _colour_limits(inputs: ReportInputs) -> dict[str, tuple[float, float]]:
    """What colours tell apart: lengths of the displacement in mm, and log2 of the determinant."""
    limits = {}
    if inputs.displacement_mm is not None:
        length = np.linalg.norm(inputs.displacement_mm.reshape(len(inputs.displacement_mm), -1)[:, ::7], axis=0)
        low, high = np.nanpercentile(length, [0.5, 99.5])
        low = low if low > NEARLY_CONSTANT * high else 0.0
        first = float(np.floor(low * 10) / 10)
        limits["displacement"] = (first, max(float(np.ceil(high * 10) / 10), first + 0.1))
    if inputs.jacobian is not None:
        positive = inputs.jacobian[inputs.jacobian > 0]
        spread = np.percentile(np.abs(np.log2(positive)), 99.5) if positive.size else 1.0
        limit = float(np.clip(np.ceil(spread * 4) / 4, 0.25, 3))
        limits["jacobian"] = (-limit, limit)
    return limits


def _jacobian_colours(determinant: np.ndarray, under: np.ndarray, limit: float) -> np.ndarray:
    """Warm above 1, cool below, on a log scale over the dimmed grey picture; what is not positive is magenta."""
    positive = determinant > 0
    position = np.log2(np.where(positive, determinant, 1.0))[..., None] / limit
    alpha = np.clip(np.abs(position), 0, 1) * 0.9
    blended = np.where(position > 0, WARM, COOL) * alpha + under[..., None] * 0.65 * (1 - alpha)
    return np.where(positive[..., None], blended, FOLDED).astype(np.float32)


def _legends(limits: Mapping[str, tuple[float, float]]) -> dict[str, Legend]:
    legends = {}
    positions = np.linspace(0, 1, 17)
    if "displacement" in limits:
        low, high = limits["displacement"]
        stops = tuple((float(p), to_hex(colormaps["inferno"](p)[:3])) for p in positions)
        ticks = ((0.0, f"{low:.3g}"), (0.5, f"{(low + high) / 2:.3g}"), (1.0, f"{high:.3g} mm"))
        legends["displacement"] = Legend("Length of the displacement", stops, ticks)
    if "jacobian" in limits:
        limit = limits["jacobian"][1]
        determinant = 2 ** ((positions * 2 - 1) * limit)
        colours = _jacobian_colours(determinant[None], np.full((1, len(positions)), 0.45, np.float32), limit)[0]
        stops = tuple((float(p), to_hex(c)) for p, c in zip(positions, colours, strict=True))
        ticks = ((0.0, f"{2**-limit:.2g}"), (0.5, "1"), (1.0, f"{2**limit:.2g}"))
        legends["jacobian"] = Legend("Jacobian determinant, log scale", stops, ticks)
    return legends
