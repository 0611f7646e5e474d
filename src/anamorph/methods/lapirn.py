r"""LapIRN: a Laplacian pyramid of networks, trained from coarse to fine.

    F_k = F_(k-1) on the grid of level k + range_flow r_k h_k(...)           velocity or displacement      (1)
    u_k = exp(F_k), or F_k where fields are displacements                                                  (2)
    warped_k(x) = moving(x + u_k(x)),   x: voxels of level k in the moving image at full resolution        (3)
    fixed_k     = fixed, averaged to level k                                                               (4)

    L = w_similarity D(fixed_k, warped_k) + w_smoothness R + w_folding J + w_overlap O                     (5)

    D = sum over i = 0 ... k-1 of lncc(window 2 (k - i) + 1, images averaged i times) / 2^i                (6)
    R = mean over axes, components and voxels of (d(2 F_k) / dx)^2                                         (7)
    J = mean over voxels of max(0, -det(derivative of x + u_k(x)))                                         (8)
    O = 1 - Dice of labels, which are averaged and sampled as the images                                   (9)

Levels k = 1, 2, 3 have 1/4, 1/2 and all of the voxels along each axis; displacements are voxels of their level. The
network h_k: ``networks.lapirn``. In (6) the first window is two less than ``window`` for each level below the last; any
other similarity is taken once, on the level's grid. 2 F_k in voxels is the release's field times N - 1.

``progressive`` training gives each level in turn its share of the steps, with the loss of that level alone; the
coarser levels are held for ``held`` of the training after each change. Otherwise all levels learn from the loss of the
last one. What is registered in between comes from the level being trained.

Source: T. C. W. Mok and A. C. S. Chung (2020), Large deformation diffeomorphic image registration with Laplacian
pyramid networks, doi:10.1007/978-3-030-59716-0_21, as released (github.com/cwmok/LapIRN).

Deviations: docs/methods/lapirn.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import torch
from jaxtyping import Float
from pydantic import Field, field_validator, model_validator
from torch import Tensor, nn
from torch.nn import functional

from anamorph.losses import diffusion, folding, lncc
from anamorph.losses.masks import Loss
from anamorph.losses.segmentation import one_hot
from anamorph.methods.base import Batch, Deformation, Domain, Method, TermWeights, Weight
from anamorph.methods.network_choice import LapIRNArchitecture, lapirn_network
from anamorph.methods.registration import Odd, SimilaritySettings, check_similarity, compare, overlap_of_labelled
from anamorph.methods.schedule import Schedule
from anamorph.methods.segmentation import check_classes
from anamorph.networks.lapirn import LEVELS, deformation_of
from anamorph.networks.padding import crop_to, pad_to_multiple
from anamorph.spatial.field import exponential, identity, resize, sample, warp
from anamorph.types import DisplacementBatch, ImageBatch, MaskBatch, Outside

SMOOTHNESS = {True: 3.5, False: 1.0}
"""The released weight, of velocities and of displacements."""

Share = Annotated[float, Field(gt=0, lt=1)]


class LapIRNWeights(TermWeights):
    """Weights of the terms; 0 leaves one out."""

    similarity: Weight = 1.0
    """Of the images."""
    smoothness: Weight | None = None
    """Of the velocity or displacement; if absent as released, 3.5 and 1."""
    folding: Weight = 0.0
    """Of negative Jacobian determinants; the release suggests 0 to 1000."""
    overlap: Weight = 0.0
    """Of labels, where fixed and moving both have some."""


class LapIRNSettings(LapIRNArchitecture, SimilaritySettings):
    """Settings of ``LapIRN``."""

    window: Annotated[Odd, Field(ge=2 * LEVELS + 1)] = 7
    """lncc: side of the first box at the last level, two less at each level and each scale below it."""
    progressive: bool = True
    """Whether levels are trained one after the other, or all at once by the loss of the last."""
    shares: tuple[Share, Share, Share] = (0.25, 0.25, 0.5)
    """Of the training for each level, coarse to fine."""
    held: Annotated[float, Field(ge=0, lt=1)] = 1 / 60
    """Share of the training for which the coarser levels stay as they are when the next begins."""
    weights: Annotated[LapIRNWeights, Field(validate_default=True)] = LapIRNWeights()
    """Of the terms."""

    @field_validator("weights")
    @classmethod
    def _released(cls, weights: LapIRNWeights, info: Any) -> LapIRNWeights:
        """The smoothness spelled out, so that what is saved says what was done."""
        if weights.smoothness is not None:
            return weights
        return weights.model_copy(update={"smoothness": SMOOTHNESS[info.data.get("diffeomorphic", True)]})

    @model_validator(mode="after")
    def _check(self) -> LapIRNSettings:
        if abs(sum(self.shares) - 1) > 1e-6:
            raise ValueError(f"shares sum to 1, found {sum(self.shares):g}")
        return self


class LapIRN(Method):
    """See the module.

    Args:
        settings: as chosen.
        domain: what is registered.

    Raises:
        ConfigurationError: E-MOD-020, a weight of the overlap in a domain without classes; E-MOD-027, bins of macMIND
            that 2-D does not have.
    """

    Settings = LapIRNSettings
    schedule = Schedule(epochs=1200, steps_per_epoch=100, learning_rate=1e-4)
    level: Tensor

    def __init__(self, settings: LapIRNSettings, domain: Domain) -> None:
        super().__init__(settings, domain)
        if settings.weights.overlap:
            check_classes(domain)
        check_similarity(settings, domain)
        self.chosen = settings
        self.network = lapirn_network(settings, domain)
        self.register_buffer("level", torch.tensor(LEVELS))

    def networks_of(self, player: str) -> Sequence[nn.Module]:
        """All levels."""
        return [self.network]

    def begin_step(self, step: int, steps: int) -> None:
        """Choose the level to train, and hold the coarser ones when it is new."""
        if not self.chosen.progressive:
            return
        starts = [round(sum(self.chosen.shares[:number]) * steps) for number in range(LEVELS)]
        level = sum(step >= start for start in starts)
        held = step - starts[level - 1] < self.chosen.held * steps
        self.level.fill_(level)
        for number, network in enumerate(self.network.levels, start=1):
            network.requires_grad_(number == level or (number < level and not held))

    def terms(self, batch: Batch, player: str) -> dict[str, Tensor]:
        """Equation (5), term by term."""
        level = int(self.level)
        factor = 2 ** (LEVELS - level)
        shape = _shape_at(batch["fixed"], factor)
        field = crop_to(self.network(batch["fixed"], batch["moving"], level), shape)
        displacement = self._integrated(field)
        computed = {
            "similarity": lambda: self._similarity(batch, displacement, level),
            "smoothness": lambda: diffusion(2 * field),
            "folding": lambda: folding(displacement),
            "overlap": lambda: self._overlap(batch, displacement, factor),
        }
        return {name: computed[name]() for name in self.weights_of(player)}

    def register(self, fixed: ImageBatch, moving: ImageBatch) -> Deformation:
        """The field of the last level that was trained, on the images' grid, and its flow there."""
        level = int(self.level)
        squarings = self.chosen.squarings if self.chosen.diffeomorphic else None
        return deformation_of(self.network(fixed, moving, level), level, fixed.shape[2:], squarings)

    def _integrated(self, field: DisplacementBatch) -> DisplacementBatch:
        return exponential(field, self.chosen.squarings) if self.chosen.diffeomorphic else field

    def _similarity(self, batch: Batch, displacement: DisplacementBatch, level: int) -> Tensor:
        factor, moving = 2 ** (LEVELS - level), batch["moving"]
        fixed = averaged(batch["fixed"], factor)
        warped = sampled(moving, displacement, factor, "border")
        fixed_mask, moving_mask = batch.get("fixed_mask"), batch.get("moving_mask")
        masks = (
            None if fixed_mask is None else averaged(fixed_mask, factor),
            None if moving_mask is None else sampled(moving_mask, displacement.detach(), factor, "zeros"),
        )
        if self.chosen.similarity != "lncc":
            return compare(self.chosen, fixed, warped, *masks, moving)
        widest = self.chosen.window - 2 * (LEVELS - level)
        windows = [widest - 2 * scale for scale in range(level)]
        return multi_resolution_lncc(fixed, warped, *masks, windows=windows, epsilon=self.chosen.epsilon)

    def _overlap(self, batch: Batch, displacement: DisplacementBatch, factor: int) -> Tensor:
        both = batch["fixed_labelled"] & batch["moving_labelled"]
        if not both.any():
            return displacement.sum() * 0
        labels = (batch[name][both] for name in ("fixed_labels", "moving_labels"))
        fixed, moving = (one_hot(found, self.domain.classes)[:, 1:] for found in labels)
        warped = sampled(moving, displacement[both], factor, "zeros")
        return overlap_of_labelled(averaged(fixed, factor), warped, both)


