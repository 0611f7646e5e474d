"""An atlas as a folder, or as what a trained model holds of one.

=====================================  ======================================================================
``atlas_image.nii.gz``                 the template, intensities from 0 to 1
``atlas_labels.nii.gz``                the likeliest label of every voxel, where cases had labels
``atlas_probabilities_VALUE.nii.gz``   of each label, and of the background as 0
``atlas.json``                         the ``AtlasCard``, written last: cases, rounds, quality, who stands apart
``report.html``                        the page
``rounds``                             see ``atlas_rounds``
=====================================  ======================================================================

A model folder holds an atlas where its method has buffers ``atlas_image`` and ``atlas_labels``, on the network's grid.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError
from torch import Tensor

from anamorph.data.files import atomic_write, label_dtype, read, write
from anamorph.data.image import Image, Labelmap
from anamorph.data.landmark_formats import listed
from anamorph.data.network_grid import network_grid
from anamorph.data.plan import Plan
from anamorph.errors import InputError, warn
from anamorph.evaluation.topology import Topology, label_topology
from anamorph.inference.atlas_rounds import RoundFolder, read_map
from anamorph.inference.model_card import CARD as MODEL_CARD
from anamorph.inference.model_card import first_problem, model_name
from anamorph.inference.model_folder import Model, read_model
from anamorph.pairwise.groupwise import centred
from anamorph.spatial.grid import Grid
from anamorph.spatial.transform import Chain

CARD = "atlas.json"
IMAGE, LABELS, PROBABILITIES = "atlas_image", "atlas_labels", "atlas_probabilities"
MOST_CARD_BYTES = 1 << 26

_STRICT = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)


class RoundFacts(BaseModel):
    """What a round did to the template."""

    model_config = _STRICT

    number: int
    """From 1."""
    kind: str
    """The map that was looked for."""
    cases: int
    """That took part."""
    change: float
    """Root mean square change of the template in the foreground, as a share of its contrast (standard deviation)."""
    deformation_mm: float
    """Mean length of the cases' deformations in the foreground, linear parts aside."""
    mean_deformation_mm: float
    """Length of their mean: 0 for a template in the middle of its cases."""
    sharpness: float
    """Of the template, intensity per mm."""
    relative_sharpness: float
    """As a share of that of the warped cases, on average."""


class CaseFacts(BaseModel):
    """How a case lies to the finished atlas."""

    model_config = _STRICT

    case: str
    """Its name."""
    similarity: float
    """Normalised cross-correlation with the atlas in the foreground."""
    deformation_mm: float
    """Mean length of its deformation in the foreground, its linear part aside."""
    z_dissimilarity: float
    """Robust z of 1 - similarity among the cases."""
    z_deformation: float
    """Robust z of the deformation."""
    apart: bool = False
    """Whether one of them is above 3.5."""


class AtlasCard(BaseModel):
    """What is known of an atlas that was built group-wise."""

    model_config = _STRICT

    version: Literal[1] = 1
    """Of this file's layout."""
    modality: str | None = None
    """Of the cases."""
    shape: tuple[int, ...]
    """Voxels of its grid."""
    affine: tuple[tuple[float, ...], ...]
    """Voxel -> RAS mm of its grid."""
    labels: dict[int, str] = {}
    """Value -> name."""
    labelled: int = 0
    """Cases that had labels."""
    left_out: dict[str, str] = {}
    """Case -> why it has no part in it."""
    rounds: tuple[RoundFacts, ...] = ()
    """In order; the cases' maps are those of the last."""
    cases: tuple[CaseFacts, ...] = ()
    """In order."""
    settings: dict[str, JsonValue] = {}
    """Of the build."""
    environment: dict[str, str | int | None] = {}
    """Versions that it was built with."""


@dataclass(frozen=True)
class AtlasQuality:
    """How an atlas lies to cases.

    Args:
        relative_sharpness: as in ``RoundFacts``, like the lengths.
        cases: in order.
        left_out: case -> why it has no part in it.
        deformation_mm, mean_deformation_mm: None where maps are linear.
        fitted: how the atlas of a model came to the cases, in words; empty of a group-wise one.
    """

    relative_sharpness: float
    cases: tuple[CaseFacts, ...]
    left_out: Mapping[str, str]
    deformation_mm: float | None = None
    mean_deformation_mm: float | None = None
    fitted: str = ""


