"""What every method promises, in 2-D and 3-D; a method that enters ``METHODS`` is held to it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from anamorph.losses import SIMILARITIES
from anamorph.methods import METHODS
from anamorph.methods.base import Domain, Method
from anamorph.methods.registration import Similarity
from anamorph.methods.similarity_estimation import SimilarityEstimator
from anamorph.spatial.field import exponential, warp

ROOT = Path(__file__).parents[2]
SHAPES = {"2d": (16, 24), "3d": (16, 8, 16)}
ODD = {"2d": (19, 13), "3d": (9, 11, 13)}

ADVERSARIES: dict[str, Any] = {
    "features": 4,
    "blocks": 1,
    "dropout": 0.0,
    "discriminator_features": 2,
    "discriminator_layers": 1,
}
TRANSLATING = ADVERSARIES | {"encoder": (8, 8), "decoder": (8, 8)}

SMALL: dict[str, dict[str, Any]] = {
    "voxelmorph": {"encoder": (8, 8), "decoder": (8, 8, 8), "similarity": "mse", "weights": {"smoothness": 0.01}},
    "lapirn": {"channels": 2, "similarity": "mse", "progressive": False, "weights": {"smoothness": 0.01}},
    "unet": {"channels": (8, 16), "loss": "dice_ce"},
    "dynunet": {"features": 4},
    "atlas-istn": {
        "channels": (8, 16),
        "stn_channels": (8, 8),
        "affine_from_epoch": 0,
        "weights": {"smoothness": 1.0},
        "refinement": {"iterations": 8, "smoothness": 1.0},
    },
    "macjnet": {
        "registration": {"channels": 2},
        "segmentation": {"features": 4},
        "similarity": "mse",
        "weights": {"smoothness": 0.01},
    },
    "biregnet": {"scales": 3, "sigmas": (0.0, 1.0)},
    "simnet": {"registration": None, "channels": 4, "scales": 3, "shift": 1},
    "patch-simnet": {"registration": None, "channels": (4, 8, 8), "patch_size": 3, "reach": 4, "alike": 0.7},
    "cocyclereg": TRANSLATING | {"weights": {"adversarial": 0.01, "smoothness": 0.01}},
    "sepcyclereg": TRANSLATING | {"weights": {"adversarial": 0.01, "smoothness": 0.01}},
    "nemar": TRANSLATING | {"weights": {"adversarial": 0.01, "similarity": 1.0, "smoothness": 0.01}},
    "cyclegan": ADVERSARIES | {"weights": {"adversarial": 0.01, "cycle": 1.0}},
    "vmind": {"encoder": (8, 8), "decoder": (8, 8), "similarity": "mse", "weights": {"smoothness": 0.01}},
}
"""Settings of a network that is small and learns fast."""

EVERY_TERM: dict[str, dict[str, float]] = {
    "voxelmorph": {"similarity": 1.0, "smoothness": 0.1, "overlap": 0.5},
    "lapirn": {"similarity": 1.0, "smoothness": 0.1, "folding": 1.0, "overlap": 0.5},
    "unet": {},
    "dynunet": {},
    "atlas-istn": {"smoothness": 1.0},
    "macjnet": {"similarity": 1.0, "overlap": 0.5, "smoothness": 0.1},
    "biregnet": {"overlap": 1.0, "consistency": 0.1, "bending": 0.1},
    "simnet": {"cross_entropy": 0.5},
    "patch-simnet": {"cross_entropy": 0.5},
    "cocyclereg": {"adversarial": 1.0, "similarity": 1.0, "cycle": 1.0, "smoothness": 0.1},
    "sepcyclereg": {"adversarial": 1.0, "similarity": 1.0, "cycle": 1.0, "smoothness": 0.1},
    "nemar": {"adversarial": 1.0, "similarity": 1.0, "smoothness": 0.1},
    "cyclegan": {"adversarial": 1.0, "cycle": 1.0, "identity": 0.5},
    "vmind": {"similarity": 1.0, "smoothness": 0.1},
}
"""Weights by which no term is left out."""

LEFT_OUT = {
    "voxelmorph": "smoothness",
    "lapirn": "smoothness",
    "unet": "dice",
    "dynunet": "dice",
    "atlas-istn": "smoothness",
    "macjnet": "smoothness",
    "biregnet": "consistency",
    "cocyclereg": "cycle",
    "sepcyclereg": "cycle",
    "nemar": "smoothness",
    "cyclegan": "identity",
    "vmind": "smoothness",
}
"""A term that the method can do without, where it has several."""


@pytest.fixture(params=list(METHODS))
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(params=list(SHAPES))
def ndim(request: pytest.FixtureRequest) -> str:
    return request.param


def made(name: str, shape: tuple[int, ...], seed: int = 0, **changed: Any) -> Method:
    """A small method whose weights are drawn from ``seed``; ``changed`` settings take the place of the small ones.

    As a training that begins, it has been told of its cases.
    """
    torch.manual_seed(seed)
    domain = Domain(shape, (1.0,) * len(shape), classes=2, modalities=("ct", "mr"))
    method = METHODS[name](METHODS[name].Settings.model_validate(SMALL[name] | changed), domain)
    method.before_training([batch_of(method.items, shape, torch.device("cpu"))])
    return method


def with_every_term(name: str, shape: tuple[int, ...], device: torch.device, seed: int = 0) -> Method:
    return made(name, shape, seed, weights=EVERY_TERM[name]).to(device)


def scan(shape: tuple[int, ...], middles: Tensor) -> tuple[Tensor, Tensor]:
    """Soft balls with a bright core about the middles (items d): images, and their labels 1 and 2."""
    axes = torch.meshgrid(*(torch.arange(float(n)) for n in shape), indexing="ij")
    away = torch.stack(axes)[None] - middles.view(len(middles), -1, *[1] * len(shape))
    distance = away.square().sum(1, keepdim=True).sqrt()
    radius = min(shape) / 2.8
    image = torch.sigmoid(radius - distance) * (0.5 + 0.5 * torch.sigmoid(2 * (radius / 2 - distance)))
    return image, (distance < radius).long() + (distance < radius / 2)


def batch_of(items: str, shape: tuple[int, ...], device: torch.device, masks: bool = False) -> dict[str, Tensor]:
    """Two different pairs, or cases, all labelled."""
    middles = torch.stack(
        [torch.tensor([n / 2 + (-1) ** (axis + item) for axis, n in enumerate(shape)]) for item in (0, 1)]
    )
    shift = torch.tensor([(-1.0) ** axis * 1.5 for axis in range(len(shape))])
    found: dict[str, Tensor] = {"index": torch.arange(2)}
    for key, where in (("fixed", middles), ("moving", middles + shift)) if items == "pairs" else (("", middles),):
        image, labels = scan(shape, where)
        prefix = f"{key}_" if key else ""
        found |= {key or "image": image, f"{prefix}labels": labels, f"{prefix}labelled": torch.ones(2).bool()}
        if masks:
            mask = torch.ones_like(image)
            mask[:, :, : shape[0] // 2] = 0
            found[f"{prefix}mask"] = mask
    return {key: value.to(device) for key, value in found.items()}


def item_of(batch: dict[str, Tensor], item: int) -> dict[str, Tensor]:
    return {key: value[item : item + 1] for key, value in batch.items()}


def loss_of(method: Method, batch: dict[str, Tensor], player: str) -> Tensor:
    terms, weights = method.terms(batch, player), method.weights_of(player)
    return torch.stack([weights[term] * value for term, value in terms.items()]).sum()


def leading(method: Method) -> str:
    """The player whose terms the weights are about: the first, or the generator where it is judged before."""
    return "generator" if "generator" in method.players else method.players[0]


def parameters_of(method: Method, player: str) -> list[nn.Parameter]:
    return [parameter for network in method.networks_of(player) for parameter in network.parameters()]


def gradients(method: Method, batch: dict[str, Tensor], player: str) -> list[Tensor]:
    return list(torch.autograd.grad(loss_of(method, batch, player), parameters_of(method, player)))


def trained(method: Method, batch: dict[str, Tensor], steps: int, rate: float = 1e-2) -> list[float]:
    """The leading player's losses over some steps of Adam for every player."""
    optimisers = {player: torch.optim.Adam(parameters_of(method, player), lr=rate) for player in method.players}
    history = []
    for step in range(steps):
        method.begin_step(step, steps)
        for player in method.players:
            loss = loss_of(method, batch, player)
            optimisers[player].zero_grad()
            loss.backward()
            optimisers[player].step()
            if player == leading(method):
                history.append(loss.item())
    return history


