"""What a prepared cohort's index promises: everything written is read back, wherever the folder is moved to."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from anamorph.data.cohort import Pair, Scan
from anamorph.data.configuration import save
from anamorph.data.plan import Intensity, Plan
from anamorph.data.prepared import PreparedCohort, PreparedScan, write_index
from anamorph.errors import ConfigurationError, InputError
from anamorph.spatial.grid import Grid

PLAN = Plan(
    orientation="RA",
    spacing=(1.0, 2.0),
    shape=(4, 3),
    modalities={"ct": Intensity(kind="window", low=-100, high=100), "mr": Intensity()},
    labels={7: "liver", 3: "spleen"},
)
SHEARED = np.array([[1.0, 0.25, -3], [0.1, 2, 1 / 3], [0, 0, 1]])


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """Two scans of one case and a listed pair, with every kind of file or none."""
    folder = tmp_path / "study" / "prepared"
    (folder / "tensors").mkdir(parents=True)
    source = tmp_path / "study" / "scans"
    ct = Scan("c1", "ct", *(source / f"c1.{kind}" for kind in ("img", "lab", "msk", "csv")), split="validation")
    mr = Scan("c1", "mr", source / "c1 mr.nii.gz", split="validation")
    scans = [
        PreparedScan(
            ct, Grid((4, 3), SHEARED), Grid((9, 8), np.eye(3)), folder / "tensors" / "c1_ct.safetensors", (1, 2)
        ),
        PreparedScan(
            mr, Grid((4, 3), np.eye(3)), Grid((7, 6), SHEARED), folder / "tensors" / "c1_mr.safetensors", None
        ),
    ]
    for scan in scans:
        save_file({"image": torch.full((1, 4, 3), 0.5)}, scan.file)
    save(PLAN, folder / "plan.yaml")
    pairs = [Pair(ct, mr, source / "truth.h5"), Pair(mr, ct)]
    write_index(folder, scans, pairs, {"c1_ct": {"tensors": "abc"}})
    return folder


def test_everything_is_read_back(written: Path) -> None:
    found = PreparedCohort.open(written)
    assert found.plan == PLAN
    assert list(found.plan.labels) == [7, 3]
    ct, mr = found.scans
    source = written.parent / "scans"
    assert ct.scan == Scan(
        "c1", "ct", *(source / f"c1.{kind}" for kind in ("img", "lab", "msk", "csv")), split="validation"
    )
    assert (mr.scan.image, mr.scan.labels, mr.classes, ct.classes) == (source / "c1 mr.nii.gz", None, None, (1, 2))
    np.testing.assert_array_equal(ct.grid.affine, SHEARED)
    np.testing.assert_array_equal(mr.native.affine, SHEARED)
    assert (ct.grid.shape, ct.native.shape) == ((4, 3), (9, 8))
    assert found.by_name["c1_mr"].load()["image"].shape == (1, 4, 3)
    assert [(pair.name, pair.displacement) for pair in found.listed] == [
        ("c1_ct-c1_mr", source / "truth.h5"),
        ("c1_mr-c1_ct", None),
    ]
    assert found.cohort.pairs("listed") == found.listed


def test_the_whole_study_can_be_moved(written: Path, tmp_path: Path) -> None:
    shutil.move(tmp_path / "study", tmp_path / "elsewhere")
    found = PreparedCohort.open(tmp_path / "elsewhere" / "prepared")
    assert found.scans[0].scan.image == tmp_path / "elsewhere" / "scans" / "c1.img"
    assert found.scans[0].load()["image"].mean() == 0.5


def test_the_index_names_no_folder_of_the_machine(written: Path, tmp_path: Path) -> None:
    text = (written / "index.json").read_text()
    assert str(tmp_path) not in text
    assert json.loads(text)["scans"][0]["facts"] == {"tensors": "abc"}


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content.update(version=99),
        lambda content: content.pop("scans"),
        lambda content: content["scans"][0].pop("grid"),
        lambda content: content["scans"][0].update(image=None),
        lambda content: content["scans"][0]["grid"].update(affine=[[0] * 3] * 3),
        lambda content: content["pairs"][0].update(fixed="c9_ct"),
    ],
)
def test_a_damaged_index_is_refused(written: Path, damage) -> None:
    content = json.loads((written / "index.json").read_text())
    damage(content)
    (written / "index.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match="prepare again") as caught:
        PreparedCohort.open(written)
    assert caught.value.code == "E-COH-010"


def test_an_unfinished_folder_is_refused(written: Path) -> None:
    (written / "index.json").unlink()
    with pytest.raises(InputError, match=r"E-IO-001: prepared: no index.json, .* a prepared cohort"):
        PreparedCohort.open(written)


def test_a_plan_that_does_not_fit_is_refused(written: Path) -> None:
    (written / "plan.yaml").write_text("shape: [4]\n")
    with pytest.raises(ConfigurationError, match="E-CFG-010"):
        PreparedCohort.open(written)
