"""How a job of a multi-atlas segmentation is done: from the cache, or computed and left there."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from anamorph.data.cohort import Scan
from anamorph.data.files import check_same_space, read, read_labels
from anamorph.data.fingerprint import is_ct
from anamorph.data.image import Image, Labelmap
from anamorph.data.network_grid import image_to_network, labels_to_network
from anamorph.errors import AnamorphWarning, ConfigurationError, InputError
from anamorph.fusion import atlas_similarities
from anamorph.inference.memory import check_network_memory
from anamorph.inference.model_domain import admitted, finite, own_grid, question, refuse_flat
from anamorph.inference.model_folder import Model
from anamorph.inference.multi_atlas_cache import Entry, key_of, state_of_scan, stored_image, stored_model
from anamorph.inference.multi_atlas_jobs import Alignment, Facts, Job, Registration, Weighing
from anamorph.inference.multi_atlas_region import cropped, part_met, part_seen, view_of_network
from anamorph.inference.register import register
from anamorph.inference.register_model import learnt_aligned, predicted_transform
from anamorph.inference.warp import warp
from anamorph.pairwise.preparation import prepare, shape_with_voxels
from anamorph.spatial.field import resize
from anamorph.spatial.grid import Grid
from anamorph.spatial.transform import Affine, Transform, resample

COARSE_VOXELS = 60_000
"""Most voxels of an image that is aligned coarsely: what the first linear stage of the pairwise engine looks at."""
WHOLE = 0.999
"""Share of valid voxels from which one that is averaged from them is valid."""


def do(job: Job) -> Facts:
    """Take a job's result from the cache, or compute it and leave it there.

    Raises:
        AnamorphError: with the code of what stands in the way of this atlas.
    """
    entry = job.entry
    if (known := entry.read()) is not None:
        known["matrix"] = tuple(tuple(row) for row in known["matrix"])
        known |= {name: tuple(known[name]) for name in ("known", "labels", "warnings")}
        return Facts(**known, cached=True)
    begin = time.perf_counter()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", AnamorphWarning)
        facts, arrays = _WORK[type(job)](job)
    lines = dict.fromkeys(str(one.message) for one in caught if issubclass(one.category, AnamorphWarning))
    facts = replace(facts, seconds=round(time.perf_counter() - begin, 3), warnings=tuple(lines))
    known = {name: value for name, value in vars(facts).items() if name != "cached"}
    entry.write(known, {name: array.numpy() for name, array in arrays.items()})
    return facts


def _align(job: Alignment) -> tuple[Facts, dict[str, Tensor]]:
    target, (image, foreground) = stored_image(job.target), _coarse_atlas(job.atlas, job.cache)
    found = register(target, image, settings=job.settings, device=job.device).linear
    near, far = (prepare(x.data[0], x.grid, x.valid, x.modality, job.settings.ct_window) for x in (target, image))
    moved = resample(torch.stack([far.image[0, 0], foreground]), image.grid, target.grid, found)
    (similarity,) = atlas_similarities(near.image[0], [moved[:1]])
    matrix = tuple(tuple(row) for row in found.matrix.tolist())
    return Facts(0.0, matrix=matrix, similarity=similarity), {"foreground": moved[1]}


def _coarse_atlas(atlas: Scan, cache: Path) -> tuple[Image, Tensor]:
    """An atlas in few voxels, and the share of each voxel that has a label; made once for all targets."""
    entry = Entry(cache / key_of("coarse", state_of_scan(atlas)))
    known = entry.read()
    if known is None:
        image, labels = _read(atlas, as_engine=True)
        small = coarse(image)
        foreground = resize((labels.data != 0).float()[None, None], small.grid.shape)[0, 0]
        valid = torch.ones(small.grid.shape, dtype=torch.bool) if small.valid is None else small.valid
        known = {"affine": small.grid.affine.tolist(), "modality": image.modality, "name": image.name}
        entry.write(known, {"image": small.data.numpy(), "foreground": foreground.numpy(), "valid": valid.numpy()})
    data, valid = entry.array("image"), entry.array("valid")
    grid = Grid(tuple(data.shape[1:]), np.array(known["affine"]))
    image = Image(data, grid, known["modality"], None if bool(valid.all()) else valid, known["name"])
    return image, entry.array("foreground")


def coarse(image: Image) -> Image:
    """The same field of view in few voxels, never finer than they are."""
    shape = shape_with_voxels(image.grid, COARSE_VOXELS)
    valid = None if image.valid is None else resize(image.valid[None, None].float(), shape)[0, 0] > WHOLE
    return replace(image, data=resize(image.data[None], shape)[0], grid=image.grid.resized(shape), valid=valid)


def _read(atlas: Scan, *, as_engine: bool) -> tuple[Image, Labelmap]:
    """An atlas; the pairwise engine knows a CT by the name "ct" alone, a model by its own."""
    if atlas.labels is None:
        raise InputError("E-ATL-013", "an atlas without labels", file=atlas.image, do="leave it out")
    modality = "ct" if as_engine and is_ct(atlas.modality) else atlas.modality
    image, labels = read(atlas.image, modality=modality), read_labels(atlas.labels)
    check_same_space(image.grid, labels.grid, atlas.labels)
    return image, labels


def _register(job: Registration) -> tuple[Facts, dict[str, Tensor]]:
    by_model = isinstance(job.engine, Path)
    image, labels = _read(job.atlas, as_engine=not by_model)
    transform, kept = _by_model(job, image) if by_model else _by_engine(job, image)
    box = part_met(job.region, transform, image.grid)  # what is brought over need not be all of a large atlas
    moved = warp(cropped(labels, box), transform, job.region)
    there = warp(cropped(image, box), transform, job.region, fill=float(image.data.min()))
    known, brought = (tuple(value for value in one.values() if value != 0) for one in (labels, moved))
    return Facts(0.0, kept=kept, known=known, labels=brought), {"labels": _narrow(moved.data), "image": there.data}


def _by_engine(job: Registration, atlas: Image) -> tuple[Transform, str]:
    """On the part of the atlas that the region may look at, from the coarse alignment on.

    Two people are never aligned already, so whatever a stage finds is kept.
    """
    assert not isinstance(job.engine, Path)
    settings = job.engine.model_copy(update={"least_gain": 0.0})
    start = None if job.matrix is None else Affine(np.array(job.matrix))
    if start is not None:
        atlas = cropped(atlas, part_seen(job.region, start.matrix, atlas.grid))
    target = stored_image(job.target)
    found = register(
        target, atlas, settings=settings, initial=start, device=job.device, max_memory=job.max_memory
    )  # fmt: skip
    return found.transform, "" if found.found is None else found.found.kept


def _by_model(job: Registration, atlas: Image) -> tuple[Transform, str]:
    """On the network's grid, at the region where the image is longer than that."""
    assert isinstance(job.engine, Path)
    model = stored_model(job.engine, job.device)
    target, atlas = admitted(model, stored_image(job.target), "fixed"), admitted(model, atlas, "moving")
    plan, about = model.card.plan, job.region.centre
    check_network_memory(plan.shape, (target.grid, atlas.grid), model.device, job.max_memory)
    grid = view_of_network(own_grid(target, plan), target.grid, about)
    if job.matrix is None:
        there = view_of_network(own_grid(atlas, plan), atlas.grid, about)
    elif learnt_aligned(model):
        there = Grid(grid.shape, np.array(job.matrix) @ grid.affine)
    else:
        there = view_of_network(own_grid(atlas, plan), atlas.grid, Affine(np.array(job.matrix))(about[None])[0])
    tensors = [_seen_by_network(image, model, seen) for image, seen in ((target, grid), (atlas, there))]
    return predicted_transform(model, tensors[0], tensors[1], grid, there), ""


