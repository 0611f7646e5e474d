"""Euler numbers and counts of pieces as scikit-image has them, on random masks."""

from __future__ import annotations

import numpy as np
import pytest
from skimage import measure

from anamorph.evaluation.topology import Connectivity, euler_number, topology


@pytest.mark.parametrize("connectivity", ["full", "face"])
@pytest.mark.parametrize("shape", [(9, 11), (7, 8, 9)])
@pytest.mark.parametrize("share", [0.2, 0.5, 0.8])
def test_random_masks(shape: tuple[int, ...], share: float, connectivity: Connectivity) -> None:
    rank = len(shape) if connectivity == "full" else 1
    rng = np.random.default_rng(0)
    for _ in range(5):
        mask = rng.random(shape) < share
        found = topology(mask, connectivity)
        assert found.components == measure.label(mask, connectivity=rank, return_num=True)[1]
        assert euler_number(mask, connectivity) == measure.euler_number(mask, connectivity=rank)
        assert found.euler_number == euler_number(mask, connectivity)
