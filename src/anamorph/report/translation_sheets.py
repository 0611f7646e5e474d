"""Cases of a table of translations as pictures: what methods make of an image, and how far it is from the truth."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Integer

from anamorph.data.image import Labelmap
from anamorph.evaluation.comparison import Comparison
from anamorph.inference.image_translators import JudgedTranslation
from anamorph.report.experiment_sheets import score_in_words
from anamorph.report.figures import window_of
from anamorph.report.inputs import Volume
from anamorph.report.sheet import Sheet, View, draw_sheet, telling_plane
from anamorph.types import Matrix

ERRORS = "turbo"
"""Colours of errors."""
LARGEST = 99.5
"""Percentile of the errors' size that has the last colour."""


@dataclass(frozen=True, eq=False)
class TranslatedCase:
    """A case.

    Args:
        source: I J (K).
        affine: voxel -> RAS mm.
        modalities: of the source, and of its translations.
        truth: on the source's grid, on the scale of the translations.
        found: method -> translation and error; methods that failed are absent.
        labels: of the source, of which a slice is wanted; None where there are none.
        windows: grey values of black and white, by modality; of others as ``window_of``.
    """

    source: Volume
    affine: Matrix
    modalities: tuple[str | None, str | None]
    truth: Volume
    found: Mapping[str, tuple[Volume, Volume]] = field(default_factory=dict)
    labels: Integer[np.ndarray, "..."] | None = None
    windows: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        found: Mapping[str, JudgedTranslation],
        target: str | None,
        labels: Labelmap | None = None,
        windows: Mapping[str, tuple[float, float]] | None = None,
    ) -> TranslatedCase:
        """The first channel of translations of one image.

        Args:
            found: method -> its translation; one at least.
            target: the modality that they are of.
            labels: of the source; not looked at where they lie on another grid.
            windows: of the class.
        """
        first = next(iter(found.values()))
        source, truth = first.found.source, first.compared.truth.data[0].numpy()
        pictures = {
            name: (one.found.image.data[0].numpy(), one.compared.error.data[0].numpy()) for name, one in found.items()
        }
        known = None if labels is None or not labels.grid.same_as(source.grid) else labels.data.numpy()
        modalities = source.modality, target
        return cls(source.data[0].numpy(), source.grid.affine, modalities, truth, pictures, known, windows or {})


def sheet_of_translations(
    cases: Mapping[str, TranslatedCase], chosen: Mapping[str, str], methods: Sequence[str], comparison: Comparison
) -> Sheet:
    """Two rows a case: source, truth and translations, and below these their errors, of one scale a case.

    Args:
        cases: by name.
        chosen: what a case stands for -> its name.
        methods: the columns.
        comparison: where the numbers below the pictures come from.
    """
    rows: list[tuple[str, Sequence[View | None]]] = []
    for what, name in chosen.items():
        case = cases[name]
        labels = [] if case.labels is None else [case.labels]
        plane = telling_plane(case.source.shape, case.affine, case.source, labels)
        own = window_of((case.source,), case.modalities[0], case.windows)
        made = window_of((case.truth,), case.modalities[1], case.windows)
        images: list[View | None] = [View(plane, case.source, own), View(plane, case.truth, made)]
        errors: list[View | None] = [None, None]
        largest = largest_error(error for _, error in case.found.values())
        for method in methods:
            if method not in case.found:
                images.append(None)
                errors.append(None)
                continue
            image, error = case.found[method]
            images.append(View(plane, image, made, caption=score_in_words(comparison, method, name)))
            errors.append(View(plane, np.abs(error), (0.0, largest), colours=ERRORS))
        rows.append((f"{what}: {name} (numbers: {comparison.leading[0].title})", images))
        rows.append(("distance from the true image", errors))
    return draw_sheet("Translations", ("image", "true", *methods), rows, {})


def largest_error(errors: Iterable[Volume]) -> float:
    """What the last colour stands for; above 0."""
    sizes = [float(np.percentile(np.abs(error), LARGEST)) for error in errors]
    return max([*sizes, 1e-6])
