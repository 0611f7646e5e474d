"""Register two images with a trained model: onto the network's grid, through the network, back into the world.

The images meet as they did in training: centre to centre where the plan aligns nothing, and otherwise after an affine
registration by the pairwise engine. What the network finds becomes

    fixed world -> Field or Velocity on the network's grid -> Affine between the two worlds -> moving world

which every other part of a run takes like any transform.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from anamorph.data.files import read
from anamorph.data.fingerprint import is_ct
from anamorph.data.image import Image, Mask, ReadPolicy
from anamorph.data.network_grid import image_to_network, network_transform
from anamorph.errors import ConfigurationError, NumericalError, warn
from anamorph.inference.memory import check_network_memory
from anamorph.inference.model_domain import admitted_pair, mask_for, own_grid, question, refuse_flat, refuse_task
from anamorph.inference.model_folder import Model
from anamorph.inference.register import Registration, as_affine, check_pair, is_linear, register
from anamorph.inference.stages import Stages
from anamorph.methods.base import Deformation
from anamorph.methods.both_ways import BothWays
from anamorph.pairwise.register import Progress
from anamorph.pairwise.settings import PairwiseSettings
from anamorph.spatial.grid import Grid
from anamorph.spatial.transform import Affine, Chain, Transform

ALIGNMENT = PairwiseSettings(transform="affine")
"""How the images of a pair are aligned before a network sees them."""

FADE = 2.5
"""Width over which a displacement fades out beyond the network's grid, as a multiple of the largest at its border.
Above pi / 2 nothing folds there."""


def register_with(
    model: Model,
    fixed: Image | str | Path,
    moving: Image | str | Path,
    *,
    fixed_mask: Mask | str | Path | None = None,
    moving_mask: Mask | str | Path | None = None,
    initial: Transform | None = None,
    policy: ReadPolicy | None = None,
    max_memory: int | None = None,
    allow_flat: bool = False,
    progress: Progress | None = None,
) -> Registration:
    """Register ``moving`` to ``fixed`` with a trained model, on the device that it was read to.

    Args:
        model: from ``read_model``.
        fixed, moving: files or images on any grids of the model's dimension. Their ``modality`` may be left open where
            the model leaves no choice. A model that registers both ways takes them in either order; where it was
            trained on one modality a side and neither is named, they are taken for those of the training's order.
        fixed_mask, moving_mask: where to look when the images are aligned, and where intensities are measured if the
            plan's content is "mask"; any grid.
        initial: a linear transform, fixed world -> moving world, in place of the alignment that the plan asks for.
        policy: how to read files.
        max_memory: bytes to stay within.
        allow_flat: give the initial transform, with a warning, where an image shows nothing.
        progress: told of stages.

    Raises:
        InputError: E-MOD-005, a modality, dimension or number of channels that the model was not made for; else as in
            ``register``.
        ConfigurationError: E-MOD-009, the model does not register; E-MOD-010, which modality?; E-MOD-012, a mask that
            nothing would look at; E-CFG-006, a deformable initial transform.
        NumericalError: E-VAL-004, no contrast; E-REG-002, the network's answer is not finite.

    Warns:
        W-MOD-005, W-MOD-012, W-MOD-013: voxels, field of view or values far off those of the training. W-MOD-017: an
            image that looks like another modality.
    """
    refuse_task(model, "register")
    plan = model.card.plan
    fixed, moving = (image if isinstance(image, Image) else read(image, policy) for image in (fixed, moving))
    fixed, moving, backward = admitted_pair(model, fixed, moving)
    if initial is not None and not is_linear(initial):
        raise ConfigurationError("E-CFG-006", "a deformable initial transform", expected="a linear one")
    aligns = initial is None and learnt_aligned(model)
    if not aligns:  # the engine that aligns asks the same
        check_pair(fixed, moving)
    masks = [
        None if mask is None else mask_for(image, mask, plan, policy, aligns)
        for image, mask in ((fixed, fixed_mask), (moving, moving_mask))
    ]
    check_network_memory(plan.shape, (fixed.grid, moving.grid), model.device, max_memory)
    start = initial or Affine.identity(plan.ndim)
    try:
        refuse_flat(fixed)
        refuse_flat(moving)
    except NumericalError:
        if not allow_flat:
            raise
        warn("W-VAL-004", "an image without contrast; the result is the transform that it began with")
        return Registration(fixed, moving, start, as_affine(start), start, method=model.card.method)
    stages = Stages(progress)
    if aligns:
        affine, seconds = aligned(fixed, moving, masks, model.device, max_memory, progress)
        stages.seconds |= seconds
    else:
        affine = None if initial is None else as_affine(initial)
    with stages("normalise"):
        grid = own_grid(fixed, plan)
        there = own_grid(moving, plan) if affine is None else Grid(grid.shape, affine.matrix @ grid.affine)
        tensors = list[Tensor]()
        for image, seen, mask in zip((fixed, moving), (grid, there), masks, strict=True):
            tensors.append(image_to_network(image, plan, seen, mask))
            question(model, image, seen, tensors[-1], mask)
    with stages("network"):
        transform, back = predicted_transforms(model, tensors[0], tensors[1], grid, there, backward=backward)
    linear = Affine(there.affine @ grid.inverse_affine)
    return Registration(
        fixed, moving, transform, linear, start, method=model.card.method, seconds=stages.seconds, backward=back
    )


def predicted_transform(
    model: Model,
    fixed: Float[Tensor, "channels *net"],
    moving: Float[Tensor, "channels *net"],
    fixed_grid: Grid,
    moving_grid: Grid,
) -> Chain:
    """The first of ``predicted_transforms``, of images in the order of the training."""
    return predicted_transforms(model, fixed, moving, fixed_grid, moving_grid)[0]


def predicted_transforms(
    model: Model,
    fixed: Float[Tensor, "channels *net"],
    moving: Float[Tensor, "channels *net"],
    fixed_grid: Grid,
    moving_grid: Grid,
    *,
    backward: bool = False,
) -> tuple[Chain, Chain | None]:
    """The map fixed world -> moving world that a model finds between two normalised images on the network's grid.

    Beyond that grid the displacement fades out, so that an image larger than the network sees is not torn there, and
    the inverse, whose points come from beyond, holds as well.

    Args:
        model: for the task "register".
        fixed, moving: from ``image_to_network``, C I J (K).
        fixed_grid: the network's grid in the fixed image's world.
        moving_grid: the same in the moving image's.
        backward: whether the moving image is of the modality that was fixed in the training, and the fixed one of the
            other; of methods that register both ways.

    Returns:
        The map, and what such a method finds for moving world -> fixed world; None of others.

    Raises:
        NumericalError: E-REG-002, NaN or Inf.
    """
    back = None
    with torch.inference_mode():
        ends = fixed[None].to(model.device), moving[None].to(model.device)
        if isinstance(model.method, BothWays):
            found, back = model.method.register_both(*(ends[::-1] if backward else ends))
            found, back = (back, found) if backward else (found, back)
        else:
            found = model.method.register(*ends)
    there = transform_of(found, fixed_grid, moving_grid)
    return there, None if back is None else transform_of(back, moving_grid, fixed_grid)


def transform_of(found: Deformation, fixed_grid: Grid, moving_grid: Grid) -> Chain:
    """A network's deformation, of one pair, as a map between worlds; see ``predicted_transforms``."""
    displacement = found.displacement.detach().float().cpu()
    velocity = None if found.velocity is None else found.velocity.detach().float().cpu()
    if not bool(torch.isfinite(displacement).all()) or not (velocity is None or bool(torch.isfinite(velocity).all())):
        raise NumericalError("E-REG-002", "the network's answer is not finite", do="check the images' values")
    border = max(_largest_at_border(field) for field in (displacement, velocity) if field is not None)
    margin = min(math.ceil(FADE * border), max(fixed_grid.shape))
    fixed_grid, moving_grid = (
        grid.cropped([-margin] * grid.ndim, [n + 2 * margin for n in grid.shape]) for grid in (fixed_grid, moving_grid)
    )
    flow = None if velocity is None else _faded(velocity, margin)[0]
    return network_transform(_faded(displacement, margin)[0], fixed_grid, moving_grid, flow, found.squarings)


