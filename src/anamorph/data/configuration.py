"""Settings from and to YAML files, and one line for what does not fit."""

from __future__ import annotations

import reprlib
from collections.abc import Collection, Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_args, get_origin

from pydantic import BaseModel, Discriminator, Tag, ValidationError

from anamorph.errors import ConfigurationError

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo
    from pydantic_core import ErrorDetails

MOST_BYTES = 1 << 20
Location = tuple[str, ...]
Model = TypeVar("Model", bound=BaseModel)


def read_configuration(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file: plain values, no key twice, no aliases; below the top a key may be a whole number.

    Raises:
        ConfigurationError: E-CFG-011, it cannot be read; E-CFG-009, anything else than a plain mapping.
    """
    import yaml

    class Loader(yaml.SafeLoader):
        def construct_document(self, node: Any) -> Any:
            self.top = node
            return super().construct_document(node)

        def compose_node(self, parent: Any, index: Any) -> Any:
            if self.check_event(yaml.AliasEvent):
                raise yaml.MarkedYAMLError(problem="an alias", problem_mark=self.peek_event().start_mark)
            return super().compose_node(parent, index)

        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
            mapping = super().construct_mapping(node, deep)
            seen = set()
            for key_node, _ in node.value:
                key = self.construct_object(key_node, deep=True)
                plain = isinstance(key, str) or (type(key) is int and node is not self.top)
                if not plain or str(key) in seen:
                    problem = f"the key {key!r} twice" if plain else "a key that is no text"
                    raise yaml.MarkedYAMLError(problem=problem, problem_mark=key_node.start_mark)
                seen.add(str(key))
            return mapping

    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except OSError as error:
        reason = (error.strerror or "it cannot be read").lower()
        raise ConfigurationError("E-CFG-011", reason, file=path, expected="a configuration file") from error
    if len(content) > MOST_BYTES:
        raise _refused(path, f"more than {MOST_BYTES} bytes")
    try:
        found = Loader(content).get_single_data()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        line = f"line {mark.line + 1}: " if mark is not None else ""
        raise _refused(path, f"{line}{error.problem}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise _refused(path, f"no YAML ({type(error).__name__})") from None
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise _refused(path, f"a {type(found).__name__}")
    return found


def _refused(path: Path, found: str) -> ConfigurationError:
    return ConfigurationError("E-CFG-009", found, file=path, expected="plain YAML, each key once")


def refusal(
    error: ValidationError,
    names: Mapping[Location, str],
    by_flag: Collection[Location],
    file: Path | None,
    usage: str,
) -> ConfigurationError:
    """The first thing that a model has against its values, as one line.

    Args:
        error: what pydantic says.
        names: of every flag, by its field's place in the model.
        by_flag: the places whose values came from flags.
        file: the configuration file, which the other values came from.
        usage: the shortest command line that would do.
    """
    problems = error.errors(include_url=False)
    problem = problems[0]
    place = _untagged(problem, names)
    field = next((place[:length] for length in range(len(place), 0, -1) if place[:length] in names), place)
    if problem["type"] == "missing":
        return ConfigurationError("E-CFG-010", f"no {names.get(field, '.'.join(field))}", expected=usage)
    conflict = problem["type"] == "value_error" and isinstance(problem["input"], dict)
    flagged = field in by_flag or (conflict and any(given[: len(field)] == field for given in by_flag))
    key = names.get(field, ".".join(field)) if flagged or file is None else ".".join(field)
    others = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    expected, do = _advice(problem, place, names)
    if problem["type"] == "extra_forbidden":
        key, found = ".".join(place), "unknown key"
    elif conflict:
        found, expected = f"values that do not fit each other: {expected}", ""
    else:
        found = f"found {_short(problem['input'])}"
    file = None if flagged else file
    found = f"{key}: {found}" if key else found
    return ConfigurationError("E-CFG-010", found + others, file=file, expected=expected, do=do)


def _untagged(problem: ErrorDetails, names: Mapping[Location, str]) -> Location:
    """Where a problem is, without the kinds that pydantic names where one of several models was chosen."""
    found: Location = ()
    words = [part for part in problem["loc"] if isinstance(part, str)]
    for number, part in enumerate(words, 1):
        last = number == len(words) and problem["type"] in ("extra_forbidden", "missing")
        known = {name[len(found)] for name in names if len(name) > len(found) and name[: len(found)] == found}
        if last or part in known or not known:
            found = (*found, part)
    return found


def _advice(problem: ErrorDetails, place: Location, names: Mapping[Location, str]) -> tuple[str, str]:
    """What was expected, and what to do."""
    context = problem.get("ctx", {})
    if problem["type"] == "extra_forbidden":
        near = _nearest(place, names)
        return "", f"did you mean {near}?" if near else ""
    if problem["type"] == "literal_error":
        choices = [choice.strip("'") for choice in context["expected"].replace(" or ", ", ").split(", ")]
        near = get_close_matches(str(problem["input"]), choices, n=1)
        return context["expected"].replace("'", ""), f"did you mean {near[0]}?" if near else ""
    if problem["type"] == "value_error":
        return str(context["error"]), ""
    message = problem["msg"].removeprefix("Input should be ")
    return message[:1].lower() + message[1:].partition(",")[0], ""


def _nearest(place: Location, names: Mapping[Location, str]) -> str:
    """The known key that an unknown one is most like: by its last word, so that a wrong level is found as well."""
    words = {path[-1]: path for path in sorted(names, key=lambda path: path[:-1] == place[:-1])}  # its own level wins
    near = get_close_matches(place[-1].replace("-", "_"), words, n=1)
    return ".".join(words[near[0]]) if near else ""


def _short(value: Any) -> str:
    """A value to show, however long or deep it is."""
    text = reprlib.repr(value)
    return text[1:-1] if isinstance(value, str) and value.strip() else text


def load(model: type[Model], path: Path) -> Model:
    """A model from a YAML file.

    Raises:
        ConfigurationError: E-CFG-009, no plain YAML; E-CFG-010, an unknown key or a value that does not fit; E-CFG-011,
            the file cannot be read; E-CFG-012, it has another version than the model.
    """
    values = read_configuration(path)
    _refuse_other_versions(model, values, path)
    try:
        return model.model_validate(values)
    except ValidationError as error:
        names = {place: ".".join(place) for place in places(model, values) if place}
        raise refusal(error, names, (), path, f"{path.name} with all that has no default") from None


def _refuse_other_versions(model: type[BaseModel], values: Mapping[str, Any], path: Path) -> None:
    """Before any other complaint, which the other version would explain."""
    info = model.model_fields.get("version")
    known = get_args(info.annotation) if info is not None else ()
    if known and "version" in values and values["version"] not in known:
        found, expected = f"version {reprlib.repr(values['version'])}", f"version {' or '.join(map(str, known))}"
        do = "make it anew, or use the release of Anamorph that wrote it"
        raise ConfigurationError("E-CFG-012", found, file=path, expected=expected, do=do)


def merged(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Values with changes, nested mappings key by key."""
    result = dict(values)
    for name, value in changes.items():
        before = result.get(name)
        result[name] = merged(before, value) if isinstance(before, Mapping) and isinstance(value, Mapping) else value
    return result


def save(model: BaseModel, path: Path) -> None:
    """Write a model as YAML, every value spelled out, in the order of its fields; atomically."""
    import yaml

    from anamorph.data.files import atomic_write

    with atomic_write(path) as part:
        part.write_text(yaml.safe_dump(model.model_dump(mode="json"), sort_keys=False, allow_unicode=True), "utf-8")


def places(kind: Any, values: Any, place: Location = ()) -> Iterator[Location]:
    """Where every field of a model and of the models in it stands; in a mapping, under the keys that ``values`` has.

    Where one of several models is to be chosen, those of the one that ``values`` name.
    """
    yield place
    values = values if isinstance(values, dict) else {}
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        for name, info in kind.model_fields.items():
            yield from places(_chosen(info, values.get(name)), values.get(name), (*place, name))
    elif get_origin(kind) is dict:
        for name in filter(lambda name: isinstance(name, str), values):
            yield from places(get_args(kind)[1], values[name], (*place, name))


def _chosen(info: FieldInfo, values: Any) -> Any:
    """The type of a field; of several models that a kind tells apart, the one that is meant."""
    choices = [part.discriminator for part in info.metadata if isinstance(part, Discriminator)]
    if not choices or not callable(choices[0]):
        return info.annotation
    kind = str(choices[0](values if isinstance(values, dict) else {}))
    members = {part.tag: get_args(member)[0] for member in get_args(info.annotation) for part in _tags(member)}
    return members.get(kind, info.annotation)


def _tags(member: Any) -> list[Tag]:
    return [part for part in get_args(member)[1:] if isinstance(part, Tag)]
