"""Tables of a comparison in the terminal, in Markdown, LaTeX and CSV."""

from __future__ import annotations

import csv
import io
import math
import re

import pytest
from rich.console import Console

from anamorph.evaluation.comparison import Comparison, compare
from anamorph.evaluation.scores import Score
from anamorph.report.comparison_csv import as_csv, as_tests_csv, as_wide_csv
from anamorph.report.comparison_text import alike, as_latex, as_markdown, heading, key, shown, terminal_tables
from anamorph.report.tables import MISSING


def made_up(methods: tuple[str, ...] = ("none", "ours", "theirs"), cases: int = 10) -> Comparison:
    rows = []
    for k in range(cases):
        for rank, method in enumerate(methods):
            case = f"c{k}"
            value = 0.5 + 0.1 * rank + 0.01 * k
            rows.append(Score("dice_mean", value, case=case, method=method))
            lost = rank == 1 and k == 3
            reason = "infinite for tumour" if lost else ""
            rows.append(
                Score("hd95_mean_mm", math.inf if lost else 10 - 3 * rank + 0.1 * k, "mm", "", reason, case, method)
            )
            if rank:
                rows.append(Score("seconds_cpu", 40.0 / 100**rank, "s", case=case, method=method))
    return compare(rows)


def cells_of(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def test_markdown() -> None:
    lines = as_markdown(made_up()).splitlines()
    assert cells_of(lines[0]) == ["method", "Dice ↑", "HD95 (mm) ↓", "Time, CPU (s) ↓"]
    assert set(lines[1]) <= set("|-: ")
    assert cells_of(lines[2]) == ["none", "0.545 ± 0.030<sup>\\*†</sup>", "<u>10.45 ± 0.30</u><sup>\\*</sup>", MISSING]
    assert cells_of(lines[3])[1:] == [
        "<u>0.645 ± 0.030</u><sup>\\*</sup>", "7.47 ± 0.32 (n=9)<sup>\\*</sup>", "<u>0.400 ± 0.000</u><sup>\\*</sup>"
    ]  # fmt: skip
    assert cells_of(lines[4])[1:] == ["**0.745 ± 0.030**", "**4.45 ± 0.30**", "**0.0040 ± 0.0000**"]
    assert "- ours: no value in 1 of 10 cases (c3) for HD95: infinite for tumour" in lines
    assert any("98 % interval" in line for line in lines)


def test_latex() -> None:
    text = as_latex(made_up(("a_b & 50 %", "{ours}\\", "théirs $x$ ↑")))
    body = [line for line in text.splitlines() if not line.startswith("%")]
    assert body[0] == r"\begin{tabular}{lrrr}"
    assert body[2] == r"Method & Dice $\uparrow$ & HD95 (mm) $\downarrow$ & Time, CPU (s) $\downarrow$ \\"
    assert body[4].startswith(r"a\_b \& 50 \% & 0.545 $\pm$ 0.030$^{*\dagger}$ & \underline{")
    assert body[5].startswith(r"\{ours\}\textbackslash{} & ")
    assert body[6].startswith(r"théirs \$x\$ $\uparrow$ & \textbf{0.745 $\pm$ 0.030}")
    assert body[-2:] == [r"\bottomrule", r"\end{tabular}"]
    assert all(line.count(" & ") == 3 for line in body[4:7])


@pytest.mark.parametrize("width", [60, 80, 140])
def test_the_terminal(width: int) -> None:
    found = made_up(("none", "a method with a name that is longer than most", "theirs"))
    file = io.StringIO()
    console = Console(width=width, file=file, force_terminal=True, color_system="standard")
    for block in terminal_tables(found, width):
        console.print(block)
    printed = file.getvalue()
    plain = re.sub(r"\x1b\[[\d;]*m", "", printed)
    assert max(map(len, plain.splitlines())) <= width
    for text in ("Dice ↑", "HD95 (mm) ↓", "Time, CPU (s) ↓", "0.545 ± 0.030*†", "7.47 ± 0.32* n=9", "0.0040 ± 0.0000"):
        assert text in plain
    assert "\x1b[1m0.745 ± 0.030\x1b[0m" in printed
    assert "\x1b[4m0.645 ± 0.030\x1b[0m*" in printed


def test_the_heading_of_short_names_is_not_broken() -> None:
    (table,) = terminal_tables(compare([Score("dice", 0.5, case="c", method="none")]), 80)
    file = io.StringIO()
    Console(width=80, file=file).print(table)
    assert file.getvalue().splitlines()[0].split() == ["Method", "Dice", "↑"]


def test_decimals_suit_the_column_and_the_value() -> None:
    rows = [
        Score("seconds_cpu", value, "s", case="c", method=name) for name, value in (("slow", 84.123), ("fast", 0.1712))
    ]
    rows.append(Score("seconds_cpu", 0.0, "s", case="c", method="none"))
    found = compare(rows)
    assert [shown(found, found.leading[0], method).text for method in found.methods] == ["84.1", "0.17", "0"]
    tiny = compare([Score("folded_fraction", 1.234e-7, case="c", method="m")])
    assert shown(tiny, tiny.columns[0], "m").text == "0"
    some = compare([Score("folded_fraction", value, case=f"c{value}", method="m") for value in (0.0, 2e-6)])
    assert shown(some, some.columns[0], "m").text == "0.000001 ± 0.000001"
    assert heading(tiny.columns[0]) == "Folded ↓"


def test_numbers_of_one_kind_look_alike() -> None:
    assert alike([0.0431, 0.0258, 0.06]) == ["0.0431", "0.0258", "0.0600"]
    assert alike([-12.34, math.nan, 5.0]) == ["-12.3", MISSING, "5.0"]
    assert alike([math.nan]) == [MISSING]
    assert alike([0.0, 0.0]) == ["0", "0"]


def test_the_key_names_the_reference_and_the_correction() -> None:
    rows = [Score("dice", 0.5, case="c", method=name) for name in ("a", "b")]
    lines = key(compare(rows, reference="a", level=0.05, correct=True))
    assert lines[1].startswith("*: a is better, ‡: better than a (")
    assert "90 % interval, p ≤ 0.05, Holm's correction" in lines[1]


def test_the_key_of_a_single_method_names_no_marks() -> None:
    assert key(compare([Score("dice", 0.5, case="c", method="a")])) == ["mean ± standard deviation over cases"]


def table(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_one_row_a_cell() -> None:
    rows = {(row["method"], row["metric"]): row for row in table(as_csv(made_up()))}
    row = rows["ours", "hd95_mean_mm"]
    assert (row["cases"], row["n"], row["failed"], row["absent"], row["place"]) == ("10", "9", "1", "0", "")
    assert (row["better"], row["unit"], row["marks"]) == ("lower", "mm", "*")
    assert float(row["median"]) == pytest.approx(7.5)
    assert rows["theirs", "dice_mean"]["place"] == "1"
    assert ("none", "seconds_cpu") not in rows


def test_one_row_a_method() -> None:
    none, ours, _ = table(as_wide_csv(made_up()))
    assert float(ours["dice_mean mean"]) == pytest.approx(0.645)
    assert ours["hd95_mean_mm n"] == "9"
    assert none["seconds_cpu mean"] == ""


def test_one_row_a_method_where_a_metric_is_told_part_by_part() -> None:
    rows = [Score("rmse", size, "", f"to {target}", "", target, "a") for target, size in (("ct", 80.0), ("mr", 0.1))]
    (row,) = table(as_wide_csv(compare(rows)))
    assert {name: row[name] for name in row if name.endswith("mean")} == {
        "rmse to ct mean": "80.0", "rmse to mr mean": "0.1",
    }  # fmt: skip


def test_one_row_a_test() -> None:
    rows = table(as_tests_csv(made_up()))
    (row,) = [row for row in rows if (row["metric"], row["better"], row["worse"]) == ("hd95_mean_mm", "theirs", "ours")]
    assert (row["n"], row["left_out"], row["significant"]) == ("9", "c3", "yes")
    assert float(row["gain"]) == pytest.approx(3)
    assert 0 < float(row["low"]) <= float(row["gain"]) <= float(row["high"])
    few = table(as_tests_csv(made_up(cases=2)))
    assert {row["untested"] for row in few if row["metric"] == "dice_mean"} == {
        "2 pairs, at least 7 are needed for a level of 0.01"
    }
    assert {row["p"] for row in few} == {""}


def test_formulas_become_text() -> None:
    found = made_up(("=1+1", "@a", "-b"))
    assert {row["method"] for row in table(as_csv(found))} == {"'=1+1", "'@a", "'-b"}
    assert {row["better"][0] for row in table(as_tests_csv(found))} == {"'"}