def learnt_aligned(model: Model) -> bool:
    """Whether the images of a pair were aligned to each other; those of two cases are not where each is by itself."""
    alignment, pairs = model.card.plan.alignment, model.card.pairs
    return alignment != "none" and not (alignment == "within" and pairs is not None and pairs.rule == "between")


def aligned(
    fixed: Image,
    moving: Image,
    masks: Sequence[Mask | None] = (None, None),
    device: torch.device | None = None,
    max_memory: int | None = None,
    progress: Progress | None = None,
) -> tuple[Affine, dict[str, float]]:
    """The affine map between two images by the pairwise engine, on their first channels, and its seconds."""
    sides = [
        replace(image, data=image.data[:1], modality="ct" if is_ct(image.modality or "") else image.modality)
        for image in (fixed, moving)
    ]
    found = register(
        sides[0], sides[1], settings=ALIGNMENT, fixed_mask=masks[0], moving_mask=masks[1],
        device=str(device or "cpu"), max_memory=max_memory, progress=progress,
    )  # fmt: skip
    return found.linear, dict(found.seconds)


def _largest_at_border(field: Float[Tensor, "batch ndim *net"]) -> float:
    """Length of the longest vector in the outer voxels."""
    length = field.norm(dim=1)
    ends = [length.select(axis, place) for axis in range(1, length.dim()) for place in (0, -1)]
    return max(float(end.max()) for end in ends)


def _faded(field: Float[Tensor, "batch ndim *net"], margin: int) -> Float[Tensor, "batch ndim *padded"]:
    """The border's vectors carried on by ``margin`` voxels, and led to zero there by half a cosine."""
    if margin == 0:
        return field
    ndim = field.shape[1]
    padded = functional.pad(field, [margin] * (2 * ndim), mode="replicate")
    beyond = torch.zeros(padded.shape[2:])
    for axis, n in enumerate(padded.shape[2:]):
        place = torch.arange(n)
        out = torch.maximum(margin - place, place - (n - 1 - margin)).clamp_min(0) / margin
        beyond = torch.maximum(beyond, out.view(-1, *[1] * (ndim - 1 - axis)))
    return padded * (0.5 * (1 + torch.cos(math.pi * beyond)))
