"""Time and memory of CoCycleReg's inference at the size that its paper times, next to the paper's.

    python -m benchmarks.cocyclereg              # on all cores, and on the GPU where there is one
    python -m benchmarks.cocyclereg --devices cpu --threads 2

Each measurement is a process of its own, one after the other. What is measured is ``method.register_both`` of a pair,
which gives the displacements of both directions, and ``method.translate`` of one image, from tensors on the device to
tensors there: without reading, normalising, affine alignment and writing. Networks are the method's own, weights as
first drawn. ``register, velocities`` is the same with ``diffeomorphic``.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from anamorph.inference.cost import measured
from anamorph.methods.base import Domain
from anamorph.methods.cocyclereg import CoCycleReg, CoCycleRegSettings
from benchmarks.processes import measure_alone, write_json
from benchmarks.provenance import MIB, ROOT, hardware, resident
from benchmarks.roofline import elapsed
from benchmarks.tables import markdown_table, provenance_lines, shown

SHAPE, SPACING = (64, 144, 112), (3.0, 1.0, 1.0)
QUICK_SHAPE = (16, 16, 16)
TASKS = ("register", "register, velocities", "translate")
MODALITIES = ("ct", "mr")
REPEATS, SECONDS = 7, 300.0
"""Repeats, of which no more begin after so many seconds."""
PAPER = {
    "64x144x112, register, CPU (paper)": "0.68 (sd 0.07)",
    "64x144x112, register, RTX 3090 (paper)": "0.03 (sd 0.01)",
}
"""A pair; what that includes, its memory, and which CPU are not said, and whether it is this size or 80x144x112."""

NOTES = """\
*s*: median, and in brackets the least and the most, after a first time that is not counted. *MiB*: the largest memory
beyond weights and images, of the process on a CPU, allocated on a GPU; *in all*: that of the process on a CPU, what
torch reserved on a GPU. *Weights*: those that the task uses."""


@dataclass(frozen=True)
class Case:
    """One measurement.

    Args:
        task: one of ``TASKS``.
        device: "cpu" or "cuda".
        threads: of the CPU.
        shape: voxels.
        quick: as few repeats as it takes, for tests.
    """

    task: str
    device: str
    threads: int
    shape: tuple[int, ...]
    quick: bool = False


def method_for(case: Case) -> CoCycleReg:
    """With the paper's settings, and the weights that seed 0 gives."""
    torch.manual_seed(0)
    domain = Domain(tuple(case.shape), SPACING, modalities=MODALITIES)
    settings = CoCycleRegSettings(diffeomorphic=case.task.endswith("velocities"))
    return CoCycleReg(settings, domain).eval().requires_grad_(False)


def task_of(case: Case, method: CoCycleReg) -> Callable[[], object]:
    """What is measured, on random images."""
    generator = torch.Generator().manual_seed(0)
    fixed, moving = (torch.rand(1, 1, *case.shape, generator=generator).to(case.device) for _ in range(2))
    if case.task == "translate":
        return lambda: method.translate(moving, MODALITIES[1])
    return lambda: [field.displacement for field in method.register_both(fixed, moving)]


def weights_of(case: Case, method: CoCycleReg) -> int:
    """How many numbers the task's network has."""
    network = method.translators["fixed"] if case.task == "translate" else method.registration
    return sum(weight.numel() for weight in network.parameters())


def run_case(case: Case) -> dict[str, Any]:
    """What the process of a case writes: times, and the largest memory beyond what was there before."""
    torch.set_num_threads(case.threads)
    device = torch.device(case.device)
    method = method_for(case).to(device)
    task = task_of(case, method)
    seconds: list[float] = []
    with torch.inference_mode():
        task()
        with measured(device) as cost:
            while len(seconds) < (2 if case.quick else REPEATS) and sum(seconds) < SECONDS:
                seconds.append(elapsed(task, device))
    whole = torch.cuda.max_memory_reserved(device) if device.type == "cuda" else resident("VmHWM")
    return {
        "name": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
        "seconds": {"median": statistics.median(seconds), "least": min(seconds), "most": max(seconds)},
        "repeats": len(seconds),
        "peak_mib": None if cost.peak_mib is None else round(cost.peak_mib),
        "whole_mib": round(whole / MIB),
        "weights": weights_of(case, method),
    }


def in_own_process(case: Case, time_limit: float) -> dict[str, Any]:
    """The row of a case."""
    return measure_alone("benchmarks.cocyclereg", case, case.threads, time_limit)


def name_of(row: dict[str, Any]) -> str:
    """Of a row in the table."""
    return f"{'x'.join(map(str, row['shape']))}, {row['task']}, {row.get('name') or row['device']}"


def page(results: dict[str, Any]) -> str:
    """Everything, failures in their place."""
    rows = results["rows"]
    body = [[name, seconds, "", "", "", ""] for name, seconds in PAPER.items()]
    for row in rows:
        if not row["failure"]:
            middle, least, most = (row["seconds"][name] for name in ("median", "least", "most"))
            memory = [shown(row["peak_mib"], 0), shown(row["whole_mib"], 0)]
            spread = f"{middle:.3g} ({least:.3g} to {most:.3g})"
            body.append([name_of(row), spread, str(row["repeats"]), *memory, f"{row['weights'] / 1e6:.2f} million"])
    parts = [
        "# Inference of CoCycleReg",
        "Written by `python -m benchmarks.cocyclereg`; float32, one image or pair at a time, the method's networks.",
        provenance_lines(results["hardware"], [{**row, "method": "anamorph"} for row in rows]),
        markdown_table(["", "s", "repeats", "MiB", "MiB in all", "weights"], body),
        NOTES,
        "## Failures",
        "\n".join(f"- {name_of(row)}: {row['failure']}" for row in rows if row["failure"]) or "None.",
    ]
    return "\n\n".join(parts) + "\n"


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", default="", help="cpu, cuda or cpu,cuda; all that there are if left out")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="of the CPU; all cores if left out")
    parser.add_argument("--time-limit", type=float, default=1200.0, help="seconds that one process may take")
    parser.add_argument("--quick", action="store_true", help="tiny images, for tests: the numbers mean nothing")
    parser.add_argument("--out", type=Path, help="JSON file; benchmarks/results/cocyclereg.json if left out")
    parser.add_argument("--child", nargs=2, metavar=("CASE", "FILE"), help=argparse.SUPPRESS)
    arguments = parser.parse_args(words)
    if arguments.child:
        text, file = arguments.child
        values = json.loads(text)
        write_json(Path(file), run_case(Case(**values | {"shape": tuple(values["shape"])})))
        return
    if arguments.out is None:
        if arguments.quick:
            parser.error("--quick needs --out: its numbers are no results")
        arguments.out = ROOT / "benchmarks/results/cocyclereg.json"
    there = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    rows: list[dict[str, Any]] = []
    results: dict[str, Any] = {"what": "inference of CoCycleReg, float32", "hardware": hardware(), "rows": rows}
    shape = QUICK_SHAPE if arguments.quick else SHAPE
    for device in arguments.devices.split(",") if arguments.devices else there:
        for task in TASKS:
            case = Case(task, device, arguments.threads, shape, arguments.quick)
            rows.append(in_own_process(case, arguments.time_limit))
            write_json(arguments.out, results)
            print(f"{name_of(rows[-1]):44} {rows[-1]['failure'] or 'done'}", flush=True)
    text = page(results)
    arguments.out.with_suffix(".md").write_text(text, encoding="utf-8")
    print(f"\n{text}")


if __name__ == "__main__":
    main()
