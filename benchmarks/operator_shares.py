"""Where the time of a training step or an inference goes, by torch's profiler."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from unittest.mock import patch

import torch
from torch.autograd.profiler import record_function
from torch.profiler import ProfilerActivity, profile

SIMILARITY = "part: similarity"
PARTS = ("convolutions", "gradients of convolutions", "sampling", "similarity", "optimiser", "rest")
NAMES = (
    (re.compile("conv.*backward", re.IGNORECASE), "gradients of convolutions"),
    (re.compile("conv", re.IGNORECASE), "convolutions"),
    (re.compile("_Linear|grid_sampler"), "sampling"),
    (re.compile("Optimizer.step"), "optimiser"),
    (re.compile(SIMILARITY), "similarity"),
)
"""What an operator's name contains -> part; the first that fits. ``_Linear`` is our interpolation, not a layer."""


def where_time_goes(
    action: Callable[[], object], device: torch.device, method: Any, largest: int = 5
) -> dict[str, Any]:
    """Shares of the time of all operators: by part, and of the ``largest`` single ones.

    An operator belongs to the part of the innermost operator around it that has one; in the backward pass, to the
    similarity if what it differentiates does. Values read at points for the similarity count as sampling.

    Args:
        action: to be profiled; it has run before.
        device: whose time counts.
        method: whose ``_similarity`` it calls.
    """
    compare = method._similarity

    def recorded(*arguments: Any) -> torch.Tensor:
        with record_function(SIMILARITY):
            return compare(*arguments)

    gpu = device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if gpu else [])]
    with patch.object(method, "_similarity", recorded), profile(activities=activities, acc_events=True) as profiled:
        action()
    events = [event for event in profiled.events() or () if event.device_type.name == "CPU"]
    compared = _sequence_numbers(events)
    parts: Counter[str] = Counter(dict.fromkeys(PARTS, 0.0))
    single: Counter[str] = Counter()
    calls: Counter[str] = Counter()
    for event in events:
        seconds = event.self_device_time_total if gpu else event.self_cpu_time_total
        parts[_part(event, compared)] += seconds
        single[event.name] += seconds
        calls[event.name] += 1
    total = sum(parts.values()) or 1.0
    return {
        "parts": {part: round(seconds / total, 4) for part, seconds in parts.items()},
        "largest": [
            {"operator": name, "share": round(seconds / total, 4), "calls": calls[name]}
            for name, seconds in single.most_common(largest)
        ],
    }


def _sequence_numbers(events: Sequence[Any]) -> set[int]:
    """Of the operators that compute the similarity; their gradients bear the same."""
    return {e.sequence_nr for e in events if e.sequence_nr >= 0 and any(a.name == SIMILARITY for a in _around(e))}


def _part(event: Any, compared: set[int]) -> str:
    for one in _around(event):
        for pattern, part in NAMES:
            if pattern.search(one.name):
                return part
        if one.name.startswith("autograd::engine") and one.sequence_nr in compared:
            return "similarity"
    return "rest"


def _around(event: Any) -> Iterator[Any]:
    """The event, and what it is part of, from the inside out."""
    while event is not None:
        yield event
        event = event.cpu_parent
