"""Share of a training's time that is spent waiting for data."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from anamorph.data.cohort import Scan
from anamorph.data.configuration import save
from anamorph.data.plan import Intensity, Plan
from anamorph.data.prepared import PreparedCohort, PreparedScan, write_index
from anamorph.spatial.grid import Grid
from anamorph.training.configuration import Machine, configure
from anamorph.training.loop import train

EPOCHS = 4
"""LapIRN trains its first level in the first, its second in the second, its third in the others."""
MODALITY = "mr"


def synthetic_cohort(folder: Path, shape: tuple[int, ...], scans: int) -> PreparedCohort:
    """Noise with labels, a fifth of it to validate: how long reading takes does not depend on what is read."""
    generator = torch.Generator().manual_seed(0)
    spacing = (1.5,) * len(shape)
    labels = {number: f"organ {number}" for number in (1, 2, 3)}
    plan = Plan(spacing=spacing, shape=shape, modalities={MODALITY: Intensity()}, labels=labels)
    (folder / "tensors").mkdir(parents=True)
    save(plan, folder / "plan.yaml")
    grid, prepared = Grid(shape, np.diag([*spacing, 1.0])), []
    for number in range(scans):
        split = "train" if number < 0.8 * scans else "validation"
        scan = Scan(f"case{number}", MODALITY, folder / f"case{number}.nii.gz", split=split)
        file = folder / "tensors" / f"{scan.name}.safetensors"
        classes = torch.randint(0, 4, shape, generator=generator).to(torch.uint8)
        save_file({"image": torch.rand(1, *shape, generator=generator), "labels": classes}, file)
        prepared.append(PreparedScan(scan, grid, grid, file, tuple(labels)))
    write_index(folder, prepared, (), {})
    return PreparedCohort.open(folder)


def measure_waiting(
    folder: Path, shape: tuple[int, ...], scans: int, steps: int, channels: int, device: str, threads: int
) -> dict[str, Any]:
    """Train LapIRN for ``EPOCHS`` of ``steps`` on pairs between cases, and read what its history says of waiting."""
    cohort = synthetic_cohort(folder / "prepared", shape, scans)
    values = {
        "settings": {"channels": channels},
        "schedule": {"epochs": EPOCHS, "steps_per_epoch": steps, "validate_every": EPOCHS},
        "pairs": {"rule": "between"},
        "validation_items": 2,
    }
    train(
        cohort, configure("lapirn", values), folder / "run",
        machine=Machine(device=device, threads=threads), draw=None,
    )  # fmt: skip
    with (folder / "run" / "history.csv").open(encoding="utf-8", newline="") as file:
        rows = [{name: float(row[name]) for name in ("seconds", "waiting")} for row in csv.DictReader(file)]
    seconds = sum(row["seconds"] for row in rows)
    return {
        "scans": scans,
        "scans_to_train": len(cohort.cohort.of_split("train").scans),
        "channels": channels,
        "steps": steps * EPOCHS,
        "seconds_per_step": seconds / (steps * EPOCHS),
        "waiting": round(sum(row["seconds"] * row["waiting"] for row in rows) / seconds, 4),
        "epochs": [{"seconds_per_step": row["seconds"] / steps, "waiting": row["waiting"]} for row in rows],
    }
