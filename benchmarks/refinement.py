"""Time and memory of Atlas-ISTN's refinement of a case, next to the paper's and to the least that the machine allows.

    python -m benchmarks.refinement                               # on all cores, and on the GPU where there is one
    python -m benchmarks.refinement --devices cpu --iterations 10 # shorter; a row says how many it made

Each measurement is a process of its own, one after the other. What is measured is ``method.refine`` and the atlas
brought to the case: the segmentation network once, every iteration (no early stop), and the answer. Networks, settings
and lambda are the method's own, weights as first drawn, affine map and velocities moving. Floors: see
``benchmarks/roofline.py``.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from anamorph.inference.cost import measured
from anamorph.methods.atlas_istn import AtlasISTN, AtlasISTNSettings, RefinementSettings
from anamorph.methods.atlas_refinement import refinement_objective
from anamorph.methods.base import Domain
from benchmarks.command import arguments_of, parser_of, write_page
from benchmarks.processes import measure_alone, write_json
from benchmarks.provenance import MIB, hardware, resident
from benchmarks.roofline import Counter, Operator, Peaks, measure_peaks, repeated
from benchmarks.tables import markdown_table, provenance_lines, shown

SIZES = (((64, 64), 1, 1), ((64, 64), 1, 16), ((64, 64, 64), 5, 1), ((64, 64, 64), 5, 4), ((128, 128, 128), 5, 1))
QUICK_SIZES = (((16, 16), 1, 2), ((16, 16, 16), 5, 1))
"""Voxels, labels, and cases at a time."""
ITERATIONS = 100
REPEATS, SECONDS = 5, 60.0
"""Repeats, of which no more begin after so many seconds."""
PAPER = "128x128x128, 5 labels, V100 of 32 GB (paper, section 3.2)"
"""A single case, 100 iterations: about 20 s and 3 GB."""

NOTES = """\
*s a case*: median of the repeats, divided by the cases at a time; in brackets the least and the most. *Floor*: the
least time by the larger peaks, summed over convolutions, their gradients and samplings of all iterations, each limited
by its operations or its bytes; the rest counts as free. *MiB*: the largest memory of all cases at a time beyond weights
and images; *in all*: that of the process on a CPU, what torch reserved on a GPU. What the paper counts is not said."""


@dataclass(frozen=True)
class Case:
    """One measurement.

    Args:
        kind: "refinement" or "peaks".
        device: "cpu" or "cuda".
        threads: of the CPU.
        quick: as small as it gets, for tests.
        shape, labels, batch, iterations: of a refinement; ``batch`` cases at a time.
    """

    kind: str
    device: str
    threads: int
    quick: bool
    shape: tuple[int, ...] = ()
    labels: int = 1
    batch: int = 1
    iterations: int = ITERATIONS


def rings(shape: Sequence[int], labels: int, shift: float) -> Tensor:
    """Balls within each other, ``labels`` of them, beside the middle by a share of the image: 1 1 I J (K)."""
    places = torch.meshgrid(*(torch.linspace(-1, 1, n) + shift for n in shape), indexing="ij")
    radius = torch.stack(places).norm(dim=0)
    return (labels * (1.2 - 2 * radius)).ceil().clamp(0, labels).long()[None, None]


def method_for(shape: tuple[int, ...], labels: int) -> AtlasISTN:
    """With the weights that seed 0 gives, and an atlas."""
    torch.manual_seed(0)
    method = AtlasISTN(AtlasISTNSettings(affine_from_epoch=0), Domain(shape, (1.0,) * len(shape), classes=labels))
    truth = rings(shape, labels, 0.0)
    method.before_training([{"image": truth.float(), "labels": truth, "labelled": torch.ones(1).bool()}])
    return method.eval().requires_grad_(False)


def refine(case: Case, method: AtlasISTN, images: Tensor, iterations: int) -> Tensor:
    """What is measured."""
    settings = RefinementSettings(iterations=iterations, tolerance=0.0, batch=case.batch)
    found = method.refine(images, settings)
    if found.iterations != [iterations] * len(images):
        raise RuntimeError(f"refinements ended after {found.iterations} iterations")
    return method.atlas_to_case(found.transformation)


def images_for(case: Case, shape: Sequence[int]) -> Tensor:
    """Each a little farther from the atlas."""
    shifts = [0.1 + 0.02 * number for number in range(case.batch)]
    images = torch.cat([rings(shape, case.labels, shift) for shift in shifts]) / case.labels
    return images.to(case.device)


def measure(case: Case) -> dict[str, Any]:
    """In this process: times, and the largest memory beyond what was there before."""
    device = torch.device(case.device)
    small = (16,) * len(case.shape)
    refine(case, method_for(small, case.labels).to(device), images_for(case, small), 1)
    method, images = method_for(case.shape, case.labels).to(device), images_for(case, case.shape)
    if device.type == "cuda":  # kernels for these sizes are looked for at their first use
        refine(case, method, images, 1)
    with measured(device) as cost, torch.inference_mode():
        repeats = 2 if case.quick else REPEATS
        times = repeated(lambda: refine(case, method, images, case.iterations), device, repeats, SECONDS)
    whole = torch.cuda.max_memory_reserved(device) if device.type == "cuda" else resident("VmHWM")
    return {
        **times,
        "peak_mib": None if cost.peak_mib is None else round(cost.peak_mib),
        "whole_mib": round(whole / MIB),
    }


def work_of(case: Case) -> list[Operator]:
    """The operators of all iterations of one case, from shapes alone.

    Without the smoothness, which has none that count; and without the segmentation network, which runs once.
    """
    method = method_for(case.shape, case.labels).requires_grad_(True)
    method.spatial_transformer.to("meta")
    method.atlas_labels = method.atlas_labels.to("meta")
    seen = torch.empty(1, 1 + case.labels, *case.shape, device="meta")
    no_autocast = patch.object(torch, "autocast", lambda *_, **__: nullcontext())  # which refuses the device "meta"
    with no_autocast, Counter() as counter:
        found = method.transformation(seen)
        atlas = method.atlas_labels[:, 1:]
        refinement_objective(found, seen[:, 1:], atlas, RefinementSettings(smoothness=0.0)).sum().backward()
    return counter.operators * case.iterations


def run_case(case: Case) -> dict[str, Any]:
    """What the process of a case writes."""
    torch.set_num_threads(case.threads)
    if case.kind == "peaks":
        device = torch.device(case.device)
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else None
        return {"name": name, "peaks": asdict(measure_peaks(device, quick=case.quick))}
    return measure(case)


def in_own_process(case: Case, time_limit: float) -> dict[str, Any]:
    """The row of a case."""
    return measure_alone("benchmarks.refinement", case, case.threads, time_limit)


def judged(row: dict[str, Any], work: Sequence[Operator], peaks: Peaks) -> dict[str, Any]:
    """The time of one case, the floor of it, and how much of the time that is."""
    floor, a_case = peaks.floor(work), row["seconds"]["median"] / row["batch"]
    return {
        "seconds_a_case": a_case,
        "gflops": sum(one.flops for one in work) / 1e9,
        "gbytes": sum(one.bytes for one in work) / 1e9,
        "floor_seconds": sum(floor.values()),
        "floor_by_kind": floor,
        "share_of_floor": sum(floor.values()) / a_case,
    }


def measure_device(device: str, arguments: argparse.Namespace, results: dict[str, Any]) -> None:
    """All of one device; peaks before and after, of which the larger ones count."""
    cases = [
        Case("refinement", device, arguments.threads, arguments.quick, shape, labels, batch, arguments.iterations)
        for shape, labels, batch in (QUICK_SIZES if arguments.quick else SIZES)
        if not arguments.sizes or written(shape) in arguments.sizes
    ]
    peaks, rows = Case("peaks", device, arguments.threads, arguments.quick), []
    for case in (peaks, *cases, peaks):
        row = in_own_process(case, arguments.time_limit)
        rows.append(row)
        results["peaks" if case is peaks else "rows"].append(row)
        write_json(arguments.out, results)
        print(f"{device} {case.kind} {name_of(row):40} {row['failure'] or 'done'}", flush=True)
    found = [Peaks(**row["peaks"]) for row in (rows[0], rows[-1]) if not row["failure"]]
    for row, case in zip(rows[1:-1], cases, strict=True):
        if found and not row["failure"]:
            row.update(judged(row, work_of(case), found[0].best(found[-1])))
    write_json(arguments.out, results)


def name_of(row: dict[str, Any]) -> str:
    """Of a row in tables."""
    if row["kind"] == "peaks":
        return ""
    labels = f"{row['labels']} label{'s' if row['labels'] > 1 else ''}"
    cases = f"{row['batch']} cases at a time" if row["batch"] > 1 else ""
    return ", ".join(filter(None, [written(row["shape"]), labels, row["device"], cases]))


def written(shape: Sequence[int]) -> str:
    """As 64x64."""
    return "x".join(map(str, shape))


def page(results: dict[str, Any]) -> str:
    """Everything, failures in their place."""
    rows, peaks = results["rows"], results["peaks"]
    failures = [f"- {name_of(row)} {row['kind']}: {row['failure']}" for row in [*rows, *peaks] if row["failure"]]
    body = [[PAPER, "about 20", "", "100", "", "", "", "3000", ""]]
    for row in rows:
        if not row["failure"]:
            middle, least, most = (row["seconds"][name] / row["batch"] for name in ("median", "least", "most"))
            share = shown(row.get("share_of_floor"), 0, 100) + (" %" if "share_of_floor" in row else "")
            floor = shown(row.get("floor_seconds"), 2)
            numbers = [row["repeats"], row["iterations"], floor, share, shown(row.get("gflops"), 0)]
            memory = [shown(row["peak_mib"], 0), shown(row["whole_mib"], 0)]
            spread = f"{middle:.3g} ({least:.3g} to {most:.3g})"
            body.append([name_of(row), spread, *map(str, numbers), *memory])
    headings = ["", "s a case", "repeats", "iterations", "floor, s", "share", "GFLOP", "MiB", "MiB in all"]
    names = ("matmul_gflops", "convolution_gflops", "gradient_gflops", "copy_gbytes")
    peak_body = [
        [row["name"] or row["device"], *(shown(row["peaks"][name], 1) for name in names)]
        for row in peaks
        if not row["failure"]
    ]
    units = ["matmul, GFLOP/s", "convolution 64 to 64, GFLOP/s", "its gradients, GFLOP/s", "copy, GB/s"]
    parts = [
        "# Refinement of Atlas-ISTN",
        "Written by `python -m benchmarks.refinement`; float32, the method's own networks and settings, no early stop.",
        provenance_lines(results["hardware"], [{**row, "method": "anamorph"} for row in [*rows, *peaks]]),
        markdown_table(headings, body),
        NOTES,
        "## Peaks",
        markdown_table(["device, before and after", *units], peak_body),
        "## Failures",
        "\n".join(failures) or "None.",
    ]
    return "\n\n".join(parts) + "\n"


def main(words: Sequence[str] | None = None) -> None:
    parser = parser_of(__doc__, time_limit=7200.0)
    sizes = [*dict.fromkeys(written(shape) for shape, *_ in SIZES)]
    parser.add_argument("--sizes", nargs="+", choices=sizes, default=(), help="all if left out")
    parser.add_argument("--iterations", type=int, default=ITERATIONS, help="of each refinement")
    arguments = arguments_of(parser, words, "refinement", lambda values, _: run_case(Case(**values)))
    if arguments is None:
        return
    what = "refinement of cases at test time by Atlas-ISTN, float32"
    results: dict[str, Any] = {"what": what, "hardware": hardware(), "peaks": [], "rows": []}
    for device in arguments.devices:
        measure_device(device, arguments, results)
    write_page(arguments.out, page(results))


if __name__ == "__main__":
    main()
