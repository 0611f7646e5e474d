"""One HTML file that shows how a registration went: no network, no second file, a strict content security policy.

Everything a user could have named (files, labels, settings) reaches the page through jinja2's escaping. Scripts and
styles run by their hash alone, so text that slipped through could still not act.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined

from anamorph.report.document import render_figure
from anamorph.report.figures import Figures, draw, label_colour
from anamorph.report.inputs import ReportInputs
from anamorph.report.multi_atlas import atlas_rows, draw_uncertainty
from anamorph.report.refinement import draw_refinement, objective
from anamorph.report.tables import Score, format_value, pair_scores
from anamorph.report.translation import draw_translation
from anamorph.report.verdict import in_seconds, judge
from anamorph.report.viewer import ViewerVolume, viewer_volumes

NIIVUE = "niivue.umd.js"
STYLES = ("report.css", "charts.css", "training.css", "figure.css")
CODE = re.compile(r"^([EW]-[A-Z]{2,4}-\d{3}): ", re.ASCII)


def render(inputs: ReportInputs) -> str:
    """The report as one HTML document.

    Args:
        inputs: what to show; absent parts are left out, so that a run which failed early has a report too.

    Returns:
        UTF-8 text that opens from ``file://``; about 1.5 MB and the volumes' share, under 5 MB for a pair.
    """
    figures = draw(inputs)
    volumes = viewer_volumes(inputs)
    css, script = "\n".join(_text(f"templates/{name}") for name in STYLES), _text("templates/report.js")
    refinement, uncertainty, translation = draw_refinement(inputs), draw_uncertainty(inputs), draw_translation(inputs)
    environment = Environment(
        loader=PackageLoader("anamorph.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html.j2").render(
        inputs=inputs,
        policy=_policy(css, script),
        css=css,
        script=script,
        verdict=judge(inputs),
        warnings=[_coded(line) for line in inputs.warnings],
        figures=figures,
        label_key=_label_key(figures),
        refinement=""
        if refinement is None
        else render_figure("sheet.svg.j2", alone=False, sheet=refinement, prefix="refinement-"),
        objective=objective(inputs),
        uncertainty=""
        if uncertainty is None
        else render_figure("sheet.svg.j2", alone=False, sheet=uncertainty, prefix="uncertainty-"),
        atlases=list(atlas_rows(inputs)),
        translation=""
        if translation is None
        else render_figure("sheet.svg.j2", alone=False, sheet=translation, prefix="translation-"),
        scores=_score_tables(pair_scores(inputs.scores)),
        facts=_facts(inputs.facts),
        stages=list(_stages(inputs)),
        settings=list(_shown(inputs.settings)),
        volumes=volumes,
        viewer_index=_viewer_index(inputs, volumes, figures.crossing_mm),
        viewer_code=_viewer_code() if volumes else "",
        viewer_licence=_text("vendor/niivue.LICENSE.txt"),
    )


def _text(name: str) -> str:
    return (files("anamorph.report") / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return "'sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() + "'"


@cache
def _viewer_hash() -> str:
    return _hash(_text(f"vendor/{NIIVUE}"))


@cache
def _viewer_code() -> str:
    return base64.b64encode(gzip.compress(_text(f"vendor/{NIIVUE}").encode(), 9, mtime=0)).decode()


def _policy(css: str, script: str) -> str:
    """Nothing loads from anywhere; the two scripts and the style run by hash; the viewer's font is a data URI."""
    rules = {
        "default-src": "'none'",
        "script-src": f"{_hash(script)} {_viewer_hash()}",
        "style-src": _hash(css),
        "img-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    return "; ".join(f"{name} {value}" for name, value in rules.items())


def _coded(line: str) -> tuple[str, str]:
    """A warning's code and its text."""
    found = CODE.match(line)
    return (found[1], line[found.end() :]) if found else ("", line)


def _label_key(figures: Figures) -> list[tuple[str, str]]:
    """Names and colours of the labels that any of the slices meets."""
    return list({(label.name, label.colour): None for plane in figures.planes for label in plane.labels})


def _viewer_index(
    inputs: ReportInputs, volumes: Iterable[ViewerVolume], crossing_mm: tuple[float, ...]
) -> dict[str, Any]:
    """Which volumes are labels, and the labels' names and colours in the order that the volumes count them by."""
    names = ["", *map(inputs.label_name, inputs.labels)]
    colours = ["#000000", *(label_colour(inputs, label) for label in inputs.labels)]
    red, green, blue = ([int(colour[i : i + 2], 16) for colour in colours] for i in (1, 3, 5))
    alpha = [0] + [255] * len(inputs.labels)
    return {
        "labels": [volume.key for volume in volumes if volume.kind == "labels"],
        "names": names,
        "crosshair": crossing_mm,
        "colours": {"R": red, "G": green, "B": blue, "A": alpha, "I": list(range(len(names))), "labels": names},
    }


def _score_tables(scores: list[Score]) -> dict[str, Any]:
    """Scores of the whole image as rows; scores by label as one row a label, one column a metric.

    Metrics of the same labels share a table, so landmarks get one of their own.
    """
    whole = [s for s in scores if not s.label]
    by_metric: dict[str, dict[str, Score]] = {}
    for score in scores:
        if score.label:
            by_metric.setdefault(score.metric, {})[score.label] = score
    shared: dict[tuple[str, ...], list[dict[str, Score]]] = {}
    for by_label in by_metric.values():
        shared.setdefault(tuple(by_label), []).append(by_label)
    tables = [_label_table(labels, columns) for labels, columns in shared.items()]
    return {
        "whole": [{"title": s.title, "unit": s.unit, "reason": s.reason, **_cell(s)} for s in whole],
        "compared": any(s.before is not None for s in whole),
        "tables": sorted(tables, key=lambda table: table["broad"]),
    }


def _label_table(labels: tuple[str, ...], columns: list[dict[str, Score]]) -> dict[str, Any]:
    metrics = [column[labels[0]] for column in columns]
    rows = []
    for label in labels:
        reasons = dict.fromkeys(column[label].reason for column in columns if column[label].reason)
        rows.append((label, {"metrics": [_cell(column[label]) for column in columns], "reasons": list(reasons)}))
    return {
        "caption": "By landmark" if metrics[0].metric.startswith("tre") else "By label",
        "columns": [(metric.title, metric.unit) for metric in metrics],
        "rows": rows,
        "broad": len(columns) > 3,
    }


def _cell(score: Score) -> dict[str, str]:
    before = "" if score.before is None else format_value(score.before, score.unit)
    return {"before": before, "after": format_value(score.after, score.unit)}


def _facts(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Plain facts, and those that are mappings themselves."""
    groups = [(name, list(_shown(value))) for name, value in facts.items() if isinstance(value, Mapping)]
    return {"plain": [(n, _plain(v)) for n, v in facts.items() if not isinstance(v, Mapping)], "groups": groups}


def _shown(mapping: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    return ((name, _plain(value)) for name, value in _flat(mapping))


def _flat(mapping: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in mapping.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{above}{name}.")
        else:
            yield f"{above}{name}", value


def _plain(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(_plain(part) for part in value)
    return str(value)


def _stages(inputs: ReportInputs) -> Iterator[dict[str, Any]]:
    longest = max(inputs.seconds_by_stage.values(), default=0.0)
    for name, seconds in inputs.seconds_by_stage.items():
        curve = np.asarray(inputs.loss_by_stage.get(name, ()), dtype=float)
        curve = curve[np.isfinite(curve)]
        yield {
            "name": name,
            "seconds": in_seconds(seconds),
            "share": round(100 * seconds / longest, 1) if longest else 0,
            "curve": _polyline(curve) if len(curve) > 1 else "",
            "ends": f"{format_value(curve[0])} to {format_value(curve[-1])}" if len(curve) > 1 else "",
        }


def _polyline(curve: np.ndarray) -> str:
    """Points of an SVG polyline 100 wide and 24 high."""
    chosen = np.unique(np.linspace(0, len(curve) - 1, 120).astype(int))
    span = np.ptp(curve) or 1.0
    x, y = 100 * chosen / (len(curve) - 1), 24 * (curve.max() - curve[chosen]) / span
    return " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))
