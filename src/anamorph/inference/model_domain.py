"""Whether an image is what a model was trained for: what cannot be is refused, what looks odd is told."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from difflib import get_close_matches
from itertools import product
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from anamorph.data.files import read_mask
from anamorph.data.image import Image, Mask, ReadPolicy
from anamorph.data.intensity import goes_below_zero
from anamorph.data.network_grid import CONTENT_SHARE, image_to_network, middle_of, network_grid
from anamorph.data.plan import Intensity, Plan
from anamorph.errors import ConfigurationError, InputError, NumericalError, warn
from anamorph.inference.model_card import QUANTILES, Appearance
from anamorph.inference.model_folder import Model
from anamorph.inference.warp import warp
from anamorph.methods.both_ways import BothWays
from anamorph.spatial.grid import Grid
from anamorph.spatial.transform import Affine

Side = Literal["image", "fixed", "moving"]

FAR_OFF = 2.0
"""Factor in voxel size or field of view that is told."""
LEAST_CONTRAST = 0.1
"""Share of a window that values must span, and that must not lie beyond one end of it."""
MOST_VALUES = 200_000
"""Values that a range is taken from."""
FEWEST_IMAGES = 3
"""Of a modality in training, from which is known what its images look like."""
LEAST_SPREAD = 0.02
"""Standard deviation of a quantile, as a share of the range that the mean quantiles span."""
ODD = 2.0
"""Standard deviations beyond which no image looks like its modality unless one of the training did."""
NEARER = 0.5
"""Share of its distance from the modality that it is taken for, within which an image looks like another one."""


def refuse_task(model: Model, task: Literal["register", "segment", "translate"]) -> None:
    """Refuse a model that was not made for a task.

    Raises:
        ConfigurationError: E-MOD-009.
    """
    tasks = model.method.tasks
    if task not in tasks:
        can = f"can {' and '.join(tasks)}" if tasks else "can neither register nor segment nor translate"
        found = f"a model of {model.card.method}, which {can}"
        do = f"use anamorph {tasks[0]}" if tasks else ""
        raise ConfigurationError("E-MOD-009", found, file=model.name or None, expected=f"one that can {task}", do=do)


def admitted(model: Model, image: Image, side: Side = "image") -> Image:
    """The image under the modality that the model knows it by.

    Args:
        model: what it is meant for.
        image: its ``modality`` may be left open where the model leaves no choice.
        side: of a pair.

    Raises:
        InputError: E-MOD-005, a dimension, number of channels or modality that the model does not know.
        ConfigurationError: E-MOD-010, the model knows several modalities and the image names none.
    """
    plan = model.card.plan
    if image.grid.ndim != plan.ndim:
        raise _foreign(image.name, f"a {image.grid.ndim}-D image", f"a {plan.ndim}-D one")
    if len(image.data) != plan.channels:
        raise _foreign(image.name, f"{len(image.data)} channels", f"{plan.channels}")
    return replace(image, modality=known_modality(model, image.modality, side, image.name))


def admitted_pair(model: Model, fixed: Image, moving: Image) -> tuple[Image, Image, bool]:
    """Both images of a pair under their modalities, and whether the model is to register them backward.

    A method that registers both ways knows pairs the other way round as well; where both modalities are left open, the
    images are taken for those of the training's order.

    Args:
        model: for the task "register".
        fixed, moving: as for ``admitted``.

    Raises:
        InputError, ConfigurationError: as ``admitted``.
    """
    backward = _swapped(model, fixed, moving)
    sides: tuple[Side, Side] = ("moving", "fixed") if backward else ("fixed", "moving")
    return admitted(model, fixed, sides[0]), admitted(model, moving, sides[1]), backward


def _swapped(model: Model, fixed: Image, moving: Image) -> bool:
    """Whether a pair is the other way round than in training; refuses names of no such pair (E-MOD-005)."""
    pairs = model.card.pairs
    if not isinstance(model.method, BothWays) or pairs is None or not (pairs.fixed_modality and pairs.moving_modality):
        return False
    first, second = pairs.fixed_modality.lower(), pairs.moving_modality.lower()
    if first == second:
        return False
    here, there = (
        None if image.modality is None else known_modality(model, image.modality, name=image.name).lower()
        for image in (fixed, moving)
    )
    other_of = {first: pairs.moving_modality, second: pairs.fixed_modality}
    if here is not None and here == there:
        expected = f"one of {pairs.fixed_modality}, the other of {pairs.moving_modality}"
        raise _foreign("", f"both images are named {here}", expected, f"name one of them {other_of[here]}")
    return here == second or there == first


def known_modality(model: Model, modality: str | None, side: Side = "image", name: str = "") -> str:
    """The modality as the model knows it; arguments, errors as of ``admitted``, and the ``name`` of an image."""
    known, card = tuple(model.card.plan.modalities), model.card
    sides = {"fixed": card.pairs.fixed_modality, "moving": card.pairs.moving_modality} if card.pairs else {}
    wanted = sides.get(side) or card.modality
    choices = (wanted,) if wanted else known
    role = "image" if side == "image" else f"{side} image"
    if modality is None:
        if len(choices) == 1:
            return choices[0]
        flag = "--modality" if side == "image" else f"--{side}-modality"
        found = f"the modality of the {role} is open"
        do = f"name it with {flag}"
        raise ConfigurationError("E-MOD-010", found, file=name or None, expected=" or ".join(choices), do=do)
    names = {name.lower(): name for name in choices}
    if modality.lower() not in names:
        near = get_close_matches(modality.lower(), names, n=1)
        does = f"{wanted} as the {role}" if wanted else " or ".join(known)
        do = f"did you mean {names[near[0]]}?" if near else "use a model made for it"
        raise _foreign(name, f"modality {modality}", does, do)
    return names[modality.lower()]


def _foreign(name: str, found: str, expected: str, do: str = "use a model made for it") -> InputError:
    return InputError("E-MOD-005", found, file=name or None, expected=expected, do=do)


def question(
    model: Model,
    image: Image,
    grid: Grid,
    prepared: Float[Tensor, "channels *net"],
    mask: Mask | None = None,
) -> None:
    """Tell where an image lies far off what the model was trained on.

    Args:
        model: what it is meant for.
        image: admitted.
        grid: the network's, in the image's world.
        prepared: the image on that grid, from ``image_to_network``.
        mask: that it was prepared with.

    Warns:
        W-MOD-005: its voxels. W-MOD-012: its field of view. W-MOD-013, W-MOD-017: as ``question_values``.
    """
    plan, modality = model.card.plan, image.modality or ""
    sizes = _sizes_along(image.grid, grid)
    least, largest = model.card.spacings.get(modality, (plan.spacing, plan.spacing))
    if (sizes > FAR_OFF * np.array(largest)).any() or (sizes < np.array(least) / FAR_OFF).any():
        expected = _shown(least) if least == largest else f"{_shown(least)} to {_shown(largest)}"
        found = f"voxels of {_shown(sizes)} mm, the model learnt from {expected} mm"
        warn("W-MOD-005", f"{found}; expect less of the result", file=image.name or None)
    share = _extent(image.grid, grid)
    if (share > FAR_OFF).any() or (share < 1 / FAR_OFF).any():
        found = f"the image is {_shown(share)} times as long along each axis as what the network sees"
        warn("W-MOD-012", f"{found}; crop it to the region of interest, or check its header", file=image.name or None)
    question_values(model, image, grid, prepared, mask)


def question_values(
    model: Model,
    image: Image,
    grid: Grid,
    prepared: Float[Tensor, "channels *net"],
    mask: Mask | None = None,
) -> None:
    """Tell where an image's values are not those of its modality in training; arguments of ``question``.

    Warns:
        W-MOD-013: its values. W-MOD-017: its modality.
    """
    modality = image.modality or ""
    strange = _strange_values(image, model.card.plan.modalities[modality])
    if strange:
        found = f"{strange}; check that it is of modality {modality}, and its unit"
        warn("W-MOD-013", found, file=image.name or None)
    other = _likelier_modality(model, image, grid, prepared, mask)
    if other:
        found = f"looks like {other}, but is taken for {modality}"
        warn("W-MOD-017", f"{found}; check the modality, and name it if it was left open", file=image.name or None)


def appearance_of(images: Sequence[Float[np.ndarray, "channels *net"]]) -> Appearance | None:
    """What prepared images of one modality look like; None where they are too few to tell.

    An image stands for the quantiles of what is not background, so that neither its place nor how much air it shows
    counts. Its distance is the root mean square over them, each in standard deviations of the training's images.

    Source: P. C. Mahalanobis (1936), On the generalised distance in statistics, with variances alone.

    Args:
        images: of the training, from ``image_to_network``.
    """
    if len(images) < FEWEST_IMAGES:
        return None
    found = np.stack([_quantiles(image) for image in images])
    mean = found.mean(0)
    least = LEAST_SPREAD * np.ptp(mean, axis=-1, keepdims=True)
    spread = np.maximum(found.std(0), np.maximum(least, np.finfo(np.float32).eps))
    largest = max(_distance(quantiles, mean, spread) for quantiles in found)
    rounded = [tuple(tuple(float(f"{number:.6g}") for number in row) for row in rows) for rows in (mean, spread)]
    return Appearance(mean=rounded[0], spread=rounded[1], largest=float(f"{largest:.6g}"))


def question_alignment(model: Model, image: Image) -> None:
    """Tell that the training's images were aligned to a reference, which a single image cannot be.

    Warns:
        W-MOD-014.
    """
    if model.card.plan.alignment in ("reference", "given"):
        found = "the images of the training were aligned to a reference; this one is only centred"
        warn("W-MOD-014", found, file=image.name or None)


def finite(answer: Tensor) -> Tensor:
    """A network's answer, where it is one.

    Raises:
        NumericalError: E-MOD-013, NaN or Inf.
    """
    if not bool(torch.isfinite(answer).all()):
        raise NumericalError("E-MOD-013", "the network's answer is not finite", do="check the image's values")
    return answer


def own_grid(image: Image, plan: Plan) -> Grid:
    """The network's grid about the image itself: no transform from the training's reference to it is known."""
    if plan.middle is not None:
        plan = plan.model_copy(update={"middle": tuple(middle_of(image, plan))})
    return network_grid(image, plan)


def mask_for(
    image: Image, mask: Mask | str | Path, plan: Plan, policy: ReadPolicy | None = None, looked_at: bool = False
) -> Mask:
    """A mask on its image's grid.

    Args:
        image: admitted.
        mask: file, or mask on any grid.
        plan: says whether intensities are measured in masks.
        policy: how to read the file.
        looked_at: whether anything else uses it.

    Raises:
        ConfigurationError: E-MOD-012, nothing would look at it.
    """
    if not looked_at and plan.modalities[image.modality or ""].content != "mask":
        found = f"a mask of {image.name or 'an image'}, which neither an alignment nor the intensities look at"
        raise ConfigurationError("E-MOD-012", found, do="leave it out")
    given = mask if isinstance(mask, Mask) else read_mask(mask, image.grid, policy)
    return given if given.grid.same_as(image.grid) else warp(given, Affine.identity(plan.ndim), image.grid)


def refuse_flat(image: Image) -> None:
    """Refuse an image that shows nothing.

    Raises:
        NumericalError: E-VAL-004.
    """
    values = image.data if image.valid is None else image.data[:, image.valid]
    if bool(values.min() == values.max()):
        found, expected = "no contrast: all values are alike", "an image that shows something"
        raise NumericalError("E-VAL-004", found, file=image.name or None, expected=expected)


def _sizes_along(image: Grid, grid: Grid) -> Float[np.ndarray, " ndim"]:
    """How long an image's voxels are along the axes of another grid, mm."""
    directions = grid.affine[:-1, :-1] / grid.spacing
    return 1 / np.linalg.norm(image.inverse_affine[:-1, :-1] @ directions, axis=0)


