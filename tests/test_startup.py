"""Importing the package and asking for help must not load what only the work needs."""

from __future__ import annotations

import subprocess
import sys

import pytest

from anamorph.cli.main import VERBS as PURPOSES

HEAVY = {"torch", "monai", "matplotlib", "SimpleITK", "pandas"}
LOADED = "import sys; print('loaded:', *{name.partition('.')[0] for name in sys.modules})"
HELP = """
from anamorph.cli.main import main
try:
    main()
except SystemExit as stop:
    assert stop.code in (0, None), stop.code
"""
VERBS = list(PURPOSES)


def heavy_modules_after(program: str, *arguments: str) -> set[str]:
    command = [sys.executable, "-c", f"{program}\n{LOADED}", *arguments]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return HEAVY & set(run.stdout.rpartition("loaded:")[2].split())


def test_the_probe_sees_a_heavy_import() -> None:
    assert heavy_modules_after("import torch") == {"torch"}


def test_importing_the_package_loads_nothing_heavy() -> None:
    assert heavy_modules_after("import anamorph") == set()


@pytest.mark.parametrize("verb", [[], *([verb] for verb in VERBS)], ids=["anamorph", *VERBS])
def test_help_loads_nothing_heavy(verb: list[str]) -> None:
    assert heavy_modules_after(HELP, *verb, "--help") == set()
