"""The score table, for the page and for the terminal.

A score is a mapping with ``metric label unit value reason`` and, where there are two, the ``stage``: ``before`` or
``after``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Integral
from statistics import fmean
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table

Number = int | float
MISSING = "\N{EN DASH}"
MOST_LABELS_IN_TERMINAL = 12
TITLES = {
    "area_mm2": "Area",
    "asd": "ASD",
    "assd": "ASSD",
    "assd_balanced": "Balanced ASSD",
    "backward_registration_dice": "Dice of the registration, backward",
    "hd": "HD",
    "hd95": "HD95",
    "mice": "MICE",
    "psnr_db": "PSNR",
    "region_average_hd": "Average HD of regions",
    "region_hd": "HD of regions",
    "registration_dice": "Dice of the registration",
    "rmse": "RMSE",
    "rvd": "RVD",
    "sd_log_jacobian": "SD of log Jacobian",
    "segmentation_dice": "Dice of the segmentation",
    "stray": "Outside the largest piece",
    "structural_similarity": "SSIM",
    "translation_rmse": "RMSE of the translation",
    "tre": "Landmark error",
    "voe": "VOE",
    "volume_mm3": "Volume",
}
SUFFIXES = {"mean": "mean", "median": "median", "max": "largest", "min": "smallest", "p95": "95th percentile"}
UNIT = re.compile(r"_(mm|voxels)$")
"""At the end of a metric's name; it stands beside the title."""
SURFACE_DICE = re.compile(r"nsd_([\d.]+)mm")


@dataclass(frozen=True)
class Score:
    """One metric of one label, before and after.

    Args:
        metric: as the rows call it.
        title: as a reader does.
        label: empty where the metric is about the whole image.
        unit: empty where there is none.
        before: None where it was not measured.
        after: None where it is undefined.
        reason: why it is undefined.
    """

    metric: str
    title: str
    label: str
    unit: str
    before: Number | None
    after: Number | None
    reason: str


def pair_scores(rows: Iterable[Mapping[str, Any]]) -> list[Score]:
    """Rows before and after registration side by side, in the order of their first appearance."""
    groups: dict[tuple[str, str], dict[str, Mapping[str, Any]]] = {}
    for row in rows:
        key = (str(row["metric"]), str(row.get("label") or ""))
        groups.setdefault(key, {})[row.get("stage") or "after"] = row
    scores = []
    for (metric, label), stages in groups.items():
        after = stages.get("after", {})
        unit = next((str(row["unit"]) for row in stages.values() if row.get("unit")), "")
        reason = next((str(row["reason"]) for row in stages.values() if row.get("reason")), "")
        before = _number(stages.get("before", {}).get("value"))
        scores.append(Score(metric, metric_title(metric), label, unit, before, _number(after.get("value")), reason))
    return scores


def metric_title(metric: str) -> str:
    """A metric's name in words: ``tre_mean_mm`` is ``Landmark error, mean``."""
    whole = UNIT.sub("", metric)
    stem, _, suffix = whole.rpartition("_")
    if suffix not in SUFFIXES or not stem:
        stem, suffix = whole, ""
    stem = UNIT.sub("", stem)
    surface_dice = SURFACE_DICE.fullmatch(stem)
    words = f"NSD at {surface_dice[1]} mm" if surface_dice else stem.replace("_", " ").capitalize()
    title = TITLES.get(stem, words)
    return f"{title}, {SUFFIXES[suffix]}" if suffix else title


def format_value(value: Number | None, unit: str = "") -> str:
    """A number as a reader wants it: lengths to 0.01 mm, small numbers with two digits, a dash for the undefined."""
    if value is None or math.isnan(value):
        return MISSING
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    if value == 0 or isinstance(value, int):
        return f"{value:.0f}"
    size = abs(value)
    if size < 0.1 or size >= 1e7:
        return f"{value:.2g}"
    decimals = 3 if size < 1 and not unit else 2 if size < 10 else 1 if size < 1000 else 0
    return f"{value:.{decimals}f}"


def score_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """The scores for a terminal 80 columns wide.

    A metric with more than a dozen labels is told by its mean and range.

    Args:
        rows: see the module.
    """
    from rich import box
    from rich.table import Table
    from rich.text import Text

    scores = pair_scores(rows)
    compared = any(score.before is not None for score in scores)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    table.add_column("Metric", overflow="fold", max_width=26)
    table.add_column("Label", overflow="fold")
    if compared:
        table.add_column("Before", justify="right", style="dim", no_wrap=True)
    table.add_column("After" if compared else "Value", justify="right", no_wrap=True)
    table.add_column("Unit", style="dim", overflow="fold", max_width=9)

    last = None
    for score in _shortened(scores):
        new = score.metric != last
        last = score.metric
        shown = [Text(score.title if new else ""), Text(score.label)]
        shown += [Text("" if score.before is None else format_value(score.before, score.unit))] if compared else []
        table.add_row(*shown, Text(format_value(score.after, score.unit)), Text(score.unit))
        if score.reason:
            table.add_row("", Text(score.reason, style="yellow"))
    return table


def _shortened(scores: Sequence[Score]) -> list[Score]:
    """Scores metric by metric, many labels of one metric replaced by mean, smallest and largest."""
    by_metric: dict[str, list[Score]] = {}
    for score in scores:
        by_metric.setdefault(score.metric, []).append(score)
    groups = by_metric.values()
    return [s for group in groups for s in (group if len(group) <= MOST_LABELS_IN_TERMINAL else _summary(group))]


def _summary(group: Sequence[Score]) -> list[Score]:
    before = [score.before for score in group if score.before is not None]
    after = [score.after for score in group if score.after is not None]
    without = len(group) - len(after)
    reason = f"{without} of {len(group)} labels have no value" if without else ""

    def row(label: str, summarise: Callable[[Sequence[Number]], Number], reason: str = "") -> Score:
        values = [summarise(numbers) if numbers else None for numbers in (before, after)]
        return replace(group[0], label=label, before=values[0], after=values[1], reason=reason)

    return [row(f"mean of {len(group)} labels", fmean, reason), row("smallest", min), row("largest", max)]


def _number(value: Any) -> Number | None:
    if value is None or math.isnan(value):
        return None
    return int(value) if isinstance(value, Integral) else float(value)
