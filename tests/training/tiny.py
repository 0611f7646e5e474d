"""Methods small enough to train in a test, cohorts for them, and a training of both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict
from safetensors.torch import save_file
from torch import Tensor, nn

from anamorph.data.cohort import Pair, Scan, Split
from anamorph.data.configuration import save
from anamorph.data.plan import Intensity, Plan
from anamorph.data.prepared import PreparedCohort, PreparedScan, write_index
from anamorph.methods.base import Batch, Deformation, Domain, Method, MethodSettings
from anamorph.methods.schedule import Schedule
from anamorph.spatial.field import warp
from anamorph.spatial.grid import Grid
from anamorph.training.configuration import Machine, configure
from anamorph.training.loop import train

SHAPE, SPACING = (10, 8), (2.0, 3.0)


class Weights(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    similarity: float = 1.0
    smoothness: float = 0.1


class AlignSettings(MethodSettings):
    width: int = 4
    dropout: float = 0.2
    weights: Weights = Weights()


class Align(Method):
    """Registers 2-D pairs by one hidden layer with batch normalisation and dropout."""

    Settings = AlignSettings
    schedule = Schedule(epochs=3, batch_size=2, learning_rate=1e-2)

    def __init__(self, settings: MethodSettings, domain: Domain) -> None:
        super().__init__(settings, domain)
        self.chosen: Any = settings
        self.network = nn.Sequential(
            nn.Conv2d(2 * domain.channels, self.chosen.width, 3, padding=1),
            nn.BatchNorm2d(self.chosen.width),
            nn.Dropout(self.chosen.dropout),
            nn.LeakyReLU(),
            nn.Conv2d(self.chosen.width, 2, 3, padding=1),
        )

    def networks_of(self, player: str) -> Sequence[nn.Module]:
        return [self.network]

    def terms(self, batch: Batch, player: str) -> dict[str, Tensor]:
        displacement = self.network(torch.cat([batch["fixed"], batch["moving"]], 1)).float()
        difference = warp(batch["moving"], displacement) - batch["fixed"]
        return {"similarity": (difference**2).mean(), "smoothness": (displacement**2).mean()}

    def register(self, fixed: Tensor, moving: Tensor) -> Deformation:
        return Deformation(self.network(torch.cat([fixed, moving], 1)))


class Steady(Align):
    """Without what differs between the parts of a batch: each item's gradient is its own."""

    def __init__(self, settings: MethodSettings, domain: Domain) -> None:
        super().__init__(settings, domain)
        self.network = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.LeakyReLU(), nn.Conv2d(4, 2, 3, padding=1))


class Duel(Align):
    """Two players: a critic who tells warped from fixed images, and a network that deceives it."""

    players = ("critic", "network")
    schedule = Schedule(epochs=2, batch_size=2, learning_rate=1e-2, learning_rates={"critic": 1e-3})

    def __init__(self, settings: MethodSettings, domain: Domain) -> None:
        super().__init__(settings, domain)
        self.critic = nn.Sequential(nn.Flatten(), nn.Linear(int(np.prod(domain.shape)), 1))

    def networks_of(self, player: str) -> Sequence[nn.Module]:
        return [self.critic] if player == "critic" else [self.network]

    def weights_of(self, player: str) -> Mapping[str, float]:
        return {"tell": 1.0} if player == "critic" else {**self.chosen.weights.model_dump(), "deceive": 0.1}

    def terms(self, batch: Batch, player: str) -> dict[str, Tensor]:
        displacement = self.network(torch.cat([batch["fixed"], batch["moving"]], 1))
        warped = warp(batch["moving"], displacement)
        judged = torch.sigmoid(self.critic(warped))
        if player == "critic":
            return {"tell": (judged + 1 - torch.sigmoid(self.critic(batch["fixed"]))).mean()}
        return {**super().terms(batch, player), "deceive": (1 - judged).mean()}


