"""What the terminal shows: results on standard output; progress, warnings and errors on standard error."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.text import Text

from anamorph.errors import AnamorphWarning

OnProgress = Callable[[str, float], None]
SECONDS_BETWEEN_LINES = 10.0


class _Console(Console):
    """Text as it is; and a reader of our output who leaves early ends the program quietly (see ``main``)."""

    def __init__(self, stderr: bool = False) -> None:
        super().__init__(stderr=stderr, markup=False, emoji=False, highlight=False)

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


class Screen:
    """Where a verb writes.

    Args:
        quiet: nothing but warnings and errors.
    """

    def __init__(self, quiet: bool = False) -> None:
        self.quiet = quiet
        self._out, self._err = _Console(), _Console(stderr=True)
        self._warned: set[str] = set()

    def say(self, what: RenderableType = "", style: str = "") -> None:
        """A result; a line of text is never broken, so that it can be searched for and copied."""
        if not self.quiet:
            self._out.print(_safe(what, style), soft_wrap=isinstance(what, str | Text))

    def warning(self, line: str) -> None:
        """A warning, once."""
        if line not in self._warned:
            self._warned.add(line)
            self._err.print(_safe(line, "yellow"), soft_wrap=True)

    def error(self, line: str) -> None:
        """The one line of a refusal."""
        self._err.print(_safe(line, "red"), soft_wrap=True)

    @contextmanager
    def showing_warnings(self) -> Iterator[None]:
        """Every warning of the block as a line, when it occurs."""

        def show(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
            own = issubclass(category, AnamorphWarning)
            self.warning(str(message) if own else f"{category.__name__}: {message}".replace("\n", " "))

        with warnings.catch_warnings():
            warnings.simplefilter("always", AnamorphWarning)
            warnings.showwarning = show
            yield

    @contextmanager
    def progress(self) -> Iterator[OnProgress]:
        """Told a stage's name and how much of it is done: bars with the time left, or lines where none can be drawn."""
        if self.quiet:
            yield lambda stage, done: None
        elif not self._err.is_terminal:
            yield _Lines(self._err)
        else:
            columns = (
                TextColumn("{task.description:<12}"),
                BarColumn(bar_width=30),
                TaskProgressColumn(),
                TimeRemainingColumn(compact=True, elapsed_when_finished=True),
            )
            with Progress(*columns, console=self._err) as bars:
                yield _Bars(bars)


class _Bars:
    """A bar a stage. One that tells only its beginning and end pulses in between."""

    def __init__(self, bars: Progress) -> None:
        self.bars = bars
        self.tasks: dict[str, TaskID] = {}

    def __call__(self, stage: str, done: float) -> None:
        if stage not in self.tasks:
            self.tasks[stage] = self.bars.add_task(stage, total=None)
        if done > 0:
            self.bars.update(self.tasks[stage], total=1.0, completed=done)


class _Lines:
    """A line at the end of a stage, and one every few seconds within a long one."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.begun: dict[str, float] = {}
        self.ended: set[str] = set()
        self.told = time.monotonic()

    def __call__(self, stage: str, done: float) -> None:
        if stage in self.ended:
            return
        now = time.monotonic()
        seconds = now - self.begun.setdefault(stage, now)
        if done >= 1:
            self.ended.add(stage)
            self._print(f"{stage}: {seconds:.1f} s", now)
        elif done > 0 and now - self.told > SECONDS_BETWEEN_LINES:
            self._print(f"{stage}: {done:.0%}, about {seconds * (1 - done) / done:.0f} s left", now)

    def _print(self, line: str, now: float) -> None:
        self.told = now
        self.console.print(line, soft_wrap=True)


def shown(path: Path) -> str:
    """A path without the folders of this machine: from the current folder, or its last two parts."""
    try:
        return path.absolute().relative_to(Path.cwd()).as_posix()
    except ValueError:
        return "/".join(path.parts[-2:])


def printable(text: str) -> str:
    """Text whose control characters cannot act on the terminal: file names come from anywhere."""
    return "".join(c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in text)


def _safe(what: RenderableType, style: str) -> RenderableType:
    return Text(printable(what), style=style) if isinstance(what, str) else what
