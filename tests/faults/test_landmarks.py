"""Fault catalogue, rows L18 to L20: landmark files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from anamorph.data.image import Landmarks
from anamorph.data.landmark_files import paired, read_landmarks, write_landmarks
from anamorph.errors import AnamorphWarning
from anamorph.inference.warp import warp
from anamorph.spatial.grid import Grid
from anamorph.spatial.transform import Affine

SPACE = "# space: RAS\n"
REFUSED = {
    "nan": (SPACE + "x,y,z\n1,2,3\n1,nan,3\n", "line 4: 'nan'"),
    "inf": (SPACE + "x,y,z\n1,2,-inf\n", "line 3: '-inf'"),
    "word": (SPACE + "x,y,z\n1,2,three\n", "line 3: 'three'"),
    "missing-value": (SPACE + "x,y,z\n1,2,\n", "line 3: ''"),
    "missing-column": (SPACE + "x,z\n1,3\n", "columns x, z, expected x, y, z"),
    "no-header": (SPACE + "1,2,3\n4,5,6\n", "columns 1, 2, 3, expected x, y, z"),
    "two-columns": (SPACE + "x,y,z\n\n1,2,3\n4,5\n", "line 5: 2 columns, expected 3"),
    "four-columns": (SPACE + "x,y,z\n1,2,3\n4,5,6,7\n", "line 4: 4 columns, expected 3"),
    "decimal-comma": (SPACE + "x;y;z\n1,5;2,5;3,5\n", "line 3: '1,5'"),
    "no-rows": (SPACE + "x,y,z\n", "no landmarks"),
    "only-comments": (SPACE, "no header line"),
    "open-quote": (SPACE + 'x,y,z,name\n1,2,3,"a\n', "cannot be read"),
    "line-break-in-a-name": (SPACE + 'x,y,z,name\n1,2,3,"a\nb"\n1,2,3\n', "line"),
}


@pytest.mark.parametrize("fault", [pytest.param(fault, id=f"L18-{fault}") for fault in REFUSED])
def test_tables_that_are_refused(fault: str, tmp_path: Path, refuses):
    content, message = REFUSED[fault]
    (tmp_path / "l.csv").write_text(content)
    with refuses("E-LMK-018", 3, tmp_path, match=message):
        read_landmarks(tmp_path / "l.csv")


@pytest.mark.parametrize("row", ["L18-empty"])
def test_empty_file(row: str, tmp_path: Path, refuses):
    (tmp_path / "l.csv").write_text("")
    with refuses("E-IO-002", 3, tmp_path):
        read_landmarks(tmp_path / "l.csv")


@pytest.mark.parametrize("row", ["L18-binary"])
def test_binary_file(row: str, tmp_path: Path, refuses):
    (tmp_path / "l.csv").write_bytes(b"\xff\xfe\x80\x81")
    with refuses("E-LMK-018", 3, tmp_path, match="UTF-8"):
        read_landmarks(tmp_path / "l.csv")


SURVIVED = {
    "semicolons": SPACE + "x;y;z\n1;2;3\n",
    "tabs": SPACE + "x\ty\tz\n1\t2\t3\n",
    "bom": "\ufeff" + SPACE + "x,y,z\n1,2,3\n",
    "crlf": (SPACE + "x,y,z\n1,2,3\n").replace("\n", "\r\n"),
    "no-last-newline": SPACE + "x,y,z\n1,2,3",
    "blank-lines": SPACE + "\n\nx,y,z\n\n1,2,3\n\n",
    "quotes": SPACE + '"x","y","z"\n"1","2","3"\n',
}


@pytest.mark.parametrize("kind", [pytest.param(kind, id=f"L18-{kind}") for kind in SURVIVED])
def test_tables_that_are_read(kind: str, tmp_path: Path):
    (tmp_path / "l.csv").write_bytes(SURVIVED[kind].encode())
    assert read_landmarks(tmp_path / "l.csv").points.tolist() == [[1, 2, 3]]


@pytest.mark.parametrize("row", ["L18-million"])
def test_a_million_rows(row: str, tmp_path: Path):
    (tmp_path / "l.csv").write_text(SPACE + "x,y,z\n" + "1.5,2.25,-3\n" * 10**6)
    landmarks = read_landmarks(tmp_path / "l.csv")
    assert len(landmarks) == 10**6
    assert landmarks.points.sum(0).tolist() == [1.5e6, 2.25e6, -3e6]


MARKUPS = {
    "no-json": ("{", "line 1: no JSON"),
    "no-markups": ("{}", "without control points"),
    "list": ("[1]", "without control points"),
    "number-for-points": ('{"markups": [{"coordinateSystem": "LPS", "controlPoints": 5}]}', "without control points"),
    "no-points": ('{"markups": [{"coordinateSystem": "LPS", "controlPoints": []}]}', "no landmarks"),
    "nan": (
        '{"markups": [{"coordinateSystem": "LPS", "controlPoints": [{"position": [1, NaN, 3]}]}]}',
        "control point 1 has no position",
    ),
    "undefined": (
        '{"markups": [{"coordinateSystem": "LPS", "controlPoints": '
        '[{"position": [1, 2, 3]}, {"position": [1, 2, 3], "positionStatus": "undefined"}]}]}',
        "control point 2 has no position",
    ),
    "micrometres": (
        '{"markups": [{"coordinateSystem": "LPS", "coordinateUnits": "um", "controlPoints": [{"position": [1, 2, 3]}]}'
        "]}",
        "coordinates in um",
    ),
}


@pytest.mark.parametrize("fault", [pytest.param(fault, id=f"L18-{fault}") for fault in MARKUPS])
def test_markups_that_are_refused(fault: str, tmp_path: Path, refuses):
    content, message = MARKUPS[fault]
    (tmp_path / "l.mrk.json").write_text(content)
    with refuses("E-LMK-018", 3, tmp_path, match=message):
        read_landmarks(tmp_path / "l.mrk.json")


def slicer_files(folder: Path, points: np.ndarray, space: str) -> list[Path]:
    """The same RAS points as both of Slicer's formats in the wanted coordinate system."""
    stored = points * ([-1, -1, 1] if space == "LPS" else [1, 1, 1])
    rows = [f"id{n},{x!r},{y!r},{z!r},0,0,0,1,1,1,0,F-{n},,\n" for n, (x, y, z) in enumerate(stored.tolist())]
    (folder / f"{space}.fcsv").write_text(f"# CoordinateSystem = {space}\n" + "".join(rows))
    controls = [{"label": f"F-{n}", "position": point} for n, point in enumerate(stored.tolist())]
    markups = {"markups": [{"type": "Fiducial", "coordinateSystem": space, "controlPoints": controls}]}
    (folder / f"{space}.mrk.json").write_text(json.dumps(markups))
    return [folder / f"{space}.fcsv", folder / f"{space}.mrk.json"]


