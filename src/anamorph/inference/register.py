"""Register two files or images, whatever their grids, and get the transform in world space."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from anamorph.data.files import read, read_mask
from anamorph.data.image import Image, Mask, ReadPolicy
from anamorph.errors import ConfigurationError, InputError, NumericalError, ResourceError, warn
from anamorph.inference.memory import fit_to_memory
from anamorph.inference.warp import warp
from anamorph.pairwise.register import PairwiseResult, Progress, Volume, register_pair
from anamorph.pairwise.settings import PairwiseSettings
from anamorph.spatial.transform import Affine, Chain, Transform

LEAST_VOXELS = 8
"""Voxels along the longest axes that an image must have to be registered."""

STRANGE_SCALE = 1.5
"""Factor of size along an axis that no two scans of the same anatomy differ by."""


@dataclass(frozen=True, eq=False)
class Registration:
    """A registered pair.

    Args:
        fixed: the image whose space the result lives in.
        moving: the image that is brought there.
        transform: fixed world -> moving world, RAS mm; ``transform.inverse()`` goes back.
        linear: its linear part.
        initial: how the images lay before: the identity, or the transform that was given.
        settings: of the pairwise engine, memory limits applied; None where a model registered.
        found: what the pairwise engine's stages did; None for a model, and where a flat image was let through.
        method: "pairwise", or the model's method.
        seconds: time spent, by stage.
        backward: moving world -> fixed world as the model found it beside ``transform``, of methods that register both
            ways; it is near the inverse as far as that was learnt.
    """

    fixed: Image
    moving: Image
    transform: Transform
    linear: Affine
    initial: Transform
    settings: PairwiseSettings | None = None
    found: PairwiseResult | None = None
    method: str = "pairwise"
    seconds: Mapping[str, float] = field(default_factory=dict)
    backward: Transform | None = None

    def __repr__(self) -> str:
        kept = f", kept: {self.found.kept}" if self.found is not None else ""
        return f"Registration({self.moving!r} onto {self.fixed!r} by {self.method}{kept}, {self.transform!r})"

    def warped(self) -> Image:
        """The moving image on the fixed grid, interpolated once."""
        return warp(self.moving, self.transform, self.fixed.grid)


def register(
    fixed: Image | str | Path,
    moving: Image | str | Path,
    *,
    settings: PairwiseSettings | None = None,
    fixed_mask: Mask | str | Path | None = None,
    moving_mask: Mask | str | Path | None = None,
    initial: Transform | None = None,
    policy: ReadPolicy | None = None,
    device: str = "auto",
    max_memory: int | None = None,
    allow_flat: bool = False,
    progress: Progress | None = None,
) -> Registration:
    """Register ``moving`` to ``fixed``.

    Args:
        fixed: file or image; modality "ct" chooses a window in HU.
        moving: file or image, on any other grid of the same dimension.
        settings: ``PairwiseSettings()`` if absent.
        fixed_mask: where to look in the fixed image (above 0.5 = use); any grid.
        moving_mask: the same for the moving image.
        initial: a linear transform to start from instead of searching.
        policy: how to read files.
        device: "auto" takes a GPU where there is one.
        max_memory: bytes to stay within; the working grid shrinks to fit.
        allow_flat: give the identity, with a warning, where an image shows nothing.
        progress: told of stages and steps.

    Raises:
        InputError: an input cannot be used; dimensions that differ (E-GEO-019), several channels (E-VAL-016).
        NumericalError: no contrast (E-VAL-004), no overlap (E-REG-013).
        ResourceError: the device is absent (E-DEV-014), or memory does not suffice (E-MEM-016).
    """
    settings = settings or PairwiseSettings()
    fixed, moving = (image if isinstance(image, Image) else read(image, policy) for image in (fixed, moving))
    _check_channels(fixed, moving)
    check_pair(fixed, moving)
    if initial is not None and not is_linear(initial):
        raise ConfigurationError("E-CFG-006", "a deformable initial transform", expected="a linear one")
    chosen = resolve_device(device)
    settings = fit_to_memory(fixed.grid, moving.grid, settings, max_memory)
    here, there = _volume(fixed, fixed_mask, policy), _volume(moving, moving_mask, policy)
    start = initial or Affine.identity(fixed.grid.ndim)
    try:
        linear = None if initial is None else as_affine(initial)
        found = register_pair(here, there, settings, initial=linear, device=chosen, progress=progress)
    except NumericalError as error:
        if not (allow_flat and error.code == "E-VAL-004"):
            raise
        warn("W-VAL-004", "an image without contrast; the result is the transform that it began with")
        return Registration(fixed, moving, start, as_affine(start), start, settings)
    _question(found.linear)
    if found.kept != settings.transform:
        left = "the images stay where they were" if found.kept == "start" else f"the {found.kept} result stands"
        warn("W-REG-016", f"the {settings.transform} stage gained too little to be trusted; {left}")
    return Registration(fixed, moving, found.transform, found.linear, start, settings, found, seconds=found.seconds)


def resolve_device(name: str) -> torch.device:
    """The device that a name stands for.

    Raises:
        ResourceError: E-DEV-014, it is not there.
        ConfigurationError: E-CFG-014, the name is none of a device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigurationError("E-CFG-014", f"device {name!r}", expected="auto, cpu or cuda") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ResourceError("E-DEV-014", "no CUDA device", expected=name, do="use --device cpu")
    if device.type not in ("cpu", "cuda"):
        raise ConfigurationError("E-CFG-014", f"device {name!r}", expected="auto, cpu or cuda")
    return device


