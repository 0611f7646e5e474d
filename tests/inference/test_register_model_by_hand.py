"""A model whose answer is known: where points go in the world, on any grids."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from anamorph.data.files import write
from anamorph.data.image import Image, Mask
from anamorph.data.network_grid import image_to_network, network_grid
from anamorph.data.plan import Intensity, Plan
from anamorph.data.transform_files import read_transform
from anamorph.errors import AnamorphWarning, ConfigurationError, InputError, NumericalError, ResourceError
from anamorph.evaluation.folding import jacobian_determinant
from anamorph.inference.model_folder import Model
from anamorph.inference.register_model import register_with, transform_of
from anamorph.inference.request import RegistrationRequest
from anamorph.inference.run import run_registration
from anamorph.inference.run_folder import Run
from anamorph.methods import METHODS
from anamorph.methods.base import Deformation
from anamorph.methods.both_ways import BothWays
from anamorph.spatial.grid import Grid
from anamorph.spatial.transform import Affine, Field

Trained = Callable[..., Model]
MakePlan = Callable[..., Plan]


def turned(angle: float, spacing: tuple[float, ...], flips: tuple[int, ...] = (1, 1, 1)) -> np.ndarray:
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ np.diag(np.array(spacing) * flips)


def grid_about(centre: tuple[float, ...], shape: tuple[int, ...], axes: np.ndarray) -> Grid:
    affine = np.eye(4)
    affine[:3, :3] = axes
    affine[:3, 3] = np.array(centre) - axes @ ((np.array(shape) - 1) / 2)
    return Grid(shape, affine)


FIXED = grid_about((10, -20, 30), (24, 20, 14), turned(0.3, (2.1, 2.2, 3.5)))
MOVING = grid_about((-40, 5, 60), (12, 26, 22), turned(-0.2, (3.9, 1.7, 2.2), (-1, -1, 1)))
"""Oblique and anisotropic, the second one LPS; as wide as the network's view of 48 x 42 x 48 mm."""


def textured(grid: Grid, modality: str | None = None, seed: int = 0) -> Image:
    rng = np.random.default_rng(seed)
    return Image.from_array(rng.random(grid.shape) * 100, grid.affine, modality, name="scan.nii.gz")


def inner_points(grid: Grid) -> np.ndarray:
    """World points well inside a grid's view."""
    return grid.to_world(np.random.default_rng(1).uniform(0.3, 0.7, (50, grid.ndim)) * (np.array(grid.shape) - 1))


@pytest.mark.parametrize("diffeomorphic", [True, False])
def test_points_go_where_the_network_says(diffeomorphic: bool, trained: Trained, plan: MakePlan) -> None:
    model = trained("shift", plan(), voxels=(1.0, -0.5, 0.25), diffeomorphic=diffeomorphic)
    found = register_with(model, textured(FIXED), textured(MOVING, seed=1))
    points = inner_points(FIXED)
    expected = points + (MOVING.centre - FIXED.centre) + np.array([1, -0.5, 0.25]) * (3, 3, 4)
    np.testing.assert_allclose(found.transform(points), expected, atol=1e-3)
    np.testing.assert_allclose(found.transform.inverse()(expected), points, atol=1e-2)
    assert found.method == "shift"
    assert found.warped().grid.same_as(FIXED)
    assert set(found.seconds) == {"normalise", "network"}


def test_axes_of_the_plan_decide_which_way_a_voxel_is(trained: Trained, plan: MakePlan) -> None:
    model = trained("shift", plan(orientation="PIR", spacing=(3.0, 4.0, 3.0), shape=(14, 12, 16)), voxels=(1.0, 0, 0))
    found = register_with(model, textured(FIXED), textured(FIXED, seed=1))
    points = inner_points(FIXED)
    np.testing.assert_allclose(found.transform(points) - points, np.broadcast_to([0, -3.0, 0], (50, 3)), atol=1e-3)


def test_two_dimensions(trained: Trained, plan: MakePlan) -> None:
    model = trained("shift", plan(orientation="RA", spacing=(2.0, 2.0), shape=(20, 18)), voxels=(0.5, 2.0))
    affine = np.array([[0, 1.9, -7], [-2.1, 0, 3], [0, 0, 1]])
    image = textured(Grid((19, 20), affine))
    found = register_with(model, image, textured(image.grid, seed=1))
    points = inner_points(image.grid)
    np.testing.assert_allclose(found.transform(points) - points, np.broadcast_to([1.0, 4.0], (50, 2)), atol=1e-3)


