"""Typed flags from pydantic models.

A model is the one schema. Every field becomes a flag, those of nested models under their own names. Flags win over the
configuration file and that over the defaults; what comes of it is checked once, by the model, so a wrong value reads
the same wherever it came from. tyro splits the command line and prints the help.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass, field
from difflib import get_close_matches
from itertools import takewhile
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Generic, Literal, TypedDict, TypeVar, get_args, get_origin

import tyro
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.fields import FieldInfo

from anamorph.data.configuration import read_configuration, refusal
from anamorph.errors import ConfigurationError

Model = TypeVar("Model", bound=BaseModel)


class Terminal(BaseModel):
    """Flags of every verb, which are no part of what it is asked to do."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    quiet: bool = False
    """Print nothing but warnings and errors."""
    debug: bool = False
    """Print the traceback of an error."""
    config: Path | None = None
    """YAML file with any of these settings, nested as under configuration in run.json, or a run.json; flags win."""


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
class Flag:
    """One field on the command line.

    Args:
        path: where it stands in the model, as ``("settings", "levels")``.
        info: its type, default and description.
        group: the title that it stands under; empty for the first.
        metavar: what stands for its value in the help.
        positional: whether it has no name on the command line.
        negatable: whether a switch has a ``--no-`` form, to take back what a configuration file says.
    """

    path: tuple[str, ...]
    info: FieldInfo
    group: str
    metavar: str
    positional: bool
    negatable: bool

    @property
    def shown(self) -> str:
        """As the user writes it."""
        return self.metavar if self.positional else f"--{self.path[-1].replace('_', '-')}"

    @property
    def fewest_words(self) -> int:
        """How many words it needs behind it."""
        words = get_args(_shape(self.info.annotation)) or (str,)
        return 0 if self.is_switch else max(1, words.count(str) - words.count(Ellipsis))

    @property
    def is_switch(self) -> bool:
        """Whether it takes no value."""
        return _shape(self.info.annotation) is bool

    @property
    def annotation(self) -> Any:
        """The type that tyro splits its text by, with its help."""
        default = self.info.default
        hint = f"(default: {_as_text(default)})"
        if self.info.is_required():
            hint = "(required)"
        elif default is None or default == () or (self.is_switch and not self.negatable):
            hint = ""
        text = " ".join((self.info.description or "").split())  # tyro would keep the line breaks of the docstring
        about = tyro.conf.arg(help=text, help_behavior_hint=hint, metavar=self.metavar or None)
        kind = Annotated[_shape(self.info.annotation), about]
        if self.is_switch and not self.negatable:
            return tyro.conf.FlagCreatePairsOff[kind]
        return tyro.conf.Positional[kind] if self.positional else kind


def parse(form: Form[Model], arguments: Sequence[str], prog: str, purpose: str) -> tuple[Model, Terminal]:
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
    flags = flags_of(form)
    example = f"\n\nExample: {form.example}" if form.example else ""
    given = _split(flags, arguments, prog, purpose + example)
    terminal = Terminal(**{name: given.pop(name) for name in Terminal.model_fields if name in given})
    values = _configured(terminal.config) if terminal.config else {}
    for name, value in given.items():
        _put(values, flags[name].path, value)
    try:
        return form.model.model_validate(values), terminal
    except ValidationError as error:
        names = {flag.path: flag.shown for flag in flags.values()}
        raise refusal(
            error, names, {flags[name].path for name in given}, terminal.config, _usage(flags, prog)
        ) from None


def _configured(file: Path) -> dict[str, Any]:
    """The settings in a configuration file, or those that the record of a run states."""
    values = read_configuration(file)
    recorded = values.get("configuration")
    return recorded if "status" in values and isinstance(recorded, dict) else values


def flags_of(form: Form[Any]) -> dict[str, Flag]:
    """Name -> flag, of the model, its nested models and the terminal.

    Raises:
        TypeError: two fields of one name.
    """
    group_of = {name: title for title, members in form.groups.items() for name in members}
    fields = [(path, info, "".join(path[:-1])) for path, info in _fields(form.model)]
    fields += [(path, info, "terminal") for path, info in _fields(Terminal) if form.configurable or path != ("config",)]
    flags: dict[str, Flag] = {}
    for path, info, group in fields:
        name, positional = path[-1], path[-1] in form.positional
        if name in flags or name == "help":
            raise TypeError(f"{form.model.__name__} has two fields {name!r}, which one flag cannot set")
        metavar = form.metavars.get(name) or (name.upper() if positional else _value_name(info.annotation))
        negatable = form.configurable and group != "terminal"
        flags[name] = Flag(path, info, group_of.get(name, group), metavar, positional, negatable)
    rank = {title: place for place, title in enumerate(["", *form.groups])}
    return dict(sorted(flags.items(), key=lambda item: rank.get(item[1].group, len(rank))))


def _fields(model: type[BaseModel], above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], FieldInfo]]:
    for name, info in model.model_fields.items():
        if isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel):
            yield from _fields(info.annotation, (*above, name))
        else:
            yield (*above, info.alias or name), info


