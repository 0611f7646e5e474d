"""macJNet: the paper's numbers, who learns from what, whose networks fit in, and what is refused."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from pydantic import ValidationError
from torch import Tensor

from anamorph.errors import ConfigurationError, InputError
from anamorph.methods import METHODS
from anamorph.methods.base import Domain, Method
from anamorph.methods.macjnet import MacJNet, MacJNetSettings
from tests.methods.test_methods_contract import batch_of, overlap, parameters_of, trained

ROOT = Path(__file__).parents[2]
SHAPE = (16, 24)
DOMAIN = Domain(SHAPE, (1.0, 1.0), classes=2, modalities=("ct", "mr"))
SMALL: dict[str, Any] = {
    "registration": {"kind": "voxelmorph", "encoder": (4, 4), "decoder": (4, 4, 4)},
    "segmentation": {"kind": "unet", "channels": (4, 8)},
    "similarity": "mse",
}
BOTH, ONE, OTHER, NONE = (True, True), (True, False), (False, True), (False, False)


def small(domain: Domain = DOMAIN, **values: Any) -> MacJNet:
    torch.manual_seed(0)
    return MacJNet(MacJNetSettings.model_validate(SMALL | values), domain)


def pair(device: torch.device, *labelled: tuple[bool, bool]) -> dict[str, Tensor]:
    """Pairs with labels on the fixed and the moving side, or without."""
    batch = batch_of("pairs", SHAPE, device)
    batch = {name: tensor[: len(labelled)] for name, tensor in batch.items()}
    for place, side in enumerate(("fixed", "moving")):
        known = torch.tensor([flags[place] for flags in labelled], device=device)
        batch[f"{side}_labelled"] = known
        batch[f"{side}_labels"] = batch[f"{side}_labels"] * known.view(-1, 1, 1, 1)
    return batch


def values_of(method: MacJNet, batch: dict[str, Tensor], player: str) -> dict[str, float]:
    return {name: term.item() for name, term in method.terms(batch, player).items()}


# -- the paper's numbers -----------------------------------------------------------------------------------------------


def test_the_papers_numbers_are_the_defaults() -> None:
    settings, schedule = MacJNetSettings(), MacJNet.schedule
    assert settings.weights.model_dump() == {
        "similarity": 20.0, "overlap": 2.0, "smoothness": 0.5, "supervised": 1.0, "consistency": 1.0
    }  # fmt: skip
    assert (settings.similarity, settings.alphas, settings.distance, settings.patch_size) == (
        "macmind",
        (0.7, 0.3),
        2,
        5,
    )
    assert not settings.concatenated
    assert (settings.registration.kind, settings.segmentation.kind) == ("lapirn", "dynunet")
    assert (schedule.epochs, schedule.batch_size, schedule.optimiser) == (200, 1, "adam")
    assert schedule.learning_rates == {"registration": 2e-5, "segmentation": 1e-5}


def test_gates_and_excitation_stay_unless_they_are_switched_off() -> None:
    def chosen(**values: Any) -> tuple[Any, Any]:
        found = MacJNetSettings.model_validate(values)
        dumped = found.registration.model_dump(), found.segmentation.model_dump()
        return dumped[0].get("attention"), dumped[1].get("squeeze_excitation")

    assert chosen() == chosen(registration={"channels": 3}, segmentation={"features": 8}) == (True, "max")
    assert chosen(registration={"attention": False}, segmentation={"squeeze_excitation": None}) == (False, None)
    assert chosen(segmentation={"squeeze_excitation": "add"}) == (True, "add")
    assert chosen(**SMALL) == (None, None)


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ({"weights": {"similarity": 0, "overlap": 0, "smoothness": 0}}, r"smoothness \(registration\)"),
        ({"weights": {"supervised": 0, "consistency": 0}}, r"consistency \(segmentation\)"),
        ({"alphas": []}, "alphas"),
        ({"alphas": [0.0, 0.0]}, "at least one of alphas"),
        ({"registration": {"kind": "unet"}}, "a network of kind lapirn or voxelmorph"),
        ({"segmentation": {"kind": "unet", "features": 3}}, "features"),
    ],
)
def test_settings_that_make_no_sense(values: dict[str, Any], found: str) -> None:
    with pytest.raises(ValidationError, match=found):
        MacJNetSettings.model_validate(values)


def test_what_is_said_of_macmind_reaches_it(device) -> None:
    def similarity(**values: Any) -> float:
        method = small(**{"similarity": "macmind", **values}).to(device)
        return values_of(method, pair(device, BOTH), "registration")["similarity"]

    usual = similarity()
    for values in (
        {"alphas": (0.3, 0.7)},
        {"alphas": (1.0,)},
        {"concatenated": True},
        {"distance": 1},
        {"patch_size": 3},
    ):
        assert similarity(**values) != pytest.approx(usual, rel=1e-3), values


@pytest.mark.parametrize("similarity", ["local_mi", "mind", "mind_ssc", "macmind"])
def test_the_similarities_of_the_papers_table_3(similarity: str, device) -> None:
    method = small(similarity=similarity).to(device)
    found = method.terms(pair(device, BOTH), "registration")["similarity"]
    assert found > 0
    assert torch.autograd.grad(found, parameters_of(method, "registration")[-1])[0].any()


# -- who learns from what ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("labelled", [BOTH, ONE, OTHER, NONE])
def test_each_turn_teaches_its_own_networks_whatever_is_labelled(labelled: tuple[bool, bool], device) -> None:
    method, batch = small().to(device), pair(device, labelled)
    trained(method, batch, 1, 1e-3)
    for player, other in (("registration", "segmentation"), ("segmentation", "registration")):
        method.zero_grad()
        torch.stack(list(method.terms(batch, player).values())).sum().backward()
        assert all(parameter.grad is not None and parameter.grad.any() for parameter in parameters_of(method, player))
        assert all(parameter.grad is None for parameter in parameters_of(method, other))


def test_a_pair_without_labels_on_both_sides_is_supervised_where_it_has_some(device) -> None:
    method = small().to(device)
    terms = {flags: values_of(method, pair(device, flags), "segmentation") for flags in (BOTH, ONE, OTHER, NONE)}
    supervised = {flags: found["supervised"] for flags, found in terms.items()}
    assert supervised[NONE] == 0
    assert supervised[ONE] > 0
    assert supervised[OTHER] > 0
    assert supervised[BOTH] == pytest.approx(supervised[ONE] + supervised[OTHER], rel=1e-5)
    assert terms[BOTH]["consistency"] == 0
    assert terms[ONE]["consistency"] == terms[OTHER]["consistency"] == terms[NONE]["consistency"] > 0


def test_predicted_labels_stand_in_for_manual_ones(device) -> None:
    """What the segmentation networks say of an unlabelled pair changes the registration's overlap, and nothing else."""
    method = small().to(device)
    before = {flags: values_of(method, pair(device, flags), "registration") for flags in (BOTH, NONE)}
    with torch.no_grad():
        for parameter in parameters_of(method, "segmentation"):
            parameter.mul_(1.5)
    after = {flags: values_of(method, pair(device, flags), "registration") for flags in (BOTH, NONE)}
    assert after[BOTH] == before[BOTH]
    assert after[NONE]["overlap"] != before[NONE]["overlap"]
    assert after[NONE]["similarity"] == before[NONE]["similarity"]


