"""``anamorph warp`` on a shift: where things must end up is known."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from anamorph.data.files import read, read_labels, read_mask
from anamorph.data.landmark_files import read_landmarks
from anamorph.data.transform_files import read_transform, write_transform
from anamorph.spatial.transform import Affine

Run = Callable[..., Any]


def test_an_image_is_interpolated_linearly_onto_the_fixed_grid(pair: Any, tmp_path: Path, anamorph: Run) -> None:
    out = tmp_path / "warped.nii.gz"
    ended = anamorph("warp", pair.moving, "--transform", pair.truth, "--onto", pair.fixed, "--out", out)
    assert ended.code == 0, ended.err
    assert ended.out.splitlines() == [
        "image: moving.nii.gz, linear interpolation",
        "fixed point > truth.tfm > moving point",
        "written: warped.nii.gz",
    ]
    moving, warped = read(pair.moving).data[0].numpy(), read(out).data[0].numpy()
    np.testing.assert_allclose(warped[:-2, 1:, :-1], moving[2:, :-1, 1:], atol=1e-4)  # two, minus one and one voxel


def test_labels_are_told_by_their_even_regions_and_kept_exactly(pair: Any, tmp_path: Path, anamorph: Run) -> None:
    out = tmp_path / "warped.nii.gz"
    ended = anamorph("warp", pair.moving_labels, "--transform", pair.truth, "--onto", pair.fixed, "--out", out)
    assert ended.code == 0, ended.err
    assert ended.out.startswith("labels: moving_labels.nii.gz, nearest interpolation\n")
    expected = read_labels(pair.fixed_labels).data.numpy()
    np.testing.assert_array_equal(read_labels(out).data.numpy()[:-2, 1:, :-1], expected[:-2, 1:, :-1])
    assert read_labels(out).dtype == np.uint8


@pytest.mark.parametrize(("kind", "interpolation"), [("labels", "linear"), ("mask", "nearest")])
def test_a_kind_and_an_interpolation_can_be_chosen(
    kind: str, interpolation: str, pair: Any, tmp_path: Path, anamorph: Run
) -> None:
    out = tmp_path / "warped.nii.gz"
    ended = anamorph(
        "warp", pair.moving_labels, "--transform", pair.truth, "--onto", pair.fixed, "--out", out,
        "--kind", kind, "--interpolation", interpolation,
    )  # fmt: skip
    assert ended.code == 0, ended.err
    assert ended.out.startswith(f"{kind}: moving_labels.nii.gz, {interpolation} interpolation\n")
    if kind == "mask":
        expected = read_labels(pair.fixed_labels).data.numpy() > 0
        np.testing.assert_array_equal(read_mask(out).data.numpy()[:-2, 1:, :-1], expected[:-2, 1:, :-1])


def test_landmarks_go_with_their_image(pair: Any, tmp_path: Path, anamorph: Run) -> None:
    out = tmp_path / "warped.csv"
    ended = anamorph("warp", pair.moving_landmarks, "--transform", pair.truth, "--out", out)
    assert ended.code == 0, ended.err
    assert ended.out.splitlines()[:2] == [
        "landmarks: moving_landmarks.csv",
        "moving point > truth.tfm inverted > fixed point",
    ]
    expected = read_landmarks(pair.fixed_landmarks)
    np.testing.assert_allclose(read_landmarks(out).points, expected.points, atol=1e-9)
    assert read_landmarks(out).names == expected.names


def test_inverse_carries_to_the_moving_side(pair: Any, tmp_path: Path, anamorph: Run) -> None:
    out = tmp_path / "back.csv"
    ended = anamorph("warp", pair.fixed_landmarks, "--transform", pair.truth, "--inverse", "--out", out)
    assert "fixed point > truth.tfm > moving point" in ended.out
    np.testing.assert_allclose(read_landmarks(out).points, read_landmarks(pair.moving_landmarks).points, atol=1e-9)
    image = tmp_path / "back.nii.gz"
    ended = anamorph(
        "warp", pair.fixed_labels, "--transform", pair.truth, "--inverse", "--onto", pair.moving, "--out", image
    )
    assert "moving point > truth.tfm inverted > fixed point" in ended.out
    expected = read_labels(pair.moving_labels).data.numpy()
    np.testing.assert_array_equal(read_labels(image).data.numpy()[2:, :-1, 1:], expected[2:, :-1, 1:])


def test_t11_a_chain_is_applied_in_the_order_given(pair: Any, tmp_path: Path, anamorph: Run) -> None:
    double, turn = np.diag([2.0, 2, 2, 1]), np.eye(4)
    turn[:3, 3] = (1, 0, 0)
    for name, matrix in (("double.tfm", double), ("move.tfm", turn)):
        write_transform(Affine(matrix), tmp_path / name)
    order = [tmp_path / "double.tfm", tmp_path / "move.tfm"]
    out = tmp_path / "moved.csv"
    ended = anamorph("warp", pair.fixed_landmarks, "--inverse", "--transform", *order, "--out", out)
    assert "fixed point > double.tfm > move.tfm > moving point" in ended.out
    expected = 2 * read_landmarks(pair.fixed_landmarks).points + [1, 0, 0]
    np.testing.assert_allclose(read_landmarks(out).points, expected, atol=1e-9)


def test_points_in_voxels_need_their_image(pair: Any, tmp_path: Path, anamorph: Run) -> None:
    points = tmp_path / "voxels.csv"
    points.write_text("x,y,z,name\n2,3,4,here\n")
    command = [
        "warp",
        points,
        "--space",
        "voxel",
        "--transform",
        pair.truth,
        "--inverse",
        "--out",
        tmp_path / "out.csv",
    ]
    ended = anamorph(*command)
    assert (ended.code, ended.err[:9]) == (3, "E-LMK-019")
    assert anamorph(*command, "--points-on", pair.fixed).code == 0
    expected = read_transform(pair.truth)(np.array([[2 * 2.0, 3 * 2.5, 4 * 3.0]]))
    np.testing.assert_allclose(read_landmarks(tmp_path / "out.csv").points, expected, atol=1e-9)


@pytest.mark.parametrize(
    ("name", "flags", "code"),
    [
        ("moving", ["--space", "RAS"], "E-CFG-007"),
        ("moving_labels", ["--fill", "3"], "E-CFG-007"),
        ("moving_landmarks", ["--interpolation", "linear"], "E-CFG-007"),
    ],
)
def test_a_flag_that_would_do_nothing_is_refused(
    name: str, flags: list[str], code: str, pair: Any, tmp_path: Path, anamorph: Run
) -> None:
    files = ["--transform", pair.truth, "--onto", pair.fixed, "--out", tmp_path / "o.nii"]
    ended = anamorph("warp", getattr(pair, name), *files, *flags)
    assert (ended.code, ended.err[:9]) == (2, code)


def test_a_volume_is_chosen_of_the_input_alone(pair: Any, tmp_path: Path, anamorph: Run) -> None:
    moving = nib.Nifti1Image(np.stack([np.zeros((16, 16, 16)), read(pair.moving).data[0].numpy()], -1), np.eye(4))
    moving.set_sform(read(pair.moving).grid.affine, 1)
    moving.set_qform(read(pair.moving).grid.affine, 1)
    moving.header.set_xyzt_units("mm")
    nib.save(moving, tmp_path / "series.nii.gz")
    command = ["warp", tmp_path / "series.nii.gz", "--transform", pair.truth, "--onto", pair.fixed]
    ended = anamorph(*command, "--out", tmp_path / "o.nii.gz")
    assert (ended.code, ended.err[:9]) == (3, "E-GEO-017")
    assert anamorph(*command, "--out", tmp_path / "o.nii.gz", "--volume", "1").code == 0
    assert read(tmp_path / "o.nii.gz").data.max() > 50


def test_an_image_needs_a_grid(pair: Any, tmp_path: Path, anamorph: Run) -> None:
    ended = anamorph("warp", pair.moving, "--transform", pair.truth, "--out", tmp_path / "o.nii.gz")
    assert (ended.code, ended.err[:9]) == (2, "E-CFG-005")


def test_t16_an_existing_file_is_not_replaced_by_accident(pair: Any, tmp_path: Path, anamorph: Run) -> None:
    out = tmp_path / "o.nii.gz"
    out.write_bytes(b"precious")
    command = ["warp", pair.moving, "--transform", pair.truth, "--onto", pair.fixed, "--out"]
    ended = anamorph(*command, out)
    assert (ended.code, ended.err[:9]) == (2, "E-OUT-016")
    assert out.read_bytes() == b"precious"
    assert anamorph(*command, out, "--force").code == 0


def test_r04_an_input_is_never_replaced(pair: Any, tmp_path: Path, anamorph: Run) -> None:
    before = pair.moving.read_bytes()
    again = tmp_path / "inputs" / ".." / "inputs" / "moving.nii.gz"
    ended = anamorph("warp", pair.moving, "--transform", pair.truth, "--onto", pair.fixed, "--out", again, "--force")
    assert (ended.code, ended.err[:9]) == (2, "E-OUT-004")
    assert pair.moving.read_bytes() == before


def test_a_configuration_serves_warp_too(pair: Any, tmp_path: Path, anamorph: Run) -> None:
    file = tmp_path / "warp.yaml"
    file.write_text(f"transform: [{pair.truth}]\nonto: {pair.fixed}\nfill: -7\n")
    ended = anamorph("warp", pair.moving, "--config", file, "--out", tmp_path / "o.nii.gz")
    assert ended.code == 0, ended.err
    assert read(tmp_path / "o.nii.gz").data[0, -1, 0, 0] == -7
