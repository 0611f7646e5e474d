"""Every refusal and every warning, as one line with a code.

A refusal reads ``E-XXX-nnn: FILE: found ..., expected ...; do ...``. Its class decides the exit code of the command
line, so a library user catches by kind and a script reads the number:

======  =======================  ==========================================
exit    class                    means
======  =======================  ==========================================
2       ``ConfigurationError``   usage, settings, an output that exists
3       ``InputError``           a file or array that cannot be trusted
4       ``ResourceError``        memory, disk, device
5       ``NumericalError``       the computation or its quality failed
6       ``IntegrityError``       a path, link or hash that looks hostile
======  =======================  ==========================================

Warnings are ``AnamorphWarning`` with a ``W-XXX-nnn`` code, raised by Python's ``warnings``; a run records each of them.
"""

from __future__ import annotations

import warnings
from functools import partial
from pathlib import Path
from typing import Any


class AnamorphError(Exception):
    """A refusal: what was found, what was expected and what to do, with a stable code."""

    exit_code = 1

    def __init__(
        self, code: str, found: str, *, file: str | Path | None = None, expected: str = "", do: str = ""
    ) -> None:
        """``file`` is shown by its name alone, so that no folder of the user's machine reaches a report."""
        self.code, self.found, self.expected, self.do = code, found, expected, do
        self.file = Path(file) if file is not None else None
        super().__init__(str(self))

    def __reduce__(self) -> tuple[Any, ...]:
        """Whole across processes, whose exceptions travel pickled."""
        return partial(type(self), file=self.file, expected=self.expected, do=self.do), (self.code, self.found)

    def __str__(self) -> str:
        where = f"{self.file.name}: " if self.file is not None else ""
        expected = f", expected {self.expected}" if self.expected else ""
        do = f"; {self.do}" if self.do else ""
        return f"{self.code}: {where}{self.found}{expected}{do}".replace("\n", " ")


class ConfigurationError(AnamorphError, ValueError):
    """Usage or settings are wrong."""

    exit_code = 2


class InputError(AnamorphError, ValueError):
    """An input cannot be trusted as it is."""

    exit_code = 3


class ResourceError(AnamorphError, RuntimeError):
    """Memory, disk or device do not suffice."""

    exit_code = 4


class NumericalError(AnamorphError, ArithmeticError):
    """The computation failed, or its quality did."""

    exit_code = 5


class IntegrityError(AnamorphError, RuntimeError):
    """A path, link or hash that a well-meant file would not have."""

    exit_code = 6


class AnamorphWarning(UserWarning):
    """Something was repaired or looks suspicious; the text starts with a ``W-XXX-nnn`` code."""


def warn(code: str, message: str, *, file: str | Path | None = None) -> None:
    """Issue an ``AnamorphWarning`` as one line, naming the file without its folder."""
    where = f"{Path(file).name}: " if file is not None else ""
    warnings.warn(f"{code}: {where}{message}".replace("\n", " "), AnamorphWarning, stacklevel=3)
