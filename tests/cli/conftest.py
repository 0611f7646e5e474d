"""The command line in process, and tiny files to give to it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from anamorph.cli.main import main
from anamorph.data.files import write
from anamorph.data.image import Image, Labelmap, Landmarks
from anamorph.data.landmark_files import write_landmarks
from anamorph.data.transform_files import write_transform
from anamorph.spatial.transform import Affine

SPACING = (2.0, 2.5, 3.0)
SHIFT = np.array([4.0, -2.5, 3.0])
"""From a fixed to its moving point, mm: two voxels, minus one, and one."""


@dataclass(frozen=True)
class Ended:
    """How a command line ended."""

    code: int
    out: str
    err: str


@pytest.fixture
def anamorph(capsys: pytest.CaptureFixture[str]) -> Callable[..., Ended]:
    """``anamorph("check", file)`` runs the command line and returns how it ended."""

    def run(*arguments: object) -> Ended:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Ended(code, captured.out, captured.err)

    return run


FAST = ("--search", "header", "--iterations", "4", "4", "--threads", "1")


@pytest.fixture
def fast() -> tuple[str, ...]:
    """Flags that make a registration a matter of a second."""
    return FAST


def blobs(points: np.ndarray, brightness: tuple[float, float]) -> np.ndarray:
    """A ball with a smaller one inside, off its centre, at world points (... 3)."""
    outer = np.linalg.norm(points - [16, 20, 24], axis=-1) < 13
    inner = np.linalg.norm(points - [20, 17, 27], axis=-1) < 6
    return np.where(inner, brightness[1], np.where(outer, brightness[0], 0.0))


@dataclass(frozen=True)
class Pair:
    """Files of one anatomy, seen twice, the second time ``SHIFT`` further on."""

    fixed: Path
    moving: Path
    fixed_labels: Path
    moving_labels: Path
    fixed_landmarks: Path
    moving_landmarks: Path
    truth: Path
    shift: np.ndarray

    @property
    def scoring(self) -> list[str]:
        """Flags that give the labels and the landmarks."""
        names = ("fixed_labels", "moving_labels", "fixed_landmarks", "moving_landmarks")
        return [word for name in names for word in (f"--{name.replace('_', '-')}", str(getattr(self, name)))]


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    """16^3 voxels; the moving image has another contrast and noise of its own."""
    folder = tmp_path / "inputs"
    folder.mkdir()
    affine = np.diag([*SPACING, 1.0])
    nodes = np.stack(np.meshgrid(*[np.arange(16) * length for length in SPACING], indexing="ij"), -1)
    noise = np.random.default_rng(0).normal(size=(2, 16, 16, 16)) * 3
    sides = {"fixed": (nodes, (100.0, 220.0)), "moving": (nodes - SHIFT, (180.0, 60.0))}
    landmarks = np.array([[16.0, 20, 24], [20, 17, 27], [10, 22, 20]])
    for rank, (side, (points, brightness)) in enumerate(sides.items()):
        values = blobs(points, brightness) + noise[rank]
        write(Image.from_array(values, affine), folder / f"{side}.nii.gz")
        labels = blobs(points, (1, 2)).astype(np.uint8)
        write(Labelmap.from_array(labels, affine), folder / f"{side}_labels.nii.gz")
        points = Landmarks(landmarks + rank * SHIFT, ("outer", "inner", "edge"))
        write_landmarks(points, folder / f"{side}_landmarks.csv")
    move = np.eye(4)
    move[:3, 3] = SHIFT
    write_transform(Affine(move), folder / "truth.tfm")
    names = ("fixed", "moving", "fixed_labels", "moving_labels", "fixed_landmarks", "moving_landmarks")
    suffixes = (".nii.gz",) * 4 + (".csv",) * 2
    files = {name: folder / f"{name}{suffix}" for name, suffix in zip(names, suffixes, strict=True)}
    return Pair(**files, truth=folder / "truth.tfm", shift=SHIFT)
