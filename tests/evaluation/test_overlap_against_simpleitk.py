"""The same overlaps as SimpleITK on random blobs."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
from scipy.ndimage import gaussian_filter

from anamorph.evaluation.overlap import MEASURES, label_overlap


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("shape", [(18, 22, 15), (30, 26)])
def test_labels_of_random_blobs(shape, seed):
    rng = np.random.default_rng(seed)
    fixed, warped = (
        np.digitize(gaussian_filter(rng.standard_normal(shape), 2.0), [-0.05, 0.02, 0.08]) for _ in range(2)
    )
    measure = sitk.LabelOverlapMeasuresImageFilter()
    measure.Execute(*(sitk.GetImageFromArray(labels.astype(np.uint8)) for labels in (warped, fixed)))  # then the truth
    found = {(row.metric, row.label): row.value for row in label_overlap(fixed, warped, measures=tuple(MEASURES))}
    for label in (1, 2, 3):
        assert found["dice", str(label)] == pytest.approx(measure.GetDiceCoefficient(label))
        assert found["jaccard", str(label)] == pytest.approx(measure.GetJaccardCoefficient(label))
        itk = abs(measure.GetVolumeSimilarity(label)) / 2  # ITK divides the signed difference by the mean volume
        assert found["volume_similarity", str(label)] == pytest.approx(1 - itk)
        assert found["voe", str(label)] == pytest.approx(1 - measure.GetJaccardCoefficient(label))
        assert found["recall", str(label)] == pytest.approx(1 - measure.GetFalseNegativeError(label))
        assert found["precision", str(label)] == pytest.approx(1 - measure.GetFalseDiscoveryRate(label))
