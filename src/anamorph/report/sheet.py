"""Pictures side by side with outlines over them: cases by row, methods by column.

All places are in pixels of a drawing ``WIDTH`` wide; ``sheet.svg.j2`` draws it, in a page or as a file of its own. A
picture that several panels share is held once.
"""

from __future__ import annotations

import hashlib
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import to_hex

from anamorph.report.contours import grid_lines, grid_step, outline, svg_path
from anamorph.report.figures import FOREGROUND, LABEL_COLOURS, encode, to_grey, window_of
from anamorph.report.inputs import Volume
from anamorph.report.planes import Display, Plane, choose_planes
from anamorph.report.tables import format_value
from anamorph.types import Matrix

WIDTH = 980.0
MARGIN, GAP = 8.0, 8.0
KEY, HEAD, TITLE, CAPTION, BELOW = 30.0, 20.0, 22.0, 18.0, 8.0
BAR = 26.0
"""Height of a row's colour bars, and of the words below them."""
STOPS = 17
"""Colours of a bar that are told; those between them are interpolated."""
TALLEST = 1.25
"""Height of a panel over its width, at most."""
WIDEST = 240.0
LARGEST_PICTURE, QUALITY = 320, 30
LETTER, HEAD_LETTER = 6.7, 7.4
"""Mean width of a letter of the text, and of the heads."""
LINE = 15.0
"""From one line of a head to the next."""
FINE = 2
"""Steps of an outline's points to a pixel of the drawing."""


@dataclass(frozen=True, eq=False)
class View:
    """One panel: an image in a plane, and labels over it.

    Args:
        plane: of the image's grid.
        image: I J (K).
        window: grey values of black and white.
        truth, found: labelmaps whose outlines are drawn; None where there is none.
        displacement_mm: d I J (K), RAS mm, of which a deformed grid is drawn.
        caption: below it.
        colours: of matplotlib, from the window's lower end to its upper one, of which a bar is drawn; grey if empty.
    """

    plane: Plane
    image: Volume
    window: tuple[float, float]
    truth: Volume | None = None
    found: Volume | None = None
    displacement_mm: Volume | None = None
    caption: str = ""
    colours: str = ""


@dataclass(frozen=True)
class Outline:
    """A path, by its identifier, and how it is drawn."""

    path: str
    style: str
    colour: str = ""
    title: str = ""


@dataclass(frozen=True)
class Panel:
    """One picture in the drawing: its place, which picture, the lines over it, and the words below."""

    x: float
    y: float
    width: float
    height: float
    picture: str
    lines: tuple[Outline, ...]
    caption: str


@dataclass(frozen=True)
class Bar:
    """A bar of colours: its place, which ones, and what the first and the last stand for."""

    x: float
    y: float
    width: float
    colours: str
    ends: tuple[str, str]


@dataclass(frozen=True)
class Sheet:
    """A drawing.

    Args:
        title: for those who cannot see it.
        height: of the drawing; it is ``WIDTH`` wide.
        pictures: data URIs by identifier.
        paths: SVG paths by identifier, ``fine`` units to a pixel.
        panels: of it.
        heads: (x, lines of text) above the columns, in the middle, the last line at ``heads_y``.
        rows: (y, text) above each row.
        key: (x, style, colour, text).
        bars: below the first panel of a row that has their colours and window.
        gradients: stops of the bars' colours, from the left.
    """

    title: str
    height: float
    pictures: Mapping[str, str]
    paths: Mapping[str, str]
    panels: tuple[Panel, ...]
    heads: tuple[tuple[float, str], ...]
    rows: tuple[tuple[float, str], ...]
    key: tuple[tuple[float, str, str, str], ...]
    bars: tuple[Bar, ...]
    gradients: Mapping[str, tuple[str, ...]]
    width: float = WIDTH
    fine: int = FINE
    heads_y: float = KEY + 13
    line: float = LINE