def results(method: Method, batch: dict[str, Tensor]) -> list[Tensor]:
    """Everything that the trained method can do."""
    method.eval()
    found = []
    with torch.no_grad():
        if "register" in method.tasks:
            found.append(method.register(batch["fixed"], batch["moving"]).displacement)
        if "segment" in method.tasks:
            image = batch["image"] if method.items == "cases" else batch["fixed"]
            found.append(method.segment(image, method.domain.modalities[0]))
        if "translate" in method.tasks:
            found.append(method.translate(batch["moving"], method.domain.modalities[1]))
        if isinstance(method, SimilarityEstimator):
            found.append(method.similarity(batch["fixed"], batch["moving_labels"], batch["moving"]))
    assert found
    method.train()
    return found


def overlap(one: Tensor, other: Tensor) -> float:
    """Dice of two label maps, mean over the two labels."""
    both = [
        ((one == label) & (other == label)).sum() / ((one == label).sum() + (other == label).sum()) for label in (1, 2)
    ]
    return 2 * torch.stack(both).mean().item()


def told_apart(found: Tensor, agree: Tensor) -> float:
    """Of all pairs of a voxel where labels agree and one where they do not, the share told apart by more than 0.05."""
    return (found[agree][:, None] - found[~agree][None] > 0.05).float().mean().item()


