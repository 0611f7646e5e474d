"""The page of a training: what its terms, rates and validation did, what it showed, and what it was asked to do."""

from __future__ import annotations

import base64
import csv
import io
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError

from anamorph.report.curves import Curve, curve, curves
from anamorph.report.document import render_document
from anamorph.report.tables import format_value, metric_title
from anamorph.report.verdict import Tile, Tone

STYLES = ("report.css", "charts.css", "training.css")
COUNTERS = ("epoch", "step", "seconds", "waiting", "overflows")
VALIDATION, HEALTH, RATE = "validation", "health", "rate"
SIDES = ("fixed", "moving")
HEALTH_CHARTS = {
    "answer_real": ("answers, {of}", "real"),
    "answer_fake": ("answers, {of}", "fake"),
    "change": ("distance, to {of}", "translation"),
    "difference": ("distance, to {of}", "true"),
    "contrast": ("contrast over real, to {of}", ""),
    "alternation": ("alternation over real, to {of}", ""),
}
"""What is measured -> the chart and the line's name there."""
MOST_SAMPLES = 6
MOST_SAMPLE_PIXELS = 40_000_000
COLOURS_OF_STRIP = 96
STATES: dict[str, tuple[str, Tone]] = {
    "complete": ("Complete", "good"),
    "running": ("Running", "plain"),
    "interrupted": ("Interrupted; it can be resumed", "warn"),
    "failed": ("Failed", "bad"),
}


def render_training(folder: Path) -> str:
    """The state of a training run as one HTML document that loads nothing, whether it is finished or not.

    Args:
        folder: of the run: ``history.csv``, ``samples``, ``run.json`` and ``environment.json`` are shown as far as they
            are there and can be understood.
    """
    history = _history(folder / "history.csv")
    record, environment = _read_json(folder / "run.json"), _read_json(folder / "environment.json")
    trained = _mapping(record.get("trained"))
    kept = trained.get("epoch_of_weights")
    configuration = _mapping(record.get("configuration"))
    sides = _modalities(_mapping(configuration.get("pairs")))
    groups = list(_groups(history, kept if isinstance(kept, int) else None, sides))
    samples, atlas = (pictures_of(folder / "samples", stem) for stem in ("epoch", "atlas"))
    status, tone = STATES.get(str(record.get("status")), ("No record of the run", "warn"))
    error, warnings = _mapping(record.get("error")), record.get("warnings")
    return render_document(
        "training.html.j2",
        STYLES,
        title=f"Training of {configuration.get('method', 'a method')}",
        sections={
            **{_anchor(name): name for name, _ in groups},
            **({"atlas": "Atlas"} if atlas else {}),
            **({"samples": "Samples"} if samples else {}),
            "run": "Run",
        },
        status=status,
        tone=tone,
        message=str(error.get("message", "")),
        tiles=list(_tiles(history, record, trained)),
        warnings=[str(line) for line in warnings] if isinstance(warnings, list) else [],
        groups=[(_anchor(name), name, charts) for name, charts in groups],
        atlas=list(reversed(atlas)),
        samples=samples,
        settings=list(_flat(configuration)),
        environment=list(_flat(environment)),
    )


def _history(path: Path) -> list[dict[str, float]]:
    """A row an epoch; an empty or broken cell is left out of its row, and a row without an epoch out of the whole."""
    try:
        text = path.read_text(encoding="utf-8")
        table = list(csv.DictReader(io.StringIO(text, newline="")))
    except (OSError, UnicodeDecodeError, csv.Error):
        return []
    rows = [{name: value for name, cell in row.items() if (value := _number(cell)) is not None} for row in table]
    return [row for row in rows if math.isfinite(row.get("epoch", math.nan))]