class _Store:
    """What a drawing holds once, however often it is shown, by identifiers that the content decides."""

    def __init__(self) -> None:
        self.pictures: dict[str, str] = {}
        self.paths: dict[str, str] = {}

    def picture(self, uri: str) -> str:
        return self._kept(self.pictures, "i", uri)

    def path(self, d: str) -> str:
        """Empty where there is nothing to draw."""
        return self._kept(self.paths, "p", d) if d else ""

    def _kept(self, where: dict[str, str], letter: str, content: str) -> str:
        name = letter + hashlib.sha256(content.encode()).hexdigest()[:10]
        where[name] = content
        return name


def telling_plane(
    shape: Sequence[int], affine: Matrix, image: Volume, labels: Sequence[Volume], name: str | None = None
) -> Plane:
    """The one slice that shows most: of the axial, coronal and sagittal one, where the labels' area is largest.

    Args:
        shape: voxels of the grid.
        affine: voxel -> RAS mm.
        image: I J (K); what is dark at its border is cut off.
        labels: labelmaps that are to be seen.
        name: of the plane to take in any case, as "Axial".
    """
    display = Display(tuple(shape), affine).cropped_to([to_grey(image, window_of((image,), None)) > FOREGROUND])
    planes = choose_planes(display, labels, image)

    def area(plane: Plane) -> float:
        across, down = plane.pixel_mm
        return max((float((plane.cut(one) != 0).sum()) for one in labels), default=0.0) * across * down

    return max((plane for plane in planes if name in (None, plane.name)), key=area)


def changing_planes(
    shape: Sequence[int], affine: Matrix, image: Volume, before: Volume, after: Volume
) -> tuple[Plane, ...]:
    """Axial, coronal and sagittal slices in which two labelmaps differ much and the second one shows much.

    Args:
        shape, affine, image: as for ``telling_plane``.
        before, after: the labelmaps.
    """
    display = Display(tuple(shape), affine).cropped_to([to_grey(image, window_of((image,), None)) > FOREGROUND])
    masks = [mask.astype(np.uint8) for mask in (before != after, after != 0)]
    seen = [mask for mask in masks if display.turn(mask).any()]
    return choose_planes(display, seen or [before], image)


def draw_sheet(
    title: str,
    heads: Sequence[str],
    rows: Sequence[tuple[str, Sequence[View | None]]],
    names: Mapping[int, str],
    *,
    found_called: str = "found",
    mesh_called: str = "grid of the atlas",
) -> Sheet:
    """Rows of panels.

    Args:
        title: for those who cannot see it.
        heads: of the columns, as many as the longest row has panels, or none.
        rows: words above a row, and its panels; None leaves a place empty.
        names: label -> name; one label alone is green where it is true and red where it is found, several have
            colours of their own, and their truth is white.
        found_called: what the key calls the labels found.
        mesh_called: what it calls a deformed grid.
    """
    across = max(len(views) for _, views in rows)
    width = min(WIDEST, (WIDTH - 2 * MARGIN + GAP) / across - GAP)
    store = _Store()
    panels, titles, bars = [], [], list[Bar]()
    wrapped = [textwrap.fill(text, max(1, int((width + GAP) / HEAD_LETTER))) for text in heads]
    further = LINE * max((text.count("\n") for text in wrapped), default=0)
    y = KEY + further + (HEAD if heads else 0.0)
    for words, views in rows:
        if words:
            titles.append((y + 15, words))
            y += TITLE
        tallest = 0.0
        for place, view in enumerate(views):
            if view is None:
                continue
            panel = _panel(view, MARGIN + place * (width + GAP), y, width, names, store)
            panels.append(panel)
            tallest = max(tallest, panel.height)
        y += tallest + (CAPTION if any(view is not None and view.caption for view in views) else 0.0)
        below = [*_bars(views, width, y)]
        bars += below
        y += BELOW + (BAR if below else 0.0)
    heads_at = tuple((MARGIN + place * (width + GAP) + width / 2, text) for place, text in enumerate(wrapped))
    key = _key(rows, names, found_called, mesh_called)
    gradients = {name: _gradient(name) for name in dict.fromkeys(bar.colours for bar in bars)}
    drawn = tuple(panels), heads_at, tuple(titles), key, tuple(bars), gradients
    return Sheet(title, round(y + 2, 1), store.pictures, store.paths, *drawn, heads_y=KEY + 13 + further)