def score(method: Method, batch: dict[str, Tensor]) -> float:
    """Of the first thing that it can do."""
    found = results(method, batch)[0]
    if isinstance(method, SimilarityEstimator):
        return told_apart(found, batch["moving_labels"] == batch["fixed_labels"])
    if "register" in method.tasks:
        return overlap(warp(batch["moving_labels"], found, "nearest"), batch["fixed_labels"])
    return overlap(found.argmax(1, keepdim=True), batch["labels"])


# -- terms and weights -------------------------------------------------------------------------------------------------


def test_terms_and_weights_have_the_same_names_and_every_term_is_a_number_with_a_gradient(name, ndim, device) -> None:
    method = with_every_term(name, SHAPES[ndim], device)
    batch = batch_of(method.items, SHAPES[ndim], device)
    for player in method.players:
        terms = method.terms(batch, player)
        assert list(terms) == list(method.weights_of(player))
        for term in terms.values():
            assert term.shape == ()
            assert term.isfinite()
            assert term.requires_grad
    assert all(set(EVERY_TERM[name]) <= set(method.weights_of(player)) for player in [leading(method)])


@pytest.mark.parametrize("name", list(LEFT_OUT))
def test_a_term_whose_weight_is_zero_is_left_out(name, device) -> None:
    player = leading(made(name, SHAPES["2d"]))
    names = list(made(name, SHAPES["2d"]).weights_of(player))
    names.remove(LEFT_OUT[name])
    method = made(name, SHAPES["2d"], weights={LEFT_OUT[name]: 0.0}).to(device)
    assert list(method.weights_of(player)) == names
    assert list(method.terms(batch_of(method.items, SHAPES["2d"], device), player)) == names


def test_gradients_reach_the_networks_of_the_player_and_no_others(name, ndim, device) -> None:
    """After a step, since what a head that begins with zeros is made of has no gradient before."""
    method = with_every_term(name, SHAPES[ndim], device)
    batch = batch_of(method.items, SHAPES[ndim], device)
    trained(method, batch, 1, 1e-3)
    for player in method.players:
        method.zero_grad()
        loss_of(method, batch, player).backward()
        own = {id(parameter) for parameter in parameters_of(method, player)}
        assert own
        for label, parameter in method.named_parameters():
            if id(parameter) in own:
                assert parameter.grad is not None, label
                assert parameter.grad.isfinite().all(), label
                assert parameter.grad.any(), label
            else:
                assert parameter.grad is None or not parameter.grad.any(), label


