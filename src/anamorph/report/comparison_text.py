"""A comparison in words and tables: for the terminal, as Markdown and as LaTeX."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from anamorph.evaluation.comparison import Column, Comparison
from anamorph.evaluation.notes import notes_on
from anamorph.evaluation.statistics import Summary
from anamorph.report.tables import MISSING

if TYPE_CHECKING:
    from rich.table import Table

MOST_DECIMALS = 6
NARROWEST_METHOD = 12
BETWEEN_COLUMNS = 3
LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", '"': r"\textquotedbl{}", "±": r"$\pm$", "↑": r"$\uparrow$", "↓": r"$\downarrow$",
    "†": r"$\dagger$", "‡": r"$\ddagger$", "∞": r"$\infty$", "≤": r"$\leq$", "‰": r"\textperthousand{}", MISSING: "--",
}  # fmt: skip
LATEX_MARKS = {"*": "*", "†": r"\dagger", "‡": r"\ddagger"}
MARKDOWN = re.compile(r"([\\`*\[\]<>|])")


@dataclass(frozen=True)
class Shown:
    """One cell as text.

    Args:
        text: mean and standard deviation; a dash where there is none.
        note: how many cases it stands for, where that is not all of them.
        superscript: of ``Cell``.
        place: of ``Cell``.
    """

    text: str
    note: str = ""
    superscript: str = ""
    place: int = 0


def shown(found: Comparison, column: Column, method: str) -> Shown:
    """What a table says of one method in one column."""
    cell = column.cells.get(method)
    if cell is None:
        return Shown(MISSING)
    n, part = cell.summary.n, column.label and column.alone
    asked = len(cell.values) + len(cell.absent) + len(cell.failed) if part else len(found.cases)
    note = f"n={n}" if n != asked else ""
    if not n:
        return Shown(MISSING, note)
    return Shown(mean_and_sd(column, cell.summary), note, cell.superscript, cell.place)


def mean_and_sd(column: Column, summary: Summary) -> str:
    """Both with the decimals that suit the column: three digits, and at least two of what is far below the others.

    What has none of its digits within six decimals is rounding, and 0.
    """
    means = [abs(cell.summary.mean) for cell in column.cells.values() if cell.summary.n]
    usual = min((size for size in means if size > max(means) / 20), default=0.0)
    decimals = max(_digits(usual, 3), _digits(abs(summary.mean), 2))
    if summary.mean == 0 and not summary.sd > 0:
        return "0"
    spread = "" if math.isnan(summary.sd) else f" ± {summary.sd:.{decimals}f}"
    text = f"{summary.mean:.{decimals}f}{spread}"
    return text if any(digit in text for digit in "123456789") else "0"


def alike(values: Sequence[float]) -> list[str]:
    """Numbers of one kind, all with the decimals that give the largest three digits; a dash for NaN."""
    decimals = _digits(max((abs(value) for value in values if not math.isnan(value)), default=0.0), 3)
    return [MISSING if math.isnan(value) else f"{value:.{decimals}f}" for value in values]


def heading(column: Column) -> str:
    """Title, unit and the way that is better: ``HD95 (mm) ↓``."""
    name = f"{column.title} ({column.unit})" if column.unit else column.title
    return f"{name} {column.about.arrow}".strip()


def key(found: Comparison) -> list[str]:
    """What the marks mean; of a single method, which has none, what a cell holds."""
    if len(found.methods) == 1:
        return ["mean ± standard deviation over cases"]
    share = f"{100 * (1 - 2 * found.level):.4g} %"
    test = (
        f"one-sided paired test of the mean difference, {found.repetitions} bootstrap repetitions, "
        f"{share} interval, p ≤ {found.level:g}" + (", Holm's correction" if found.corrected else "")
    )
    lines = ["mean ± standard deviation over cases; bold: best, underlined: second best"]
    if found.reference:
        return [*lines, f"*: {found.reference} is better, ‡: better than {found.reference} ({test})"]
    return [*lines, f"*: the best is better, †: the second best is better ({test})"]


def as_markdown(found: Comparison) -> str:
    """The leading columns as a table, with its key and notes; bold is the best, underlined the second best."""

    def cell(column: Column, method: str) -> str:
        what = shown(found, column, method)
        text = what.text + (f" ({what.note})" if what.note else "")
        text = {1: f"**{text}**", 2: f"<u>{text}</u>"}.get(what.place, text)
        return text + (f"<sup>{_markdown(what.superscript)}</sup>" if what.superscript else "")

    lines = [
        f"| method | {' | '.join(_markdown(heading(column)) for column in found.leading)} |",
        f"| --- |{' ---: |' * len(found.leading)}",
    ]
    for method in found.methods:
        cells = " | ".join(cell(column, method) for column in found.leading)
        lines.append(f"| {_markdown(method)} | {cells} |")
    remarks = [f"- {_markdown(line)}" for line in (*key(found), *notes_on(found))]
    return "\n".join([*lines, "", *remarks, ""])


def as_latex(found: Comparison) -> str:
    """The leading columns as a table for the booktabs package, with its key and notes as comments."""

    def cell(column: Column, method: str) -> str:
        what = shown(found, column, method)
        text = _latex(what.text)
        text = {1: rf"\textbf{{{text}}}", 2: rf"\underline{{{text}}}"}.get(what.place, text)
        text += f" ({what.note})" if what.note else ""
        marks = "".join(LATEX_MARKS[mark] for mark in what.superscript)
        return text + (f"$^{{{marks}}}$" if marks else "")

    lines = [r"% \usepackage{booktabs}"]
    lines += [f"% {' '.join(line.split())}" for line in (*key(found), *notes_on(found))]
    lines += [rf"\begin{{tabular}}{{l{'r' * len(found.leading)}}}", r"\toprule"]
    lines += [rf"Method & {' & '.join(_latex(heading(column)) for column in found.leading)} \\", r"\midrule"]
    for method in found.methods:
        lines.append(rf"{_latex(method)} & {' & '.join(cell(column, method) for column in found.leading)} \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def terminal_tables(found: Comparison, width: int) -> Iterator[Table]:
    """The leading columns as tables no wider than ``width`` where that can be."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    def cell(column: Column, method: str) -> Text:
        what = shown(found, column, method)
        text = Text().append(what.text, style={1: "bold", 2: "underline"}.get(what.place, ""))
        return text.append(what.superscript).append(f" {what.note}" if what.note else "", style="dim")

    longest = max(map(len, ("Method", *found.methods)))
    name = min(longest, max(NARROWEST_METHOD, width // 3))
    for columns in _blocks(found, width - name, lambda column, method: len(cell(column, method))):
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
        table.add_column("Method", overflow="fold", width=name)
        for column in columns:
            table.add_column(Text(heading(column)), justify="right", no_wrap=True)
        for method in found.methods:
            table.add_row(Text(method), *(cell(column, method) for column in columns))
        yield table


def _blocks(found: Comparison, width: int, length: Callable[[Column, str], int]) -> Iterator[list[Column]]:
    """Columns side by side as far as they fit."""
    block: list[Column] = []
    left = width
    for column in found.leading:
        wide = max(len(heading(column)), *(length(column, method) for method in found.methods)) + BETWEEN_COLUMNS
        if block and wide > left:
            yield block
            block, left = [], width
        block.append(column)
        left -= wide
    if block:
        yield block


def _digits(value: float, digits: int) -> int:
    if not value:
        return 0
    return min(MOST_DECIMALS, max(0, digits - 1 - math.floor(math.log10(value))))


def _markdown(text: str) -> str:
    return MARKDOWN.sub(r"\\\1", " ".join(text.split()))


def _latex(text: str) -> str:
    one_line = " ".join(text.split())
    return "".join(LATEX.get(character, character) for character in one_line if character.isprintable())
