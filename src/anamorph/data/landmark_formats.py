"""The text of landmark files: CSV, 3D Slicer's .fcsv and .mrk.json. What the numbers mean is not decided here."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from anamorph.data.image import Landmarks
from anamorph.data.itk import flip_lps
from anamorph.errors import InputError, warn
from anamorph.types import WorldPoints

SLICER_COLUMNS = "id,x,y,z,ow,ox,oy,oz,vis,sel,lock,label,desc,associatedNodeID"
SCHEMA = (
    "https://raw.githubusercontent.com/slicer/slicer/master/Modules/Loadable/Markups/Resources/Schema/"
    "markups-schema-v1.0.3.json#"
)
FORMULA = ("=", "+", "-", "@")
"""A spreadsheet computes a cell that begins so; a name is written with a quote before it, and read without."""
LISTED = 10
LARGEST_MM = 1e9


@dataclass(frozen=True, eq=False)
class StoredPoints:
    """Points as a file has them.

    Args:
        space: the coordinate system in the file's own words, if it has any.
        points: N d.
        names: N names or none.
    """

    space: str | None
    points: WorldPoints
    names: tuple[str, ...]


def listed(names: Sequence[str]) -> str:
    """The first ten names, each cut to 40 characters, for a message."""
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(name[:40] for name in names[:LISTED]) + more


def refused(path: Path, found: str, expected: str = "") -> InputError:
    """What is no list of points."""
    return InputError("E-LMK-018", found, file=path, expected=expected)


def read_csv(content: str, path: Path) -> StoredPoints:
    """Columns x, y, (z) and name or label under a header; comma, semicolon or tab between them."""
    text = _Text(content, path)
    if not text.lines:
        raise refused(path, "no header line", "the columns x,y,z")
    delimiter = max(",;\t", key=text.lines[0].count)
    header = [column.strip().strip('"').lower() for column in text.lines[0].split(delimiter)]
    axes = _axes(header, path)
    label = [header.index(column) for column in ("name", "label") if column in header][:1]
    extra = [column for index, column in enumerate(header) if index not in [*axes, *label]]
    if extra:
        warn("W-LMK-018", f"columns ignored: {listed(extra)}", file=path)
    space = text.comment("space", ":")
    text = text.below_header()
    if len(axes) == len(header) and (points := text.plain_numbers(delimiter, len(header))) is not None:
        return StoredPoints(space, points[:, axes], ())
    rows = text.rows(delimiter)
    for number, row in zip(text.numbers, rows, strict=False):
        if len(row) != len(header):
            raise refused(path, f"line {number}: {len(row)} columns", str(len(header)))
    names = tuple(_unquoted(row[label[0]]) for row in rows) if label else ()
    return StoredPoints(space, text.coordinates(rows, axes), names)


def read_fcsv(content: str, path: Path) -> StoredPoints:
    """3D Slicer's fiducial list: the columns and the coordinate system stand in comments."""
    text = _Text(content, path)
    header = (text.comment("columns", "=") or SLICER_COLUMNS).split(",")
    axes, label = _axes(header, path), header.index("label") if "label" in header else len(header)
    rows = text.rows(",")
    for number, row in zip(text.numbers, rows, strict=False):
        if len(row) <= max(axes):
            raise refused(path, f"line {number}: {len(row)} columns", str(len(header)))
    names = tuple(_unquoted(row[label]) if label < len(row) else "" for row in rows)
    return StoredPoints(text.comment("CoordinateSystem", "="), text.coordinates(rows, axes), names)


def read_markups(content: str, path: Path) -> list[StoredPoints]:
    """3D Slicer's markups: every list in the file that has points."""
    try:
        markups = json.loads(content)["markups"]
        lists = [(markup.get("coordinateSystem"), list(markup["controlPoints"])) for markup in markups]
        units = {str(unit) for markup in markups for unit in np.atleast_1d(markup.get("coordinateUnits", "mm"))}
    except json.JSONDecodeError as error:
        raise refused(path, f"line {error.lineno}: no JSON ({error.msg})", "3D Slicer markups") from error
    except (KeyError, TypeError, AttributeError, RecursionError, ValueError) as error:
        raise refused(path, "JSON without control points", "3D Slicer markups") from error
    if units - {"mm"}:
        raise refused(path, f"coordinates in {listed(sorted(units))}", "mm")
    found = []
    for space, controls in lists:
        if controls:
            points = np.array([_position(control, number, path) for number, control in enumerate(controls, 1)])
            names = tuple(str(control.get("label", "")) for control in controls)
            found.append(StoredPoints(None if space is None else str(space), points, names))
    if not found:
        raise refused(path, "no landmarks", "at least one")
    return found


def csv_text(landmarks: Landmarks) -> str:
    """RAS mm."""
    table = io.StringIO()
    table.write("# space: RAS\n")
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow([*"xyz"[: landmarks.points.shape[1]], "name"])
    for point, name in zip(landmarks.points.tolist(), landmarks.names, strict=True):
        writer.writerow([*map(repr, point), _one_line(name)])
    return table.getvalue()


