"""Time and memory of a training step and of an inference, next to the least that the machine allows.

    python -m benchmarks.training_speed             # on all cores, and on the GPU where there is one
    python -m benchmarks.training_speed --devices cpu --threads 2

Each measurement is a process of its own, one after the other. A step is what the training loop does with a batch of
one pair: terms, gradients, optimiser. An inference is ``method.register``. Floors: see ``benchmarks/roofline.py``.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from anamorph.inference.cost import measured
from anamorph.methods import METHODS
from anamorph.methods.base import Domain, Method
from anamorph.training.distributed import Processes
from anamorph.training.players import Players
from benchmarks.command import arguments_of, parser_of, write_page
from benchmarks.operator_shares import where_time_goes
from benchmarks.processes import measure_alone, write_json
from benchmarks.provenance import hardware
from benchmarks.roofline import Counter, Operator, Peaks, elapsed, measure_peaks
from benchmarks.training_speed_page import page
from benchmarks.waiting import measure_waiting

NAMES = ("lapirn", "voxelmorph")
SHAPES = ((64, 64, 48), (128, 128, 96))
QUICK_SHAPES = ((16, 16, 16),)
SMALL = (16, 16, 16)
"""Of the pair that warms the libraries up."""
REPEATS, FEWEST, SECONDS = 10, 3, 45.0
"""Repeats; from how many on, and after how many seconds, they end earlier."""


@dataclass(frozen=True)
class Case:
    """One measurement.

    Args:
        kind: "step", "inference", "waiting" or "peaks".
        device: "cpu" or "cuda".
        threads: of the CPU.
        quick: as small as it gets, for tests.
        method, shape: of a step or an inference.
    """

    kind: str
    device: str
    threads: int
    quick: bool
    method: str = ""
    shape: tuple[int, ...] = ()


def method_for(name: str, shape: tuple[int, ...], **settings: Any) -> Method:
    """With the weights that seed 0 gives."""
    torch.manual_seed(0)
    kind = METHODS[name]
    return kind(kind.Settings(**settings), Domain(shape, (1.0,) * len(shape)))


def pair(shape: tuple[int, ...], device: torch.device) -> dict[str, Tensor]:
    """Two smooth random images."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand(2, 1, *shape, generator=generator)
    fixed, moving = torch.nn.functional.avg_pool3d(noise, 5, 1, 2).to(device).split(1)
    return {"fixed": fixed, "moving": moving}


def action_of(case: Case, method: Method, shape: tuple[int, ...]) -> Callable[[], object]:
    """What is measured."""
    device = torch.device(case.device)
    batch = pair(shape, device)
    if case.kind == "step":
        with Processes(case.device) as processes:
            players = Players(method.train(), method.schedule, processes)
        return lambda: players.step(batch, share=1.0, factor=1.0)
    method.eval()

    def register() -> None:
        with torch.inference_mode():
            method.register(batch["fixed"], batch["moving"])

    return register


def work_of(case: Case) -> list[Operator]:
    """The operators of a step or an inference, from shapes alone.

    Without the smoothness, which has none that count and looks at values.
    """
    method = method_for(case.method, case.shape, weights={"smoothness": 0.0})
    for network in method.networks_of("network"):
        network.to("meta")
    batch = {name: image.to("meta") for name, image in pair(case.shape, torch.device("cpu")).items()}
    with Counter() as counter:
        if case.kind == "inference":
            with torch.no_grad():
                method.register(batch["fixed"], batch["moving"])
        else:
            method.terms(batch, "network")["similarity"].backward()
    return counter.operators