@dataclass(frozen=True, eq=False)
class Atlas:
    """An image of the group, and what is known of its labels.

    Args:
        image: C I J (K).
        names: label value -> name, in the order of ``probabilities`` behind the background.
        probabilities: of the background and of each label, (1 + labels) I J (K); None without labels.
        name: of its folder.
        card: of a group-wise atlas.
        model: that it comes from.
        folder: where its files are.
        judged: of a model's, by cases that it was fitted to.
    """

    image: Image
    names: Mapping[int, str] = field(default_factory=dict)
    probabilities: Float[Tensor, "classes *spatial"] | None = None
    name: str = ""
    card: AtlasCard | None = None
    model: Model | None = None
    folder: Path | None = None
    judged: AtlasQuality | None = None

    def __repr__(self) -> str:
        return f"Atlas({self.name or 'unnamed'}, {self.image.grid!r}, {len(self.names)} labels)"

    @property
    def grid(self) -> Grid:
        """Of image and labels."""
        return self.image.grid

    def labels(self) -> Labelmap | None:
        """The likeliest label of every voxel, the lower class at a tie; None without labels."""
        if self.probabilities is None:
            return None
        values = np.array([0, *self.names])
        data = values[np.argmax(self.probabilities.numpy(), axis=0)].astype(np.int32)
        return Labelmap(torch.from_numpy(data), self.grid, label_dtype(data, np.dtype(np.uint8)), dict(self.names))

    @property
    def quality(self) -> AtlasQuality | None:
        """How it lies to the cases that it was built from or fitted to; None where that is not known."""
        if self.card is None or not self.card.rounds:
            return self.judged
        last, card = self.card.rounds[-1], self.card
        lengths = (last.deformation_mm, last.mean_deformation_mm) if last.kind == "deformable" else (None, None)
        return AtlasQuality(last.relative_sharpness, card.cases, card.left_out, *lengths)

    def topology(self) -> dict[int, Topology]:
        """Of each label."""
        labels = self.labels()
        return {} if labels is None else label_topology(labels.data.numpy(), self.names)

    def to_case(self, case: str) -> tuple[Chain, Grid]:
        """The map from the atlas to one of its cases, and that case's grid.

        Args:
            case: ``CASE_MODALITY``, or its case alone.

        Raises:
            InputError: E-ATL-005, it is none of its cases, or its map is not there any more.
        """
        known = [] if self.card is None else [facts.case for facts in self.card.cases]
        wanted = case
        if self.card is not None and case not in known:
            case = f"{case}_{self.card.modality}"
        if case not in known or self.card is None or self.folder is None:
            shown = ", ".join(known[:10]) + (", ..." if len(known) > 10 else "")
            found = f"no case {wanted[:60]!r}"
            if self.model is not None:
                raise InputError("E-ATL-005", found, file=self.name, do="a model keeps no maps; give an image")
            raise InputError("E-ATL-005", found, file=self.name, expected=shown)
        files = RoundFolder(self.folder, len(self.card.rounds))
        stored, mean = read_map(files.map_file(case)), read_map(files.mean_file)
        if stored is None or mean is None or stored.grid is None:
            found, do = f"the map of {case} is missing or damaged", "build the atlas again"
            raise InputError("E-ATL-005", found, file=files.map_file(case), do=do)
        return centred(stored.transform, mean.transform), stored.grid


def question_empty(labels: Labelmap) -> None:
    """Tell (W-ATL-003) of an atlas's labels that are nowhere the likeliest."""
    there = set(labels.values())
    missing = [f"{name} ({value})" for value, name in labels.names.items() if value not in there]
    if missing:
        warn("W-ATL-003", f"no voxel of the atlas has {listed(missing)}: nowhere the likeliest")


def write_atlas(atlas: Atlas, folder: Path) -> None:
    """Write ``files_of`` an atlas, the card last."""
    for name, values in zip(_image_files(atlas), atlas.image.data, strict=True):
        write(Image(values[None].contiguous(), atlas.grid), folder / name)
    labels = atlas.labels()
    if labels is not None and atlas.probabilities is not None:
        write(labels, folder / f"{LABELS}.nii.gz")
        for name, layer in zip(_probability_files(atlas), atlas.probabilities, strict=True):
            write(Image(layer[None].contiguous(), atlas.grid), folder / name)
    if atlas.card is not None:
        with atomic_write(folder / CARD) as part:
            part.write_text(atlas.card.model_dump_json(indent=1) + "\n", encoding="utf-8")


def files_of(atlas: Atlas) -> list[str]:
    """Names of the files that hold an atlas: image, labels and probabilities, and the card of one that was built.

    An image of several channels becomes ``atlas_image_0.nii.gz``, ``atlas_image_1.nii.gz`` and so on.
    """
    labels = [] if atlas.probabilities is None else [f"{LABELS}.nii.gz", *_probability_files(atlas)]
    return [*_image_files(atlas), *labels, *([] if atlas.card is None else [CARD])]


def _image_files(atlas: Atlas) -> list[str]:
    channels = range(len(atlas.image.data))
    return [f"{IMAGE}.nii.gz"] if len(channels) == 1 else [f"{IMAGE}_{n}.nii.gz" for n in channels]


def _probability_files(atlas: Atlas) -> list[str]:
    return [f"{PROBABILITIES}_{value}.nii.gz" for value in (0, *atlas.names)]


