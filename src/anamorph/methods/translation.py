"""What methods share that translate one modality into another: their networks, how these are judged, their images.

Two players take turns in a step. The discriminators learn from what is real and what is not, the generators held;
then everything else, translators and any registration network, learns with the discriminators held. Networks are named
after the side whose modality they are about: ``translators.fixed`` makes images like the fixed ones, which
``discriminators.fixed`` judges. Of one pair, x_s is the image of side s:

    discriminators    sum over s of  (loss(D_s(x_s), real) + loss(D_s(fake_s), fake)) / 2, times the adversarial weight
    adversarial       sum over s of  loss(D_s(fake_s), real)

with a loss of ``losses.adversarial``, a mean over patches and items. What a fake is, each method says.

Generators end in tanh: to the networks, and in every term, the prepared images are brought linearly from
``intensities`` to -1 to 1. A training whose images lie beyond is refused.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.func import functional_call

from anamorph.errors import ConfigurationError, InputError
from anamorph.losses.adversarial import ADVERSARIAL
from anamorph.losses.masks import Loss
from anamorph.methods.base import Batch, Domain, Method, MethodSettings, computed
from anamorph.methods.both_ways import OTHER, SIDES, Side
from anamorph.methods.registration import Count, Positive
from anamorph.methods.schedule import Schedule
from anamorph.networks.discriminator import PatchDiscriminator
from anamorph.networks.translator import Translator, Upsampling
from anamorph.types import ImageBatch

DISCRIMINATOR, GENERATOR = "discriminator", "generator"

SCHEDULE = Schedule(epochs=800, learning_rate=1e-4, betas=(0.5, 0.999), weight_decay=1e-4, clip_norm=20.0)
"""CoCycleReg's, for itself and all that it compares with; weight decay and clipping are the release's."""

TOLERANCE = 1e-3
"""Share of ``intensities`` by which images may lie beyond them."""

HEALTH = ("answer_real", "answer_fake", "change", "difference", "contrast", "alternation")
"""What ``health`` tells of each target."""
COLLAPSED, COPIED, PREVAILED, CHEQUERED = 0.1, 0.1, 0.9, 2.0
PATIENCE = 3
"""Validations in a row that tell a fault: translators that are about to learn, and discriminators that are ahead for a
while, are none."""
FAULTS: Mapping[str, Callable[[Mapping[str, float]], bool]] = {
    "collapsed": lambda of: of["contrast"] < COLLAPSED,
    "copied": lambda of: of["change"] < COPIED * of["difference"],
    "imbalanced": lambda of: of["answer_real"] - of["answer_fake"] > PREVAILED,
    "chequered": lambda of: of["alternation"] > CHEQUERED,
}
"""Fault -> whether what ``health`` tells of a target shows it."""

Images = Mapping[Side, ImageBatch]
Fakes = Mapping[Side, Sequence[ImageBatch]]
Shown = Float[Tensor, "batch judged *spatial"]
"""What a discriminator sees."""
Initialisation = Literal["kaiming", "torch", "normal"]


class TranslationSettings(MethodSettings):
    """Networks of methods that translate; defaults are CoCycleReg's."""

    intensities: tuple[float, float] = (0.0, 1.0)
    """Range of the prepared images, which is -1 to 1 to the networks. Windows and percentiles with clip give 0 to 1."""
    features: Count = 64
    """Of the translators at full resolution."""
    blocks: Count = 9
    """Residual blocks of the translators."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.5
    """Share of features that each of them leaves out in training."""
    kernel: Literal[3, 5, 7] = 7
    """Voxels an axis of the translators' first and last convolution."""
    upsampling: Upsampling = "transposed"
    """Of the translators. transposed: convolutions, as in the releases; they leave a chequered pattern, which fields
    can hide by moving images by half a voxel. resize: by the nearest voxel, then a convolution; ours."""
    discriminator_features: Count = 64
    """Of the first layer of the discriminators."""
    discriminator_layers: Count = 3
    """Layers of the discriminators that halve; with 3 an answer is about 70 voxels an axis."""
    adversarial_loss: Literal["least_squares", "vanilla"] = "least_squares"
    """Of the discriminators' answers."""
    initialisation: Initialisation = "kaiming"
    """First weights of all networks but field heads. kaiming: He's, Gaussian, by the fan in. torch: torch's own, with a
    sixth of that variance. normal: N(0, 0.02), as in the releases of CycleGAN and NeMAR."""

    @model_validator(mode="after")
    def _range(self) -> TranslationSettings:
        if self.intensities[0] >= self.intensities[1]:
            raise ValueError("intensities are a range, low below high")
        return self


