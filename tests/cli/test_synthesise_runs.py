"""``anamorph synthesise`` in process."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from anamorph.cli.synthesise import FORM, NAMES, described
from anamorph.data.cohort_files import read_cohort
from anamorph.data.phantoms.options import OPTIONS

Run = Callable[..., Any]


def test_a_cohort_is_made_and_summed_up(tmp_path: Path, anamorph: Run) -> None:
    out = tmp_path / "letters"
    ended = anamorph(
        "synthesise", "letter_b", "--cases", 4, "--test", 1, "--seed", 2, "--corrupt", "test", "--out", out
    )
    assert ended.code == 0, ended.err
    assert ended.out.splitlines() == [
        "4 cases (3 train, 1 test), 4 scans (grey), 0 pairs",
        "written: letters/cohort.csv",
    ]
    assert "cases:" in ended.err
    assert [scan.split for scan in read_cohort(out).scans] == ["train"] * 3 + ["test"]
    about = json.loads((out / "phantom.json").read_text())
    assert about["options"]["corrupt"] == "test"
    assert about["labels"] == {"1": "letter"}


def test_aligned_pairs_are_deformed_to_a_dice(tmp_path: Path, anamorph: Run) -> None:
    aligned = ("--mean-mm", 0, "--degrees", 0, "--shift-mm", 0, "--no-truth")
    shapes = ("--cases", 2, "--shape", 24, 20, "--labels", 2, "--size-mm", 24)
    assert anamorph("synthesise", "shapes", *shapes, *aligned, "--quiet", "--out", tmp_path / "a").code == 0
    flags = ("--cohort", tmp_path / "a", "--dice", 0.9, "--judged", 1, "--control-mm", 14)
    ended = anamorph("synthesise", "deformed", *flags, "--smoothness-mm", 2, "--out", tmp_path / "b")
    assert ended.code == 0, ended.err
    assert ended.out.startswith("2 cases (2 train), 4 scans (")
    assert "), 4 pairs\nfound: magnitude_mm " in ended.out
    about = json.loads((tmp_path / "b" / "phantom.json").read_text())
    assert about["options"]["judged"] == [1]
    assert about["found"]["dice"] == pytest.approx(0.9, abs=0.03)


def test_pairs_have_maps_unless_they_are_not_wanted(tmp_path: Path, anamorph: Run) -> None:
    flags = ("synthesise", "shapes", "--cases", 2, "--shape", 24, 20, "--labels", 3, "--quiet")
    assert anamorph(*flags, "--out", tmp_path / "with").code == 0
    assert anamorph(*flags, "--no-truth", "--out", tmp_path / "without").code == 0
    assert all(pair.displacement for pair in read_cohort(tmp_path / "with").listed)
    assert not any(pair.displacement for pair in read_cohort(tmp_path / "without").listed)


def test_a_configuration_file_says_the_same_as_flags(tmp_path: Path, anamorph: Run) -> None:
    (tmp_path / "shapes.yaml").write_text("kind: shapes\ncases: 1\noptions: {shape: [20, 16], labels: 2}\n")
    out = tmp_path / "out"
    ended = anamorph("synthesise", "shapes", "--config", tmp_path / "shapes.yaml", "--out", out, "--labels", 3)
    assert ended.code == 0, ended.err
    options = json.loads((out / "phantom.json").read_text())["options"]
    assert (options["shape"], options["labels"]) == ([20, 16], 3)


@pytest.mark.parametrize(
    ("flags", "code", "says"),
    [
        (("hart", "--cases", 1), "E-CFG-010", "did you mean heart?"),
        (("heart",), "E-SYN-003", "--cases"),
        (("heart", "--cases", 0), "E-CFG-010", "--cases"),
        (("heart", "--cases", 1, "--protocol", "plain-t1"), "E-SYN-002", "option of abdomen, not of heart"),
        (("letter_b", "--cases", 1, "--no-tumour"), "E-SYN-002", "option of brain"),
        (("abdomen", "--cases", 1, "--ct-spacing", 2, 2), "E-CFG-010", "--ct-spacing"),
        (("heart", "--cases", 1, "--spacing", -2), "E-CFG-010", "--spacing"),
        (("remapped",), "E-SYN-002", "cohort"),
        (("remapped", "--cohort", "nowhere"), "E-IO-001", "nowhere"),
        (("deformed",), "E-SYN-002", "cohort"),
        (("deformed", "--cohort", "a", "--dice", 0.8, "--magnitude-mm", 3), "E-SYN-002", "the Dice decides"),
        (("deformed", "--cohort", "a", "--dice", 1.5), "E-CFG-010", "--dice"),
        (("letter_b", "--cases", 2, "--validation", 2, "--test", 1), "E-SYN-003", "3 of 2"),
    ],
)
def test_what_does_not_fit_is_refused(flags: tuple, code: str, says: str, tmp_path: Path, anamorph: Run) -> None:
    ended = anamorph("synthesise", *flags, "--out", tmp_path / "out")
    assert ended.code in (2, 3)
    assert ended.err.startswith(code)
    assert says in ended.err


def test_a_folder_that_holds_something_is_left_alone_unless_forced(tmp_path: Path, anamorph: Run) -> None:
    (tmp_path / "thesis.tex").write_text("x")
    flags = ("synthesise", "letter_b", "--cases", 1, "--out", tmp_path)
    ended = anamorph(*flags)
    assert (ended.code, ended.err[:9]) == (2, "E-OUT-016")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
    assert anamorph(*flags, "--force").code == 0
    assert (tmp_path / "thesis.tex").exists()


def test_every_option_has_help_and_a_flag() -> None:
    assert set(NAMES) == {name for model in OPTIONS.values() for name in model.model_fields}
    grouped = [name for members in FORM.groups.values() for name in members]
    assert sorted(grouped) == sorted(NAMES)
    for name in NAMES:
        assert len(described(name).partition("[")[0].split()) > 3
