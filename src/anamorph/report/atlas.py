"""The page of an atlas: image and labels, how rounds changed it, its topology, and the cases that stand apart."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from PIL import Image

from anamorph.evaluation.atlas_quality import OUTLIER
from anamorph.inference.atlas_folder import Atlas, AtlasCard, AtlasQuality, CaseFacts, facts_of
from anamorph.report.curves import Curve, curve
from anamorph.report.document import render_document
from anamorph.report.figures import draw, label_colour, to_grey, window_of
from anamorph.report.inputs import ReportInputs
from anamorph.report.planes import Display, choose_planes
from anamorph.report.tables import format_value
from anamorph.report.verdict import Tile

STYLES = ("report.css", "charts.css", "training.css", "atlas.css")
MOST_ROUNDS = 12
LARGEST_PICTURE = 380
WORST = 0.25
"""Mean deformation, as a share of the cases' own, from which an atlas counts as biased."""


def render_atlas(atlas: Atlas, evolution: Sequence[tuple[str, np.ndarray]] = ()) -> str:
    """An atlas as one HTML document that loads nothing.

    Args:
        atlas: built group-wise, or of a trained model.
        evolution: the template before and after rounds, I J (K) on its grid, by name.
    """
    labels = atlas.labels()
    shown = ReportInputs(
        title=atlas.name,
        kind="segmentation",
        affine=atlas.grid.affine,
        fixed=atlas.image.data[0].numpy(),
        fixed_modality=None if atlas.card else atlas.image.modality,
        fixed_labels=None if labels is None else labels.data.numpy(),
        label_names=dict(atlas.names),
    )
    topology = [(shown.label_name(value), found) for value, found in atlas.topology().items()]
    card, quality, flat = atlas.card, atlas.quality, atlas.grid.ndim == 2
    sections = {
        "atlas": "Atlas",
        **({"rounds": "Rounds"} if evolution else {}),
        **({"topology": "Topology"} if topology else {}),
        **({"cases": "Cases"} if quality else {}),
        "run": "Run",
    }
    return render_document(
        "atlas.html.j2",
        STYLES,
        title=atlas.name or "Atlas",
        sections=sections,
        lead=_lead(atlas),
        tiles=list(_tiles(quality, card)) if quality else [],
        planes=draw(shown).planes,
        key=[(shown.label_name(label), label_colour(shown, label)) for label in shown.labels],
        evolution=_pictures(evolution, shown) if evolution else [],
        curves=list(_curves(card)) if card else [],
        flat=flat,
        topology=topology,
        cases=list(_cases(quality.cases)) if quality else [],
        left_out=list(quality.left_out.items()) if quality else [],
        limit=OUTLIER,
        facts=[(name, str(value)) for name, value in facts_of(atlas).items()],
        environment=[(n, str(v)) for n, v in card.environment.items() if v is not None] if card else [],
        settings=[(n, ", ".join(map(str, v)) if isinstance(v, list) else str(v)) for n, v in card.settings.items()]
        if card
        else [],
    )


def _lead(atlas: Atlas) -> str:
    if atlas.model is not None:
        judged = "" if atlas.judged is None else f"; fitted to {len(atlas.judged.cases)} cases {atlas.judged.fitted}"
        return f"Learnt by {atlas.model.card.method}, on the network's own grid{judged}."
    if atlas.card is None:
        return ""
    labelled = f", {atlas.card.labelled} of them with labels" if atlas.card.labelled else ""
    return f"Built group-wise from {len(atlas.card.cases)} cases{labelled}, without a network."


def _tiles(quality: AtlasQuality, card: AtlasCard | None) -> Iterator[Tile]:
    yield Tile("Cases", str(len(quality.cases)), note=f"{len(quality.left_out) or 'none'} left out")
    if card is not None:
        last = card.rounds[-1]
        yield Tile("Rounds", str(last.number), note=f"the last changed it by {format_value(100 * last.change, '%')} %")
    share = format_value(100 * quality.relative_sharpness, "%")
    yield Tile("Sharpness", share, "%", "of the cases' own on its grid")
    bias, length = quality.mean_deformation_mm, quality.deformation_mm
    if bias is not None and length is not None:
        note = f"of the mean map; {format_value(length, 'mm')} mm a case"
        yield Tile("Bias", format_value(bias, "mm"), "mm", note, "warn" if bias > WORST * length else "good")
    apart = [facts.case for facts in quality.cases if facts.apart]
    note = ", ".join(apart[:3]) + (", ..." if len(apart) > 3 else "") if apart else "no case stands apart"
    yield Tile("Outliers", str(len(apart)), note=note, tone="warn" if apart else "good")


def _curves(card: AtlasCard) -> Iterator[Curve]:
    """What rounds did, where there are two of them at least."""
    numbers = [facts.number for facts in card.rounds]
    if len(numbers) < 2:
        return
    kinds = (
        ("Sharpness, % of the cases' own", "relative_sharpness", 100.0),
        ("Change, % of the contrast", "change", 100.0),
        ("Deformation of a case, mm", "deformation_mm", 1.0),
    )
    deformable = [facts for facts in card.rounds if facts.kind == "deformable"]
    for title, name, scale in kinds:
        rounds = deformable if name.endswith("_mm") else card.rounds
        if rounds:
            yield curve(title, {facts.number: scale * getattr(facts, name) for facts in rounds}, numbers)


def _cases(cases: Sequence[CaseFacts]) -> Iterator[dict[str, Any]]:
    """Rows of the table, those furthest from the others first."""
    for facts in sorted(cases, key=lambda facts: -max(facts.z_dissimilarity, facts.z_deformation)):
        yield {
            "case": facts.case,
            "apart": facts.apart,
            "unlike": facts.z_dissimilarity > OUTLIER,
            "far": facts.z_deformation > OUTLIER,
            "similarity": format_value(facts.similarity),
            "deformation_mm": format_value(facts.deformation_mm, "mm"),
            "z_dissimilarity": f"{facts.z_dissimilarity:z.1f}",
            "z_deformation": f"{facts.z_deformation:z.1f}",
        }


def _pictures(evolution: Sequence[tuple[str, np.ndarray]], shown: ReportInputs) -> list[tuple[str, str]]:
    """One slice of each template, the same in all, in one grey window."""
    assert shown.affine is not None
    display = Display(shown.shape, shown.affine)
    plane = choose_planes(display, [labelmap for _, labelmap in shown.labelmaps], shown.fixed)[0]
    window = window_of([template for _, template in evolution], None)
    width, height = plane.size_mm
    scale = LARGEST_PICTURE / max(width, height)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    few = [evolution[place] for place in _spread(len(evolution))]
    return [(name, _webp(to_grey(plane.cut(template), window), size)) for name, template in few]


def _spread(count: int) -> list[int]:
    """At most twelve places, evenly, the first and the last among them."""
    return sorted({round(place) for place in np.linspace(0, count - 1, min(count, MOST_ROUNDS))})


def _webp(grey: np.ndarray, size: tuple[int, int]) -> str:
    """Rows x columns in [0, 1] as a WebP data URI."""
    file = io.BytesIO()
    picture = Image.fromarray(np.rint(255 * grey).astype(np.uint8)).resize(size, Image.Resampling.BICUBIC)
    picture.save(file, "WEBP", quality=90, method=4)
    return "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode()
