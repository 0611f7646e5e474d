"""Warnings of many scans: kept by scan, and shown without repeating one that thousands of files give rise to."""

from __future__ import annotations

import threading
import warnings
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from anamorph.errors import AnamorphWarning, warn

SHOWN = 3
"""Warnings of one code that are shown; the others are counted."""


class ScanWarnings:
    """Within its block our warnings are kept back, also those of other threads; at its end they are issued."""

    def __init__(self) -> None:
        self.by_code: dict[str, list[str]] = defaultdict(list)
        self._thread = threading.local()
        self._lock = threading.Lock()

    def __enter__(self) -> ScanWarnings:
        self._before = warnings.catch_warnings()
        self._before.__enter__()
        warnings.simplefilter("always", AnamorphWarning)
        shown = warnings.showwarning

        def keep(message: Warning | str, category: type[Warning], *where: Any, **how: Any) -> None:
            if not issubclass(category, AnamorphWarning):
                shown(message, category, *where, **how)
                return
            text = str(message)
            with self._lock:
                self.by_code[text.partition(":")[0]].append(text)
            getattr(self._thread, "issued", []).append(text)

        warnings.showwarning = keep
        return self

    def __exit__(self, *failure: Any) -> None:
        self._before.__exit__(*failure)
        for code, texts in sorted(self.by_code.items()):
            distinct = list(dict.fromkeys(sorted(texts)))
            for text in distinct[:SHOWN]:
                warn(code, text.partition(": ")[2])
            if len(distinct) > SHOWN:
                warn("W-COH-051", f"{code} {len(distinct) - SHOWN} more times; index.json names each")

    @contextmanager
    def about(self, name: str) -> Iterator[list[str]]:
        """The warnings that this thread gives rise to meanwhile."""
        self._thread.issued = issued = []
        try:
            yield issued
        finally:
            self._thread.issued = []
