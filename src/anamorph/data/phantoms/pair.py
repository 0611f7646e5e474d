"""What a phantom of two modalities comes with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from anamorph.data.image import Image, Labelmap, Landmarks
from anamorph.spatial.transform import Transform


@dataclass(frozen=True, eq=False)
class PhantomPair:
    """Two images of one anatomy and everything that is true about them.

    Args:
        fixed, moving: the images, each on its own grid.
        fixed_labels, moving_labels: the same structures on the same grids.
        truth: the map from fixed to moving world points.
        fixed_landmarks, moving_landmarks: the same named points in both worlds.
        label_names: what each label is.
    """

    fixed: Image
    moving: Image
    fixed_labels: Labelmap
    moving_labels: Labelmap
    truth: Transform
    fixed_landmarks: Landmarks
    moving_landmarks: Landmarks
    label_names: Mapping[int, str]
