"""The page of a comparison: one file without scripts, nothing from outside, everything escaped, everything told."""

from __future__ import annotations

import base64
import hashlib
import math
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from anamorph.evaluation.comparison import compare
from anamorph.evaluation.scores import Score
from anamorph.report.comparison import render_comparison
from anamorph.report.sheet import View, draw_sheet, telling_plane

HOSTILE = "<script>alert('1')</script>\"&{{ 7*7 }}"
VOID = {"meta", "link", "img", "br", "hr", "input"}


class Page(HTMLParser):
    """Elements with their attributes, the text of styles, and the text a reader sees; every element is closed."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.styles: list[str] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        (self.styles if self.open and self.open[-1] == "style" else self.words).append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def made_up(
    methods: tuple[str, ...] = ("none", "ours", "theirs"), labels: tuple[str, ...] = ("liver", "cyst"), n: int = 9
):
    rows = []
    for k in range(n):
        for rank, method in enumerate(methods):
            for place, label in enumerate(labels):
                value = 0.5 + 0.1 * rank - 0.02 * place + 0.01 * k
                rows.append(Score("dice", value, label=label, case=f"case {k}", method=method))
            lost = rank == 1 and k == 3
            distance = math.inf if lost else 10 - 3 * rank + 0.1 * k
            rows.append(Score("hd95_mean_mm", distance, "mm", "", "lost" if lost else "", f"case {k}", method))
            rows.append(Score("jacobian_max", 2.0 + 0.1 * k, case=f"case {k}", method=method))
    return rows


def page_of(rows: list[Score], **asked: object) -> Page:
    return Page(render_comparison(compare(rows, **asked), {"scores.csv": "a1b2c3" * 10}))  # type: ignore[arg-type]


def test_the_policy_allows_one_style_and_no_script() -> None:
    page = page_of(made_up())
    (policy,) = [a["content"] for _, a in page.elements if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy is not None
    digest = base64.b64encode(hashlib.sha256("".join(page.styles).encode()).digest()).decode()
    assert policy.startswith(f"default-src 'none'; style-src 'sha256-{digest}';")
    assert "script-src" not in policy
    assert "script" not in {tag for tag, _ in page.elements}
    tags = [tag for tag, _ in page.elements]
    assert tags.index("meta") < tags.index("style")


def test_nothing_points_outside_and_nothing_is_styled_inline() -> None:
    html = render_comparison(compare(made_up()))
    assert re.findall(r"https?:|//[a-z]|@import|url\(", html) == []
    for _, attributes in Page(html).elements:
        for name in ("href", "src"):
            assert (attributes.get(name) or "#").startswith(("#", "data:"))
        assert not any(name.startswith("on") or name == "style" for name in attributes)


def test_names_are_text_wherever_they_stand() -> None:
    rows = made_up((HOSTILE, "ours"), (HOSTILE, "cyst"))
    rows = [Score(r.metric, r.value, r.unit, r.label, r.reason, HOSTILE + r.case, r.method) for r in rows]
    html = render_comparison(compare(rows), {HOSTILE: "00"}, HOSTILE)
    assert "<script" not in html
    page = Page(html)
    assert HOSTILE in page.text
    assert "49" not in re.findall(r"\{\{ 7\*7 \}\}|49(?=\D*alert)", page.text)


def test_every_reference_finds_one_target() -> None:
    page = page_of(made_up())
    names = [attributes["id"] for _, attributes in page.elements if attributes.get("id")]
    assert len(names) == len(set(names))
    wanted = {(a.get("href") or "")[1:] for _, a in page.elements if (a.get("href") or "").startswith("#")}
    assert wanted - set(names) == set()


def test_everything_is_told() -> None:
    text = page_of(made_up()).text
    for words in (
        "3 methods on 9 cases",
        "Best Dice 0.730 theirs",
        "ours: no value in 1 of 9 cases (case 3) for HD95: lost",
        "HD95 (mm) ↓",
        "n=8",
        "1 failed",
        "none across, theirs up; theirs is better in 9 of 9",
        "Hardest cases for theirs",
        "By label",
        "Is this better",
        "without case 3",
        "Largest Jacobian",
        "10000 repetitions, seed 0",
        "sha256 a1b2c3a1b2c3",
    ):
        assert words in text, words


def test_what_there_is_not_leaves_its_section_out() -> None:
    whole = [score for score in made_up() if not score.label]
    assert "By label" not in page_of(whole).text
    nothing = [Score("dice", math.nan, "", "a", "empty in both images", f"c{k}", m) for k in range(3) for m in "AB"]
    text = page_of(nothing).text
    assert "Case by case" not in text
    assert "There is nothing to test" in text


@pytest.mark.parametrize("methods", [("only one",), ("ours", "theirs")])
def test_one_case_and_one_method(methods: tuple[str, ...]) -> None:
    text = page_of(made_up(methods, n=1)).text
    assert f"{len(methods)} method{'s' if len(methods) > 1 else ''} on 1 case" in text
    assert ("1 pair, at least 7 are needed" in text) == (len(methods) > 1)


def test_parts_on_other_scales_share_neither_a_mean_nor_colours() -> None:
    sizes = {"to ct": 80.0, "to mr": 0.1, "to mr, inside the mask": 0.2}
    rows = [
        Score("rmse", size + 0.01 * k + rank, label=label, case=f"{label[:5]}{k}", method=method)
        for label, size in sizes.items() for k in range(2) for rank, method in enumerate("ab")
    ]  # fmt: skip
    page = page_of(rows)
    assert "By label" not in page.text
    everything = page.text.rpartition("Every metric")[2]
    assert [everything.count(f"RMSE, {label} (") + everything.count(f"RMSE, {label} ↓") for label in sizes] == [1, 1, 1]
    assert "RMSE ↓" not in page.text
    assert page.text.count("Best RMSE, to") == 2


def test_pictures_of_single_cases() -> None:
    plane = telling_plane((16, 16), np.eye(3), np.ones((16, 16)), [])
    sheets = {
        f"{HOSTILE} to {name}": draw_sheet("a", (HOSTILE,), [("", [View(plane, np.eye(16) * k, (0.0, 2.0))])], {})
        for k, name in enumerate(("ct", "mr"), 1)
    }
    page = Page(render_comparison(compare(made_up()), pictures=sheets))
    assert f"Pictures {' '.join(HOSTILE.split())} to ct" in page.text
    names = [attributes["id"] for _, attributes in page.elements if attributes.get("id")]
    assert len(names) == len(set(names))
    assert "pictures" in names
    assert sum((attributes.get("href") or "").startswith("data:image") for _, attributes in page.elements) == 2
    assert "Pictures" not in page_of(made_up()).text


def test_a_title_of_ones_own() -> None:
    page = Page(render_comparison(compare(made_up()), title="Evaluation on hippocampus"))
    assert "Evaluation on hippocampus 3 methods on 9 cases: none, ours, theirs" in page.text


def test_138_labels_are_colours_and_the_page_stays_small() -> None:
    html = render_comparison(compare(made_up(labels=tuple(f"region {k}" for k in range(138)), n=7)))
    assert html.count("heat-") > 138
    assert html.count('class="label-boxes"') == 0
    assert len(html) < 400_000
    few = render_comparison(compare(made_up(n=7)))
    assert few.count('class="label-boxes"') == 1


def test_the_same_scores_give_the_same_page() -> None:
    assert render_comparison(compare(made_up())) == render_comparison(compare(made_up()))
