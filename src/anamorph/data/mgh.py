"""FreeSurfer's images, .mgh and .mgz: a big-endian header of 284 bytes, then the voxels; .mgz is the same as gzip.

==============  =====  =======================================================
bytes           type   holds
==============  =====  =======================================================
0               i4     version, 1
4, 8, 12, 16    i4     voxels along three axes, and frames
20              i4     type of a voxel: see ``TYPES``
28              i2     1 where the geometry below is meant
30, 42, 78      f4     3 voxel sizes in mm, 3 x 3 directions, RAS of the centre
284             any    voxels, first axis fastest; behind them whatever else
==============  =====  =======================================================

The centre is that of voxel (n / 2) of each axis, as FreeSurfer counts. Without geometry voxels are cubes of 1 mm in
FreeSurfer's coronal order, with a warning.

Source: https://surfer.nmr.mgh.harvard.edu/fswiki/FsTutorial/MghFormat
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from anamorph.data.guard import DataSection, Sniffed, read_section
from anamorph.data.image import ReadPolicy
from anamorph.data.volume import Volume, choose_volume, place
from anamorph.errors import InputError, warn

HEADER_BYTES = 284
TYPES = {0: ">u1", 1: ">i4", 3: ">f4", 4: ">i2", 10: ">u2"}
CORONAL = np.array([[-1.0, 0, 0], [0, 0, 1], [0, -1, 0]])
"""Directions of the axes, as columns, where a file has none: to the left, downwards, forwards."""


@dataclass(frozen=True, eq=False)
class MghFile:
    """A checked header, and where its voxels are.

    Args:
        path: of the file.
        shape: three axes, and the frames where there are several.
        affine: voxel index -> RAS+ mm.
        section: the data; its volume is chosen when it is read.
    """

    path: Path
    shape: tuple[int, ...]
    affine: np.ndarray
    section: DataSection

    @property
    def dtype(self) -> np.dtype:
        """Type of the stored voxels."""
        return self.section.dtype


def open_mgh(path: Path, sniffed: Sniffed) -> MghFile:
    """Checks a header, without touching the voxels.

    Raises:
        InputError: E-FMT-003, one that is cut or says what cannot be.
    """
    head = sniffed.head
    if len(head) < HEADER_BYTES:
        raise _refused(path, f"a header cut at {len(head)} bytes", f"{HEADER_BYTES} bytes")
    *lengths, kind = (int(number) for number in np.frombuffer(head, ">i4", 5, offset=4))
    if min(lengths) < 1:
        raise _refused(path, f"{' x '.join(map(str, lengths))} voxels and frames", "at least one of each")
    if kind not in TYPES:
        raise _refused(path, f"voxels of type {kind}", "integers or float")
    shape = (*lengths[:3], *([lengths[3]] if lengths[3] > 1 else []))
    section = DataSection(
        path, (), np.dtype(TYPES[kind]), inflate=sniffed.compressed, skip=HEADER_BYTES, has_footer=True
    )
    return MghFile(path, shape, _affine(head, lengths[:3], path), section)


def read_mgh(path: Path, sniffed: Sniffed, policy: ReadPolicy) -> Volume:
    """One volume of an .mgh or .mgz file."""
    file = open_mgh(path, sniffed)
    spatial, volumes, volume = choose_volume(file.shape, policy, path)
    section = replace(file.section, shape=spatial, volumes=volumes, volume=volume)
    return place(read_section(section, max_bytes=policy.max_bytes, family="FMT"), file.affine, policy, path)


def _affine(head: bytes, lengths: list[int], path: Path) -> np.ndarray:
    numbers = np.frombuffer(head, ">f4", 15, offset=30).astype(np.float64)
    spacing, directions, centre = numbers[:3], numbers[3:12].reshape(3, 3).T, numbers[12:]
    if int(np.frombuffer(head, ">i2", 1, offset=28)[0]) < 1:
        warn("W-FMT-014", "no geometry: voxels of 1 mm in coronal order assumed", file=path)
        spacing, directions, centre = np.ones(3), CORONAL, np.zeros(3)
    affine = np.eye(4)
    affine[:3, :3] = directions * spacing
    affine[:3, 3] = centre - affine[:3, :3] @ (np.array(lengths) / 2)
    return affine


def _refused(path: Path, found: str, expected: str) -> InputError:
    return InputError("E-FMT-003", found, file=path, expected=expected, do="convert it to NIfTI")
