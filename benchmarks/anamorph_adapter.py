"""One registration by Anamorph with its defaults, in a process of its own; what ``peers.adapter`` is for the others.

python -m benchmarks.anamorph_adapter --fixed F --moving M --field OUT.nii.gz --report OUT.json --threads 2
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import warnings
from pathlib import Path

import torch

from anamorph.data.files import read
from anamorph.data.transform_files import write_transform
from anamorph.errors import AnamorphError
from anamorph.inference.register import register
from anamorph.spatial.transform import Field
from benchmarks.provenance import peak_mib, versions

PACKAGES = ("anamorph", "torch", "numpy", "scipy", "nibabel", "monai")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("--fixed", "--moving", "--field", "--report"):
        parser.add_argument(name, type=Path, required=True)
    parser.add_argument("--threads", type=int, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            fixed, moving = read(arguments.fixed), read(arguments.moving)
            begin = time.perf_counter()
            registration = register(fixed, moving, device="cpu")
            displacement = registration.transform.displacement_on(fixed.grid)
            seconds = time.perf_counter() - begin
        except AnamorphError as error:
            sys.exit(str(error))
        whole = Field(torch.from_numpy(displacement), fixed.grid)
        write_transform(whole, arguments.field, fixed.grid, overwrite=True)
    found = registration.found
    report = {
        "seconds_registration": round(seconds, 2),
        "seconds_by_stage": {stage: round(spent, 2) for stage, spent in registration.seconds.items()},
        "peak_mib": peak_mib(),
        "start": found.start.origin if found else None,
        "kept": found.kept if found else None,
        "warnings": sorted({str(warning.message) for warning in caught}),
        "settings": registration.settings.model_dump(mode="json") if registration.settings else None,
        "versions": versions(PACKAGES),
    }
    arguments.report.write_text(json.dumps(report))


if __name__ == "__main__":
    main()