def test_the_network_sees_both_images_centred(trained: Trained, plan: MakePlan) -> None:
    """The same anatomy in two frames meets voxel by voxel."""
    model = trained("shift", plan())

    def seen(grid: Grid) -> Image:
        offset = grid.to_world(grid.voxels()) - grid.centre
        return Image.from_array(np.exp(-((offset / (9, 12, 15)) ** 2).sum(1)).reshape(grid.shape), grid.affine)

    register_with(model, seen(FIXED), seen(MOVING))
    fixed, moving = model.method.seen  # type: ignore[attr-defined]
    assert fixed.shape == moving.shape == (1, 1, 16, 14, 12)
    assert float(fixed.max()) > 0.8
    assert float((fixed - moving).abs().max()) < 0.1


def test_an_initial_transform_takes_the_place_of_the_alignment(trained: Trained, plan: MakePlan) -> None:
    start = np.eye(4)
    start[:3, :3] = turned(0.4, (1.1, 1.0, 0.9))
    start[:3, 3] = (30, -3, 8)
    initial = Affine(start)
    for alignment in ("none", "within"):
        model = trained("shift", plan(alignment=alignment), voxels=(1.0, 1.0, 1.0))
        found = register_with(model, textured(FIXED), textured(MOVING, seed=1), initial=initial)
        points = inner_points(FIXED)
        np.testing.assert_allclose(found.transform(points), initial(points + np.array([3, 3, 4])), atol=1e-3)
        np.testing.assert_allclose(found.linear.matrix, start, atol=1e-9)
        assert found.initial is initial


def test_the_alignment_of_the_plan_comes_first(trained: Trained, plan: MakePlan) -> None:
    """A lopsided body 25 mm and a turn away is brought over by the affine engine; the model adds its shift."""
    away = np.eye(4)
    away[:3, :3] = turned(0.15, (1, 1, 1))
    away[:3, 3] = (20, -12, 9)
    truth = Affine(away)

    def body(grid: Grid, to_body: Affine) -> Image:
        x = to_body(grid.to_world(grid.voxels())) - (10, -20, 30)
        values = 100.0 * ((x / (18, 14, 20)) ** 2).sum(1).__lt__(1) + 80 * (((x - (6, 3, 5)) / (6, 4, 8)) ** 2).sum(
            1
        ).__lt__(1)
        values += np.random.default_rng(0).normal(0, 2, len(values))
        return Image.from_array(values.reshape(grid.shape), grid.affine, "mr")

    fixed = body(FIXED, Affine.identity(3))
    moving = body(
        grid_about(tuple(truth(np.array([[10.0, -20, 30]]))[0]), (24, 24, 16), np.diag([2.2, 2.2, 3.2])),
        truth.inverse(),
    )
    model = trained(
        "shift", plan(alignment="reference", reference="a_mr", middle=(900.0, 0.0, 0.0)), voxels=(0.0, 0.0, 1.0)
    )
    found = register_with(model, fixed, moving)
    points = inner_points(FIXED)
    missed = np.linalg.norm(found.transform(points) - truth(points + np.array([0, 0, 4.0])), axis=1)
    assert missed.max() < 2.0
    assert {"affine", "normalise", "network"} <= set(found.seconds)


@pytest.mark.parametrize("diffeomorphic", [True, False])
def test_an_image_larger_than_the_networks_view_is_not_torn(
    diffeomorphic: bool, trained: Trained, plan: MakePlan
) -> None:
    model = trained("shift", plan(shape=(8, 8, 8)), voxels=(3.0, 2.0, -3.0), diffeomorphic=diffeomorphic)
    image = textured(grid_about((0, 0, 0), (40, 40, 30), np.diag([3.0, 3.0, 4.0])))
    with pytest.warns(AnamorphWarning, match=r"W-MOD-012: scan.nii.gz.* 5 x 5 x 3.75 times as long"):
        found = register_with(model, image, textured(image.grid, seed=1))
    displacement = found.transform.displacement_on(image.grid)
    np.testing.assert_allclose(displacement[:, 20, 20, 15], (9, 6, -12), atol=0.05)
    assert np.abs(displacement[:, 0]).max() < 1e-3
    assert jacobian_determinant(displacement, image.grid.affine).min() > 0.1
    points = inner_points(image.grid)
    assert np.linalg.norm(found.transform.inverse()(found.transform(points)) - points, axis=1).max() < 0.5


