"""Methods that translate: their settings, ranges and refusals; what the players learn, and how they stand."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from anamorph.errors import ConfigurationError, InputError
from anamorph.methods.base import Deformation, Domain, Method
from anamorph.methods.both_ways import Side
from anamorph.methods.cocyclereg import CoCycleReg
from anamorph.methods.cycle_registration import moved
from anamorph.methods.cyclegan import CycleGAN, Pool
from anamorph.methods.nemar import NeMAR
from anamorph.methods.sepcyclereg import SepCycleReg
from anamorph.methods.translation import DISCRIMINATOR, GENERATOR, Translation, alternation, initialise
from anamorph.methods.vmind import VMIND
from anamorph.networks.translator import Translator
from anamorph.spatial.field import jacobian_determinant
from tests.methods.test_methods_contract import loss_of, overlap, parameters_of, scan, warp

SHAPE = (16, 16)
NETWORKS: dict[str, Any] = {
    "features": 2,
    "blocks": 1,
    "dropout": 0.0,
    "discriminator_features": 2,
    "discriminator_layers": 1,
}
UNET: dict[str, Any] = {"encoder": (8, 8), "decoder": (8, 8)}
REGISTERING = (CoCycleReg, SepCycleReg, NeMAR)


def made(kind: type[Method], modalities: tuple[str, ...] = ("t2", "t1"), **changed: Any) -> Any:
    torch.manual_seed(0)
    small = NETWORKS if issubclass(kind, Translation) else {}
    small = small if kind is CycleGAN else small | UNET
    settings: Any = kind.Settings.model_validate(small | changed)
    return kind(settings, Domain(SHAPE, (1.0, 1.0), modalities=modalities))


def pairs(count: int, shift: float = 0.0) -> dict[str, Tensor]:
    """Balls, each moved by up to ``shift`` voxels an axis, and dark in the moving images where the fixed are bright."""
    middles = 6 + 3 * torch.rand(count, 2)
    fixed, fixed_labels = scan(SHAPE, middles)
    moving, moving_labels = scan(SHAPE, middles + shift * (2 * torch.rand(count, 2) - 1))
    return {
        "fixed": fixed, "fixed_labels": fixed_labels, "moving": 1 - moving, "moving_labels": moving_labels,
    }  # fmt: skip


class Negative(nn.Module):
    """The very translator of ``pairs``: x -> -x, with one weight that does nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))

    def forward(self, image: Tensor) -> Tensor:
        return -image + 0 * self.weight


# -- what is chosen ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [*REGISTERING, CycleGAN, VMIND])
def test_all_are_trained_as_section_4_4_says(kind: type[Method]) -> None:
    schedule = kind.schedule
    assert (schedule.optimiser, schedule.learning_rate, schedule.betas) == ("adam", 1e-4, (0.5, 0.999))
    assert (schedule.epochs, schedule.batch_size, schedule.decay) == (800, 1, "constant")
    assert (schedule.weight_decay, schedule.clip_norm) == (1e-4, 20.0)


def test_the_paper_s_networks_and_weights_are_the_defaults() -> None:
    for kind in (CoCycleReg, SepCycleReg):
        settings: Any = kind.Settings()
        assert set(settings.weights.model_dump().values()) == {1.0}
        assert (settings.encoder, settings.decoder) == ((16, 32, 32, 32, 32), (32, 32, 32, 32, 16, 16))
        assert (settings.down, settings.diffeomorphic, settings.discriminated) == ("stride", False, "warped")
        assert (settings.features, settings.blocks, settings.dropout) == (64, 9, 0.5)
        assert (settings.discriminator_features, settings.discriminator_layers) == (64, 3)
        assert (settings.adversarial_loss, settings.initialisation) == ("least_squares", "kaiming")
    assert NeMAR.Settings().model_dump()["adversarial_loss"] == "vanilla"


@pytest.mark.parametrize("kind", [*REGISTERING, CycleGAN])
@pytest.mark.parametrize("changed", [{"intensities": (1.0, 1.0)}, {"weights": {"adversarial": 0.0}}, {"blocks": 0}])
def test_settings_that_make_no_sense_are_refused(kind: type[Method], changed: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"intensities|adversarial|blocks"):
        kind.Settings.model_validate(changed)