def test_the_loss_is_a_mean_over_the_batch(name, ndim, device) -> None:
    method = with_every_term(name, SHAPES[ndim], device)
    if any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in method.modules()):
        pytest.skip("batch normalisation makes one item depend on the others")
    batch = batch_of(method.items, SHAPES[ndim], device)
    for player in method.players:
        together = gradients(method, batch, player)
        apart = [gradients(method, item_of(batch, item), player) for item in range(2)]
        largest = max(gradient.abs().max().item() for gradient in together)
        for found, *items in zip(together, *apart, strict=True):
            torch.testing.assert_close(found, torch.stack(items).mean(0), rtol=2e-3, atol=2e-4 * largest)


def test_it_works_at_any_size(name, ndim, device) -> None:
    method = with_every_term(name, ODD[ndim], device)
    batch = batch_of(method.items, ODD[ndim], device)
    for player in method.players:
        assert loss_of(method, batch, player).isfinite()
    for found in results(method, batch):
        assert found.shape[2:] == ODD[ndim]
        assert found.isfinite().all()


def test_what_is_not_labelled_teaches_nothing_by_its_labels(name, device) -> None:
    method = with_every_term(name, SHAPES["2d"], device)
    batch = batch_of(method.items, SHAPES["2d"], device)
    flags = [key for key in batch if key.endswith("labelled")]
    for known in ([True, False], [False, False]):
        batch |= {key: torch.tensor(known, device=device) for key in flags}
        other = dict(batch)
        for key in (key for key in batch if key.endswith("labels")):
            other[key] = batch[key].clone()
            other[key][~torch.tensor(known)] = 1
        for player in method.players:
            before, after = method.terms(batch, player), method.terms(other, player)
            for term, value in before.items():
                assert value.isfinite()
                assert value.requires_grad
                assert torch.equal(value, after[term]), term


def test_masks_count(name, ndim, device) -> None:
    """After a step: of a head of zeros every voxel says the same."""
    method = with_every_term(name, SHAPES[ndim], device)
    plain, masked = (batch_of(method.items, SHAPES[ndim], device, masks) for masks in (False, True))
    trained(method, plain, 1, 1e-3)
    differ = False
    for player in method.players:
        before, after = method.terms(plain, player), method.terms(masked, player)
        assert list(before) == list(after)
        assert all(term.isfinite() and term.requires_grad for term in after.values())
        differ |= any(not torch.equal(before[term], after[term]) for term in before)
    assert differ


# -- learning ----------------------------------------------------------------------------------------------------------


def test_a_phantom_is_learnt(name, device) -> None:
    method = made(name, SHAPES["2d"], seed=1).to(device)
    batch = batch_of(method.items, SHAPES["2d"], device)
    before = 0.0 if "translate" in method.tasks else score(method, batch)
    history = trained(method, batch, 80)
    assert history[-1] < 0.5 * history[0]
    if "translate" in method.tasks:
        return  # all pairs here are shifted alike, which a translator may learn in place of the registration
    after = score(method, batch)
    assert after > 0.75
    assert after > before + 0.2


def test_a_checkpoint_changes_nothing(name, ndim, device) -> None:
    shape = SHAPES[ndim]
    method, other = with_every_term(name, shape, device), with_every_term(name, shape, device, seed=1)
    batch = batch_of(method.items, shape, device)
    trained(method, batch, 2)
    expected = results(method, batch)
    assert any(not torch.equal(*pair) for pair in zip(results(other, batch), expected, strict=True))
    stored = save({key: value.cpu().contiguous() for key, value in method.state_dict().items()})
    other.load_state_dict(load(stored))
    assert all(torch.equal(*pair) for pair in zip(results(other, batch), expected, strict=True))


def test_a_seed_repeats_a_training(name, device) -> None:
    twice = []
    for _ in range(2):
        method = with_every_term(name, SHAPES["2d"], device)
        trained(method, batch_of(method.items, SHAPES["2d"], device), 3)
        twice.append(method.state_dict())
    for key, value in twice[0].items():
        if device.type == "cpu":
            assert torch.equal(value, twice[1][key]), key
        else:  # sums of gradients come in any order there
            torch.testing.assert_close(value, twice[1][key], rtol=1e-3, atol=1e-3)


