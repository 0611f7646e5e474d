"""Fused labels freed of islands and holes."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Integer
from scipy import ndimage
from torch import Tensor


def clean_labels(labels: Integer[Tensor, "*spatial"], background: int = 0) -> Integer[Tensor, "*spatial"]:
    """Only the largest component of each label stays (neighbours share a face), and its holes are filled.

    What is removed becomes background; a hole is filled where it is background, so no label takes from another. Each
    label is worked on in its own bounding box.
    """
    values, dense = labels.long().cpu().unique(return_inverse=True)
    found, kinds = values[dense], dense.numpy().astype(np.int32) + 1
    for kind, (value, box) in enumerate(zip(values.tolist(), ndimage.find_objects(kinds), strict=True), start=1):
        if value == background:
            continue
        own = kinds[box] == kind
        parts = np.zeros(own.shape, np.int32)
        ndimage.label(own, output=parts)
        largest = parts == 1 + int(np.bincount(parts.ravel())[1:].argmax())
        view = found[box]
        view[torch.from_numpy(own & ~largest)] = background
        view[torch.from_numpy(ndimage.binary_fill_holes(largest)) & (view == background)] = value
    return found.to(labels)