def _number(cell: Any) -> float | None:
    try:
        return float(cell)
    except (TypeError, ValueError):
        return None


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return _mapping(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _modalities(pairs: Mapping[str, Any]) -> dict[str, str]:
    """What the images of either side are called: by their modality, where pairs are of two."""
    names = {side: pairs.get(f"{side}_modality") for side in SIDES}
    known = len({name for name in names.values() if isinstance(name, str)}) == len(SIDES)
    return {side: str(name) if known else side for side, name in names.items()}


def _groups(
    history: Sequence[Mapping[str, float]], kept: int | None, sides: Mapping[str, str]
) -> Iterator[tuple[str, list[Curve]]]:
    """Validation, then each player's terms, then how adversaries stand, then rates, then time."""
    epochs = [int(row["epoch"]) for row in history]
    names = list(dict.fromkeys(name for row in history for name in row if name not in COUNTERS))
    players = dict.fromkeys(name.partition(".")[0] for name in names if "." in name)
    players.pop(HEALTH, None)

    def values(name: str, scale: float = 1.0) -> dict[int, float]:
        return {int(row["epoch"]): scale * row[name] for row in history if name in row}

    def of(name: str, title: str, mark: int | None = None, scale: float = 1.0) -> Curve:
        return curve(title, values(name, scale), epochs, mark)

    def together(lines: Iterable[tuple[str, str, str]]) -> list[Curve]:
        """Charts of (chart, line, column)."""
        charts: dict[str, dict[str, dict[int, float]]] = {}
        for chart, line, name in lines:
            charts.setdefault(chart, {})[line] = values(name)
        return [curves(chart, of_chart, epochs) for chart, of_chart in charts.items()]

    for player in sorted(players, key=lambda player: player != VALIDATION):
        own = [name for name in names if name.startswith(f"{player}.") and name != f"{player}.{RATE}"]
        if player == VALIDATION:
            yield "Validation", [of(name, metric_title(name.partition(".")[2]), kept) for name in own]
        elif own:
            title = "Terms" if len(players.keys() - {VALIDATION}) == 1 else f"Terms of the {player}"
            yield title, together((*_term(name.partition(".")[2], sides), name) for name in own)
    health = [name for name in names if name.startswith(f"{HEALTH}.")]
    if health:
        yield "Adversaries", together((*_state(name.partition(".")[2], sides), name) for name in health)
    rates = [name for name in names if name.endswith(f".{RATE}")]
    if rates:
        single = len(rates) == 1
        yield "Learning rate", [of(name, "rate" if single else name.partition(".")[0]) for name in rates]
    if any("seconds" in row for row in history):
        charts = [of("seconds", "seconds an epoch")]
        if any("waiting" in row for row in history):
            charts.append(of("waiting", "waiting for data, %", scale=100.0))
        yield "Time", charts


def _term(name: str, sides: Mapping[str, str]) -> tuple[str, str]:
    """Chart and line of a term: what a discriminator is shown goes into one chart a side."""
    side, _, what = name.partition("_")
    return (f"{sides[side]} images", what.replace("_", " ")) if side in sides and what else (name, "")


def _state(name: str, sides: Mapping[str, str]) -> tuple[str, str]:
    """Chart and line of a number of ``health``."""
    side, _, what = name.partition("_")
    chart, line = HEALTH_CHARTS.get(what, (f"{what}, {{of}}", ""))
    return chart.format(of=sides.get(side, side)), line


def _tiles(
    history: Sequence[Mapping[str, float]], record: Mapping[str, Any], trained: Mapping[str, Any]
) -> Iterator[Tile]:
    asked = _mapping(_mapping(record.get("configuration")).get("schedule")).get("epochs")
    note = f"of {asked}" if isinstance(asked, int) else ""
    if history:
        yield Tile("Epochs", f"{history[-1]['epoch']:.0f}", note=note)
    for name, value in _mapping(record.get("scores")).items():
        if isinstance(value, int | float):
            kept = trained.get("epoch_of_weights")
            note = f"validation, epoch {kept}" if kept else "validation"
            yield Tile(metric_title(name), format_value(float(value)), note=note)
    seconds = sum(row.get("seconds", 0.0) for row in history)
    if seconds:
        waited = sum(row.get("seconds", 0.0) * row.get("waiting", 0.0) for row in history)
        text = f"{int(seconds) // 3600}:{int(seconds) // 60 % 60:02d}:{int(seconds) % 60:02d}"
        yield Tile("Time", text, "h", f"{waited / seconds:.1%} waiting for data")
    if trained.get("halvings"):
        note = "times, after a loss that was not finite"
        yield Tile("Rates halved", str(trained["halvings"]), note=note, tone="warn")


def pictures_of(folder: Path, stem: str) -> list[tuple[str, str]]:
    """Name and data URI of the last ``stem_EPOCH.png`` and the first, evenly chosen."""
    paths = sorted(path for path in folder.glob(f"{stem}_*.png") if path.is_file()) if folder.is_dir() else []
    if len(paths) > MOST_SAMPLES:
        places = {round(place * (len(paths) - 1) / (MOST_SAMPLES - 1)) for place in range(MOST_SAMPLES)}
        paths = [paths[place] for place in sorted(places)]
    pictures = ((f"epoch {path.stem.rpartition('_')[2].lstrip('0') or 0}", _picture(path)) for path in reversed(paths))
    return [(name, uri) for name, uri in pictures if uri]


def strip_of(folder: Path, stem: str) -> bytes | None:
    """The first ``stem_EPOCH.png`` above the last, as one PNG of few colours; None where there are not both."""
    paths = sorted(path for path in folder.glob(f"{stem}_*.png") if path.is_file()) if folder.is_dir() else []
    both = [image for path in (paths[:1] + paths[-1:]) if (image := _read_picture(path)) is not None]
    if len(paths) < 2 or len(both) < 2:
        return None
    strip = Image.new("RGB", (max(image.width for image in both), sum(image.height for image in both)))
    for image, top in zip(both, (0, both[0].height), strict=True):
        strip.paste(image, (0, top))
    file = io.BytesIO()
    strip.quantize(COLOURS_OF_STRIP, dither=Image.Dither.NONE).save(file, "PNG", optimize=True)
    return file.getvalue()


def _picture(path: Path) -> str:
    """A picture as a WebP data URI; empty where it is none."""
    image, file = _read_picture(path), io.BytesIO()
    if image is None:
        return ""
    image.save(file, "WEBP", quality=88, method=4)
    return "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode()


def _read_picture(path: Path) -> Image.Image | None:
    """None where it is none, or too large."""
    try:
        with Image.open(path, formats=("PNG",)) as image:
            return None if image.width * image.height > MOST_SAMPLE_PIXELS else image.convert("RGB")
    except (OSError, UnidentifiedImageError, ValueError):
        return None


def _anchor(name: str) -> str:
    return "-".join(name.lower().split())


def _flat(values: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, str]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{above}{name}.")
        elif value is not None:
            yield f"{above}{name}", ", ".join(map(str, value)) if isinstance(value, list) else str(value)
