"""Meshes come back exactly; what is no mesh, or says no coordinate system, is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from anamorph.data.mesh_files import Mesh, read_mesh, write_mesh
from anamorph.errors import ConfigurationError, InputError

TETRAHEDRON = Mesh(
    np.array([[0.0, 0, 0], [1 / 3, 0, 0], [0, 2, 0], [0, 0, 3e-7]]),
    np.array([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]]),
)


def test_a_mesh_comes_back_exactly(tmp_path: Path) -> None:
    write_mesh(TETRAHEDRON, tmp_path / "a.vtk")
    found = read_mesh(tmp_path / "a.vtk")
    assert np.array_equal(found.points, TETRAHEDRON.points)
    assert np.array_equal(found.triangles, TETRAHEDRON.triangles)
    assert found.volume_mm3 == pytest.approx(1 / 3 * 2 * 3e-7 / 6)
    empty = Mesh(np.zeros((0, 3)), np.zeros((0, 3), np.int64))
    write_mesh(empty, tmp_path / "none.vtk")
    assert len(read_mesh(tmp_path / "none.vtk").points) == 0


def test_lps_is_turned_and_a_contradiction_refused(tmp_path: Path) -> None:
    write_mesh(TETRAHEDRON, tmp_path / "a.vtk")
    text = (tmp_path / "a.vtk").read_text()
    (tmp_path / "lps.vtk").write_text(text.replace("SPACE=RAS", "SPACE=LPS"))
    assert np.array_equal(read_mesh(tmp_path / "lps.vtk").points, TETRAHEDRON.points * [-1, -1, 1])
    with pytest.raises(InputError, match="E-MSH-002"):
        read_mesh(tmp_path / "lps.vtk", "RAS")
    (tmp_path / "open.vtk").write_text(text.replace("SPACE=RAS", "a mesh"))
    with pytest.raises(InputError, match="E-MSH-002"):
        read_mesh(tmp_path / "open.vtk")
    assert np.array_equal(read_mesh(tmp_path / "open.vtk", "RAS").points, TETRAHEDRON.points)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("# vtk", "vtk"),
        ("ASCII", "BINARY"),
        ("POLYDATA", "UNSTRUCTURED_GRID"),
        ("POINTS 4", "POINTS 5"),
        ("POINTS 4", "POINTS -4"),
        ("0.3333333333333333", "x"),
        ("0.3333333333333333", "nan"),
        ("3 1 2 3", "4 1 2 3"),
        ("3 1 2 3", "3 1 2 4"),
        ("3 1 2 3", "3 1 2 1.5"),
        ("3 1 2 3", "3 1 2"),
        ("POLYGONS", "LINES"),
    ],
)
def test_what_is_no_mesh_is_refused(tmp_path: Path, old: str, new: str) -> None:
    write_mesh(TETRAHEDRON, tmp_path / "a.vtk")
    text = (tmp_path / "a.vtk").read_text()
    assert old in text
    (tmp_path / "b.vtk").write_text(text.replace(old, new))
    with pytest.raises(InputError, match="E-MSH-001"):
        read_mesh(tmp_path / "b.vtk")


def test_bytes_and_other_names(tmp_path: Path) -> None:
    (tmp_path / "b.vtk").write_bytes(b"\x93vtk\xff")
    with pytest.raises(InputError, match="E-MSH-001"):
        read_mesh(tmp_path / "b.vtk")
    with pytest.raises(InputError, match="E-IO-001"):
        read_mesh(tmp_path / "absent.vtk")
    with pytest.raises(ConfigurationError, match="E-OUT-002"):
        write_mesh(TETRAHEDRON, tmp_path / "a.ply")
