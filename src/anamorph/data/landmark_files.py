"""Landmarks in and out: CSV, 3D Slicer's .fcsv and .mrk.json. No file is read without a stated coordinate system.

A CSV has a header line with the columns x, y, z (or x, y) and, if wanted, name; a comment says what the numbers are::

    # space: RAS
    x,y,z,name
    12.5,-3.25,40,left eye

``RAS`` and ``LPS`` are mm, ``voxel`` counts from 0 along the axes of an image, whose grid must be given.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, get_args

import numpy as np

from anamorph.data.files import atomic_write
from anamorph.data.guard import check_readable
from anamorph.data.image import Landmarks
from anamorph.data.itk import flip_lps
from anamorph.data.landmark_formats import (
    StoredPoints,
    csv_text,
    fcsv_text,
    listed,
    markups_text,
    read_csv,
    read_fcsv,
    read_markups,
    refused,
)
from anamorph.errors import ConfigurationError, InputError, warn
from anamorph.spatial.grid import Grid
from anamorph.types import WorldPoints

Space = Literal["RAS", "LPS", "voxel"]
SLICER_SPACES = {"0": "RAS", "1": "LPS", "2": "voxel", "ijk": "voxel"}
WRITERS = {".csv": csv_text, ".fcsv": fcsv_text, ".json": markups_text}


def read_landmarks(path: str | Path, grid: Grid | None = None, space: Space | None = None) -> Landmarks:
    """Named points in RAS mm.

    Args:
        path: .fcsv, .json (markups), or any other name for CSV.
        grid: of the image that the points belong to: needed for voxel coordinates; points outside it give W-LMK-020.
        space: what the numbers are, where the file does not say it.

    Raises:
        InputError: E-LMK-018, with the line, for anything that is no list of points; E-LMK-019, an unknown, unstated
            or contradicting coordinate system.
    """
    path = Path(path)
    check_readable(path)
    try:
        content = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise refused(path, "no text in UTF-8", "landmarks") from error
    if path.suffix == ".json":
        lists = read_markups(content, path)
    else:
        lists = [read_fcsv(content, path) if path.suffix == ".fcsv" else read_csv(content, path)]
    points = np.concatenate([_to_ras(stored, space, grid, path) for stored in lists])
    landmarks = Landmarks(points, tuple(name for stored in lists for name in stored.names))
    if grid is not None:
        check_inside(landmarks, grid, path.name)
    return landmarks


def write_landmarks(landmarks: Landmarks, path: str | Path) -> None:
    """Write points so that they come back exactly: .csv in RAS, .fcsv and .mrk.json in LPS.

    Raises:
        ConfigurationError: E-OUT-002, a name of no written format; 2-D points are written as .csv alone.
        ResourceError: the disk is full or refuses; a file that was there is untouched.
    """
    path = Path(path)
    ndim = landmarks.points.shape[1]
    if path.suffix not in WRITERS or (ndim == 2 and path.suffix != ".csv"):
        found = f"a name of no written format for {ndim}-D landmarks"
        expected = ".csv" if ndim == 2 else ".csv, .fcsv or .mrk.json"
        raise ConfigurationError("E-OUT-002", found, file=path, expected=expected)
    content = WRITERS[path.suffix](landmarks)
    with atomic_write(path) as part:
        part.write_text(content, encoding="utf-8", newline="")


def check_inside(landmarks: Landmarks, grid: Grid, name: str = "landmarks") -> None:
    """Warn (W-LMK-020) of the points outside a field of view, by name.

    Raises:
        InputError: E-LMK-019, 3-D points and a 2-D image, or the other way round.
    """
    if landmarks.points.shape[1] != grid.ndim:
        found = f"{name}: {landmarks.points.shape[1]}-D points for a {grid.ndim}-D image"
        raise InputError("E-LMK-019", found, expected="one dimension")
    rows = np.flatnonzero(~grid.contains(landmarks.points))
    if len(rows):
        outside = listed([landmarks.names[row] for row in rows])
        warn("W-LMK-020", f"{name}: {len(rows)} of {len(landmarks)} lie outside the image: {outside}")


def paired(fixed: Landmarks, moving: Landmarks) -> tuple[Landmarks, Landmarks]:
    """Landmarks in corresponding order: by name where both have the same names, else as they stand.

    Raises:
        InputError: E-LMK-020, counts differ, or only some of the names agree.
    """
    if len(fixed) != len(moving):
        found = f"{len(fixed)} fixed and {len(moving)} moving landmarks"
        raise InputError("E-LMK-020", found, expected="as many of each", do="remove those without a counterpart")
    if fixed.names == moving.names or not set(fixed.names) & set(moving.names):
        return fixed, moving
    where = {name: row for row, name in enumerate(moving.names)}
    alone = sorted(set(fixed.names) ^ set(where))
    if alone or len(where) < len(moving):
        found = f"only one side has {listed(alone)}" if alone else "names that occur twice, in another order"
        raise InputError("E-LMK-020", found, expected="the same names on both sides", do="correct the names")
    return fixed, Landmarks(moving.points[[where[name] for name in fixed.names]], fixed.names)


def _to_ras(stored: StoredPoints, given: Space | None, grid: Grid | None, path: Path) -> WorldPoints:
    space = _space(stored.space, given, path)
    if space == "voxel":
        if grid is None or grid.ndim != stored.points.shape[1]:
            found = "voxel coordinates without" if grid is None else "coordinates of another dimension than"
            raise InputError("E-LMK-019", f"{found} an image", file=path, do="give the image they were set on")
        return grid.to_world(stored.points)
    return flip_lps(stored.points.T).T if space == "LPS" else stored.points


def _space(stated: str | None, given: Space | None, path: Path) -> Space:
    """The coordinate system that the file states, or the caller."""
    known: dict[str, Space] = {name.lower(): name for name in get_args(Space)}
    if stated is not None:
        word = SLICER_SPACES.get(stated.lower(), stated).lower()
        if word not in known:
            raise InputError("E-LMK-019", f"coordinate system {stated[:40]!r}", file=path, expected="RAS, LPS or voxel")
        if given is not None and given != known[word]:
            raise InputError("E-LMK-019", f"the file says {known[word]}, the caller {given}", file=path, expected="one")
        return known[word]
    if given is None:
        raise InputError(
            "E-LMK-019",
            "no coordinate system",
            file=path,
            expected="RAS, LPS or voxel",
            do='say it with --space (space=), or in a first line "# space: RAS"',
        )
    return given