def read_atlas(folder: str | Path, device: str = "cpu") -> Atlas:
    """The atlas of a folder that ``write_atlas`` left, or of a trained model's.

    Args:
        folder: of the atlas, the model, or the training that left it.
        device: where a model computes.

    Raises:
        InputError: E-ATL-001, no atlas there; E-ATL-003, a model without one; else as in ``read`` and ``read_model``.
    """
    folder = Path(folder)
    if (folder / CARD).is_file():
        return _read(folder)
    for place in (folder, folder / "model"):  # a training run has its model inside
        if (place / MODEL_CARD).is_file():
            return atlas_of(read_model(place, device), place)
    expected = f"{CARD} of an atlas, or {MODEL_CARD} of a model"
    raise InputError("E-ATL-001", "no atlas", file=folder, expected=expected, do="build one with anamorph atlas build")


def _read(folder: Path) -> Atlas:
    path = folder / CARD
    try:
        with path.open("rb") as file:
            card = AtlasCard.model_validate_json(file.read(MOST_CARD_BYTES))
        grid = Grid(card.shape, np.array(card.affine))
    except (OSError, ValidationError, ValueError) as error:
        found = first_problem(error) if isinstance(error, ValidationError) else "an unreadable card"
        raise InputError("E-ATL-001", found, file=path, expected="an atlas's card") from None
    image = Image(_on(grid, folder / f"{IMAGE}.nii.gz"), grid, card.modality, name=folder.name)
    probabilities = None
    if card.labels:
        files = (folder / f"{PROBABILITIES}_{value}.nii.gz" for value in (0, *card.labels))
        probabilities = torch.cat([_on(grid, file) for file in files])
    return Atlas(image, dict(card.labels), probabilities, folder.resolve().name, card, None, folder)


def _on(grid: Grid, path: Path) -> Tensor:
    """The values of a file of the atlas; its grid has lost digits that the card still has."""
    found = read(path)
    if found.grid.shape != grid.shape or found.grid.distance_mm(grid) > 0.01:
        raise InputError("E-ATL-001", "another grid than the card's", file=path, do="build the atlas again")
    return found.data


def atlas_of(model: Model, folder: Path | None = None) -> Atlas:
    """The atlas that a trained model holds, on the network's grid.

    The grid's middle is the plan's, and the world's origin where it has none: such an atlas lies in no scanner's space.

    Args:
        model: whose method has buffers ``atlas_image``, 1 C I J (K), and ``atlas_labels``, 1 (1 + classes) I J (K).
        folder: of the model.

    Raises:
        InputError: E-ATL-003, it has none.
    """
    buffers = dict(model.method.named_buffers())
    plan = model.card.plan
    image, labels = (buffers.get(name) for name in (IMAGE, LABELS))
    if image is None or labels is None or image.shape[2:] != plan.shape or labels.shape[1] != 1 + len(plan.labels):
        found = f"a model of {model.card.method}, which holds no atlas"
        raise InputError("E-ATL-003", found, file=model.name or None, expected="one that learns an atlas")
    grid = plan_grid(plan)
    values = image[0].detach().float().cpu()
    soft = labels[0].detach().float().cpu().clamp_min(0)
    soft = soft / soft.sum(0).clamp_min(1e-6)
    name = "" if folder is None else model_name(folder)
    return Atlas(Image(values, grid, model.card.modality), dict(plan.labels), soft, name, None, model, folder)


def plan_grid(plan: Plan) -> Grid:
    """The network's grid where no image says where it lies."""
    nowhere = Image(torch.zeros(1, *plan.shape), Grid.from_spacing(plan.shape, plan.spacing))
    middle = np.zeros(plan.ndim) if plan.middle is None else np.array(plan.middle)
    return network_grid(nowhere, plan, middle=middle)


def evolution_of(atlas: Atlas) -> list[tuple[str, Float[np.ndarray, "*spatial"]]]:
    """The template before the first round and after each, as far as they are there."""
    found = []
    for number in range(0 if atlas.card is None else len(atlas.card.rounds) + 1):
        path = RoundFolder(atlas.folder or Path(), number).template_file
        if path.is_file():
            found.append(("start" if number == 0 else f"round {number}", _on(atlas.grid, path)[0].numpy()))
    return found


def facts_of(atlas: Atlas) -> dict[str, Any]:
    """What a reader is told first, in words."""
    grid = atlas.grid
    spacing = " x ".join(f"{length:.4g}" for length in grid.spacing)
    facts: dict[str, Any] = {"grid": f"{' x '.join(map(str, grid.shape))} voxels of {spacing} mm"}
    if atlas.model is not None:
        card = atlas.model.card
        epochs = card.trained.get("epochs", atlas.model.card.trained.get("epoch_of_weights"))
        facts |= {"from": f"a model of {card.method}"} | ({} if epochs is None else {"epochs": epochs})
    if atlas.judged is not None:
        facts |= {"cases": len(atlas.judged.cases), "fitted": atlas.judged.fitted}
    if atlas.card is not None:
        facts["cases"] = len(atlas.card.cases)
        facts["rounds"] = len(atlas.card.rounds)
    facts["labels"] = ", ".join(atlas.names.values()) or "none"
    return facts
