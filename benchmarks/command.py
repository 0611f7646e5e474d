"""What the commands share: words on the command line, one measurement as a process of its own, and the page."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.processes import write_json
from benchmarks.provenance import ROOT


def parser_of(about: str | None, *, time_limit: float, devices: bool = True) -> argparse.ArgumentParser:
    """The words that every benchmark of many processes knows.

    Args:
        about: the module's docstring.
        time_limit: what ``--time-limit`` is if left out.
        devices: whether it can be told where to compute.
    """
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    if devices:
        parser.add_argument("--devices", default="", help="cpu, cuda or cpu,cuda; all that there are if left out")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="of the CPU; all cores if left out")
    parser.add_argument(
        "--time-limit", type=float, default=time_limit, help="seconds that one process may take, %(default)s"
    )
    parser.add_argument("--quick", action="store_true", help="tiny images, for tests: the numbers mean nothing")
    parser.add_argument("--out", type=Path, help="JSON file; one below benchmarks/results if left out")
    parser.add_argument("--child", nargs=2, metavar=("CASE", "FILE"), help=argparse.SUPPRESS)
    return parser


def arguments_of(
    parser: argparse.ArgumentParser,
    words: Sequence[str] | None,
    name: str,
    child: Callable[[dict[str, Any], Path], dict[str, Any]],
) -> argparse.Namespace | None:
    """The words as given, ``out`` filled in and ``devices`` a list; None where this process was one measurement.

    Args:
        parser: from ``parser_of``.
        words: of the command line.
        name: of the result.
        child: from the values of a case, and a folder to write in, to what was measured; its result is written.
    """
    arguments = parser.parse_args(words)
    if arguments.child:
        text, file = arguments.child
        values = json.loads(text)
        if "shape" in values:
            values["shape"] = tuple(values["shape"])
        write_json(Path(file), child(values, Path(file).parent))
        return None
    if arguments.out is None:
        if arguments.quick:
            parser.error("--quick needs --out: its numbers are no results")
        arguments.out = ROOT / f"benchmarks/results/{name}.json"
    if "devices" in arguments:
        there = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
        arguments.devices = arguments.devices.split(",") if arguments.devices else there
    return arguments


def write_page(out: Path, text: str) -> None:
    """Beside the JSON file, and on the screen."""
    out.with_suffix(".md").write_text(text, encoding="utf-8")
    print(f"\n{text}")