def _extent(image: Grid, grid: Grid) -> Float[np.ndarray, " ndim"]:
    """Length of an image along the axes of another grid, as a multiple of that grid's."""
    edges = np.array(list(product(*[(-0.5, n - 0.5) for n in image.shape])))
    return np.ptp(grid.to_voxel(image.to_world(edges)), axis=0) / grid.shape


def _strange_values(image: Image, intensity: Intensity) -> str:
    """What is odd about values that should lie about a window, or above 0; empty where nothing is."""
    values = _thinned(image.data.numpy())
    if intensity.kind != "window":
        if intensity.content == "positive" and goes_below_zero(values):
            return f"values from {float(values.min()):.4g} on, while only those above 0 were looked at in training"
        return ""
    low, high = (float(value) for value in np.percentile(values, (1, 99)))
    margin = LEAST_CONTRAST * (intensity.high - intensity.low)
    window = f"the window of the training is {intensity.low:g} to {intensity.high:g}"
    if high < intensity.low + margin or low > intensity.high - margin or high - low < margin:
        return f"values of {low:.4g} to {high:.4g}, while {window}"
    if intensity.low < 0 <= float(image.data.min()):
        return f"no value below 0, while {window}"
    return ""


def _likelier_modality(
    model: Model, image: Image, grid: Grid, prepared: Float[Tensor, "channels *net"], mask: Mask | None
) -> str | None:
    """The modality that an image looks like, where it does not look like its own."""
    plan, known, modality = model.card.plan, model.card.appearance, image.modality or ""
    own = known.get(modality)
    if own is None or len(known) < 2:
        return None
    away = _away(prepared, own)
    if away <= max(ODD, own.largest):
        return None
    others = dict[str, float]()
    for name, seen in known.items():
        if name != modality:
            alike = plan.modalities[name] == plan.modalities[modality]
            tensor = prepared if alike else image_to_network(replace(image, modality=name), plan, grid, mask)
            others[name] = _away(tensor, seen)
    nearest = min(others, key=others.__getitem__)
    return nearest if others[nearest] < NEARER * away else None


