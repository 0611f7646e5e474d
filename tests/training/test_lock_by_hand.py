"""One run at a time in a folder."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from anamorph.errors import AnamorphWarning, ConfigurationError
from anamorph.training.lock import NAME, locked


def test_the_lock_says_who_holds_it_and_goes_with_the_block(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "run"
    with locked(folder):
        holder = json.loads((folder / NAME).read_text())
        assert holder["pid"] == os.getpid()
        assert "started" in holder
    assert list(folder.iterdir()) == []


def test_r08_a_second_one_is_refused_with_the_holder(tmp_path: Path) -> None:
    with locked(tmp_path):
        host = json.loads((tmp_path / NAME).read_text())["host"]
        with pytest.raises(ConfigurationError) as caught, locked(tmp_path):
            pytest.fail("two hold it")
        assert caught.value.code == "E-TRN-008"
        assert f"process {os.getpid()}, begun 20" in str(caught.value)
        assert host not in str(caught.value)
        with pytest.raises(ConfigurationError), locked(tmp_path):  # a refused one takes nothing away
            pytest.fail("two hold it")
    with locked(tmp_path):
        pass


def test_r09_the_lock_of_a_dead_process_is_void(tmp_path: Path) -> None:
    (tmp_path / NAME).write_text(json.dumps({"pid": 999_999, "started": "2026-11-21T10:00:00+00:00", "host": "x"}))
    with pytest.warns(AnamorphWarning, match="W-TRN-008: .*process 999999"), locked(tmp_path):
        assert json.loads((tmp_path / NAME).read_text())["pid"] == os.getpid()


@pytest.mark.parametrize("content", ["{", "[]", '{"pid": "x"}'])
def test_r09_nor_does_nonsense_in_it_matter(tmp_path: Path, content: str) -> None:
    (tmp_path / NAME).write_text(content)
    with pytest.warns(AnamorphWarning, match="another process"), locked(tmp_path):
        pass


def test_it_is_given_back_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(KeyError), locked(tmp_path):
        raise KeyError
    with locked(tmp_path):
        pass


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match="E-OUT-001"), locked(tmp_path / "file"):
        pytest.fail("it cannot")
