"""Cases of an experiment as pictures: what there is to learn from, and what each method finds in single cases."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from jaxtyping import Int
from numpy import ndarray

from anamorph.evaluation.comparison import Comparison
from anamorph.report.figures import window_of
from anamorph.report.inputs import Volume
from anamorph.report.sheet import Sheet, View, draw_sheet, telling_plane
from anamorph.report.tables import format_value
from anamorph.types import Matrix


@dataclass(frozen=True, eq=False)
class Case:
    """A case.

    Args:
        image: I J (K).
        affine: voxel -> RAS mm.
        modality: of the image.
        truth: its labels, None where there are none.
        found: method -> labels; methods that failed are absent.
    """

    image: Volume
    affine: Matrix
    modality: str | None
    truth: Int[ndarray, "..."] | None = None
    found: Mapping[str, Int[ndarray, "..."]] = field(default_factory=dict)

    def view(self, plane_name: str | None = None) -> View:
        """The slice that shows most of the labels, without outlines; of one plane, or of any."""
        labels = [labels for labels in (self.truth, *self.found.values()) if labels is not None]
        plane = telling_plane(self.image.shape, self.affine, self.image, labels, plane_name)
        return View(plane, self.image, window_of((self.image,), self.modality))


def sheet_of_cases(
    cases: Mapping[str, Case],
    chosen: Mapping[str, str],
    methods: Sequence[str],
    names: Mapping[int, str],
    comparison: Comparison,
) -> Sheet:
    """A row a case: its image with the truth, then what each method finds.

    Args:
        cases: by name.
        chosen: what a case stands for -> its name.
        methods: the columns.
        names: label -> name.
        comparison: where the numbers below the pictures come from.
    """
    rows = []
    plane = _most_telling(cases[name] for name in chosen.values())
    for what, name in chosen.items():
        case, plain = cases[name], cases[name].view(plane)
        views = [_with(plain, case.truth, None, "")]
        for method in methods:
            caption = score_in_words(comparison, method, name)
            views.append(_with(plain, case.truth, case.found.get(method), caption))
        rows.append((f"{what}: {name} (numbers: {comparison.leading[0].title})", views))
    return draw_sheet("Cases", ("true", *methods), rows, names)


def sheet_of_examples(groups: Mapping[str, Sequence[Case]], names: Mapping[int, str]) -> Sheet:
    """A row a group of cases, each with its true labels."""
    plane = _most_telling(case for cases in groups.values() for case in cases)
    rows = [
        (group, [_with(case.view(plane), case.truth, None, "") for case in cases])
        for group, cases in groups.items()
        if cases
    ]
    return draw_sheet("Examples", (), rows, names)


def _most_telling(cases: Iterable[Case]) -> str | None:
    """Name of the plane that shows most in most cases, so that all can be shown in it."""
    names = Counter(case.view().plane.name for case in cases)
    return max(names, key=lambda name: names[name], default=None)


def _with(view: View, truth: Volume | None, found: Volume | None, caption: str) -> View:
    return View(view.plane, view.image, view.window, truth, found, None, caption)


def score_in_words(comparison: Comparison, method: str, case: str) -> str:
    """The first metric of a method on a case."""
    column = comparison.leading[0]
    cell = column.cells.get(method)
    if cell is None or case in cell.failed or case not in cell.values:
        return "failed" if cell is not None and case in cell.failed else ""
    unit = f" {column.unit}" if column.unit else ""
    return f"{format_value(cell.values[case], column.unit)}{unit}"
