"""``anamorph compare``: the scores of several methods as one table with tests, for terminal, paper and browser."""

from __future__ import annotations

from pathlib import Path
from shutil import get_terminal_size
from typing import TYPE_CHECKING, Annotated, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

from anamorph.cli.arguments import Form

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from anamorph.cli.screen import Screen
    from anamorph.evaluation.comparison import Comparison
    from anamorph.evaluation.scores import Score

Format = Literal["csv", "md", "tex", "html"]
FORMATS: tuple[Format, ...] = get_args(Format)
SCORES = "scores.csv"
FAILURES = 5
"""Exit code where a method gave nothing for a case; the scores of the others are written."""
OUTPUTS = tuple(f"comparison{rest}" for rest in (".csv", "_wide.csv", "_tests.csv", ".md", ".tex", ".html"))


class CompareRequest(BaseModel):
    """Which scores to compare, and how."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

    scores: tuple[Path, ...] = Field(min_length=1)
    """Tables of scores, or run folders that hold a scores.csv."""
    out: Path
    """Folder for the comparison."""
    metrics: tuple[str, ...] = ()
    """Metrics to compare, in this order; the table shows the usual ones if absent, the page and the CSV all."""
    labels: tuple[str, ...] = ()
    """Labels that the table shows one by one; it shows means over labels if absent."""
    reference: str | None = None
    """Method that every other is tested against; if absent, the best and the second best of each metric."""
    alpha: Annotated[float, Field(ge=0.0005, lt=0.5)] = 0.01
    """Level of the one-sided tests; 0.01 goes with a 98 % interval."""
    holm: bool = False
    """Correct p for the number of methods tested in a metric."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Of the bootstrap."""
    peers: tuple[str, ...] = ()
    """Other tools to run on the same pairs: elastix, elastix_affine, ants, greedy, convexadam; needs --cohort."""
    cohort: Path | None = None
    """The cohort whose pairs the scores are about."""
    threads: Annotated[int, Field(ge=1)] | None = None
    """CPU threads of the other tools; all if absent."""
    format: tuple[Format, ...] = FORMATS
    """What to write: tables for programs, Markdown, LaTeX, a page."""
    force: bool = False
    """Replace an earlier comparison."""

    @model_validator(mode="after")
    def _both(self) -> CompareRequest:
        if bool(self.peers) != (self.cohort is not None):
            raise ValueError("peers and the cohort that they run on go together")
        return self


FORM = Form(
    CompareRequest,
    positional=("scores",),
    groups={
        "tests": ("reference", "alpha", "holm", "seed"),
        "other tools": ("peers", "cohort", "threads"),
        "output": ("format", "force"),
    },
    metavars={
        "scores": "SCORES [SCORES ...]", "out": "FOLDER", "metrics": "METRIC [METRIC ...]", "reference": "METHOD",
        "labels": "LABEL [LABEL ...]", "format": "{csv,md,tex,html} [...]",
    },
    example="anamorph compare runs/a/scores.csv runs/b --metrics dice hd95_mm --labels liver --out comparison",
    configurable=True,
)  # fmt: skip


def run(request: CompareRequest, screen: Screen) -> int:
    """Read, compare, write, and print the table."""
    from anamorph.cli.reading import refuse_overwriting
    from anamorph.cli.screen import shown
    from anamorph.data.files import atomic_write, sha256
    from anamorph.evaluation.arrangement import merge
    from anamorph.evaluation.scores import to_csv
    from anamorph.inference.run_folder import Run

    paths = [path / SCORES if path.is_dir() else path for path in request.scores]
    read = [(name, read_scores(path)) for name, path in zip(_names(paths), paths, strict=True)]
    sources = {name: sha256(path) for (name, _), path in zip(read, paths, strict=True)}
    if not (request.out / "run.json").exists():
        for name in OUTPUTS:
            refuse_overwriting(request.out / name, paths, request.force)
    with Run(request.out, "compare", request.model_dump(), paths, request.force, screen.warning) as record:
        scores, peers = merge(read), []
        if request.cohort is not None:
            with screen.progress() as progress:
                peers = _of_peers(request, request.cohort, scores, progress)
            scores = [*scores, *peers]
            with atomic_write(record.path("peers.csv")) as part:
                part.write_text(to_csv(peers), encoding="utf-8")
        comparison = write_comparison(
            scores, request.out, metrics=request.metrics, labels=request.labels, reference=request.reference or "",
            level=request.alpha, correct=request.holm, seed=request.seed, formats=request.format, sources=sources,
            written=record.path,
        )  # fmt: skip
        record.facts["inputs"] = {name: {"sha256": digest} for name, digest in sources.items()}
        record.finish()
    show(comparison, screen)
    if "html" in request.format:
        screen.say(f"page: {shown(request.out / 'comparison.html')}")
    return tell_failures(peers, screen)


def tell_failures(scores: Sequence[Score], screen: Screen) -> int:
    """Name every case that a method gave nothing for; the exit code."""
    from anamorph.evaluation.metrics import FAILED

    failures = [score for score in scores if score.metric == FAILED]
    for score in failures:
        screen.warning(f"{score.method} gave nothing for {score.case}: {score.reason}")
    return FAILURES if failures else 0


