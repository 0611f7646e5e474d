"""The cohort of two halved brains: where the middle is, what each half holds, and runs that are interrupted."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from anamorph.data.files import read, read_labels, write
from anamorph.data.image import Image
from anamorph.spatial.grid import Grid
from anamorph.spatial.transform import Affine
from benchmarks import real_halves

GRID = Grid((16, 16, 12), np.array([[12.0, 0, 0, -90], [0, 14, 0, -115], [0, 0, 16, -85], [0, 0, 0, 1]]))


def head(modality: str) -> Image:
    """An ellipsoid about x = 0, brighter in its left half."""
    points = GRID.to_world(GRID.voxels())
    inside = (((points - [0, -15, 0]) / [70, 85, 70]) ** 2).sum(1) < 1
    values = np.where(inside, np.where(points[:, 0] < 0, 200.0, 100.0) + 0.3 * points[:, 1], 0.0)
    return Image(torch.from_numpy(values.astype(np.float32)).view(1, *GRID.shape), GRID, modality)


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Both patients' files, all upright and coarse."""
    monkeypatch.setattr(real_halves, "SPACING_MM", 16.0)
    monkeypatch.setattr(real_halves, "SHAPE", (6, 12, 10))
    monkeypatch.setattr(real_halves, "upright", lambda image: Affine.identity(3))
    for brain in real_halves.BRAINS.values():
        for modality, file in brain.files.items():
            (tmp_path / "data" / file).parent.mkdir(parents=True, exist_ok=True)
            write(head(modality), tmp_path / "data" / file)
    return tmp_path / "data"


@pytest.mark.parametrize("turned", [0.0, 12.0])
def test_the_middle_is_what_reflects_the_head_onto_itself(turned: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """A plane turned about two axes and 9 mm off; the registration to the mirror image finds as much."""
    angle = np.radians(turned)
    normal = np.array([np.cos(angle), np.sin(angle), 0.3 * np.sin(angle)])
    normal /= np.linalg.norm(normal)
    reflection = np.eye(4)
    reflection[:3, :3] -= 2 * np.outer(normal, normal)
    reflection[:3, 3] = 2 * 9.0 * normal

    def found(fixed: Image, moving: Image, **_: object) -> SimpleNamespace:
        np.testing.assert_allclose(moving.grid.affine, real_halves.MIRROR.matrix @ fixed.grid.affine)
        return SimpleNamespace(linear=Affine(real_halves.MIRROR.matrix @ reflection))

    monkeypatch.setattr(real_halves, "register", found)
    place = real_halves.upright(head("t1"))
    matrix = place.matrix
    np.testing.assert_allclose(matrix[:3, :3].T @ matrix[:3, :3], np.eye(3), atol=1e-12)
    assert np.linalg.det(matrix[:3, :3]) == pytest.approx(1)
    np.testing.assert_allclose(matrix @ real_halves.MIRROR.matrix @ np.linalg.inv(matrix), reflection, atol=1e-9)
    middle = real_halves.half_grid().centre * [0.0, 1.0, 1.0]
    assert normal @ place(middle[None])[0] == pytest.approx(9.0)


@pytest.mark.filterwarnings("ignore::anamorph.errors.AnamorphWarning")
def test_halves_share_nothing_and_right_ones_are_mirrored(data: Path, tmp_path: Path) -> None:
    real_halves.main(["--data", str(data), "--out", str(tmp_path / "out"), "--left", "1", "--right", "1"])
    folder = tmp_path / "out/halves"
    stems = ("left-01-mni", "right-101-mni", "left-01-native", "right-101-native")
    kinds = ("t1", "t2", "flair", "tissues")
    assert {path.name for path in folder.iterdir()} == {f"{stem}_{kind}.nii.gz" for stem in stems for kind in kinds}
    for stem in stems:
        values, labels = read(folder / f"{stem}_t1.nii.gz").data, read_labels(folder / f"{stem}_tissues.nii.gz").data
        bright = 200 if stem.startswith("left") else 100  # either half has its own, on the left of the copy
        assert abs(float(values[values > 60].median()) - bright) < 30
        assert set(torch.unique(labels).tolist()) <= {0, 1, 2, 3}
        assert bool((labels > 0).any())
        assert not bool((labels[values[0] <= 0] > 0).any())
    mni, native = (read(folder / f"left-01-{name}_t1.nii.gz").data for name in real_halves.BRAINS)
    assert not torch.equal(mni, native)  # the same head here, in shapes of their own
    halves = [real_halves.half_of(head("t1"), side, Affine.identity(3)).data for side in ("left", "right")]
    assert float((halves[0] * halves[1]).abs().max()) == 0


@pytest.mark.filterwarnings("ignore::anamorph.errors.AnamorphWarning")
def test_an_interrupted_run_leaves_nothing_that_looks_whole(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--data", str(data), "--out", str(tmp_path / "out"), "--left", "1", "--right", "1"]
    with monkeypatch.context() as patched:

        def interrupted(*_: object, **__: object) -> None:
            raise KeyboardInterrupt

        patched.setattr(real_halves, "random_diffeomorphism", interrupted)
        with pytest.raises(KeyboardInterrupt):
            real_halves.main(words)
    assert not (tmp_path / "out/halves").exists()
    (tmp_path / "out/halves.part/stale.nii.gz").write_bytes(b"half of it")
    real_halves.main(words)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"halves"}
    assert not (tmp_path / "out/halves/stale.nii.gz").exists()
    with pytest.raises(SystemExit) as refused:
        real_halves.main(words)
    assert refused.value.code == 2
    assert "is there already, and whole; move it away, or choose another --out" in capsys.readouterr().err
