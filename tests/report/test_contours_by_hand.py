"""Lines: edges lie on edges, outlines close, a grid shows the map."""

from __future__ import annotations

import numpy as np
import pytest

from anamorph.report.contours import edges, grid_lines, grid_step, outline, svg_path
from anamorph.report.planes import Display, Plane


def test_a_path_is_written_relative_and_in_units_of_the_frame() -> None:
    line = np.array([[0, 0], [1, 0], [1, 0.1], [1, 2]])
    assert svg_path([line], (10.0, 5.0)) == "M5 2.5l10 0 0 0.5 0 9.5"
    assert svg_path([np.array([[3.0, 3.0], [3.0, 3.0]])], (1.0, 1.0)) == ""


def test_an_outline_closes_at_the_border_of_the_picture() -> None:
    mask = np.zeros((8, 8), bool)
    mask[0:4, 2:6] = True
    (line,) = outline(mask)
    np.testing.assert_allclose(line[0], line[-1])
    assert abs(line[:, 0].min() - 1.5) < 0.1
    assert abs(line[:, 0].max() - 5.5) < 0.1
    assert abs(line[:, 1].max() - 3.5) < 0.1


def test_a_single_pixel_still_has_an_outline() -> None:
    mask = np.zeros((5, 5), bool)
    mask[2, 2] = True
    assert len(outline(mask)) == 1
    assert outline(np.zeros((5, 5), bool)) == []


@pytest.mark.parametrize("pixel_mm", [(1.0, 1.0), (1.0, 3.0)])
def test_edges_lie_on_the_border_of_a_disc(pixel_mm: tuple[float, float]) -> None:
    rows, columns = np.meshgrid(np.arange(96 / pixel_mm[1]), np.arange(96), indexing="ij")
    radius = np.hypot(columns - 48, (rows - 48 / pixel_mm[1]) * pixel_mm[1])
    found = edges(1 / (1 + np.exp(radius - 30)), pixel_mm)
    points = np.concatenate(found)
    distance = np.hypot(points[:, 0] - 48, (points[:, 1] - 48 / pixel_mm[1]) * pixel_mm[1])
    assert np.abs(distance - 30).max() < 0.6 * pixel_mm[1]
    assert len(points) > 60


def test_a_flat_picture_has_no_edges() -> None:
    assert edges(np.full((20, 20), 0.5), (1.0, 1.0)) == []


@pytest.mark.parametrize(("spacing", "step"), [(1.0, 5.0), (2.5, 20.0), (0.2, 1.0)])
def test_the_grid_step_is_a_round_number(spacing: float, step: float) -> None:
    assert grid_step(Display((100, 100, 50), np.diag([spacing] * 3 + [1]))) == step


@pytest.mark.parametrize("affine", [np.eye(4), np.diag([-1.0, 1, 1, 1]), np.eye(4)[[1, 2, 0, 3]]])
def test_the_identity_draws_straight_lines(affine: np.ndarray) -> None:
    display = Display((22, 22, 22), affine)
    lines = grid_lines(np.zeros((3, 22, 22, 22)), Plane("Axial", 2, 10, display), 5.0)
    assert len(lines) == 10
    upright = sorted(line[0, 0] for line in lines if np.ptp(line[:, 0]) < 1e-9)
    level = sorted(line[0, 1] for line in lines if np.ptp(line[:, 1]) < 1e-9)
    np.testing.assert_allclose(upright, [1, 6, 11, 16, 21])
    np.testing.assert_allclose(level, [1, 6, 11, 16, 21])


def test_moving_right_brings_lines_from_the_right() -> None:
    """With T(x) = x + 2 mm to the right, the moving line at 10 mm comes to lie at 8 mm; right is on the left."""
    displacement = np.zeros((3, 21, 21, 21))
    displacement[0] = 2
    lines = grid_lines(displacement, Plane("Axial", 2, 10, Display((21, 21, 21), np.eye(4))), 10.0)
    upright = sorted(20 - line[0, 0] for line in lines if np.ptp(line[:, 0]) < 1e-9)
    np.testing.assert_allclose(upright, [8, 18])
