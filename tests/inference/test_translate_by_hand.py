"""Translators whose answer is known, the negative of what they see: values, places, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from anamorph.data.image import Image
from anamorph.data.plan import Intensity, Plan
from anamorph.errors import ConfigurationError, InputError, NumericalError
from anamorph.inference.model_folder import Model
from anamorph.inference.register_model import register_with
from anamorph.inference.translate import channel_scores, compare_translation, translate_with
from anamorph.methods import METHODS
from anamorph.spatial.grid import Grid

Trained = Callable[..., Model]
MakePlan = Callable[..., Plan]

SMALL = {"features": 2, "blocks": 1, "discriminator_features": 2, "discriminator_layers": 1}
WINDOWS = {"ct": Intensity(kind="window", low=-200.0, high=300.0), "mr": Intensity(kind="window", low=0.0, high=100.0)}
GRID = Grid((16, 14, 12), np.diag([3.0, 3.0, 4.0, 1.0]))


class Negative(nn.Module):
    def __init__(self, *_: Any) -> None:
        super().__init__()

    def forward(self, image: Tensor) -> Tensor:
        return -image


@pytest.fixture
def negative(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> Trained:
    """``negative("cyclegan", plan)``: that method with ``Negative`` translators; ct is fixed, mr moving."""

    def make(name: str, plan: Plan, **settings: Any) -> Model:
        kind: Any = METHODS[name]

        class Known(kind):
            def __init__(self, settings: Any, domain: Any) -> None:
                super().__init__(settings, domain)
                self.translators = nn.ModuleDict({side: Negative() for side in self.targets})

        monkeypatch.setitem(METHODS, f"negative-{name}", Known)
        return trained(f"negative-{name}", plan, **(SMALL | settings))

    return make


def ramp(low: float, high: float, modality: str | None = None, grid: Grid = GRID) -> Image:
    values = torch.linspace(low, high, int(np.prod(grid.shape))).view(1, *grid.shape)
    return Image(values, grid, modality, name="scan.nii.gz")


def test_a_window_gives_values_as_files_have_them(negative: Trained, plan: MakePlan) -> None:
    """0 to 100 of an MR is 300 to -200 HU, and back."""
    model = negative("cyclegan", plan(modalities=WINDOWS))
    found = translate_with(model, ramp(0.0, 100.0, "mr"))
    assert (found.scale, found.limits, found.image.modality) == ("file", (-200.0, 300.0), "ct")
    assert found.image.grid.same_as(GRID)
    assert bool(found.seen.all())
    torch.testing.assert_close(found.image.data, ramp(300.0, -200.0).data, atol=1e-3, rtol=0)
    back = translate_with(model, found.image)
    assert back.image.modality == "mr"
    torch.testing.assert_close(back.image.data, ramp(0.0, 100.0).data, atol=1e-3, rtol=0)


def test_percentiles_have_no_way_back(negative: Trained, plan: MakePlan) -> None:
    kinds = {"ct": Intensity(kind="percentiles", low=0.0, high=100.0), "mr": WINDOWS["mr"]}
    found = translate_with(negative("cyclegan", plan(modalities=kinds)), ramp(0.0, 100.0, "mr"))
    assert (found.scale, found.limits) == ("prepared", (0.0, 1.0))
    torch.testing.assert_close(found.image.data, ramp(1.0, 0.0).data, atol=1e-5, rtol=0)


def test_other_intensities_of_the_training(negative: Trained, plan: MakePlan) -> None:
    """Prepared as they are, from 0 to 400: the negative of 100 is 300."""
    plain = dict.fromkeys(("ct", "mr"), Intensity(kind="none"))
    model = negative("cyclegan", plan(modalities=plain), intensities=(0.0, 400.0))
    found = translate_with(model, ramp(0.0, 400.0, "mr"))
    assert (found.scale, found.limits) == ("file", (0.0, 400.0))
    torch.testing.assert_close(found.image.data, ramp(400.0, 0.0).data, atol=1e-2, rtol=0)


def test_what_the_network_does_not_see_has_the_lowest_value(negative: Trained, plan: MakePlan) -> None:
    grid = Grid((24, 14, 12), GRID.affine)
    found = translate_with(negative("cyclegan", plan(modalities=WINDOWS)), ramp(0.0, 100.0, "mr", grid))
    seen = torch.zeros(grid.shape, dtype=torch.bool)
    seen[4:20] = True
    assert torch.equal(found.seen, seen)
    assert bool((found.image.data[0][~seen] == -200).all())
    expected = 300 - 5 * ramp(0.0, 100.0, None, grid).data[0][seen]
    torch.testing.assert_close(found.image.data[0][seen], expected, atol=1e-3, rtol=0)


def test_two_dimensions(negative: Trained, plan: MakePlan) -> None:
    flat = plan(modalities=WINDOWS, orientation="RA", spacing=(2.0, 2.0), shape=(16, 12))
    grid = Grid((16, 12), np.array([[0, 2.0, 5], [-2.0, 0, 7], [0, 0, 1]]))  # turned by a quarter
    found = translate_with(negative("cyclegan", flat), ramp(0.0, 100.0, "mr", Grid((12, 16), grid.affine)))
    expected = ramp(300.0, -200.0, None, Grid((12, 16), grid.affine)).data
    torch.testing.assert_close(found.image.data, expected, atol=1e-3, rtol=0)


def test_which_modality(negative: Trained, plan: MakePlan) -> None:
    """NeMAR translates the moving modality alone, which may be left open."""
    both, one = (negative(name, plan(modalities=WINDOWS)) for name in ("cyclegan", "nemar"))
    with pytest.raises(ConfigurationError, match=r"E-MOD-010: scan\.nii\.gz: .*expected ct or mr"):
        translate_with(both, ramp(0.0, 100.0))
    assert translate_with(one, ramp(0.0, 100.0)).image.modality == "ct"
    with pytest.raises(InputError, match=r"E-MOD-005: scan\.nii\.gz: modality ct, expected mr"):
        translate_with(one, ramp(-200.0, 300.0, "ct"))
    with pytest.raises(InputError, match=r"E-MOD-005.*modality pd"):
        translate_with(both, ramp(0.0, 100.0, "pd"))


def test_a_model_of_another_task(negative: Trained, trained: Trained, plan: MakePlan) -> None:
    with pytest.raises(ConfigurationError, match=r"E-MOD-009.*can register, expected one that can translate; use anam"):
        translate_with(trained("shift", plan()), ramp(0.0, 1.0))
    with pytest.raises(ConfigurationError, match=r"E-MOD-009.*can translate, expected one that can register; use anam"):
        register_with(negative("cyclegan", plan(modalities=WINDOWS)), ramp(0.0, 1.0), ramp(0.0, 1.0))


def test_an_answer_that_is_no_number(negative: Trained, plan: MakePlan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Negative, "forward", lambda self, image: image * torch.nan)
    with pytest.raises(NumericalError, match="E-MOD-013"):
        translate_with(negative("cyclegan", plan(modalities=WINDOWS)), ramp(0.0, 100.0, "mr"))


@pytest.mark.parametrize("moved", [False, True])
def test_errors_are_those_of_the_file_and_where_both_are_known(negative: Trained, plan: MakePlan, moved: bool) -> None:
    """The truth is 20 HU below, beyond the window where that ends, and may lie on another grid."""
    model = negative("cyclegan", plan(modalities=WINDOWS))
    found = translate_with(model, ramp(10.0, 90.0, "mr"))
    truth = ramp(250.0 - 20, -150.0 - 20)
    if moved:
        truth = Image(truth.data[:, 4:].contiguous(), GRID.cropped((4, 0, 0), (12, 14, 12)), name="truth.nii.gz")
    compared = compare_translation(model, found, truth)
    scores = {row.metric: row.value for row in compared.scores}
    assert scores["rmse"] == pytest.approx(20, abs=0.01)
    spread = 400 * (1 if not moved else 12 / 16)
    assert scores["psnr_db"] == pytest.approx(20 * np.log10(spread / 20), abs=0.05)
    assert 0 < scores["structural_similarity"] < 1
    inside = compared.error.data[0, 4:] if moved else compared.error.data[0]
    torch.testing.assert_close(inside, torch.full_like(inside, 20.0), atol=0.01, rtol=0)
    assert compared.error.data[0, :3].abs().max() < 1e-6 or not moved


def test_a_truth_from_elsewhere_is_refused(negative: Trained, plan: MakePlan) -> None:
    model = negative("cyclegan", plan(modalities=WINDOWS))
    found = translate_with(model, ramp(0.0, 100.0, "mr"))
    away = GRID.affine.copy()
    away[0, 3] = 900
    with pytest.raises(InputError, match=r"E-GEO-015: scan.nii.gz: no voxel"):
        compare_translation(model, found, ramp(0.0, 100.0, None, Grid(GRID.shape, away)))


def test_an_exact_translation_has_no_error() -> None:
    image = ramp(0.0, 1.0).data[0].numpy()
    scores = {row.metric: row for row in channel_scores(image, image, np.ones(GRID.shape, bool))}
    assert scores["rmse"].value == 0
    assert (scores["psnr_db"].value, scores["psnr_db"].reason) == (np.inf, "the images are equal")
    assert scores["structural_similarity"].value == pytest.approx(1)