def test_settings_survive_a_file(name) -> None:
    settings = made(name, SHAPES["2d"]).settings
    assert type(settings).model_validate_json(settings.model_dump_json()) == settings
    default = METHODS[name].Settings()
    assert METHODS[name].Settings.model_validate(default.model_dump(mode="json")) == default


# -- what was learnt ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in METHODS if "register" in METHODS[name].tasks])
def test_a_velocity_is_that_of_the_displacement(name, ndim, device) -> None:
    method = made(name, SHAPES[ndim]).to(device)
    batch = batch_of(method.items, SHAPES[ndim], device)
    trained(method, batch, 5)
    found = method.register(batch["fixed"], batch["moving"])
    assert found.displacement.shape == (2, len(SHAPES[ndim]), *SHAPES[ndim])
    assert found.displacement.dtype == torch.float32
    assert found.displacement.abs().amax() > 0.1
    if found.velocity is not None:
        torch.testing.assert_close(found.displacement, exponential(found.velocity, found.squarings))


@pytest.mark.parametrize("name", [name for name in METHODS if "segment" in METHODS[name].tasks])
def test_probabilities_sum_to_one(name, ndim, device) -> None:
    method = made(name, SHAPES[ndim]).to(device)
    found = results(method, batch_of(method.items, SHAPES[ndim], device))[-1]
    assert found.shape == (2, 1 + 2, *SHAPES[ndim])
    assert found.dtype == torch.float32
    assert (found >= 0).all()
    torch.testing.assert_close(found.sum(1), torch.ones(2, *SHAPES[ndim], device=device))


@pytest.mark.parametrize("name", [name for name in METHODS if "translate" in METHODS[name].tasks])
def test_translated_images_stay_on_the_scale(name, ndim, device) -> None:
    method = made(name, SHAPES[ndim]).to(device)
    found = results(method, batch_of(method.items, SHAPES[ndim], device))[-1]
    assert found.shape == (2, 1, *SHAPES[ndim])
    assert found.dtype == torch.float32
    assert 0 <= found.min() <= found.max() <= 1


@pytest.mark.parametrize("similarity", get_args(Similarity))
@pytest.mark.parametrize("name", ["voxelmorph", "lapirn"])
def test_every_similarity_can_be_chosen(name, similarity, device) -> None:
    """With masks, on a small grid."""
    method = made(name, (16, 16), similarity=similarity).to(device)
    found = method.terms(batch_of("pairs", (16, 16), device, masks=True), "network")["similarity"]
    assert found.isfinite()
    assert found > 0
    assert torch.autograd.grad(found, parameters_of(method, "network")[-1])[0].any()


def test_the_similarities_are_those_of_the_losses() -> None:
    assert sorted(get_args(Similarity)) == sorted(SIMILARITIES)


def test_similarities_lie_between_none_and_full(name, ndim, device) -> None:
    method = made(name, SHAPES[ndim]).to(device)
    if not isinstance(method, SimilarityEstimator):
        pytest.skip("it estimates no similarity")
    batch = batch_of("pairs", SHAPES[ndim], device)
    trained(method, batch, 5)
    found = results(method, batch)[-1]
    assert found.shape == (2, 1, *SHAPES[ndim])
    assert found.dtype == torch.float32
    assert (found >= 0).all()
    assert (found <= 1).all()
    assert found.std() > 1e-3


# -- pages and imports -------------------------------------------------------------------------------------------------


def test_every_method_stands_on_a_page(name) -> None:
    assert any(f"`{name}`" in page.read_text() for page in (ROOT / "docs" / "methods").glob("*.md"))


@pytest.mark.parametrize("page", sorted((ROOT / "docs" / "methods").glob("*.md")), ids=lambda page: page.stem)
def test_the_lines_of_code_on_a_page_stand_in_the_source(page: Path) -> None:
    """Rows ``| (n) | what | `code` | `file` |`` quote a line of ``src/anamorph/file``."""
    for code, file in re.findall(r"^\| \(\d+\) \|.*\| `([^`]*)` \| `([^`]*\.py)` \|$", page.read_text(), re.MULTILINE):
        assert code in (ROOT / "src" / "anamorph" / file).read_text(), f"{page.name}: {code}"


def test_importing_the_methods_is_light() -> None:
    program = "import sys, anamorph.methods; print('monai' in sys.modules, 'pandas' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["False", "False"]
