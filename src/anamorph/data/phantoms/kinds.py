"""The kinds of phantoms, and cohorts of them on disk."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from anamorph.data.cohort import Cohort, Split
from anamorph.data.files import atomic_write
from anamorph.data.phantoms.abdominal_cohort import Abdomen
from anamorph.data.phantoms.brain import Brain
from anamorph.data.phantoms.case import Phantom
from anamorph.data.phantoms.cohort_folder import CohortFolder
from anamorph.data.phantoms.deformed import Deformed
from anamorph.data.phantoms.heart import Heart
from anamorph.data.phantoms.letter_b import LetterB
from anamorph.data.phantoms.options import Options, options_for
from anamorph.data.phantoms.random_shapes import RandomShapes
from anamorph.data.phantoms.remapped import Remapped
from anamorph.data.phantoms.sliced import Sliced
from anamorph.errors import ConfigurationError

ABOUT = "phantom.json"
KINDS: dict[str, Callable[[Any, int], Phantom]] = {
    "letter_b": LetterB,
    "abdomen": Abdomen,
    "heart": Heart,
    "brain": Brain,
    "shapes": RandomShapes,
    "remapped": Remapped,
    "deformed": Deformed,
    "sliced": Sliced,
}
"""Kind -> what makes it of its options and a seed."""


def phantom(kind: str, seed: int = 0, options: Options | Mapping[str, Any] | None = None) -> Phantom:
    """A population to take cases from.

    Args:
        kind: one of ``KINDS``.
        seed: the same seed gives the same cases.
        options: of that kind; those that are absent have their defaults.

    Raises:
        ConfigurationError: E-SYN-001 and E-SYN-002, as ``options_for``.
    """
    given = options.model_dump(exclude_unset=True) if isinstance(options, BaseModel) else options or {}
    resolved = options_for(kind, given)
    return KINDS[kind](resolved, seed)


def synthesise(
    kind: str,
    cases: int | None,
    seed: int,
    out: Path,
    options: Options | Mapping[str, Any] | None = None,
    *,
    validation: int = 0,
    test: int = 0,
    progress: Callable[[str, float], None] | None = None,
) -> Cohort:
    """Write a cohort of phantoms; ``cohort_folder`` tells which files.

    Args:
        kind: one of ``KINDS``.
        cases: how many; a case is the same however many there are. None for all there are.
        seed: the same seed gives the same files.
        out: folder for them.
        options: of that kind.
        validation, test: how many of the last cases are for that, the test cases last. Where both are 0, a cohort that
            phantoms are made from keeps its splits.
        progress: told the stage, and how much of it is done.

    Raises:
        ConfigurationError: E-SYN-001 and E-SYN-002, as ``options_for``; E-SYN-003, numbers of cases that do not fit.
        ResourceError: the disk is full or refuses.
    """
    population = phantom(kind, seed, options)
    number = _number_of_cases(kind, cases, population.most, validation + test)
    folder = CohortFolder(out, with_maps=population.options.truth)
    (out / ABOUT).unlink(missing_ok=True)  # it is there again when all is
    template = population.template()
    if template is not None:
        folder.add_template(template)
    for index in range(number):
        if progress is not None:
            progress("cases", index / number)
        split = _split_of(index, number, validation, test)
        case = population.case(index, split)
        folder.add(case, case.name or f"case{index + 1:04d}", split or case.split or "train")
    if progress is not None:
        progress("cases", 1.0)
    cohort = folder.finished(population.label_names)
    about = {
        "kind": kind,
        "version": version("anamorph"),
        "seed": seed,
        "cases": number,
        "validation": validation,
        "test": test,
        "options": _without_folders(population.options.model_dump()),
        "labels": {str(label): name for label, name in population.label_names.items()},
    }
    if found := population.found():
        about["found"] = dict(found)
    with atomic_write(out / ABOUT) as part:
        part.write_text(json.dumps(about, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return cohort


def _number_of_cases(kind: str, cases: int | None, most: int | None, held_out: int) -> int:
    if cases is None and most is None:
        raise ConfigurationError("E-SYN-003", f"no number of cases for {kind}", do="give --cases")
    number = most if cases is None else cases
    assert number is not None
    if most is not None and number > most:
        raise ConfigurationError("E-SYN-003", f"{number} cases wanted", expected=f"at most the {most} there are")
    if held_out > number:
        found = f"{held_out} of {number} cases for validation and test"
        raise ConfigurationError("E-SYN-003", found, expected="not more than there are")
    return number


def _split_of(index: int, number: int, validation: int, test: int) -> Split | None:
    """What a case is used for; None where that was not asked."""
    if not validation + test:
        return None
    if index >= number - test:
        return "test"
    return "validation" if index >= number - test - validation else "train"


def _without_folders(value: Any) -> Any:
    """Values for JSON, files by their names alone, so that no folder of the user's machine is told."""
    if isinstance(value, Path):
        return value.name
    if isinstance(value, Mapping):
        return {key: _without_folders(item) for key, item in value.items()}
    return [_without_folders(item) for item in value] if isinstance(value, list | tuple) else value
