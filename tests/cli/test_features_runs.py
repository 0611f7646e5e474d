"""``anamorph features``: maps on the images' own grids, and one picture of all."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from anamorph.cli.main import VERBS
from anamorph.data.files import read
from anamorph.losses.feature_maps import feature_map
from anamorph.losses.log_polar import LogPolarBins

Run = Callable[..., Any]


@pytest.fixture(autouse=True)
def verb(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(VERBS, "features", "Draw what descriptors see in images.")


def test_maps_and_a_picture(pair: Any, tmp_path: Path, anamorph: Run) -> None:
    out = tmp_path / "features"
    flags = ("--threads", "1", "--plane", "coronal", "--at", "20.9")
    ended = anamorph("features", pair.fixed, pair.moving, "--out", out, *flags)
    assert ended.code == 0, ended.err
    names = [f"{side}_{kind}.nii.gz" for side in ("fixed", "moving") for kind in ("macmind", "mind")]
    assert ended.out == f"written: {', '.join([*names, 'features.svg'])}\n"
    image, found = read(pair.fixed), read(out / "fixed_macmind.nii.gz")
    assert found.grid.same_as(image.grid)
    torch.testing.assert_close(found.data[None], feature_map(image.data[None], "macmind"), atol=1e-5, rtol=1e-5)
    picture = (out / "features.svg").read_text()
    assert picture.count("<image ") == 6
    words = (">fixed.nii.gz<", ">moving.nii.gz<", ">macmind<", ">mind<", "y = 20.0 mm, slice 9 of 16")
    assert all(word in picture for word in words)


def test_settings_change_the_maps(pair: Any, tmp_path: Path, anamorph: Run) -> None:
    flags = ["--descriptor", "macmind", "--distance", "1", "--patch-size", "3", "--alphas", "1", "--window", "3"]
    flags += ["--radii", "1", "--heights", "3"]
    assert anamorph("features", pair.fixed, "--out", tmp_path / "one", *flags).code == 0
    assert {path.name for path in (tmp_path / "one").iterdir()} == {"fixed_macmind.nii.gz", "features.svg"}
    image, bins = read(pair.fixed).data[None], LogPolarBins(3, 8, 1, 3)
    expected = feature_map(image, "macmind", distance=1, patch_size=3, alphas=(1.0,), bins=bins)
    found = read(tmp_path / "one" / "fixed_macmind.nii.gz").data[None]
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("flags", "code", "exit_code"),
    [
        (["--patch-size", "4"], "E-CFG-010", 2),
        (["--alphas", "0", "0"], "E-CFG-010", 2),
        (["--window", "4"], "E-CFG-010", 2),
        (["--window", "3"], "E-CFG-010", 2),
        (["--descriptor", "mind", "mind"], "E-CFG-010", 2),
        (["--modality", "ct", "mr"], "E-CFG-010", 2),
        (["--max-memory", "1M"], "E-MEM-016", 4),
    ],
)
def test_refusals(flags: list[str], code: str, exit_code: int, pair: Any, tmp_path: Path, anamorph: Run) -> None:
    ended = anamorph("features", pair.fixed, "--out", tmp_path / "out", *flags)
    assert (ended.code, ended.err[:9]) == (exit_code, code), ended.err


def test_nothing_is_replaced_unasked(pair: Any, tmp_path: Path, anamorph: Run) -> None:
    out = tmp_path / "out"
    command = ("features", pair.fixed, "--out", out, "--descriptor", "mind")
    assert anamorph(*command).code == 0
    assert anamorph(*command).err[:9] == "E-OUT-016"
    assert anamorph(*command, "--force").code == 0
    ended = anamorph("features", pair.fixed, pair.fixed, "--out", tmp_path / "twice")
    assert (ended.code, ended.err[:9]) == (2, "E-CFG-010")
