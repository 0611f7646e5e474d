"""Rows of the fault catalogue that need a registration: geometry, values, runs; the id ends each test's name."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from anamorph.data.files import write
from anamorph.data.image import Image
from anamorph.errors import (
    AnamorphWarning,
    ConfigurationError,
    InputError,
    IntegrityError,
    NumericalError,
    ResourceError,
)
from anamorph.inference import run as run_module
from anamorph.inference.memory import estimated_memory, fit_to_memory
from anamorph.inference.register import register, resolve_device
from anamorph.inference.request import RegistrationRequest
from anamorph.inference.run import run_registration
from anamorph.inference.run_folder import Run
from anamorph.pairwise.settings import PairwiseSettings
from anamorph.spatial.grid import Grid

QUICK = PairwiseSettings(levels=(2,), iterations=(5,), search="header")
RIGID = QUICK.model_copy(update={"transform": "rigid", "search": "auto"})


def head(seed: int = 0, invert: bool = False) -> np.ndarray:
    rng = np.random.default_rng(7)
    texture = gaussian_filter(rng.standard_normal((26, 24, 22)), 2)
    x = np.stack(np.meshgrid(*[np.linspace(-1, 1, n) for n in texture.shape], indexing="ij"))
    inside = (x**2).sum(0) < 0.7
    values = (0.6 + 2.5 * texture) * inside
    values = (1.2 - values) * inside if invert else values
    return (values + np.random.default_rng(seed).normal(0, 0.01, values.shape)).astype(np.float32) * 100


AFFINE = np.diag([2.0, 2.5, 3.0, 1.0])


def image(values: np.ndarray, affine: np.ndarray = AFFINE, **more) -> Image:
    return Image.from_array(values, affine, **more)


def moved(millimetres: float) -> np.ndarray:
    affine = AFFINE.copy()
    affine[:3, 3] = millimetres / 3**0.5
    return affine


def quietly(call, *arguments, **more):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AnamorphWarning)
        return call(*arguments, **more)


def quietly_about(code: str, call, *arguments, **more):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=code)
        return call(*arguments, **more)


def test_apart_views_are_brought_together_or_refused_G13():
    fixed, moving = image(head()), image(head(1), moved(700))
    with pytest.raises(NumericalError, match=r"E-REG-013.*0%"):
        register(fixed, moving, settings=RIGID.model_copy(update={"search": "header"}))
    found = register(fixed, moving, settings=RIGID)
    np.testing.assert_allclose(found.linear.matrix[:3, 3], moved(700)[:3, 3], atol=1.5)


def test_a_turned_head_needs_the_full_search_G14():
    turned = np.diag([-1.0, -1.0, 1.0, 1.0]) @ AFFINE
    found = register(image(head()), image(head(1), turned), settings=RIGID.model_copy(update={"search": "full"}))
    np.testing.assert_allclose(found.linear.matrix[:3, :3], np.diag([-1, -1, 1]), atol=0.05)


def test_two_and_three_dimensions_do_not_mix_G19():
    flat = Image.from_array(head()[..., 11], np.diag([2.0, 2.5, 1.0]))
    with pytest.raises(InputError, match=r"E-GEO-019.*3-D fixed and 2-D moving"):
        register(image(head()), flat)


@pytest.mark.parametrize("shape", [(3, 3, 3), (1, 4, 9)], ids=["3x3x3", "1x4x9"])
def test_too_few_voxels_are_refused_with_the_least_number_G19(shape):
    with pytest.raises(InputError, match=r"E-GEO-019.*expected 8 along two axes"):
        register(image(np.random.default_rng(0).random(shape)), image(head()))


def test_five_by_many_survives_G19():
    thin = image(head()[9:14])
    found = quietly(register, thin, thin, settings=QUICK)
    assert np.abs(found.transform.displacement_on(thin.grid)).max() < 0.5


def test_the_same_image_stays_G20():
    fixed = image(head())
    with pytest.warns(AnamorphWarning, match=r"W-REG-020"):
        found = quietly_about("W-REG-016", register, fixed, fixed, settings=QUICK)
    assert np.linalg.norm(found.transform.displacement_on(fixed.grid), axis=0).mean() < 0.1


def test_a_slab_of_nan_changes_little_V01():
    fixed, spoilt = head(), head(1, invert=True)
    clean = register(image(fixed), image(spoilt, moved(6)), settings=RIGID)
    spoilt[:, :, :2] = np.nan
    with pytest.warns(AnamorphWarning, match=r"W-VAL-001"):
        holed = image(spoilt, moved(6))
    found = register(image(fixed), holed, settings=RIGID)
    points = clean.fixed.grid.to_world(clean.fixed.grid.voxels()[::31])
    assert np.linalg.norm(found.transform(points) - clean.transform(points), axis=1).mean() < 0.2


def test_a_constant_image_is_refused_or_gives_the_identity_V04():
    flat = image(np.full((12, 12, 12), 7.0))
    with pytest.raises(NumericalError, match=r"E-VAL-004.*no contrast"):
        register(flat, image(head()))
    with pytest.warns(AnamorphWarning, match=r"W-VAL-004"):
        found = register(image(head()), flat, allow_flat=True)
    assert np.array_equal(found.linear.matrix, np.eye(4))


def test_nothing_in_the_mask_V05():
    from anamorph.data.image import Mask

    values = head()
    values[:8] = 0
    mask = np.zeros(values.shape, dtype=bool)
    mask[:6] = True
    fixed = image(values)
    with pytest.raises(NumericalError, match=r"E-VAL-00[45]"):
        register(fixed, image(head(1)), fixed_mask=Mask(torch.from_numpy(mask), fixed.grid))


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_any_scale_of_intensity_V10(scale):
    found = register(image(head()), image(head(1) * np.float64(scale), moved(6)), settings=RIGID)
    np.testing.assert_allclose(found.linear.matrix[:3, 3], moved(6)[:3, 3], atol=0.7)


def test_one_hot_voxel_V11():
    hot = head(1)
    hot[3, 3, 3] = 1e8
    found = register(image(head()), image(hot, moved(6)), settings=RIGID)
    np.testing.assert_allclose(found.linear.matrix[:3, 3], moved(6)[:3, 3], atol=0.7)


def test_a_huge_scan_is_refused_before_the_work_or_fits_V16():
    huge = Grid.from_spacing((512, 512, 1000), 0.7)
    with pytest.raises(ResourceError, match=r"E-MEM-016.*GiB are needed, 4.0 GiB allowed"):
        fit_to_memory(huge, huge, PairwiseSettings(), 4 * 2**30)
    middle = Grid.from_spacing((256, 256, 200), 1.0)
    with pytest.warns(AnamorphWarning, match=r"W-MEM-016"):
        settings = fit_to_memory(middle, middle, PairwiseSettings(working_voxels=13_000_000), 2 * 2**30)
    assert estimated_memory(middle, middle, settings) <= 2 * 2**30


def test_devices_that_are_not_there_R14():
    with pytest.raises(ConfigurationError, match=r"E-CFG-014"):
        resolve_device("toaster")
    if not torch.cuda.is_available():
        with pytest.raises(ResourceError, match=r"E-DEV-014.*--device cpu"):
            resolve_device("cuda")


@pytest.fixture
def files(tmp_path) -> tuple[Path, Path]:
    inputs = tmp_path / "inputs"
    inputs.mkdir()
    write(image(head()), inputs / "fixed.nii.gz")
    write(image(head(1, invert=True), moved(5)), inputs / "moving.nii.gz")
    return inputs / "fixed.nii.gz", inputs / "moving.nii.gz"


def request(files, out: Path, **more) -> RegistrationRequest:
    return RegistrationRequest(fixed=files[0], moving=files[1], out=out, settings=QUICK, **more)


def test_a_run_writes_what_it_promises_and_says_how_it_went(files, tmp_path):
    asked = request(files, tmp_path / "out")
    with Run(asked.out, "register", asked.model_dump()) as run:
        run_registration(asked, run)
        run.finish()
    record = json.loads((asked.out / "run.json").read_text())
    assert record["status"] == "complete"
    assert {path.name for path in asked.out.iterdir()} == {*record["outputs"], "run.json"}
    assert record["inputs"]["fixed"]["sha256"] == run_module.sha256(files[0])
    assert str(tmp_path) not in (asked.out / "run.json").read_text(), "S03: no folder of the machine in what is written"


def test_an_input_replaced_on_the_way_is_refused_N27(files, tmp_path, monkeypatch):
    asked, real = request(files, tmp_path / "out"), run_module._write_files

    def meanwhile(*arguments):
        real(*arguments)
        write(image(head(3)), files[1])

    monkeypatch.setattr(run_module, "_write_files", meanwhile)
    with pytest.raises(IntegrityError, match=r"E-IO-027.*moving"), Run(asked.out, "register", {}) as run:
        run_registration(asked, run)
    assert json.loads((asked.out / "run.json").read_text())["status"] == "failed"


def test_results_do_not_go_among_the_inputs_R04(files):
    before = sorted(path.name for path in files[0].parent.iterdir())
    with pytest.raises(ConfigurationError, match=r"E-OUT-004"), Run(files[0].parent, "register", {}, files):
        pass
    assert sorted(path.name for path in files[0].parent.iterdir()) == before


def test_a_complete_run_is_not_replaced_unasked(tmp_path):
    out = tmp_path / "out"
    with Run(out, "register", {}) as run:
        run.finish()
    with pytest.raises(ConfigurationError, match=r"E-OUT-016.*--force"), Run(out, "register", {}):
        pass
    with Run(out, "register", {}, force=True) as run:
        run.finish()


def test_an_unfinished_run_is_told_and_replaced(tmp_path):
    (tmp_path / "run.json").write_text('{"status": "running"}')
    with Run(tmp_path, "register", {}) as run:
        run.finish()
    assert any(line.startswith("W-OUT-001") for line in run.warnings)


@pytest.mark.parametrize("name", ["warped.nii.gz", "run.json"])
def test_files_that_may_be_somebodys_are_not_touched(tmp_path, name):
    (tmp_path / name).write_text('{"my": "file"}')
    with pytest.raises(ConfigurationError, match=r"E-OUT-016"), Run(tmp_path, "register", {}):
        pass
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [(name, '{"my": "file"}')]


def test_folding_is_questioned_T15(files, tmp_path, monkeypatch):
    monkeypatch.setattr(run_module.folding, "jacobian_determinant", lambda u, affine: np.full(u.shape[1:], -1.0))
    asked = request(files, tmp_path / "out", strict_qc=True)
    with pytest.raises(NumericalError, match=r"E-REG-015.*100.0%"), Run(asked.out, "register", {}) as run:
        run_registration(asked, run)
    relaxed = request(files, tmp_path / "other")
    with Run(relaxed.out, "register", {}) as run:
        run_registration(relaxed, run)
    assert any(line.startswith("W-REG-015") for line in run.warnings)