def fcsv_text(landmarks: Landmarks) -> str:
    """LPS mm."""
    table = io.StringIO()
    table.write("# Markups fiducial file version = 4.11\n# CoordinateSystem = LPS\n")
    table.write(f"# columns = {SLICER_COLUMNS}\n")
    writer = csv.writer(table, lineterminator="\n")
    for row, (point, name) in enumerate(zip(_lps(landmarks), landmarks.names, strict=True), 1):
        writer.writerow([row, *map(repr, point), 0, 0, 0, 1, 1, 1, 0, _one_line(name), "", ""])
    return table.getvalue()


def markups_text(landmarks: Landmarks) -> str:
    """LPS mm."""
    controls = [
        {"id": str(row), "label": name, "position": point, "visibility": True, "positionStatus": "defined"}
        for row, (point, name) in enumerate(zip(_lps(landmarks), landmarks.names, strict=True), 1)
    ]
    markup = {"type": "Fiducial", "coordinateSystem": "LPS", "coordinateUnits": "mm", "controlPoints": controls}
    return json.dumps({"@schema": SCHEMA, "markups": [markup]}, indent=1, ensure_ascii=False) + "\n"


class _Text:
    """Comments, and the other lines that are not empty with their numbers in the file."""

    def __init__(self, content: str, path: Path) -> None:
        self.path = path
        self.comments: list[str] = []
        self.numbers: list[int] = []
        self.lines: list[str] = []
        for number, line in enumerate(content.splitlines(), 1):
            if line.startswith("#"):
                self.comments.append(line[1:])
            elif line.strip():
                self.numbers.append(number)
                self.lines.append(line)

    def comment(self, key: str, separator: str) -> str | None:
        """The value of the first comment ``key separator value``."""
        for comment in self.comments:
            name, found, value = comment.partition(separator)
            if found and name.strip().lower() == key.lower():
                return value.strip()
        return None

    def below_header(self) -> _Text:
        """Without the first line."""
        rest = _Text("", self.path)
        rest.numbers, rest.lines = self.numbers[1:], self.lines[1:]
        return rest

    def plain_numbers(self, delimiter: str, width: int) -> WorldPoints | None:
        """Everything at once where it is nothing but numbers, which is ten times as fast; None where it is not."""
        try:
            points = np.loadtxt(self.lines, delimiter=delimiter, comments=None, ndmin=2) if self.lines else None
        except ValueError:
            return None
        return points if points is not None and points.shape[1] == width and np.isfinite(points).all() else None

    def rows(self, delimiter: str) -> list[list[str]]:
        """The cells of each line."""
        if not self.lines:
            raise refused(self.path, "no landmarks", "at least one")
        try:
            rows = list(csv.reader(self.lines, delimiter=delimiter, strict=True))
        except csv.Error as error:
            raise refused(self.path, f"a table that cannot be read ({error})", "one landmark a line") from error
        if len(rows) != len(self.lines):
            raise refused(self.path, "a name of several lines", "one landmark a line")
        return rows

    def coordinates(self, rows: list[list[str]], axes: list[int]) -> WorldPoints:
        """N d, finite."""
        try:
            points = np.array([[row[axis] for row in rows] for axis in axes], dtype=np.float64).T
            if np.isfinite(points).all():
                return points
        except ValueError:
            pass
        number, word = next(
            (number, row[axis])
            for number, row in zip(self.numbers, rows, strict=True)
            for axis in axes
            if not _is_number(row[axis])
        )
        raise refused(self.path, f"line {number}: {word[:40]!r}", "a finite number")


def _axes(header: list[str], path: Path) -> list[int]:
    if header.count("x") != 1 or header.count("y") != 1 or header.count("z") > 1:
        raise refused(path, f"columns {listed(header)}", "x, y, z and, if wanted, name")
    return [header.index(axis) for axis in "xyz" if axis in header]


def _is_number(word: str) -> bool:
    try:
        return bool(np.isfinite(np.float64(word)))
    except ValueError:
        return False


def _position(control: object, number: int, path: Path) -> list[float]:
    if isinstance(control, dict) and control.get("positionStatus", "defined") == "defined":
        position = control.get("position")
        if isinstance(position, list) and len(position) == 3 and all(map(_is_millimetre, position)):
            return [float(x) for x in position]
    raise refused(path, f"control point {number} has no position", "three finite numbers")


def _is_millimetre(x: object) -> bool:
    return isinstance(x, int | float) and not isinstance(x, bool) and abs(x) < LARGEST_MM


def _lps(landmarks: Landmarks) -> list[list[float]]:
    return flip_lps(landmarks.points.T).T.tolist()


def _unquoted(name: str) -> str:
    name = name.strip()
    return name[1:] if name[:1] == "'" and name[1:].startswith(FORMULA) else name


def _one_line(name: str) -> str:
    name = re.sub(r"\s+", " ", name)
    return f"'{name}" if name.startswith(FORMULA) else name
