"""Registration of pairs whose true map is known, Anamorph next to its peers.

    python -m benchmarks.known_maps --cases DIR

Every folder NAME_sSEED of DIR holds fixed, moving, mask, fixed_labels and moving_labels (.nii.gz) and truth.npz, whose
``disp`` (3, X, Y, Z) leads from fixed to moving, mm along LPS axes. In cases of seed 0 nothing moves. Results are
written after every run; with ``--resume`` an interrupted benchmark goes on, and failures are tried again.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from anamorph.errors import ConfigurationError
from anamorph.inference.peers.adapter import SCRIPT, python_of
from benchmarks import referee
from benchmarks.known_maps_page import page
from benchmarks.processes import OURS, RunFailed, register_alone, write_json
from benchmarks.provenance import ROOT, commit, hardware, now

METHODS = {
    "anamorph": "",
    "ants_syn": "ants",
    "elastix": "elastix_default",
    "greedy_nmi": "greedy",
    "convexadam": "convexadam",
}
"""Name in the results -> the peer of ``anamorph.inference.peers``."""
FILES = ("fixed", "moving", "mask", "fixed_labels", "moving_labels")


@dataclass(frozen=True, eq=False)
class Case:
    """A pair and its truth on the fixed grid."""

    folder: Path
    affine: np.ndarray
    points: np.ndarray
    truth: np.ndarray
    mask: np.ndarray
    partner_inside: np.ndarray
    fixed_labels: np.ndarray
    moving_labels: tuple[np.ndarray, np.ndarray]

    @property
    def scored(self) -> np.ndarray:
        """Voxels of the mask whose true partner lies inside the moving image."""
        return self.mask & self.partner_inside

    @property
    def group(self) -> str:
        return self.folder.name.rpartition("_s")[0]

    @property
    def seed(self) -> int:
        return int(self.folder.name.rpartition("_s")[2])


def read_case(folder: Path) -> Case:
    mask, affine = referee.load(folder / "mask.nii.gz")
    moving, moving_affine = referee.load(folder / "moving.nii.gz")
    truth = np.load(folder / "truth.npz")["disp"].astype(np.float64)
    truth[:2] *= -1
    points = referee.world_points(mask.shape, affine)
    inside = referee.lies_inside(points + truth, moving_affine, moving.shape)
    labels = referee.load(folder / "fixed_labels.nii.gz")[0].astype(np.int32)
    moving_labels, labels_affine = referee.load(folder / "moving_labels.nii.gz")
    moved = moving_labels.astype(np.int32), labels_affine
    return Case(folder, affine, points, truth, mask > 0, inside, np.where(inside, labels, 0), moved)


def find_cases(folder: Path) -> list[Path]:
    """Complete case folders, by group and seed."""
    named = [path for path in folder.iterdir() if re.fullmatch(r".+_s\d+", path.name)]
    needed = [*(f"{name}.nii.gz" for name in FILES), "truth.npz"]
    for path in named:
        missing = [name for name in needed if not (path / name).exists()]
        if missing:
            sys.exit(f"{path.name}: {', '.join(missing)} missing")
    return sorted(named, key=lambda path: (path.name.rpartition("_s")[0], int(path.name.rpartition("_s")[2])))


def score(case: Case, displacement: np.ndarray) -> dict[str, Any]:
    """All that is said about a map; labels count only where the true partner lies inside the moving image."""
    warped = referee.pulled(*case.moving_labels, case.points + displacement, order=0) * case.partner_inside
    labels = [int(label) for label in np.unique(case.fixed_labels) if label]
    spacing = np.linalg.norm(case.affine[:3, :3], axis=0)
    return {
        **referee.error_of_map(displacement, case.truth, case.scored),
        **referee.overlap_of_labels(case.fixed_labels, warped, spacing, labels),
        **referee.regularity(displacement, case.affine, case.scored),
        **referee.size_of_map(displacement, case.mask),
    }


def measure(case: Case, method: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """One row: how it went and how good it is, or why there is no map."""
    about = {"case": case.folder.name, "group": case.group, "seed": case.seed, "method": method}
    row: dict[str, Any] = about | {"commit": commit(), "date": now(), "threads": arguments.threads, "failure": None}
    peer = METHODS[method]
    with tempfile.TemporaryDirectory() as scratch:
        field = Path(scratch) / ("field.npy" if peer else "field.nii.gz")
        try:
            command = [str(python_of(peer).absolute()), str(SCRIPT), peer] if peer else OURS
            report = register_alone(
                command, case.folder / "fixed.nii.gz", case.folder / "moving.nii.gz", field,
                threads=arguments.threads, time_limit=arguments.time_limit,
            )  # fmt: skip
            displacement = referee.load_field(field, case.affine, case.mask.shape)
        except (ConfigurationError, RunFailed, ValueError) as error:
            return row | {"failure": str(error)}
    return row | report | score(case, displacement)


def rows_without_registration(case: Case) -> dict[str, Any]:
    """What the headers alone give."""
    about = {"case": case.folder.name, "group": case.group, "seed": case.seed, "method": "none", "failure": None}
    return about | score(case, np.zeros_like(case.truth))


def rows_to_measure(folders: list[Path], methods: list[str], done: set[tuple[str, str]]) -> Iterator[tuple[Case, str]]:
    for folder in folders:
        wanted = [method for method in ("none", *methods) if (folder.name, method) not in done]
        if wanted:
            case = read_case(folder)
            yield from ((case, method) for method in wanted)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=Path, required=True, help="folder of case folders")
    parser.add_argument("--methods", default=",".join(METHODS), help="separated by commas; default: %(default)s")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--time-limit", type=float, default=3600, help="seconds that one registration may take")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/known_maps.json")
    parser.add_argument("--resume", action="store_true", help="keep the rows of --out that are no failures")
    parser.add_argument("--again", default="", help="with --resume: methods measured anew, separated by commas")
    arguments = parser.parse_args()
    methods = arguments.methods.split(",")
    unknown = sorted({*methods, *filter(None, arguments.again.split(","))} - set(METHODS))
    if unknown:
        parser.error(f"no such method: {', '.join(unknown)}; there are {', '.join(METHODS)}")
    rows: list[dict[str, Any]] = []
    if arguments.resume and arguments.out.exists():
        kept = json.loads(arguments.out.read_text())["rows"]
        rows = [row for row in kept if not row["failure"] and row["method"] not in arguments.again.split(",")]
    folders = find_cases(arguments.cases)
    if not folders:
        sys.exit(f"{arguments.cases.name}: found no case folder, expected names such as t1_t2_s1")
    done = {(row["case"], row["method"]) for row in rows}
    results: dict[str, Any] = {"what": "pairs whose true map is known", "hardware": hardware(), "rows": rows}
    for case, method in rows_to_measure(folders, methods, done):
        row = rows_without_registration(case) if method == "none" else measure(case, method, arguments)
        rows.append(row)
        write_json(arguments.out, results)
        if method != "none":
            error, seconds = row.get("error_mean_mm"), row.get("seconds_registration")
            print(f"{row['case']:20} {method:12}", row["failure"] or f"{error} mm in {seconds} s", flush=True)
    text = page(results)
    arguments.out.with_suffix(".md").write_text(text, encoding="utf-8")
    print(f"\n{text}")


if __name__ == "__main__":
    main()
