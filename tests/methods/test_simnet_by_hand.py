"""Networks that estimate similarities: what is held, what is moved at random, what is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from anamorph.errors import ConfigurationError
from anamorph.methods.base import Domain
from anamorph.methods.patch_simnet import PatchSimNet, PatchSimNetSettings, patch_dice, shifted
from anamorph.methods.similarity_estimation import SimilarityEstimator
from anamorph.methods.simnet import SimNet, SimNetSettings, agreement
from tests.methods.test_methods_contract import batch_of, loss_of, trained

DOMAIN = Domain((16, 24), (1.0, 1.0), classes=2, modalities=("ct", "mr"))
REGISTRATION: dict[str, Any] = {"channels": 2, "scales": 3}
SMALL: dict[str, dict[str, Any]] = {
    "simnet": {"channels": 2, "scales": 3},
    "patch-simnet": {"channels": (2, 3, 4), "patch_size": 3, "reach": 3},
}


def small(name: str = "simnet", **settings: Any) -> SimilarityEstimator:
    torch.manual_seed(0)
    values = {"registration": REGISTRATION, **SMALL[name], **settings}
    if name == "simnet":
        return SimNet(SimNetSettings.model_validate(values), DOMAIN)
    return PatchSimNet(PatchSimNetSettings.model_validate(values), DOMAIN)


def registered(method: SimilarityEstimator, by: tuple[float, ...] = (1.5, -1.5)) -> SimilarityEstimator:
    """With a registration network that moves everything alike."""
    assert method.registration is not None
    with torch.no_grad():
        method.registration.backbone.heads[0][0].bias.copy_(torch.tensor(by))  # pyright: ignore
    return method


def pair() -> dict[str, Tensor]:
    return batch_of("pairs", DOMAIN.shape, torch.device("cpu"))


@pytest.mark.parametrize("name", list(SMALL))
def test_the_registration_is_held(name: str) -> None:
    """Weights, and what its normalisations remember, while the other network learns."""
    method = registered(small(name))
    assert method.registration is not None
    before = {key: tensor.clone() for key, tensor in method.registration.state_dict().items()}
    own = {key: tensor.clone() for key, tensor in method.similarity_network.state_dict().items()}
    trained(method.train(), pair(), 3)
    assert all(torch.equal(tensor, before[key]) for key, tensor in method.registration.state_dict().items())
    assert not method.registration.training
    assert method.similarity_network.training
    assert any(not torch.equal(tensor, own[key]) for key, tensor in method.similarity_network.state_dict().items())


@pytest.mark.parametrize("name", list(SMALL))
def test_it_learns_from_the_atlas_as_it_is_registered(name: str) -> None:
    """The same as without a network, of an atlas that was moved before."""
    batch = pair()
    inside = registered(small(name, shift=0) if name == "simnet" else small(name), (1.0, -1.0))
    outside = small(name, registration=None, **({"shift": 0} if name == "simnet" else {}))
    for parameter in inside.similarity_network.parameters():
        nn.init.normal_(parameter, std=0.2)
    outside.similarity_network.load_state_dict(inside.similarity_network.state_dict())
    moved = dict(batch)
    moved["moving_labels"] = shifted(batch["moving_labels"], [1, -1])
    moved["moving"] = torch.roll(batch["moving"], (-1, 1), (2, 3))
    assert loss_of(inside, batch, "network").item() == pytest.approx(
        loss_of(outside, moved, "network").item(), rel=1e-3
    )
    assert loss_of(inside, batch, "network") != loss_of(outside, batch, "network")


def test_labels_are_moved_in_training_alone_and_otherwise_in_every_step() -> None:
    method, batch = small(registration=None, shift=4), pair()
    nn.init.normal_(method.similarity_network.heads[0][0].weight)  # pyright: ignore
    losses = []
    for step in range(6):
        method.begin_step(step, 6)
        losses.append(loss_of(method, batch, "network").item())
        assert loss_of(method, batch, "network").item() == losses[-1]
    assert len(set(losses)) > 3
    method.eval()
    held = {loss_of(method, batch, "network").item() for step in range(4) if method.begin_step(step, 6) is None}
    assert len(held) == 1


def test_shifts_are_others_in_every_step_of_a_training_alone() -> None:
    method = small("patch-simnet", registration=None)
    assert isinstance(method, PatchSimNet)
    drawn = []
    for training in (True, False):
        method.train(training)
        for step in range(4):
            method.begin_step(step, 4)
            drawn.append(str(method._shifts()))
            assert method._shifts()[0] == [0, 0]
            assert all(abs(s) <= 3 for shift in method._shifts() for s in shift)
    assert len(set(drawn[:4])) == 4
    assert set(drawn[4:]) == {drawn[0]}


def test_agreement_is_a_share_of_the_voxels_inside() -> None:
    one = torch.tensor([[0, 1, 1], [0, 2, 1], [0, 0, 0]])[None, None]
    other = torch.tensor([[0, 1, 0], [0, 1, 1], [0, 0, 2]])[None, None]
    expected = [[3 / 4, 4 / 6, 2 / 4], [5 / 6, 6 / 9, 3 / 6], [3 / 4, 4 / 6, 2 / 4]]
    torch.testing.assert_close(agreement(one, other, 3)[0, 0], torch.tensor(expected))


def test_dice_of_patches() -> None:
    one = torch.tensor([[0, 0, 0, 0, 0, 1, 1, 2]])[None, None]
    other = torch.tensor([[0, 0, 0, 0, 0, 1, 2, 2]])[None, None]
    found = patch_dice(one, other, 2, 3)[0, 0, 0]
    at = [1, 1, 1, 1, 1, (2 / 3 + 0) / 2, (2 / 3 + 2 / 3) / 2, (0 + 2 / 3) / 2]
    torch.testing.assert_close(found, torch.tensor(at, dtype=torch.float32))


def test_what_comes_from_outside_is_nothing() -> None:
    values = torch.arange(1.0, 7.0).view(1, 1, 2, 3)
    assert shifted(values, [0, 1]).tolist() == [[[[2, 3, 0], [5, 6, 0]]]]
    assert shifted(values, [-1, -2]).tolist() == [[[[0, 0, 0], [0, 0, 1]]]]
    assert not shifted(values, [0, 3]).any()


@pytest.mark.parametrize("name", list(SMALL))
def test_a_registration_network_that_nobody_trained_is_refused(name: str) -> None:
    method = small(name)
    with pytest.raises(ConfigurationError, match=r"^E-MOD-022: .* --initial registration=MODEL, or give") as caught:
        method.before_training([])
    assert caught.value.exit_code == 2
    registered(method).before_training([])
    small(name, registration=None).before_training([])


@pytest.mark.parametrize("name", list(SMALL))
def test_it_registers_where_it_has_a_network_for_that(name: str) -> None:
    batch, method, bare = pair(), registered(small(name)), small(name, registration=None)
    found = method.eval().register(batch["fixed"], batch["moving"]).displacement
    torch.testing.assert_close(found, torch.tensor([1.5, -1.5]).view(1, 2, 1, 1).expand(2, 2, *DOMAIN.shape))
    assert (method.tasks, bare.tasks) == (("register",), ())
    with pytest.raises(ConfigurationError, match=r"^E-MOD-009"):
        bare.register(batch["fixed"], batch["moving"])


def test_patches_are_compared_by_images() -> None:
    method, batch = small("patch-simnet"), pair()
    assert method.looks_at_images
    with pytest.raises(ValueError, match="give the atlas's"):
        method.similarity(batch["fixed"], batch["moving_labels"])
    same = method.similarity(batch["fixed"], batch["moving_labels"], batch["fixed"])
    assert torch.equal(same, torch.ones_like(same))
    simnet = small("simnet").eval()
    assert not simnet.looks_at_images
    one = simnet.similarity(batch["fixed"], batch["moving_labels"])
    assert torch.equal(one, simnet.similarity(batch["fixed"], batch["moving_labels"], batch["moving"]))


def test_m10_a_plan_without_labels_and_settings_that_do_not_fit() -> None:
    with pytest.raises(ConfigurationError, match=r"^E-MOD-020"):
        SimNet(SimNetSettings(registration=None), Domain((8, 8), (1.0, 1.0)))
    for kind, values in (
        (SimNetSettings, {"patch_size": 4}),
        (SimNetSettings, {"weights": {"cross_entropy": 0}}),
        (SimNetSettings, {"registration": {"chanels": 4}}),
        (PatchSimNetSettings, {"alike": 1.0}),
        (PatchSimNetSettings, {"supports": 1}),
    ):
        with pytest.raises(ValidationError):
            kind.model_validate(values)