def measure(case: Case) -> dict[str, Any]:
    """In this process: times, the largest memory beyond what was there before, and where the time goes."""
    device = torch.device(case.device)
    action_of(case, method_for(case.method, SMALL).to(device), SMALL)()
    method = method_for(case.method, case.shape).to(device)
    action = action_of(case, method, case.shape)
    seconds: list[float] = []
    with measured(device) as cost:
        first = elapsed(action, device)
        fewest, most = (2, 2) if case.quick else (FEWEST, REPEATS)
        while len(seconds) < most and (len(seconds) < fewest or sum(seconds) < SECONDS):
            seconds.append(elapsed(action, device))
    lower, median, upper = statistics.quantiles(seconds, n=4, method="inclusive")
    return {
        "seconds": {
            "median": median, "lower_quartile": lower, "upper_quartile": upper,
            "least": min(seconds), "most": max(seconds), "first": first,
        },
        "repeats": len(seconds),
        "peak_mib": None if cost.peak_mib is None else round(cost.peak_mib),
        "time": where_time_goes(action, device, method),
    }  # fmt: skip


def run_case(case: Case, folder: Path) -> dict[str, Any]:
    """What the process of a case writes."""
    torch.set_num_threads(case.threads)
    if case.kind == "peaks":
        device = torch.device(case.device)
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else None
        return {"name": name, "peaks": asdict(measure_peaks(device, quick=case.quick))}
    if case.kind == "waiting":
        shape, scans, steps = (SMALL, 10, 2) if case.quick else (SHAPES[0], 40, 20)
        found = measure_waiting(folder, shape, scans, steps, 1, case.device, case.threads)
        return {"shape": shape, **found}
    return measure(case)


def in_own_process(case: Case, time_limit: float) -> dict[str, Any]:
    """The row of a case."""
    return measure_alone("benchmarks.training_speed", case, case.threads, time_limit)


def judged(row: dict[str, Any], work: Sequence[Operator], peaks: Peaks) -> dict[str, Any]:
    """The floor of a row, and how much of its median time that is."""
    floor = peaks.floor(work)
    seconds = sum(floor.values())
    return {
        "gflops": sum(one.flops for one in work) / 1e9,
        "gbytes": sum(one.bytes for one in work) / 1e9,
        "floor_seconds": seconds,
        "floor_by_kind": floor,
        "share_of_floor": seconds / row["seconds"]["median"],
    }


def measure_device(device: str, arguments: argparse.Namespace, results: dict[str, Any]) -> None:
    """All of one device; peaks before and after, of which the larger ones count."""
    shapes = QUICK_SHAPES if arguments.quick else SHAPES
    both = [
        Case(kind, device, arguments.threads, arguments.quick, name, shape)
        for shape in shapes
        for name in arguments.methods
        for kind in ("step", "inference")
    ]
    peaks, waiting = (Case(kind, device, arguments.threads, arguments.quick) for kind in ("peaks", "waiting"))
    rows = []
    for case in (peaks, *both, waiting, peaks):
        row = in_own_process(case, arguments.time_limit)
        rows.append(row)
        results[case.kind if case in (peaks, waiting) else "rows"].append(row)
        write_json(arguments.out, results)
        what = " ".join(filter(None, [device, case.method, "x".join(map(str, case.shape)), case.kind]))
        print(f"{what:44} {row['failure'] or 'done'}", flush=True)
    found = [Peaks(**row["peaks"]) for row in (rows[0], rows[-1]) if not row["failure"]]
    for row, case in zip(rows[1:-2], both, strict=True):
        if found and not row["failure"]:
            row.update(judged(row, work_of(case), found[0].best(found[-1])))
    write_json(arguments.out, results)


def main(words: Sequence[str] | None = None) -> None:
    parser = parser_of(__doc__, time_limit=1200.0)
    parser.add_argument("--methods", nargs="+", choices=NAMES, default=NAMES)
    arguments = arguments_of(parser, words, "training_speed", lambda values, folder: run_case(Case(**values), folder))
    if arguments is None:
        return
    results: dict[str, Any] = {
        "what": "training step and inference, float32, batches of one pair, and waiting for data",
        "hardware": hardware(),
        **{kind: [] for kind in ("peaks", "rows", "waiting")},
    }
    for device in arguments.devices:
        measure_device(device, arguments, results)
    write_page(arguments.out, page(results))


if __name__ == "__main__":
    main()