@pytest.mark.parametrize("row", ["L19"])
def test_ras_and_lps_give_the_same_error(row: str, tmp_path: Path):
    rng = np.random.default_rng(0)
    points = rng.uniform(-100, 100, (12, 3))
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = turn, [5, -7, 11]
    moving = Landmarks(Affine(matrix)(points) + rng.normal(size=(12, 3)), tuple(f"F-{n}" for n in range(12)))
    write_landmarks(Landmarks(points, moving.names), tmp_path / "points.csv")
    errors = []
    for path in [
        *slicer_files(tmp_path, points, "LPS"),
        *slicer_files(tmp_path, points, "RAS"),
        tmp_path / "points.csv",
    ]:
        warped = warp(read_landmarks(path), Affine(matrix), direction="fixed_to_moving")
        a, b = paired(warped, moving)
        errors.append(np.linalg.norm(a.points - b.points, axis=1).mean())
    assert np.ptp(errors) < 1e-6
    assert errors[0] > 0.5


@pytest.mark.parametrize("name", [pytest.param(n, id=f"L19-unstated-{n}") for n in ("l.csv", "l.fcsv", "l.mrk.json")])
def test_no_coordinate_system(name: str, tmp_path: Path, refuses):
    content = {
        "l.csv": "x,y,z\n1,2,3\n",
        "l.fcsv": "id,1,2,3,0,0,0,1,1,1,0,F-1,,\n",
        "l.mrk.json": '{"markups": [{"controlPoints": [{"position": [1, 2, 3]}]}]}',
    }
    (tmp_path / name).write_text(content[name])
    with refuses("E-LMK-019", 3, tmp_path, match="no coordinate system.*space"):
        read_landmarks(tmp_path / name)
    assert read_landmarks(tmp_path / name, space="LPS").points.tolist() == [[-1, -2, 3]]


@pytest.mark.parametrize("row", ["L19-contradiction"])
def test_file_and_caller_disagree(row: str, tmp_path: Path, refuses):
    (tmp_path / "l.csv").write_text(SPACE + "x,y,z\n1,2,3\n")
    with refuses("E-LMK-019", 3, tmp_path, match="the file says RAS, the caller LPS"):
        read_landmarks(tmp_path / "l.csv", space="LPS")


@pytest.mark.parametrize("row", ["L20-outside"])
def test_outside_the_image(row: str, tmp_path: Path):
    (tmp_path / "l.csv").write_text(SPACE + "x,y,z,name\n1,1,1,in\n30,1,1,out\n")
    grid = Grid.from_spacing((10, 10, 10))
    with pytest.warns(AnamorphWarning, match=r"W-LMK-020: l\.csv: 1 of 2 lie outside the image: out$"):
        landmarks = read_landmarks(tmp_path / "l.csv", grid)
    with pytest.warns(AnamorphWarning, match="W-LMK-020"):
        warp(landmarks, Affine.identity(3), grid)


@pytest.mark.parametrize("row", ["L20-counts"])
def test_counts_differ(row: str, tmp_path: Path, refuses):
    with refuses("E-LMK-020", 3, tmp_path, match="2 fixed and 3 moving"):
        paired(Landmarks(np.zeros((2, 3))), Landmarks(np.zeros((3, 3))))


@pytest.mark.parametrize("row", ["L18-dimension"])
def test_three_dimensional_points_for_a_slice(row: str, tmp_path: Path, refuses):
    with refuses("E-TRF-005", 3, tmp_path, match="3-D data, a 2-D transform"):
        warp(Landmarks(np.zeros((2, 3))), Affine.identity(2))
