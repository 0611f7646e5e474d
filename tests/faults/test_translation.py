"""P14 of the fault catalogue, a translator that invents, and M05, M06, V01 and V04 where an image is translated."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from anamorph.data.image import Image
from anamorph.data.plan import Intensity, Plan
from anamorph.inference.model_folder import Model, domain_of, read_model, write_model
from anamorph.inference.register_model import register_with
from anamorph.inference.translate import compare_translation, translate_with
from anamorph.methods import METHODS
from anamorph.spatial.grid import Grid

Refuses = Callable[..., Any]
GRID = Grid((16, 16, 16), np.diag([2.0, 2.0, 2.0, 1.0]))
PLAN = Plan(
    spacing=(2.0, 2.0, 2.0),
    shape=GRID.shape,
    modalities={name: Intensity(kind="window", low=0.0, high=100.0) for name in ("t1", "t2")},
)
SMALL = {"encoder": (4, 4), "decoder": (4, 4), "features": 2, "blocks": 1, "discriminator_features": 2,
         "discriminator_layers": 1}  # fmt: skip


class Healthy(nn.Module):
    """Whatever it is shown, what it makes has no lesion."""

    def forward(self, image: Tensor) -> Tensor:
        return -image.clamp(max=0.6)


@pytest.fixture
def model(tmp_path: Path) -> Model:
    """Of a CoCycleReg whose fields are not 0."""
    torch.manual_seed(0)
    method: Any = METHODS["cocyclereg"](METHODS["cocyclereg"].Settings(**SMALL), domain_of(PLAN))
    for head in (method.registration.onto_fixed, method.registration.onto_moving):
        nn.init.normal_(head.weight, std=0.2)
    write_model(tmp_path / "model", method, "cocyclereg", PLAN, facts={})
    return read_model(tmp_path / "model", "cpu")


def head(lesion: bool, modality: str | None = None) -> Image:
    """A ball in noise, and in it a bright lesion."""
    away = np.linalg.norm(GRID.voxels().reshape(*GRID.shape, 3) - 7.5, axis=-1)
    values = np.where(away < 6, 60.0, 5.0) + np.random.default_rng(0).uniform(-4, 4, GRID.shape)
    values[8:11, 7:10, 7:10] = 98.0 if lesion else values[8:11, 7:10, 7:10]
    return Image.from_array(values, GRID.affine, modality, name="head.nii.gz")


def test_what_a_translator_invents_is_no_part_of_a_registration_P14(model: Model) -> None:
    """The field is found in the images themselves: a lesion that translations lack stays where it was."""
    fixed, moving = head(True, "t1"), head(True, "t2")
    fixed = Image(100 - fixed.data, GRID, "t1", name="head.nii.gz")
    before = register_with(model, fixed, moving).transform.displacement_on(GRID)
    assert np.abs(before).max() > 0.1
    method: Any = model.method
    method.translators = nn.ModuleDict({"fixed": Healthy(), "moving": Healthy()})
    after = register_with(model, fixed, moving).transform.displacement_on(GRID)
    np.testing.assert_array_equal(after, before)


def test_a_lesion_that_is_lost_is_told_where_the_truth_is_known_P14(model: Model) -> None:
    method: Any = model.method
    method.translators = nn.ModuleDict({"fixed": Healthy(), "moving": Healthy()})
    errors = {}
    for lesion in (False, True):
        source = head(lesion, "t2")
        truth = Image(100 - source.data, GRID, name="truth.nii.gz")
        compared = compare_translation(model, translate_with(model, source), truth)
        errors[lesion] = {row.metric: row.value for row in compared.scores}
        size = compared.error.data.abs()[0]
    assert errors[False]["rmse"] < 0.01
    assert errors[True]["rmse"] == pytest.approx((27 * 18**2 / 16**3) ** 0.5, rel=0.01)
    assert float(size[8:11, 7:10, 7:10].min()) > 10
    size[8:11, 7:10, 7:10] = 0
    assert float(size.max()) < 0.01


@pytest.mark.parametrize(
    ("modality", "code", "exit_code", "match"),
    [
        ("flair", "E-MOD-005", 3, "head.nii.gz: modality flair, expected t1 or t2"),
        (None, "E-MOD-010", 2, "name it with --modality"),
    ],
)
def test_modalities_that_a_model_does_not_translate_M05(
    model: Model, tmp_path: Path, refuses: Refuses, modality: str | None, code: str, exit_code: int, match: str
) -> None:
    with refuses(code, exit_code, tmp_path, match=match):
        translate_with(model, head(True, modality))


def test_a_translator_whose_answer_is_no_number_M06(model: Model, tmp_path: Path, refuses: Refuses) -> None:
    method: Any = model.method
    method.translators["fixed"].last.weight.fill_(torch.inf)
    with refuses("E-MOD-013", 5, tmp_path):
        translate_with(model, head(True, "t2"))


def test_an_image_without_contrast_is_not_translated_V04(model: Model, tmp_path: Path, refuses: Refuses) -> None:
    with refuses("E-VAL-004", 5, tmp_path):
        translate_with(model, Image.from_array(np.full(GRID.shape, 50.0), GRID.affine, "t2", name="flat.nii.gz"))


def test_what_is_masked_out_of_the_truth_does_not_count_V01(model: Model) -> None:
    """NaN in the true image, masked out when it was read."""
    source = head(False, "t2")
    found = translate_with(model, source)
    valid = torch.ones(GRID.shape, dtype=torch.bool)
    valid[:4] = False
    values = torch.where(valid[None], found.image.data, torch.full_like(found.image.data, 1e6))
    compared = compare_translation(model, found, Image(values, GRID, valid=valid, name="truth.nii.gz"))
    scores = {row.metric: row.value for row in compared.scores}
    assert scores["rmse"] < 0.01
    assert float(compared.error.data[:, :4].abs().max()) == 0
