"""Small copies of the volumes for the interactive viewer: 8-bit NIfTI, gzip, base64.

A copy keeps the fixed grid's world frame. Where its share of the page does not suffice it is averaged down, finest axes
first, until it does; labels are taken at the nearest voxel.
"""

from __future__ import annotations

import base64
import gzip
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import nibabel
import numpy as np
from scipy import sparse

from anamorph.report.figures import to_grey, window_of
from anamorph.report.inputs import ReportInputs
from anamorph.report.translation import TRANSLATED, TRUE, window_of_target
from anamorph.spatial.grid import Grid

# Characters of base64 a volume: a pair with labels stays under 5 MB, 40 images under 30 MB.
SHARE = 800_000
SHARE_OF_MANY = 560_000
SHARE_OF_LABELS = 300_000
FEW = 4


@dataclass(frozen=True)
class ViewerVolume:
    """One volume in the page.

    Args:
        key: fit for an identifier.
        name: what a reader calls it.
        kind: decides colours and interpolation.
        base64: the NIfTI file, gzip-compressed.
    """

    key: str
    name: str
    kind: Literal["image", "labels"]
    base64: str

    @property
    def choice(self) -> tuple[str, str]:
        """Value and text of a control that selects it."""
        return self.key, self.name


def viewer_volumes(inputs: ReportInputs) -> tuple[ViewerVolume, ...]:
    """The volumes of a 3-D report, each within its share of the page; none in 2-D, which the pictures show wholly."""
    if len(inputs.shape) != 3 or inputs.affine is None:
        return ()
    fixed_window = window_of((inputs.fixed,), inputs.fixed_modality, inputs.windows)
    moving_window = window_of((inputs.before, inputs.warped), inputs.moving_modality)
    segmented = inputs.kind == "segmentation"
    images = [
        ("fixed", "Fixed" if inputs.kind == "registration" else "Image", inputs.fixed, fixed_window),
        ("warped", "Warped", inputs.warped, moving_window),
        ("before", "Before", inputs.before, moving_window),
    ]
    for place, (name, image) in enumerate(inputs.further_images.items()):
        window = window_of_target(inputs) if name in (TRANSLATED, TRUE) else window_of((image,), None)
        images.append((f"further-{place}", name, image, window))
    labelmaps = [
        ("found-labels", "Segmentation", inputs.found_labels),
        ("fixed-labels", "True labels" if segmented else "Fixed labels", inputs.fixed_labels),
        ("warped-labels", "Warped labels", inputs.warped_labels),
    ]
    share = SHARE if len(images) <= FEW else SHARE_OF_MANY
    volumes = [
        ViewerVolume(key, name, "image", _embed_image(image, window, inputs.affine, share))
        for key, name, image, window in images
        if image is not None
    ]
    volumes += [
        ViewerVolume(key, name, "labels", _embed_labels(labelmap, inputs.labels, inputs.affine, SHARE_OF_LABELS))
        for key, name, labelmap in labelmaps
        if labelmap is not None
    ]
    return tuple(volumes)


def _embed_image(image: np.ndarray, window: tuple[float, float], affine: np.ndarray, share: int) -> str:
    grid = Grid(image.shape, affine)
    grey = to_grey(image, window)
    shape = _shape_within(grid, 4 * share)
    while True:
        small = _averaged(grey, shape)
        encoded = _encode(np.rint(small * 255).astype(np.uint8), grid, "none")
        if len(encoded) <= share:
            return encoded
        shape = _shape_within(grid, int(0.97 * small.size * share / len(encoded)))


def _embed_labels(labelmap: np.ndarray, labels: Sequence[int], affine: np.ndarray, share: int) -> str:
    """Labels by their place among ``labels``, from 1, so that any integers fit into few bits."""
    grid = Grid(labelmap.shape, affine)
    kind = np.uint8 if len(labels) < 256 else np.int16
    place = np.where(labelmap == 0, 0, np.searchsorted(labels, labelmap) + 1).astype(kind)
    shape = grid.shape
    while True:
        nearest = [((np.arange(m) + 0.5) * n / m).astype(int) for n, m in zip(grid.shape, shape, strict=True)]
        small = place[np.ix_(*nearest)]
        encoded = _encode(small, grid, "label")
        if len(encoded) <= share:
            return encoded
        shape = _shape_within(grid, int(0.97 * small.size * share / len(encoded)))


def _shape_within(grid: Grid, voxels: int) -> tuple[int, ...]:
    """At most ``voxels`` voxels for the grid's field of view, none finer than before and as near to cubes as can be."""
    extent = grid.spacing * grid.shape
    size = grid.spacing.min()
    while True:
        shape = np.minimum(grid.shape, np.ceil(extent / size - 1e-6)).astype(int)
        if shape.prod() <= max(voxels, 1):
            return tuple(shape.tolist())
        size *= 1.02


def _averaged(volume: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The mean over the part of the field of view that each new voxel covers."""
    for axis, (n, m) in enumerate(zip(volume.shape, shape, strict=True)):
        if n == m:
            continue
        fine, coarse = np.arange(n + 1) / n, np.arange(m + 1) / m
        overlap = np.minimum(coarse[1:, None], fine[1:]) - np.maximum(coarse[:-1, None], fine[:-1])
        weights = sparse.csr_array((overlap.clip(0) * m).astype(np.float32))
        rows = np.moveaxis(volume, axis, 0)
        volume = np.moveaxis((weights @ rows.reshape(n, -1)).reshape(m, *rows.shape[1:]), 0, axis)
    return volume


def _encode(volume: np.ndarray, grid: Grid, intent: str) -> str:
    """The NIfTI file; by its intent the viewer tells labels, which it must not blend, from grey values."""
    image = nibabel.Nifti1Image(volume, grid.resized(volume.shape).affine)
    image.header.set_xyzt_units("mm")
    image.header.set_intent(intent)
    return base64.b64encode(gzip.compress(image.to_bytes(), 6, mtime=0)).decode()
