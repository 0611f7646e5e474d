"""Registration of real pairs, for which no dense truth exists; what can be said of each is said.

    python -m benchmarks.real_pairs --data DIR

Images stay where they are, as their licences ask; only numbers are written. Each pair is judged by one thing:

- ``headers``: the headers align the pair; how far the map moves the head, mm.
- ``labels``: mean Dice before and after.
- ``matrix``: a linear truth is known; error of the map, mm.
"""

from __future__ import annotations

import argparse
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import nibabel as nib
import numpy as np
from scipy.ndimage import binary_fill_holes
from scipy.spatial.transform import Rotation

from anamorph.data.files import check_same_space, read, read_labels
from anamorph.errors import AnamorphError, AnamorphWarning
from anamorph.evaluation.appearance import normalised_mutual_information
from benchmarks import referee
from benchmarks.processes import OURS, RunFailed, register_alone, write_json
from benchmarks.provenance import ROOT, commit, hardware, now
from benchmarks.tables import markdown_table, provenance_lines, shown

DICE_GAINED = 0.1
"""Rise of the mean Dice from which on a pair judged by labels counts as found."""


@dataclass(frozen=True)
class Motion:
    """A turn about the centre, as a rotation vector in degrees (in 2-D its angle), then a shift; RAS mm."""

    degrees: tuple[float, ...]
    shift_mm: tuple[float, ...]

    def matrix(self, centre: np.ndarray) -> np.ndarray:
        matrix = np.eye(len(centre) + 1)
        turn = Rotation.from_rotvec(self.degrees if len(centre) == 3 else (0, 0, *self.degrees), degrees=True)
        matrix[:-1, :-1] = turn.as_matrix()[: len(centre), : len(centre)]
        matrix[:-1, -1] = centre + self.shift_mm - matrix[:-1, :-1] @ centre
        return matrix


@dataclass(frozen=True)
class Pair:
    """Files of a pair, relative to the data folder, and how it is judged.

    ``motion`` is the truth of a ``matrix`` pair; ``move_header`` says that the moving file lies aligned and its header
    is moved by it first. ``labels`` are scored where the fixed image has them; all of its labels if left out.
    ``found_mm`` is the mean error, or displacement, above which the start counts as failed.
    """

    name: str
    fixed: str
    moving: str
    judged_by: Literal["headers", "labels", "matrix"]
    fixed_labels: str | None = None
    moving_labels: str | None = None
    labels: tuple[int, ...] | None = None
    motion: Motion | None = None
    move_header: bool = False
    found_mm: float = 5.0


NATIVE = "brain_t1_t2_flair_native/patient04_study1_"
MNI = "brain_t1_t2_flair_mni/patient07_"
TEMPLATES = "templates_ct_t1_t2_pd/"
DKT = f"{TEMPLATES}DKT_space-MNI152NLin6_res-2x2x2.nii.gz"
ABDOMEN = "abdomen_ct_mr/example_"
OASIS = "brain_t1_138_labels/"
SLICE = "slices_2d/ITK_Brain"
OBLIQUE_30_60 = Motion(tuple(30 * np.array([1, 2, 2]) / 3), tuple(60 * np.array([2, -1, 2]) / 3))
SHIFTED = Motion((0.0,), (-13.0, -17.0))
TURNED = Motion((9.997,), (-13.093, -15.92))
"""Of the slices, in RAS; this one measured between slices of one modality, where it is exact to 0.1 mm."""