def _check_channels(fixed: Image, moving: Image) -> None:
    for side, image in (("fixed", fixed), ("moving", moving)):
        if len(image.data) != 1:
            raise InputError(
                "E-VAL-016", f"{len(image.data)} channels in the {side} image", expected="one", do="choose a channel"
            )


def check_pair(fixed: Image, moving: Image) -> None:
    """Refuse images that cannot be registered to each other, and tell of odd ones.

    Raises:
        InputError: E-GEO-019, too few voxels, or two dimensions.
    """
    for side, image in (("fixed", fixed), ("moving", moving)):
        refuse_small(image, side)
    if fixed.grid.ndim != moving.grid.ndim:
        raise InputError(
            "E-GEO-019",
            f"{fixed.grid.ndim}-D fixed and {moving.grid.ndim}-D moving",
            expected="two images of one dimension",
            do="choose a slice, or a volume",
        )
    if fixed.grid.same_as(moving.grid) and torch.equal(fixed.data, moving.data):
        warn("W-REG-020", "fixed and moving are the same image")
    for image in (fixed, moving):
        if float(np.linalg.norm(image.grid.centre)) > 2000:
            warn("W-GEO-012", "the image lies more than 2 m from the origin", file=image.name or None)


def refuse_small(image: Image, called: str) -> None:
    """Refuse an image of too few voxels to be registered, ``called`` so where it has no name.

    Raises:
        InputError: E-GEO-019.
    """
    if sorted(image.grid.shape)[-2] < LEAST_VOXELS:
        shape = " x ".join(map(str, image.grid.shape))
        expected = f"{LEAST_VOXELS} along two axes"
        raise InputError("E-GEO-019", f"{shape} voxels", file=image.name or called, expected=expected)


def _volume(image: Image, mask: Mask | str | Path | None, policy: ReadPolicy | None) -> Volume:
    where: Tensor | None = image.valid
    if mask is not None:
        given = mask if isinstance(mask, Mask) else read_mask(mask, image.grid, policy)
        if not given.grid.same_as(image.grid):
            given = warp(given, Affine.identity(image.grid.ndim), image.grid)
        where = given.data if where is None else where & given.data
    if where is not None and not bool(where.any()):
        raise InputError(
            "E-MSK-013", "nothing is left to look at", file=image.name or None, expected="a mask on finite voxels"
        )
    return Volume(image.data[0], image.grid, where, image.modality)


def is_linear(transform: Transform) -> bool:
    """Whether a transform is one matrix, or several."""
    steps = transform.transforms if isinstance(transform, Chain) else (transform,)
    return all(isinstance(step, Affine) for step in steps)


def as_affine(transform: Transform) -> Affine:
    """A linear transform as one matrix; the nearest thing to none for any other."""
    matrix = np.eye(transform.ndim + 1)
    for step in transform.transforms if isinstance(transform, Chain) else (transform,):
        if isinstance(step, Affine):
            matrix = step.matrix @ matrix
    return Affine(matrix)


def _question(linear: Affine) -> None:
    """Warn of a linear part that no patient explains."""
    scales = np.linalg.svd(linear.matrix[:-1, :-1], compute_uv=False)
    if scales.max() > STRANGE_SCALE or scales.min() < 1 / STRANGE_SCALE:
        found = f"the images differ in size by {scales.min():.2f} to {scales.max():.2f}"
        warn("W-REG-010", f"{found}; check the spacing in the headers, or use --transform rigid")
