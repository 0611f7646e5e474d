"""How the atlas of a trained model was fitted to an image: the way to the answer, and the map that it gives.

A segmentation by an atlas comes with a map from points of the atlas to points of the image, by which all that is known
on the atlas can be carried over (``inference.correspondence``), and with what it was made from: the network's own
segmentation, and the atlas after one pass.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from anamorph.data.image import Labelmap
from anamorph.data.network_grid import labels_to_native, network_transform
from anamorph.data.plan import Plan
from anamorph.inference.atlas_folder import plan_grid
from anamorph.inference.model_folder import Model
from anamorph.methods.atlas_istn import AtlasISTN
from anamorph.methods.segmentation import probabilities_of_regressed
from anamorph.spatial.grid import Grid
from anamorph.spatial.transform import Transform

Probabilities = Float[Tensor, "classes *net"]


@dataclass(frozen=True, eq=False)
class NetworkFit:
    """A fit on the network's grid, on the CPU.

    Args:
        answer: probabilities of the atlas, fitted: (1 + classes) I J (K).
        network: what the segmentation network says, as probabilities; None of a model that has none.
        one_pass: of the atlas before it was refined; None where it was not.
        forward: points of the atlas to points of the image, d I J (K), voxels.
        losses: of the refinement, at first and after each step.
    """

    answer: Probabilities
    network: Probabilities | None
    one_pass: Probabilities | None
    forward: Float[Tensor, "ndim *net"]
    losses: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class AtlasFit:
    """A fit on the image's own grid.

    Args:
        network: labels by the segmentation network; None of a model that has none.
        one_pass: labels of the atlas before it was refined; None where it was not.
        to_image: atlas -> image, world points in mm; the atlas lies where ``anamorph atlas export`` places it.
        losses: of the refinement, at first and after each step.
    """

    network: Labelmap | None
    one_pass: Labelmap | None
    to_image: Transform
    losses: tuple[float, ...]


def fit_atlas(
    model: Model, image: Float[Tensor, "channels *net"], progress: Callable[[float], None] | None = None
) -> NetworkFit | None:
    """Fit the atlas to a normalised image on the network's grid; None where the model's answer is no atlas.

    Args:
        model: trained.
        image: C I J (K).
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
            found, logits, losses = refinement.transformation, refinement.logits, tuple(refinement.losses[0])
            before = method.atlas_to_case(refinement.one_pass)
        else:
            logits = None if method.image_transformer is None else method.itn(batch)
            found = method.transformation(batch if logits is None else logits)
        answer = _probabilities(method.atlas_to_case(found))
    return NetworkFit(
        answer,
        None if logits is None else _probabilities(logits),
        None if before is None else _probabilities(before),
        found.forward[0].float().cpu(),
        losses,
    )


def fit_on(native: Grid, fit: NetworkFit, plan: Plan, grid: Grid) -> AtlasFit:
    """A fit where the image lies.

    Args:
        native: the image's own grid.
        fit: from ``fit_atlas``.
        plan: of the model.
        grid: the network's grid in the image's world.
    """
    network, one_pass = (
        None if soft is None else labels_to_native(soft, plan, grid, native) for soft in (fit.network, fit.one_pass)
    )
    return AtlasFit(network, one_pass, network_transform(fit.forward, plan_grid(plan), grid), fit.losses)


def _probabilities(regressed: Float[Tensor, "batch classes *net"]) -> Probabilities:
    return probabilities_of_regressed(regressed)[0].float().cpu()