def _away(prepared: Float[Tensor, "channels *net"], seen: Appearance) -> float:
    return _distance(_quantiles(prepared.numpy()), np.array(seen.mean), np.array(seen.spread))


def _distance(quantiles: np.ndarray, mean: np.ndarray, spread: np.ndarray) -> float:
    """In standard deviations, the root mean square over channels and quantiles."""
    return float(np.sqrt((((quantiles - mean) / spread) ** 2).mean()))


def _quantiles(image: Float[np.ndarray, "channels *net"]) -> Float[np.ndarray, "channels quantiles"]:
    """Evenly spaced quantiles of the content of each channel."""
    shares = (np.arange(QUANTILES) + 0.5) / QUANTILES
    result = np.empty((len(image), QUANTILES))
    for channel, everything in enumerate(image):
        values = _thinned(everything)
        background, bright = np.percentile(values, (0.5, 99.0))
        content = values[values > background + CONTENT_SHARE * (bright - background)]
        result[channel] = np.quantile(content if len(content) else values, shares)
    return result


def _thinned(values: Float[np.ndarray, "..."]) -> Float[np.ndarray, " values"]:
    """Evenly spaced ones; by an odd step, which meets not the same columns of every row."""
    return values.reshape(-1)[:: -(-values.size // MOST_VALUES) | 1]


def _shown(numbers: Iterable[float]) -> str:
    return " x ".join(f"{number:.3g}" for number in numbers)
