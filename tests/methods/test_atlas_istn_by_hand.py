"""Atlas-ISTN: its objective and its atlas against literal ones, what changes with the epochs, and its variants."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from anamorph.errors import ConfigurationError, InputError
from anamorph.losses.segmentation import one_hot
from anamorph.methods import METHODS
from anamorph.methods.atlas_istn import AtlasISTN, AtlasISTNSettings, AtlasTransformation
from anamorph.methods.atlas_refinement import normalised_smoothness
from anamorph.methods.base import Domain
from anamorph.methods.unet import UNet, UNetSettings
from tests.networks.test_spatial_transformer_by_hand import displaced

SHAPE = (10, 8)
DOMAIN = Domain(SHAPE, (1.0, 1.0), classes=2)
SMALL: dict[str, Any] = {"channels": (4, 6), "stn_channels": (4, 6), "affine_from_epoch": 0}


def small(domain: Domain = DOMAIN, **values: Any) -> AtlasISTN:
    torch.manual_seed(0)
    method = AtlasISTN(AtlasISTNSettings.model_validate(SMALL | values), domain)
    for name, parameter in method.named_parameters():
        if name.startswith("spatial_transformer.affine.3"):  # as after some steps
            torch.nn.init.normal_(parameter, std=0.1)
    return method.requires_grad_(False)


def cases(number: int = 4, shape: tuple[int, ...] = SHAPE, unlabelled: tuple[int, ...] = ()) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    labelled = torch.tensor([item not in unlabelled for item in range(number)])
    labels = torch.randint(0, 3, (number, 1, *shape), generator=generator)
    return {
        "image": torch.rand(number, 1, *shape, generator=generator),
        "labels": labels * labelled.view(-1, *[1] * (1 + len(shape))),
        "labelled": labelled,
        "index": torch.arange(number),
    }


def part(batch: dict[str, Tensor], items: slice) -> dict[str, Tensor]:
    return {name: tensor[items] for name, tensor in batch.items()}


def begun(batch: dict[str, Tensor], domain: Domain = DOMAIN, **values: Any) -> AtlasISTN:
    method = small(domain, **values)
    method.before_training([batch])
    return method.eval()


def maps(found: AtlasTransformation, item: int) -> list[np.ndarray]:
    return [field[item].double().numpy() for field in (found.forward, found.inverse, found.local)]


# -- the objective -----------------------------------------------------------------------------------------------------


def literal_terms(method: AtlasISTN, batch: dict[str, Tensor], mask: np.ndarray | None = None) -> dict[str, float]:
    """Equations 10 to 13 in loops; the mask is given for every case."""
    logits = method.itn(batch["image"])
    found = method.transformation(logits)
    truth = one_hot(batch["labels"], 2, 0.5).double().numpy()
    atlas = method.atlas_labels[0].double().numpy()
    sums = dict.fromkeys(("segmentation", "atlas_to_segmentation", "segmentation_to_atlas", "smoothness"), 0.0)
    for item in range(len(logits)):
        forward, inverse, local = maps(found, item)
        here = np.ones(SHAPE) if mask is None else mask
        there = displaced(here[None], forward)[0] * inside(forward)
        errors = {
            "segmentation": (truth[item] - logits[item].double().numpy(), here),
            "atlas_to_segmentation": (truth[item][1:] - displaced(atlas[1:], inverse), here),
            "segmentation_to_atlas": (
                displaced(truth[item][1:], forward) - atlas[1:],
                there if mask is not None else here,
            ),
        }
        for name, (error, weight) in errors.items():
            sums[name] += (error**2 * weight).sum() / (len(error) * weight.sum())
        steps = 0.0
        for axis in range(2):
            squares = [np.diff(local[c] / ((n - 1) / 2), axis=axis) ** 2 for c, n in enumerate(SHAPE)]
            steps += np.mean(squares)
        sums["smoothness"] += steps / 2
    return {name: value / len(logits) for name, value in sums.items()}


def inside(displacement: np.ndarray) -> np.ndarray:
    """Whether a displaced voxel lies in the image, which ends half a voxel beyond the outer centres."""
    points = displacement + np.indices(SHAPE)
    return np.all([(p >= -0.5) & (p <= n - 0.5) for p, n in zip(points, SHAPE, strict=True)], axis=0)


@pytest.mark.parametrize("masked", [False, True])
def test_the_terms_are_the_papers(masked: bool) -> None:
    batch = cases()
    method = begun(batch)
    mask = None
    if masked:
        mask = np.zeros(SHAPE)
        mask[2:7, 1:6] = 1
        batch["mask"] = torch.from_numpy(mask).float().expand(4, 1, *SHAPE)
    expected = literal_terms(method, batch, mask)
    found = method.terms(batch, "network")
    assert method.transformation(method.itn(batch["image"])).forward.abs().max() > 0.2
    assert list(found) == list(expected)
    for name, value in expected.items():
        assert float(found[name]) == pytest.approx(value, rel=1e-4), name


def test_the_unit_of_the_smoothness_is_half_the_image() -> None:
    """A ramp along one axis, from -1 to 1 in the release's coordinates, by 2 / (N - 1) a voxel."""
    local = torch.zeros(1, 2, 11, 6)
    local[:, 0] = torch.arange(11.0).view(11, 1) - 5
    assert float(normalised_smoothness(local)) == pytest.approx((2 / 10) ** 2 / 2 / 2)  # of two components, two axes


