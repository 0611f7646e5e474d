"""``anamorph evaluate`` of models that translate: what they are asked for, and what cannot be one evaluation."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import Tensor, nn

from anamorph.data.cohort import Cohort, Scan
from anamorph.data.cohort_files import write_cohort
from anamorph.data.files import write
from anamorph.data.image import Image
from anamorph.data.plan import Intensity, Plan
from anamorph.inference.model_folder import domain_of, write_model
from anamorph.methods import METHODS

Run = Callable[..., Any]
SMALL = {"features": 2, "blocks": 1, "discriminator_features": 2, "discriminator_layers": 1}
AFFINE = np.diag([2.0, 2.0, 2.0, 1.0])
SHAPE = (20, 18, 16)


class Negative(nn.Module):
    def forward(self, image: Tensor) -> Tensor:
        return -image


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """Of CycleGAN, CoCycleReg and NeMAR, whose translators give the negative; ct from 0 to 200, mr from 0 to 100."""
    windows = {name: Intensity(kind="window", low=0.0, high=high) for name, high in (("ct", 200.0), ("mr", 100.0))}
    plan = Plan(spacing=(2.0, 2.0, 2.0), shape=SHAPE, modalities=windows)
    folders = {}
    fields = {"encoder": (2, 2), "decoder": (2, 2)}
    for name, more in (("cyclegan", {}), ("cocyclereg", fields), ("nemar", fields)):
        kind: Any = METHODS[name]

        class Known(kind):
            def __init__(self, settings: Any, domain: Any) -> None:
                super().__init__(settings, domain)
                self.translators = nn.ModuleDict({side: Negative() for side in self.targets})

        monkeypatch.setitem(METHODS, f"known-{name}", Known)
        method = Known(Known.Settings(**SMALL, **more), domain_of(plan))
        folders[name] = tmp_path / name / "model"
        write_model(folders[name], method, f"known-{name}", plan, facts={})
    return folders


@pytest.fixture
def cohort(tmp_path: Path) -> Path:
    """A test case whose CT is the negative of its MR, and 10 brighter."""
    mr = np.random.default_rng(0).uniform(0, 90, SHAPE)
    (tmp_path / "cohort").mkdir()
    scans = []
    for modality, values in (("ct", 210 - 2 * mr), ("mr", mr)):
        path = tmp_path / "cohort" / f"{modality}.nii.gz"
        write(Image.from_array(np.clip(values, 0, 200), AFFINE), path)
        scans.append(Scan("a", modality, path, split="test"))
    write_cohort(Cohort(tmp_path / "cohort", tuple(scans)), tmp_path / "cohort")
    return tmp_path / "cohort"


def rows(folder: Path) -> dict[tuple[str, str, str], str]:
    with (folder / "scores.csv").open(encoding="utf-8", newline="") as file:
        return {(row["method"], row["case"], row["metric"]): row["value"] for row in csv.DictReader(file)}


def test_pairs_are_translated_both_ways(anamorph: Run, models: dict[str, Path], cohort: Path, tmp_path: Path) -> None:
    """A model that does nothing else needs no --task; one that registers as well does."""
    out = tmp_path / "out"
    ended = anamorph("evaluate", cohort, "--model", models["cyclegan"], "--out", out)
    assert ended.code == 0, ended.err
    found = rows(out)
    assert {case for _, case, _ in found} == {"a_ct-a_mr", "a_mr-a_ct"}
    assert float(found["cyclegan", "a_ct-a_mr", "rmse"]) == pytest.approx(10, rel=0.05)
    assert float(found["cyclegan", "a_mr-a_ct", "rmse"]) == pytest.approx(5, rel=0.05)
    assert ("cyclegan", "a_ct-a_mr", "folded_voxels") not in found
    with (out / "comparison.csv").open(encoding="utf-8", newline="") as file:
        means = {(row["metric"], row["label"]): row for row in csv.DictReader(file)}
    assert {label for _, label in means} == {"to ct", "to mr"}
    assert float(means["rmse", "to mr"]["mean"]) == pytest.approx(5, rel=0.05)
    page = (out / "comparison.html").read_text(encoding="utf-8")
    for target, name in (("ct", "a_ct-a_mr"), ("mr", "a_mr-a_ct")):
        assert f"to {target}: best case of cyclegan" in page
        assert f"best: {name} (numbers: SSIM, to {target})" in page
    assert page.count("distance from the true image") == page.count("linearGradient id") == 2
    both = ("--model", models["cyclegan"], models["cocyclereg"], "--task", "translate", "--fixed-modality", "ct")
    assert anamorph("evaluate", cohort, *both, "--out", tmp_path / "both").code == 0
    found = rows(tmp_path / "both")
    assert {(method, case) for method, case, _ in found} == {
        ("cyclegan", "a_ct-a_mr"), ("cocyclereg", "a_ct-a_mr"),
    }  # fmt: skip
    page = (tmp_path / "both/comparison.html").read_text(encoding="utf-8")
    assert "PSNR" in page


def test_a_model_of_two_tasks_registers_where_nothing_is_said(
    anamorph: Run, models: dict[str, Path], cohort: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    flags = ("--model", models["cocyclereg"], "--methods", "none", "--fixed-modality", "ct")
    assert anamorph("evaluate", cohort, *flags, "--out", out).code == 0
    assert ("cocyclereg", "a_ct-a_mr", "folded_voxels") in rows(out)


def test_a_one_way_model_does_the_pairs_that_it_can(
    anamorph: Run, models: dict[str, Path], cohort: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    flags = ("--model", models["nemar"], "--task", "translate")
    ended = anamorph("evaluate", cohort, *flags, "--out", out, "--quiet")
    assert ended.code == 0
    assert ended.err.splitlines() == [
        "W-EVA-018: nemar was made for 1 of 2 pairs; it is judged by 1 (--fixed-modality ct --moving-modality mr)"
    ]
    assert {case for _, case, _ in rows(out)} == {"a_ct-a_mr"}
    none = anamorph("evaluate", cohort, *flags, "--fixed-modality", "mr", "--out", tmp_path / "none", "--quiet")
    assert none.code == 3
    assert none.err.startswith("E-EVA-018: no pair for nemar: modality ct, expected mr; see --rule, --fixed-modality")
    assert none.err.count("\n") == 1
    assert not (tmp_path / "none/rows").exists()
    mixed = ("--model", models["nemar"], models["cyclegan"], "--task", "translate", "--out", tmp_path / "mixed")
    assert anamorph("evaluate", cohort, *mixed).code == 0
    page = (tmp_path / "mixed/comparison.html").read_text(encoding="utf-8")
    assert "to mr: best case of cyclegan" in page


@pytest.mark.parametrize(
    ("names", "flags", "words"),
    [
        (("cyclegan",), ("--methods", "none"), "none can register; cyclegan can translate, expected methods of one"),
        (("cyclegan",), ("--task", "register"), "cyclegan can translate, expected methods that register"),
        ((), ("--methods", "none", "--task", "translate"), "none can register, expected methods that translate"),
        (("cocyclereg",), ("--task", "segment"), "cocyclereg can register and translate, expected methods that seg"),
    ],
)
def test_what_cannot_be_one_evaluation(
    anamorph: Run,
    models: dict[str, Path],
    cohort: Path,
    tmp_path: Path,
    names: tuple[str, ...],
    flags: tuple[str, ...],
    words: str,
) -> None:
    given = ("--model", *(models[name] for name in names)) if names else ()
    ended = anamorph("evaluate", cohort, *given, *flags, "--out", tmp_path / "out")
    assert ended.code == 2
    assert "E-EVA-016" in ended.err
    assert words in " ".join(ended.err.split())
    assert ("evaluate them one by one" in ended.err) == (";" in words)
