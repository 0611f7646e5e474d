"""What the head of a report says: the few numbers that decide whether to trust a registration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from anamorph.report.inputs import ReportInputs
from anamorph.report.tables import Score, format_value, mean, pair_scores

Tone = Literal["good", "warn", "bad", "plain"]
SIMILARITIES = ("nmi", "mi", "mutual_information", "normalised_mutual_information", "ssim", "ncc")


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
        _folding(scores),
        _compared(scores, "Landmark error", ("tre",), lower_is_better=True),
        _compared(scores, "Dice", ("dice",), lower_is_better=False),
        _compared(scores, "Similarity", SIMILARITIES, lower_is_better=False),
        _inverse(scores),
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


def _named(scores: Sequence[Score], names: Sequence[str]) -> list[Score]:
    """The scores of the first of ``names`` that has any; ``tre`` also finds ``tre_mean_mm``."""
    for name in names:
        found = [s for s in scores if s.metric == name or s.metric.startswith(f"{name}_")]
        if found:
            return found
    return []


def _folding(scores: Sequence[Score]) -> Tile | None:
    found = [s for s in _named(scores, ("folding", "folded", "folds")) if s.after is not None]
    if not found:
        return None
    score = next((s for s in found if "fraction" in s.metric or "percent" in s.metric), found[0])
    if not score.after:
        return Tile("Folding", "None", note="the map keeps the topology", tone="good")
    return Tile("Folding", format_value(score.after, score.unit), score.unit, "of the voxels fold", "bad")


def _compared(scores: Sequence[Score], name: str, metrics: Sequence[str], *, lower_is_better: bool) -> Tile | None:
    """The mean of one metric over its labels, against what it was before."""
    found = [s for s in _named(scores, metrics) if s.after is not None]
    same = [s for s in found if s.metric == found[0].metric]
    if not same:
        return None
    unit = same[0].unit
    after = mean([s.after for s in same if s.after is not None])
    notes = [f"mean of {len(same)} labels" if len(same) > 1 else same[0].title.partition(", ")[2]]
    earlier = [s.before for s in same if s.before is not None]
    tone: Tone = "plain"
    if earlier:
        before = mean(earlier)
        notes.append(f"{format_value(before, unit)} before")
        if after != before:
            tone = "good" if (after < before) == lower_is_better else "bad"
    return Tile(name, format_value(after, unit), unit, ", ".join(note for note in notes if note), tone)


def _inverse(scores: Sequence[Score]) -> Tile | None:
    found = [s for s in _named(scores, ("inverse_residual", "inverse")) if s.after is not None]
    if not found:
        return None
    score = next((s for s in found if "p95" in s.metric), found[0])
    return Tile("Inverse residual", format_value(score.after, score.unit), score.unit, score.title.partition(", ")[2])


def _time(inputs: ReportInputs) -> Tile | None:
    seconds = sum(inputs.seconds_by_stage.values())
    if not seconds:
        return None
    stages = f"in {len(inputs.seconds_by_stage)} stages"
    if seconds < 100:
        return Tile("Time", f"{seconds:.1f}", "s", stages)
    return Tile("Time", f"{int(seconds) // 60}:{int(seconds) % 60:02d}", "min", stages)
