"""The stages of a piece of work: told when they begin and end, and timed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from anamorph.pairwise.register import Progress


@dataclass
class Stages:
    """``with stages("network"): ...`` tells ``progress`` and keeps the seconds."""

    progress: Progress | None = None
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """One stage."""
        begin = time.perf_counter()
        if self.progress is not None:
            self.progress(name, 0.0)
        yield
        self.seconds[name] = time.perf_counter() - begin
        if self.progress is not None:
            self.progress(name, 1.0)
