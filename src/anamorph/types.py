"""The vocabulary: axes, units and array types. See docs/conventions.md.

``I J K`` are voxel axes in file order, one or two batch axes come before them; a world point is RAS+ millimetres.
The shape names are documentation everywhere and assertions during the tests.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int
from torch import Tensor

ImageBatch = Float[Tensor, "batch channels *spatial"]
"""Intensities or probabilities: B C I J (K)."""

DisplacementBatch = Float[Tensor, "batch ndim *spatial"]
"""Displacements or velocities in voxels of their own grid: B d I J (K); component d moves along axis d."""

MaskBatch = Float[Tensor, "batch 1 *spatial"]
"""Weights in [0, 1], 1 = use: B 1 I J (K)."""

ScalarBatch = Float[Tensor, "batch *spatial"]
"""One number a voxel: B I J (K)."""

Points = Float[Tensor, "batch ndim *points"]
"""Voxel coordinates, component d along axis d: B d followed by any arrangement of points."""

WorldPoints = Float[np.ndarray, "points ndim"]
"""World points, RAS+ mm, float64: N d."""

Matrix = Float[np.ndarray, "rows columns"]
"""Homogeneous matrix (d+1) x (d+1), float64."""

LabelArray = Int[np.ndarray, "*spatial"]
MaskArray = Bool[np.ndarray, "*spatial"]

Interpolation = Literal["linear", "nearest"]
Outside = Literal["zeros", "border"]
AffineKind = Literal["translation", "rigid", "similarity", "affine"]