class TranslationWeights(MethodSettings):
    """Base of ``weights`` of methods that translate."""

    adversarial: Positive = 1.0
    """Of the generators' fakes; above 0, or the discriminators would watch for nothing."""


class Translation(Method):
    """Base of methods that translate; see the module.

    Args:
        settings: as chosen, ``TranslationSettings`` among them.
        domain: two modalities, that of the fixed images first.

    Class attributes:
        targets: sides whose modality there is a translator to.
        fakes_each: names of what a discriminator is shown as fake.
        judged_images: how many images side by side a discriminator is shown.
    """

    items = "pairs"
    players = (DISCRIMINATOR, GENERATOR)
    tasks = ("translate",)
    schedule = SCHEDULE
    targets: ClassVar[tuple[Side, ...]] = SIDES
    fakes_each: ClassVar[tuple[str, ...]] = ("fake",)
    judged_images: ClassVar[int] = 1

    def __init__(self, settings: TranslationSettings, domain: Domain) -> None:
        super().__init__(settings, domain)
        self.translation = settings
        self.modalities: dict[Side, str] = {"fixed": domain.modalities[0], "moving": domain.modalities[:2][-1]}
        size = settings.features, settings.blocks, settings.dropout, settings.kernel, settings.upsampling
        self.translators = nn.ModuleDict(
            {side: Translator(domain.ndim, domain.channels, *size) for side in self.targets}
        )
        size = settings.discriminator_features, settings.discriminator_layers
        self.discriminators = nn.ModuleDict(
            {
                side: PatchDiscriminator(domain.ndim, self.judged_images * domain.channels, *size)
                for side in self.targets
            }
        )
        initialise(self.translators, settings.initialisation)
        initialise(self.discriminators, settings.initialisation)

    @classmethod
    def learns_unlabelled(cls, settings: MethodSettings) -> bool:
        """Labels are not looked at."""
        return True

    # -- what each method says ---------------------------------------------------------------------------------------

    @abstractmethod
    def fakes(self, images: Images) -> Fakes:
        """What the discriminator of each target is to tell from real images, as many as ``fakes_each`` names."""

    @abstractmethod
    def objective(self, batch: Batch, images: Images) -> Mapping[str, Callable[[], Tensor]]:
        """The generators' terms, under the names of the settings' ``weights``, computed when called."""

    def shown(self, images: Images, candidate: ImageBatch) -> Shown:
        """What a discriminator sees of a candidate: by default that alone."""
        return candidate

    def remembered(self, side: Side, fake: ImageBatch) -> ImageBatch:
        """What takes a fake's place before the discriminator that learns: by default nothing."""
        return fake

    # -- players -----------------------------------------------------------------------------------------------------

    def networks_of(self, player: str) -> Sequence[nn.Module]:
        """The discriminators, or all other networks."""
        if player == DISCRIMINATOR:
            return list(self.discriminators.values())
        return [network for name, network in self.named_children() if name != "discriminators"]

    def weights_of(self, player: str) -> Mapping[str, float]:
        """Of the generators' terms those of the settings; of the discriminators' each half of the adversarial one."""
        if player == GENERATOR:
            return super().weights_of(player)
        half: float = 0.5 * super().weights_of(player)["adversarial"]
        return {f"{side}_{name}": half for side in self.targets for name in ("real", *self.fakes_each)}

    def terms(self, batch: Batch, player: str) -> dict[str, Tensor]:
        """What the discriminators' answers cost them, or the method's objective."""
        images = self.images(batch)
        if player == GENERATOR:
            terms = self.objective(batch, images)
            return {name: terms[name]() for name in self.weights_of(player)}
        with torch.no_grad():
            fakes = self.fakes(images)
        loss = ADVERSARIAL[self.translation.adversarial_loss]
        found: dict[str, Tensor] = {}
        for side in self.targets:
            judge = self.discriminators[side]
            found[f"{side}_real"] = loss(judge(self.shown(images, images[side])), True)
            for name, fake in zip(self.fakes_each, fakes[side], strict=True):
                found[f"{side}_{name}"] = loss(judge(self.shown(images, self.remembered(side, fake))), False)
        return found

    def adversarial(self, images: Images, fakes: Fakes) -> Tensor:
        """What fakes cost the generators; the discriminators are held, the gradient goes through them."""
        loss, costs = ADVERSARIAL[self.translation.adversarial_loss], list[Tensor]()
        for side in self.targets:
            judge = self.discriminators[side]
            held = {name: weight.detach() for name, weight in judge.named_parameters()}
            costs += [loss(functional_call(judge, held, self.shown(images, fake)), True) for fake in fakes[side]]
        return total(costs)

    @torch.no_grad()
    def health(self, batch: Batch) -> dict[str, float]:
        """How the players stand; numbers of each target.

        ``SIDE_answer_real``, ``SIDE_answer_fake``: mean answers of its discriminator, 1 for certainly real; of vanilla
        ones as probabilities. ``SIDE_change``: mean distance of a translated image from what it was made of, in units
        of -1 to 1; near 0 where a translator only copies. ``SIDE_difference``: that of the other image of the pair.
        ``SIDE_contrast``: standard deviation of translated images over that of real ones; near 0 where it collapsed.
        ``SIDE_alternation``: ``alternation`` of translated images over that of real ones; far above 1 where they are
        chequered.
        """

        def answer(side: Side, shown: ImageBatch) -> Tensor:
            found = self.discriminators[side](self.shown(images, shown))
            return (found.sigmoid() if self.translation.adversarial_loss == "vanilla" else found).mean()

        images, found = self.images(batch), dict[str, float]()
        fakes = self.fakes(images)
        for side in self.targets:
            source, real = images[OTHER[side]], images[side]
            translated = self.translators[side](source)
            values = (
                answer(side, real),
                torch.stack([answer(side, fake) for fake in fakes[side]]).mean(),
                (translated - source).abs().mean(),
                (real - source).abs().mean(),
                translated.std() / real.std().clamp_min(1e-6),
                alternation(translated) / alternation(real).clamp_min(1e-3),
            )
            found |= {f"{side}_{name}": float(value) for name, value in zip(HEALTH, values, strict=True)}
        return found

    # -- images ------------------------------------------------------------------------------------------------------

    def images(self, batch: Batch) -> dict[Side, ImageBatch]:
        """Of a batch, as the networks see them."""
        return {side: self.seen(batch[side]) for side in SIDES}

    def seen(self, image: ImageBatch) -> ImageBatch:
        """From ``intensities`` to -1 to 1."""
        low, high = self.translation.intensities
        return (image - low) * (2 / (high - low)) - 1

    def translate(self, image: ImageBatch, modality: str = "") -> ImageBatch:
        """An image of one modality as one of the other, within ``intensities``.

        Args:
            image: prepared, B C I J (K).
            modality: its own; may be left open where there is one translator.

        Raises:
            InputError, ConfigurationError: as ``target_of``.
        """
        low, high = self.translation.intensities
        found = self.translators[self.target_of(modality)](self.seen(image))
        return low + (found.float() + 1) * ((high - low) / 2)

    def target_of(self, modality: str = "", name: str = "") -> Side:
        """The side whose modality an image is translated to.

        Args:
            modality: of the image; may be left open where there is one translator.
            name: of the image, for the refusal.

        Raises:
            InputError: E-MOD-005, a modality that no translator was trained on.
            ConfigurationError: E-MOD-010, there are two, and none is named.
        """
        targets: dict[str, Side] = {self.modalities[OTHER[side]]: side for side in self.targets}
        known = " or ".join(name for name in self.modalities.values() if name in targets)
        if not modality and len(targets) > 1:
            found = "the modality of the image is open"
            do = "name it with --modality"
            raise ConfigurationError("E-MOD-010", found, file=name or None, expected=known, do=do)
        if modality and modality not in targets:
            found, do = f"modality {modality}", "use a model made for it"
            raise InputError("E-MOD-005", found, file=name or None, expected=known, do=do)
        return targets[modality or next(iter(targets))]

    @torch.no_grad()
    def before_training(self, batches: Iterable[Batch]) -> None:
        """Look at the images before anything is learnt from them.

        Raises:
            ConfigurationError: E-MOD-025, they reach beyond ``intensities``; E-MOD-026, all are of one modality.
        """
        if len(self.domain.modalities) < 2:
            found = f"pairs of one modality, {self.modalities['fixed']}: nothing to translate"
            do = "name --fixed-modality and --moving-modality"
            raise ConfigurationError("E-MOD-026", found, expected="two modalities", do=do)
        low, high = self.translation.intensities
        ends = torch.stack([ends for (ends,) in computed(batches, _ends)])
        least, most = float(ends[:, 0].min()), float(ends[:, 1].max())
        margin = TOLERANCE * (high - low)
        if least < low - margin or most > high + margin:
            found = f"images of {least:.3g} to {most:.3g}, beyond what a generator that ends in tanh can answer"
            do = "clip a window or percentiles in plan.yaml, or set intensities to a range that holds them"
            raise ConfigurationError("E-MOD-025", found, expected=f"{low:g} to {high:g}", do=do)


