"""What any chosen network promises, and that it is the network of the method of its name."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pydantic import BaseModel, TypeAdapter, ValidationError

from anamorph.losses import diffusion
from anamorph.methods.base import Domain, Method
from anamorph.methods.dynunet import DynUNet, DynUNetSettings
from anamorph.methods.lapirn import LapIRN, LapIRNSettings
from anamorph.methods.network_choice import (
    DynUNetNetworkSettings,
    LapIRNNetworkSettings,
    RegistrationChoice,
    SegmentationChoice,
    UNetNetworkSettings,
    VoxelMorphNetworkSettings,
    registration_network,
    segmentation_network,
)
from anamorph.methods.unet import UNet, UNetSettings
from anamorph.methods.voxelmorph import VoxelMorph, VoxelMorphSettings
from anamorph.spatial.field import exponential

DOMAINS = {
    "2d": Domain((16, 24), (1.0, 1.0), channels=2, classes=2),
    "3d": Domain((16, 8, 16), (1.0, 1.0, 1.0), channels=2, classes=2),
}
ODD = {"2d": (19, 13), "3d": (9, 11, 13)}

SMALL_VOXELMORPH = {"encoder": (4, 4), "decoder": (4, 4, 4)}
REGISTRATION: dict[str, tuple[Any, type[Method], Any]] = {
    "lapirn": (LapIRNNetworkSettings, LapIRN, {"channels": 1}),
    "lapirn, displacement": (LapIRNNetworkSettings, LapIRN, {"channels": 1, "diffeomorphic": False}),
    "lapirn, attention": (LapIRNNetworkSettings, LapIRN, {"channels": 3, "attention": True, "squarings": 5}),
    "voxelmorph": (VoxelMorphNetworkSettings, VoxelMorph, SMALL_VOXELMORPH),
    "voxelmorph, displacement": (
        VoxelMorphNetworkSettings, VoxelMorph, SMALL_VOXELMORPH | {"diffeomorphic": False, "down": "stride"},
    ),
}  # fmt: skip
SEGMENTATION: dict[str, tuple[Any, type[Method], Any]] = {
    "dynunet": (DynUNetNetworkSettings, DynUNet, {"features": 2}),
    "dynunet, shallow": (DynUNetNetworkSettings, DynUNet, {"features": 2, "deep_supervision": False}),
    "dynunet, max": (DynUNetNetworkSettings, DynUNet, {"features": 2, "squeeze_excitation": "max"}),
    "dynunet, add": (DynUNetNetworkSettings, DynUNet, {"features": 2, "squeeze_excitation": "add"}),
    "unet": (UNetNetworkSettings, UNet, {"channels": (2, 3)}),
}


def images(ndim: str, generator: torch.Generator, count: int) -> tuple[torch.Tensor, ...]:
    return torch.rand(count, 2, 2, *ODD[ndim], generator=generator).unbind()


@pytest.mark.parametrize("ndim", list(DOMAINS))
@pytest.mark.parametrize("name", list(REGISTRATION))
def test_registration_is_that_of_the_method(name: str, ndim: str, generator) -> None:
    choice, kind, values = REGISTRATION[name]
    torch.manual_seed(0)
    network = registration_network(choice(**values), DOMAINS[ndim])
    torch.manual_seed(0)
    method = kind(kind.Settings(**values), DOMAINS[ndim])
    own = method.networks_of("network")[0] if kind is LapIRN else method
    mine, theirs = network.state_dict(), own.state_dict()
    assert list(mine) == list(theirs)
    assert all(torch.equal(mine[key], theirs[key]) for key in mine)
    fixed, moving = images(ndim, generator, 2)
    for parameter in network.parameters():
        parameter.data *= 1.5
    own.load_state_dict(network.state_dict())
    found, expected = network.deformation(fixed, moving), method.register(fixed, moving)
    assert torch.equal(found.displacement, expected.displacement)
    assert found.displacement.shape == (2, len(ODD[ndim]), *ODD[ndim])
    assert (found.velocity is None) == ("displacement" in name)
    assert found.squarings == expected.squarings
    if found.velocity is not None:
        assert expected.velocity is not None
        assert torch.equal(found.velocity, expected.velocity)
        torch.testing.assert_close(found.displacement, exponential(found.velocity, found.squarings))


@pytest.mark.parametrize("ndim", list(DOMAINS))
@pytest.mark.parametrize("name", list(REGISTRATION))
def test_gradients_reach_all_of_it_through_the_deformation_and_its_smoothness(name: str, ndim: str, generator) -> None:
    choice, _, values = REGISTRATION[name]
    torch.manual_seed(0)
    network = registration_network(choice(**values), DOMAINS[ndim])
    if "voxelmorph" in name:  # its head is nearly zero at first
        network.get_parameter("head.weight").data.normal_()
    found = network.deformation(*images(ndim, generator, 2))
    for loss in (found.displacement.square().mean(), diffusion(network.regularised(found))):
        gradients = torch.autograd.grad(loss, list(network.parameters()), retain_graph=True)
        assert all(gradient.isfinite().all() and gradient.any() for gradient in gradients)


@pytest.mark.parametrize("diffeomorphic", [True, False])
def test_what_is_regularised_is_smooth_as_the_method_says(diffeomorphic: bool) -> None:
    """Over a whole grid and of a smooth field, where the half grid of VoxelMorph says nearly the same."""
    shape = (48, 48)
    rows, columns = torch.meshgrid(*(torch.linspace(0, torch.pi, n) for n in shape), indexing="ij")
    fixed, moving = (torch.exp(-((rows - 1.5) ** 2 + (columns - at) ** 2))[None, None] for at in (1.4, 1.7))
    domain, weights = Domain(shape, (1.0, 1.0)), {"smoothness": 1.0}
    torch.manual_seed(0)
    lapirn = LapIRN(LapIRNSettings.model_validate({"channels": 1, "diffeomorphic": diffeomorphic}), domain)
    expected = lapirn.terms({"fixed": fixed, "moving": moving}, "network")["smoothness"]
    network = lapirn.network
    torch.testing.assert_close(diffusion(network.regularised(network.deformation(fixed, moving))), expected)

    values = SMALL_VOXELMORPH | {"diffeomorphic": diffeomorphic, "weights": weights}
    voxelmorph = VoxelMorph(VoxelMorphSettings.model_validate(values), domain)
    network = registration_network(VoxelMorphNetworkSettings(**SMALL_VOXELMORPH, diffeomorphic=diffeomorphic), domain)
    optimiser = torch.optim.Adam(voxelmorph.parameters(), lr=1e-2)
    for _ in range(30):  # to a field that is smooth, not drawn
        optimiser.zero_grad()
        target = torch.stack([3 * rows.sin() * columns.sin(), 2 * rows.cos() * columns.sin()])[None]
        (voxelmorph.register(fixed, moving).displacement - target).square().mean().backward()
        optimiser.step()
    network.load_state_dict(voxelmorph.state_dict())
    with torch.no_grad():
        expected = voxelmorph.terms({"fixed": fixed, "moving": moving}, "network")["smoothness"]
        found = diffusion(network.regularised(network.deformation(fixed, moving)))
    assert expected > 1e-3
    torch.testing.assert_close(found, expected, rtol=0.2 if diffeomorphic else 1e-5, atol=0.0)


@pytest.mark.parametrize("ndim", list(DOMAINS))
@pytest.mark.parametrize("name", list(SEGMENTATION))
def test_segmentation_is_that_of_the_method(name: str, ndim: str, generator) -> None:
    choice, kind, values = SEGMENTATION[name]
    torch.manual_seed(0)
    network = segmentation_network(choice(**values), DOMAINS[ndim])
    torch.manual_seed(0)
    (own,) = (method := kind(kind.Settings(**values), DOMAINS[ndim])).networks_of("network")
    mine, theirs = network.state_dict(), own.state_dict()
    assert list(mine) == list(theirs)
    assert all(torch.equal(mine[key], theirs[key]) for key in mine)
    assert list(method.state_dict()) == [f"network.{key}" for key in mine]
    (image,) = images(ndim, generator, 1)
    results = network.logits(image)
    assert len(network.eval().logits(image)) == 1
    assert all(result.shape == (2, 3, *ODD[ndim]) for result in results)
    gradients = torch.autograd.grad(results[0].square().sum() + results[-1].sum(), [*network.parameters()][:1])
    assert all(gradient.any() for gradient in gradients)
    found = own(image)
    assert torch.equal(results[0], found[0] if isinstance(found, list) else found)


class Both(BaseModel):
    registration: RegistrationChoice = LapIRNNetworkSettings()
    segmentation: SegmentationChoice = DynUNetNetworkSettings()


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, Both()),
        ({"registration": {}}, Both()),
        ({"registration": {"attention": True}}, Both(registration=LapIRNNetworkSettings(attention=True))),
        ({"registration": {"kind": "voxelmorph"}}, Both(registration=VoxelMorphNetworkSettings())),
        (
            {"segmentation": {"kind": "unet", "channels": [4, 8]}},
            Both(segmentation=UNetNetworkSettings(channels=(4, 8))),
        ),
        ({"segmentation": {"features": 30}}, Both(segmentation=DynUNetNetworkSettings(features=30))),
    ],
)
def test_a_file_names_the_kind_or_means_the_usual_one(values: Any, expected: Both) -> None:
    found = Both.model_validate(values)
    assert found == expected
    assert Both.model_validate(found.model_dump(mode="json")) == found
    assert Both.model_validate_json(found.model_dump_json()) == found


@pytest.mark.parametrize(
    ("choice", "values", "said"),
    [
        (RegistrationChoice, {"kind": "unet"}, "a network of kind lapirn or voxelmorph"),
        (RegistrationChoice, {"kind": None}, "a network of kind lapirn or voxelmorph"),
        (RegistrationChoice, "lapirn", "a network of kind lapirn or voxelmorph"),
        (SegmentationChoice, {"kind": ["unet"]}, "a network of kind dynunet or unet"),
        (RegistrationChoice, {"encoder": [8, 8]}, "Extra inputs"),
        (RegistrationChoice, {"kind": "voxelmorph", "decoder": [8]}, "1 entries for the 4 scales"),
        (SegmentationChoice, {"squeeze_excitation": "mean"}, "'max' or 'add'"),
    ],
)
def test_networks_that_there_are_not(choice: Any, values: Any, said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        TypeAdapter(choice).validate_python(values)


def test_settings_of_the_methods_have_no_kind() -> None:
    for settings in (LapIRNSettings(), VoxelMorphSettings(), DynUNetSettings(), UNetSettings()):
        assert "kind" not in settings.model_dump()
