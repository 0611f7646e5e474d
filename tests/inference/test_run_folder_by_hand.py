"""What a run that replaces another leaves in its folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from anamorph.errors import ConfigurationError
from anamorph.inference.run_folder import Run


def complete(folder: Path, *names: str, force: bool = True) -> Run:
    with Run(folder, "segment", {}, force=force) as run:
        for name in names:
            path = run.path(name)
            path.parent.mkdir(exist_ok=True)
            path.write_text(name)
        run.finish()
    return run


def names_in(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()} - {"run.json"}


def test_files_that_are_not_written_anew_go_and_others_stay(tmp_path: Path) -> None:
    complete(tmp_path, "segmentation.nii.gz", "segmentation_one_pass.nii.gz", "cases/mesh.vtk")
    (tmp_path / "notes.txt").write_text("mine")
    complete(tmp_path, "segmentation.nii.gz", "report.html")
    assert names_in(tmp_path) == {"segmentation.nii.gz", "report.html", "notes.txt"}
    assert "replaces" not in json.loads((tmp_path / "run.json").read_text())


def test_a_run_that_fails_takes_nothing_with_it_and_the_next_one_knows(tmp_path: Path) -> None:
    complete(tmp_path, "a.txt", "b.txt")
    with pytest.raises(ConfigurationError), Run(tmp_path, "segment", {}, force=True):
        raise ConfigurationError("E-CFG-001", "no")
    assert names_in(tmp_path) == {"a.txt", "b.txt"}
    complete(tmp_path, "b.txt", force=False)
    assert names_in(tmp_path) == {"b.txt"}


def test_one_that_was_killed_is_replaced_likewise(tmp_path: Path) -> None:
    complete(tmp_path, "a.txt")
    run = Run(tmp_path, "segment", {}, force=True)
    run.__enter__()
    run._caught.__exit__(None, None, None)
    assert json.loads((tmp_path / "run.json").read_text())["status"] == "running"
    assert "W-OUT-001" in complete(tmp_path, "b.txt", force=False).warnings[0]
    assert names_in(tmp_path) == {"b.txt"}


def test_a_record_that_points_elsewhere_is_not_believed(tmp_path: Path) -> None:
    outside = tmp_path / "outside.txt"
    outside.write_text("mine")
    folder = tmp_path / "run"
    complete(folder, "a.txt")
    record = json.loads((folder / "run.json").read_text())
    record["outputs"] = ["../outside.txt", str(outside), "a.txt"]
    (folder / "run.json").write_text(json.dumps(record))
    complete(folder, "b.txt")
    assert outside.exists()
    assert names_in(folder) == {"b.txt"}
