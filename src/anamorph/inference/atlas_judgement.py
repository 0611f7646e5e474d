"""How an atlas lies to cases: sharpness, bias, and which of them stand apart; of a learnt one by fitting it to them.

A group-wise atlas knows all of it from its build. That of a model is fitted to the cases of a cohort one after the
other, so memory does not grow with their number. With Phi_i = T_i o phi_i from the atlas to case i, each gives

    sharpness and similarity        of x_i o Phi_i, beside the atlas's image
    deformation                     mean length of phi_i(x) - x in the foreground, mm
    bias                            mean length of the mean of phi_i(x) - x over the cases, likewise

Images are normalised as the network sees them. Of a prepared cohort that was prepared as the model's, its tensors are
taken, with any alignment to a reference that no single image could be given.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from safetensors import SafetensorError
from torch import Tensor

from anamorph.data.cohort import Cohort, Scan, Split
from anamorph.data.files import read
from anamorph.data.network_grid import image_to_network
from anamorph.data.plan import Plan
from anamorph.data.prepared import PreparedCohort, PreparedScan
from anamorph.errors import ConfigurationError, InputError, warn
from anamorph.evaluation.appearance import normalised_cross_correlation
from anamorph.evaluation.atlas_quality import OUTLIER, foreground, mean_length_mm, robust_z, sharpness
from anamorph.inference.atlas_cases import Cases, scans_of
from anamorph.inference.atlas_folder import Atlas, AtlasQuality, CaseFacts
from anamorph.inference.atlas_segmentation import fit_atlas
from anamorph.inference.correspondence import fitting
from anamorph.inference.memory import check_network_memory
from anamorph.inference.model_domain import admitted, finite, mask_for, own_grid, refuse_flat
from anamorph.inference.model_folder import Model
from anamorph.inference.model_variants import with_settings
from anamorph.methods.atlas_istn import AtlasISTN
from anamorph.pairwise.groupwise import deformation_on
from anamorph.pairwise.preparation import shape_with_voxels
from anamorph.pairwise.register import Progress
from anamorph.spatial.field import resize, warp
from anamorph.spatial.grid import Grid

MEASURED_VOXELS = 100_000
"""Voxels on which deformations are measured."""

Picture = Float[np.ndarray, "channels *spatial"]


def measured_on(grid: Grid) -> Grid:
    """Where the deformations of an atlas on a grid are measured."""
    return grid.resized(shape_with_voxels(grid, MEASURED_VOXELS))


def shown_on(image: Float[Tensor, "*spatial"], grid: Grid) -> Bool[np.ndarray, "..."]:
    """The foreground of an atlas's image on that grid."""
    return foreground(resize(image[None, None], grid.shape)[0, 0].numpy())


def beside_each_other(rows: Sequence[tuple[str, float, float]]) -> Iterator[CaseFacts]:
    """Each case beside the others.

    Args:
        rows: name, similarity (0 in place of NaN), and deformation in mm.
    """
    rows = [(name, alike if np.isfinite(alike) else 0.0, length) for name, alike, length in rows]
    unlike = robust_z([1 - alike for _, alike, _ in rows])
    moved = robust_z([length for _, _, length in rows])
    for (name, alike, length), z_unlike, z_moved in zip(rows, unlike, moved, strict=True):
        yield CaseFacts(
            case=name, similarity=alike, deformation_mm=length, z_dissimilarity=z_unlike, z_deformation=z_moved,
            apart=max(z_unlike, z_moved) > OUTLIER,
        )  # fmt: skip


def judge_atlas(
    atlas: Atlas,
    cohort: Cohort | PreparedCohort,
    split: Split | None = None,
    modality: str | None = None,
    *,
    refined: bool = False,
    progress: Progress | None = None,
) -> Atlas:
    """The atlas of a model, judged by cases that it is fitted to.

    A case that cannot be read or fitted is left out, with a warning (W-ATL-001).

    Args:
        atlas: from ``read_atlas``, on the device that it was read to.
        cohort: of scans such as the model's; those of modalities that it does not know have no part in it.
        split: whose cases; all if absent.
        modality: of the scans, where the model knows several.
        refined: whether each fit is refined as the model's settings say; by default it is one pass.
        progress: told of the cases.

    Raises:
        ConfigurationError: as ``check_judgement``; E-ATL-006, which modality?
        InputError: E-ATL-002, fewer than two cases can be used.

    Warns:
        W-MOD-014: the training's images were aligned to a reference, and these are not.
    """
    model = with_settings(check_judgement(atlas, refined), {"test": "refine" if refined else "one_pass"})
    plan = model.card.plan
    whole = cohort.cohort if isinstance(cohort, PreparedCohort) else cohort
    tensors: Mapping[str, PreparedScan] = {}
    if isinstance(cohort, PreparedCohort) and _same_view(cohort.plan, plan):
        tensors = cohort.by_name
    if not tensors and plan.alignment in ("reference", "given"):
        found = "the images of the training were aligned to a reference; these are only centred"
        warn("W-MOD-014", f"{found}; give the cohort that was prepared for it", file=atlas.name or None)
    known = {name.lower() for name in ((model.card.modality,) if model.card.modality else plan.modalities)}
    part = replace(whole, scans=tuple(scan for scan in whole.scans if scan.modality.lower() in known))
    scans = {scan.name: scan for scan in scans_of(part, split, modality)}
    quality = _Fits(atlas, model, tensors).quality(Cases(scans, progress))
    return replace(atlas, judged=replace(quality, fitted="with refinement" if refined else "in one pass"))


