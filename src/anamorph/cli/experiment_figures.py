"""What ``anamorph experiment`` draws for its page and its table: means, single cases, the atlas as it was learnt."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from anamorph.evaluation.comparison import Comparison
    from anamorph.report.experiment_html import ExperimentFigures
    from anamorph.report.experiment_sheets import Case
    from anamorph.training.experiment import ExperimentResult
    from anamorph.training.experiment_cases import CaseShown

MOST_COLUMNS, MOST_EXAMPLES = 6, 4
"""Side by side: methods, and cases."""
SUFFIXES = ("_means.svg", "_series.svg", "_examples.svg", "_cases.svg", "_atlas.png")


def figures_of(
    result: ExperimentResult,
    folder: Path,
    comparisons: Mapping[str, Comparison],
    device: str,
    progress: Callable[[str, float], None] | None = None,
) -> ExperimentFigures:
    """All that can be drawn; cases are segmented again where their labels are not kept.

    Args:
        result: of the experiment.
        folder: of its files.
        comparisons: group -> its methods compared.
        device: to segment on.
        progress: told a stage and how much of it is done.
    """
    from anamorph.report.charts import bars, lines
    from anamorph.report.experiment_html import ExperimentFigures
    from anamorph.report.experiment_sheets import sheet_of_cases, sheet_of_examples
    from anamorph.report.training import pictures_of
    from anamorph.training.experiment_cases import evenly, label_names, names_of, show_cases, telling_cases

    runs = {name: folder / "runs" / name for name in result.experiment.train}
    atlases = {name: pictures_of(run / "samples", "atlas")[::-1] for name, run in runs.items()}
    drawn = ExperimentFigures(
        bars(comparisons), lines(comparisons), atlases={name: found for name, found in atlases.items() if found}
    )
    if result.experiment.evaluate.task != "segment" or not runs:
        return drawn

    def cases(wanted: list[str], methods: tuple[str, ...]) -> dict[str, Case]:
        found = show_cases(result.experiment, folder, wanted, methods, device, progress)
        return {name: _case(one) for name, one in found.items()}

    names = label_names(folder)
    shown = {"to learn from": names_of(folder, "train", MOST_EXAMPLES)}
    shown |= {group or "to test": evenly(found.cases, MOST_EXAMPLES) for group, found in comparisons.items()}
    examples = sheet_of_examples({title: list(cases(some, ()).values()) for title, some in shown.items()}, names)
    sheets = {}
    for group, comparison in comparisons.items():
        methods = tuple(evenly(comparison.methods, MOST_COLUMNS))
        chosen = telling_cases(comparison)
        if chosen:
            sheets[group] = sheet_of_cases(cases([*chosen.values()], methods), chosen, methods, names, comparison)
    return ExperimentFigures(drawn.bars, drawn.lines, examples, sheets, drawn.atlases)


def write_figures(figures: ExperimentFigures, stem: Path, result: ExperimentResult, folder: Path) -> dict[str, str]:
    """The figures beside a table, without pictures of real cases; file name -> what it shows.

    Args:
        figures: from ``figures_of``.
        stem: of the table and of what lies beside it.
        result: of the experiment.
        folder: of its files.
    """
    from anamorph.data.files import atomic_write
    from anamorph.report.experiment_html import chart_file, sheet_file
    from anamorph.report.training import strip_of
    from anamorph.training.experiment_cases import is_real

    written: dict[str, tuple[bytes, str]] = {}
    for suffix, chart in zip(SUFFIXES, (figures.bars, figures.lines), strict=False):
        if chart is not None:
            written[suffix] = chart_file(chart).encode(), chart.title
    if not is_real(result.experiment.cohort):
        if figures.examples is not None:
            written["_examples.svg"] = sheet_file(figures.examples).encode(), "Cases and their true labels"
        for group, sheet in figures.cases.items():
            words = f"Best, median and worst case{f', {group}' if group else ''}"
            written[f"_cases{f'_{group}' if group else ''}.svg"] = sheet_file(sheet).encode(), words
        trainings = [row.of or name for name, row in result.experiment.rows.items()]
        strips = (strip_of(folder / "runs" / name / "samples", "atlas") for name in reversed(trainings))
        if strip := next(filter(None, strips), None):
            written["_atlas.png"] = strip, "The atlas before and after training"
    for path in stem.parent.glob(f"{stem.name}_*"):  # of an earlier form of the experiment
        if path.name.startswith(tuple(f"{stem.name}{suffix[:-4]}" for suffix in SUFFIXES)):
            path.unlink()
    for suffix, (content, _) in written.items():
        with atomic_write(stem.with_name(stem.name + suffix)) as part:
            part.write_bytes(content)
    return {stem.name + suffix: words for suffix, (_, words) in written.items()}


def _case(shown: CaseShown) -> Case:
    from anamorph.report.experiment_sheets import Case

    image = shown.image
    return Case(image.data[0].numpy(), image.grid.affine, image.modality, shown.truth, shown.found)
