"""Peers hand in their map through one adapter, and every way to fail is one line."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from anamorph.data.image import Image
from anamorph.errors import ConfigurationError, InputError, NumericalError
from anamorph.inference.peers import adapter
from anamorph.spatial.transform import Affine

SHIFT_MM = 6.0

STAND_IN = """
import argparse, json, sys, time
import numpy as np
parser = argparse.ArgumentParser()
parser.add_argument("peer")
for name in ("--fixed", "--moving", "--field", "--report", "--threads", "--initial"):
    parser.add_argument(name)
arguments = parser.parse_args()
{body}
"""
HANDS_IN = """
field = np.zeros((8, 9, 10, 3), np.float32)
field[..., 0] = 2.0
field[..., 2] = 3.0
np.save(arguments.field, field)
json.dump(dict(seconds_registration=0.5, peak_mib=7, settings={}, versions={}), open(arguments.report, "w"))
"""


def image(shape: tuple[int, ...] = (8, 9, 10), shift: float = 0.0, seed: int = 0) -> Image:
    """Smooth blobs on a grid of 2 mm, moved along the first axis of the world."""
    values = gaussian_filter(np.random.default_rng(seed).standard_normal(shape), 2.0)
    affine = np.diag([2.0] * len(shape) + [1.0])
    affine[0, -1] = shift
    return Image.from_array((100 * values).astype(np.float32), affine)


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Puts a script of a few lines in the place of the peers' own."""
    python = tmp_path / "peers" / "elastix" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    monkeypatch.setenv("ANAMORPH_PEERS", str(tmp_path / "peers"))

    def put(body: str) -> None:
        script = tmp_path / "script.py"
        script.write_text(STAND_IN.format(body=body))
        monkeypatch.setattr(adapter, "SCRIPT", script)

    return put


def test_a_map_arrives_in_ras(stand_in) -> None:
    stand_in(HANDS_IN)
    result = adapter.register_with_peer("elastix", image(), image(seed=1))
    assert (result.seconds, result.peak_mib) == (0.5, 7)
    assert np.allclose(result.transform(np.array([[4.0, 4.0, 4.0]])), [[2.0, 4.0, 7.0]])


@pytest.mark.parametrize(
    ("body", "line"),
    [
        ("raise RuntimeError('in /secret/folder/file.txt')", "RuntimeError: in file.txt"),
        ("import os; os.kill(os.getpid(), 9)", "ended by signal 9"),
        ("sys.exit(0)", "ended without a map"),
        ("sys.exit(3)", "exit code 3"),
        ("time.sleep(60)", "stopped after 1 s"),
        (HANDS_IN.replace("8, 9", "9, 8"), "a map of shape"),
        (HANDS_IN.replace("3.0", "np.nan"), "not finite"),
    ],
)
def test_a_peer_that_fails_says_how(stand_in, body: str, line: str) -> None:
    stand_in(body)
    with pytest.raises(NumericalError, match=f"E-PEE-002.*{line}"):
        adapter.register_with_peer("elastix", image(), image(), time_limit=1.0 if "sleep" in body else 60.0)


def test_what_is_not_there_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANAMORPH_PEERS", str(tmp_path))
    with pytest.raises(ConfigurationError, match=r"E-PEE-001: ants has no environment.*make peers"):
        adapter.python_of("ants")
    with pytest.raises(ConfigurationError, match=r"E-PEE-001: 'nifty' is no peer"):
        adapter.python_of("nifty")


def test_a_map_to_begin_with_is_told_in_lps(stand_in) -> None:
    stand_in("""
matrix = np.load(arguments.initial)
field = np.zeros((8, 9, 10, 3), np.float32) + matrix[:3, 3] + 10 * matrix[0, 1:3].sum()
np.save(arguments.field, field)
json.dump(dict(seconds_registration=0.5, peak_mib=7, settings={}, versions={}), open(arguments.report, "w"))
""")
    matrix = np.eye(4)
    matrix[:3, 3], matrix[0, 1], matrix[0, 2] = (1.0, 2.0, 3.0), 0.1, 0.2
    result = adapter.register_with_peer("elastix", image(), image(), initial=Affine(matrix))
    # In LPS x and y change their sign: 0.1 stays, 0.2 becomes -0.2; the sum of -1 comes back as LPS mm.
    assert np.allclose(result.transform(np.array([[4.0, 4.0, 4.0]])), [[4.0 + 2, 4.0 + 3, 4.0 + 2]], atol=1e-5)


def test_not_every_peer_can_begin_with_a_map(stand_in) -> None:
    stand_in(HANDS_IN)
    for peer in ("elastix_affine", "ants"):
        with pytest.raises(ConfigurationError, match=f"E-PEE-004: {peer} cannot begin with a map"):
            adapter.register_with_peer(peer, image(), image(), initial=Affine.identity(3))


def test_a_grid_with_shear_is_refused(stand_in) -> None:
    stand_in(HANDS_IN)
    sheared = np.diag([2.0, 2.0, 2.0, 1.0])
    sheared[0, 1] = 0.3
    with pytest.raises(InputError, match="E-PEE-003"):
        adapter.register_with_peer("elastix", Image.from_array(np.ones((8, 9, 10), np.float32), sheared), image())


@pytest.mark.parametrize("shape", [(40, 44), (32, 36, 30)])
@pytest.mark.parametrize("peer", ["ants", "elastix", "elastix_affine", "elastix_default"])
def test_a_real_peer_finds_a_shift(peer: str, shape: tuple[int, ...]) -> None:
    if "ANAMORPH_PEERS" not in os.environ:
        pytest.skip("ANAMORPH_PEERS does not name the folder of the peers' environments (make peers)")
    found = adapter.register_with_peer(peer, image(shape), image(shape, shift=SHIFT_MM))
    middle = np.full((1, len(shape)), 36.0)
    assert found.transform(middle)[0, 0] == pytest.approx(36.0 + SHIFT_MM, abs=1.0)


def test_a_real_ants_finds_the_same_map_twice() -> None:
    if "ANAMORPH_PEERS" not in os.environ:
        pytest.skip("ANAMORPH_PEERS does not name the folder of the peers' environments (make peers)")
    fixed, moving = image((32, 36, 30)), image((32, 36, 30), seed=1)
    once, again = (adapter.register_with_peer("ants", fixed, moving).transform for _ in range(2))
    assert np.array_equal(once.displacement_on(fixed.grid), again.displacement_on(fixed.grid))


def test_a_real_elastix_deforms_what_an_affine_map_left() -> None:
    """The moving image lies turned in its world by 20 degrees, which the map to begin with nearly knows."""
    if "ANAMORPH_PEERS" not in os.environ:
        pytest.skip("ANAMORPH_PEERS does not name the folder of the peers' environments (make peers)")
    cosine, sine = np.cos(np.radians(20.0)), np.sin(np.radians(20.0))
    turn = np.array([[cosine, -sine, 0.0], [sine, cosine, 0.0], [0.0, 0.0, 1.0]])
    fixed, near = image((40, 44)), turn.copy()
    moving = Image.from_array(fixed.data[0].numpy(), turn @ fixed.grid.affine)
    near[0, 2] += 2.0
    found = adapter.register_with_peer("elastix", fixed, moving, initial=Affine(near))
    middle = np.full((1, 2), 40.0)
    assert np.linalg.norm(found.transform(middle) - Affine(turn)(middle)) < 1.0
    assert found.settings["parameters"] == ["elastix_bspline.txt"]