PAIRS = (
    Pair("native T1 <- T2", f"{NATIVE}T1W.nii.gz", f"{NATIVE}T2W.nii.gz", "headers"),
    Pair("native T2 <- T1", f"{NATIVE}T2W.nii.gz", f"{NATIVE}T1W.nii.gz", "headers"),
    Pair("native T1 <- FLAIR", f"{NATIVE}T1W.nii.gz", f"{NATIVE}FLAIR.nii.gz", "headers"),
    Pair("native FLAIR <- T1", f"{NATIVE}FLAIR.nii.gz", f"{NATIVE}T1W.nii.gz", "headers"),
    Pair("template CT <- T1", f"{TEMPLATES}scct.nii", f"{TEMPLATES}avg152T1.nii", "headers"),
    Pair("template T1 <- CT", f"{TEMPLATES}avg152T1.nii", f"{TEMPLATES}scct.nii", "headers"),
    Pair(
        "HCP T1 <- T2", f"{TEMPLATES}HCP_MNI152_T1_2mm.nii.gz", f"{TEMPLATES}HCP_MNI152_T2_2mm.nii.gz", "headers",
        fixed_labels=DKT, moving_labels=DKT,
    ),
    Pair(
        "abdomen CT <- MR, two patients", f"{ABDOMEN}ct_sm.nii.gz", f"{ABDOMEN}mr_sm.nii.gz", "labels",
        fixed_labels=f"{ABDOMEN}seg.nii.gz", moving_labels=f"{ABDOMEN}seg_mr.nii.gz", labels=tuple(range(1, 10)),
    ),
    Pair(
        "abdomen MR <- CT, two patients", f"{ABDOMEN}mr_sm.nii.gz", f"{ABDOMEN}ct_sm.nii.gz", "labels",
        fixed_labels=f"{ABDOMEN}seg_mr.nii.gz", moving_labels=f"{ABDOMEN}seg.nii.gz", labels=tuple(range(1, 10)),
    ),
    Pair(
        "T1 <- T2 turned by 30 degrees, shifted by 60 mm", f"{MNI}T1.nii.gz", f"{MNI}T2.nii.gz", "matrix",
        motion=OBLIQUE_30_60, move_header=True,
    ),
    Pair(
        "T1 of two people", f"{OASIS}1000_SS.nii.gz", f"{OASIS}1001_SS.nii.gz", "labels",
        fixed_labels=f"{OASIS}1000_glm.nii.gz", moving_labels=f"{OASIS}1001_glm.nii.gz",
    ),
    Pair(
        "T1 of two people, the other way", f"{OASIS}1001_SS.nii.gz", f"{OASIS}1000_SS.nii.gz", "labels",
        fixed_labels=f"{OASIS}1001_glm.nii.gz", moving_labels=f"{OASIS}1000_glm.nii.gz",
    ),
    Pair(
        "slice T1 <- PD shifted", f"{SLICE}T1SliceBorder20.png", f"{SLICE}ProtonDensitySliceShifted13x17y.png",
        "matrix", motion=SHIFTED,
    ),
    Pair(
        "slice T1 <- PD turned and shifted", f"{SLICE}T1SliceBorder20.png", f"{SLICE}ProtonDensitySliceR10X13Y17.png",
        "matrix", motion=TURNED,
    ),
)  # fmt: skip


def measure(pair: Pair, data: Path, threads: int, time_limit: float) -> dict[str, Any]:
    """One row: what the map is worth, or why there is none."""
    row: dict[str, Any] = {"pair": pair.name, "fixed": Path(pair.fixed).name, "moving": Path(pair.moving).name}
    row |= {"judged_by": pair.judged_by, "commit": commit(), "date": now(), "threads": threads, "failure": None}
    needed = [name for name in (pair.fixed, pair.moving, pair.fixed_labels, pair.moving_labels) if name]
    missing = [Path(name).name for name in dict.fromkeys(needed) if not (data / name).exists()]
    if missing:
        return row | {"found": None, "failure": f"missing: {', '.join(missing)}"}
    with tempfile.TemporaryDirectory() as scratch:
        field = Path(scratch) / "field.nii.gz"
        moving = data / pair.moving
        if pair.move_header and pair.motion is not None:
            moving = _moved_copy(moving, pair.motion, Path(scratch))
        try:
            report = register_alone(
                OURS, data / pair.fixed, moving, field,
                threads=threads, time_limit=time_limit,
            )  # fmt: skip
            return row | report | _score(pair, data, moving, field)
        except (RunFailed, AnamorphError, ValueError) as error:
            return row | {"found": False, "failure": str(error)}


def _moved_copy(path: Path, motion: Motion, folder: Path) -> Path:
    """The same voxels under a header that ``motion`` has moved."""
    image = read(path)
    moved = folder / "moved.nii.gz"
    affine = motion.matrix(image.grid.centre) @ image.grid.affine
    nib.save(nib.Nifti1Image(image.data[0].numpy(), affine), moved)
    return moved


