"""A model whose maps are known, judged by cases: their shifts are its bias, and the one that lies apart is named."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from scipy.ndimage import gaussian_filter
from torch import Tensor, nn

from anamorph.cli.main import main
from anamorph.data.cohort import Cohort, Scan
from anamorph.data.cohort_files import write_cohort
from anamorph.data.files import write
from anamorph.data.image import Image
from anamorph.data.plan import Intensity, Plan
from anamorph.data.prepared import PreparedCohort, PreparedScan
from anamorph.errors import AnamorphWarning, ConfigurationError, InputError
from anamorph.evaluation.atlas_quality import foreground, sharpness
from anamorph.inference.atlas_folder import Atlas, read_atlas
from anamorph.inference.atlas_judgement import judge_atlas
from anamorph.inference.model_folder import domain_of, write_model
from anamorph.methods import METHODS
from anamorph.methods.atlas_istn import AtlasISTN, AtlasISTNSettings
from anamorph.methods.unet import UNet, UNetSettings
from anamorph.spatial.grid import Grid

SHAPE, SPACING = (32, 24), (2.0, 3.0)
SHIFTS = {"a": (1, 0), "b": (1, 0), "c": (2, 0), "d": (2, 0), "e": (3, 0), "f": (9, 0)}
"""From the atlas to each case, voxels."""
PLAN = Plan(
    orientation="RA", spacing=SPACING, shape=SHAPE, modalities={"mr": Intensity(kind="window", low=0, high=100)},
    labels={7: "disc"},
)  # fmt: skip


class Threshold(nn.Module):
    """Grey g -> 1 - g for the background and g for the class."""

    def forward(self, image: Tensor) -> Tensor:
        return torch.cat([1 - image, image], 1)


class Centroids(nn.Module):
    """Finds the shift between centres, which has half as many voxels on the half grid, and adds to it what is wrong."""

    def __init__(self) -> None:
        super().__init__()
        self.wrong = nn.Parameter(torch.zeros(()))

    def forward(self, seen: Tensor) -> tuple[Tensor, None]:
        own, atlas = (centre_of(part[:, 0]) for part in (seen[:, :1], seen[:, 1:]))
        half = [n // 2 for n in seen.shape[2:]]
        return ((own - atlas + self.wrong) / 2).view(-1, 2, 1, 1).expand(-1, 2, *half).contiguous(), None


def centre_of(weights: Tensor) -> Tensor:
    places = torch.stack(torch.meshgrid(*map(torch.arange, weights.shape[1:]), indexing="ij")).to(weights)
    return torch.einsum("bij,dij->bd", weights, places) / weights.sum((1, 2))[:, None]


def disc(shift: tuple[int, int] = (0, 0), hole: float = 0.0) -> np.ndarray:
    nodes = np.stack(np.meshgrid(*map(np.arange, SHAPE), indexing="ij"), -1) - np.array([12.0, 12.0]) - shift
    radius = np.linalg.norm(nodes, axis=-1)
    return ((radius < 5) & (radius >= hole)).astype(np.float32)


def grid_of() -> Grid:
    return Grid(SHAPE, np.diag([*SPACING, 1.0]))


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    class ByHand(AtlasISTN):
        def __init__(self, settings: Any, domain: Any) -> None:
            super().__init__(settings, domain)
            self.image_transformer, self.spatial_transformer = Threshold(), Centroids()

    monkeypatch.setitem(METHODS, "atlas-istn", ByHand)

    def made(plan: Plan = PLAN, wrong: float = 0.0, **settings: Any) -> Path:
        chosen = AtlasISTNSettings.model_validate({"stn": "svf", "test": "itn", **settings})
        method = ByHand(chosen, domain_of(plan)).requires_grad_(False)
        atlas = torch.from_numpy(disc())
        method.atlas_labels.copy_(torch.stack([1 - atlas, atlas])[None])
        method.atlas_image.copy_(atlas[None, None])
        method.get_parameter("spatial_transformer.wrong").fill_(wrong)
        write_model(tmp_path / "learnt", method, "atlas-istn", plan, facts={"modality": "mr"})
        return tmp_path / "learnt"

    return made


def cohort_of(folder: Path, values: dict[str, np.ndarray], modality: str = "mr", **of_scan: Any) -> Cohort:
    folder.mkdir(exist_ok=True)
    for name, image in values.items():
        write(Image(torch.from_numpy(100 * image)[None], grid_of()), folder / f"{name}.nii.gz")
    scans = tuple(Scan(name, modality, folder / f"{name}.nii.gz", **of_scan) for name in sorted(values))
    cohort = Cohort(folder, scans)
    write_cohort(cohort, folder)
    return cohort


@pytest.fixture
def cohort(tmp_path: Path) -> Cohort:
    return cohort_of(tmp_path / "cohort", {name: disc(shift) for name, shift in SHIFTS.items()})


def test_bias_outliers_and_sharpness_are_those_of_the_shifts(model: Callable[..., Path], cohort: Cohort) -> None:
    """Lengths 2, 2, 4, 4, 6, 18 mm: median 4, median deviation 2, so the last has z = 0.6745 * 7; their mean is 6."""
    told: list[tuple[str, float]] = []
    found = judge_atlas(read_atlas(model()), cohort, progress=lambda stage, done: told.append((stage, done))).quality
    assert found is not None
    assert [facts.case for facts in found.cases] == [f"{name}_mr" for name in SHIFTS]
    assert [facts.deformation_mm for facts in found.cases] == pytest.approx([2, 2, 4, 4, 6, 18], abs=1e-3)
    assert [facts.similarity for facts in found.cases] == pytest.approx([1.0] * 6, abs=1e-4)
    assert found.cases[-1].z_deformation == pytest.approx(0.6745 * 7, abs=1e-2)
    assert [facts.apart for facts in found.cases] == [False] * 5 + [True]
    assert found.deformation_mm == pytest.approx(6, abs=1e-3)
    assert found.mean_deformation_mm == pytest.approx(6, abs=1e-3)
    assert found.relative_sharpness == pytest.approx(1, abs=1e-3)
    assert found.left_out == {}
    assert told == [("fit", pytest.approx(n / 6)) for n in range(7)]


def test_an_atlas_between_its_cases_has_no_bias_and_a_blurred_one_less_sharpness(
    model: Callable[..., Path], tmp_path: Path
) -> None:
    cohort = cohort_of(
        tmp_path / "around", {"a": disc((2, 0)), "b": disc((-2, 0)), "c": disc((0, 2)), "d": disc((0, -2))}
    )
    atlas = read_atlas(model())
    blurred = gaussian_filter(disc(), 2.0)
    atlas = replace(atlas, image=Image(torch.from_numpy(blurred)[None], atlas.grid))
    found = judge_atlas(atlas, cohort).quality
    assert found is not None
    assert found.deformation_mm == pytest.approx((4 + 4 + 6 + 6) / 4, abs=1e-3)
    assert found.mean_deformation_mm == pytest.approx(0, abs=1e-3)
    # Every case is the sharp disc once it is warped.
    of_both = [sharpness(image, atlas.grid.affine, foreground(blurred)) for image in (blurred, disc())]
    assert found.relative_sharpness == pytest.approx(of_both[0] / of_both[1], rel=1e-3)
    assert found.relative_sharpness < 0.8


def test_a_case_that_looks_otherwise_stands_apart_and_one_that_cannot_be_read_is_left_out(
    model: Callable[..., Path], tmp_path: Path
) -> None:
    noise = np.random.default_rng(0).uniform(0, 0.05, (6, *SHAPE)).astype(np.float32)
    values = {name: disc() + noise[place] for place, name in enumerate("abcde")} | {"ring": disc(hole=3.0) + noise[5]}
    cohort = cohort_of(tmp_path / "odd", values)
    broken = Scan("z", "mr", tmp_path / "odd" / "z.nii.gz")
    broken.image.write_bytes(b"nothing")
    foreign = replace(broken, case="y", modality="ct")
    with pytest.warns(AnamorphWarning, match="W-ATL-001: z_mr is left out: E-") as warned:
        found = judge_atlas(read_atlas(model()), replace(cohort, scans=(*cohort.scans, foreign, broken))).quality
    assert found is not None
    assert len(warned) == 1
    assert [facts.case for facts in found.cases if facts.apart] == ["ring_mr"]
    assert found.cases[-1].z_dissimilarity > 3.5
    assert list(found.left_out) == ["z_mr"]


def test_of_affine_maps_no_bias_is_told(tmp_path: Path, cohort: Cohort) -> None:
    method = AtlasISTN(AtlasISTNSettings(stn="affine", channels=(2,), stn_channels=(2,)), domain_of(PLAN))
    method.get_buffer("atlas_image").copy_(torch.from_numpy(disc()))
    write_model(tmp_path / "affine", method, "atlas-istn", PLAN, facts={"modality": "mr"})
    found = judge_atlas(read_atlas(tmp_path / "affine"), cohort).quality
    assert found is not None
    assert (found.deformation_mm, found.mean_deformation_mm) == (None, None)
    assert [facts.z_deformation for facts in found.cases] == [0.0] * 6


# -- prepared cohorts --------------------------------------------------------------------------------------------------


def prepared(cohort: Cohort, plan: Plan, folder: Path) -> PreparedCohort:
    """Tensors of discs that lie 1 voxel off, whatever the images show."""
    folder.mkdir()
    scans = []
    for scan in cohort.scans:
        save_file({"image": torch.from_numpy(disc((0, 1)))[None]}, folder / f"{scan.name}.safetensors")
        scans.append(PreparedScan(scan, grid_of(), grid_of(), folder / f"{scan.name}.safetensors", None))
    return PreparedCohort(folder, plan, tuple(scans), ())


def test_tensors_prepared_as_the_models_are_taken_and_others_are_not(
    model: Callable[..., Path], cohort: Cohort, tmp_path: Path
) -> None:
    aligned = PLAN.model_copy(update={"alignment": "given"})
    atlas = read_atlas(model(aligned))
    own = judge_atlas(
        atlas, prepared(cohort, aligned.model_copy(update={"labels": {1: "x"}}), tmp_path / "own")
    ).quality
    assert own is not None
    assert own.mean_deformation_mm == pytest.approx(3.0, abs=1e-3)
    other = prepared(cohort, aligned.model_copy(update={"spacing": (1.0, 1.0)}), tmp_path / "other")
    with pytest.warns(AnamorphWarning, match="W-MOD-014: learnt: .* give the cohort that was prepared for it"):
        found = judge_atlas(atlas, other).quality
    assert found is not None
    assert found.mean_deformation_mm == pytest.approx(6.0, abs=1e-3)
    (tmp_path / "own" / "a_mr.safetensors").write_bytes(b"x")
    with pytest.warns(AnamorphWarning, match="W-ATL-001: a_mr is left out: E-TRN-002"):
        judge_atlas(atlas, prepared_again(cohort, aligned, tmp_path / "own"))


def prepared_again(cohort: Cohort, plan: Plan, folder: Path) -> PreparedCohort:
    scans = (PreparedScan(s, grid_of(), grid_of(), folder / f"{s.name}.safetensors", None) for s in cohort.scans)
    return PreparedCohort(folder, plan, tuple(scans), ())


# -- the command -------------------------------------------------------------------------------------------------------


def test_show_tells_it_on_the_terminal_and_on_the_page(
    model: Callable[..., Path], cohort: Cohort, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["atlas", "show", str(model()), "--cohort", str(cohort.root), "--device", "cpu", "--threads", "1"]
    assert main([*words, "--out", str(tmp_path / "page")]) == 0
    told = capsys.readouterr()
    for line in (
        "cases: 6",
        "fitted: in one pass",
        "sharpness: 100% of the cases' own",
        "bias: 6.00 mm, where a case is deformed by 6.00 mm",
        "stands apart: f_mr (correlation 1.00, deformation 18.0 mm)",
    ):
        assert line in told.out
    assert "fit: " in told.err
    page = (tmp_path / "page" / "report.html").read_text(encoding="utf-8")
    assert 'id="cases"' in page
    assert "fitted to 6 cases in one pass" in page
    assert "of the mean map; 6.00 mm a case" in page
    assert page.count("stands apart") >= 1


def test_cases_of_a_split_are_refined_where_that_is_asked_for(
    model: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    refinement = {"iterations": 10, "learning_rate": 0.15, "smoothness": 0.0, "tolerance": 0.0}
    folder = model(wrong=1.0, refinement=refinement)
    cohort = cohort_of(tmp_path / "tests", {"a": disc((1, 0)), "b": disc((2, 0))}, split="test")
    words = ["atlas", "show", str(folder), "--cohort", str(cohort.root), "--device", "cpu", "--refine"]
    assert main(words) == 3  # split train by default
    assert capsys.readouterr().err.startswith("E-ATL-002: 0 usable cases, expected at least 2; see --split")
    found = judge_atlas(read_atlas(folder), cohort).quality
    assert found is not None
    assert [facts.deformation_mm for facts in found.cases] == pytest.approx([5.0, np.hypot(6, 3)], abs=1e-3)
    assert main([*words, "--split", "test"]) == 0
    told = capsys.readouterr().out
    assert "fitted: with refinement" in told
    length = re.search(r"where a case is deformed by ([\d.]+) mm", told)
    assert length is not None
    assert float(length[1]) == pytest.approx((2 + 4) / 2, abs=0.3)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("--cohort", "x", "--meshes"), "meshes would do nothing in show"),
        (("--refine",), "refine would do nothing in show without --cohort"),
        (("--split", "test"), "split would do nothing in show without --cohort"),
    ],
)
def test_flags_that_would_do_nothing(words: tuple[str, ...], line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["atlas", "show", "model", *words]) == 2
    assert line in capsys.readouterr().err


def test_what_cannot_be_judged_is_refused(
    model: Callable[..., Path], cohort: Cohort, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    atlas = read_atlas(model(supervised_segmentation=False, test="one_pass"))
    with pytest.raises(ConfigurationError, match=r"E-MOD-021: learnt: .* nothing to refine by; leave out --refine"):
        judge_atlas(atlas, cohort, refined=True)
    with pytest.raises(ConfigurationError, match="E-ATL-006: no modality 'ct', expected mr"):
        judge_atlas(atlas, cohort, modality="ct")
    with pytest.raises(InputError, match="E-ATL-002: 0 usable cases"):
        judge_atlas(atlas, Cohort(cohort.root, (replace(cohort.scans[0], modality="ct"),)))
    with pytest.raises(ConfigurationError, match="E-ATL-018: brains: an atlas that no model learnt"):
        judge_atlas(Atlas(atlas.image, name="brains"), cohort)
    write_model(tmp_path / "unet", UNet(UNetSettings(channels=(2,)), domain_of(PLAN)), "unet", PLAN, facts={})
    out = tmp_path / "none"
    assert main(["atlas", "show", str(tmp_path / "unet"), "--cohort", str(cohort.root), "--out", str(out)]) == 3
    assert capsys.readouterr().err.startswith("E-ATL-003: ")
    assert not out.exists()
