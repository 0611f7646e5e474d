"""The page of a training: what its terms, rates and validation did, what it showed, and what it was asked to do."""

from __future__ import annotations

import base64
import csv
import io
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError

from anamorph.methods.both_ways import SIDES
from anamorph.methods.translation import CHEQUERED, COLLAPSED, COPIED, PATIENCE, PREVAILED, faults_of
from anamorph.report.curves import Curve, Reference, curve, curves
from anamorph.report.document import render_document
from anamorph.report.tables import format_value, metric_title
from anamorph.report.verdict import Tile, Tone

STYLES = ("report.css", "charts.css", "training.css")
COUNTERS = ("epoch", "step", "seconds", "waiting", "overflows")
VALIDATION, HEALTH, RATE = "validation", "health", "rate"
DIRECTIONS = {
    "registration_dice": "Dice, {moving} onto {fixed}",
    "backward_registration_dice": "Dice, {fixed} onto {moving}",
}
"""Metric -> its title, where the sides have names."""


@dataclass(frozen=True)
class HealthLine:
    """How a number of ``health`` is drawn.

    Args:
        chart: where, of the side ``of``.
        line: its name there.
        text: what the chart shows; empty where another of its lines says so.
        note: what it is read by, where no value is.
        references: what it is read against, by its last value.
    """

    chart: str
    line: str = ""
    text: str = ""
    note: str = ""
    references: Callable[[float], tuple[Reference, ...]] = lambda last: ()


AS_REAL = Reference("as real", 1.0)
HEALTH_CHARTS = {
    "answer_real": HealthLine(
        "answers, {of}",
        "real",
        "Answers of a discriminator: 1 for certainly real, equal ones to real and fake at balance.",
        f"fault where real is more than {PREVAILED:g} above fake",
    ),
    "answer_fake": HealthLine("answers, {of}", "fake"),
    "change": HealthLine(
        "distance, to {of}",
        "translation",
        "Distance of a translation, and of the true image, from what was translated: near one another in a good "
        "translation, the former near 0 where a translator copies.",
    ),
    "difference": HealthLine(
        "distance, to {of}",
        "true",
        references=lambda last: (Reference(f"fault below {COPIED:g} of true", COPIED * last, limit=True),),
    ),
    "contrast": HealthLine(
        "contrast over real, to {of}",
        text="Contrast of translations over that of real images: near 0 where they collapsed.",
        references=lambda last: (AS_REAL, Reference(f"fault below {COLLAPSED:g}", COLLAPSED, limit=True)),
    ),
    "alternation": HealthLine(
        "alternation over real, to {of}",
        text="Alternation from voxel to voxel: far above 1 where they are chequered.",
        references=lambda last: (AS_REAL, Reference(f"fault above {CHEQUERED:g}", CHEQUERED, limit=True)),
    ),
}
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
            **{_anchor(name): name for name, _, _ in groups},
            **({"atlas": "Atlas"} if atlas else {}),
            **({"samples": "Samples"} if samples else {}),
            "run": "Run",
        },
        status=status,
        tone=tone,
        message=str(error.get("message", "")),
        tiles=list(_tiles(history, record, trained, sides)),
        warnings=[str(line) for line in warnings] if isinstance(warnings, list) else [],
        groups=[(_anchor(name), name, text, charts) for name, text, charts in groups],
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
) -> Iterator[tuple[str, str, list[Curve]]]:
    """Name, text and charts: validation, then each player's terms, how adversaries stand, rates, time."""
    epochs = [int(row["epoch"]) for row in history]
    names = list(dict.fromkeys(name for row in history for name in row if name not in COUNTERS))
    players = dict.fromkeys(name.partition(".")[0] for name in names if "." in name)
    players.pop(HEALTH, None)

    def of(name: str, title: str, mark: int | None = None, scale: float = 1.0) -> Curve:
        return curve(title, _values(history, name, scale), epochs, mark)

    for player in sorted(players, key=lambda player: player != VALIDATION):
        own = [name for name in names if name.startswith(f"{player}.") and name != f"{player}.{RATE}"]
        if player == VALIDATION:
            yield "Validation", "", [of(name, _metric(name.partition(".")[2], sides), kept) for name in own]
        elif own:
            title = "Terms" if len(players.keys() - {VALIDATION}) == 1 else f"Terms of the {player}"
            terms: dict[str, dict[str, dict[int, float]]] = {}
            for name in own:
                chart, line = _term(name.partition(".")[2], sides)
                terms.setdefault(chart, {})[line] = _values(history, name)
            yield title, "", [curves(chart, lines, epochs) for chart, lines in terms.items()]
    health = [name for name in names if name.startswith(f"{HEALTH}.")]
    if health:
        yield "Adversaries", *_adversaries(history, health, epochs, sides)
    rates = [name for name in names if name.endswith(f".{RATE}")]
    if rates:
        single = len(rates) == 1
        yield "Learning rate", "", [of(name, "rate" if single else name.partition(".")[0]) for name in rates]
    if any("seconds" in row for row in history):
        charts = [of("seconds", "seconds an epoch")]
        if any("waiting" in row for row in history):
            charts.append(of("waiting", "waiting for data, %", scale=100.0))
        yield "Time", "", charts


