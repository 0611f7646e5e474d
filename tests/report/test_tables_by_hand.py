"""Scores as a reader sees them: numbers, tables, the verdict."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from anamorph.report.inputs import ReportInputs
from anamorph.report.tables import format_value, metric_title, pair_scores, score_table
from anamorph.report.verdict import judge


def row(metric: str, value: float | None, label: str = "", unit: str = "", **more: Any) -> dict[str, Any]:
    return {"metric": metric, "label": label, "unit": unit, "value": value, "reason": "", **more}


def printed(rows: list[dict[str, Any]], width: int = 80) -> str:
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(score_table(rows))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (None, "", "\N{EN DASH}"),
        (float("nan"), "mm", "\N{EN DASH}"),
        (float("inf"), "mm", "∞"),
        (0.0, "%", "0"),
        (17, "", "17"),
        (0.91234, "", "0.912"),
        (1.31234, "mm", "1.31"),
        (0.7, "mm", "0.70"),
        (31.27, "mm", "31.3"),
        (0.02103, "mm", "0.021"),
        (1234.5, "", "1234"),
        (-0.412, "", "-0.412"),
        (2.5e7, "", "2.5e+07"),
        (129218.75, "mm3", "129219"),
    ],
)
def test_numbers_have_as_many_digits_as_mean_something(value: float | None, unit: str, text: str) -> None:
    assert format_value(value, unit) == text


@pytest.mark.parametrize(
    ("metric", "title"),
    [
        ("dice", "Dice"),
        ("dice_mean", "Dice, mean"),
        ("hd95_mm", "HD95"),
        ("hd95_mean_mm", "HD95, mean"),
        ("tre_mm", "Landmark error"),
        ("tre_mean_mm", "Landmark error, mean"),
        ("inverse_residual_p95_mm", "Inverse residual, 95th percentile"),
        ("folded_fraction", "Folded fraction"),
        ("folded_voxels", "Folded"),
        ("stray_voxels", "Outside the largest piece"),
        ("stray_voxels_mean", "Outside the largest piece, mean"),
        ("mice_voxels", "MICE"),
        ("mice_mm", "MICE"),
        ("jacobian_min", "Jacobian, smallest"),
        ("nsd_2mm", "NSD at 2 mm"),
        ("nsd_0.5mm", "NSD at 0.5 mm"),
        ("nsd_2mm_mean", "NSD at 2 mm, mean"),
        ("structural_similarity", "SSIM"),
        ("something_new", "Something new"),
    ],
)
def test_metrics_have_names(metric: str, title: str) -> None:
    assert metric_title(metric) == title


def test_before_and_after_come_together() -> None:
    rows = [row("dice", 0.5, "Liver", stage="before"), row("mi", 1.0), row("dice", np.float32(0.75), "Liver")]
    dice, information = pair_scores(rows)
    assert (dice.before, dice.after) == (0.5, 0.75)
    assert (information.before, information.after) == (None, 1.0)


def test_the_terminal_table_fits_80_columns() -> None:
    rows = [row("normalised_mutual_information_of_everything", 1.0, stage="before", unit="nat")]
    rows += [row("dice", 0.9, "a label with a very long name, longer than any column"), row("hd95", 3.0, "b", "mm")]
    rows += [row("assd", None, "b", "mm") | {"reason": "the label is absent from the warped labelmap, so no distance"}]
    text = printed(rows)
    assert max(map(len, text.splitlines())) <= 80
    assert "absent" in text
    assert "0.900" in text


def test_many_labels_are_summed_up() -> None:
    rows = [row("dice", value, f"label {value}") for value in np.linspace(0.5, 0.9, 41).tolist()]
    rows += [row("dice", None, "lost")]
    text = printed(rows)
    assert "mean of 42 labels" in text
    assert "0.700" in text
    assert "0.500" in text
    assert "1 of 42 labels have no value" in text
    assert len(text.splitlines()) < 12


def test_a_label_named_like_markup_is_shown_as_it_is() -> None:
    assert "[red]x[/red]" in printed([row("dice", 0.9, "[red]x[/red]")])


def test_no_scores_make_an_empty_table() -> None:
    assert "Metric" in printed([])


def test_a_good_run_is_complete(made_up: Callable[..., ReportInputs]) -> None:
    verdict = judge(made_up(warnings=()))
    assert (verdict.headline, verdict.tone) == ("Complete", "good")
    tiles = {tile.name: tile for tile in verdict.tiles}
    assert list(tiles) == ["Folding", "Dice", "Time"]
    assert tiles["Folding"].value == "None"
    assert (tiles["Dice"].value, tiles["Dice"].note, tiles["Dice"].tone) == ("0.900", "mean, 0.500 before", "good")
    assert (tiles["Time"].value, tiles["Time"].unit) == ("2.5", "s")


def test_warnings_are_counted(made_up: Callable[..., ReportInputs]) -> None:
    assert judge(made_up()).headline == "Complete, with 1 warning"


@pytest.mark.parametrize(
    ("scores", "named"),
    [
        ([row("folded_fraction", 0.002)], "folding"),
        ([row("tre_mean_mm", 2.0, unit="mm", stage="before"), row("tre_mean_mm", 3.0, unit="mm")], "landmark error"),
        ([row("dice_mean", 0.9, stage="before"), row("dice_mean", 0.8)], "dice"),
        ([row("mutual_information", 1.2, stage="before"), row("mutual_information", 1.1)], "similarity"),
    ],
)
def test_what_got_worse_stands_in_the_headline(
    scores: list[dict[str, Any]], named: str, made_up: Callable[..., ReportInputs]
) -> None:
    verdict = judge(made_up(scores=scores, warnings=()))
    assert verdict.tone == "bad"
    assert verdict.headline == f"Complete, but look at: {named}"


def test_folding_is_told_in_percent(made_up: Callable[..., ReportInputs]) -> None:
    tile = judge(made_up(scores=[row("folded_fraction", 0.0031), row("folded_voxels", 17.0, unit="voxels")])).tiles[0]
    assert (tile.value, tile.unit, tile.note) == ("0.31", "%", "of the voxels fold")


def test_similarity_says_which(made_up: Callable[..., ReportInputs]) -> None:
    scores = [row("mutual_information", 0.5, unit="nats"), row("normalised_mutual_information", 1.1)]
    tile = next(tile for tile in judge(made_up(scores=scores)).tiles if tile.name == "Similarity")
    assert (tile.value, tile.note, tile.tone) == ("1.10", "Normalised mutual information", "plain")


def test_a_score_without_value_makes_no_tile(made_up: Callable[..., ReportInputs]) -> None:
    scores = [row("dice_mean", None), row("tre_mean_mm", float("nan"), unit="mm"), row("folded_fraction", None)]
    assert [tile.name for tile in judge(made_up(scores=scores)).tiles] == ["Time"]


def test_long_runs_are_told_in_minutes(made_up: Callable[..., ReportInputs]) -> None:
    tile = judge(made_up(seconds_by_stage={"all": 125.4})).tiles[-1]
    assert (tile.value, tile.unit) == ("2:05", "min")
