"""Landmarks in and out: CSV, 3D Slicer's .fcsv and .mrk.json. No file is read without a stated coordinate system.

A CSV has a header line with the columns x, y, z (or x, y) and, if wanted, name; a comment says what the numbers are::

    # space: RAS
    x,y,z,name
    12.5,-3.25,40,left eye

``RAS`` and ``LPS`` are mm, ``voxel`` counts from 0 along the axes of an image, whose grid must be given.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from anamorph.data.files import atomic_write
from anamorph.data.guard import check_readable
from anamorph.data.image import Landmarks
from anamorph.data.itk import flip_lps
from anamorph.errors import ConfigurationError, InputError, warn
from anamorph.spatial.grid import Grid
from anamorph.types import WorldPoints

Space = Literal["RAS", "LPS", "voxel"]
SLICER_CODES = {"0": "RAS", "1": "LPS", "2": "voxel", "ijk": "voxel"}
SLICER_COLUMNS = "id,x,y,z,ow,ox,oy,oz,vis,sel,lock,label,desc,associatedNodeID"
SCHEMA = (
    "https://raw.githubusercontent.com/slicer/slicer/master/Modules/Loadable/Markups/Resources/Schema/"
    "markups-schema-v1.0.3.json#"
)
FORMULA = ("=", "+", "-", "@")
"""A spreadsheet computes a cell that begins so; a name is written with a quote before it, and read without."""
LISTED = 10
LARGEST_MM = 1e9


def read_landmarks(path: str | Path, grid: Grid | None = None, space: Space | None = None) -> Landmarks:
    """Named points in RAS mm.

    Args:
        path: .csv, .fcsv or .json.
        grid: of the image that the points belong to: needed for voxel coordinates; points outside it give W-LMK-020.
        space: what the numbers are, where the file does not say it.

    Raises:
        InputError: E-LMK-018, with the line, for anything that is no list of points; E-LMK-019, an unknown or
            contradicting coordinate system.
    """
    path = Path(path)
    check_readable(path)
    try:
        content = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise _refused(path, "no text in UTF-8", "landmarks") from error
    if path.suffix == ".json":
        landmarks = _read_json(content, path, space, grid)
    else:
        landmarks = _read_table(content, path, space, grid, slicer=path.suffix == ".fcsv")
    if grid is not None:
        check_inside(landmarks, grid, path.name)
    return landmarks


def write_landmarks(landmarks: Landmarks, path: str | Path) -> None:
    """Write points so that they come back exactly: .csv in RAS, .fcsv and .mrk.json in LPS.

    Raises:
        ConfigurationError: E-OUT-002, a name of no written format; E-OUT-005, 2-D points for 3D Slicer.
        ResourceError: the disk is full or refuses; a file that was there is untouched.
    """
    path = Path(path)
    writers = {".csv": _csv, ".fcsv": _fcsv, ".json": _json}
    if path.suffix not in writers:
        raise ConfigurationError("E-OUT-002", "a name of no written format", file=path, expected=", ".join(writers))
    if landmarks.points.shape[1] == 2 and path.suffix != ".csv":
        raise ConfigurationError("E-OUT-005", "2-D landmarks for 3D Slicer", file=path, expected="a .csv file")
    content = writers[path.suffix](landmarks)
    with atomic_write(path) as part:
        part.write_text(content, encoding="utf-8", newline="")


def check_inside(landmarks: Landmarks, grid: Grid, name: str = "landmarks") -> None:
    """Warn (W-LMK-020) of the points outside a field of view, by name."""
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


def listed(names: Sequence[str]) -> str:
    """The first ten names, each cut to 40 characters, for a message."""
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(name[:40] for name in names[:LISTED]) + more


def _refused(path: Path, found: str, expected: str = "", do: str = "") -> InputError:
    return InputError("E-LMK-018", found, file=path, expected=expected, do=do)


def _read_table(content: str, path: Path, space: Space | None, grid: Grid | None, *, slicer: bool) -> Landmarks:
    comments, numbers, lines = _split(content)
    if slicer:
        stated = _comment(comments, "CoordinateSystem", "=")
        header = (_comment(comments, "columns", "=") or SLICER_COLUMNS).split(",")
        delimiter = ","
    else:
        if not lines:
            raise _refused(path, "no header line", "the columns x,y,z")
        stated = _comment(comments, "space", ":")
        delimiter = max(",;\t", key=lines[0].count)
        header, numbers, lines = lines[0].split(delimiter), numbers[1:], lines[1:]
    header = [column.strip().strip('"').lower() for column in header]
    if not lines:
        raise _refused(path, "no landmarks", "at least one")
    axes = [header.index(axis) for axis in "xyz" if axis in header]
    if header.count("x") != 1 or header.count("y") != 1 or header.count("z") > 1:
        raise _refused(path, f"columns {listed(header)}", "x, y, z and, if wanted, name")
    labels = [header.index(column) for column in ("name", "label") if column in header]
    extra = [header[index] for index in range(len(header)) if index not in [*axes, *labels[:1]]]
    if extra and not slicer:
        warn("W-LMK-018", f"columns ignored: {listed(extra)}", file=path)
    try:
        rows = list(csv.reader(lines, delimiter=delimiter, strict=True))
    except csv.Error as error:
        raise _refused(path, f"a table that cannot be read ({error})", "one landmark a line") from error
    points = _numbers(rows, axes, len(header), numbers, path, slicer=slicer)
    names = tuple(_unquoted(row[labels[0]]) if labels[0] < len(row) else "" for row in rows) if labels else ()
    return Landmarks(_to_ras(points, _space(stated, space, path), grid, path), names)


def _split(content: str) -> tuple[list[str], list[int], list[str]]:
    """Comments, and the numbers and texts of the other lines that are not empty."""
    comments, numbers, lines = [], [], []
    for number, line in enumerate(content.splitlines(), 1):
        if line.startswith("#"):
            comments.append(line[1:])
        elif line.strip():
            numbers.append(number)
            lines.append(line)
    return comments, numbers, lines


def _comment(comments: Iterable[str], key: str, separator: str) -> str | None:
    for comment in comments:
        name, found, value = comment.partition(separator)
        if found and name.strip().lower() == key.lower():
            return value.strip()
    return None


def _numbers(
    rows: list[list[str]], axes: list[int], width: int, lines: list[int], path: Path, *, slicer: bool
) -> WorldPoints:
    """The coordinates; all at once, and line by line only to say where it failed."""
    least = max(axes) + 1 if slicer else width
    try:
        if all(least <= len(row) and (slicer or len(row) == width) for row in rows):
            points = np.array([[row[axis] for row in rows] for axis in axes], dtype=np.float64).T
            if np.isfinite(points).all():
                return points
    except ValueError:
        pass
    for line, row in zip(lines, rows, strict=False):
        if len(row) < least or (not slicer and len(row) != width):
            raise _refused(path, f"line {line}: {len(row)} columns", str(width))
        for axis in axes:
            if not _is_number(row[axis]):
                raise _refused(path, f"line {line}: {row[axis][:40]!r}", "a finite number")
    raise _refused(path, "a quoted line break", "one landmark a line")


def _is_number(word: str) -> bool:
    try:
        return bool(np.isfinite(float(word)))
    except ValueError:
        return False


def _unquoted(name: str) -> str:
    name = name.strip()
    return name[1:] if name[:1] == "'" and name[1:].startswith(FORMULA) else name


def _space(stated: str | None, given: Space | None, path: Path) -> Space:
    """The coordinate system that the file states, or the caller."""
    known = {name.lower(): name for name in get_args(Space)}
    if stated is not None:
        word = SLICER_CODES.get(stated.lower(), stated).lower()
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
            do='say it with space=, or in a first line "# space: RAS"',
        )
    return given


def _to_ras(points: WorldPoints, space: Space, grid: Grid | None, path: Path) -> WorldPoints:
    if space == "voxel":
        if grid is None or grid.ndim != points.shape[1]:
            found = "voxel coordinates without" if grid is None else "coordinates of another dimension than"
            raise InputError("E-LMK-019", f"{found} an image", file=path, do="give the image they were set on")
        return grid.to_world(points)
    return flip_lps(points.T).T if space == "LPS" else points


def _read_json(content: str, path: Path, space: Space | None, grid: Grid | None) -> Landmarks:
    try:
        markups = json.loads(content)["markups"]
        lists = [(markup.get("coordinateSystem"), list(markup["controlPoints"])) for markup in markups]
        units = {str(unit) for markup in markups for unit in np.atleast_1d(markup.get("coordinateUnits", "mm"))}
    except json.JSONDecodeError as error:
        raise _refused(path, f"line {error.lineno}: no JSON ({error.msg})", "3D Slicer markups") from error
    except (KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _refused(path, "JSON without control points", "3D Slicer markups") from error
    if units - {"mm"}:
        raise _refused(path, f"coordinates in {', '.join(sorted(units))}", "mm")
    points, names = [], []
    for stated, controls in lists:
        if controls:
            positions = np.array([_position(control, number, path) for number, control in enumerate(controls, 1)])
            stated = None if stated is None else str(stated)
            points.append(_to_ras(positions, _space(stated, space, path), grid, path))
            names += [str(control.get("label", "")) for control in controls]
    if not points:
        raise _refused(path, "no landmarks", "at least one")
    return Landmarks(np.concatenate(points), tuple(names))


def _position(control: object, number: int, path: Path) -> list[float]:
    if isinstance(control, dict) and control.get("positionStatus", "defined") == "defined":
        position = control.get("position")
        if isinstance(position, list) and len(position) == 3 and all(map(_is_millimetre, position)):
            return [float(x) for x in position]
    raise _refused(path, f"control point {number} has no position", "three finite numbers")


def _is_millimetre(x: object) -> bool:
    return isinstance(x, int | float) and not isinstance(x, bool) and abs(x) < LARGEST_MM


def _csv(landmarks: Landmarks) -> str:
    table = io.StringIO()
    table.write("# space: RAS\n")
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow([*"xyz"[: landmarks.points.shape[1]], "name"])
    for point, name in zip(landmarks.points.tolist(), landmarks.names, strict=True):
        writer.writerow([*map(repr, point), _one_line(name)])
    return table.getvalue()


def _fcsv(landmarks: Landmarks) -> str:
    table = io.StringIO()
    table.write("# Markups fiducial file version = 4.11\n# CoordinateSystem = LPS\n")
    table.write(f"# columns = {SLICER_COLUMNS}\n")
    writer = csv.writer(table, lineterminator="\n")
    for row, (point, name) in enumerate(zip(_lps(landmarks), landmarks.names, strict=True), 1):
        writer.writerow([row, *map(repr, point), 0, 0, 0, 1, 1, 1, 0, _one_line(name), "", ""])
    return table.getvalue()


def _lps(landmarks: Landmarks) -> list[list[float]]:
    return flip_lps(landmarks.points.T).T.tolist()


def _one_line(name: str) -> str:
    name = re.sub(r"\s+", " ", name)
    return f"'{name}" if name.startswith(FORMULA) else name


def _json(landmarks: Landmarks) -> str:
    controls = [
        {"id": str(row), "label": name, "position": point, "visibility": True, "positionStatus": "defined"}
        for row, (point, name) in enumerate(zip(_lps(landmarks), landmarks.names, strict=True), 1)
    ]
    markup = {"type": "Fiducial", "coordinateSystem": "LPS", "coordinateUnits": "mm", "controlPoints": controls}
    return json.dumps({"@schema": SCHEMA, "markups": [markup]}, indent=1, ensure_ascii=False) + "\n"
