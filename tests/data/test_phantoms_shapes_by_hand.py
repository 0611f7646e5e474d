"""Signed distances of solids, and what a painted voxel looks like."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from anamorph.data.phantoms.anatomy import Anatomy, bricks
from anamorph.data.phantoms.shapes import REACH_MM, Solid, capsule, half_space, superellipsoid, tube, union

BALL = superellipsoid((1, 2, 3), (5, 5, 5))
FAR = superellipsoid((40, 0, 0), (3, 3, 3))


def at(*points):
    return np.array(points, np.float32).T


def test_distance_to_a_ball_is_exact():
    points = at((1, 2, 3), (6, 2, 3), (1, 2, 11), (4, 6, 3))
    np.testing.assert_allclose(BALL.distance(points), [-5, 0, 3, 0], atol=1e-4)


def test_an_ellipsoid_is_right_to_first_order_at_its_surface():
    ellipsoid = superellipsoid((0, 0, 0), (10, 20, 5))
    np.testing.assert_allclose(
        ellipsoid.distance(at((10.1, 0, 0), (0, 19.9, 0), (0, 0, 5.1))), [0.1, -0.1, 0.1], atol=5e-3
    )


def test_an_infinite_radius_makes_a_prism():
    prism = superellipsoid((0, 0, 0), (3, 3, np.inf))
    np.testing.assert_allclose(prism.distance(at((5, 0, -1e3), (0, 0, 1e3))), [2, -3], atol=1e-3)
    np.testing.assert_array_equal(prism.upper, [3, 3, np.inf])


def test_a_large_exponent_makes_a_box():
    box = superellipsoid((0, 0, 0), (4, 4, 4), 30.0)
    assert box.distance(at((3.8, 3.8, 3.8)))[0] < 0.1
    assert superellipsoid((0, 0, 0), (4, 4, 4)).distance(at((3.8, 3.8, 3.8)))[0] > 2


def test_set_operations():
    a, b = superellipsoid((0, 0, 0), (4, 4, 4)), superellipsoid((5, 0, 0), (4, 4, 4))
    left, middle, right = at((-3, 0, 0)), at((2.5, 0, 0)), at((8, 0, 0))
    for solid, inside in ((a | b, (1, 1, 1)), (a & b, (0, 1, 0)), (a - b, (1, 0, 0))):
        assert tuple(int(solid.distance(p)[0] < 0) for p in (left, middle, right)) == inside


def test_growing_shells_and_half_spaces():
    np.testing.assert_allclose(BALL.grown(2).distance(at((6, 2, 3))), [-2], atol=1e-4)
    shell = BALL.shell(1.0)
    np.testing.assert_allclose(shell.distance(at((6, 2, 3), (1, 2, 3), (8, 2, 3))), [-0.5, 4.5, 1.5], atol=1e-4)
    below = half_space((0, 0, 2), (0, 0, 7))
    np.testing.assert_allclose(below.distance(at((3, 3, 9), (3, 3, 0))), [2, -7], atol=1e-5)


def test_blending_fills_the_crease_only():
    a, b = superellipsoid((0, 0, 0), (4, 4, 4)), superellipsoid((7, 0, 0), (4, 4, 4))
    crease, outer = at((3.5, 2.4, 0)), at((-4, 0, 0))
    assert (a | b).distance(crease)[0] > 0 > a.blended(b, 4.0).distance(crease)[0]
    assert a.blended(b, 4.0).distance(outer)[0] == (a | b).distance(outer)[0]
    assert a.rounded_cut(b, 4.0).distance(at((2.9, 0, 0)))[0] > (a - b).distance(at((2.9, 0, 0)))[0]


def test_placing_repeating_bending():
    rod = superellipsoid((0, 0, 0), (10, 1, 1)).placed(
        Rotation.from_euler("z", 90, degrees=True).as_matrix(), (5, 5, 5)
    )
    assert rod.distance(at((5, 14, 5)))[0] < 0 < rod.distance(at((14, 5, 5)))[0]
    np.testing.assert_allclose(rod.upper, [6, 15, 6], atol=1e-5)
    beads = superellipsoid((0, 0, 0), (2, 2, 2)).repeated(10.0, 3.0)
    np.testing.assert_allclose(
        beads.distance(at((0, 0, 3), (0, 0, 53), (0, 0, 58), (0, 0, -7))), [-2, -2, 3, -2], atol=1e-4
    )
    bent = superellipsoid((0, 0, 0), (2, 2, np.inf)).bent(lambda p: np.stack([p[2] / 10, 0 * p[2], 0 * p[2]]))
    assert bent.distance(at((5, 0, 50)))[0] == pytest.approx(-2, abs=1e-4)


def test_a_tube_follows_its_nodes_with_their_radii():
    straight = tube([(0, 0, 0, 2), (30, 0, 0, 5)])
    np.testing.assert_allclose(straight.distance(at((0, 0, 2), (30, 5, 0), (15, 0, 0))), [0, 0, -3.5], atol=0.05)
    nodes = [(0, 0, 0, 2), (20, 10, 0, 4), (40, 0, 5, 3)]
    curve = tube(nodes, step_mm=1.0)
    for x, y, z, radius in nodes:
        assert curve.distance(at((x, y, z)))[0] == pytest.approx(-radius, abs=0.1)
    folded = tube([(0, 0, 0, 5), (40, 0, 0, 5)], step_mm=1.0, folds=(20.0, 0.3))
    assert folded.distance(at((10, 4.5, 0)))[0] < 0 < folded.distance(at((20, 4.5, 0)))[0]


def test_a_union_is_exact_nearby_and_a_lower_bound_far_away():
    parts = [
        capsule(np.float32([k, 0, 0]), np.float32(1), np.float32([k + 5, 0, 0]), np.float32(1)) for k in range(0, 60, 6)
    ]
    points = np.random.default_rng(0).uniform(-20, 80, (3, 200)).astype(np.float32)
    exact = np.min([part.distance(points) for part in parts], axis=0)
    found = union(parts).distance(points)
    near = exact < REACH_MM
    np.testing.assert_allclose(found[near], exact[near], atol=1e-5)
    assert (found[~near] == REACH_MM).all()


def test_bricks_hold_every_point_once_and_are_no_wider_than_asked():
    points = np.random.default_rng(1).uniform(-50, 70, (3, 500))
    cells = bricks(points, 30.0)
    assert sorted(np.concatenate(cells)) == list(range(500))
    assert max(np.ptp(points[:, cell], axis=1).max() for cell in cells) <= 30


def test_painting_mixes_at_the_edge_and_labels_inside():
    anatomy = Anatomy(np.zeros_like)
    anatomy.paint(superellipsoid((0, 0, 0), (20, 20, 20)), "fat", 1)
    anatomy.paint(superellipsoid((0, 0, 0), (10, 10, 10)), "liver", 2)
    anatomy.paint(superellipsoid((0, 0, 0), (2, 2, 2)), "vessel")
    tissues = {"air": (0.0, 1.0), "fat": (100.0, 1.0), "liver": (200.0, 2.0), "vessel": (300.0, 3.0)}
    points = np.array([[0.0, 5, 9, 10, 11, 15, 19.9, 20.5, 30]])
    points = np.concatenate([points, np.zeros((2, 9))])
    (value, other), labels = anatomy.render(points, tissues, "air", edge_mm=2.0)
    np.testing.assert_allclose(value, [300, 200, 200, 150, 100, 100, 55, 25, 0], atol=0.5)
    np.testing.assert_allclose(other[:3], [3, 2, 2], atol=0.01)
    np.testing.assert_array_equal(labels[[0, 1, 2, 4, 5, 6, 7, 8]], [2, 2, 2, 1, 1, 1, 0, 0])


def test_landmarks_follow_the_unevenness():
    def unevenness(p):
        return np.stack([3 * np.sin(p[1] / 20), np.zeros_like(p[0]), 2 * np.cos(p[0] / 15)])

    anatomy = Anatomy(unevenness)
    anatomy.mark("middle", (10, -20, 5))
    (point,) = anatomy.landmark_points()
    np.testing.assert_allclose(point + unevenness(point[:, None])[:, 0], [10, -20, 5], atol=1e-9)


def test_a_solid_can_be_any_function():
    plane = Solid(lambda p: p[0], np.full(3, -np.inf), np.full(3, np.inf))
    assert (plane & FAR).distance(at((40, 0, 0)))[0] == 40
