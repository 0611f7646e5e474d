"""The page and the record of an experiment: tables, trainings, and where the numbers come from."""

from __future__ import annotations

import json
import math

from anamorph.evaluation.comparison import compare
from anamorph.evaluation.scores import Score
from anamorph.report.experiment import experiment_page, experiment_record

FACTS = {"command": "anamorph experiment a.yaml", "threads": 2, "versions": {"torch": "2.13", "numpy": "2.5"}}
TRAINED = {
    "voxelmorph-mi": {"epochs": 4, "seconds": 61.25, "scores": {"dice": 0.5}, "note": None},
    "lapirn": {"epochs": 2},
}


def scores(method: str, value: float) -> list[Score]:
    rows = [Score("dice", value + 0.01 * k, label="liver", case=f"c{k}", method=method) for k in range(3)]
    lost = Score("hd95_mm", math.inf, "mm", "liver", "empty in the result", "c0", method)
    return [*rows, lost, Score("hd95_mm", 4.0, "mm", "liver", case="c1", method=method)]


def found():
    return {"": compare([*scores("none", 0.25), *scores("ours", 0.75)], metrics=("dice",), labels=("liver",))}


def test_the_page() -> None:
    lines = experiment_page("Baselines", "What is asked.\n", found(), TRAINED, FACTS).splitlines()
    assert lines[:3] == ["# Baselines", "", "What is asked."]
    assert "| method | Dice, liver ↑ |" in lines
    assert any(line.startswith("| ours | **0.760 ± 0.010**") for line in lines)
    trainings = lines.index("## Trainings")
    assert lines[trainings + 2] == "| training | epochs | seconds | note |"
    assert lines[trainings + 4 : trainings + 6] == ["| voxelmorph-mi | 4 | 61.2 |  |", "| lapirn | 2 |  |  |"]
    assert lines[-3:] == ["- command: anamorph experiment a.yaml", "- threads: 2", "- versions: torch 2.13, numpy 2.5"]


def test_without_trainings_the_page_has_no_heading_for_them() -> None:
    page = experiment_page("Engines", "", found(), {}, FACTS)
    assert "## Trainings" not in page
    assert "\n\n\n" not in page


def test_groups_of_cases_have_headings_of_their_own() -> None:
    groups = {"clean": compare(scores("ours", 0.5)), "corrupt": compare(scores("ours", 0.25))}
    lines = experiment_page("Letters", "", groups, {}, FACTS).splitlines()
    assert [line for line in lines if line.startswith("## ")][:2] == ["## clean", "## corrupt"]


def test_the_record_holds_every_cell_and_no_number_that_json_lacks() -> None:
    all_of_it = {"": compare([*scores("none", 0.25), *scores("ours", 0.75)])}
    record = experiment_record("Baselines", all_of_it, TRAINED, FACTS, {"title": "Baselines"})
    again = json.loads(json.dumps(record, allow_nan=False))
    assert (again["what"], again["threads"], again["trained"]["lapirn"]) == ("Baselines", 2, {"epochs": 2})
    table = again["tables"][""]
    assert table["cases"] == 3
    cells = {(row["metric"], row["method"]): row for row in table["rows"]}
    assert math.isclose(cells["dice", "ours"]["mean"], 0.76)
    distance = cells["hd95_mm", "none"]
    assert (distance["n"], distance["failed"], distance["mean"], distance["sd"]) == (1, 1, 4.0, None)  # c2 is nobody's
    assert any("empty in the result" in note for note in table["notes"])


def test_figures_stand_behind_the_tables() -> None:
    shown = {"a_means.svg": "Means of the methods", "a_cases.svg": "Cases"}
    lines = experiment_page("Letters", "", found(), TRAINED, FACTS, shown).splitlines()
    pictures = [line for line in lines if line.startswith("![")]
    assert pictures == ["![Means of the methods](a_means.svg)", "![Cases](a_cases.svg)"]
    assert lines.index("| method | Dice, liver ↑ |") < lines.index(pictures[0]) < lines.index("## Trainings")
