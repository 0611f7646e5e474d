"""Random shapes: labels of their own in every case, in two and three dimensions, or those of a labelmap."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from anamorph.data.files import write
from anamorph.data.image import Labelmap
from anamorph.data.phantoms import PhantomScan, phantom


def arrays(scan: PhantomScan) -> tuple[np.ndarray, np.ndarray]:
    assert scan.labels is not None
    return scan.image.data[0].numpy(), scan.labels.data.numpy()


@pytest.mark.parametrize("shape", [(70, 60), (24, 20, 18)])
def test_every_case_has_new_shapes_in_both_images(shape: tuple[int, ...]) -> None:
    options = {"shape": shape, "spacing": 3.0, "labels": 4, "smoothness_mm": 40.0}
    shapes = phantom("shapes", 0, options)
    one, other = shapes.case(0), shapes.case(1)
    for case in (one, other):
        assert [scan.image.modality for scan in case.scans] == ["a", "b"]
        for scan in case.scans:
            _, labels = arrays(scan)
            assert labels.shape == shape
            assert set(np.unique(labels)) == set(range(5))
    assert (arrays(one.scans[0])[1] != arrays(other.scans[0])[1]).mean() > 0.4


def test_labels_are_brighter_and_darker_in_each_image_anew() -> None:
    shapes = phantom("shapes", 0, {"shape": (90, 90), "labels": 6})
    orders = []
    for index in range(3):
        for scan in shapes.case(index).scans:
            image, labels = arrays(scan)
            orders.append(tuple(np.argsort([np.median(image[labels == label]) for label in range(7)])))
    assert len(set(orders)) > 3


def test_larger_shapes_have_less_edge() -> None:
    edges = []
    for size in (15.0, 60.0):
        _, labels = arrays(phantom("shapes", 0, {"shape": (80, 80), "size_mm": size}).case(0).scans[0])
        edges.append((labels[1:] != labels[:-1]).mean())
    assert edges[1] < 0.5 * edges[0]


@pytest.mark.parametrize("ndim", [2, 3])
def test_a_labelmap_gives_its_own_shapes(ndim: int, tmp_path: Path) -> None:
    data = np.zeros((20,) * ndim, np.int16)
    data[(slice(4, 16),) * ndim] = 5
    data[(slice(8, 14),) * ndim] = 11
    write(Labelmap.from_array(data, np.diag([4.0] * ndim + [1.0])), tmp_path / "labels.nii.gz")
    options = {"labelmap": (tmp_path / "labels.nii.gz",), "spacing": 4.0, "subject_smoothness_mm": 40.0}
    shapes = phantom("shapes", 0, {**options, "smoothness_mm": 40.0})
    assert set(shapes.label_names) == {5, 11}
    template = shapes.template()
    assert template is not None
    case = shapes.case(0)
    for scan in (template, *case.scans):
        assert set(np.unique(arrays(scan)[1])) == {0, 5, 11}
    for scan in case.scans:
        assert scan.to_template is not None
        assert scan.landmarks is not None
        assert template.landmarks is not None
        assert np.abs(scan.to_template(scan.landmarks.points) - template.landmarks.points).max() < 0.3
