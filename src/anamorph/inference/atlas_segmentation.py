"""How the atlas of a trained model was fitted to an image: the way to the answer, and the map that it gives.

A segmentation by an atlas comes with a map from points of the atlas to points of the image, by which all that is known
on the atlas can be carried over (``inference.correspondence``), and with what it was made from: the network's own
segmentation, and the atlas after one pass. Of these, what nobody asks for is not computed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from anamorph.data.image import Labelmap
from anamorph.data.network_grid import labels_to_native
from anamorph.data.plan import Plan
from anamorph.inference.atlas_folder import plan_grid
from anamorph.inference.model_folder import Model
from anamorph.methods.atlas_istn import AtlasISTN, AtlasTransformation
from anamorph.methods.segmentation import probabilities_of_regressed
from anamorph.spatial.grid import Grid
from anamorph.spatial.transform import Affine, Chain, Transform, Velocity

Probabilities = Float[Tensor, "classes *net"]


@dataclass(frozen=True, eq=False)
class AtlasFit:
    """A fit of a model's atlas to an image.

    Args:
        method: of the model.
        plan: of the model.
        grid: the network's grid in the image's world.
        native: the image's own grid.
        found: the fit.
        before: the same before it was refined; None where it was not.
        logits: of the segmentation network, 1 (1 + classes) I J (K); None of a model that has none.
        losses: of the refinement, at first and after each step.
    """

    method: AtlasISTN
    plan: Plan
    grid: Grid
    native: Grid
    found: AtlasTransformation
    before: AtlasTransformation | None
    logits: Float[Tensor, "1 classes *net"] | None
    losses: tuple[float, ...]

    def probabilities(self) -> Probabilities:
        """Of the atlas, fitted, on the network's grid and the CPU: (1 + classes) I J (K)."""
        return self._fitted(self.found)

    @cached_property
    def network(self) -> Labelmap | None:
        """Labels by the segmentation network; None of a model that has none."""
        return None if self.logits is None else self._labels(_probabilities(self.logits))

    @cached_property
    def one_pass(self) -> Labelmap | None:
        """Labels of the atlas before it was refined; None where it was not."""
        return None if self.before is None else self._labels(self._fitted(self.before))

    @cached_property
    def to_image(self) -> Transform:
        """Atlas -> image, world points in mm; the atlas lies where ``anamorph atlas export`` places it."""
        return world_map(self.found, plan_grid(self.plan), self.grid)

    def _fitted(self, transformation: AtlasTransformation) -> Probabilities:
        with torch.inference_mode():  # of a copy, else the maps would be kept as long as the fit
            return _probabilities(self.method.atlas_to_case(replace(transformation)))

    def _labels(self, probabilities: Probabilities) -> Labelmap:
        return labels_to_native(probabilities, self.plan, self.grid, self.native)


def fit_atlas(
    model: Model,
    image: Float[Tensor, "channels *net"],
    grid: Grid,
    native: Grid,
    progress: Callable[[float], None] | None = None,
) -> AtlasFit | None:
    """Fit the atlas to a normalised image on the network's grid; None where the model's answer is no atlas.

    Args:
        model: trained.
        image: C I J (K).
        grid: the network's grid in the image's world.
        native: the image's own grid.
        progress: told how much of a refinement is done.
    """
    method = model.method
    if not isinstance(method, AtlasISTN) or method.chosen.test == "itn":
        return None
    batch = image[None].to(model.device)
    with torch.inference_mode():
        before, losses = None, ()
        if method.chosen.test == "refine":
            refinement = method.refine(batch, progress=progress)
            found, before, logits = refinement.transformation, refinement.one_pass, refinement.logits
            losses = tuple(refinement.losses[0])
        else:
            logits = None if method.image_transformer is None else method.itn(batch)
            found = method.transformation(batch if logits is None else logits)
        logits = None if logits is None else logits.cpu()
    return AtlasFit(method, model.card.plan, grid, native, found, before, logits, losses)


def world_map(found: AtlasTransformation, atlas: Grid, case: Grid) -> Chain:
    """Phi = T o exp(v) from points of the atlas to those of the case, mm, with T everywhere and an exact inverse.

    Args:
        found: of one case.
        atlas, case: the network's grid in either world.
    """
    linear = np.eye(atlas.ndim + 1) if found.matrix is None else found.matrix[0].double().cpu().numpy()
    affine = Affine(case.affine @ linear @ atlas.inverse_affine)
    velocity = found.velocity[0].float().cpu()
    if not bool(velocity.any()):
        return Chain((affine,))
    halves = np.diag([*[2.0] * atlas.ndim, 1.0])
    halves[:-1, -1] = 0.5  # where the middle of two voxels is
    grid = Grid(tuple(velocity.shape[1:]), atlas.affine @ halves)
    to_mm = torch.tensor(grid.affine[:-1, :-1]).to(velocity)
    return Chain((Velocity(torch.tensordot(to_mm, velocity, dims=1), grid, found.squarings), affine))


def _probabilities(regressed: Float[Tensor, "1 classes *net"]) -> Probabilities:
    return probabilities_of_regressed(regressed)[0].float().cpu()