def test_the_checks_of_both_bases_hold() -> None:
    with pytest.raises(ValueError, match="decoder has 1 entries"):
        CoCycleReg.Settings.model_validate({"encoder": (2, 2, 2), "decoder": (2,)})


def test_one_modality_leaves_nothing_to_translate() -> None:
    with pytest.raises(ConfigurationError, match="E-MOD-026"):
        made(CoCycleReg, modalities=("t1",)).before_training([pairs(1)])
    made(VMIND, modalities=("t1",)).before_training([pairs(1)])


@pytest.mark.parametrize(("how", "variance"), [("kaiming", 2 / 18), ("torch", 1 / (3 * 18)), ("normal", 4e-4)])
def test_first_weights(how: Any, variance: float) -> None:
    torch.manual_seed(0)
    layer: Any = nn.Conv2d(2, 4000, 3)
    initialise(layer, how)
    assert layer.weight.var().item() == pytest.approx(variance, rel=0.05)
    assert bool(layer.bias.any()) == (how == "torch")


@pytest.mark.parametrize("kind", [CoCycleReg, NeMAR, VMIND])
def test_heads_begin_at_the_identity_whatever_the_first_weights(kind: type[Method]) -> None:
    method = made(kind)
    found = method.register(*torch.rand(2, 1, 1, *SHAPE))
    assert found.displacement.abs().max() < 1e-2
    for name, weights in method.named_parameters():
        if name.endswith("weight") and "registration.backbone" in name:
            fan_in = weights[0].numel()
            assert weights.std().item() == pytest.approx(math.sqrt(2 / fan_in), rel=0.3)


# -- images ------------------------------------------------------------------------------------------------------------


def test_intensities_are_brought_to_one_range_and_back() -> None:
    method = made(CycleGAN, intensities=(-3.0, 5.0))
    method.translators["fixed"] = nn.Identity()
    image = torch.tensor([-3.0, 1.0, 5.0]).view(1, 1, 3, 1)
    assert method.seen(image).flatten().tolist() == [-1, 0, 1]
    assert torch.equal(method.translate(image, "t1"), image)


@pytest.mark.parametrize("kind", [*REGISTERING, CycleGAN])
def test_images_beyond_the_range_are_refused_before_the_training(kind: type[Method]) -> None:
    method, batch = made(kind), pairs(2)
    method.before_training([batch, batch])
    strange = [batch, batch | {"moving": batch["moving"] * 1.5}]
    with pytest.raises(ConfigurationError, match=r"E-MOD-025.*images of 0\.\d+ to 1\.\d+.*expected 0 to 1"):
        method.before_training(strange)
    made(kind, intensities=(0.0, 1.5)).before_training(strange)


def test_each_translator_answers_for_its_modality() -> None:
    method, image = made(CoCycleReg), torch.rand(1, 1, *SHAPE)
    for modality, side in (("t1", "fixed"), ("t2", "moving")):
        expected = (method.translators[side](2 * image - 1) + 1) / 2
        torch.testing.assert_close(method.translate(image, modality), expected)
    with pytest.raises(ConfigurationError, match="E-MOD-010"):
        method.translate(image)
    with pytest.raises(InputError, match=r"E-MOD-005.*t1 or t2|E-MOD-005.*t2 or t1"):
        method.translate(image, "ct")


def test_nemar_translates_one_way() -> None:
    method, image = made(NeMAR), torch.rand(1, 1, *SHAPE)
    assert torch.equal(method.translate(image), method.translate(image, "t1"))
    with pytest.raises(InputError, match=r"E-MOD-005.*expected t1"):
        method.translate(image, "t2")


@pytest.mark.parametrize("kind", [CoCycleReg, SepCycleReg, VMIND])
def test_the_field_that_registers_is_the_first_of_both(kind: type[Method]) -> None:
    method, (fixed, moving) = made(kind), torch.rand(2, 1, 1, *SHAPE)
    assert torch.equal(method.register(fixed, moving).displacement, method.register_both(fixed, moving)[0].displacement)