def _score(pair: Pair, data: Path, moving_file: Path, field: Path) -> dict[str, Any]:
    fixed, moving = read(data / pair.fixed), read(moving_file)
    affine, values = fixed.grid.affine, fixed.data[0].numpy()
    displacement = referee.load_field(field, affine, fixed.grid.shape)
    points = referee.world_points(fixed.grid.shape, affine)
    head = _foreground(values)
    scores: dict[str, Any] = {
        **referee.regularity(displacement, affine, head),
        **referee.size_of_map(displacement, head),
    }
    maps = {"before": points, "after": points + displacement}
    for when, places in maps.items():
        seen = head & referee.lies_inside(places, moving.grid.affine, moving.grid.shape)
        warped = referee.pulled(moving.data[0].numpy(), moving.grid.affine, places, order=1)
        scores[f"nmi_{when}"] = referee.number(normalised_mutual_information(values, warped, seen))
    error = scores["displacement_mean_mm"]
    if pair.motion is not None:
        centre = read(data / pair.moving).grid.centre if pair.move_header else fixed.grid.centre
        matrix = pair.motion.matrix(centre)
        truth = np.einsum("ij,j...->i...", matrix[:-1, :-1], points)
        truth += matrix[:-1, -1].reshape(-1, *[1] * fixed.grid.ndim) - points
        scores |= referee.error_of_map(displacement, truth, head)
        scores["error_before_mm"] = referee.size_of_map(truth, head)["displacement_mean_mm"]
        error = scores["error_mean_mm"]
    if pair.fixed_labels and pair.moving_labels:
        of_fixed, of_moving = (read_labels(data / name) for name in (pair.fixed_labels, pair.moving_labels))
        check_same_space(fixed.grid, of_fixed.grid, pair.fixed_labels)
        truth_labels = of_fixed.data.numpy()
        wanted = [int(label) for label in np.unique(truth_labels) if label and label in (pair.labels or (label,))]
        for when, places in maps.items():
            warped = referee.pulled(of_moving.data.numpy(), of_moving.grid.affine, places, order=0)
            overlap = referee.overlap_of_labels(truth_labels, warped, fixed.grid.spacing, wanted)
            scores |= {f"{name}_{when}": value for name, value in overlap.items()}
    found = error is not None and error <= pair.found_mm
    if pair.judged_by == "labels":
        found = (scores["dice_mean_after"] or 0.0) >= (scores["dice_mean_before"] or 0.0) + DICE_GAINED
    return scores | {"found": found}


def _foreground(values: np.ndarray) -> np.ndarray:
    """Head or body: brighter than a tenth of the range between the 1st and 99th percentile, holes filled."""
    low, high = np.percentile(values, (1, 99))
    return np.asarray(binary_fill_holes(values > low + 0.1 * (high - low)))


def page(results: dict[str, Any]) -> str:
    """Every pair, failures in their place."""
    headings = ["pair", "judged by", "found", "error, mm", "p95", "before", "moved, mm", "Dice before", "Dice after"]
    headings += ["NMI before", "NMI after", "folded, %", "s", "s in all", "MiB"]
    body = []
    for row in results["rows"]:
        found = {True: "yes", False: "**no**", None: "not measured"}[row["found"]]
        values = (
            ("error_mean_mm", 2), ("error_p95_mm", 2), ("error_before_mm", 1), ("displacement_mean_mm", 2),
            ("dice_mean_before", 3), ("dice_mean_after", 3), ("nmi_before", 4), ("nmi_after", 4),
        )  # fmt: skip
        cells = [shown(row.get(key), decimals) for key, decimals in values]
        cells += [shown(row.get("folded_share"), 4, 100), shown(row.get("seconds_registration"), 1)]
        cells += [shown(row.get("seconds_process"), 1), shown(row.get("peak_mib"), 0)]
        body.append([row["pair"], row["judged_by"], found, *cells])
    failures = [f"- {row['pair']}: {row['failure']}" for row in results["rows"] if row["failure"]]
    parts = [
        "# Real pairs",
        "Written by `python -m benchmarks.real_pairs`; what each number means stands in `benchmarks/README.md`.",
        provenance_lines(results["hardware"], results["rows"]),
        markdown_table(headings, body),
        "## Failures",
        "\n".join(failures) or "None.",
    ]
    return "\n\n".join(parts) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder that the pairs' paths start from")
    parser.add_argument("--only", default="", help="pairs whose name contains this")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--time-limit", type=float, default=3600, help="seconds that one registration may take")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/real_pairs.json")
    arguments = parser.parse_args()
    rows: list[dict[str, Any]] = []
    results: dict[str, Any] = {"what": "real pairs without dense truth", "hardware": hardware(), "rows": rows}
    for pair in (pair for pair in PAIRS if arguments.only in pair.name):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", AnamorphWarning)  # the registration has recorded its own
            rows.append(measure(pair, arguments.data, arguments.threads, arguments.time_limit))
        write_json(arguments.out, results)
        print(f"{pair.name:48} {rows[-1]['failure'] or ('found' if rows[-1]['found'] else 'NOT found')}", flush=True)
    text = page(results)
    arguments.out.with_suffix(".md").write_text(text, encoding="utf-8")
    print(f"\n{text}")


if __name__ == "__main__":
    main()
