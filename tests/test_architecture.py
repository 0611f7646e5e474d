"""The tree, its documents and the rules that no linter knows agree with each other."""

from __future__ import annotations

import ast
import json
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib import import_module
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

import anamorph
from anamorph import errors

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "src" / "anamorph"
SOURCES = {path.relative_to(PACKAGE).as_posix(): ast.parse(path.read_text()) for path in PACKAGE.rglob("*.py")}
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())

IN_A_PEERS_ENVIRONMENT = "inference/peers/script.py"
CODE = re.compile(r"[EW]-[A-Z]{2,4}-\d{3}")
ERROR_CLASSES = {
    cls.__name__: cls for cls in vars(errors).values() if isinstance(cls, type) and hasattr(cls, "exit_code")
}


def calls(tree: ast.AST) -> Iterator[tuple[str, ast.Call]]:
    """Every call with the dotted name of what is called, as written."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


# -- layers and modules ------------------------------------------------------------------------------------------------


def words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text))


def test_the_picture_shows_the_layers_that_the_linter_holds() -> None:
    picture = ARCHITECTURE.split("```")[1].strip().splitlines()
    contract = PROJECT["tool"]["importlinter"]["contracts"][0]
    layers, explanations = [line[:38] for line in picture], [line[38:] for line in picture]
    assert all(explanations)
    assert [words(line) for line in layers] == [words(line) for line in contract["layers"]]


def test_the_folders_present_are_those_the_page_names() -> None:
    named = re.search(r"Present today: `([^`]*)`", ARCHITECTURE)
    assert named is not None
    present = {path.stem for path in PACKAGE.iterdir() if not path.name.startswith("_") and path.suffix in ("", ".py")}
    assert present == set(named.group(1).split())


def modules_in_the_table() -> set[str]:
    """First cells name modules; `folder/*` leaves their names to the second."""
    modules: set[str] = set()
    for first, second in re.findall(r"^\| (`[^|]*`) \| ([^|]*) \|$", ARCHITECTURE, re.MULTILINE):
        for name in re.findall(r"`([^`]*)`", first):
            if name.endswith("/*"):
                listed = re.findall(r"`([^`]*)`", second)[0].split()
                modules |= {f"{name[:-1]}{module}.py" for module in listed}
            else:
                modules.add(name)
    return modules


def test_every_module_stands_in_the_table_and_every_row_in_the_tree() -> None:
    modules = {path for path in SOURCES if "/" in path and not path.endswith("__init__.py")}
    assert sorted(modules - modules_in_the_table()) == [], "not in docs/architecture.md"
    assert sorted(modules_in_the_table() - modules) == [], "in docs/architecture.md but not in the tree"


@pytest.mark.parametrize("name", ["utils", "util", "helpers", "helper", "common", "core", "misc"])
def test_no_module_has_a_name_that_says_nothing(name: str) -> None:
    assert [path for path in SOURCES if name in Path(path).with_suffix("").parts] == []


def test_one_module_in_the_project_interpolates() -> None:
    names = {
        path: {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        for path, tree in SOURCES.items()
    }
    assert [path for path, used in names.items() if any(name.startswith("grid_sample") for name in used)] == [
        "spatial/interpolation.py"
    ]


def test_dependencies_are_those_the_code_imports() -> None:
    distributions = packages_distributions()
    imported = set()
    for path, tree in SOURCES.items():
        for node in ast.walk(tree) if path != IN_A_PEERS_ENVIRONMENT else ():
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
                names = [node.module]
            imported |= {name.partition(".")[0] for name in names}
    imported -= {"anamorph", "pydantic_core", *sys.stdlib_module_names}  # pydantic_core is a part of pydantic
    used = {distributions[name][0].lower() for name in imported}
    declared = {re.split(r"[^\w-]", line)[0].lower() for line in PROJECT["project"]["dependencies"]}
    assert sorted(used - declared) == [], "imported but not among the dependencies of pyproject.toml"
    assert sorted(declared - used) == [], "among the dependencies of pyproject.toml but never imported"


# -- what untrusted input must never reach -----------------------------------------------------------------------------

FORBIDDEN_CALLS = {"eval", "exec", "os.system", "yaml.load", "yaml.unsafe_load", "yaml.full_load", "torch.load"}
FORBIDDEN_IMPORTS = {"pickle", "cPickle", "dill", "joblib", "shelve", "marshal"}


def dangers(tree: ast.AST) -> list[str]:
    found = []
    for name, call in calls(tree):
        shell = any(keyword.arg == "shell" for keyword in call.keywords)
        pickled = any(keyword.arg == "allow_pickle" for keyword in call.keywords)
        if name in FORBIDDEN_CALLS or name.endswith(("read_pickle", "to_pickle")) or shell or pickled:
            found.append(name)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name.partition(".")[0] in FORBIDDEN_IMPORTS]
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in FORBIDDEN_IMPORTS:
            found.append(node.module)
    return found


@pytest.mark.parametrize(
    "line",
    [
        "eval('1')",
        "import pickle",
        "from pickle import loads",
        "run('ls', shell=True)",
        "yaml.load(f)",
        "torch.load(p)",
    ],
)
def test_the_search_for_dangers_finds(line: str) -> None:
    assert dangers(ast.parse(line))


@pytest.mark.parametrize("path", [pytest.param(path, id=f"S12-{path}") for path in SOURCES])
def test_no_source_executes_what_it_reads(path: str) -> None:
    assert dangers(SOURCES[path]) == []


# -- the public names --------------------------------------------------------------------------------------------------


def test_the_public_names_are_those_agreed_upon() -> None:
    agreed = json.loads((ROOT / "tests" / "api.json").read_text())
    assert sorted(anamorph.__all__) == agreed, (
        "a public name came or went: edit tests/api.json and the changelog as well"
    )


@pytest.mark.parametrize("name", [name for name in anamorph.__all__ if name != "__version__"])
def test_a_public_name_is_defined_where_the_package_says(name: str) -> None:
    module = anamorph._MODULE_OF[name]
    assert getattr(anamorph, name) is getattr(import_module(module), name)
    assert getattr(anamorph, name).__module__ == module


def test_the_type_checker_sees_the_names_that_python_sees() -> None:
    seen = {
        alias.asname: node.module
        for block in SOURCES["__init__.py"].body
        if isinstance(block, ast.If)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert seen == anamorph._MODULE_OF


def test_an_unknown_name_is_an_attribute_error() -> None:
    misspelt = "regsiter"
    with pytest.raises(AttributeError, match=misspelt):
        getattr(anamorph, misspelt)


# -- the codes of refusals and warnings --------------------------------------------------------------------------------


def codes_of(node: ast.AST) -> list[str]:
    """The codes that a literal stands for; one that reads voxels leaves the family of the format open."""
    text = ""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        text = node.value
    if isinstance(node, ast.JoinedStr):
        text = "".join(str(part.value) if isinstance(part, ast.Constant) else "???" for part in node.values)
    families = ("NII", "FMT") if "???" in text else ("",)
    return [code for family in families if CODE.fullmatch(code := text.replace("???", family))]


def raised_codes() -> dict[str, set[str]]:
    """Each code in the sources, with the classes it is raised as (``warn`` for warnings)."""
    found: dict[str, set[str]] = {}
    for tree in SOURCES.values():
        for node in ast.walk(tree):
            for code in codes_of(node):
                found.setdefault(code, set())
        for name, call in calls(tree):
            kind = name.rpartition(".")[2]
            if call.args and (kind in ERROR_CLASSES or kind == "warn"):
                for code in codes_of(call.args[0]):
                    found[code].add(kind)
    return found


def catalogue() -> dict[str, str]:
    """Code -> exit cell of the table in docs/reference/errors.md; a code has one row."""
    rows = re.findall(
        r"^\| `([^`]+)` \|([^|]*)\|", (ROOT / "docs" / "reference" / "errors.md").read_text(), re.MULTILINE
    )
    codes = [code for code, _ in rows]
    assert len(codes) == len(set(codes)), sorted(code for code in codes if codes.count(code) > 1)
    return {code: exit_code.strip() for code, exit_code in rows}


def test_every_code_is_in_the_catalogue_and_nothing_else_is() -> None:
    raised, listed = set(raised_codes()), set(catalogue())
    assert sorted(raised - listed) == [], "raised but not in docs/reference/errors.md"
    assert sorted(listed - raised) == [], "in docs/reference/errors.md but never raised"


def test_a_code_means_one_thing() -> None:
    listed = catalogue()
    for code, kinds in raised_codes().items():
        assert len(kinds) <= 1, f"{code} is raised as {sorted(kinds)}"
        for kind in kinds:
            assert code[0] == ("W" if kind == "warn" else "E"), f"{code} is raised as {kind}"
            exit_code = "" if kind == "warn" else str(ERROR_CLASSES[kind].exit_code)
            assert listed.get(code, exit_code) == exit_code, f"{code} in docs/reference/errors.md"