def test_cases_without_labels_teach_nothing() -> None:
    batch = cases(unlabelled=(1, 3))
    method = begun(batch)
    some = {name: tensor[batch["labelled"]] for name, tensor in batch.items()}
    for name, value in method.terms(some, "network").items():
        assert torch.equal(value, method.terms(batch, "network")[name])


def test_omega_grows_with_the_epochs_and_weighs_what_deforms() -> None:
    method = small(fade_in_epoch=25, fade_in_width=10.0, weights={"segmentation": 2.0, "smoothness": 500.0})
    for epoch, omega in ((0, 1 / (1 + math.exp(2.5))), (25, 0.5), (300, 1.0)):
        method.epoch.fill_(epoch)
        assert dict(method.weights_of("network")) == pytest.approx(
            {
                "segmentation": 2.0,
                "atlas_to_segmentation": omega,
                "segmentation_to_atlas": omega,
                "smoothness": 500 * omega,
            }
        )
    assert small().weights_of("network")["smoothness"] == 800


def test_the_affine_map_enters_late_and_its_weights_rest_until_then() -> None:
    batch = cases()
    method = begun(batch, affine_from_epoch=3).requires_grad_(True)
    affine = dict(method.spatial_transformer.named_parameters(prefix="spatial_transformer"))
    affine = {name: parameter for name, parameter in affine.items() if ".affine." in name}
    for epoch, there in ((2, False), (3, True)):
        method.epoch.fill_(epoch)
        method.zero_grad(set_to_none=True)
        torch.stack([*method.terms(batch, "network").values()]).sum().backward()
        assert all((parameter.grad is not None) == there for parameter in affine.values())
        assert (method.one_pass(batch["image"]).matrix is not None) == there


# -- the atlas ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batches", [(4,), (1, 3), (2, 1, 1)])
def test_the_atlas_begins_as_the_mean_of_the_labelled_cases_and_follows_them(batches: tuple[int, ...]) -> None:
    """Equations 15 and 16, however the cases come in batches."""
    batch = cases(unlabelled=(1,))
    limits = [0, *np.cumsum(batches)]
    dealt = [part(batch, slice(first, last)) for first, last in pairwise(limits)]
    method = small(update_rate=0.3).eval()
    method.before_training(dealt)
    chosen = [0, 2, 3]
    z = {"labels": one_hot(batch["labels"], 2, 0.5).double().numpy(), "image": batch["image"].double().numpy()}
    mean = {name: values[chosen].mean(0) for name, values in z.items()}
    np.testing.assert_allclose(method.atlas_labels[0].numpy(), mean["labels"], atol=1e-6)
    np.testing.assert_allclose(method.atlas_image[0].numpy(), mean["image"], atol=1e-6)
    for epoch in range(2):
        found = method.one_pass(batch["image"])
        for name, values in z.items():
            moved = [displaced(values[item], maps(found, item)[0]) for item in chosen]
            mean[name] = 0.7 * mean[name] + 0.3 * np.mean(moved, axis=0)
        method.after_epoch(epoch, dealt)
        assert int(method.epoch) == epoch + 1
        np.testing.assert_allclose(method.atlas_labels[0].numpy(), mean["labels"], atol=1e-5)
        np.testing.assert_allclose(method.atlas_image[0].numpy(), mean["image"], atol=1e-5)
    torch.testing.assert_close(method.atlas_labels.sum(1), torch.ones(1, *SHAPE))


