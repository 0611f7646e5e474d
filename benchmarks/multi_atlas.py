"""Seconds and memory of a segmentation by atlases: by their number, and by the number of labels.

    python -m benchmarks.multi_atlas            # half an hour
    python -m benchmarks.multi_atlas --quick --out FILE

Each measurement is a process of its own. A *segmentation* is all of it, from files to labels, by the pairwise engine
and joint fusion, in this process with one atlas after the other. A *fusion* is the fusion alone, of labelmaps in blocks
that atlases place a little differently, mapped from the disk as they are in a segmentation. Labels and images are made
up: cost does not know what they show, but joint fusion and the rest work where atlases disagree, whose share is told.
"""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from anamorph.data.cohort import Scan
from anamorph.data.files import read, write
from anamorph.data.image import Image, Labelmap
from anamorph.fusion import FusionSettings, fuse
from anamorph.inference.multi_atlas import segment_by_atlases
from anamorph.inference.multi_atlas_cache import Entry
from anamorph.inference.multi_atlas_cases import Arrays
from benchmarks.command import arguments_of, parser_of, write_page
from benchmarks.processes import measure_alone, write_json
from benchmarks.provenance import MIB, hardware, resident
from benchmarks.tables import markdown_table, provenance_lines, shown

ATLASES = (1, 2, 4, 8, 15)
MANY_LABELLED = (1, 4, 15)
"""Atlases of 138 labels in a whole segmentation."""
FUSED = (5, 15, 60)
LABELS = (5, 138)
FUSIONS = ("majority", "local", "joint")
EDGE, FUSED_EDGE = 96, 128
QUICK_EDGE = 16
SPACING = 2.0

NOTES = """\
*MiB*: the largest memory of the process's own beyond that before the work began, looked at every few milliseconds.
Pages of files that are mapped are not among it: the system keeps as many as it has room for. They are in *MiB in all*,
the largest resident size of the process. *An atlas*: seconds divided by the atlases. *Contested*: share of the voxels
where atlases disagree."""
OFTEN = 0.005
"""Seconds between two looks."""


@dataclass(frozen=True)
class Measurement:
    """One row.

    Args:
        kind: "segmentation" or "fusion".
        fusion: name of the rule.
        atlases, labels: how many.
        edge: voxels of the images along each axis.
        threads: of the CPU.
    """

    kind: str
    fusion: str
    atlases: int
    labels: int
    edge: int
    threads: int


class OwnMemory:
    """Within a block: the largest ``RssAnon`` beyond that at its beginning, MiB, and the seconds."""

    def __enter__(self) -> OwnMemory:
        self._over = threading.Event()
        self._before = self._largest = resident("RssAnon")
        self._thread = threading.Thread(target=self._look)
        self._thread.start()
        self._begin = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = time.perf_counter() - self._begin
        self._over.set()
        self._thread.join()
        self.peak_mib = (self._largest - self._before) / MIB

    def _look(self) -> None:
        while not self._over.wait(OFTEN):
            self._largest = max(self._largest, resident("RssAnon"))


def patient(number: int, labels: int, edge: int) -> tuple[np.ndarray, np.ndarray]:
    """An image and its labels: blocks in a ball, bent by a smooth wave of its own."""
    rng = np.random.default_rng(number)
    axes = np.meshgrid(*[np.linspace(-1, 1, edge)] * 3, indexing="ij")
    waves = [0.06 * np.sin(2 * axes[(axis + 1) % 3] + rng.uniform(0, 6)) for axis in range(3)]
    bent = np.stack([axis + wave for axis, wave in zip(axes, waves, strict=True)])
    parts = max(2, round(labels ** (1 / 3) + 0.5))
    cell = np.clip(((bent + 0.8) / 1.6 * parts).astype(int), 0, parts - 1)
    block = (cell[0] * parts + cell[1]) * parts + cell[2]
    inside = np.linalg.norm(bent, axis=0) < 0.8
    truth = np.where(inside, block % labels + 1, 0).astype(np.int16)
    brightness = np.random.default_rng(0).permutation(labels + 1) / labels
    image = np.where(inside, 0.2 + brightness[truth], 0.0) + rng.normal(0, 0.02, truth.shape)
    return image.astype(np.float32), truth


def measure(case: Measurement) -> dict[str, Any]:
    """In this process."""
    torch.set_num_threads(case.threads)
    with tempfile.TemporaryDirectory() as scratch:
        found = (segmentation if case.kind == "segmentation" else fusion)(case, Path(scratch))
    return found | {"whole_mib": round(resident("VmHWM") / MIB)}


def segmentation(case: Measurement, folder: Path) -> dict[str, Any]:
    """All of it."""
    affine = np.diag([SPACING] * 3 + [1.0])
    scans = []
    for number in range(case.atlases + 1):
        image, labels = patient(number, case.labels, case.edge)
        files = folder / f"{number}.nii.gz", folder / f"{number}_labels.nii.gz"
        write(Image.from_array(image, affine), files[0])
        write(Labelmap.from_array(labels, affine), files[1])
        scans.append(Scan(str(number), "mr", *files))
    target, *atlases = scans
    settings = FusionSettings.model_validate({"fusion": case.fusion})
    with OwnMemory() as cost:
        found = segment_by_atlases(
            read(target.image, modality="mr"), atlases, cache=folder / "cache", fusion=settings, device="cpu"
        )
    return _row(cost.seconds, cost.peak_mib, float((found.share < 1).float().mean())) | {"stages": dict(found.seconds)}


