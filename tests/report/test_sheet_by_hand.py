"""Sheets of pictures: which slices, where panels stand, what is drawn over them, and what is held once."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import numpy as np
import pytest

from anamorph.evaluation.comparison import compare
from anamorph.evaluation.scores import Score
from anamorph.report.experiment_html import sheet_file
from anamorph.report.experiment_sheets import Case, sheet_of_cases, sheet_of_examples
from anamorph.report.sheet import WIDTH, Sheet, changing_planes, draw_sheet, telling_plane

SHAPE = (20, 16, 12)
AFFINE = np.diag([2.0, 2.0, 3.0, 1.0])
IMAGE = np.random.default_rng(0).uniform(50, 100, SHAPE).astype(np.float32)
XLINK = "{http://www.w3.org/2000/svg}"


def box(*ranges: tuple[int, int], label: int = 1) -> np.ndarray:
    labels = np.zeros(SHAPE, np.int32)
    labels[tuple(slice(*r) for r in ranges)] = label
    return labels


def flat_case(*labels: int) -> Case:
    truth = np.zeros((16, 16), np.int32)
    for place, label in enumerate(labels):
        truth[4:12, 2 + 5 * place : 6 + 5 * place] = label
    image = np.random.default_rng(sum(labels)).uniform(0, 100, (16, 16)).astype(np.float32)
    return Case(image, np.diag([1.0, 1.0, 1.0]), None, truth, {"a": truth, "b": np.roll(truth, 2, 0)})


def styles(sheet: Sheet, panel: int) -> list[tuple[str, str]]:
    return [(line.style, line.title) for line in sheet.panels[panel].lines]


def test_the_telling_plane_is_where_the_labels_are_broadest() -> None:
    plane = telling_plane(SHAPE, AFFINE, IMAGE, [box((2, 18), (7, 9), (2, 10))])
    assert plane.name == "Coronal"  # 32 x 24 mm, against 32 x 4 and 4 x 24
    assert (plane.cut(box((2, 18), (7, 9), (2, 10))) > 0).any()
    assert telling_plane((8, 8), np.eye(3), IMAGE[:8, :8, 0], []).name == "Image"
    assert telling_plane(SHAPE, AFFINE, IMAGE, [box((2, 18), (7, 9), (2, 10))], "Axial").name == "Axial"


def test_all_cases_are_shown_in_the_plane_that_tells_most_of_most() -> None:
    coronal, axial = box((2, 18), (7, 9), (2, 10)), box((4, 16), (4, 12), (6, 8))
    cases = [Case(IMAGE, AFFINE, None, truth) for truth in (axial, coronal, coronal)]
    assert [case.view().plane.name for case in cases] == ["Axial", "Coronal", "Coronal"]
    sheet = sheet_of_examples({"some": cases}, {1: "l"})
    assert len({(panel.width, panel.height) for panel in sheet.panels}) == 1
    assert sheet.panels[1].height == pytest.approx(sheet_of_examples({"one": [cases[1]]}, {1: "l"}).panels[0].height)


def test_changing_planes_go_through_what_changed() -> None:
    before, after = box((4, 16), (4, 12), (2, 10)), box((4, 16), (4, 12), (2, 10))
    after[4:10, 4:12, 9] = 0
    axial = changing_planes(SHAPE, AFFINE, IMAGE, before, after)[0]
    assert axial.name == "Axial"
    assert not np.array_equal(axial.cut(before), axial.cut(after))
    same = changing_planes(SHAPE, AFFINE, IMAGE, before, before)
    assert [plane.name for plane in same] == ["Axial", "Coronal", "Sagittal"]
    assert all((plane.cut(before) > 0).any() for plane in same)
    none = np.zeros_like(before)
    assert len(changing_planes(SHAPE, AFFINE, IMAGE, none, none)) == 3


def scored(methods: tuple[str, ...] = ("a", "b")):
    rows = [Score("dice", 0.5 + 0.1 * k, case=f"c{k}", method=method) for method in methods for k in range(3)]
    return compare(rows)


def test_a_row_a_case_and_a_column_a_method() -> None:
    cases = {"c0": flat_case(7), "c2": flat_case(7, 7)}
    sheet = sheet_of_cases(cases, {"best": "c2", "worst": "c0"}, ("a", "b", "lost"), {7: "letter"}, scored())
    assert [text for _, text in sheet.heads] == ["true", "a", "b", "lost"]
    assert [text for _, text in sheet.rows] == ["best: c2 (numbers: Dice)", "worst: c0 (numbers: Dice)"]
    assert len(sheet.panels) == 8
    xs = [panel.x for panel in sheet.panels]
    assert xs[:4] == xs[4:]
    assert all(panel.x + panel.width <= WIDTH for panel in sheet.panels)
    assert all(panel.y + panel.height <= sheet.height for panel in sheet.panels)
    assert sheet.panels[0].y + sheet.panels[0].height < sheet.panels[4].y
    assert [panel.caption for panel in sheet.panels] == [
        "", "0.700", "0.700", "", "", "0.500", "0.500", "",
    ]  # fmt: skip
    assert styles(sheet, 0) == [("truth", "letter")]
    assert styles(sheet, 1) == [("found", "letter"), ("truth", "letter")]
    assert styles(sheet, 3) == [("truth", "letter")]  # a method that failed
    assert [text for *_, text in sheet.key] == ["found", "true"]


def test_a_long_name_above_a_narrow_column_takes_several_lines_that_end_with_the_others() -> None:
    methods = ("a", "b", "c", "d", "BiRegNet without attention", "f")
    short, long = (
        sheet_of_cases({"c0": flat_case(7)}, {"best": "c0"}, names, {7: "letter"}, scored(names))
        for names in (tuple("abcdef"), methods)
    )
    assert long.heads[5][1] == "BiRegNet without\nattention"
    assert long.panels[0].y - short.panels[0].y == long.heads_y - short.heads_y == long.line
    words = ElementTree.fromstring(sheet_file(long)).iter(f"{XLINK}text")
    heights = {word.text: float(word.get("y", 0)) for word in words}
    assert heights["attention"] == heights["a"] == heights["BiRegNet without"] + long.line


def test_a_failed_case_says_so() -> None:
    rows = [Score("dice", 0.5, case=case, method="a") for case in ("c0", "c1")]
    rows += [Score("dice", 0.5, case="c1", method="b"), Score("failed", 1.0, reason="no", case="c0", method="b")]
    sheet = sheet_of_cases({"c0": flat_case(7)}, {"worst": "c0"}, ("a", "b"), {7: "letter"}, compare(rows))
    assert [panel.caption for panel in sheet.panels] == ["", "0.500", "failed"]


def test_pictures_and_outlines_are_held_once() -> None:
    sheet = sheet_of_cases({"c0": flat_case(7)}, {"best": "c0"}, ("a", "b"), {7: "letter"}, scored())
    assert len(sheet.pictures) == 1
    assert {panel.picture for panel in sheet.panels} == set(sheet.pictures)
    assert len(sheet.paths) == 2  # the truth, which a found, and what b found
    assert {line.path for panel in sheet.panels for line in panel.lines} == set(sheet.paths)


def test_several_labels_have_colours_and_their_truth_is_white() -> None:
    case = flat_case(3, 9)
    sheet = sheet_of_cases({"c0": case}, {"best": "c0"}, ("a",), {3: "x", 9: "y"}, scored())
    assert styles(sheet, 1) == [("", "x"), ("", "y"), ("thin", "x, true"), ("thin", "y, true")]
    colours = [line.colour for line in sheet.panels[1].lines]
    assert len(set(colours[:2])) == 2
    assert [(colour, text) for _, _, colour, text in sheet.key] == [(colours[0], "x"), (colours[1], "y"), ("", "true")]


def test_examples_are_rows_of_groups() -> None:
    sheet = sheet_of_examples({"some": [flat_case(7), flat_case(8)], "none": [], "more": [flat_case(9)]}, {7: "l"})
    assert [text for _, text in sheet.rows] == ["some", "more"]
    assert len(sheet.panels) == 3
    assert sheet.heads == ()


def test_narrow_pictures_stand_in_the_middle_of_their_panels() -> None:
    image = np.random.default_rng(1).uniform(50, 100, (4, 40)).astype(np.float32)
    case = Case(image, np.eye(3), None, (image > 60).astype(np.int32))
    (panel,) = sheet_of_examples({"tall": [case]}, {1: "l"}).panels
    assert panel.height == pytest.approx(10 * panel.width, rel=0.02)
    assert panel.x > 8 + panel.width


def test_a_file_of_its_own() -> None:
    case = flat_case(7)
    sheet = sheet_of_cases({"<c0>": case}, {"best": "<c0>"}, ("a", "b"), {7: "<letter>"}, scored())
    text = sheet_file(sheet)
    root = ElementTree.fromstring(text)
    assert any(node.text == "best: <c0> (numbers: Dice)" for node in root.iter(f"{XLINK}text"))
    names = {node.get("id") for node in root.iter() if node.get("id")}
    assert {f"#{name}" for name in names} == {node.get("href") for node in root.iter(f"{XLINK}use")}
    assert all((node.get("href") or "").startswith("data:image/webp;base64,") for node in root.iter(f"{XLINK}image"))
    bare = re.sub(r"base64,[A-Za-z0-9+/=]+", "", text)
    assert re.findall(r"https?:(?!//www.w3.org/2000/svg)|url\(|<script| on[a-z]+=", bare) == []
    assert text == sheet_file(sheet)


def test_many_labels_leave_the_key_inside_the_drawing() -> None:
    case = flat_case(7)
    names = {label: f"a structure of a long name, number {label}" for label in range(30)}
    sheet = draw_sheet("Many", (), [("", [case.view()])], names)
    assert sheet.key == ()
    found = sheet_of_cases({"c0": case}, {"best": "c0"}, ("a",), names, scored())
    assert 0 < len(found.key) < 30
    assert all(x < WIDTH - 200 for x, *_ in found.key)
