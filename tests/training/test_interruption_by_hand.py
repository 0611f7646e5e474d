"""Signals wait for a consistent state, then do what they would have done."""

from __future__ import annotations

import signal
import threading

import pytest

from anamorph.training.interruption import Interrupted, held_back

REACHED: list[str] = []


def interrupted_by(*numbers: signal.Signals, asked: bool = True) -> None:
    """A block to which signals come; ``REACHED`` tells how far it got."""
    REACHED[:] = ["begin"]
    with held_back() as interruption:
        for number in numbers:
            signal.raise_signal(number)
            REACHED.append("after")
        if asked and interruption.pending:
            raise Interrupted


@pytest.mark.parametrize("asked", [True, False])
def test_sigint_waits_and_is_passed_on_whether_it_was_asked_about_or_not(asked: bool) -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        interrupted_by(signal.SIGINT, asked=asked)
    assert REACHED == ["begin", "after"]
    assert signal.getsignal(signal.SIGINT) is before


def test_sigterm_reaches_the_handler_from_before() -> None:
    heard: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: heard.append(number))
    try:
        with pytest.raises(Interrupted):
            interrupted_by(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert heard == [signal.SIGTERM]


def test_a_second_signal_does_not_wait() -> None:
    with pytest.raises(KeyboardInterrupt):
        interrupted_by(signal.SIGINT, signal.SIGINT)
    assert REACHED == ["begin", "after"]


def test_without_a_signal_nothing_happens() -> None:
    interrupted_by()
    assert REACHED == ["begin"]


def test_in_another_thread_nothing_is_held_back() -> None:
    seen = []

    def work() -> None:
        with held_back() as interruption:
            seen.append((interruption.pending, signal.getsignal(signal.SIGINT)))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [(False, signal.getsignal(signal.SIGINT))]
