"""Which slices are shown, and which way up.

Pictures follow the radiological convention: the patient's right is on the left of axial and coronal pictures, anterior
on the left of sagittal ones. Volumes are first turned to the nearest RAS+ order of axes, so that the same anatomy looks
the same under any affine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation

NAMES = ("Sagittal", "Coronal", "Axial")
LETTERS = {0: ("A", "P", "S", "I"), 1: ("R", "L", "S", "I"), 2: ("R", "L", "A", "P")}
WORLD = ("x", "y", "z")
FEW_VOXELS = 0.003
MARGIN = 0.05


@dataclass(frozen=True, eq=False)
class Display:
    """A grid in the nearest RAS+ order, cut to what is worth showing; a 2-D grid gets a third axis of one voxel.

    Args:
        shape: voxels along each axis, in file order.
        affine: voxel -> RAS mm, (d+1) x (d+1).
        crop: first and last voxel to show along right, anterior and superior; everything where it is left out.
    """

    shape: tuple[int, ...]
    affine: np.ndarray
    crop: tuple[tuple[int, int], ...] | None = None

    @cached_property
    def flat(self) -> bool:
        """Whether the grid is 2-D."""
        return len(self.shape) == 2

    @cached_property
    def _file_affine(self) -> np.ndarray:
        whole = np.eye(4)
        d = len(self.shape)
        whole[:d, :d], whole[:d, 3] = self.affine[:d, :d], self.affine[:d, d]
        return whole

    @cached_property
    def _orientation(self) -> np.ndarray:
        return io_orientation(self._file_affine)

    @cached_property
    def whole_shape(self) -> tuple[int, ...]:
        """Voxels along right, anterior and superior, before the crop."""
        return self._turn_whole(np.broadcast_to(np.int8(0), self.shape)).shape

    @cached_property
    def start(self) -> tuple[int, ...]:
        """The first voxel shown along each turned axis."""
        return (0, 0, 0) if self.crop is None else tuple(first for first, _ in self.crop)

    @cached_property
    def turned_shape(self) -> tuple[int, ...]:
        """Voxels along right, anterior and superior."""
        return self.turn(np.broadcast_to(np.int8(0), self.shape)).shape

    @cached_property
    def turned_affine(self) -> np.ndarray:
        """Turned voxel -> RAS mm, 4 x 4."""
        whole_shape = (*self.shape, 1) if self.flat else self.shape
        begin = np.eye(4)
        begin[:3, 3] = self.start
        return self._file_affine @ inv_ornt_aff(self._orientation, whole_shape) @ begin

    @cached_property
    def spacing(self) -> np.ndarray:
        """Mm between voxels along right, anterior and superior."""
        return np.linalg.norm(self.turned_affine[:3, :3], axis=0)

    def _turn_whole(self, volume: np.ndarray) -> np.ndarray:
        return apply_orientation(volume[..., None] if self.flat else volume, self._orientation)

    def turn(self, volume: np.ndarray) -> np.ndarray:
        """A volume in file order, I J (K), as right, anterior, superior; a view."""
        whole = self._turn_whole(volume)
        return whole if self.crop is None else whole[tuple(slice(first, last + 1) for first, last in self.crop)]

    def cropped_to(self, masks: Sequence[np.ndarray]) -> Display:
        """Cut to where any of the masks (file order) has more than a few voxels in a slice, with a margin of 5 %."""
        if not masks:
            return self
        ranges = []
        for axis, n in enumerate(self.whole_shape):
            others = tuple(a for a in range(3) if a != axis)
            busy = np.max([self._turn_whole(mask).mean(axis=others) for mask in masks], axis=0) > FEW_VOXELS
            places = np.flatnonzero(busy) if busy.any() else np.array([0, n - 1])
            margin = int(np.ceil(MARGIN * n))
            ranges.append((max(0, int(places[0]) - margin), min(n - 1, int(places[-1]) + margin)))
        return replace(self, crop=tuple(ranges))


@dataclass(frozen=True, eq=False)
class Plane:
    """One slice of a turned volume, as it is drawn: first row on top, first column on the left.

    Args:
        name: Axial, Coronal, Sagittal; ``Image`` of a 2-D grid.
        axis: the turned axis it is perpendicular to.
        index: the slice along that axis of the crop.
        display: the grid.
    """

    name: str
    axis: int
    index: int
    display: Display

    @property
    def in_plane(self) -> tuple[int, int]:
        """The turned axes along the picture's columns and rows."""
        across, down = (a for a in range(3) if a != self.axis)
        return across, down

    @property
    def pixel_mm(self) -> tuple[float, float]:
        """Width and height of a pixel."""
        across, down = self.in_plane
        return float(self.display.spacing[across]), float(self.display.spacing[down])

    @property
    def size_mm(self) -> tuple[float, float]:
        """Width and height of the picture."""
        across, down = self.in_plane
        width, height = self.pixel_mm
        return self.display.turned_shape[across] * width, self.display.turned_shape[down] * height

    @property
    def letters(self) -> tuple[str, str, str, str] | None:
        """Left, right, top, bottom; none in 2-D, where a body has no sides."""
        return None if self.display.flat else LETTERS[self.axis]

    @property
    def caption(self) -> str:
        """Where the slice lies."""
        if self.display.flat:
            return ""
        middle = (np.array(self.display.turned_shape) - 1) / 2
        middle[self.axis] = self.index
        position = (self.display.turned_affine @ [*middle, 1])[self.axis]
        number = self.display.start[self.axis] + self.index + 1
        return f"{WORLD[self.axis]} = {position:.1f} mm, slice {number} of {self.display.whole_shape[self.axis]}"

    def cut(self, volume: np.ndarray) -> np.ndarray:
        """The slice of a volume in file order, rows x columns."""
        return np.take(self.display.turn(volume), self.index, self.axis)[::-1, ::-1].T