def test_a_still_border_is_not_widened() -> None:
    grid = Grid.from_spacing((6, 6), 2.0)
    displacement = torch.zeros(1, 2, 6, 6)
    displacement[:, :, 2:4, 2:4] = 0.5
    chain = transform_of(Deformation(displacement), grid, grid)
    field = chain.transforms[0]
    assert isinstance(field, Field)
    assert field.grid.same_as(grid)
    np.testing.assert_array_equal(field.displacement.numpy(), displacement[0].numpy() * 2)


def test_nan_from_the_network_is_refused() -> None:
    grid = Grid.from_spacing((6, 6), 2.0)
    with pytest.raises(NumericalError, match=r"E-REG-002"):
        transform_of(Deformation(torch.full((1, 2, 6, 6), float("nan"))), grid, grid)


# -- what a model was made for -----------------------------------------------------------------------------------------

TWO = {"ct": Intensity(kind="window", low=-200, high=300), "mr": Intensity(kind="none")}


def hounsfield(seed: int = 0, modality: str | None = "ct") -> Image:
    values = np.random.default_rng(seed).uniform(-900, 900, FIXED.shape)
    return Image.from_array(values, FIXED.affine, modality, name="ct.nii.gz")


def test_sides_learnt_by_modality_need_no_naming(trained: Trained, plan: MakePlan) -> None:
    pairs = {"rule": "between", "fixed_modality": "ct", "moving_modality": "mr"}
    model = trained("shift", plan(modalities=TWO), {"pairs": pairs})
    found = register_with(model, hounsfield(modality=None), textured(FIXED))
    assert (found.fixed.modality, found.moving.modality) == ("ct", "mr")
    with pytest.raises(InputError, match=r"E-MOD-005: scan.nii.gz: modality mr, expected ct as the fixed image"):
        register_with(model, textured(FIXED, "mr"), hounsfield(modality=None))


def test_several_modalities_ask_for_a_choice(trained: Trained, plan: MakePlan) -> None:
    model = trained("shift", plan(modalities=TWO))
    with pytest.raises(
        ConfigurationError, match=r"E-MOD-010: .*moving image is open, expected ct or mr; .*--moving-mod"
    ):
        register_with(model, hounsfield(), textured(FIXED))
    assert register_with(model, hounsfield(modality="CT"), textured(FIXED, "mr")).fixed.modality == "ct"


def test_a_foreign_modality_is_refused_with_the_nearest_name(trained: Trained, plan: MakePlan) -> None:
    model = trained("shift", plan(modalities={"t1": Intensity(), "flair": Intensity()}))
    with pytest.raises(InputError, match=r"E-MOD-005.*modality flare, expected t1 or flair; did you mean flair\?"):
        register_with(model, textured(FIXED, "flare"), textured(FIXED, "t1"))


def test_a_segmenting_model_does_not_register(trained: Trained, plan: MakePlan) -> None:
    model = trained("threshold", plan(labels={1: "a"}))
    with pytest.raises(
        ConfigurationError, match=r"E-MOD-009.*can segment, expected one that can register; .*anamorph segment"
    ):
        register_with(model, textured(FIXED), textured(MOVING))


def test_voxels_far_off_are_told(trained: Trained, plan: MakePlan) -> None:
    thick = textured(grid_about((0, 0, 0), (16, 14, 5), np.diag([3.0, 3.0, 9.6])))
    with pytest.warns(AnamorphWarning, match=r"W-MOD-005: scan.nii.gz: voxels of 3 x 3 x 9.6 mm, .* 3 x 3 x 4 mm"):
        register_with(trained("shift", plan()), thick, textured(thick.grid, seed=1))
    seen = {"spacings": {"mr": ((1.0, 1.0, 5.0), (3.0, 3.0, 10.0))}}
    register_with(trained("shift", plan(), seen), thick, textured(thick.grid, seed=1))  # a warning would be an error


