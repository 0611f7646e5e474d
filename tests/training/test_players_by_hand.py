"""A step: whose parameters move, how far, and what is told of it."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn

from anamorph.methods.base import Domain
from anamorph.methods.schedule import Schedule
from anamorph.training.distributed import Processes
from anamorph.training.players import Players, weighted
from tests.training.tiny import AlignSettings, Duel, Steady

DOMAIN = Domain((6, 6), (1.0, 1.0))


@pytest.fixture
def batch(generator: torch.Generator) -> dict[str, Tensor]:
    return {name: torch.rand(4, 1, 6, 6, generator=generator) for name in ("fixed", "moving")}


def players_of(kind: type = Steady, **schedule: object) -> Players:
    torch.manual_seed(0)
    values = {"optimiser": "sgd", "learning_rate": 0.5, **schedule}
    return Players(kind(AlignSettings(), DOMAIN), Schedule.model_validate(values), Processes("cpu"))


def values_of(module: nn.Module) -> Tensor:
    return torch.cat([parameter.detach().flatten().clone() for parameter in module.parameters()])


def gradient_of(players: Players) -> Tensor:
    return torch.cat([p.grad.flatten() for p in players.parameters["network"] if p.grad is not None])


def test_a_turn_moves_the_players_own_networks_and_no_others(batch: dict[str, Tensor]) -> None:
    players = players_of(Duel, learning_rates={"critic": 0.0001})
    reached = {}

    def after(player: str) -> None:
        reached[player] = [name for name, p in players.method.named_parameters() if p.grad is not None]
        players.method.zero_grad()

    for player, optimiser in players.optimisers.items():
        optimiser.register_step_post_hook(lambda *_, player=player: after(player))
    players.step(batch, 1.0, 1.0)
    assert {name.partition(".")[0] for name in reached["critic"]} == {"critic"}
    assert {name.partition(".")[0] for name in reached["network"]} == {"network"}


def test_the_terms_are_told_by_player_and_name_without_their_weights(batch: dict[str, Tensor]) -> None:
    players = players_of(Duel)
    players.method.eval()  # without dropout
    expected = {f"critic.{name}": float(term.detach()) for name, term in players.method.terms(batch, "critic").items()}
    turns = players.step(batch, 1.0, 1.0, signals=(3.0, 0.0))
    assert list(turns.terms) == ["critic.tell", "network.similarity", "network.smoothness", "network.deceive"]
    assert turns.terms["critic.tell"] == pytest.approx(expected["critic.tell"])
    assert turns.finite
    assert turns.signals == (3.0, 0.0)


def test_plain_gradient_descent(batch: dict[str, Tensor]) -> None:
    players = players_of()
    before = values_of(players.method)
    players.step(batch, 1.0, 0.1)
    gradient = gradient_of(players)
    momentum = 1.99  # of the first step with Nesterov's momentum 0.99
    assert torch.allclose(values_of(players.method), before - 0.05 * momentum * gradient)


def test_the_parts_of_a_batch_weighed_by_their_share_are_the_batch(batch: dict[str, Tensor]) -> None:
    whole, parts = players_of(), []
    told = whole.step(batch, 1.0, 1.0).terms
    told_by_parts = []
    for part, share in ((slice(0, 3), 0.75), (slice(3, 4), 0.25)):
        players = players_of()
        told_by_parts.append(players.step({name: tensor[part] for name, tensor in batch.items()}, share, 1.0).terms)
        parts.append(gradient_of(players))
    assert torch.allclose(parts[0] + parts[1], gradient_of(whole), atol=1e-7)
    assert told_by_parts[0]["network.similarity"] + told_by_parts[1]["network.similarity"] == pytest.approx(
        told["network.similarity"]
    )


def test_a_process_without_items_changes_nothing_and_fails_at_nothing() -> None:
    for precision in ("float32", "float16"):
        players = players_of(precision=precision)
        before = values_of(players.method)
        turns = players.step(None, 0.0, 1.0)
        assert turns.finite
        assert torch.equal(values_of(players.method), before)


def test_frozen_parts_stay(batch: dict[str, Tensor]) -> None:
    players = players_of()
    players.method.network[0].requires_grad_(False)
    frozen = values_of(players.method.network[0])
    players.step(batch, 1.0, 1.0)
    assert torch.equal(values_of(players.method.network[0]), frozen)
    players.method.requires_grad_(False)
    assert players.step(batch, 1.0, 1.0).finite


def test_gradients_are_clipped_to_a_norm(batch: dict[str, Tensor]) -> None:
    free, clipped = players_of(), players_of(clip_norm=1e-3)
    for players in (free, clipped):
        players.step(batch, 1.0, 1.0)
    assert float(gradient_of(clipped).norm()) == pytest.approx(1e-3, rel=1e-3)
    ratio = gradient_of(clipped) / gradient_of(free)
    assert torch.allclose(ratio, ratio[0].expand_as(ratio), rtol=1e-3)


@pytest.mark.parametrize("spoilt", ["fixed", "network"])
def test_what_is_not_finite_is_told(batch: dict[str, Tensor], spoilt: str) -> None:
    players = players_of()
    if spoilt == "fixed":
        batch["fixed"][1, 0, 2, 2] = torch.nan
    else:
        with torch.no_grad():
            players.method.network[2].weight.fill_(3e38)
    assert not players.step(batch, 1.0, 1.0).finite


def test_float16_skips_a_step_that_overflows_and_goes_on_with_a_smaller_scale(batch: dict[str, Tensor]) -> None:
    players = players_of(precision="float16", learning_rate=1e-3)
    players.scaler.load_state_dict({**players.scaler.state_dict(), "scale": 2.0**60})
    before = values_of(players.method)
    assert not players.step(batch, 1.0, 1.0).finite
    assert torch.equal(values_of(players.method), before)
    assert players.scaler.get_scale() == 2.0**59
    players.scaler.load_state_dict({**players.scaler.state_dict(), "scale": 1024.0})
    assert players.step(batch, 1.0, 1.0).finite
    assert not torch.equal(values_of(players.method), before)


def test_bfloat16_is_near_float32(batch: dict[str, Tensor]) -> None:
    exact, near = (players_of(precision=precision) for precision in ("float32", "bfloat16"))
    told = [players.step(batch, 1.0, 1.0).terms["network.similarity"] for players in (exact, near)]
    assert told[0] == pytest.approx(told[1], rel=0.02)
    assert near.parameters["network"][0].dtype == torch.float32


def test_the_state_of_optimisers_and_scaler_goes_on(batch: dict[str, Tensor]) -> None:
    one, other = players_of(precision="float16"), players_of(precision="float16")
    one.step(batch, 1.0, 0.01)
    other.method.load_state_dict(one.method.state_dict())
    other.load_state(deepcopy(one.state()))
    for players in (one, other):
        players.step(batch, 1.0, 0.01)
    assert torch.equal(values_of(one.method), values_of(other.method))


def test_terms_and_weights_share_their_names() -> None:
    with pytest.raises(ValueError, match="share their names"):
        weighted({"a": torch.ones(())}, {"b": 1.0})
