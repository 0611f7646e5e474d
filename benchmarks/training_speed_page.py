"""The page of ``training_speed``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.operator_shares import PARTS
from benchmarks.tables import markdown_table, provenance_lines, shown

Row = dict[str, Any]

NOTES = """\
*s*: median, and in brackets the quartiles. *Floor*: the least time by the larger peaks, summed over convolutions, their
gradients and samplings, each limited by its operations or its bytes; the rest counts as free, see
`benchmarks/roofline.py`. *Share*: floor / s. *MiB*: the largest memory beyond weights and images, of the process on a
CPU, allocated on a GPU."""

PARTS_NOTES = """\
By torch's profiler, of one more run each, in percent; *sampling* is warping and integration, *rest* activations,
joining and resizing of features, smoothness, bookkeeping. Gradients belong to the part that they are of."""

WAITING_NOTES = """\
A LapIRN a seventh as wide as the released one (`channels` 1), so that steps are as short as they get, learns from pairs
of synthetic scans with labels. Its first epoch trains the coarsest level, whose steps are the shortest."""


def page(results: dict[str, Any]) -> str:
    """Everything, failures in their place."""
    rows = [*results["rows"], *results["waiting"], *results["peaks"]]
    failures = [f"- {_name(row)} {row['kind']}: {row['failure']}" for row in rows if row["failure"]]
    parts = [
        "# Speed of training and inference",
        "Written by `python -m benchmarks.training_speed`; float32, batches of one pair of one channel, methods with "
        "their own defaults, LapIRN with all of its levels learning.",
        provenance_lines(results["hardware"], [{**row, "method": "anamorph"} for row in rows]),
        "## Peaks",
        _peaks(results["peaks"]),
        "## Speed and memory",
        _speed(results["rows"]),
        NOTES,
        "## Where the time goes",
        _parts(results["rows"]),
        PARTS_NOTES,
        "## Waiting for data",
        _waiting(results["waiting"]),
        WAITING_NOTES,
        "## Failures",
        "\n".join(failures) or "None.",
    ]
    return "\n\n".join(parts) + "\n"


def _peaks(rows: Sequence[Row]) -> str:
    columns = {"matmul_gflops": "matmul, GFLOP/s", "convolution_gflops": "convolution 64 to 64, GFLOP/s"}
    columns |= {"gradient_gflops": "its gradients, GFLOP/s", "copy_gbytes": "copy, GB/s"}
    body = [
        [row["name"] or row["device"], *(shown(row["peaks"][key], 1) for key in columns)]
        for row in rows
        if not row["failure"]
    ]
    return markdown_table(["device, before and after", *columns.values()], body)


def _speed(rows: Sequence[Row]) -> str:
    body = []
    for row in rows:
        seconds = row.get("seconds", {})
        spread = f" ({_seconds(seconds['lower_quartile'])} to {_seconds(seconds['upper_quartile'])})" if seconds else ""
        body.append(
            [
                f"{_name(row)}, {row['kind']}",
                _seconds(seconds.get("median")) + spread,
                str(row.get("repeats", "failed")),
                _seconds(row.get("floor_seconds")),
                shown(row.get("share_of_floor"), 0, 100) + (" %" if "share_of_floor" in row else ""),
                shown(row.get("gflops"), 1),
                shown(row.get("peak_mib"), 0),
            ]
        )
    return markdown_table(["", "s", "repeats", "floor, s", "share", "GFLOP", "MiB"], body)


def _parts(rows: Sequence[Row]) -> str:
    body = []
    for row in rows:
        if not row["failure"]:
            largest = ", ".join(f"{one['operator']} {one['share']:.0%}" for one in row["time"]["largest"][:3])
            cells = [shown(row["time"]["parts"][part], 1, 100) for part in PARTS]
            body.append([f"{_name(row)}, {row['kind']}", *cells, largest])
    return markdown_table(["", *PARTS, "largest operators"], body)


def _waiting(rows: Sequence[Row]) -> str:
    body = [
        [
            f"{row['device']}, {row['scans']} scans of {_shape(row)}",
            shown(1000 * row["seconds_per_step"], 0),
            ", ".join(f"{epoch['waiting']:.1%}" for epoch in row["epochs"]),
            f"{row['waiting']:.1%}",
            "yes" if row["waiting"] < 0.05 else "**no**",
        ]
        for row in rows
        if not row["failure"]
    ]
    return markdown_table(["", "ms a step", "waiting, by epoch", "in all", "under 5 %"], body)


def _name(row: Row) -> str:
    return ", ".join(text for text in (row["method"], _shape(row), row["device"]) if text)


def _shape(row: Row) -> str:
    return "x".join(map(str, row["shape"]))


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"