def _panel(view: View, x: float, y: float, width: float, names: Mapping[int, str], store: _Store) -> Panel:
    plane = view.plane
    wide_mm, high_mm = plane.size_mm
    scale = min(width / wide_mm, TALLEST * width / high_mm)
    size = wide_mm * scale, high_mm * scale
    pixel = plane.pixel_mm[0] * scale * FINE, plane.pixel_mm[1] * scale * FINE
    grey = to_grey(plane.cut(view.image), view.window)
    pixels = colormaps[view.colours](grey)[..., :3] if view.colours else np.repeat(grey[..., None], 3, axis=2)
    uri = encode(pixels, LARGEST_PICTURE, QUALITY)
    lines = []
    if view.displacement_mm is not None:
        mesh = svg_path(grid_lines(view.displacement_mm, plane, grid_step(plane.display)), pixel)
        lines.append(Outline(store.path(mesh), "mesh"))
    for labels, true in ((view.found, False), (view.truth, True)):
        if labels is not None:
            lines += _outlines(plane.cut(labels), pixel, names, true, store)
    left = round(x + (width - size[0]) / 2, 1)
    return Panel(
        left, round(y, 1), round(size[0], 1), round(size[1], 1), store.picture(uri), tuple(lines), view.caption
    )


def _bars(views: Sequence[View | None], width: float, y: float) -> Iterator[Bar]:
    """Of a row, whose panels end at ``y``: one for all that share colours and window."""
    told = set[tuple[str, tuple[float, float]]]()
    for place, view in enumerate(views):
        if view is None or not view.colours or (view.colours, view.window) in told:
            continue
        told.add((view.colours, view.window))
        low, high = view.window
        x = round(MARGIN + place * (width + GAP), 1)
        yield Bar(x, round(y + 4, 1), round(width, 1), view.colours, (format_value(low), format_value(high)))


def _gradient(colours: str) -> tuple[str, ...]:
    return tuple(to_hex(colour) for colour in colormaps[colours](np.linspace(0, 1, STOPS)))


def _outlines(
    labels: np.ndarray, pixel: tuple[float, float], names: Mapping[int, str], true: bool, store: _Store
) -> Iterator[Outline]:
    for place, (label, name) in enumerate(names.items()):
        path = store.path(svg_path(outline(labels == label), pixel)) if (labels == label).any() else ""
        if path and len(names) == 1:
            yield Outline(path, "truth" if true else "found", title=name)
        elif path:
            yield Outline(path, "thin", title=f"{name}, true") if true else Outline(path, "", _colour(place), name)


def _colour(place: int) -> str:
    return LABEL_COLOURS[place % len(LABEL_COLOURS)]


def _key(
    rows: Sequence[tuple[str, Sequence[View | None]]], names: Mapping[int, str], found_called: str, mesh_called: str
) -> tuple[tuple[float, str, str, str], ...]:
    views = [view for _, row in rows for view in row if view is not None]
    entries: list[tuple[str, str, str]] = []
    if any(view.found is not None for view in views):
        alone = len(names) == 1
        entries += (
            [("found", "", found_called)]
            if alone
            else [("", _colour(place), name) for place, name in enumerate(names.values())]
        )
    if any(view.truth is not None for view in views):
        entries.append(("truth" if len(names) == 1 else "thin", "", "true"))
    if any(view.displacement_mm is not None for view in views):
        entries.append(("mesh", "", mesh_called))
    x, placed = MARGIN, []
    for style, colour, text in entries:
        if x + 36 + LETTER * len(text) > WIDTH:  # many labels: the outlines have their names as well
            break
        placed.append((round(x, 1), style, colour, text))
        x += 48 + LETTER * len(text)
    return tuple(placed)
