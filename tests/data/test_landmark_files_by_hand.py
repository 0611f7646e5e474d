"""Landmark files written out on paper."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from anamorph.data.image import Landmarks
from anamorph.data.landmark_files import paired, read_landmarks, write_landmarks
from anamorph.errors import AnamorphWarning, ConfigurationError, InputError
from anamorph.spatial.grid import Grid

POINTS = np.array([[1.5, -2.25, 3.0], [0.1, 1 / 3, -1e-7]])


@pytest.mark.parametrize("name", ["l.csv", "l.fcsv", "l.mrk.json"])
def test_points_and_names_come_back_exactly(tmp_path: Path, name: str):
    landmarks = Landmarks(POINTS, ("left eye, upper", 'größer "quoted"'))
    write_landmarks(landmarks, tmp_path / name)
    read = read_landmarks(tmp_path / name)
    assert np.array_equal(read.points, POINTS)
    assert read.names == landmarks.names


def test_csv_to_the_letter(tmp_path: Path):
    write_landmarks(Landmarks(np.array([[1.5, -2.25, 3.0]]), ("a",)), tmp_path / "l.csv")
    assert (tmp_path / "l.csv").read_text() == "# space: RAS\nx,y,z,name\n1.5,-2.25,3.0,a\n"


def test_slicer_files_hold_lps(tmp_path: Path):
    landmarks = Landmarks(np.array([[1.5, -2.25, 3.0]]), ("a",))
    write_landmarks(landmarks, tmp_path / "l.fcsv")
    lines = (tmp_path / "l.fcsv").read_text().splitlines()
    assert lines[1] == "# CoordinateSystem = LPS"
    assert lines[3] == "1,-1.5,2.25,3.0,0,0,0,1,1,1,0,a,,"
    write_landmarks(landmarks, tmp_path / "l.mrk.json")
    markup = json.loads((tmp_path / "l.mrk.json").read_text())["markups"][0]
    assert markup["coordinateSystem"] == "LPS"
    assert markup["controlPoints"][0]["position"] == [-1.5, 2.25, 3.0]


@pytest.mark.parametrize(
    ("space", "expected"), [("RAS", [1, 2, 3]), ("LPS", [-1, -2, 3]), ("voxel", [12, 24, 36])], ids=str
)
def test_three_spaces_stated_by_the_file_or_the_caller(tmp_path: Path, space, expected):
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    affine[:3, 3] = [10, 20, 30]
    grid = Grid((40, 40, 40), affine)
    numbers = "x,y,z\n1,2,3\n"
    (tmp_path / "stated.csv").write_text(f"# space: {space}\n{numbers}")
    (tmp_path / "bare.csv").write_text(numbers)
    with pytest.warns(AnamorphWarning, match="W-LMK-020") if space != "voxel" else _nothing():
        assert read_landmarks(tmp_path / "stated.csv", grid).points.tolist() == [expected]
    if space == "voxel":
        assert read_landmarks(tmp_path / "bare.csv", grid, space).points.tolist() == [expected]
        with pytest.raises(InputError, match="E-LMK-019"):
            read_landmarks(tmp_path / "stated.csv")
    else:
        assert read_landmarks(tmp_path / "bare.csv", space=space).points.tolist() == [expected]


def _nothing():
    from contextlib import nullcontext

    return nullcontext()


def test_two_dimensions(tmp_path: Path):
    (tmp_path / "l.csv").write_text("# space: LPS\nx,y,name\n1,2,a\n")
    read = read_landmarks(tmp_path / "l.csv")
    assert read.points.tolist() == [[-1, -2]]
    write_landmarks(read, tmp_path / "again.csv")
    assert read_landmarks(tmp_path / "again.csv").points.tolist() == [[-1, -2]]
    with pytest.raises(ConfigurationError, match="E-OUT-002"):
        write_landmarks(read, tmp_path / "l.fcsv")


def test_columns_in_any_order_and_case(tmp_path: Path):
    (tmp_path / "l.csv").write_text("# space: RAS\nName; Z; Y; X\na; 3; 2; 1\n")
    read = read_landmarks(tmp_path / "l.csv")
    assert (read.points.tolist(), read.names) == ([[1, 2, 3]], ("a",))


def test_other_columns_are_named_in_a_warning(tmp_path: Path):
    (tmp_path / "l.csv").write_text("# space: RAS\nx,y,z,t\n1,2,3,0\n")
    with pytest.warns(AnamorphWarning, match="W-LMK-018: .*t$"):
        assert read_landmarks(tmp_path / "l.csv").points.tolist() == [[1, 2, 3]]


def test_a_formula_is_written_as_text_and_read_back(tmp_path: Path):
    landmarks = Landmarks(np.zeros((2, 3)), ("=HYPERLINK(1)", "'quoted'"))
    write_landmarks(landmarks, tmp_path / "l.csv")
    assert ",'=HYPERLINK(1)\n" in (tmp_path / "l.csv").read_text()
    assert read_landmarks(tmp_path / "l.csv").names == landmarks.names


def test_older_fcsv_without_columns_and_with_a_code(tmp_path: Path):
    (tmp_path / "l.fcsv").write_text(
        "# Markups fiducial file version = 4.10\n# CoordinateSystem = 1\nid,1,2,3,0,0,0,1,1,1,0,F-1,,\n"
    )
    read = read_landmarks(tmp_path / "l.fcsv")
    assert (read.points.tolist(), read.names) == ([[-1, -2, 3]], ("F-1",))


def test_several_lists_in_one_markup_file(tmp_path: Path):
    point = {"label": "a", "position": [1, 2, 3]}
    lists = [{"coordinateSystem": space, "controlPoints": [point]} for space in ("LPS", "RAS")]
    (tmp_path / "l.mrk.json").write_text(json.dumps({"markups": lists}))
    assert read_landmarks(tmp_path / "l.mrk.json").points.tolist() == [[-1, -2, 3], [1, 2, 3]]


def test_pairs_by_name_and_by_order():
    fixed = Landmarks(np.arange(6.0).reshape(2, 3), ("a", "b"))
    moving = Landmarks(np.arange(6.0).reshape(2, 3) + 10, ("b", "a"))
    assert paired(fixed, moving)[1].points.tolist() == [[13, 14, 15], [10, 11, 12]]
    other = Landmarks(moving.points, ("p", "q"))
    assert paired(fixed, other)[1] is other
    with pytest.raises(InputError, match="E-LMK-020: only one side has b, c"):
        paired(fixed, Landmarks(moving.points, ("c", "a")))
    twice = Landmarks(np.zeros((3, 3)), ("a", "a", "b"))
    with pytest.raises(InputError, match="E-LMK-020: names that occur twice"):
        paired(twice, Landmarks(np.zeros((3, 3)), ("b", "a", "a")))


def test_an_unknown_suffix_is_not_written(tmp_path: Path):
    with pytest.raises(ConfigurationError, match="E-OUT-002"):
        write_landmarks(Landmarks(POINTS), tmp_path / "l.txt")