def _values(history: Sequence[Mapping[str, float]], name: str, scale: float = 1.0) -> dict[int, float]:
    """A column, by epoch."""
    return {int(row["epoch"]): scale * row[name] for row in history if name in row}


def _metric(name: str, sides: Mapping[str, str]) -> str:
    """A metric's name in words, its direction by the names of the sides."""
    named = all(side != name for side, name in sides.items())
    return DIRECTIONS[name].format(**sides) if named and name in DIRECTIONS else metric_title(name)


def _term(name: str, sides: Mapping[str, str]) -> tuple[str, str]:
    """Chart and line of a term: what a discriminator is shown goes into one chart a side."""
    side, _, what = name.partition("_")
    return (f"{sides[side]} images", what.replace("_", " ")) if side in sides and what else (name, "")


def _adversaries(
    history: Sequence[Mapping[str, float]], names: Sequence[str], epochs: Sequence[int], sides: Mapping[str, str]
) -> tuple[str, list[Curve]]:
    """What explains the charts of the columns of ``health``, and these."""
    charts: dict[str, dict[str, dict[int, float]]] = {}
    references: dict[str, list[Reference]] = {}
    texts, notes = dict[str, None](), dict[str, list[str]]()
    for name in names:
        side, _, what = name.removeprefix(f"{HEALTH}.").partition("_")
        about = HEALTH_CHARTS.get(what, HealthLine(f"{what}, {{of}}"))
        chart, values = about.chart.format(of=sides.get(side, side)), _values(history, name)
        charts.setdefault(chart, {})[about.line] = values
        references.setdefault(chart, []).extend(about.references(next(reversed(values.values()))))
        notes.setdefault(chart, []).extend([about.note] if about.note else [])
        texts |= {about.text: None} if about.text else {}
    drawn = [curves(chart, lines, epochs, None, references[chart], notes[chart]) for chart, lines in charts.items()]
    return " ".join(["Of each validation.", *texts]), drawn


def _health(history: Sequence[Mapping[str, float]], sides: Mapping[str, str]) -> Tile | None:
    """The faults that the last validations show; None of too few."""
    start = f"{HEALTH}."
    told = [{name.removeprefix(start): row[name] for name in row if name.startswith(start)} for row in history]
    validations = [numbers for numbers in told if numbers]
    if len(validations) < PATIENCE:
        return None
    faults = [f"{fault}, to {sides[side]}" for side in SIDES for fault in faults_of(validations, side)]
    note = f"the last {PATIENCE} validations"
    if len(faults) > 1:
        return Tile("Adversaries", f"{len(faults)} faults", note="; ".join(faults), tone="bad")
    return Tile("Adversaries", faults[0] if faults else "well", note=note, tone="bad" if faults else "good")


def _tiles(
    history: Sequence[Mapping[str, float]],
    record: Mapping[str, Any],
    trained: Mapping[str, Any],
    sides: Mapping[str, str],
) -> Iterator[Tile]:
    asked = _mapping(_mapping(record.get("configuration")).get("schedule")).get("epochs")
    note = f"of {asked}" if isinstance(asked, int) else ""
    if history:
        yield Tile("Epochs", f"{history[-1]['epoch']:.0f}", note=note)
    for name, value in _mapping(record.get("scores")).items():
        if isinstance(value, int | float):
            kept = trained.get("epoch_of_weights")
            note = f"validation, epoch {kept}" if kept else "validation"
            yield Tile(_metric(name, sides), format_value(float(value)), note=note)
    health = _health(history, sides)
    if health is not None:
        yield health
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
