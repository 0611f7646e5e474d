"""Flags over configuration file over defaults; and what is wrong is said in one line, whichever of them said it."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from anamorph.cli import register
from anamorph.cli.arguments import Form, flags_of, parse
from anamorph.cli.main import VERBS
from anamorph.errors import ConfigurationError
from anamorph.inference.request import RegistrationRequest

FORMS = {verb: import_module(f"anamorph.cli.{verb}").FORM for verb in VERBS}


def registration(*arguments: object) -> RegistrationRequest:
    return parse(register.FORM, [str(word) for word in arguments], "anamorph register", "")[0]


def refused(*arguments: object) -> str:
    with pytest.raises(ConfigurationError) as caught:
        registration(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def configuration(tmp_path: Path) -> Callable[[Any], Path]:
    """Writes a configuration file, from text or from values."""

    def make(content: Any) -> Path:
        path = tmp_path / "study.yaml"
        path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
        return path

    return make


@pytest.mark.parametrize("verb", VERBS)
def test_every_flag_of_a_verb_is_explained(verb: str) -> None:
    assert [name for name, flag in flags_of(FORMS[verb]).items() if not flag.info.description] == []


@pytest.mark.parametrize("verb", VERBS)
def test_a_form_names_fields_that_exist(verb: str) -> None:
    form = FORMS[verb]
    named = {*form.positional, *form.metavars, *(name for members in form.groups.values() for name in members)}
    assert named <= set(flags_of(form))


def test_two_fields_of_one_name_are_a_mistake_of_ours() -> None:
    class Inner(BaseModel):
        out: int = 0

    class Outer(BaseModel):
        out: int = 0
        inner: Inner = Inner()

    with pytest.raises(TypeError, match="out"):
        flags_of(Form(Outer))


def test_defaults_are_those_of_the_model() -> None:
    expected = RegistrationRequest(fixed=Path("a"), moving=Path("b"), out=Path("c"))
    assert registration("a", "b", "--out", "c") == expected


def test_flags_win_over_the_file_and_the_file_over_defaults(configuration: Callable[[Any], Path]) -> None:
    settings = {"similarity": "mi", "levels": [4, 2, 1]}
    file = configuration({"out": "from-file", "strict": True, "threads": 3, "settings": settings})
    flags = ["--no-strict", "--iterations", "9", "8", "7", "--similarity", "lncc"]
    found = registration("a", "b", "--config", file, *flags)
    assert (found.out, found.strict, found.threads) == (Path("from-file"), False, 3)
    assert found.settings.similarity == "lncc"
    assert found.settings.levels == (4, 2, 1)
    assert found.settings.iterations == (9, 8, 7)
    assert found.settings.smoothness == type(found.settings)().smoothness


def test_a_file_may_hold_everything(configuration: Callable[[Any], Path]) -> None:
    everything = RegistrationRequest(fixed=Path("a"), moving=Path("b"), out=Path("c"), threads=2)
    assert registration("--config", configuration(everything.model_dump(mode="json"))) == everything


@pytest.mark.parametrize("spelling", [["--ct-window", "-450", "450"], ["--ct_window", "-450", "450"]])
def test_negative_numbers_and_underscores(spelling: list[str]) -> None:
    assert registration("a", "b", "--out", "c", *spelling).settings.ct_window == (-450, 450)


def test_an_equals_sign_may_join_a_flag_and_its_value() -> None:
    assert registration("a", "b", "--out=c", "--max-memory=4G").max_memory == 4 * 2**30


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ([], "no FIXED, expected anamorph register FIXED MOVING --out FOLDER"),
        (["a", "b"], "no --out, expected anamorph register FIXED MOVING --out FOLDER"),
        (["a", "b", "c", "--out", "d"], "'c' is one too many, expected FIXED MOVING"),
        (["a", "b", "--out"], "--out: found nothing, expected FOLDER"),
        (["a", "b", "--out", "c", "--config", "--force"], "--config: found nothing, expected PATH"),
        (["a", "b", "--ct_window", "3", "--out", "c"], "--ct_window: found 3, expected NUMBER NUMBER"),
        (["a", "b", "--otu", "c"], "--otu: no such flag; did you mean --out?"),
        (["a", "b", "--out", "c", "--dbug"], "--dbug: no such flag; did you mean --debug?"),
        (["a", "b", "--out", "c", "--similarty=mi"], "--similarty: no such flag; did you mean --similarity?"),
        (["a", "b", "--out", "c", "--zzzz"], "--zzzz: no such flag; see anamorph register --help"),
        (["a", "b", "--out", "c", "--transform", "rigit"], "--transform: found rigit, expected rigid, similarity"),
        (["a", "b", "--out", "c", "--transform", "rigit"], "; did you mean rigid?"),
        (["a", "b", "--out", "c", "--threads", "two"], "--threads: found two, expected a valid integer"),
        (["a", "b", "--out", "c", "--threads", "0"], "--threads: found 0, expected greater than or equal to 1"),
        (["a", "b", "--out", "c", "--smoothness", "nan"], "--smoothness: found nan, expected a finite number"),
        (["a", "b", "--out", "c", "--levels", "4", "99"], "--levels: found 99, expected less than or equal to 16"),
        (["a", "b", "--out", "c", "--levels", "4"], "settings: values that do not fit each other: levels and iter"),
        (["a", "b", "--out", "c", "--max-memory", "4X"], "--max-memory: found 4X, expected a number of bytes"),
    ],
)  # fmt: skip
def test_m10_a_wrong_flag_is_refused_in_one_line(arguments: list[str], line: str) -> None:
    found = refused(*arguments)
    assert found.startswith("E-CFG-010: ")
    assert line in found


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ({"settings": {"similarty": "mi"}}, "settings.similarty: unknown key; did you mean settings.similarity?"),
        ({"similarity": "mi"}, "similarity: unknown key; did you mean settings.similarity?"),
        ({"settings": 3}, "settings: found 3, expected a valid dictionary"),
        ({"threads": "many"}, "threads: found many, expected a valid integer"),
        ({"settings": {"levels": [4, 99]}}, "settings.levels: found 99, expected less than"),
        ({"settings": {"smoothness": float("inf")}}, "settings.smoothness: found inf, expected a finite number"),
        ({"device": ["x" * 1000] * 100}, "device: found ['xxx"),
    ],
)
def test_m10_a_wrong_key_names_the_file(content: Any, line: str, configuration: Callable[[Any], Path]) -> None:
    found = refused("a", "b", "--out", "c", "--config", configuration(content))
    assert found.startswith(f"E-CFG-010: study.yaml: {line}")
    assert len(found) < 400


def test_a_flag_does_not_hide_a_wrong_key_above_it(configuration: Callable[[Any], Path]) -> None:
    found = refused("a", "b", "--out", "c", "--levels", "4", "2", "--config", configuration({"settings": 3}))
    assert found.startswith("E-CFG-010: study.yaml: settings: found 3")


def test_a_flag_that_replaces_a_wrong_key_is_enough(configuration: Callable[[Any], Path]) -> None:
    file = configuration({"threads": "x"})
    assert registration("a", "b", "--out", "c", "--config", file, "--threads", "2").threads == 2


@pytest.mark.parametrize(
    ("content", "line"),
    [
        pytest.param("!!python/object/apply:os.system [touch gone]", "line 1: could not determine", id="M09-object"),
        pytest.param("a: &a [1]\nb: [*a, *a]", "line 2: an alias", id="M09-bomb"),
        pytest.param("settings:\n  levels: [4]\n  levels: [2]", "line 3: the key 'levels' twice", id="M09-duplicate"),
        pytest.param("settings:\n\tlevels: 1", "line 2: found character '\\t'", id="M09-tab"),
        pytest.param("[1, 2]", "a list", id="M09-list"),
        pytest.param("1: 2", "line 1: a key that is no text", id="M09-number"),
        pytest.param("[" * 20_000, "no YAML (RecursionError)", id="M09-deep"),
        pytest.param("#" * (2**20 + 1), "more than 1048576 bytes", id="M09-long"),
    ],
)
def test_a_configuration_that_is_no_plain_mapping(
    content: str, line: str, configuration: Callable[[Any], Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    found = refused("a", "b", "--out", "c", "--config", configuration(content))
    assert found.startswith(f"E-CFG-009: study.yaml: {line}")
    assert len(found) < 400
    assert not (tmp_path / "gone").exists()


def test_an_empty_configuration_is_none(configuration: Callable[[Any], Path]) -> None:
    assert registration("a", "b", "--out", "c", "--config", configuration("")).out == Path("c")


def test_verbs_without_a_configuration_have_no_flag_for_it() -> None:
    with pytest.raises(ConfigurationError, match="--config: no such flag"):
        parse(FORMS["doctor"], ["--config", "x"], "anamorph doctor", "")


def test_a_switch_has_a_negative_form_only_where_a_file_can_set_it() -> None:
    assert not registration("a", "b", "--out", "c", "--no-force").force
    form: Form[Any] = FORMS["convert"]
    assert parse(form, ["a", "--out", "b", "--force"], "anamorph convert", "")[0].force
    with pytest.raises(ConfigurationError, match="--no-force: no such flag"):
        parse(form, ["a", "--out", "b", "--no-force"], "anamorph convert", "")
