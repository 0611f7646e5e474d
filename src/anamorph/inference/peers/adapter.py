"""Run other people's registration tools, each in a virtual environment of its own, by one subprocess.

An environment is a folder ``FOLDER/NAME`` with ``bin/python``, made by ``make peers`` or by hand from
``requirements_NAME.txt``; ``FOLDER`` is what ``ANAMORPH_PEERS`` names, ``build/peers`` by default.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from anamorph.data.files import write
from anamorph.data.image import Image
from anamorph.errors import ConfigurationError, InputError, NumericalError
from anamorph.spatial.grid import Grid
from anamorph.spatial.transform import Affine, Field

PEERS = {
    "ants": "ants",
    "elastix": "elastix",
    "elastix_affine": "elastix",
    "elastix_default": "elastix",
    "greedy": "greedy",
    "convexadam": "greedy",
}
"""Peer -> the environment that it lives in."""

STARTING = ("elastix", "elastix_default")
"""Peers that can begin with an affine map, and then only deform."""

SCRIPT = Path(__file__).with_name("script.py")
LARGEST_SHEAR = 1e-4
THREAD_COUNTS = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS",
)


@dataclass(frozen=True, eq=False)
class PeerResult:
    """What a peer handed in.

    Args:
        transform: fixed world -> moving world, RAS mm, on the fixed grid.
        seconds: of the registration alone.
        peak_mib: largest memory of its process.
        settings, versions: what it used.
    """

    transform: Field
    seconds: float
    peak_mib: int
    settings: dict[str, Any]
    versions: dict[str, str]


def python_of(peer: str) -> Path:
    """The Python of a peer's environment.

    Raises:
        ConfigurationError: E-PEE-001, no such peer, or its environment is not there.
    """
    if peer not in PEERS:
        raise ConfigurationError("E-PEE-001", f"{peer!r} is no peer", expected=", ".join(PEERS))
    python = Path(os.environ.get("ANAMORPH_PEERS", "build/peers")) / PEERS[peer] / "bin" / "python"
    if not python.exists():
        found = f"{peer} has no environment"
        do = "make peers, or let ANAMORPH_PEERS name the folder of the peers' environments"
        raise ConfigurationError("E-PEE-001", found, expected=f"{PEERS[peer]}/bin/python", do=do)
    return python


def check_start(peer: str) -> None:
    """Refuse to let a peer begin with a map that cannot.

    Raises:
        ConfigurationError: E-PEE-004.
    """
    if peer not in STARTING:
        raise ConfigurationError("E-PEE-004", f"{peer} cannot begin with a map", expected=" or ".join(STARTING))


def register_with_peer(
    peer: str,
    fixed: Image,
    moving: Image,
    *,
    initial: Affine | None = None,
    threads: int = 1,
    time_limit: float = 3600.0,
) -> PeerResult:
    """Register a pair by a peer with its own settings.

    Args:
        peer: which.
        fixed, moving: without shear.
        initial: fixed world -> moving world, in place of the peer's own affine alignment; what it finds contains it.
        threads: of the CPU.
        time_limit: seconds.

    Raises:
        ConfigurationError: E-PEE-001, it is not installed; E-PEE-004, it cannot begin with a map.
        InputError: E-PEE-003, a grid with shear, which these tools cannot read.
        NumericalError: E-PEE-002, it ended without a map.
    """
    if initial is not None:
        check_start(peer)
    python = python_of(peer)
    for image in (fixed, moving):
        _refuse_shear(image)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        suffix = ".mha" if fixed.grid.ndim == 2 else ".nii.gz"  # a slice in NIfTI would be read as a thin volume
        files = {name: folder / f"{name}{suffix}" for name in ("fixed", "moving")}
        write(fixed, files["fixed"])
        write(moving, files["moving"])
        if initial is not None:
            files["initial"] = folder / "initial.npy"
            np.save(files["initial"], _in_lps(initial))
        files |= {"field": folder / "field.npy", "report": folder / "report.json"}
        options = [text for name, path in files.items() for text in (f"--{name}", str(path))]
        command = [str(python.absolute()), str(SCRIPT), peer, *options, "--threads", str(threads)]
        run_alone(command, folder, threads, time_limit)
        if not (files["field"].exists() and files["report"].exists()):
            raise NumericalError("E-PEE-002", f"{peer} ended without a map")
        field = field_of(files["field"], fixed.grid)
        report = json.loads(files["report"].read_text(encoding="utf-8"))
    return PeerResult(field, report["seconds_registration"], report["peak_mib"], report["settings"], report["versions"])


def _in_lps(affine: Affine) -> np.ndarray:
    """The matrix of a map between RAS worlds, of the same map between LPS worlds."""
    flip = np.diag([-1.0, -1.0] + [1.0] * (affine.ndim - 1))
    return flip @ affine.matrix @ flip


def field_of(path: Path, grid: Grid) -> Field:
    """The map that ``script.py`` wrote: I J (K) d, LPS mm, on the fixed grid.

    Raises:
        NumericalError: E-PEE-002, it does not fit the grid, or is not finite.
    """
    values = np.load(path)
    if values.shape != (*grid.shape, grid.ndim) or not np.isfinite(values).all():
        found = f"a map of shape {values.shape}, or one that is not finite"
        raise NumericalError("E-PEE-002", found, expected=f"{(*grid.shape, grid.ndim)}")
    values = np.moveaxis(values, -1, 0).copy()
    values[:2] *= -1
    return Field(torch.from_numpy(values), grid)


def run_alone(command: Sequence[str], folder: Path, threads: int, time_limit: float) -> float:
    """Run a command in ``folder`` with a number of threads; returns the seconds of its process.

    Raises:
        NumericalError: E-PEE-002, it ended otherwise than well; the line says how.
    """
    environment = os.environ | dict.fromkeys(THREAD_COUNTS, str(threads))
    begin = time.perf_counter()
    try:
        ended = subprocess.run(
            command,
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=time_limit,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise NumericalError("E-PEE-002", f"stopped after {time_limit:g} s") from error
    except OSError as error:
        raise NumericalError("E-PEE-002", f"cannot be started: {(error.strerror or 'no reason').lower()}") from error
    if ended.returncode < 0:
        raise NumericalError("E-PEE-002", f"ended by signal {-ended.returncode}")
    if ended.returncode:
        raise NumericalError("E-PEE-002", _last_line(ended.stderr) or f"ended with exit code {ended.returncode}")
    return time.perf_counter() - begin


def _last_line(stderr: str) -> str:
    """Of an error message, without the folders of this machine."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    return re.sub(r"(?:/[\w.+-]+)+/", "", lines[-1])[:300] if lines else ""


def _refuse_shear(image: Image) -> None:
    axes = image.grid.affine[:-1, :-1] / image.grid.spacing
    shear = float(np.abs(axes.T @ axes - np.eye(image.grid.ndim)).max())
    if shear > LARGEST_SHEAR:
        found = f"axes that are not at right angles (by {shear:.2g})"
        raise InputError("E-PEE-003", found, file=image.name or None, expected="right angles", do="resample it first")