@pytest.mark.parametrize(
    ("values", "told"),
    [((0.0, 1.0), "values of"), ((0.0, 1500.0), "no value below 0"), ((-1000.0, -700.0), "values of")],
)
def test_values_that_are_no_hounsfield_units_are_told(
    values: tuple[float, float], told: str, trained: Trained, plan: MakePlan
) -> None:
    image = Image.from_array(np.random.default_rng(0).uniform(*values, FIXED.shape), FIXED.affine, "ct", name="odd.nii")
    model = trained("shift", plan(modalities=TWO))
    with pytest.warns(AnamorphWarning, match=rf"W-MOD-013: odd.nii: {told}.*-200 to 300"):
        register_with(model, image, textured(FIXED, "mr"))


def test_values_below_zero_are_told_where_training_looked_above(trained: Trained, plan: MakePlan) -> None:
    """As of a CT that is taken for an MR; a little ringing below 0 is none."""
    model = trained("shift", plan(modalities={"mr": Intensity(content="positive")}))
    values = np.random.default_rng(0).uniform(-1.0, 100.0, FIXED.shape)
    mr = Image.from_array(values, FIXED.affine, "mr", name="mr.nii.gz")
    register_with(model, mr, textured(FIXED, "mr"))  # a warning would be an error
    with pytest.warns(AnamorphWarning, match=r"W-MOD-013: ct.nii.gz: values from -[89]\d\d.* modality mr") as told:
        register_with(model, mr, hounsfield(modality="mr"))
    assert len(told) == 1


def test_masks_are_used_or_refused(trained: Trained, plan: MakePlan) -> None:
    mask = Mask(torch.zeros(FIXED.shape, dtype=torch.bool), FIXED)
    mask.data[6:18, 5:15, 3:11] = True
    with pytest.raises(ConfigurationError, match=r"E-MOD-012.*scan.nii.gz, which neither"):
        register_with(trained("shift", plan()), textured(FIXED), textured(FIXED, seed=1), fixed_mask=mask)
    inside = {"mr": Intensity(kind="zscore", content="mask")}
    image = textured(FIXED)
    image.data[:, ~mask.data] += 1000.0
    model = trained("shift", plan(modalities=inside))
    register_with(model, image, textured(FIXED, seed=1), fixed_mask=mask)
    fixed: torch.Tensor = model.method.seen[0]  # type: ignore[attr-defined]
    assert abs(float(fixed[0, 0, 6:10, 5:9, 5:8].mean())) < 1.0


def test_a_flat_image_is_refused_or_left_where_it_is(trained: Trained, plan: MakePlan) -> None:
    model, flat = trained("shift", plan()), Image.from_array(np.full(FIXED.shape, 7.0), FIXED.affine)
    with pytest.raises(NumericalError, match=r"E-VAL-004"):
        register_with(model, textured(FIXED), flat)
    with pytest.warns(AnamorphWarning, match=r"W-VAL-004"):
        found = register_with(model, textured(FIXED), flat, allow_flat=True)
    assert np.array_equal(found.linear.matrix, np.eye(4))


def test_memory_is_asked_for_first(trained: Trained, plan: MakePlan) -> None:
    with pytest.raises(ResourceError, match=r"E-MEM-016.*2 MiB allowed"):
        register_with(trained("shift", plan()), textured(FIXED), textured(FIXED, seed=1), max_memory=2**21)


def test_a_deformable_start_is_refused(trained: Trained, plan: MakePlan) -> None:
    start: Any = Field(torch.zeros(3, *FIXED.shape), FIXED)
    with pytest.raises(ConfigurationError, match=r"E-CFG-006"):
        register_with(trained("shift", plan()), textured(FIXED), textured(FIXED, seed=1), initial=start)


def both_ways(trained: Trained, plan: MakePlan, monkeypatch: pytest.MonkeyPatch) -> Model:
    """Of t1 (fixed) and t2: a shift of a voxel forward, and one of two backward."""
    one_way: Any = METHODS["shift"]

    class Both(BothWays, one_way):
        def register_both(self, fixed: torch.Tensor, moving: torch.Tensor) -> tuple[Deformation, Deformation]:
            found = one_way.register(self, fixed, moving)
            return found, Deformation(-2 * found.displacement)

    monkeypatch.setitem(METHODS, "both", Both)
    two = plan(modalities={name: Intensity(kind="window", low=0.0, high=100.0) for name in ("t1", "t2")})
    pairs = {"rule": "within", "fixed_modality": "t1", "moving_modality": "t2"}
    return trained("both", two, {"pairs": pairs}, voxels=(1.0, 0.0, 0.0), diffeomorphic=False)