def test_no_segmentation_is_computed_where_no_term_needs_it(device) -> None:
    method = small(weights={"overlap": 0.0}).to(device)

    def refuse(*arguments: Any) -> None:
        raise AssertionError("a segmentation network was asked")

    for network in method.segmentation.values():
        network.register_forward_pre_hook(refuse)
    assert list(method.terms(pair(device, NONE), "registration")) == ["similarity", "smoothness"]


def test_one_labelled_pair_teaches_both_modalities(device) -> None:
    """The other pair, whose labels are hidden, is segmented as well."""
    method = small(segmentation={"features": 4}).to(device)
    trained(method, pair(device, BOTH, NONE), 40)
    batch = pair(device, BOTH, BOTH)
    for side, modality in (("fixed", "ct"), ("moving", "mr")):
        found = method.segment(batch[side], modality).argmax(1, keepdim=True)
        assert overlap(found[:1], batch[f"{side}_labels"][:1]) > 0.75
        assert overlap(found[1:], batch[f"{side}_labels"][1:]) > 0.65


# -- networks and modalities -------------------------------------------------------------------------------------------


def test_networks_are_those_of_the_methods_that_train_them_beforehand() -> None:
    """So that weights go over from ``lapirn`` and ``dynunet``, or from ``voxelmorph`` and ``unet``."""
    papers = MacJNet(
        MacJNetSettings.model_validate({"registration": {"channels": 1}, "segmentation": {"features": 2}}), DOMAIN
    )
    settings: dict[str, dict[str, Any]] = {
        "lapirn": {"channels": 1, "attention": True},
        "dynunet": {"features": 2, "squeeze_excitation": "max"},
        "voxelmorph": {key: SMALL["registration"][key] for key in ("encoder", "decoder")},
        "unet": {"channels": SMALL["segmentation"]["channels"]},
    }
    alone: dict[str, Method] = {
        name: METHODS[name](METHODS[name].Settings.model_validate(values), DOMAIN) for name, values in settings.items()
    }
    papers.registration.load_state_dict(alone["lapirn"].network.state_dict())  # pyright: ignore
    small().registration.load_state_dict(alone["voxelmorph"].state_dict())
    for modality in ("ct", "mr"):
        papers.segmentation[modality].load_state_dict(alone["dynunet"].network.state_dict())  # pyright: ignore
        small().segmentation[modality].load_state_dict(alone["unet"].network.state_dict())  # pyright: ignore
    image = torch.rand(1, 1, *SHAPE)
    for method in (papers, alone["dynunet"]):
        method.eval()
    assert torch.equal(papers.segment(image, "ct"), alone["dynunet"].segment(image))
    moved = papers.register(image, image.flip(2)).displacement
    assert torch.equal(moved, alone["lapirn"].register(image, image.flip(2)).displacement)


