"""``anamorph demo``, with a phantom small enough for a test."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from anamorph.data.files import read, read_labels
from anamorph.data.landmark_files import read_landmarks
from anamorph.data.phantoms import PhantomPair
from anamorph.data.transform_files import read_transform
from anamorph.inference.request import RegistrationRequest
from anamorph.pairwise.settings import PairwiseSettings

Run = Callable[..., Any]


@pytest.fixture
def small_phantom(pair: Any, monkeypatch: pytest.MonkeyPatch) -> PhantomPair:
    """The pair of these tests in place of the abdomen."""
    phantom = PhantomPair(
        fixed=read(pair.fixed),
        moving=read(pair.moving),
        fixed_labels=read_labels(pair.fixed_labels),
        moving_labels=read_labels(pair.moving_labels),
        truth=read_transform(pair.truth),
        fixed_landmarks=read_landmarks(pair.fixed_landmarks),
        moving_landmarks=read_landmarks(pair.moving_landmarks),
        label_names={1: "liver", 2: "tumour"},
    )
    monkeypatch.setattr("anamorph.data.phantoms.abdomen", lambda *_, **__: phantom)
    settings = PairwiseSettings(search="header", transform="rigid")
    monkeypatch.setattr("anamorph.cli.demo.RegistrationRequest", partial(RegistrationRequest, settings=settings))
    return phantom


def test_it_is_scored_against_the_truth(small_phantom: PhantomPair, tmp_path: Path, anamorph: Run) -> None:
    out = tmp_path / "demo"
    ended = anamorph("demo", "--out", out, "--threads", "1")
    assert ended.code == 0, ended.err
    shown = {line[:26].strip(): line[26:].split() for line in ended.out.splitlines() if line[:1].isalpha()}
    before, after = map(float, shown["Map error, mean"][:2])
    assert before == pytest.approx(np.linalg.norm([4.0, -2.5, 3.0]), abs=0.01)
    assert after < before
    assert "liver" in ended.out
    assert "tumour" in ended.out
    assert ended.out.splitlines()[-2:] == ["report: result/report.html", "inputs: demo/inputs"]
    np.testing.assert_array_equal(read(out / "inputs" / "ct.nii.gz").data, small_phantom.fixed.data)
    assert (out / "inputs" / "truth.h5").exists()
    assert anamorph("demo", "--out", out, "--threads", "1", "--quiet").code == 0  # its own results are replaced


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path, anamorph: Run) -> None:
    (tmp_path / "thesis.tex").write_text("x")
    ended = anamorph("demo", "--out", tmp_path)
    assert (ended.code, ended.err[:9]) == (2, "E-OUT-016")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