def _of_peers(
    request: CompareRequest, folder: Path, scores: Sequence[Score], progress: Callable[[str, float], None]
) -> list[Score]:
    """The scores of other tools on the pairs that the given ones are about.

    Raises:
        InputError: E-EVA-013, none of those pairs is in the cohort.
        ConfigurationError: E-PEE-001, a tool is not installed.
    """
    import torch

    from anamorph.cli.evaluate import cohort_of
    from anamorph.errors import InputError
    from anamorph.inference import contenders
    from anamorph.inference.evaluate import evaluate_registration

    cohort, cases = cohort_of(folder), {score.case for score in scores}
    every = {pair.name: pair for rule in ("between", "within", "listed") for pair in cohort.pairs(rule)}
    pairs = [pair for name, pair in every.items() if name in cases]
    if not pairs:
        found = "no pair of the cohort has a name that the scores know"
        expected = "the cohort that was evaluated"
        raise InputError("E-EVA-013", found, file=folder, expected=expected, do="give that one as --cohort")
    registrars = [contenders.peer(name, request.threads or torch.get_num_threads(), 3600.0) for name in request.peers]
    names = cohort.label_names or None
    return evaluate_registration(pairs, registrars, request.out / "rows", names=names, progress=progress)


def read_scores(path: Path) -> list[Score]:
    """The scores of a file.

    Raises:
        InputError: E-IO-001, it cannot be read; E-EVA-001 and E-EVA-002, it holds no scores.
    """
    from anamorph.errors import InputError
    from anamorph.evaluation.scores import from_csv

    try:
        text = path.read_bytes().decode("utf-8")
    except OSError as error:
        reason = (error.strerror or "it cannot be read").lower()
        raise InputError("E-IO-001", reason, file=path, expected="a readable file") from error
    except UnicodeDecodeError as error:
        raise InputError("E-EVA-001", "no text", file=path, expected="a table of scores as CSV") from error
    return from_csv(text, path)


def write_comparison(
    scores: Sequence[Score],
    folder: Path,
    *,
    title: str = "",
    metrics: Sequence[str] = (),
    labels: Sequence[str] = (),
    reference: str = "",
    level: float = 0.01,
    correct: bool = False,
    seed: int = 0,
    formats: Sequence[Format] = FORMATS,
    sources: Mapping[str, str] | None = None,
    written: Callable[[str], Path] | None = None,
) -> Comparison:
    """Compare, and write ``comparison.*`` into a folder.

    Args:
        scores: of every method, with cases.
        folder: where to write.
        title: of the page.
        metrics, labels, reference, level, correct, seed: as for ``anamorph.evaluation.comparison.compare``.
        formats: what to write.
        sources: name -> hash of the files that the scores came from, for the page.
        written: gives the path of a file by its name; told of each file.

    Raises:
        AnamorphError: as ``compare``.
    """
    from anamorph.data.files import atomic_write
    from anamorph.evaluation.comparison import compare

    found = compare(
        scores, metrics=metrics, labels=labels, reference=reference, level=level, correct=correct, seed=seed
    )  # fmt: skip
    for name, text in _texts(found, formats, sources, title):
        path = folder / name if written is None else written(name)
        with atomic_write(path) as part:
            part.write_text(text, encoding="utf-8")
    return found


def show(comparison: Comparison, screen: Screen) -> None:
    """The table, what its marks mean, and what it does not say."""
    from anamorph.evaluation.notes import notes_on
    from anamorph.report.comparison_text import key, terminal_tables

    screen.say()
    for table in terminal_tables(comparison, get_terminal_size().columns):
        screen.say(table)
        screen.say()
    for line in key(comparison):
        screen.say(line, "dim")
    for line in notes_on(comparison):
        screen.say(line, "yellow")


def _texts(
    found: Comparison, formats: Sequence[Format], sources: Mapping[str, str] | None, title: str
) -> Iterator[tuple[str, str]]:
    """File name and content."""
    from anamorph.report.comparison import render_comparison
    from anamorph.report.comparison_csv import as_csv, as_tests_csv, as_wide_csv
    from anamorph.report.comparison_text import as_latex, as_markdown

    if "csv" in formats:
        yield "comparison.csv", as_csv(found)
        yield "comparison_wide.csv", as_wide_csv(found)
        yield "comparison_tests.csv", as_tests_csv(found)
    if "md" in formats:
        yield "comparison.md", as_markdown(found)
    if "tex" in formats:
        yield "comparison.tex", as_latex(found)
    if "html" in formats:
        yield "comparison.html", render_comparison(found, sources, title)


def _names(paths: Sequence[Path]) -> list[str]:
    """A short name for each file, unlike the others: its folder's, its own, or both, and a number at the last."""
    resolved = [path.resolve() for path in paths]
    for name in (
        lambda path: path.parent.name if path.name == SCORES else path.stem,
        lambda path: f"{path.parent.name}/{path.stem}",
    ):
        names = [name(path) for path in resolved]
        if len(set(names)) == len(names):
            return names
    return [f"{path.parent.name}/{path.stem} {rank + 1}" for rank, path in enumerate(resolved)]
