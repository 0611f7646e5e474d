"""``anamorph compare`` from tables of scores to files and the terminal."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from anamorph.data.cohort import Pair
from anamorph.data.image import Image
from anamorph.evaluation.scores import Score, to_csv
from anamorph.inference import contenders
from anamorph.inference.contenders import Registered, Registrar
from anamorph.spatial.transform import Affine

WRITTEN = {
    "comparison.csv", "comparison_wide.csv", "comparison_tests.csv", "comparison.md", "comparison.tex",
    "comparison.html", "run.json",
}  # fmt: skip


def scores_of(method: str, start: float, cases: int = 8) -> list[Score]:
    rows = []
    for k in range(cases):
        case = f"case {k}"
        rows.append(Score("dice", start + 0.01 * k, label="liver", case=case, method=method))
        rows.append(Score("dice", start - 0.1 + 0.01 * k, label="cyst", case=case, method=method))
        lost = method == "ours" and k == 2
        reason = "empty in the result" if lost else ""
        distance = math.inf if lost else 10 * (1 - start) + 0.1 * k
        rows.append(Score("hd95_mm", distance, "mm", "liver", reason, case, method))
    return rows


@pytest.fixture
def runs(tmp_path: Path) -> dict[str, Path]:
    """Run folders with a scores.csv each."""
    folders = {}
    for method, start in (("none", 0.5), ("ours", 0.8), ("theirs", 0.7)):
        folders[method] = tmp_path / "runs" / method
        folders[method].mkdir(parents=True)
        (folders[method] / "scores.csv").write_text(to_csv(scores_of(method, start)), encoding="utf-8")
    return folders


def test_files_and_table(anamorph: Callable[..., Any], runs: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "comparison"
    ended = anamorph("compare", runs["none"], runs["ours"] / "scores.csv", runs["theirs"], "--out", out)
    assert (ended.code, ended.err) == (0, "")
    assert {path.name for path in out.iterdir()} == WRITTEN
    for words in ("Dice ↑", "HD95 (mm) ↓", "0.785 ± 0.024", "n=7", "infinite for liver", "page: "):
        assert words in ended.out, words
    record = json.loads((out / "run.json").read_text(encoding="utf-8"))
    assert (record["status"], record["command"]) == ("complete", "compare")
    assert set(record["outputs"]) == WRITTEN - {"run.json"}
    assert set(record["inputs"]) == {"none", "ours", "theirs"}
    assert str(tmp_path) not in (out / "run.json").read_text(encoding="utf-8")
    assert "3 methods on 8 cases" in (out / "comparison.html").read_text(encoding="utf-8")


def test_choices(anamorph: Callable[..., Any], runs: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "comparison"
    ended = anamorph(
        "compare", *runs.values(), "--out", out, "--metrics", "dice", "--labels", "liver", "cyst",
        "--reference", "ours", "--alpha", "0.05", "--holm", "--format", "md",
    )  # fmt: skip
    assert ended.code == 0
    assert {path.name for path in out.iterdir()} == {"comparison.md", "run.json"}
    head, _, none, *_ = (out / "comparison.md").read_text(encoding="utf-8").splitlines()
    assert head == "| method | Dice, liver ↑ | Dice, cyst ↑ |"
    assert none.startswith("| none | 0.535 ± 0.024<sup>")
    assert "ours is better" in ended.out
    assert "90 % interval, p ≤ 0.05, Holm's correction" in ended.out
    assert "page:" not in ended.out


def test_two_runs_of_one_method_are_told_apart(
    anamorph: Callable[..., Any], runs: dict[str, Path], tmp_path: Path
) -> None:
    (runs["theirs"] / "scores.csv").write_text(to_csv(scores_of("ours", 0.7)), encoding="utf-8")
    ended = anamorph("compare", runs["ours"], runs["theirs"], "--out", tmp_path / "out", "--format", "csv")
    assert ended.code == 0
    assert "W-EVA-005" in ended.err
    assert "ours (ours)" in ended.out
    assert "ours (theirs)" in ended.out
    assert "W-EVA-005" in (tmp_path / "out" / "run.json").read_text(encoding="utf-8")


def test_one_case_says_that_no_test_is_possible(anamorph: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(to_csv(scores_of("a", 0.5, 1)), encoding="utf-8")
    (tmp_path / "b.csv").write_text(to_csv(scores_of("b", 0.6, 1)), encoding="utf-8")
    ended = anamorph("compare", tmp_path / "a.csv", tmp_path / "b.csv", "--out", tmp_path / "out")
    assert ended.code == 0
    assert "No test: 1 pair, at least 7 are needed" in ended.out


def test_what_exists_is_not_replaced_unasked(
    anamorph: Callable[..., Any], runs: dict[str, Path], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "comparison.md").write_text("mine")
    for _ in range(2):
        ended = anamorph("compare", *runs.values(), "--out", out, "--format", "md")
        assert (ended.code, ended.err[:9]) == (2, "E-OUT-016")
    assert (out / "comparison.md").read_text() == "mine"
    assert anamorph("compare", *runs.values(), "--out", out, "--force").code == 0
    assert anamorph("compare", *runs.values(), "--out", out).code == 2
    ended = anamorph("compare", *runs.values(), "--out", runs["ours"], "--force")
    assert (ended.code, ended.err[:9]) == (2, "E-OUT-004")


@pytest.mark.parametrize(
    ("content", "flags", "code", "words"),
    [
        (None, (), 3, "E-IO-001"),
        (b"\xff\xfe", (), 3, "E-EVA-001"),
        (b"a,b\n1,2\n", (), 3, "E-EVA-001"),
        (b"metric,value\ndice,much\n", (), 3, "E-EVA-002: scores.csv: line 2"),
        (b"metric,value\n", (), 3, "E-EVA-003"),
        (b"metric,value\ndice,1\ndice,2\n", (), 3, "E-EVA-003"),
        (b"metric,value\ndice,1\n", ("--metrics", "disc"), 2, "did you mean dice?"),
        (b"metric,value\ndice,1\n", ("--reference", "nobody"), 2, "E-EVA-004"),
        (b"metric,value\ndice,1\n", ("--alpha", "0.6"), 2, "E-CFG-010"),
    ],
)
def test_refusals(
    anamorph: Callable[..., Any], tmp_path: Path, content: bytes | None, flags: tuple[str, ...], code: int, words: str
) -> None:
    scores = tmp_path / "scores.csv"
    if content is not None:
        scores.write_bytes(content)
    ended = anamorph("compare", scores, "--out", tmp_path / "out", *flags)
    assert ended.code == code
    assert words in ended.err
    assert ended.err.count("\n") == 1
    assert not (tmp_path / "out" / "comparison.csv").exists()


def test_other_tools_are_run_on_the_pairs_of_the_scores(
    anamorph: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cohort, runs = tmp_path / "letters", []

    def standing_in(name: str, threads: int, time_limit: float) -> Registrar:
        def run(pair: Pair, fixed: Image, moving: Image) -> Registered:
            runs.append(pair.name)
            return Registered(Affine.identity(2), 1.5, 20.0)

        return Registrar(name, run, name)

    monkeypatch.setattr(contenders, "peer", standing_in)
    anamorph("synthesise", "letter_b", "--cases", 6, "--test", 3, "--out", cohort, "--quiet")
    anamorph("evaluate", cohort, "--methods", "none", "--rule", "between", "--out", tmp_path / "scores")
    out = tmp_path / "out"
    ended = anamorph(
        "compare", tmp_path / "scores", "--peers", "elastix", "ants", "--cohort", cohort, "--out", out, "--quiet"
    )
    assert ended.code == 0, ended.err
    assert len(runs) == 2 * 6  # three test cases, each to each, not the 30 pairs of all six
    rows = (out / "comparison.csv").read_text(encoding="utf-8").splitlines()
    assert {row.split(",")[0] for row in rows[1:]} == {"none", "elastix", "ants"}


def test_peers_need_the_cohort_that_the_scores_are_about(
    anamorph: Callable[..., Any], runs: dict[str, Path], tmp_path: Path
) -> None:
    ended = anamorph("compare", runs["none"], "--peers", "ants", "--out", tmp_path / "out")
    assert (ended.code, "go together" in ended.err) == (2, True)
    anamorph("synthesise", "letter_b", "--cases", 2, "--out", tmp_path / "other", "--quiet")
    flags = ("--peers", "ants", "--cohort", tmp_path / "other", "--out", tmp_path / "out")
    ended = anamorph("compare", runs["none"], *flags)
    assert (ended.code, "E-EVA-013" in ended.err) == (3, True)