def _shape_at(image: ImageBatch, factor: int) -> list[int]:
    """Voxels of a grid coarser by ``factor`` whose centres lie inside the image."""
    return [max(1, (n + factor // 2) // factor) for n in image.shape[2:]]


def averaged(image: ImageBatch, factor: int) -> Float[Tensor, "batch channels *coarse"]:
    """Means of ``factor`` voxels along each axis; a last voxel that stands out averages the border value too."""
    padded = pad_to_multiple(image, [factor] * (image.ndim - 2))
    return crop_to(resize(padded, [n // factor for n in padded.shape[2:]]), _shape_at(image, factor))


def sampled(
    image: ImageBatch, displacement: Float[Tensor, "batch ndim *coarse"], factor: int, outside: Outside
) -> Float[Tensor, "batch channels *coarse"]:
    """The image at the displaced voxels of a grid coarser by ``factor``, of which its displacement is in voxels."""
    if factor == 1:
        return warp(image, displacement, outside=outside)
    points = displacement + identity(displacement.shape[2:], displacement.dtype, displacement.device)
    return sample(image, (points + 0.5) * factor - 0.5, outside=outside)


def multi_resolution_lncc(
    fixed: ImageBatch,
    warped: ImageBatch,
    fixed_mask: MaskBatch | None,
    moving_mask: MaskBatch | None,
    *,
    windows: Sequence[int],
    epsilon: float,
) -> Loss:
    """Equation (6): one window a scale, each scale averaged over three voxels at every second of the one before."""
    total = fixed.new_zeros(())
    for scale, window in enumerate(windows):
        if scale > 0:
            fixed, warped = _halved(fixed), _halved(warped)
            fixed_mask, moving_mask = (None if mask is None else _halved(mask) for mask in (fixed_mask, moving_mask))
        total = total + lncc(fixed, warped, fixed_mask, moving_mask, window=window, epsilon=epsilon) / 2**scale
    return total


def _halved(image: ImageBatch) -> Float[Tensor, "batch channels *half"]:
    """Means of the three voxels around every second one along each axis; of those that there are."""
    pool = functional.avg_pool3d if image.ndim == 5 else functional.avg_pool2d
    kernel = [min(3, n) for n in image.shape[2:]]
    return pool(image, kernel, stride=2, padding=[k // 3 for k in kernel], count_include_pad=False)
