"""Memory and time of the macMIND similarity, forward and backward, on a pair as large as the macJNet paper's.

    python -m benchmarks.memory_macmind --out benchmarks/results/macmind_memory.json

Each number comes from a child process of its own: a small pair warms the libraries up, the inputs are made, the
kernel's record of the peak is cleared, and the peak after one forward and backward pass is compared with the memory
just before it. Linux only.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.provenance import MIB, ROOT, commit, hardware, now, resident, versions

SHAPE = (128, 128, 96)


def measure(shape: list[int], threads: int) -> dict[str, float]:
    """One forward and backward pass, in this process."""
    import torch

    from anamorph.losses import macmind_similarity

    torch.set_num_threads(threads)
    generator = torch.Generator().manual_seed(0)

    def pair(*shape: int) -> tuple[torch.Tensor, torch.Tensor]:
        fixed, moving = (torch.rand(1, 1, *shape, generator=generator) for _ in range(2))
        return fixed, moving.requires_grad_()

    macmind_similarity(*pair(24, 24, 24)).backward()
    fixed, moving = pair(*shape)
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    before = resident("VmRSS")
    start, start_cpu = time.perf_counter(), time.process_time()
    value = macmind_similarity(fixed, moving)
    forward = time.perf_counter() - start
    value.backward()
    seconds = time.perf_counter() - start
    return {
        "peak_above_inputs_mib": (resident("VmHWM") - before) / MIB,
        "forward_seconds": forward,
        "forward_backward_seconds": seconds,
        "cpu_seconds": time.process_time() - start_cpu,
        "value": value.item(),
    }


def run(shape: list[int], threads: int, repeats: int) -> dict[str, object]:
    """The whole record: one child a repeat."""
    module = [sys.executable, "-m", "benchmarks.memory_macmind"]
    child = [*module, "--child", "--threads", str(threads), "--shape", *map(str, shape)]
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    runs = []
    for _ in range(repeats):
        done = subprocess.run(child, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
        runs.append(json.loads(done.stdout))
    seconds = [run["forward_backward_seconds"] for run in runs]
    from anamorph.losses.macmind import BINS

    channels = 18 * BINS.count(3)
    return {
        "what": "macmind_similarity, forward and backward, float32, gradient in the moving image",
        "commit": commit(),
        "date": now(),
        "hardware": hardware(),
        "versions": versions(("anamorph", "torch", "numpy")),
        "settings": {
            "shape": shape,
            "channels": channels,
            "threads": threads,
            "repeats": repeats,
            "warm_up": "24^3 pair",
        },
        "one_descriptor_mib": channels * math.prod(shape) * 4 / MIB,
        "peak_above_inputs_mib": max(run["peak_above_inputs_mib"] for run in runs),
        "seconds": {"median": statistics.median(seconds), "least": min(seconds), "most": max(seconds)},
        "runs": runs,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="JSON file to write; standard output if left out")
    parser.add_argument("--shape", type=int, nargs=3, default=list(SHAPE), help="voxels along each axis")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(measure(arguments.shape, arguments.threads)))
        return
    text = json.dumps(run(arguments.shape, arguments.threads, arguments.repeats), indent=2) + "\n"
    if arguments.out is None:
        print(text, end="")
        return
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(text)
    print(arguments.out)


if __name__ == "__main__":
    main()
