"""What ``anamorph experiment`` draws for its page and its table: means, single cases, the atlas as it was learnt."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from anamorph.evaluation.comparison import Comparison
    from anamorph.report.experiment_html import ExperimentFigures
    from anamorph.report.experiment_sheets import Case
    from anamorph.report.registration_sheets import RegisteredCase
    from anamorph.report.sheet import Sheet
    from anamorph.training.experiment import ExperimentResult
    from anamorph.training.experiment_cases import CaseShown
    from anamorph.training.experiment_registrations import RegistrationShown, Warped

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
    """All that can be drawn; cases are segmented or registered again where what was found is not kept.

    Args:
        result: of the experiment.
        folder: of its files.
        comparisons: group -> its methods compared.
        device: to compute on.
        progress: told a stage and how much of it is done.
    """
    from anamorph.report.charts import bars, lines
    from anamorph.report.experiment_html import ExperimentFigures
    from anamorph.report.experiment_sheets import sheet_of_cases, sheet_of_examples
    from anamorph.report.training import pictures_of
    from anamorph.training.experiment_cases import (
        evenly,
        label_names,
        names_of,
        show_cases,
        telling_cases,
        telling_methods,
    )

    atlases = {name: pictures_of(run / "samples", "atlas")[::-1] for name, run in result.runs.items()}
    drawn = ExperimentFigures(
        bars(comparisons), lines(comparisons), atlases={name: found for name, found in atlases.items() if found}
    )
    if result.experiment.evaluate.task == "translate":
        sheets = _translations(result, folder, comparisons, device)
        return ExperimentFigures(drawn.bars, drawn.lines, None, sheets, drawn.atlases)
    if result.experiment.evaluate.task == "register":
        sheets = _registrations(result, folder, comparisons, device, progress)
        return ExperimentFigures(drawn.bars, drawn.lines, None, sheets, drawn.atlases)

    def found_in(wanted: list[str], methods: tuple[str, ...]) -> dict[str, CaseShown]:
        return show_cases(result.experiment, folder, wanted, methods, device, progress)

    def cases(wanted: list[str], methods: tuple[str, ...]) -> dict[str, Case]:
        return {name: _case(one) for name, one in found_in(wanted, methods).items()}

    shown = {"to learn from": names_of(result.experiment, folder, "train", MOST_EXAMPLES)}
    shown |= {group or "to test": evenly(found.cases, MOST_EXAMPLES) for group, found in comparisons.items()}
    looked = {title: found_in(some, ()) for title, some in shown.items() if some}
    everyone = {name: one for found in looked.values() for name, one in found.items()}
    names = label_names(result.experiment, folder, everyone)
    examples = sheet_of_examples(
        {title: [_case(one) for one in found.values()] for title, found in looked.items()}, names
    )
    sheets = {}
    for group, comparison in comparisons.items():
        methods = tuple(telling_methods(comparison, MOST_COLUMNS))
        chosen = telling_cases(comparison)
        if chosen:
            sheets[group] = sheet_of_cases(cases([*chosen.values()], methods), chosen, methods, names, comparison)
    return ExperimentFigures(drawn.bars, drawn.lines, examples, sheets, drawn.atlases)


def _translations(
    result: ExperimentResult, folder: Path, comparisons: Mapping[str, Comparison], device: str
) -> dict[str, Sheet]:
    """Of each group best, median and worst case, translated again."""
    from anamorph.report.translation_sheets import TranslatedCase, sheet_of_translations
    from anamorph.training.experiment_cases import telling_cases, telling_methods
    from anamorph.training.experiment_translations import show_translations

    sheets = {}
    for group, comparison in comparisons.items():
        methods, chosen = telling_methods(comparison, MOST_COLUMNS), telling_cases(comparison)
        found = show_translations(result.experiment, folder, [*chosen.values()], methods, device)
        cases = {name: TranslatedCase.of(one.found, one.target, one.labels, one.windows) for name, one in found.items()}
        chosen = {what: name for what, name in chosen.items() if name in cases}
        if chosen:
            sheets[group] = sheet_of_translations(cases, chosen, methods, comparison)
    return sheets


def _registrations(
    result: ExperimentResult,
    folder: Path,
    comparisons: Mapping[str, Comparison],
    device: str,
    progress: Callable[[str, float], None] | None,
) -> dict[str, Sheet]:
    """Of each group best, median and worst case, registered again where their maps are not kept."""
    import torch

    from anamorph.report.registration_sheets import sheet_of_registrations
    from anamorph.training.experiment_cases import telling_cases, telling_methods
    from anamorph.training.experiment_registrations import show_registrations

    sheets, threads = {}, torch.get_num_threads()
    for group, comparison in comparisons.items():
        methods = telling_methods(comparison, MOST_COLUMNS)
        chosen = telling_cases(comparison)
        wanted = [*chosen.values()]
        found = show_registrations(result.experiment, folder, wanted, methods, device, threads, progress)
        if found:
            names = next(iter(found.values())).names
            cases = {name: _registered(one) for name, one in found.items()}
            sheets[group] = sheet_of_registrations(cases, chosen, methods, names, comparison)
    return sheets


def write_figures(figures: ExperimentFigures, stem: Path, result: ExperimentResult) -> dict[str, str]:
    """The figures beside a table, without pictures of real cases; file name -> what it shows.

    Args:
        figures: from ``figures_of``.
        stem: of the table and of what lies beside it.
        result: of the experiment.
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
        trainings = [one for name, row in result.experiment.rows.items() for one in row.trainings(name).values()]
        runs = [run for name in reversed(trainings) for run in result.runs_of(name)]
        strips = (strip_of(run / "samples", "atlas") for run in runs)
        if strip := next(filter(None, strips), None):
            written["_atlas.png"] = strip, "The atlas before and after training"
    for path in stem.parent.glob(f"{stem.name}_*"):  # of an earlier form of the experiment
        if path.name.startswith(tuple(f"{stem.name}{suffix[:-4]}" for suffix in SUFFIXES)):
            path.unlink()
    for suffix, (content, _) in written.items():
        with atomic_write(stem.with_name(stem.name + suffix)) as part:
            part.write_bytes(content)
    return {stem.name + suffix: words for suffix, (_, words) in written.items()}


def _registered(shown: RegistrationShown) -> RegisteredCase:
    from anamorph.report.registration_sheets import Placed, RegisteredCase

    def placed(one: Warped) -> Placed:
        return Placed(one.image.data[0].numpy(), one.labels, one.displacement_mm)

    fixed, modalities = shown.fixed, (shown.fixed.modality, shown.before.image.modality)
    found = {name: placed(one) for name, one in shown.found.items()}
    return RegisteredCase(
        fixed.data[0].numpy(), fixed.grid.affine, modalities, shown.truth, placed(shown.before), found
    )


def _case(shown: CaseShown) -> Case:
    from anamorph.report.experiment_sheets import Case

    image = shown.image
    return Case(image.data[0].numpy(), image.grid.affine, image.modality, shown.truth, shown.found)
