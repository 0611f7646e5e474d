"""``anamorph convert``: the same map in another file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from anamorph.data.transform_files import read_transform, write_transform
from anamorph.spatial.transform import Affine

Run = Callable[..., Any]
POINTS = np.array([[4.0, 5, 6], [20, 17, 27]])


@pytest.mark.parametrize("suffix", [".h5", ".txt", ".mat", ".tfm", ".nii.gz"])
def test_every_format_holds_the_same_map(suffix: str, pair: Any, tmp_path: Path, anamorph: Run) -> None:
    out = tmp_path / f"copy{suffix}"
    ended = anamorph("convert", pair.truth, "--out", out, "--onto", pair.fixed)
    assert ended.code == 0, ended.err
    assert ended.out == f"fixed point > truth.tfm > moving point\nwritten: copy{suffix}\n"
    np.testing.assert_allclose(read_transform(out)(POINTS), POINTS + pair.shift, atol=1e-5)


def test_several_files_become_one_in_order_and_back(pair: Any, tmp_path: Path, anamorph: Run) -> None:
    write_transform(Affine(np.diag([2.0, 2, 2, 1])), tmp_path / "double.tfm")
    one, back = tmp_path / "one.tfm", tmp_path / "back.tfm"
    assert anamorph("convert", pair.truth, tmp_path / "double.tfm", "--out", one).code == 0
    np.testing.assert_allclose(read_transform(one)(POINTS), 2 * (POINTS + pair.shift), atol=1e-9)
    ended = anamorph("convert", pair.truth, tmp_path / "double.tfm", "--inverse", "--out", back)
    assert ended.out.startswith("moving point > double.tfm inverted > truth.tfm inverted > fixed point\n")
    np.testing.assert_allclose(read_transform(back)(read_transform(one)(POINTS)), POINTS, atol=1e-9)


@pytest.mark.parametrize(
    ("name", "flags", "code"),
    [
        ("field.nii.gz", [], "E-TRF-017"),  # a matrix has no grid of its own
        ("copy.doc", [], "E-OUT-002"),
        ("nowhere/copy.h5", [], "E-OUT-001"),
    ],
)
def test_what_cannot_be_written_is_refused(
    name: str, flags: list[str], code: str, pair: Any, tmp_path: Path, anamorph: Run
) -> None:
    ended = anamorph("convert", pair.truth, "--out", tmp_path / name, *flags)
    assert (ended.code, ended.err[:9]) == (2, code)


def test_t16_an_existing_transform_stays(pair: Any, tmp_path: Path, anamorph: Run) -> None:
    (tmp_path / "copy.h5").write_bytes(b"precious")
    ended = anamorph("convert", pair.truth, "--out", tmp_path / "copy.h5")
    assert (ended.code, ended.err[:9]) == (2, "E-OUT-016")
    assert anamorph("convert", pair.truth, "--out", tmp_path / "copy.h5", "--force").code == 0
    ended = anamorph("convert", pair.truth, "--out", pair.truth, "--force")
    assert (ended.code, ended.err[:9]) == (2, "E-OUT-004")