def test_a_fixed_atlas_is_a_labelled_case_that_a_seed_draws() -> None:
    batch = cases(6, unlabelled=(0, 4))
    dealt = [part(batch, slice(0, 3)), part(batch, slice(3, 6))]
    drawn = []
    for seed in range(20):
        method = small(atlas="fixed", atlas_seed=seed)
        method.before_training(dealt)
        item = [int(torch.equal(method.atlas_image[0], image)) for image in batch["image"]].index(1)
        assert torch.equal(method.atlas_labels, one_hot(batch["labels"], 2, 0.5)[item : item + 1])
        drawn.append(item)
        before = method.atlas_labels.clone()
        method.after_epoch(0, dealt)
        assert torch.equal(method.atlas_labels, before)
    assert set(drawn) == {1, 2, 3, 5}
    method.before_training([batch])
    assert torch.equal(method.atlas_image[0], batch["image"][drawn[-1]])


def test_without_labelled_cases_there_is_no_atlas() -> None:
    for atlas in ("learnt", "fixed"):
        with pytest.raises(InputError, match="E-TRN-003"):
            small(atlas=atlas).before_training([cases(2, unlabelled=(0, 1))])


# -- variants and answers ----------------------------------------------------------------------------------------------


def networks(method: AtlasISTN) -> list[str]:
    return [type(network).__name__ for network in method.networks_of("network")]


def terms(method: AtlasISTN) -> list[str]:
    found = list(method.terms(cases(), "network"))
    assert found == list(method.weights_of("network"))
    return found


WARPS = ["atlas_to_segmentation", "segmentation_to_atlas"]


def test_vml_registers_images() -> None:
    batch = cases()
    method = begun(batch, stn_input="images")
    assert networks(method) == ["SpatialTransformer"]
    assert terms(method) == [*WARPS, "smoothness"]
    seen: list[Tensor] = []
    method.spatial_transformer.register_forward_pre_hook(lambda module, arguments: seen.append(arguments[0]))
    method.segment(batch["image"])
    assert torch.equal(seen[0], torch.cat([batch["image"], method.atlas_image.expand(4, 1, *SHAPE)], 1))
    for use in (method.itn, method.refine):
        with pytest.raises(ConfigurationError, match="E-MOD-021"):
            use(batch["image"])


def test_without_l_s_the_segmentation_network_is_normalised_and_learns_by_the_others() -> None:
    batch = cases()
    method = begun(batch, supervised_segmentation=False).train().requires_grad_(True)
    assert method.image_transformer is not None
    assert any(isinstance(module, torch.nn.BatchNorm2d) for module in method.image_transformer.modules())
    assert terms(method) == [*WARPS, "smoothness"]
    torch.stack([*method.terms(batch, "network").values()]).sum().backward()
    gradient = method.image_transformer.get_parameter("first.0.weight").grad
    assert gradient is not None
    assert gradient.any()
    with pytest.raises(ConfigurationError, match="E-MOD-021"):
        method.refine(batch["image"])


def test_velocities_alone_and_an_affine_map_alone() -> None:
    batch = cases()
    svf, affine = (begun(batch, stn=kind) for kind in ("svf", "affine"))
    assert terms(svf) == ["segmentation", *WARPS, "smoothness"]
    found = svf.one_pass(batch["image"])
    assert found.matrix is None
    assert torch.equal(found.forward, found.local)
    assert terms(affine) == ["segmentation", *WARPS]
    found = affine.one_pass(batch["image"])
    assert found.matrix is not None
    assert not found.local.any()
    torch.testing.assert_close(found.forward.diff(n=2, dim=2), torch.zeros(4, 2, 8, 8), rtol=0, atol=1e-5)


def test_independent_is_a_unet_with_a_spatial_transformer_that_never_learnt() -> None:
    """Both networks of that name have the same weights, so that one takes those of the other."""
    weights = dict.fromkeys([*WARPS, "smoothness"], 0.0)
    batch = cases()
    method = begun(batch, atlas="fixed", weights=weights)
    assert networks(method) == ["StridedUNet"]
    assert terms(method) == ["segmentation"]
    assert (method.chosen.test, method.chosen.validation) == ("refine", "itn")
    unet = UNet(UNetSettings(channels=(4, 6)), DOMAIN)
    assert method.image_transformer is not None
    method.image_transformer.load_state_dict(unet.network.state_dict())
    assert torch.equal(method.itn(batch["image"]), unet.network(batch["image"]))
    assert torch.equal(method.terms(batch, "network")["segmentation"], unet.terms(batch, "network")["mse"])


