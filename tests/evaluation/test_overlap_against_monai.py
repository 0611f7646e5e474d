"""The same recall and precision as MONAI's confusion matrix."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from anamorph.evaluation.overlap import precision, recall


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("shape", [(9, 8, 7), (12, 11)])
def test_random_masks(shape, seed):
    from monai.metrics import compute_confusion_matrix_metric, get_confusion_matrix

    truth, predicted = np.random.default_rng(seed).random((2, *shape)) < 0.4
    batch = [torch.from_numpy(mask)[None, None].float() for mask in (predicted, truth)]
    matrix = get_confusion_matrix(*batch, include_background=True)
    assert recall(truth, predicted) == pytest.approx(float(compute_confusion_matrix_metric("sensitivity", matrix)))
    assert precision(truth, predicted) == pytest.approx(float(compute_confusion_matrix_metric("precision", matrix)))