# -- what is learnt ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "diffeomorphic"), [(CoCycleReg, False), (CoCycleReg, True), (SepCycleReg, False), (NeMAR, False)]
)
def test_with_a_perfect_translator_the_registration_is_learnt(kind: type[Method], diffeomorphic: bool) -> None:
    weights = {"similarity": 1.0, "adversarial": 1e-3, "smoothness": 0.01}
    method = made(kind, diffeomorphic=diffeomorphic, weights=weights)
    for side in method.translators:
        method.translators[side] = Negative()
    batch = pairs(4, shift=2.5)
    optimiser = torch.optim.Adam(parameters_of(method, GENERATOR), lr=1e-2)
    for _ in range(40):
        loss = loss_of(method, batch, GENERATOR)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    method.eval()
    sides = [("fixed", "moving"), ("moving", "fixed")]
    before = overlap(batch["moving_labels"], batch["fixed_labels"])
    with torch.no_grad():
        fields = (
            [method.register(batch["fixed"], batch["moving"])]
            if kind is NeMAR
            else method.register_both(batch["fixed"], batch["moving"])
        )
    for (to, source), field in zip(sides, fields, strict=False):
        found = warp(batch[f"{source}_labels"], field.displacement, "nearest")
        assert overlap(found, batch[f"{to}_labels"]) > before + 0.2
        assert (field.velocity is not None) == diffeomorphic
        if diffeomorphic:
            assert jacobian_determinant(field.displacement).min() > 0


def test_of_aligned_pairs_translation_is_learnt_and_the_discriminators_take_part() -> None:
    method, batch = made(CycleGAN, features=4, weights={"adversarial": 0.5, "cycle": 1.0, "identity": 0.0}), pairs(4)
    optimisers = {player: torch.optim.Adam(parameters_of(method, player), lr=5e-3) for player in method.players}
    first: dict[str, float] = {}
    for _ in range(20):
        for player, optimiser in optimisers.items():
            loss = loss_of(method, batch, player)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            first.setdefault(player, loss.item())
    assert loss_of(method, batch, GENERATOR).item() < 0.8 * first[GENERATOR]
    assert loss_of(method, batch, DISCRIMINATOR).item() < first[DISCRIMINATOR]


def test_the_generator_s_gradient_passes_through_discriminators_that_are_held() -> None:
    method, batch = made(CoCycleReg), pairs(2)
    method.terms(batch, GENERATOR)["adversarial"].backward()
    assert all(weights.grad is None for weights in method.discriminators.parameters())
    assert method.translators["fixed"].last.weight.grad.any()
    assert method.registration.onto_fixed.weight.grad.any()


def test_an_unwarped_fake_teaches_the_registration_nothing() -> None:
    method, batch = made(CoCycleReg, discriminated="unwarped"), pairs(2)
    method.terms(batch, GENERATOR)["adversarial"].backward()
    assert method.translators["fixed"].last.weight.grad.any()
    assert method.registration.onto_fixed.weight.grad is None


def test_the_discriminators_learn_without_the_others() -> None:
    method, batch = made(NeMAR), pairs(2)
    loss_of(method, batch, DISCRIMINATOR).backward()
    assert all(weights.grad is not None for weights in method.discriminators.parameters())
    assert all(weights.grad is None for weights in method.translators.parameters())


def test_the_separate_cycle_asks_of_noise_to_stay_where_it_is() -> None:
    method, shift = made(SepCycleReg), torch.tensor([0.5, 0.0]).view(1, 2, 1, 1)
    method.translators["fixed"] = method.translators["moving"] = Negative()

    signs: dict[Side, float] = {"fixed": 1.0, "moving": -1.0}

    def cycle(image: Tensor, share: float) -> float:
        """Of two images that are each other's negatives, and two maps that are each other's inverse."""
        fields: dict[Side, Deformation] = {
            side: Deformation(sign * share * shift.expand(1, 2, *SHAPE)) for side, sign in signs.items()
        }
        images: dict[Side, Tensor] = {"fixed": image, "moving": -image}
        return float(method.cycle({}, images, moved(method.translated(images), fields), fields).detach())

    noise = torch.randn(1, 1, *SHAPE)
    smooth = torch.linspace(-1, 1, SHAPE[0]).view(1, 1, -1, 1).expand(1, 1, *SHAPE)
    assert cycle(noise, 0.0) == pytest.approx(0, abs=1e-6)
    assert cycle(noise, 1.0) > 0.5
    assert cycle(smooth, 1.0) < 0.05


