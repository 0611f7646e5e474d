"""The page of an experiment: one file that loads nothing, shows what there is, and leads to the other pages."""

from __future__ import annotations

import re

import numpy as np

from anamorph.evaluation.comparison import Comparison, compare
from anamorph.evaluation.scores import Score
from anamorph.report.charts import bars, lines
from anamorph.report.experiment_html import ExperimentFigures, render_experiment
from anamorph.report.experiment_sheets import Case, sheet_of_cases, sheet_of_examples

FACTS = {"command": "anamorph experiment a.yaml", "versions": {"torch": "2.13"}}
TRAINED = {"net": {"epochs": 4, "seconds": 61.25}}


def found() -> dict[str, Comparison]:
    rows = [
        Score("dice", 0.2 + 0.1 * k, case=f"c{k}", method=method)
        for method in ("<b>", "k 1", "k 2", "k 3")
        for k in range(3)
    ]
    return {"clean": compare(rows), "corrupt": compare(rows)}


def page(figures: ExperimentFigures, groups: dict[str, Comparison] | None = None) -> str:
    tables = {"clean": "clean/comparison.html", "corrupt": "corrupt/comparison.html"}
    runs = {"net": "../runs/net/report.html"}
    return render_experiment(
        "Letters <&>", "What <is> asked.\n", groups or found(), TRAINED, FACTS, figures, tables, runs
    )


def figures() -> ExperimentFigures:
    labels = np.zeros((8, 8), np.int32)
    labels[2:6, 2:6] = 1
    case = Case(np.arange(64, dtype=np.float32).reshape(8, 8), np.eye(3), None, labels, {"k 1": labels})
    sheets = {
        group: sheet_of_cases({"c0": case}, {"best": "c0"}, ("k 1",), {1: "l"}, comparison)
        for group, comparison in found().items()
    }
    atlases = {"net": [("epoch 0", "data:image/webp;base64,AAAA"), ("epoch 4", "data:image/webp;base64,BBBB")]}
    return ExperimentFigures(
        bars(found()), lines(found()), sheet_of_examples({"some": [case]}, {1: "l"}), sheets, atlases
    )


def test_everything_is_shown() -> None:
    html = page(figures())
    text = " ".join(re.sub(r"<style>.*?</style>|<[^>]*>", " ", html, flags=re.DOTALL).split())
    for words in ("Letters &lt;&amp;&gt;", "What &lt;is&gt; asked.", "&lt;b&gt;", "best: c0", "Atlas of net", "61.2"):
        assert words in text, words
    assert html.count("<table") == 3
    assert html.count('class="figure"') == 5
    assert html.count("<figcaption>epoch") == 2
    for link in ("clean/comparison.html", "corrupt/comparison.html", "../runs/net/report.html"):
        assert f'href="{link}"' in html, link


def test_what_there_is_not_leaves_no_section() -> None:
    html = page(ExperimentFigures(), {"": found()["clean"]})
    assert 'class="figure"' not in html
    for name in ("means", "cases"):
        assert f'id="{name}"' not in html
        assert f'href="#{name}"' not in html


def test_nothing_points_outside_and_references_find_one_target() -> None:
    html = page(figures())
    bare = re.sub(r"base64,[A-Za-z0-9+/=]+", "", html)
    assert re.findall(r"https?:(?!//www.w3.org/2000/svg)|@import|url\(|<script| style=| on[a-z]+=", bare) == []
    assert bare.count("<style>") == 1  # drawings bring none, which the policy would refuse
    names = re.findall(r' id="([^"]+)"', html)
    assert len(names) == len(set(names))
    assert {link for link in re.findall(r'href="#([^"]+)"', html)} <= set(names)
