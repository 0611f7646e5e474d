"""What the head of a report says: the few numbers that decide whether to trust a result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from anamorph.report.inputs import ReportInputs
from anamorph.report.tables import Score, format_value, pair_scores

Tone = Literal["good", "warn", "bad", "plain"]
EVALUATION = "evaluate"
"""The stage that judges a result, which no user of the result waits for."""
SIMILARITIES = ("normalised_mutual_information", "mutual_information", "structural_similarity")


@dataclass(frozen=True)
class Tile:
    """One number with its name, and a note that puts it into context."""

    name: str
    value: str
    unit: str = ""
    note: str = ""
    tone: Tone = "plain"


@dataclass(frozen=True)
class Verdict:
    """The line under the title and the tiles below it."""

    headline: str
    tone: Tone
    tiles: tuple[Tile, ...]


def judge(inputs: ReportInputs) -> Verdict:
    """The verdict that scores, warnings and status add up to."""
    scores = pair_scores(inputs.scores)
    candidates = (
        _labels(inputs),
        _translation(inputs, scores),
        _atlases(inputs),
        _folding(scores),
        _compared(scores, "Landmark error", ("tre_mean_mm",), lower_is_better=True),
        _compared(scores, "Dice", ("dice_mean",), lower_is_better=False),
        _distance(inputs, scores),
        _compared(scores, "Similarity", SIMILARITIES, lower_is_better=False),
        _inverse(scores),
        _consistency(scores),
        _time(inputs),
    )
    tiles = tuple(tile for tile in candidates if tile is not None)
    if inputs.status == "failed":
        return Verdict("Failed", "bad", tiles if scores else ())
    doubts = [tile.name.lower() for tile in tiles if tile.tone == "bad"]
    if doubts:
        return Verdict(f"Complete, but look at: {', '.join(doubts)}", "bad", tiles)
    if inputs.warnings:
        count = len(inputs.warnings)
        return Verdict(f"Complete, with {count} warning{'s' if count > 1 else ''}", "warn", tiles)
    return Verdict("Complete", "good", tiles)


def _first(scores: Sequence[Score], metrics: Sequence[str]) -> Score | None:
    """The score of the whole image for the first of ``metrics`` that has a value."""
    values = {score.metric: score for score in scores if score.after is not None and not score.label}
    return next((values[metric] for metric in metrics if metric in values), None)


def _labels(inputs: ReportInputs) -> Tile | None:
    """How many of the labels that it looked for a segmentation found."""
    if inputs.kind != "segmentation" or inputs.found_labels is None or not inputs.label_names:
        return None
    there = set(np.unique(inputs.found_labels).tolist())
    missing = [name for label, name in inputs.label_names.items() if label not in there]
    count = len(inputs.label_names)
    if not missing:
        return Tile("Labels found", f"{count}", note="each has voxels", tone="good")
    note = f"none of {', '.join(missing[:3])}" + (", ..." if len(missing) > 3 else "")
    return Tile("Labels found", f"{count - len(missing)} of {count}", note=note, tone="bad")


def _atlases(inputs: ReportInputs) -> Tile | None:
    """How many of the atlases took part."""
    if not inputs.atlases:
        return None
    used, failed = (sum(bool(atlas[kind]) for atlas in inputs.atlases) for kind in ("used", "failure"))
    if failed:
        return Tile("Atlases", f"{used} of {used + failed}", note=f"{failed} failed", tone="warn")
    count = len(inputs.atlases)
    return Tile("Atlases", str(used), note="all of them" if used == count else f"the likest of {count}")


def _distance(inputs: ReportInputs, scores: Sequence[Score]) -> Tile | None:
    """Of a segmentation's surfaces from the true ones."""
    score = _first(scores, ("hd95_mean_mm",)) if inputs.kind == "segmentation" else None
    if score is None:
        return None
    return Tile("HD95", format_value(score.after, score.unit), score.unit, "mean over the labels")


def _translation(inputs: ReportInputs, scores: Sequence[Score]) -> Tile | None:
    """How far translated intensities are from the true ones."""
    error, ratio = (_first(scores, (name,)) for name in ("rmse", "psnr_db"))
    if inputs.kind != "translation" or error is None:
        return None
    note = "" if ratio is None else f"PSNR {format_value(ratio.after, ratio.unit)} dB"
    return Tile("RMSE", format_value(error.after, error.unit), note=note)


def _folding(scores: Sequence[Score]) -> Tile | None:
    score = _first(scores, ("folded_fraction",))
    if score is None or score.after is None:
        return None
    if not score.after:
        return Tile("Folding", "None", note="the map keeps the topology", tone="good")
    return Tile("Folding", format_value(100 * score.after, "%"), "%", "of the voxels fold", "bad")


def _compared(scores: Sequence[Score], name: str, metrics: Sequence[str], *, lower_is_better: bool) -> Tile | None:
    """A metric after registration, against what it was before."""
    score = _first(scores, metrics)
    if score is None or score.after is None:
        return None
    notes = [score.title.partition(", ")[2] or (score.title if score.title != name else "")]
    tone: Tone = "plain"
    if score.before is not None:
        notes.append(f"{format_value(score.before, score.unit)} before")
        if score.after != score.before:
            tone = "good" if (score.after < score.before) == lower_is_better else "bad"
    note = ", ".join(filter(None, notes))
    return Tile(name, format_value(score.after, score.unit), score.unit, note, tone)


def _inverse(scores: Sequence[Score]) -> Tile | None:
    score = _first(scores, ("inverse_residual_p95_mm", "inverse_residual_mean_mm"))
    if score is None:
        return None
    return Tile("Inverse residual", format_value(score.after, score.unit), score.unit, score.title.partition(", ")[2])


def _consistency(scores: Sequence[Score]) -> Tile | None:
    """How far the two maps of a method that registers both ways are from inverses of each other."""
    score = _first(scores, ("inverse_consistency_p95_mm",))
    if score is None:
        return None
    note = f"{score.title.partition(', ')[2]}; there by one field, back by the other"
    return Tile("Inverse consistency", format_value(score.after, score.unit), score.unit, note)


def in_seconds(seconds: float) -> str:
    """A time of less than minutes."""
    return f"{seconds:.1f}" if seconds >= 1 else f"{seconds:.2f}"


def _time(inputs: ReportInputs) -> Tile | None:
    of_stages = {name: seconds for name, seconds in inputs.seconds_by_stage.items() if name != EVALUATION}
    seconds = sum(of_stages.values())
    if not seconds:
        return None
    stages = "in 1 stage" if len(of_stages) == 1 else f"in {len(of_stages)} stages"
    if EVALUATION in inputs.seconds_by_stage:
        stages += f"; {in_seconds(inputs.seconds_by_stage[EVALUATION])} s to evaluate"
    if seconds < 100:
        return Tile("Time", in_seconds(seconds), "s", stages)
    return Tile("Time", f"{int(seconds) // 60}:{int(seconds) % 60:02d}", "min", stages)
