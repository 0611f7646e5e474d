"""Typed flags from pydantic models.

A model is the one schema. Every field becomes a flag, those of nested models under their own names. Flags win over the
configuration file and that over the defaults; what comes of it is checked once, by the model, so a wrong value reads
the same wherever it came from. tyro splits the command line and prints the help.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Generic, Literal, TypedDict, TypeVar, get_args, get_origin

import tyro
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from anamorph.cli.configuration import read_configuration, refusal
from anamorph.errors import ConfigurationError

Model = TypeVar("Model", bound=BaseModel)

TERMINAL = {
    "quiet": "Print nothing but warnings and errors.",
    "debug": "Print the traceback of an error.",
}
CONFIG = "YAML file with any of these settings, nested as in run.json; flags win over it."
BOX = re.compile(r"[\s─│╭╮╰╯]+")


@dataclass(frozen=True)
class Form(Generic[Model]):
    """How a verb asks for its model.

    Args:
        model: what the verb takes; the docstrings of its fields are the help.
        positional: fields given by their place.
        groups: title -> fields that stand together in the help, in its order; a nested model is a group by itself.
        metavars: what stands for a field's value in the help.
        example: one command line.
        configurable: whether ``--config`` is offered.
    """

    model: type[Model]
    positional: tuple[str, ...] = ()
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    metavars: Mapping[str, str] = field(default_factory=dict)
    example: str = ""
    configurable: bool = False


@dataclass(frozen=True)
class Given(Generic[Model]):
    """What a command line asks for."""

    request: Model
    quiet: bool
    debug: bool


@dataclass(frozen=True)
class Flag:
    """One field: where it stands in the model, as ``("settings", "levels")``, and what it is."""

    path: tuple[str, ...]
    info: FieldInfo


def parse(form: Form[Model], arguments: Sequence[str], prog: str, purpose: str) -> Given[Model]:
    """The model that a command line and its configuration file give.

    Args:
        form: what is asked.
        arguments: everything behind the verb.
        prog: "anamorph VERB", for the help.
        purpose: what the verb does, in a line.

    Raises:
        ConfigurationError: E-CFG-010, an unknown flag or key, or a value that does not fit; E-CFG-009, a configuration
            file that is no plain YAML mapping.
        SystemExit: with 0, after ``--help``.
    """
    flags = flags_of(form.model)
    values, unknown = _split(form, flags, arguments, prog, purpose)
    stray = next((token for token in unknown if token.startswith("-")), unknown[0] if unknown else None)
    if stray is not None:
        raise _unknown(stray, flags, form, prog)
    given = {name: values.pop(name) for name in flags if name in values}
    file = Path(values["config"]) if "config" in values else None
    configuration = read_configuration(file) if file else {}
    for name, value in given.items():
        _put(configuration, flags[name].path, value)
    try:
        request = form.model.model_validate(configuration)
    except ValidationError as error:
        names = {flag.path: _shown(name, form) for name, flag in flags.items()}
        by_flag = {flags[name].path for name in given}
        raise refusal(error, names, by_flag, file, _usage(form, flags, prog)) from None
    return Given(request, bool(values["quiet"]), bool(values["debug"]))


def flags_of(model: type[BaseModel]) -> dict[str, Flag]:
    """Name -> field, nested models' fields included.

    Raises:
        TypeError: two fields of one name.
    """
    flags: dict[str, Flag] = {}
    for path, info in _fields(model, ()):
        if path[-1] in flags or path[-1] in (*TERMINAL, "config", "help"):
            raise TypeError(f"{model.__name__} has two fields {path[-1]!r}, which one flag cannot set")
        flags[path[-1]] = Flag(path, info)
    return flags


def _fields(model: type[BaseModel], above: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], FieldInfo]]:
    for name, info in model.model_fields.items():
        if isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel):
            yield from _fields(info.annotation, (*above, name))
        else:
            yield (*above, name), info


def _split(
    form: Form[Any], flags: Mapping[str, Flag], arguments: Sequence[str], prog: str, purpose: str
) -> tuple[dict[str, Any], list[str]]:
    """The command line as text by field, and the tokens that are nobody's."""
    groups: dict[str, dict[str, Any]] = {title: {} for title in form.groups}
    for name, flag in flags.items():
        title = next((title for title, members in form.groups.items() if name in members), "".join(flag.path[:-1]))
        groups.setdefault(title, {})[name] = _annotation(name, flag.info, form)
    groups["terminal"] = {
        name: tyro.conf.FlagCreatePairsOff[Annotated[bool, tyro.conf.arg(help=text, help_behavior_hint="")]]
        for name, text in TERMINAL.items()
    }
    if form.configurable:
        about = tyro.conf.arg(help=CONFIG, metavar="FILE", help_behavior_hint="")
        groups["terminal"]["config"] = Annotated[str, about]
    ungrouped = groups.pop("", {})
    about = tyro.conf.arg(help="")  # said here, or tyro looks for it in sources, which takes longer than all the rest
    schema = {**ungrouped, **{title: Annotated[_typed(title, them), about] for title, them in groups.items()}}
    example = f"\n\nExample: {form.example}" if form.example else ""
    complaints = io.StringIO()
    try:
        with redirect_stderr(complaints):
            found, unknown = tyro.cli(
                _typed("Flags", schema),
                prog=prog,
                description=purpose + example,
                args=list(arguments),
                default=_off(ungrouped) | {title: _off(members) for title, members in groups.items()},
                return_unknown_args=True,
                config=(tyro.conf.OmitArgPrefixes,),
            )
    except SystemExit as stop:
        if not stop.code:
            raise
        text = BOX.sub(" ", complaints.getvalue().partition("├" if "├" in complaints.getvalue() else "\n│ ──")[0])
        raise ConfigurationError("E-CFG-010", _sentence(text), do=f"see {prog} --help") from None
    values: dict[str, Any] = {}
    for name, value in found.items():
        values |= value if name in groups else {name: value}
    return values, unknown


