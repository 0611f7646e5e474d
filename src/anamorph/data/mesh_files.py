"""Triangle meshes in and out: legacy VTK PolyData as text, which ParaView, VTK and 3D Slicer read.

The format has no field for the coordinate system; 3D Slicer writes and reads it in the title, ``SPACE=RAS`` or
``SPACE=LPS``. Files are written in RAS. One that does not say it is refused, as landmarks are, unless the caller does.

Source: The VTK user's guide, file formats, https://docs.vtk.org/en/latest/vtk_file_formats/vtk_legacy_file_format.html
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from jaxtyping import Float, Int

from anamorph.data.files import atomic_write
from anamorph.data.guard import check_readable
from anamorph.data.itk import flip_lps
from anamorph.errors import ConfigurationError, InputError

Space = Literal["RAS", "LPS"]
MOST_BYTES = 1 << 30
TITLE = "Anamorph mesh; SPACE=RAS"


@dataclass(frozen=True, eq=False)
class Mesh:
    """Triangles in the world.

    Args:
        points: N x 3, RAS mm, float64, finite.
        triangles: M x 3 rows of ``points``; seen from outside counter-clockwise.

    Raises:
        InputError: E-MSH-001, a point is not finite, or a triangle names one that is not there.
    """

    points: Float[np.ndarray, "points 3"]
    triangles: Int[np.ndarray, "triangles 3"]

    def __post_init__(self) -> None:
        if not np.isfinite(self.points).all():
            raise InputError("E-MSH-001", "a point that is not finite", expected="coordinates in mm")
        if len(self.triangles) and not (self.triangles.min() >= 0 and self.triangles.max() < len(self.points)):
            raise InputError("E-MSH-001", "a triangle with a corner that is no point", expected=f"{len(self.points)}")

    @property
    def volume_mm3(self) -> float:
        """Enclosed by a closed mesh, mm^3; negative where its triangles face inwards."""
        a, b, c = (self.points[self.triangles[:, corner]] for corner in range(3))
        return float(np.einsum("td,td->", a, np.cross(b, c)) / 6)


def write_mesh(mesh: Mesh, path: str | Path) -> None:
    """Write a mesh as ``.vtk``, in RAS, so that its points come back exactly.

    Raises:
        ConfigurationError: E-OUT-002, another name.
        ResourceError: the disk is full or refuses; a file that was there is untouched.
    """
    path = Path(path)
    if path.suffix != ".vtk":
        raise ConfigurationError("E-OUT-002", "a name of no written format for meshes", file=path, expected=".vtk")
    lines = ["# vtk DataFile Version 3.0", TITLE, "ASCII", "DATASET POLYDATA", f"POINTS {len(mesh.points)} double"]
    lines += [" ".join(map(repr, point)) for point in mesh.points.tolist()]
    lines.append(f"POLYGONS {len(mesh.triangles)} {4 * len(mesh.triangles)}")
    lines += [f"3 {a} {b} {c}" for a, b, c in mesh.triangles.tolist()]
    with atomic_write(path) as part:
        part.write_text("\n".join(lines) + "\n", encoding="ascii", newline="")


def read_mesh(path: str | Path, space: Space | None = None) -> Mesh:
    """A mesh in RAS mm.

    Args:
        path: legacy VTK PolyData as text, of points and triangles; anything behind these is ignored.
        space: what the numbers are, where the title does not say it.

    Raises:
        InputError: E-MSH-001, it is none; E-MSH-002, the coordinate system is not stated, or two are.
    """
    path = Path(path)
    check_readable(path)
    if path.stat().st_size > MOST_BYTES:
        raise _refused(path, f"more than {MOST_BYTES} bytes")
    try:
        lines = path.read_text(encoding="ascii").splitlines()
    except UnicodeDecodeError:
        raise _refused(path, "no text") from None
    if len(lines) < 4 or not lines[0].startswith("# vtk DataFile"):
        raise _refused(path, "no VTK header")
    if (lines[2].strip(), lines[3].split()) != ("ASCII", ["DATASET", "POLYDATA"]):
        raise _refused(path, f"{lines[2].strip()[:20]} {lines[3].strip()[:40]}")
    stated = _space(lines[1], space, path)
    words = " ".join(lines[4:]).split()
    points, words = _section(words, "POINTS", 3, path)
    polygons, _ = _section(words, "POLYGONS", 4, path)
    if len(polygons) and not (polygons[:, 0] == 3).all():
        raise _refused(path, "polygons that are no triangles")
    if not np.array_equal(polygons, np.rint(polygons)):
        raise _refused(path, "corners that are no whole numbers")
    points = flip_lps(points.T).T if stated == "LPS" else points
    return Mesh(np.ascontiguousarray(points), polygons[:, 1:].astype(np.int64))


def _space(title: str, given: Space | None, path: Path) -> Space:
    found = re.search(r"SPACE=(RAS|LPS)", title)
    stated = next((name for name in get_args(Space) if found and found[1] == name), None)
    if stated is None and given is None:
        do = "say it with space=, or in the title (its second line) as SPACE=RAS"
        raise InputError("E-MSH-002", "no coordinate system", file=path, expected="RAS or LPS", do=do)
    if stated is not None and given is not None and stated != given:
        raise InputError("E-MSH-002", f"the file says {stated}, the caller {given}", file=path, expected="one")
    return stated or given  # pyright: ignore[reportReturnType]


def _section(words: list[str], name: str, columns: int, path: Path) -> tuple[np.ndarray, list[str]]:
    """The numbers of a section, rows x columns, and the words behind it."""
    if len(words) < 3 or words[0] != name or not words[1].isdigit():
        raise _refused(path, f"{' '.join(words[:2])[:40] or 'nothing'} where {name} are due")
    count = int(words[1]) * columns
    if len(words) < 3 + count:
        raise _refused(path, f"{len(words) - 3} of {count} numbers of {name}")
    try:
        return np.array(words[3 : 3 + count], dtype=np.float64).reshape(-1, columns), words[3 + count :]
    except ValueError:
        raise _refused(path, f"{name} with what is no number") from None


def _refused(path: Path, found: str) -> InputError:
    return InputError("E-MSH-001", found, file=path, expected="a legacy VTK PolyData file in ASCII, of triangles")
