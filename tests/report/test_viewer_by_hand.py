"""The viewer's copies: in the right place, small enough, and the vendored code unchanged."""

from __future__ import annotations

import base64
import gzip
import hashlib
from collections.abc import Callable
from importlib.resources import files

import nibabel
import numpy as np
import pytest
from nibabel.filebasedimages import FileBasedImage

from anamorph.report import viewer
from anamorph.report.inputs import ReportInputs
from anamorph.report.viewer import ViewerVolume, viewer_volumes

OBLIQUE = np.array([[1.9, 0.3, 0, -20], [-0.4, 1.4, 0.2, 11], [0.1, -0.2, 2.9, 7], [0, 0, 0, 1]])


def opened(volume: ViewerVolume) -> FileBasedImage:
    return nibabel.Nifti1Image.from_bytes(gzip.decompress(base64.b64decode(volume.base64)))


def centre_of_mass(values: np.ndarray, affine: np.ndarray) -> np.ndarray:
    voxel = np.array([np.average(index, weights=values) for index in np.indices(values.shape)])
    return affine[:3, :3] @ voxel + affine[:3, 3]


def test_what_fits_is_kept_voxel_by_voxel(made_up: Callable[..., ReportInputs]) -> None:
    inputs = made_up(affine=OBLIQUE)
    volumes = {volume.key: volume for volume in viewer_volumes(inputs)}
    assert list(volumes) == ["fixed", "warped", "before", "fixed-labels", "warped-labels"]
    fixed, labels = opened(volumes["fixed"]), opened(volumes["fixed-labels"])
    np.testing.assert_allclose(fixed.affine, OBLIQUE, atol=1e-5)
    assert fixed.get_data_dtype() == np.uint8
    np.testing.assert_array_equal(np.searchsorted([0, 3, 7], inputs.fixed_labels), labels.dataobj)
    assert [opened(volume).header.get_intent()[0] for volume in volumes.values()] == ["none"] * 3 + ["label"] * 2


def test_a_smaller_copy_stays_in_its_place(
    made_up: Callable[..., ReportInputs], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(viewer, "SHARE", 1800)
    monkeypatch.setattr(viewer, "SHARE_OF_LABELS", 1800)
    noise = np.random.default_rng(0).uniform(0, 1, (20, 24, 16)).astype(np.float32)
    noise[5:12, 10:20, 4:9] += 5
    ball = (noise > 4).astype(np.int32)
    labels = np.where(noise > 4, 1, np.where(noise > 0.5, 2, 0)).astype(np.int32)
    inputs = made_up(affine=OBLIQUE, fixed=noise, fixed_labels=labels, warped_labels=None)
    for volume in viewer_volumes(inputs):
        assert len(volume.base64) <= 1800
        if volume.key in ("fixed", "fixed-labels"):
            assert np.prod(opened(volume).shape) < noise.size
            values = np.asarray(opened(volume).dataobj)
            small = values > 127 if volume.kind == "image" else values == 1
            shift = centre_of_mass(small, opened(volume).affine) - centre_of_mass(ball, OBLIQUE)
            assert np.linalg.norm(shift) < 1.0


def test_fine_axes_are_reduced_first() -> None:
    volume = np.random.default_rng(0).uniform(0, 1, (40, 40, 10)).astype(np.float32)
    inputs = ReportInputs(title="thick slices", affine=np.diag([1.0, 1, 5, 1]), fixed=volume)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(viewer, "SHARE", 6000)
        (copy,) = viewer_volumes(inputs)
    shape = opened(copy).shape
    assert shape[0] == shape[1] < 40
    assert shape[2] == 10


def test_averaging_keeps_the_mean() -> None:
    volume = np.random.default_rng(0).uniform(0, 1, (13, 9, 7)).astype(np.float32)
    small = viewer._averaged(volume, (5, 9, 3))
    assert small.shape == (5, 9, 3)
    assert small.mean() == pytest.approx(volume.mean(), abs=1e-5)
    np.testing.assert_allclose(
        viewer._averaged(volume[:12], (4, 9, 7)), volume[:12].reshape(4, 3, 9, 7).mean(1), atol=1e-6
    )


def test_hundreds_of_labels_do_not_run_together(made_up: Callable[..., ReportInputs]) -> None:
    labels = np.arange(20 * 24 * 16).reshape(20, 24, 16) // 8
    volume = next(v for v in viewer_volumes(made_up(fixed_labels=labels)) if v.key == "fixed-labels")
    np.testing.assert_array_equal(opened(volume).dataobj, labels)


def test_2d_needs_no_viewer(made_up_2d: ReportInputs) -> None:
    assert viewer_volumes(made_up_2d) == ()


def test_niivue_is_the_file_that_was_published() -> None:
    """dist/niivue.umd.js of @niivue/niivue 0.69.0 on the npm registry."""
    vendor = files("anamorph.report") / "vendor"
    published = "47b896b77ec4a5be3ef1949c33ad393b6f45629921f326c279000bcf51bdb4af"
    assert hashlib.sha256((vendor / "niivue.umd.js").read_bytes()).hexdigest() == published
    licence = (vendor / "niivue.LICENSE.txt").read_text()
    assert "BSD 2-Clause" in licence
    assert "0.69.0" in licence