class SegmentWeights(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    cross_entropy: float = 1.0


class SegmentSettings(MethodSettings):
    weights: SegmentWeights = SegmentWeights()


class Segment(Method):
    """Segments by one layer, and remembers the mean of all training images."""

    Settings = SegmentSettings
    schedule = Schedule(epochs=4, batch_size=2, learning_rate=5e-2)
    items = "cases"
    tasks = ("segment",)
    mean: Tensor

    def __init__(self, settings: MethodSettings, domain: Domain) -> None:
        super().__init__(settings, domain)
        convolution = nn.Conv2d if domain.ndim == 2 else nn.Conv3d
        self.network = convolution(domain.channels, 1 + domain.classes, 3, padding=1)
        self.register_buffer("mean", torch.zeros(domain.shape))

    def networks_of(self, player: str) -> Sequence[nn.Module]:
        return [self.network]

    def terms(self, batch: Batch, player: str) -> dict[str, Tensor]:
        loss = nn.functional.cross_entropy(self.network(batch["image"]), batch["labels"][:, 0], reduction="none")
        return {"cross_entropy": loss.flatten(1).mean(1)[batch["labelled"]].sum() / len(batch["labelled"])}

    def after_epoch(self, epoch: int, batches: Any) -> None:
        images = torch.cat([batch["image"] for batch in batches])
        self.mean.copy_(images.mean((0, 1)))

    def segment(self, image: Tensor, modality: str = "") -> Tensor:
        return self.network(image).softmax(1)


TINY: dict[str, type[Method]] = {"align": Align, "steady": Steady, "duel": Duel, "segment": Segment}


def prepared_cohort(
    folder: Path,
    train: int = 5,
    validation: int = 2,
    modalities: Sequence[str] = ("ct", "mr"),
    *,
    unlabelled: Sequence[str] = (),
    masks: bool = False,
    shape: tuple[int, ...] = SHAPE,
    listed: Sequence[tuple[int, int]] = (),
    extra: int = 0,
) -> PreparedCohort:
    """Discs of one class on noise, a scan of each modality a case, the second one shifted and inverted; extra last."""
    rng = np.random.default_rng(0)
    (folder / "tensors").mkdir(parents=True)
    spacing = (*SPACING, 4.0)[: len(shape)]
    plan = Plan(
        orientation="RAS"[: len(shape)],
        spacing=spacing,
        shape=shape,
        modalities={name: Intensity() for name in modalities},
        labels={7: "disc"},
    )
    save(plan, folder / "plan.yaml")
    grid = Grid(shape, np.diag([*spacing, 1.0]))
    scans = []
    for number in range(train + validation + extra):
        split: Split = "train" if number < train else "validation" if number < train + validation else "extra"
        centre = np.array(shape) / 2 + rng.normal(0, 0.8, len(shape))
        for rank, modality in enumerate(modalities):
            away = np.indices(shape).reshape(len(shape), -1).T - centre - rank
            inside = ((away**2).sum(1) < 7).reshape(shape)
            image = np.where(inside, 0.8 - 0.5 * rank, 0.2 + 0.5 * rank) + rng.normal(0, 0.05, shape)
            file = folder / "tensors" / f"c{number}_{modality}.safetensors"
            tensors = {"image": torch.from_numpy(image[None].astype(np.float32))}
            labelled = f"c{number}" not in unlabelled
            if labelled:
                tensors["labels"] = torch.from_numpy(inside.astype(np.uint8))
            if masks:
                tensors["mask"] = torch.ones(shape, dtype=torch.uint8)
            save_file(tensors, file)
            scan = Scan(
                f"c{number}",
                modality,
                folder / f"{file.stem}.nii.gz",
                mask=folder / "mask.nii.gz" if masks else None,
                split=split,
            )
            scans.append(PreparedScan(scan, grid, grid, file, (1,) if labelled else None))
    write_index(folder, scans, [Pair(scans[fixed].scan, scans[moving].scan) for fixed, moving in listed], {})
    return PreparedCohort.open(folder)


def run(
    prepared: Path, out: Path, method: str, values: Mapping[str, Any], machine: Mapping[str, Any] = {}, **more: Any
) -> None:
    """A training on the CPU, without pictures."""
    cohort, computer = PreparedCohort.open(prepared), Machine(device="cpu", **machine)
    train(cohort, configure(method, values), out, machine=computer, draw=None, **more)
