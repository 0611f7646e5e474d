"""Correspondence through an atlas: from subject to subject, and what is known on the atlas carried to all of them.

With Phi_i the map from atlas points to points of subject i, labels travel as (y o Phi)(x) = y(Phi(x)), so

    y_i = (y_j o Phi_j) o Phi_i^-1          (22)
    y_j = (y_i o Phi_i) o Phi_j^-1          (23)

and points of i go to points of j by Phi_j o Phi_i^-1. Whichever two subjects are taken, the way back is the inverse,
and the way by a third ends where the direct one does. Subjects are the cases that an atlas was built from, whose maps
it keeps, or any images that a model fits its atlas to.

Source: M. Sinclair et al. (2022), Atlas-ISTN, doi:10.1016/j.media.2022.102383, equations 22 and 23, table 6.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
from jaxtyping import Bool
from scipy.ndimage import find_objects, gaussian_filter
from torch import Tensor

from anamorph.data.files import read
from anamorph.data.image import Image, Labelmap, Landmarks
from anamorph.data.mesh_files import Mesh
from anamorph.errors import ConfigurationError, InputError
from anamorph.evaluation.consistency import inverse_consistency_scores
from anamorph.evaluation.scores import Score
from anamorph.inference.atlas_folder import Atlas, question_empty
from anamorph.inference.model_folder import Model
from anamorph.inference.model_variants import with_settings
from anamorph.inference.segment import segment_with
from anamorph.inference.warp import warp
from anamorph.methods.atlas_istn import AtlasISTN
from anamorph.pairwise.register import Progress
from anamorph.spatial.grid import Grid
from anamorph.spatial.isosurface import isosurface
from anamorph.spatial.transform import Transform, resample

Carried = TypeVar("Carried", Landmarks, Mesh)

SMOOTHING_VOXELS = 0.7
"""Gaussian that takes the steps off a label's surface; a label too thin for it keeps them."""


@dataclass(frozen=True, eq=False)
class Subject:
    """What an atlas was brought to.

    Args:
        name: of the case, or of the image's file without its ending.
        from_atlas: atlas -> subject, world points in mm.
        grid: of the subject's image.
        labels: the atlas's, in the subject's space; None of an atlas without.
    """

    name: str
    from_atlas: Transform
    grid: Grid
    labels: Labelmap | None


def subject_of(atlas: Atlas, case: str, *, modality: str | None = None, progress: Progress | None = None) -> Subject:
    """A case of an atlas by the map that is kept, or an image that the atlas of a model is fitted to.

    Args:
        atlas: from ``read_atlas``; a model fits and refines as it says itself, on the device that it was read to.
        case: name of a case, or file of an image.
        modality: of the image, where the model knows several.
        progress: told of the stages of a fit.

    Raises:
        AnamorphError: as ``check_case``, ``read`` and ``segment_with``.
    """
    check_case(atlas, case)
    if atlas.model is None:
        from_atlas, grid = atlas.to_case(case)
        labels = atlas.labels()
        return Subject(case, from_atlas, grid, None if labels is None else labels_in(labels, from_atlas, grid))
    found = segment_with(fitting(atlas.model), read(case, modality=modality), progress=progress)
    assert found.atlas is not None
    return Subject(stem_of(Path(case)), found.atlas.to_image, found.image.grid, found.labels)


def check_case(atlas: Atlas, case: str) -> None:
    """Refuse what an atlas cannot be brought to.

    Raises:
        InputError: E-ATL-005, no such case, or its map is gone; of a model, no such image.
        ConfigurationError: E-ATL-010, the model fits its atlas to no image.
    """
    if atlas.model is None:
        atlas.to_case(case)
        return
    fitting(atlas.model)
    if not Path(case).is_file():
        do = "a model knows no cases by name"
        raise InputError("E-ATL-005", f"no file {case[:60]!r}", file=atlas.name or None, expected="an image", do=do)