def check_judgement(atlas: Atlas, refined: bool) -> Model:
    """The model that fits its atlas to cases.

    Raises:
        ConfigurationError: E-ATL-018, the atlas is no model's; E-ATL-010, of a model that fits it to no image;
            E-MOD-021, of one that has nothing to refine by.
    """
    if atlas.model is None:
        found, do = "an atlas that no model learnt, with a cohort to judge it by", "leave it out: its card tells all"
        raise ConfigurationError("E-ATL-018", found, file=atlas.name or None, expected="the atlas of a model", do=do)
    model = fitting(atlas.model)
    assert isinstance(model.method, AtlasISTN)
    if refined and not model.method.chosen.segments:
        found = "its networks were not taught to segment, so there is nothing to refine by"
        raise ConfigurationError("E-MOD-021", found, file=atlas.name or None, do="leave out --refine")
    return model


def _same_view(one: Plan, other: Plan) -> bool:
    """Whether two plans make the same tensors of an image."""
    first, second = (plan.model_dump(exclude={"labels", "learn_as"}) for plan in (one, other))
    return first == second


class _Seen(NamedTuple):
    """What a case shows of itself: see the module."""

    sharpness: float
    similarity: float
    deformation_mm: float
    displacement_mm: Float[np.ndarray, "ndim *spatial"]


class _Fits:
    """Fits of the atlas of a model.

    Args:
        atlas: what is fitted.
        model: what fits it.
        tensors: scans that are there as the network sees them, by name.
    """

    def __init__(self, atlas: Atlas, model: Model, tensors: Mapping[str, PreparedScan]) -> None:
        self.atlas, self.model, self.tensors = atlas, model, tensors
        image = atlas.image.data
        self.picture, self.measured = image.numpy(), measured_on(atlas.grid)
        self.shown, self.small = foreground(self.picture[0]), shown_on(image[0], self.measured)

    def quality(self, cases: Cases) -> AtlasQuality:
        """What all of them say of the atlas."""
        total = np.zeros((self.atlas.grid.ndim, *self.measured.shape))
        sharpnesses, rows = [], []
        for scan, seen in cases.each("fit", self.fitted):
            total += seen.displacement_mm
            sharpnesses.append(seen.sharpness)
            rows.append((scan.name, seen.similarity, seen.deformation_mm))
        lengths = float(np.mean([length for *_, length in rows])), mean_length_mm(total / len(rows), self.small)
        method = self.model.method
        linear = isinstance(method, AtlasISTN) and method.chosen.stn == "affine"
        share = self._sharpness(self.picture) / max(float(np.mean(sharpnesses)), 1e-12)
        found = tuple(beside_each_other(rows))
        return AtlasQuality(share, found, dict(cases.left_out), *((None, None) if linear else lengths))

    def fitted(self, scan: Scan) -> _Seen:
        """One case."""
        image, grid, native = self._view(scan)
        fit = fit_atlas(self.model, image, grid, native)
        assert fit is not None
        with torch.inference_mode():
            forward = fit.found.forward
            own = finite(warp(image[None].to(forward), forward, outside="border"))[0].cpu().numpy()
            there = (warp(torch.ones_like(forward[:, :1]), forward)[0, 0] > 0.5).cpu().numpy()
        inside = np.broadcast_to(self.shown & there, self.picture.shape)
        moved = deformation_on(fit.to_image, self.measured)
        return _Seen(
            self._sharpness(own),
            normalised_cross_correlation(self.picture, own, inside),
            mean_length_mm(moved, self.small),
            moved,
        )

    def _sharpness(self, picture: Picture) -> float:
        """Mean over the channels."""
        return float(np.mean([sharpness(channel, self.atlas.grid.affine, self.shown) for channel in picture]))

    def _view(self, scan: Scan) -> tuple[Float[Tensor, "channels *net"], Grid, Grid]:
        """A case as the network sees it, the network's grid in its world, and its own."""
        prepared, plan = self.tensors.get(scan.name), self.model.card.plan
        if prepared is not None:
            try:
                return prepared.load()["image"], prepared.grid, prepared.native
            except (OSError, SafetensorError, KeyError):
                do = "run anamorph prepare again"
                raise InputError("E-TRN-002", "missing or damaged", file=prepared.file, do=do) from None
        image = admitted(self.model, read(scan.image, modality=scan.modality))
        check_network_memory(plan.shape, (image.grid,), self.model.device, classes=len(plan.labels))
        refuse_flat(image)
        content, grid = plan.modalities[image.modality or ""].content, own_grid(image, plan)
        mask = mask_for(image, scan.mask, plan) if content == "mask" and scan.mask is not None else None
        return image_to_network(image, plan, grid, mask), grid, image.grid