def choose_planes(display: Display, labels: Sequence[np.ndarray], image: np.ndarray | None) -> tuple[Plane, ...]:
    """The axial, coronal and sagittal slice that show most; the one picture of a 2-D grid.

    With labels, a slice counts for each label by the label's area in it over its largest area in any slice, so that
    small organs weigh as much as large ones; without, slices go through the centre of the image's bright part.

    Args:
        display: the grid.
        labels: labelmaps in file order.
        image: in file order, used where no labelmap has a label.
    """
    if display.flat:
        return (Plane("Image", 2, 0, display),)
    labelmaps = [display.turn(labelmap) for labelmap in labels]
    if any(labelmap.any() for labelmap in labelmaps):
        chosen = _where_labels_show(labelmaps)
    elif image is not None:
        chosen = _where_bright(display.turn(image))
    else:
        chosen = [n // 2 for n in display.turned_shape]
    return tuple(Plane(NAMES[axis], axis, chosen[axis], display) for axis in (2, 1, 0))


def _where_labels_show(labelmaps: Sequence[np.ndarray]) -> list[int]:
    shown = [np.zeros(n) for n in labelmaps[0].shape]
    for labelmap in labelmaps:
        places = np.nonzero(labelmap)
        labels, label = np.unique(labelmap[places], return_inverse=True)
        for axis, n in enumerate(labelmap.shape):
            area = np.bincount(label * n + places[axis], minlength=len(labels) * n).reshape(-1, n)
            shown[axis] += (area / area.max(axis=1, keepdims=True)).sum(axis=0)
    return [int(slices.argmax()) for slices in shown]


def _where_bright(image: np.ndarray) -> list[int]:
    finite = np.isfinite(image)
    bright = finite & (np.where(finite, image, 0) > image[finite].mean() if finite.any() else finite)
    if not bright.any():
        return [n // 2 for n in image.shape]
    counts = [bright.sum(axis=others) for others in ((1, 2), (0, 2), (0, 1))]
    return [round(float(np.average(np.arange(len(count)), weights=count))) for count in counts]