def fusion(case: Measurement, folder: Path) -> dict[str, Any]:
    """The last step alone."""
    image, _ = patient(0, case.labels, case.edge)
    entries = []
    for number in range(1, case.atlases + 1):
        entries.append(Entry(folder / str(number)))
        values, labels = patient(number, case.labels, case.edge)
        entries[-1].write({}, {"labels": labels, "image": values[None]})
    cpu = torch.device("cpu")
    settings = FusionSettings.model_validate({"fusion": case.fusion})
    with OwnMemory() as cost:
        found = fuse(
            Arrays(entries, "labels", cpu),
            settings,
            target=torch.from_numpy(image)[None],
            images=Arrays(entries, "image", cpu),
        )
    return _row(cost.seconds, cost.peak_mib, float((found.share < 1).float().mean()))


def _row(seconds: float, peak_mib: float, contested: float) -> dict[str, Any]:
    return {
        "seconds": round(seconds, 3),
        "peak_mib": round(peak_mib),
        "contested": round(contested, 4),
    }


def measurements(threads: int, quick: bool) -> list[Measurement]:
    """All of them."""
    if quick:
        return [Measurement(kind, "majority", 2, 5, QUICK_EDGE, threads) for kind in ("segmentation", "fusion")]
    rows = [
        Measurement("segmentation", "joint", count, labels, EDGE, threads)
        for labels, counts in ((LABELS[0], ATLASES), (LABELS[1], MANY_LABELLED))
        for count in counts
    ]
    return rows + [
        Measurement("fusion", name, count, labels, FUSED_EDGE, threads)
        for name in FUSIONS
        for labels in LABELS
        for count in FUSED
    ]


def in_own_process(case: Measurement, time_limit: float) -> dict[str, Any]:
    """The row of a measurement."""
    return measure_alone("benchmarks.multi_atlas", case, case.threads, time_limit)


def slope(rows: Sequence[dict[str, Any]], number: str) -> float | None:
    """What one more atlas adds, by least squares; None where there are too few rows."""
    places = [(row["atlases"], row[number]) for row in rows if not row["failure"] and row[number] is not None]
    if len(places) < 2:
        return None
    counts, values = np.array(places, dtype=float).T
    return float(np.polyfit(counts, values, 1)[0])


def page(results: dict[str, Any]) -> str:
    """Everything, failures in their place."""
    rows = results["rows"]
    parts = [
        "# Segmentation by atlases",
        "Written by `python -m benchmarks.multi_atlas`; float32, all on the CPU.",
        provenance_lines(results["hardware"], [{**row, "method": "anamorph"} for row in rows]),
    ]
    headings = ["", "atlases", "labels", "s", "s an atlas", "MiB", "MiB in all", "contested"]
    for kind in ("segmentation", "fusion"):
        own = [row for row in rows if row["kind"] == kind]
        body = [
            [
                f"{row['fusion']}, {row['edge']}^3 voxels", str(row["atlases"]), str(row["labels"]),
                shown(row["seconds"], 1), shown(row["seconds"] / row["atlases"], 2), shown(row["peak_mib"], 0),
                shown(row["whole_mib"], 0), f"{row['contested']:.0%}",
            ]
            for row in own
            if not row["failure"]
        ]  # fmt: skip
        parts += [f"## {kind.capitalize()}", markdown_table(headings, body)]
        for name, labels in dict.fromkeys((row["fusion"], row["labels"]) for row in own):
            same = [row for row in own if (row["fusion"], row["labels"]) == (name, labels)]
            seconds, memory = slope(same, "seconds"), slope(same, "peak_mib")
            if seconds is not None:
                more = "" if memory is None else f" and {round(memory, 1) + 0.0} MiB"  # never -0.0
                parts.append(f"One more atlas, {name}, {labels} labels: {seconds:.2f} s{more}.")
    failures = [f"- {row['kind']}, {row['atlases']} atlases: {row['failure']}" for row in rows if row["failure"]]
    return "\n\n".join([*parts, NOTES, "## Failures", "\n".join(failures) or "None."]) + "\n"


def main(words: Sequence[str] | None = None) -> None:
    parser = parser_of(__doc__, time_limit=7200.0, devices=False)
    arguments = arguments_of(parser, words, "multi_atlas", lambda values, _: measure(Measurement(**values)))
    if arguments is None:
        return
    results: dict[str, Any] = {"what": "segmentation by atlases", "hardware": hardware(), "rows": []}
    for case in measurements(arguments.threads, arguments.quick):
        row = in_own_process(case, arguments.time_limit)
        results["rows"].append(row)
        write_json(arguments.out, results)
        what = f"{case.kind} {case.fusion} {case.atlases} atlases {case.labels} labels"
        print(f"{what:48} {row['failure'] or 'done'}", flush=True)
    write_page(arguments.out, page(results))


if __name__ == "__main__":
    main()
