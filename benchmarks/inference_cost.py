"""Time and memory of inference at the sizes that the papers time, next to the papers'.

    python -m benchmarks.inference_cost              # on all cores, and on the GPU where there is one
    python -m benchmarks.inference_cost --methods cocyclereg --devices cpu --threads 2

Each measurement is a process of its own, one after the other, from tensors on the device to tensors there: without
reading, normalising, affine alignment and writing. Networks are the method's own, weights as first drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from anamorph.inference.cost import measured
from anamorph.methods.base import Domain
from anamorph.methods.cocyclereg import CoCycleReg, CoCycleRegSettings
from anamorph.methods.macjnet import MacJNet, MacJNetSettings
from benchmarks.command import arguments_of, parser_of, write_page
from benchmarks.processes import measure_alone, write_json
from benchmarks.provenance import MIB, hardware, resident
from benchmarks.roofline import repeated
from benchmarks.tables import markdown_table, provenance_lines, shown

QUICK_SHAPE = (16, 16, 16)
REPEATS, SECONDS = 7, 300.0
"""Repeats, of which no more begin after so many seconds."""

NOTES = """\
*s*: median, and in brackets the least and the most, after a first time that is not counted. *MiB*: the largest memory
beyond weights and images, of the process on a CPU, allocated on a GPU; *in all*: that of the process on a CPU, what
torch reserved on a GPU. *Weights*: those that the task uses."""


@dataclass(frozen=True)
class Case:
    """One measurement.

    Args:
        method: one of ``SUBJECTS``.
        task: one of its.
        device: "cpu" or "cuda".
        threads: of the CPU.
        shape: voxels.
        quick: as few repeats as it takes, for tests.
    """

    method: str
    task: str
    device: str
    threads: int
    shape: tuple[int, ...]
    quick: bool = False


Prepared = tuple[Callable[[Tensor, Tensor], object], nn.Module]
"""What is measured, of a fixed and a moving image, and the network that it uses."""


@dataclass(frozen=True)
class Subject:
    """A method that is measured.

    Args:
        title: its name.
        tasks: what is measured, in words of the page.
        shape, spacing: as the paper's, mm.
        paper: lines of the page: name and seconds.
        about: what the paper leaves open, and what a task is.
        prepare: of a case.
    """

    title: str
    tasks: tuple[str, ...]
    shape: tuple[int, ...]
    spacing: tuple[float, ...]
    paper: dict[str, str]
    about: str
    prepare: Callable[[Case], Prepared]


def macjnet(case: Case) -> Prepared:
    """With the paper's settings, one label as in the paper, and the weights that seed 0 gives."""
    torch.manual_seed(0)
    domain = Domain(case.shape, SUBJECTS["macjnet"].spacing, classes=1, modalities=("ct", "t1"))
    method = MacJNet(MacJNetSettings(), domain).to(case.device).eval().requires_grad_(False)
    if case.task == "segment":
        return lambda fixed, _: method.segment(fixed, "ct"), method.segmentation["ct"]
    return lambda fixed, moving: method.register(fixed, moving).displacement, method.registration


def cocyclereg(case: Case) -> Prepared:
    """With the paper's settings, and the weights that seed 0 gives."""
    torch.manual_seed(0)
    domain = Domain(case.shape, SUBJECTS["cocyclereg"].spacing, modalities=("ct", "mr"))
    settings = CoCycleRegSettings(diffeomorphic=case.task.endswith("velocities"))
    method = CoCycleReg(settings, domain).to(case.device).eval().requires_grad_(False)
    if case.task == "translate":
        return lambda _, moving: method.translate(moving, "mr"), method.translators["fixed"]

    def register_both(fixed: Tensor, moving: Tensor) -> list[Tensor]:
        return [field.displacement for field in method.register_both(fixed, moving)]

    return register_both, method.registration


SUBJECTS = {
    "macjnet": Subject(
        "macJNet",
        ("register", "segment"),
        (128, 128, 96),
        (2.6, 2.6, 3.0),
        {"128x128x96, register, V100 of 16 GB (paper)": "0.18"},
        "*register*: the displacement of a pair. *segment*: one image. The paper does not say what its time includes, "
        "nor its memory.",
        macjnet,
    ),
    "cocyclereg": Subject(
        "CoCycleReg",
        ("register", "register, velocities", "translate"),
        (64, 144, 112),
        (3.0, 1.0, 1.0),
        {
            "64x144x112, register, CPU (paper)": "0.68 (sd 0.07)",
            "64x144x112, register, RTX 3090 (paper)": "0.03 (sd 0.01)",
        },
        "*register*: the displacements of a pair in both directions; *velocities*: the same with `diffeomorphic`. "
        "*translate*: one image. The paper does not say what its time includes, its memory, which CPU it was, and "
        "whether images had this size or 80x144x112.",
        cocyclereg,
    ),
}


