"""BiRegNet: its settings, which way each field goes, and who learns from it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from pydantic import ValidationError
from torch import nn

from anamorph.errors import ConfigurationError, InputError
from anamorph.methods.base import Domain
from anamorph.methods.biregnet import BiRegNet, BiRegNetSettings
from anamorph.methods.local_net import LocalNetRegistrationArchitecture, local_net_registration
from anamorph.training.configuration import configure
from anamorph.training.task import Task
from tests.methods.test_methods_contract import batch_of, item_of, loss_of
from tests.training.tiny import prepared_cohort

DOMAIN = Domain((16, 24), (1.0, 1.0), classes=2, modalities=("ct", "mr"))
PAGE = Path(__file__).parents[2] / "docs" / "methods" / "cross_modality_mas.md"


def small(domain: Domain = DOMAIN, **settings: Any) -> BiRegNet:
    torch.manual_seed(0)
    return BiRegNet(BiRegNetSettings.model_validate({"channels": 2, "scales": 3, **settings}), domain)


def moved(method: BiRegNet, number: int, by: tuple[float, ...]) -> None:
    """Let a set of heads say one displacement everywhere."""
    with torch.no_grad():
        method.backbone.heads[number][0].bias.copy_(torch.tensor(by))  # pyright: ignore


def test_the_first_field_brings_moving_onto_fixed_and_the_second_fixed_onto_moving() -> None:
    """The moving balls lie farther by (1.5, -1.5)."""
    batch = batch_of("pairs", DOMAIN.shape, torch.device("cpu"))
    method = small(sigmas=(0,), weights={"consistency": 1.0})
    losses = {}
    for name, forth, back in (("right", 1.5, -1.5), ("half", 1.5, 1.5), ("wrong", -1.5, 1.5)):
        moved(method, 0, (forth, -forth))
        moved(method, 1, (back, -back))
        losses[name] = {term: value.item() for term, value in method.terms(batch, "network").items()}
    assert losses["right"]["overlap"] < 0.5 * losses["half"]["overlap"]
    assert losses["half"]["overlap"] < 0.7 * losses["wrong"]["overlap"]
    assert losses["right"]["consistency"] < 0.1 * losses["half"]["consistency"]
    assert losses["wrong"]["consistency"] < 0.1 * losses["half"]["consistency"]


def test_terms_that_the_settings_have() -> None:
    assert dict(small().weights_of("network")) == {"overlap": 1.0, "consistency": 0.1}
    assert dict(small(direction="single").weights_of("network")) == {"overlap": 1.0}
    bent = small(direction="single", weights={"bending": 0.2})
    assert dict(bent.weights_of("network")) == {"overlap": 1.0, "bending": 0.2}
    assert len(small(direction="single").backbone.heads) == 1


def test_what_is_left_open_is_spelled_out() -> None:
    assert BiRegNetSettings().consistency == "image"
    assert BiRegNetSettings(direction="single").consistency == "none"


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"direction": "single", "consistency": "image"}, "nothing comes back of a single direction"),
        ({"weights": {"overlap": 0, "consistency": 0}}, "at least one weight"),
        ({"consistency": "none", "weights": {"overlap": 0}}, "at least one weight"),
        ({"sigmas": ()}, "at least 1"),
        ({"scales": 1}, "greater than or equal to 2"),
    ],
)
def test_m10_settings_that_do_not_fit(settings: dict[str, Any], line: str) -> None:
    with pytest.raises(ValidationError, match=line):
        BiRegNetSettings.model_validate(settings)


def test_its_weights_are_those_of_the_network_that_registers() -> None:
    """So that a SimNet takes them as they are."""
    method = small(velocity=True)
    network = local_net_registration(LocalNetRegistrationArchitecture(channels=2, scales=3, velocity=True), DOMAIN)
    assert [*network.state_dict()] == [*method.state_dict()]
    for parameter in method.parameters():
        nn.init.normal_(parameter, std=0.2)
    network.load_state_dict(method.state_dict())
    images = torch.rand(2, 2, 1, *DOMAIN.shape).unbind()
    one, other = method.eval().register(*images), network.eval().deformation(*images)
    assert torch.equal(one.displacement, other.displacement)


def test_normalised_by_itself_an_item_does_not_know_of_others() -> None:
    batch, method = batch_of("pairs", DOMAIN.shape, torch.device("cpu")), small(normalisation="instance")
    moved(method, 0, (0.5, 0.5))
    together = loss_of(method, batch, "network")
    apart = [loss_of(method, item_of(batch, item), "network") for item in range(2)]
    torch.testing.assert_close(together, torch.stack(apart).mean())


def test_a_plan_without_labels_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"^E-MOD-020"):
        small(Domain((16, 16), (1.0, 1.0)))


@pytest.mark.parametrize("method", ["biregnet", "simnet", "patch-simnet"])
def test_labels_on_both_sides_are_needed(method: str, tmp_path: Path) -> None:
    cohort = prepared_cohort(tmp_path / "one", 2, 0, unlabelled=("c1",), listed=[(0, 3)])
    with pytest.raises(InputError, match=r"^E-TRN-003: one: none of 1 training pairs has labels on both sides"):
        Task.of(cohort, configure(method, {}))
    bare = prepared_cohort(tmp_path / "bare", 2, 0, unlabelled=("c0", "c1"))
    with pytest.raises(InputError, match=r"^E-TRN-003: bare: none of 4 training pairs has labels, "):
        Task.of(bare, configure(method, {}))


def test_of_a_share_of_labels_only_pairs_that_show_both_are_learnt(tmp_path: Path) -> None:
    cohort = prepared_cohort(tmp_path / "six", 6, 0)
    task = Task.of(cohort, configure("biregnet", {"pairs": {"rule": "within"}, "labelled": {"share": 0.5}}))
    assert (len(task.training), task.training.labelled.all()) == (6, True)


def test_the_settings_of_2020_on_the_page_are_settings() -> None:
    blocks = [block.partition("```")[0] for block in PAGE.read_text().split("```yaml")[1:]]
    found = [
        configure("biregnet", values) for block in blocks if (values := yaml.safe_load(block))["method"] == "biregnet"
    ]
    (configuration,) = found
    assert isinstance(configuration.settings, BiRegNetSettings)
    assert configuration.settings.consistency == "label"
    assert configuration.schedule.learning_rate == 1e-5
