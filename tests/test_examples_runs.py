"""Every example runs as its first line says, and leaves something in the folder it was given."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).parent.parent / "examples").glob("*.py"))


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_example(example: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", [example.name, str(tmp_path)])
    runpy.run_path(str(example), run_name="__main__")
    assert any(tmp_path.iterdir())