def test_each_modality_has_its_own_network_and_others_are_refused(device) -> None:
    method = small().to(device).eval()
    image = torch.rand(1, 1, *SHAPE, device=device)
    assert not torch.equal(method.segment(image, "ct"), method.segment(image, "mr"))
    with pytest.raises(InputError, match=r"E-MOD-005: .*modality pd, expected ct or mr"):
        method.segment(image, "pd")
    with pytest.raises(ConfigurationError, match=r"E-MOD-010: .*expected ct, mr; name it with --modality"):
        method.segment(image)


@pytest.mark.parametrize("modalities", [("t1",), ("t1.5T", "t2"), ("ct", "mr", "pd")])
def test_the_first_two_modalities_count(modalities: tuple[str, ...]) -> None:
    method = small(Domain(SHAPE, (1.0, 1.0), classes=1, modalities=modalities))
    assert len(method.networks_of("segmentation")) == min(2, len(modalities))
    for modality in modalities[:2]:
        assert method.segment(torch.rand(1, 1, *SHAPE), modality).shape == (1, 2, *SHAPE)
    if len(modalities) == 1:
        assert method.segment(torch.rand(1, 1, *SHAPE)).shape == (1, 2, *SHAPE)
    if len(modalities) > 2:
        with pytest.raises(InputError, match="E-MOD-005"):
            method.segment(torch.rand(1, 1, *SHAPE), modalities[2])


def test_without_classes_there_is_nothing_to_join() -> None:
    with pytest.raises(ConfigurationError, match="E-MOD-020"):
        small(Domain(SHAPE, (1.0, 1.0), classes=0, modalities=("ct", "mr")))


def test_the_page_shows_any_networks_in_one_yaml(device) -> None:
    """``voxelmorph`` and ``unet`` in the frame, from the page's own words."""
    blocks = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs/methods/macjnet.md").read_text(), re.DOTALL)
    (values,) = (found for block in blocks if "voxelmorph" in str(found := yaml.safe_load(block)))
    settings = MacJNetSettings.model_validate(values["settings"])
    assert (settings.registration.kind, settings.segmentation.kind) == ("voxelmorph", "unet")
    method, batch = MacJNet(settings, DOMAIN).to(device), pair(device, ONE, NONE)
    for player in method.players:
        assert all(term.isfinite() for term in method.terms(batch, player).values())