def _off(members: Mapping[str, Any]) -> dict[str, bool]:
    """A flag without a negative form is off until it is given; everything else is simply absent."""
    return {name: False for name, kind in members.items() if tyro.conf.FlagCreatePairsOff in get_args(kind)}


def _sentence(text: str) -> str:
    """What tyro's box says, without its title."""
    return re.sub(r"^\s*[A-Z][a-z ]*? (?=[A-Z])", "", text).strip().rstrip(".")


def _typed(name: str, fields: Mapping[str, Any]) -> Any:
    """A TypedDict none of whose keys must be there: what was not given stays out of the result."""
    return TypedDict(name, dict(fields), total=False)  # pyright: ignore[reportArgumentType]


def _annotation(name: str, info: FieldInfo, form: Form[Any]) -> Any:
    """The type that tyro splits a field's text by, with its help."""
    shape, metavar = _shape(info.annotation)
    positional = name in form.positional
    if info.is_required():
        hint = "(required)"
    elif info.default is None or info.default == () or (shape is bool and not form.configurable):
        hint = ""
    else:
        hint = f"(default: {_default(info.default)})"
    metavar = form.metavars.get(name) or (name.upper() if positional else metavar)
    kind = Annotated[shape, tyro.conf.arg(help=info.description or "", help_behavior_hint=hint, metavar=metavar)]
    if shape is bool and not form.configurable:  # --no-... takes back what a configuration file says
        return tyro.conf.FlagCreatePairsOff[kind]
    return tyro.conf.Positional[kind] if positional else kind


def _shape(annotation: Any) -> tuple[Any, str | None]:
    """How many words a value has, and what they are called: (str, "INT") or (tuple[str, ...], "INT [INT ...]")."""
    while get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    origin, parts = get_origin(annotation), [part for part in get_args(annotation) if part is not NoneType]
    if annotation is bool:
        return bool, None
    if origin is Literal:
        return str, "{" + ",".join(map(str, parts)) + "}"
    if origin is tuple and parts[-1] is Ellipsis:
        word = _shape(parts[0])[1]
        return tuple[str, ...], f"{word} [{word} ...]"
    if origin is tuple:
        return tuple[(str,) * len(parts)], " ".join(_shape(part)[1] or "" for part in parts)
    if parts:
        return _shape(parts[0])
    return str, {int: "INT", float: "NUMBER", Path: "PATH"}.get(annotation, "TEXT")


def _default(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _put(tree: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
    for name in path[:-1]:
        tree = tree.setdefault(name, {})
        if not isinstance(tree, dict):  # the file is wrong there, and the model will say so
            return
    tree[path[-1]] = value


def _shown(name: str, form: Form[Any]) -> str:
    return name.upper() if name in form.positional else f"--{name.replace('_', '-')}"


def _unknown(token: str, flags: Mapping[str, Flag], form: Form[Any], prog: str) -> ConfigurationError:
    if not token.startswith("-"):
        places = " ".join(name.upper() for name in form.positional) or "no files"
        return ConfigurationError("E-CFG-010", f"{token!r} is one too many", expected=places, do=f"see {prog} --help")
    known = [_shown(name, form) for name in flags if name not in form.positional]
    known += [f"--{name}" for name in (*TERMINAL, *(["config"] if form.configurable else []))]
    near = get_close_matches(token.partition("=")[0].replace("_", "-"), known, n=1)
    do = f"did you mean {near[0]}?" if near else f"see {prog} --help"
    return ConfigurationError("E-CFG-010", f"{token.partition('=')[0]}: no such flag", do=do)


def _usage(form: Form[Any], flags: Mapping[str, Flag], prog: str) -> str:
    """The shortest command line that would do."""
    words = [prog, *(name.upper() for name in form.positional)]
    for name, flag in flags.items():
        if flag.info.is_required() and name not in form.positional:
            words += [_shown(name, form), form.metavars.get(name) or _shape(flag.info.annotation)[1] or ""]
    return " ".join(words)
