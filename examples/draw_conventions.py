"""Draws the picture of docs/conventions.md: python examples/draw_conventions.py FOLDER."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes

from anamorph import Affine, Field, Grid, Transform

FIXED, MOVING = "#1f5fa8", "#c8641e"


def placed(shape: tuple[int, int], spacing: tuple[float, float], degrees: float, origin: tuple[float, float]) -> Grid:
    """A grid with its first voxel at ``origin`` (mm) and its axes turned."""
    angle = np.radians(degrees)
    affine = np.eye(3)
    affine[:2, :2] = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) * spacing
    affine[:2, 2] = origin
    return Grid(shape, affine)


def at(grid: Grid, voxel: tuple[float, float]) -> tuple[float, float]:
    """The world point of a voxel coordinate, mm."""
    x, y = grid.to_world(np.array(voxel))
    return float(x), float(y)


def draw_lines(axes: Axes, grid: Grid, through: Transform, **style: Any) -> None:
    """Every line of voxels, carried by a transform."""
    for axis in (0, 1):
        for line in range(grid.shape[1 - axis]):
            voxels = np.full((60, 2), float(line))
            voxels[:, axis] = np.linspace(0, grid.shape[axis] - 1, 60)
            axes.plot(*through(grid.to_world(voxels)).T, **style)


def draw_grid(axes: Axes, grid: Grid, colour: str, title: str) -> None:
    """Voxel centres, the lines through them, and the voxel axes i and j."""
    draw_lines(axes, grid, Affine.identity(2), color=colour, linewidth=0.6, alpha=0.45)
    axes.plot(*grid.to_world(grid.voxels()).T, ".", color=colour, markersize=4)
    for name, tip, label in (("i", (1.6, 0.0), (1.6, -0.65)), ("j", (0.0, 1.6), (-0.5, 1.6))):
        arrow = {"arrowstyle": "-|>", "color": colour, "linewidth": 2.2, "shrinkA": 0, "shrinkB": 0}
        axes.annotate("", at(grid, tip), at(grid, (0, 0)), arrowprops=arrow)
        axes.text(*at(grid, label), f"${name}$", color=colour, fontsize=13, ha="center", va="center")
    axes.text(grid.centre[0], grid.corners[:, 1].min() - 5, title, color=colour, fontsize=12, ha="center", va="center")


def main(folder: Path) -> None:
    """Write ``conventions.png`` into ``folder``."""
    fixed = placed((9, 8), (5, 5), 0, (0, 0))
    moving = placed((8, 10), (6.5, 4.2), 14, (98, -4))
    i, j = torch.meshgrid(torch.linspace(0, 1, 9), torch.linspace(0, 1, 8), indexing="ij")
    bend = Field(torch.stack([3.0 * torch.sin(3.5 * j), 4.0 * torch.sin(4.5 * i)]), fixed)
    transform = Affine(np.array([[0.9, -0.2, 100.0], [0.2, 0.9, 1.0], [0.0, 0.0, 1.0]])) @ bend

    figure, axes = plt.subplots(figsize=(10.5, 4.6), layout="constrained")
    draw_grid(axes, fixed, FIXED, "fixed grid")
    draw_grid(axes, moving, MOVING, "moving grid")
    draw_lines(axes, fixed, transform, color=FIXED, linewidth=0.9, linestyle=(0, (4, 2)))
    axes.text(112, 45, "dashed: where the fixed voxels look", color=FIXED, fontsize=10, ha="center")

    x = at(fixed, (5, 5))
    y = tuple(transform(np.array([x]))[0])
    bow = {"arrowstyle": "-|>", "connectionstyle": "arc3,rad=-0.22", "shrinkA": 5, "shrinkB": 5}
    axes.annotate("", y, x, arrowprops={**bow, "color": "black", "linewidth": 2})
    axes.annotate("", x, y, arrowprops={**bow, "color": MOVING, "linewidth": 1.6})
    axes.plot(*x, "o", color=FIXED, markersize=8)
    axes.plot(*y, "o", color=MOVING, markersize=8)
    axes.text(x[0] - 2.6, x[1] + 1.4, "$x$", color=FIXED, fontsize=15, ha="center")
    white = {"facecolor": "white", "edgecolor": "none", "alpha": 0.85, "pad": 1.5}
    axes.text(y[0] + 2.5, y[1], "$x+u(x)$", color=MOVING, fontsize=13, va="center", bbox=white)
    axes.text(67, 43, "the transform carries a fixed point\nto its moving point", fontsize=10, ha="center")
    pulled = "the value there is pulled back:\nwarped(x) = moving(x + u(x))"
    axes.text(66, 9, pulled, color=MOVING, fontsize=10, ha="center")

    axes.set(xlabel="R, mm", ylabel="A, mm", aspect="equal", xlim=(-8, 146), ylim=(-15, 50))
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(folder / "conventions.png", dpi=120)
    plt.close(figure)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