def run_case(case: Case) -> dict[str, Any]:
    """What the process of a case writes: times, and the largest memory beyond what was there before."""
    torch.set_num_threads(case.threads)
    device = torch.device(case.device)
    task, network = SUBJECTS[case.method].prepare(case)
    generator = torch.Generator().manual_seed(0)
    fixed, moving = (torch.rand(1, 1, *case.shape, generator=generator).to(device) for _ in range(2))
    with torch.inference_mode():
        task(fixed, moving)
        with measured(device) as cost:
            times = repeated(lambda: task(fixed, moving), device, 2 if case.quick else REPEATS, SECONDS)
    whole = torch.cuda.max_memory_reserved(device) if device.type == "cuda" else resident("VmHWM")
    return {
        "name": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
        **times,
        "peak_mib": None if cost.peak_mib is None else round(cost.peak_mib),
        "whole_mib": round(whole / MIB),
        "weights": sum(weight.numel() for weight in network.parameters()),
    }


def in_own_process(case: Case, time_limit: float) -> dict[str, Any]:
    """The row of a case."""
    return measure_alone("benchmarks.inference_cost", case, case.threads, time_limit)


def name_of(row: dict[str, Any]) -> str:
    """Of a row in the table."""
    return f"{'x'.join(map(str, row['shape']))}, {row['task']}, {row.get('name') or row['device']}"


def table(subject: Subject, rows: Sequence[dict[str, Any]]) -> str:
    """The paper's lines, then ours."""
    body = [[name, seconds, "", "", "", ""] for name, seconds in subject.paper.items()]
    for row in rows:
        if not row["failure"]:
            middle, least, most = (row["seconds"][name] for name in ("median", "least", "most"))
            memory = [shown(row["peak_mib"], 0), shown(row["whole_mib"], 0)]
            spread = f"{middle:.3g} ({least:.3g} to {most:.3g})"
            body.append([name_of(row), spread, str(row["repeats"]), *memory, f"{row['weights'] / 1e6:.2f} million"])
    return markdown_table(["", "s", "repeats", "MiB", "MiB in all", "weights"], body)


def page(results: dict[str, Any]) -> str:
    """Everything, failures in their place."""
    rows = results["rows"]
    failures = [
        f"- {SUBJECTS[row['method']].title}, {name_of(row)}: {row['failure']}" for row in rows if row["failure"]
    ]
    parts = [
        "# Time and memory of inference",
        "Written by `python -m benchmarks.inference_cost`; float32, one image or pair at a time, the methods' own.",
        provenance_lines(results["hardware"], [{**row, "method": "anamorph"} for row in rows]),
    ]
    for name in dict.fromkeys(row["method"] for row in rows):
        subject = SUBJECTS[name]
        parts += [f"## {subject.title}", table(subject, [r for r in rows if r["method"] == name]), subject.about]
    return "\n\n".join([*parts, NOTES, "## Failures", "\n".join(failures) or "None."]) + "\n"


def main(words: Sequence[str] | None = None) -> None:
    parser = parser_of(__doc__, time_limit=1200.0)
    parser.add_argument("--methods", nargs="+", choices=list(SUBJECTS), default=list(SUBJECTS), help="all if left out")

    def child(values: dict[str, Any], _: Path) -> dict[str, Any]:
        return run_case(Case(**values))

    arguments = arguments_of(parser, words, "inference_cost", child)
    if arguments is None:
        return
    rows: list[dict[str, Any]] = []
    results: dict[str, Any] = {"what": "inference, float32", "hardware": hardware(), "rows": rows}
    for device in arguments.devices:
        for name in arguments.methods:
            for task in SUBJECTS[name].tasks:
                shape = QUICK_SHAPE if arguments.quick else SUBJECTS[name].shape
                case = Case(name, task, device, arguments.threads, shape, arguments.quick)
                rows.append(in_own_process(case, arguments.time_limit))
                write_json(arguments.out, results)
                print(f"{name} {name_of(rows[-1]):48} {rows[-1]['failure'] or 'done'}", flush=True)
    write_page(arguments.out, page(results))


if __name__ == "__main__":
    main()
