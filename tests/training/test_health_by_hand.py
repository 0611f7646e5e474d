"""When translators and discriminators are said to be ill: once, and not for a while that passes."""

from __future__ import annotations

import warnings

import pytest

from anamorph.errors import AnamorphWarning
from anamorph.methods.both_ways import Side
from anamorph.methods.translation import FAULTS, HEALTH
from anamorph.training.health import TOLD, warn_of_health

WELL = {"answer_real": 0.6, "answer_fake": 0.4, "change": 0.5, "difference": 0.6, "contrast": 0.9, "alternation": 1.1}
ILL = {
    "W-TRN-020": {"contrast": 0.05},
    "W-TRN-021": {"change": 0.01},
    "W-TRN-022": {"answer_real": 0.97, "answer_fake": 0.03},
    "W-TRN-023": {"alternation": 2.5},
}

MODALITIES: dict[Side, str] = {"fixed": "mr", "moving": "ct"}


def rows_of(*states: str, side: str = "fixed") -> list[dict[str, str]]:
    """A row of a history each: ``well``, the code of a fault, or ``none`` where nothing was validated."""
    rows = []
    for epoch, state in enumerate(states, 1):
        numbers = WELL | ILL.get(state, {})
        health = {} if state == "none" else {f"health.{side}_{name}": str(value) for name, value in numbers.items()}
        rows.append({"epoch": str(epoch), "validation.translation_rmse": "0.1", **health})
    return rows


def told(rows: list[dict[str, str]]) -> list[str]:
    """What is told as the rows come in."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", AnamorphWarning)
        for end in range(1, len(rows) + 1):
            warn_of_health(rows[:end], MODALITIES)
    return [str(one.message) for one in caught]


def test_the_names_are_those_of_the_methods() -> None:
    assert set(WELL) == set(HEALTH)
    assert TOLD.keys() == FAULTS.keys()


@pytest.mark.parametrize("code", list(ILL))
@pytest.mark.parametrize("side", ["fixed", "moving"])
def test_a_fault_that_stays_is_told_once(code: str, side: Side) -> None:
    found = told(rows_of("well", code, "none", code, code, code, code, side=side))
    assert [line[:9] for line in found] == [code]
    assert MODALITIES[side] in found[0]
    assert told(rows_of(code, code, code, side=side)) == found
    assert len(told(rows_of(*[code] * 3, "well", *[code] * 3))) == 2


@pytest.mark.parametrize("code", list(ILL))
def test_a_fault_that_passes_is_not_told(code: str) -> None:
    assert told(rows_of(code, code, "well", code, code, "well")) == []


def test_equal_players_and_other_methods_are_well() -> None:
    even = [row | {"health.fixed_answer_real": "0.5", "health.fixed_answer_fake": "0.5"} for row in rows_of("well") * 5]
    assert told(even) == []
    assert told(rows_of(*["none"] * 5)) == []