def faults_of(validations: Sequence[Mapping[str, float]], target: str) -> list[str]:
    """The ``FAULTS`` of a target that have stood for ``PATIENCE`` validations.

    Args:
        validations: what ``Translation.health`` told, the newest last; a number that is not there shows no fault.
        target: its side.
    """
    last = [{name: told.get(f"{target}_{name}", math.nan) for name in HEALTH} for told in validations[-PATIENCE:]]
    return [fault for fault, shown in FAULTS.items() if len(last) == PATIENCE and all(map(shown, last))]


def alternation(images: ImageBatch) -> Float[Tensor, ""]:
    """Amplitude of what changes its sign from voxel to voxel.

    It is the root mean square of a quarter of the second differences along the axes, so that a pattern of +a and -a by
    turns along all axes has a.

    Args:
        images: B C I J (K), of three voxels an axis at least.
    """
    axes = range(2, images.ndim)
    return torch.stack([(images.diff(n=2, dim=axis) / 4).square().mean() for axis in axes]).mean().sqrt()


def initialise(network: nn.Module, how: Initialisation) -> None:
    """Draw the weights of all convolutions anew; biases begin at 0, but with torch's own."""
    if how == "torch":
        return
    for layer in network.modules():
        if isinstance(layer, (nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.ConvTranspose3d)):
            if how == "kaiming":
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            else:
                nn.init.normal_(layer.weight, std=0.02)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def total(terms: Iterable[Tensor]) -> Loss:
    """Their sum."""
    return torch.stack(list(terms)).sum()


def _ends(batch: Batch) -> list[Float[Tensor, "2"]]:
    """Least and greatest value of the images of a batch."""
    both: Any = torch.cat([batch[side].flatten() for side in SIDES])
    return [torch.stack(both.aminmax())]