def _seen_by_network(image: Image, model: Model, grid: Grid) -> Tensor:
    """Intensities on the network's grid, measured on the whole image, as in its training."""
    part = cropped(image, part_seen(grid, np.eye(grid.ndim + 1), image.grid))
    refuse_flat(part)
    tensor = image_to_network(part, model.card.plan, grid, measured_on=image)
    question(model, image, grid, tensor)
    return tensor


def _weigh(job: Weighing) -> tuple[Facts, dict[str, Tensor]]:
    model = stored_model(job.model, job.registration.device)
    plan, region = model.card.plan, job.registration.region
    target = admitted(model, stored_image(job.target), "fixed")
    grid = view_of_network(own_grid(target, plan), target.grid, region.centre)
    image = _seen_by_network(target, model, grid)
    labels = Labelmap(job.registration.entry.array("labels").long(), region)
    seen = [image[None], labels_to_network(labels, plan, grid)[None, None]]
    if getattr(model.method, "looks_at_images", False):
        seen.append(_warped_atlas(job.registration, model, grid)[None])
    with torch.inference_mode():
        weight = weigher_of(model)(*(tensor.to(model.device) for tensor in seen))
    onto = resample(finite(weight[0].float().cpu()), grid, region, outside="border")[0]
    return Facts(0.0), {"weight": onto}


def _warped_atlas(job: Registration, model: Model, grid: Grid) -> Tensor:
    """Intensities of a registered atlas on the network's grid, on the scale that the whole atlas has."""
    atlas = admitted(model, _read(job.atlas, as_engine=False)[0], "moving")
    warped = replace(atlas, data=job.entry.array("image"), grid=job.region, valid=None)
    return image_to_network(warped, model.card.plan, grid, measured_on=atlas)


def weigher_of(model: Model) -> Callable[..., Any]:
    """The ``similarity`` of a model: image B C I J (K), classes B 1 I J (K) -> B 1 I J (K), 0 to 1.

    A model that looks at images takes that of the atlas, warped onto the target, as well: B C I J (K).

    Raises:
        ConfigurationError: E-ATL-014, it has none.
    """
    similarity: Any = getattr(model.method, "similarity", None)
    if not callable(similarity):
        found = f"a model of {model.card.method}, which weighs no atlases"
        raise ConfigurationError("E-ATL-014", found, file=model.name or None, expected="one such as simnet")
    return similarity


def _narrow(labels: Tensor) -> Tensor:
    """The same numbers in as few bytes as hold them."""
    low, high = (int(end) for end in torch.aminmax(labels)) if labels.numel() else (0, 0)
    for kind in (torch.int16, torch.int32):
        if torch.iinfo(kind).min <= low and high <= torch.iinfo(kind).max:
            return labels.to(kind)
    return labels


_WORK: dict[type, Callable[[Any], tuple[Facts, dict[str, Tensor]]]] = {
    Alignment: _align,
    Registration: _register,
    Weighing: _weigh,
}
