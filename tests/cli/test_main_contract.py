"""Exit codes, one-line errors, warnings and interruptions, whatever the verb."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Callable
from typing import Any

import pytest
import torch

from anamorph import __version__
from anamorph.cli import doctor
from anamorph.cli.main import VERBS, main
from anamorph.errors import ConfigurationError, InputError, IntegrityError, NumericalError, ResourceError, warn

Run = Callable[..., Any]


def raising(error: BaseException) -> Callable[..., int]:
    def run(*_: object) -> int:
        raise error

    return run


def test_help_lists_every_verb_with_its_purpose(anamorph: Run) -> None:
    ended = anamorph("--help")
    assert ended.code == 0
    for verb, purpose in VERBS.items():
        assert f"  {verb:<12}{purpose}\n" in ended.out
    assert max(map(len, ended.out.splitlines())) <= 80


def test_no_verb_shows_the_help_and_is_a_usage_error(anamorph: Run) -> None:
    ended = anamorph()
    assert ended.code == 2
    assert ended.out == anamorph("--help").out


def test_version(anamorph: Run) -> None:
    assert anamorph("--version").out == f"anamorph {__version__}\n"


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_a_verb_fits_80_columns(verb: str, anamorph: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    ended = anamorph(verb, "--help")
    assert ended.code == 0
    assert f"usage: anamorph {verb} " in ended.out
    assert VERBS[verb] in ended.out
    assert "--quiet" in ended.out
    table = ended.out.partition("-h, --help")[2]
    assert max(map(len, table.splitlines())) <= 80


def test_a_misspelt_verb_names_the_nearest(anamorph: Run) -> None:
    ended = anamorph("regsiter", "a.nii", "b.nii")
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith("E-CFG-010: 'regsiter' is no verb")
    assert ended.err.endswith("did you mean register?\n")


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (ConfigurationError("E-CFG-010", "found a"), 2, "E-CFG-010: found a"),
        (InputError("E-NII-006", "truncated"), 3, "E-NII-006: truncated"),
        (ResourceError("E-OUT-003", "full"), 4, "E-OUT-003: full"),
        (NumericalError("E-REG-013", "no overlap"), 5, "E-REG-013: no overlap"),
        (IntegrityError("E-FMT-001", "elsewhere"), 6, "E-FMT-001: elsewhere"),
        pytest.param(MemoryError(), 4, "E-MEM-002: ", id="R02-python"),
        pytest.param(RuntimeError("[enforce fail] DefaultCPUAllocator: x"), 4, "E-MEM-002: ", id="R02-cpu"),
        pytest.param(torch.OutOfMemoryError("CUDA"), 4, "E-MEM-002: ", id="R02-gpu"),
        pytest.param(OSError(errno.ENOSPC, "No space left", "/home/jo/out.nii"), 4, "E-OUT-003: out.nii: ", id="R03"),
    ],
)
def test_an_error_becomes_its_exit_code_and_one_line(
    error: Exception, code: int, line: str, anamorph: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "run", raising(error))
    ended = anamorph("doctor")
    assert (ended.code, ended.out) == (code, "")
    assert ended.err.startswith(line)
    assert ended.err.count("\n") == 1
    assert "/home" not in ended.err


def test_a_fault_of_our_own_says_how_to_see_more(anamorph: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "run", raising(KeyError("/home/jo/secret")))
    ended = anamorph("doctor")
    assert ended.code == 1
    assert "KeyError" in ended.err
    assert "--debug" in ended.err
    assert ended.err.count("\n") == 1
    assert "/home" not in ended.err


def test_debug_shows_the_traceback(anamorph: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "run", raising(InputError("E-NII-006", "truncated")))
    ended = anamorph("doctor", "--debug")
    assert ended.code == 3
    assert "Traceback" in ended.err
    assert ended.err.endswith("\nE-NII-006: truncated\n")


def test_r06_ctrl_c(anamorph: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "run", raising(KeyboardInterrupt()))
    ended = anamorph("doctor")
    assert ended.code == 130
    assert ended.err.startswith("interrupted: the results are not complete")


@pytest.mark.parametrize(
    ("line", "goes_on"),
    [
        ("prepare cohort --out prepared", True),
        ("evaluate cohort --methods none --out scores", True),
        ("atlas build cohort --out atlas", True),
        ("atlas show atlas --out page", False),
        ("segment ct.nii --atlases cohort --out segmented", True),
        ("segment ct.nii --model model --out segmented", False),
        ("train unet prepared --out run", False),
    ],
)
def test_r06_ctrl_c_tells_what_goes_on(
    anamorph: Run, monkeypatch: pytest.MonkeyPatch, line: str, goes_on: bool
) -> None:
    monkeypatch.setattr("anamorph.cli.main._run", raising(KeyboardInterrupt()))
    assert ("the same command goes on" in anamorph(*line.split()).err) == goes_on


def test_r06_a_termination_signal_unwinds_the_work(anamorph: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    unwound = []

    def terminated(*_: object) -> int:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            signal.pause()
        finally:
            unwound.append(True)
        return 0

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(doctor, "run", terminated)
    assert anamorph("doctor").code == 143
    assert unwound == [True]
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_reader_who_left_ends_the_program_quietly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "run", raising(BrokenPipeError()))
    monkeypatch.setattr("anamorph.cli.main.os.dup2", lambda *_: None)
    assert main(["doctor"]) == 0


def test_a_warning_is_shown_once_on_standard_error(anamorph: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def warned(*_: object) -> int:
        for _again in range(3):
            warn("W-NII-004", "not gzip", file="/home/jo/head.nii.gz")
        return 0

    monkeypatch.setattr(doctor, "run", warned)
    ended = anamorph("doctor", "--quiet")
    assert (ended.code, ended.out) == (0, "")
    assert ended.err == "W-NII-004: head.nii.gz: not gzip\n"


def test_control_characters_of_a_name_never_reach_the_terminal(anamorph: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "run", raising(InputError("E-IO-001", "no such file", file="\x1b[2Jx\a.nii")))
    assert anamorph("doctor").err == "E-IO-001: \ufffd[2Jx\ufffd.nii: no such file\n"