def test_a_segmentation_is_what_the_settings_say() -> None:
    batch = cases(2)
    quick = {"iterations": 2, "smoothness": 1.0, "learning_rate": 0.05}
    found, validated = {}, []
    for test in ("refine", "one_pass", "itn"):
        method = begun(batch, test=test, refinement=quick)
        found[test] = method.segment(batch["image"])
        method.validating = True
        validated.append(method.segment(batch["image"]))
    assert all(torch.equal(answer, found["one_pass"]) for answer in validated)
    assert torch.equal(found["itn"].argmax(1), method.itn(batch["image"]).argmax(1))
    warped = method.atlas_to_case(method.one_pass(batch["image"]))
    torch.testing.assert_close(found["one_pass"], warped)  # which sums to one
    for item in range(2):
        inverse = maps(method.one_pass(batch["image"]), item)[1]
        np.testing.assert_allclose(warped[item].numpy(), displaced(method.atlas_labels[0].numpy(), inverse), atol=1e-5)
    refined = method.refine(batch["image"], method.chosen.refinement).transformation
    torch.testing.assert_close(found["refine"], method.atlas_to_case(refined))
    assert not torch.equal(found["refine"], found["one_pass"])


def test_images_on_another_grid_are_refused() -> None:
    method = begun(cases())
    assert method.itn(torch.rand(1, 1, 9, 9)).shape == (1, 3, 9, 9)
    with pytest.raises(ValueError, match=r"the grid of the atlas \(10, 8\), found \(9, 9\)"):
        method.one_pass(torch.rand(1, 1, 9, 9))


def test_without_classes_there_is_nothing_to_learn() -> None:
    with pytest.raises(ConfigurationError, match="E-MOD-020"):
        small(Domain(SHAPE, (1.0, 1.0)))


@pytest.mark.parametrize(
    "values",
    [
        {"stn_input": "images", "supervised_segmentation": False},
        {"stn_input": "images", "test": "refine"},
        {"supervised_segmentation": False, "validation": "itn"},
        {"weights": {"segmentation": 0.0}, "test": "itn"},
        {"stn": "affine", "stn_input": "images", "weights": dict.fromkeys(WARPS, 0.0)},
        {"weights": dict.fromkeys(["segmentation", *WARPS, "smoothness"], 0.0)},
        {"refinement": {"atlas_to_segmentation": 0.0}},
        {"stn_channels": ()},
        {"update_rate": 1.5},
        {"stn": "spline"},
    ],
)
def test_settings_that_make_no_sense(values: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        AtlasISTNSettings.model_validate(values)


@pytest.mark.parametrize(
    ("values", "name"),
    [
        ({"fade_in_width": 10.0}, "fade_in_width"),
        ({"atlas": "fixed", "update_rate": 0.1}, "update_rate"),
        ({"atlas_seed": 1}, "atlas_seed"),
        ({"stn_input": "images", "refinement": {"iterations": 3}}, "refinement"),
        ({"stn_input": "images", "negative_slope": 0.1}, "negative_slope"),
        ({"supervised_segmentation": False, "refinement": {"smoothness": 3.0}}, "refinement"),
        ({"stn": "affine", "weights": {"smoothness": 3.0}}, "weights.smoothness"),
        ({"stn": "affine", "refinement": {"smoothness": 3.0}}, "refinement.smoothness"),
    ],
)
def test_settings_that_a_variant_has_no_use_for(values: dict[str, Any], name: str) -> None:
    with pytest.raises(ValidationError, match=f"{name} would do nothing with"):
        AtlasISTNSettings.model_validate(values)


def test_the_published_numbers_are_the_defaults() -> None:
    settings, schedule = AtlasISTNSettings(), METHODS["atlas-istn"].schedule
    refinement = settings.refinement
    assert (settings.test, settings.validation) == ("refine", "one_pass")
    assert (settings.update_rate, settings.squarings, settings.affine_from_epoch) == (0.01, 6, 200)
    assert (settings.weights.smoothness, refinement.smoothness, refinement.iterations) == (800, 800, 100)
    assert (schedule.epochs, schedule.batch_size, schedule.half_life, schedule.learning_rate) == (1200, 8, 500, 1e-3)
    method = AtlasISTN(settings, Domain((64, 64), (1.0, 1.0), classes=1))
    assert method.image_transformer is not None
    assert sum(parameter.numel() for parameter in method.image_transformer.parameters()) == 109_826
