"""``anamorph experiment``: a table of a paper from its file: cohort, preparation, trainings, evaluation, page."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from anamorph.cli.arguments import Form

if TYPE_CHECKING:
    from anamorph.cli.screen import Screen
    from anamorph.evaluation.comparison import Comparison
    from anamorph.evaluation.scores import Score
    from anamorph.report.experiment_html import ExperimentFigures
    from anamorph.training.experiment import ExperimentResult


class ExperimentRequest(BaseModel):
    """Which experiment, how large, and where to."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

    file: Path
    """An experiment, as experiments/baselines/letter_b.yaml."""
    scale: Literal["cpu", "paper"] = "cpu"
    """cpu is sized for about 20 minutes on two cores, paper has the paper's sizes and schedules, for a GPU."""
    out: Path | None = None
    """Folder for all that is made; build/experiments/PAPER/NAME_SCALE if absent, with the name that the file gives or
    its own. What is there already is not done again."""
    results: Path = Path("benchmarks/results")
    """Folder for the table: PAPER/NAME_SCALE.md, with .json, .csv and figures."""
    device: str = "auto"
    """auto, cpu or cuda."""
    threads: Annotated[int, Field(ge=1)] | None = None
    """CPU threads; all if absent."""
    workers: Annotated[int, Field(ge=0)] = 0
    """Processes that read ahead in trainings."""
    force: bool = False
    """Throw away what the folder holds of another recipe."""


FORM = Form(
    ExperimentRequest,
    positional=("file",),
    groups={"machine": ("device", "threads", "workers")},
    metavars={"file": "FILE", "out": "FOLDER", "results": "FOLDER"},
    example="anamorph experiment experiments/baselines/letter_b.yaml --scale cpu",
)


def run(request: ExperimentRequest, screen: Screen) -> int:
    """Run what is not done yet, and write the table and the page; 5 where a case failed."""
    import torch

    from anamorph.cli.compare import show, tell_failures
    from anamorph.cli.experiment_figures import figures_of, write_figures
    from anamorph.cli.screen import shown
    from anamorph.evaluation.metrics import metric_of
    from anamorph.training.configuration import Machine
    from anamorph.training.experiment import run_experiment
    from anamorph.training.experiment_recipe import read_experiment

    if request.threads is not None:
        torch.set_num_threads(request.threads)
    experiment = read_experiment(request.file, request.scale)
    paper, stem = request.file.resolve().parent.name, request.file.stem
    out = request.out or Path("build/experiments") / paper / f"{experiment.folder or stem}_{request.scale}"
    machine = Machine(device=request.device, workers=request.workers, threads=request.threads)
    with screen.progress() as progress:
        result = run_experiment(
            experiment, out, machine=machine, threads=torch.get_num_threads(), force=request.force,
            progress=progress, say=screen.say,
        )  # fmt: skip
    pages = out / stem if experiment.folder else out  # several files may share the folder
    for name in result.unmeasured:
        screen.say(f"{metric_of(name).title} was not measured here, and is left out of the tables")
    comparisons, table = _compared(result, pages), request.results / paper / f"{stem}_{request.scale}"
    with screen.progress() as progress:
        figures = figures_of(result, out, comparisons, request.device, progress)
    table.parent.mkdir(parents=True, exist_ok=True)
    facts = _facts(request)
    _record(table, result, comparisons, facts, write_figures(figures, table, result))
    page = _page(pages, result, comparisons, facts, figures)
    for group, comparison in comparisons.items():
        if group:
            screen.say(f"\n{group}")
        show(comparison, screen)
    screen.say(f"table: {shown(table.with_name(f'{table.name}.md'))}")
    screen.say(f"page: {shown(page)}")
    return tell_failures(result.scores, screen)


def _compared(result: ExperimentResult, pages: Path) -> dict[str, Comparison]:
    """The methods compared within each group of cases, and their pages."""
    from anamorph.cli.compare import write_comparison
    from anamorph.data.files import atomic_write
    from anamorph.evaluation.scores import to_csv

    experiment, judged, found = result.experiment, result.experiment.evaluate, {}
    pages.mkdir(parents=True, exist_ok=True)
    with atomic_write(pages / "scores.csv") as part:
        part.write_text(to_csv(result.scores), encoding="utf-8")
    for group, scores in result.groups().items():
        (pages / group).mkdir(exist_ok=True)
        found[group] = write_comparison(
            scores, pages / group, title=f"{experiment.title}: {group}" if group else experiment.title,
            metrics=result.metrics, labels=judged.labels, reference=judged.reference,
        )  # fmt: skip
    return found


def _facts(request: ExperimentRequest) -> dict[str, Any]:
    """Where the numbers come from."""
    import torch

    from anamorph.inference.provenance import commit, hardware, now, versions
    from anamorph.inference.register import resolve_device

    device = resolve_device(request.device)
    return {
        "command": f"anamorph experiment {request.file.as_posix()} --scale {request.scale}",
        "commit": commit(request.file.resolve().parent),
        "date": now(),
        "hardware": hardware() | ({"gpu": torch.cuda.get_device_name(device)} if device.type == "cuda" else {}),
        "threads": torch.get_num_threads(),
        "versions": versions(("anamorph", "torch", "numpy", "scipy", "monai", "accelerate")),
    }


def _record(
    table: Path,
    result: ExperimentResult,
    comparisons: Mapping[str, Comparison],
    facts: Mapping[str, Any],
    figures: Mapping[str, str],
) -> None:
    """Tables, record and the table's scores among the results, as ``table`` with each their suffix."""
    import json

    from anamorph.data.files import atomic_write
    from anamorph.evaluation.scores import to_csv
    from anamorph.report.experiment import experiment_page, experiment_record

    experiment = result.experiment
    record = experiment_record(
        experiment.title, comparisons, result.trained, facts, experiment.model_dump(mode="json", exclude={"about"})
    )
    texts = {
        ".md": experiment_page(experiment.title, experiment.about, comparisons, result.trained, facts, figures),
        ".json": json.dumps(record, indent=1, allow_nan=False) + "\n",
        ".csv": to_csv(_of_the_table(result)),
    }
    for suffix, text in texts.items():
        with atomic_write(table.with_name(table.name + suffix)) as part:
            part.write_text(text, encoding="utf-8")


def _of_the_table(result: ExperimentResult) -> list[Score]:
    """The scores that the table is made of; all others stay with the pages."""
    from anamorph.evaluation.metrics import FAILED

    metrics = result.experiment.evaluate.metrics
    return [score for score in result.scores if not metrics or score.metric in {*metrics, FAILED}]


def _page(
    pages: Path,
    result: ExperimentResult,
    comparisons: Mapping[str, Comparison],
    facts: Mapping[str, Any],
    figures: ExperimentFigures,
) -> Path:
    """The experiment's own page, and those of its trainings."""
    import os

    from anamorph.cli.train import write_report
    from anamorph.data.files import atomic_write
    from anamorph.report.experiment_html import render_experiment

    experiment = result.experiment

    def relative(path: Path) -> str:
        return Path(os.path.relpath(path, pages)).as_posix()

    tables = {group: relative(pages / group / "comparison.html") for group in comparisons}
    runs = {name: relative(write_report(run)) for name, run in result.runs.items()}
    page = pages / "report.html"
    with atomic_write(page) as part:
        part.write_text(
            render_experiment(
                experiment.title, experiment.about, comparisons, result.trained, facts, figures, tables, runs
            ), encoding="utf-8",
        )  # fmt: skip
    return page
