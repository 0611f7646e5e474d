"""Signals wait for a consistent state, then do what they would have done."""

from __future__ import annotations

import signal
import threading

import pytest

from anamorph.training.interruption import Interrupted, held_back


def test_sigint_waits_and_is_passed_on() -> None:
    before = signal.getsignal(signal.SIGINT)
    steps = 0
    with pytest.raises(KeyboardInterrupt), held_back() as interruption:
        signal.raise_signal(signal.SIGINT)
        steps += 1
        assert interruption.pending
        raise Interrupted
    assert steps == 1
    assert signal.getsignal(signal.SIGINT) is before


def test_sigterm_reaches_the_handler_from_before() -> None:
    heard = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: heard.append(number))
    try:
        with pytest.raises(Interrupted), held_back():
            signal.raise_signal(signal.SIGTERM)
            assert heard == []
            raise Interrupted
    finally:
        signal.signal(signal.SIGTERM, before)
    assert heard == [signal.SIGTERM]


def test_a_second_signal_does_not_wait() -> None:
    with pytest.raises(KeyboardInterrupt), held_back():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        pytest.fail("it waited")


def test_a_signal_that_nobody_asked_about_is_passed_on_as_well() -> None:
    with pytest.raises(KeyboardInterrupt), held_back():
        signal.raise_signal(signal.SIGINT)


def test_without_a_signal_nothing_happens() -> None:
    with held_back() as interruption:
        assert not interruption.pending


def test_in_another_thread_nothing_is_held_back() -> None:
    seen = []

    def work() -> None:
        with held_back() as interruption:
            seen.append((interruption.pending, signal.getsignal(signal.SIGINT)))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [(False, signal.getsignal(signal.SIGINT))]