def test_a_run_tells_how_far_the_two_maps_are_from_undoing_each_other(
    trained: Trained, plan: MakePlan, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """One voxel of 3 mm there, two back; the inverse computed of the first is exact."""
    both_ways(trained, plan, monkeypatch)
    files = [tmp_path / f"{name}.nii.gz" for name in ("t1", "t2")]
    for seed, file in enumerate(files):
        write(textured(FIXED, seed=seed), file)
    request = RegistrationRequest(
        fixed=files[0], moving=files[1], out=tmp_path / "out", model=tmp_path / "both_model", device="cpu",
        fixed_modality="t1", moving_modality="t2",
    )  # fmt: skip
    with Run(request.out, "register", {}) as run:
        result = run_registration(request, run)
    rows = {row.metric: row.value for row in result.scores if row.method == "both"}
    assert rows["inverse_consistency_mean_mm"] == pytest.approx(3, abs=0.2)  # less where both fade out
    assert rows["inverse_residual_mean_mm"] < 0.1
    assert run.facts["inverse_consistency"].items() <= rows.items()
    assert run.facts["modalities"] == {"fixed": "t1", "moving": "t2"}
    back = read_transform(run.folder / "backward_displacement.nii.gz")
    points = inner_points(FIXED)
    np.testing.assert_allclose(back(points) - points, np.broadcast_to([-6.0, 0, 0], (50, 3)), atol=0.05)


@pytest.mark.parametrize(
    ("fixed", "moving", "forward"),
    [("t1", "t2", True), ("t2", "t1", False), (None, "t1", False), ("T2", None, False), (None, None, True)],
)
def test_a_method_that_registers_both_ways_takes_its_pairs_either_way(
    trained: Trained, plan: MakePlan, monkeypatch: pytest.MonkeyPatch, fixed, moving, forward: bool
) -> None:
    """The network sees the modalities in the order of its training, and its answer for the fixed side is taken."""
    model = both_ways(trained, plan, monkeypatch)
    images = textured(FIXED, fixed), textured(FIXED, moving, seed=1)
    found = register_with(model, *images)
    assert (found.fixed.modality, found.moving.modality) == (("t1", "t2") if forward else ("t2", "t1"))
    points = inner_points(FIXED)
    moved = np.broadcast_to([3.0 if forward else -6.0, 0, 0], (50, 3))
    np.testing.assert_allclose(found.transform(points) - points, moved, atol=1e-3)
    assert found.backward is not None
    other = np.broadcast_to([-6.0 if forward else 3.0, 0, 0], (50, 3))
    np.testing.assert_allclose(found.backward(points) - points, other, atol=1e-3)
    known: Any = model.method
    first = replace(images[0 if forward else 1], modality="t1")
    two = model.card.plan
    torch.testing.assert_close(known.seen[0][0], image_to_network(first, two, network_grid(first, two)))


@pytest.mark.parametrize(
    ("fixed", "moving", "told"),
    [
        ("t2", "pd", r"E-MOD-005: moving.nii.gz: modality pd, expected t1 or t2"),
        ("pd", "t1", r"E-MOD-005: fixed.nii.gz: modality pd, expected t1 or t2"),
        (
            "t2",
            "T2",
            r"E-MOD-005: both images are named t2, expected one of t1, the other of t2; name one of them t1",
        ),
    ],
)
def test_of_a_pair_the_image_with_the_wrong_name_is_refused(
    trained: Trained, plan: MakePlan, monkeypatch: pytest.MonkeyPatch, fixed: str, moving: str, told: str
) -> None:
    images = [
        replace(textured(FIXED, name), name=f"{side}.nii.gz") for side, name in (("fixed", fixed), ("moving", moving))
    ]
    with pytest.raises(InputError, match=told):
        register_with(both_ways(trained, plan, monkeypatch), *images)


def test_one_direction_alone_stays_refused(trained: Trained, plan: MakePlan) -> None:
    two = plan(modalities={name: Intensity(kind="window", low=0.0, high=100.0) for name in ("t1", "t2")})
    pairs = {"rule": "within", "fixed_modality": "t1", "moving_modality": "t2"}
    with pytest.raises(InputError, match=r"E-MOD-005.*modality t2, expected t1 as the fixed image"):
        register_with(trained("shift", two, {"pairs": pairs}), textured(FIXED, "t2"), textured(FIXED, "t1"))
