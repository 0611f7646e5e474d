"""Methods that need no training, since they know the answer, and folders of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest
import torch
from torch import Tensor, nn

from anamorph.data.plan import Intensity, Plan
from anamorph.inference.model_folder import Model, domain_of, read_model, write_model
from anamorph.methods import METHODS
from anamorph.methods.base import Batch, Deformation, Domain, Items, Method, MethodSettings
from anamorph.spatial.field import identity

WINDOW = Intensity(kind="window", low=-200.0, high=300.0)


class ShiftSettings(MethodSettings):
    voxels: tuple[float, ...] = (1.0, 0.0, 0.0)
    diffeomorphic: bool = True
    weights: MethodSettings = MethodSettings()


class Shift(Method):
    """Finds the same shift for every pair, in voxels of the network's grid."""

    Settings = ShiftSettings

    def __init__(self, settings: ShiftSettings, domain: Domain) -> None:
        super().__init__(settings, domain)
        self.known = settings
        self.gain = nn.Parameter(torch.ones(domain.ndim))
        self.register_buffer("trained_on", torch.tensor(7))
        self.seen: list[Tensor] = []

    def networks_of(self, player: str) -> Sequence[nn.Module]:
        return []

    def terms(self, batch: Batch, player: str) -> dict[str, Tensor]:
        return {}

    def register(self, fixed: Tensor, moving: Tensor) -> Deformation:
        self.seen = [fixed, moving]
        vector = torch.tensor(self.known.voxels) * self.gain
        field = vector.view(1, -1, *[1] * self.domain.ndim).expand(1, -1, *self.domain.shape).clone()
        return Deformation(field, field if self.known.diffeomorphic else None)


class ThresholdSettings(MethodSettings):
    radius: float = 0.5
    weights: MethodSettings = MethodSettings()


class Threshold(Method):
    """Class k where the normalised intensity lies within ``radius`` of k; the last class if it lies above."""

    Settings = ThresholdSettings
    items: ClassVar[Items] = "cases"
    tasks: ClassVar[tuple[Literal["register", "segment", "translate"], ...]] = ("segment",)

    def __init__(self, settings: ThresholdSettings, domain: Domain) -> None:
        super().__init__(settings, domain)
        self.known = settings
        self.offset = nn.Parameter(torch.zeros(1))
        self.modality = ""

    def networks_of(self, player: str) -> Sequence[nn.Module]:
        return []

    def terms(self, batch: Batch, player: str) -> dict[str, Tensor]:
        return {}

    def segment(self, image: Tensor, modality: str = "") -> Tensor:
        self.modality = modality
        classes = torch.arange(1 + self.domain.classes).view(1, -1, *[1] * self.domain.ndim)
        return torch.softmax(-40 * (image + self.offset - classes).abs(), 1)


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Enters the methods above under the names "shift" and "threshold"."""
    monkeypatch.setitem(METHODS, "shift", Shift)
    monkeypatch.setitem(METHODS, "threshold", Threshold)


def a_plan(**changes: Any) -> Plan:
    """Of 16 x 14 x 12 voxels of 3 x 3 x 4 mm, without intensity changes."""
    everything: dict[str, Any] = {
        "spacing": (3.0, 3.0, 4.0),
        "shape": (16, 14, 12),
        "modalities": {"mr": Intensity(kind="none")},
    }
    return Plan(**(everything | changes))


@pytest.fixture
def plan() -> Callable[..., Plan]:
    return a_plan


@pytest.fixture
def trained(known: None, tmp_path: Path) -> Callable[..., Model]:
    """``trained("shift", plan, voxels=...)``: written to a folder and read back from it."""

    def make(name: str, plan: Plan, facts: Mapping[str, Any] | None = None, **settings: Any) -> Model:
        kind = METHODS[name]
        folder = tmp_path / f"{name}_model"
        method = kind(kind.Settings(**settings), domain_of(plan))
        write_model(folder, method, name, plan, facts=facts or {})
        return read_model(folder, "cpu")

    return make


@pytest.fixture
def points() -> Callable[[Sequence[int]], Tensor]:
    return identity