# -- how the players stand ---------------------------------------------------------------------------------------------


class Judge(nn.Module):
    """Answers with the mean of what it sees."""

    def forward(self, image: Tensor) -> Tensor:
        return image.mean((2, 3), keepdim=True)


def test_health_of_players_that_are_known() -> None:
    method, batch = made(CycleGAN), pairs(2)
    for side in ("fixed", "moving"):
        method.translators[side], method.discriminators[side] = nn.Identity(), Judge()
    method.translators["moving"] = Negative()
    images = {side: 2 * batch[side] - 1 for side in ("fixed", "moving")}
    found = method.health(batch)
    assert found["fixed_answer_real"] == pytest.approx(images["fixed"].mean().item())
    assert found["fixed_answer_fake"] == pytest.approx(images["moving"].mean().item())
    assert found["fixed_change"] == 0  # it copies
    assert found["moving_change"] == pytest.approx(2 * images["fixed"].abs().mean().item())
    assert found["moving_contrast"] == pytest.approx((images["fixed"].std() / images["moving"].std()).item())
    ratio = alternation(images["fixed"]) / alternation(images["moving"])
    assert found["moving_alternation"] == pytest.approx(ratio.item())


@pytest.mark.parametrize("ndim", [2, 3])
def test_alternation_is_the_amplitude_of_a_chequered_pattern(ndim: int) -> None:
    sign = 1 - 2 * (torch.stack(torch.meshgrid(*[torch.arange(6)] * ndim, indexing="ij")).sum(0) % 2)
    ramp = torch.arange(6.0).expand(6, *[6] * (ndim - 1))
    assert alternation((0.3 * sign)[None, None]) == pytest.approx(0.3)
    assert alternation((0.3 * sign + ramp)[None, None]) == pytest.approx(0.3)
    assert alternation(ramp[None, None]) == pytest.approx(0, abs=1e-6)


def test_a_translator_that_collapsed_shows() -> None:
    method = made(CoCycleReg)
    nn.init.zeros_(method.translators["fixed"].last.weight)
    found = method.health(pairs(2))
    assert found["fixed_contrast"] == pytest.approx(0, abs=1e-6)
    assert found["moving_contrast"] > 0.1


# -- the pool ----------------------------------------------------------------------------------------------------------


def test_a_pool_gives_back_what_it_is_given_until_it_is_full() -> None:
    pool, images = Pool(3, (1, 2, 2)), torch.arange(4.0).view(4, 1, 1, 1).expand(4, 1, 2, 2)
    assert torch.equal(pool(images[:3]), images[:3])
    assert torch.equal(pool.images, images[:3])


def test_a_full_pool_gives_half_of_its_answers_from_before() -> None:
    torch.manual_seed(0)
    pool = Pool(5, (1, 1, 1))
    pool(torch.zeros(5, 1, 1, 1))
    shown = torch.cat([pool(torch.full((1, 1, 1, 1), float(number))) for number in range(1, 401)]).flatten()
    older = shown < torch.arange(1, 401)
    assert 160 < int(older.sum()) < 240
    assert len(set(shown[shown > 0].tolist())) == int((shown > 0).sum())  # what came out is gone
    assert pool.images.min() > 0


def test_only_training_fills_the_pool_and_a_checkpoint_keeps_it() -> None:
    method, batch = made(CycleGAN, pool=4), pairs(2)
    method.eval()
    method.terms(batch, DISCRIMINATOR)
    assert int(method.pools["fixed"].held) == 0
    method.train()
    method.terms(batch, DISCRIMINATOR)
    assert int(method.pools["fixed"].held) == 2
    other = made(CycleGAN, pool=4)
    other.load_state_dict(method.state_dict())
    assert torch.equal(other.pools["moving"].images, method.pools["moving"].images)
    assert other.pools["moving"].images[:2].any()


def test_translators_of_two_modalities_are_two() -> None:
    method = made(CycleGAN)
    assert isinstance(method.translators["fixed"], Translator)
    assert not torch.equal(method.translators["fixed"].last.weight, method.translators["moving"].last.weight)