def fitting(model: Model) -> Model:
    """A model whose answer to an image is its atlas: the same, or changed where that was chosen otherwise.

    Raises:
        ConfigurationError: E-ATL-010, it fits its atlas to no image.
    """
    if not isinstance(model.method, AtlasISTN):
        found = f"a model of {model.card.method}, which finds no map from its atlas to an image"
        raise ConfigurationError("E-ATL-010", found, file=model.name or None, expected="one of atlas-istn")
    if model.method.chosen.test != "itn":
        return model
    return with_settings(model, {"test": "refine" if model.method.chosen.segments else "one_pass"})


def stem_of(file: Path) -> str:
    """A file's name without the ending that says its format."""
    return Path(file.name.removesuffix(".gz")).stem


def through_atlas(to_a: Transform, to_b: Transform) -> Transform:
    """The map from points of subject A to points of subject B.

    With A fixed and B moving it pulls B's image and labels onto A's grid, as any transform does.

    Args:
        to_a: atlas -> A, world points in mm.
        to_b: atlas -> B.
    """
    return to_b @ to_a.inverse()


def carry(thing: Carried, transform: Transform) -> Carried:
    """Points or a mesh where a map takes them, in the map's direction: atlas -> subject, or A -> B."""
    return replace(thing, points=transform(thing.points))


def labels_in(labels: Labelmap, to_case: Transform, grid: Grid) -> Labelmap:
    """An atlas's labels in a subject's space, y o Phi^-1: each interpolated by itself, the largest wins.

    Args:
        labels: of the atlas.
        to_case: atlas -> subject.
        grid: of the subject.
    """
    return warp(labels, to_case, grid, direction="fixed_to_moving", interpolation="linear")


def image_in(image: Image, to_case: Transform, grid: Grid) -> Image:
    """An atlas's image in a subject's space; outside the atlas its least value."""
    ground = image.data.min()
    return Image(resample(image.data - ground, image.grid, grid, to_case.inverse()) + ground, grid, image.modality)


def meshes_of(labels: Labelmap) -> Iterator[tuple[int, Mesh]]:
    """The surface of each label but 0 that has voxels, in world space.

    Raises:
        ConfigurationError: E-ATL-008, labels in 2-D.

    Warns:
        W-ATL-003: labels without a voxel, which have no surface.
    """
    if labels.grid.ndim != 3:
        raise ConfigurationError("E-ATL-008", "meshes of a 2-D atlas", expected="a 3-D one", do="leave out --meshes")
    values = [value for value in labels.values() if value != 0]
    question_empty(labels)
    ranks = np.searchsorted(values, labels.data.numpy()) + 1 if values else np.zeros(labels.grid.shape, int)
    ranks = np.where(labels.data.numpy() == 0, 0, ranks)
    for value, box in zip(values, find_objects(ranks, len(values)), strict=True):
        start = [max(0, side.start - 3) for side in box]
        stop = [min(n, side.stop + 3) for n, side in zip(labels.grid.shape, box, strict=True)]
        part = labels.data.numpy()[tuple(slice(a, b) for a, b in zip(start, stop, strict=True))] == value
        grid = labels.grid.cropped(start, [b - a for a, b in zip(start, stop, strict=True)])
        yield value, Mesh(*isosurface(_smooth(part), grid))


def _smooth(mask: Bool[np.ndarray, "..."]) -> np.ndarray:
    sharp = mask.astype(np.float64)
    smooth = gaussian_filter(sharp, SMOOTHING_VOXELS)
    return smooth if smooth.max() > 0.5 else sharp


def consistency_scores(
    atlas: Labelmap | Tensor, to_case: Transform, atlas_grid: Grid, case_grid: Grid, names: Mapping[int, str]
) -> list[Score]:
    """MICE and IC-DSC of a map to a subject and back, as table 6 has them for Phi and Phi^-1.

    Args:
        atlas: its labels, or probabilities (1 + labels) I J (K) of the background and of labels 1, 2, ...
        to_case: atlas -> subject.
        atlas_grid, case_grid: where both maps are sampled, as files would have them.
        names: of the labels that count.
    """
    values = atlas.data.numpy().astype(np.int64) if isinstance(atlas, Labelmap) else atlas.double().numpy()
    forward = to_case.displacement_on(atlas_grid).astype(np.float64)
    backward = to_case.inverse().displacement_on(case_grid).astype(np.float64)
    return inverse_consistency_scores(values, forward, atlas_grid.affine, backward, case_grid.affine, names)
