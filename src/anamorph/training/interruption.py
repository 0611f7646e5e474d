"""SIGINT and SIGTERM held back until the state can be saved, then passed on."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(BaseException):
    """The training stops because it was told to; like KeyboardInterrupt, no error."""


class Interruption:
    """Whether a signal has come.

    Attributes:
        number: of the signal; None as long as none has come.
    """

    def __init__(self) -> None:
        self.number: int | None = None

    @property
    def pending(self) -> bool:
        """Whether to stop at the next consistent state."""
        return self.number is not None


@contextmanager
def held_back() -> Iterator[Interruption]:
    """Signals are noted within the block, and do what they would have done when it has ended.

    A second one does so at once. Outside the main thread nothing is held back, since Python delivers no signal there.
    """
    interruption = Interruption()
    if threading.current_thread() is not threading.main_thread():
        yield interruption
        return
    before: dict[int, Any] = {}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def note(number: int, frame: FrameType | None) -> None:
        if interruption.pending:
            restore()
            signal.raise_signal(number)
        interruption.number = number

    for number in SIGNALS:
        before[number] = signal.signal(number, note)
    try:
        yield interruption
    finally:
        restore()
        if interruption.number is not None:
            signal.raise_signal(interruption.number)
