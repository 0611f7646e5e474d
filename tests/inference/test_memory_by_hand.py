"""What a network is said to need."""

from __future__ import annotations

import pytest
import torch

from anamorph.errors import ResourceError
from anamorph.inference.memory import BYTES_PER_CLASS, check_network_memory
from anamorph.spatial.grid import Grid


def test_more_classes_need_more() -> None:
    shape, cpu = (64, 64, 64), torch.device("cpu")
    grids = (Grid.from_spacing(shape),)
    least = next(
        mib
        for mib in range(1, 4096)
        if not _refused(lambda mib=mib: check_network_memory(shape, grids, cpu, mib << 20))
    )
    with pytest.raises(ResourceError, match="E-MEM-016"):
        check_network_memory(shape, grids, cpu, least << 20, classes=35)
    check_network_memory(shape, grids, cpu, (least << 20) + 35 * BYTES_PER_CLASS * 64**3, classes=35)


def _refused(call) -> bool:
    try:
        call()
    except ResourceError:
        return True
    return False
