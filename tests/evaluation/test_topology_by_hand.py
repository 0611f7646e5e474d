"""Topology of shapes whose holes, tunnels and cavities are known without counting."""

from __future__ import annotations

import math

import numpy as np
import pytest

from anamorph.evaluation.topology import Connectivity, Topology, euler_number, label_topology, topology, topology_scores

NODES = np.stack(np.meshgrid(*[np.arange(-10, 11)] * 3, indexing="ij"))
RADIUS = np.linalg.norm(NODES, axis=0)
TORUS = (np.hypot(NODES[0], NODES[1]) - 6) ** 2 + NODES[2] ** 2 < 6
BALL = RADIUS < 7
BOTH: tuple[Connectivity, ...] = ("full", "face")


def numbers(found: Topology) -> tuple[int, int, int, int]:
    return found.components, found.tunnels, found.cavities, found.euler_number


@pytest.mark.parametrize("connectivity", BOTH)
@pytest.mark.parametrize(
    ("mask", "expected"),
    [
        pytest.param(BALL, (1, 0, 0, 1), id="ball"),
        pytest.param(BALL & (RADIUS > 3), (1, 0, 1, 2), id="hollow ball"),
        pytest.param(TORUS, (1, 1, 0, 0), id="solid torus"),
        pytest.param(np.abs(NODES - np.array([5, 0, 0])[:, None, None, None]).max(0) < 3, (1, 0, 0, 1), id="cube"),
        pytest.param((np.abs(NODES[0]) > 4) & (np.abs(NODES).max(0) < 8), (2, 0, 0, 2), id="two boxes"),
    ],
)
def test_shapes_in_three_dimensions(
    mask: np.ndarray, expected: tuple[int, int, int, int], connectivity: Connectivity
) -> None:
    found = topology(mask, connectivity)
    assert numbers(found) == expected
    assert euler_number(mask, connectivity) == found.euler_number


def test_a_cube_with_two_channels_has_two_tunnels() -> None:
    cube = np.ones((9, 9, 9), bool)
    cube[2, 2, :] = False
    cube[6, 6, :] = False
    assert numbers(topology(cube)) == (1, 2, 0, -1)
    cube[2, 2, 0] = False  # nothing changes: the channel is open already
    cube[2, 2, [0, -1]] = True  # closed at both ends it is a cavity
    assert numbers(topology(cube)) == (1, 1, 1, 1)


@pytest.mark.parametrize("connectivity", BOTH)
def test_the_letter_b_has_two_holes(connectivity: Connectivity) -> None:
    letter = np.array(
        [
            [1, 1, 1, 0],
            [1, 0, 1, 0],
            [1, 1, 1, 1],
            [1, 0, 0, 1],
            [1, 1, 1, 1],
        ],
        bool,
    )
    assert numbers(topology(letter, connectivity)) == (1, 2, 0, -1)
    assert euler_number(letter, connectivity) == -1


def test_voxels_that_meet_at_a_corner() -> None:
    diagonal = np.eye(2, dtype=bool)
    assert numbers(topology(diagonal, "full")) == (1, 0, 0, 1)
    assert numbers(topology(diagonal, "face")) == (2, 0, 0, 2)
    # A ring of corners encloses its middle only where corners connect.
    ring = np.array([[0, 1, 0], [1, 0, 1], [0, 1, 0]], bool)
    assert numbers(topology(ring, "full")) == (1, 1, 0, 0)
    assert numbers(topology(ring, "face")) == (4, 0, 0, 4)


def test_a_structure_at_the_edge_encloses_nothing_outside() -> None:
    assert numbers(topology(np.ones((3, 4), bool))) == (1, 0, 0, 1)
    assert numbers(topology(np.ones((2, 3, 4), bool))) == (1, 0, 0, 1)
    assert numbers(topology(np.ones((1, 1, 1), bool))) == (1, 0, 0, 1)


def test_labels_are_told_apart_and_an_empty_one_says_so() -> None:
    labels = np.zeros((6, 7), np.int64)
    labels[0:3, 0:3] = 5
    labels[1, 1] = 0
    labels[5, 6] = 5
    labels[4:6, 0:2] = -2
    assert label_topology(labels) == {-2: Topology(1, 0, 0, 4, 0), 5: Topology(2, 1, 0, 9, 1)}
    rows = {(row.label, row.metric): row for row in topology_scores(labels, {5: "ring", 9: "none"})}
    assert rows["ring", "components"].value == 2
    assert rows["ring", "holes"].value == 1
    assert rows["ring", "stray_voxels"].value == 1
    assert math.isnan(rows["none", "components"].value)
    assert rows["none", "components"].reason
    assert label_topology(np.zeros((3, 3), np.int64)) == {}
    assert {row.metric for row in topology_scores(BALL.astype(np.int64))} == {
        "components",
        "tunnels",
        "cavities",
        "stray_voxels",
    }


def scored(labels: np.ndarray, **more) -> dict[tuple[str, str], tuple[float, str]]:
    rows = topology_scores(labels, {1: "ring", 2: "dot"}, **more)
    return {(row.metric, row.label): (row.value, row.reason) for row in rows}


def test_the_topology_is_compared_with_the_truths_and_an_atlas() -> None:
    truth = np.zeros((9, 9), np.int64)
    truth[1:6, 1:6] = 1
    truth[3, 3] = 0
    broken = truth.copy()
    broken[3, 4:6] = 0  # the ring is open,
    broken[7:9, 7] = 1  # and there are two pieces more
    broken[7, 1] = 1
    found = scored(broken, truth=truth, atlas={1: Topology(1, 1, 0, 99, 0)})
    assert found["components", "ring"] == (3, "")
    assert found["betti_error", "ring"] == found["atlas_betti_error", "ring"] == (3, "")
    assert found["topological_success", "ring"] == (0, "")
    # Nothing was to be found of the other, and nothing was.
    for metric in ("components", "holes", "stray_voxels", "betti_error", "topological_success"):
        value, reason = found[metric, "dot"]
        assert (math.isnan(value), reason) == (True, "empty in both images")
    assert ("atlas_betti_error", "dot") not in found
    assert scored(truth, truth=truth)["topological_success", "ring"] == (1, "")


def test_a_structure_that_is_missed_or_invented_is_wrong_by_all_of_it() -> None:
    ring, nothing = np.zeros((5, 5), np.int64), np.zeros((5, 5), np.int64)
    ring[1:4, 1:4] = 1
    ring[2, 2] = 0
    for found in (scored(nothing, truth=ring), scored(ring, truth=nothing)):
        assert found["betti_error", "ring"] == (2, "")
        assert found["topological_success", "ring"] == (0, "")
    missed = scored(nothing, truth=ring)["components", "ring"]
    assert (math.isnan(missed[0]), missed[1]) == (True, "no voxel has this label")


def test_cavities_count() -> None:
    hollow = (BALL & (RADIUS > 3)).astype(np.int64)
    found = {row.metric: row.value for row in topology_scores(hollow, {1: "ball"}, truth=BALL.astype(np.int64))}
    assert (found["components"], found["cavities"], found["betti_error"]) == (1, 1, 1)
