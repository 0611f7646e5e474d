"""``make bench``: every benchmark that can run here; what is missing for the others is said."""

from __future__ import annotations

import os
import subprocess
import sys

from benchmarks.provenance import ROOT

RESULTS = ROOT / "benchmarks" / "results"


def commands() -> list[list[str]]:
    """What to run, as arguments of ``python -m``."""
    chosen = [
        ["benchmarks.memory_macmind", "--out", str(RESULTS / "macmind_memory.json")],
        ["benchmarks.training_speed"],
        ["benchmarks.refinement"],
        ["benchmarks.inference_cost"],
        ["benchmarks.multi_atlas"],
    ]
    cases, data = (os.environ.get(f"ANAMORPH_{name}") for name in ("CASES", "DATA"))
    if cases:
        chosen.append(["benchmarks.known_maps", "--cases", cases])
    else:
        print("known_maps is left out: set ANAMORPH_CASES to a folder of pairs whose true map is known")
    if data:
        chosen.append(["benchmarks.real_pairs", "--data", data])
    else:
        print("real_pairs is left out: set ANAMORPH_DATA to the folder of real images")
    return chosen


def main() -> int:
    failed = 0
    for command in commands():
        print(f"\npython -m {command[0]}", flush=True)
        failed += subprocess.run([sys.executable, "-m", *command], cwd=ROOT, check=False).returncode != 0
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