def _split(flags: Mapping[str, Flag], arguments: Sequence[str], prog: str, description: str) -> dict[str, Any]:
    """The text given for each flag, by name.

    Raises:
        ConfigurationError: E-CFG-010, an unknown flag, a word too many, or a flag without its value.
    """
    groups: dict[str, dict[str, Any]] = {}
    off: dict[str, dict[str, bool]] = {}  # tyro takes a switch without a negative form for on, unless told
    for name, flag in flags.items():
        groups.setdefault(flag.group, {})[name] = flag.annotation
        if flag.is_switch and not flag.negatable:
            off.setdefault(flag.group, {})[name] = False
    about = tyro.conf.arg(help="")  # said here, or tyro looks for it in sources, which takes longer than all the rest
    members = groups.pop("", {}) | {title: Annotated[_typed(title, kinds), about] for title, kinds in groups.items()}
    try:
        with redirect_stderr(io.StringIO()):
            found, unknown = tyro.cli(
                _typed("Flags", members),
                prog=prog,
                description=description,
                args=list(arguments),
                default=off.pop("", {}) | off,
                return_unknown_args=True,
                config=(tyro.conf.OmitArgPrefixes,),
            )
    except SystemExit as stop:
        if not stop.code:
            raise
        raise _incomplete(arguments, flags, prog) from None
    if unknown:
        raise _unknown(unknown, flags, prog)
    return {
        name: text for group in (found, *(found.pop(title, {}) for title in groups)) for name, text in group.items()
    }


def _typed(name: str, kinds: Mapping[str, Any]) -> Any:
    """A TypedDict none of whose keys must be there: what was not given stays out of the result."""
    return TypedDict(name, dict(kinds), total=False)  # pyright: ignore[reportArgumentType]


def _shape(annotation: Any) -> Any:
    """How many words a value has: ``bool`` for none, ``str`` for one, a tuple of ``str`` for several."""
    while get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    origin, parts = get_origin(annotation), [part for part in get_args(annotation) if part is not NoneType]
    if annotation is bool:
        return bool
    if origin is tuple:
        return tuple[str, ...] if parts[-1] is Ellipsis else tuple[(str,) * len(parts)]
    return _shape(parts[0]) if parts and origin is not Literal else str


def _value_name(annotation: Any) -> str:
    """What stands for a value in the help: INT, {a,b}, INT [INT ...]."""
    while get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    origin, parts = get_origin(annotation), [part for part in get_args(annotation) if part is not NoneType]
    if origin is Literal:
        return "{" + ",".join(map(str, parts)) + "}"
    if origin is tuple and parts[-1] is Ellipsis:
        return f"{_value_name(parts[0])} [{_value_name(parts[0])} ...]"
    if origin is tuple:
        return " ".join(map(_value_name, parts))
    if parts:
        return _value_name(parts[0])
    return {bool: "", int: "INT", float: "NUMBER", Path: "PATH"}.get(annotation, "TEXT")


def _as_text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _put(tree: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
    for name in path[:-1]:
        tree = tree.setdefault(name, {})
        if not isinstance(tree, dict):  # the file is wrong there, and the model will say so
            return
    tree[path[-1]] = value


def _unknown(tokens: Sequence[str], flags: Mapping[str, Flag], prog: str) -> ConfigurationError:
    token = next((token for token in tokens if token.startswith("-")), tokens[0]).partition("=")[0]
    if not token.startswith("-"):
        places = " ".join(flag.shown for flag in flags.values() if flag.positional) or "flags alone"
        return ConfigurationError("E-CFG-010", f"{token!r} is one too many", expected=places, do=f"see {prog} --help")
    near = get_close_matches(token.replace("_", "-"), [flag.shown for flag in flags.values()], n=1)
    do = f"did you mean {near[0]}?" if near else f"see {prog} --help"
    return ConfigurationError("E-CFG-010", f"{token}: no such flag", do=do)


def _incomplete(arguments: Sequence[str], flags: Mapping[str, Flag], prog: str) -> ConfigurationError:
    """What tyro could not split: a flag with fewer words behind it than it needs."""
    by_token = {flag.shown: flag for flag in flags.values()}
    for index, token in enumerate(arguments):
        flag = by_token.get(token.replace("_", "-"))
        words = list(takewhile(lambda word: not word.startswith("--"), arguments[index + 1 :]))
        if flag is not None and len(words) < flag.fewest_words:
            found = f"{token}: found {' '.join(words) or 'nothing'}"
            return ConfigurationError("E-CFG-010", found, expected=flag.metavar)
    return ConfigurationError("E-CFG-010", "arguments that make no sense", do=f"see {prog} --help")


def _usage(flags: Mapping[str, Flag], prog: str) -> str:
    """The shortest command line that would do."""
    words = [flag.shown for flag in flags.values() if flag.positional]
    for flag in flags.values():
        if flag.info.is_required() and not flag.positional:
            words += [flag.shown, flag.metavar]
    return " ".join([prog, *words])
