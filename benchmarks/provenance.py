"""Where a benchmark's numbers come from: what the package says, of this checkout."""

from __future__ import annotations

from pathlib import Path

from anamorph.inference import provenance
from anamorph.inference.provenance import hardware, now, peak_mib, resident, versions

__all__ = ["MIB", "ROOT", "commit", "hardware", "now", "peak_mib", "resident", "versions"]

ROOT = Path(__file__).resolve().parents[1]
MIB = provenance.MIB


def commit() -> str:
    return provenance.commit(ROOT)
