"""What a report is made from: arrays on the fixed grid and plain mappings, never files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any, Literal

import numpy as np
from jaxtyping import Int, Num

from anamorph.types import Matrix

Volume = Num[np.ndarray, "..."]


@dataclass(frozen=True, eq=False, kw_only=True)
class ReportInputs:
    """Everything that a report may show; what is absent leaves its section out.

    Args:
        title: what was done, as ``mr.nii.gz onto ct.nii.gz``.
        kind: what the page is about; of a segmentation ``fixed`` is the image, and ``fixed_labels`` is the truth. Of a
            translation ``fixed`` is the source, and ``further_images`` are called as in ``report.translation``.
        status: ``failed`` where the run ended in a refusal; ``message`` then says why, code included.
        affine: (d+1) x (d+1), voxel -> RAS mm, of the fixed grid, on which every array below lives.
        fixed: I J (K).
        before: the moving image brought over by its header alone, or by the given initial transform.
        warped: the moving image after registration.
        fixed_modality: of ``fixed``, which decides its grey window.
        moving_modality: as above, for ``before`` and ``warped``.
        windows: of a translation: the values that are black and white, by modality, where its model knows them. Of all
            else as ``figures.window_of`` finds them.
        displacement_mm: d I J (K), RAS mm, fixed -> moving.
        jacobian: determinant of the whole map, I J (K).
        fixed_labels: integers, 0 is background.
        warped_labels: the moving image's labels after registration.
        found_labels: what a segmentation found.
        earlier_labels: what it went by on its way there, first things first, by name.
        atlas_displacement_mm: d I J (K), RAS mm, from the image to the atlas that was fitted to it.
        uncertainty: of a segmentation by atlases, how much they disagree at each voxel, 0 to 1.
        atlases: what each of them did: ``name rank similarity used agreement seconds cached warnings failure``.
        label_names: integer -> name.
        further_images: more images on the fixed grid to leaf through in the viewer, by name.
        scores: rows with ``metric label unit value reason``. A row may also say its ``stage``, ``before`` or ``after``
            (the default); both of one metric are shown together.
        warnings: one line each, ``W-XXX-nnn: text``.
        settings: the resolved configuration; mappings may be nested.
        facts: what ran on what (version, inputs, geometry, seed, memory); a nested mapping becomes a card of its own.
        seconds_by_stage: wall time in s, in the order of the stages.
        loss_by_stage: the loss at each iteration of a stage.

    Raises:
        ValueError: an array does not fit the others' shape, or arrays come without an affine.
    """

    title: str
    kind: Literal["registration", "segmentation", "translation"] = "registration"
    status: Literal["complete", "failed"] = "complete"
    message: str = ""
    affine: Matrix | None = None
    fixed: Volume | None = None
    before: Volume | None = None
    warped: Volume | None = None
    fixed_modality: str | None = None
    moving_modality: str | None = None
    windows: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    displacement_mm: Num[np.ndarray, "ndim ..."] | None = None
    jacobian: Volume | None = None
    fixed_labels: Int[np.ndarray, "..."] | None = None
    warped_labels: Int[np.ndarray, "..."] | None = None
    found_labels: Int[np.ndarray, "..."] | None = None
    earlier_labels: Mapping[str, Int[np.ndarray, "..."]] = field(default_factory=dict)
    atlas_displacement_mm: Num[np.ndarray, "ndim ..."] | None = None
    uncertainty: Volume | None = None
    atlases: Sequence[Mapping[str, Any]] = ()
    label_names: Mapping[int, str] = field(default_factory=dict)
    further_images: Mapping[str, Volume] = field(default_factory=dict)
    scores: Sequence[Mapping[str, Any]] = ()
    warnings: Sequence[str] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    seconds_by_stage: Mapping[str, float] = field(default_factory=dict)
    loss_by_stage: Mapping[str, Sequence[float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        arrays = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "affine"}
        shapes = {name: array.shape for name, array in arrays.items() if isinstance(array, np.ndarray)}
        shapes |= {name: array.shape for name, array in self.further_images.items()}
        shapes |= {name: labels.shape for name, labels in self.earlier_labels.items()}
        shapes |= {name: shapes[name][1:] for name in ("displacement_mm", "atlas_displacement_mm") if name in shapes}
        if not shapes:
            return
        if len(set(shapes.values())) > 1:
            raise ValueError(f"every array of a report lies on the fixed grid, found shapes {shapes}")
        if self.affine is None or self.affine.shape != (len(self.shape) + 1,) * 2:
            found = None if self.affine is None else self.affine.shape
            raise ValueError(f"shape {self.shape} needs an affine of its dimension, found {found}")

    @cached_property
    def labels(self) -> tuple[int, ...]:
        """The labels of every labelmap, sorted, without the background; a label's place decides its colour."""
        maps = [*(labelmap for _, labelmap in self.labelmaps), *self.earlier_labels.values()]
        values = {value for labelmap in maps for value in np.unique(labelmap[labelmap != 0]).tolist()}
        return tuple(sorted(values))

    @property
    def labelmaps(self) -> tuple[tuple[str, Int[np.ndarray, "..."]], ...]:
        """Name and values of those that there are."""
        maps = (("fixed", self.fixed_labels), ("warped", self.warped_labels), ("found", self.found_labels))
        return tuple((name, labelmap) for name, labelmap in maps if labelmap is not None)

    def label_name(self, label: int) -> str:
        """The name given to a label, or its number."""
        return self.label_names.get(label, f"label {label}")

    @property
    def shape(self) -> tuple[int, ...]:
        """Voxels of the fixed grid along each axis; empty where the report has no image."""
        images = (self.fixed, self.before, self.warped, self.jacobian, *(labels for _, labels in self.labelmaps))
        for image in (*images, *self.further_images.values()):
            if image is not None:
                return image.shape
        return () if self.displacement_mm is None else self.displacement_mm.shape[1:]
