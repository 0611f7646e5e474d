"""Majority and STAPLE give what ITK's filters give."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from torch import Tensor

from anamorph.errors import AnamorphWarning
from anamorph.fusion import FusionSettings, fuse

SHAPES = [(24, 20), (12, 10, 9)]


def noisy_copies(shape: tuple[int, ...], kinds: int, generator: torch.Generator) -> list[Tensor]:
    """A blocky truth, copied by atlases that err more or less often."""
    coarse = torch.rand(1, 1, *[4] * len(shape), generator=generator)
    truth = (torch.nn.functional.interpolate(coarse, size=shape)[0, 0] * kinds).to(torch.uint8)
    copies = []
    for wrong in (0.1, 0.25, 0.2, 0.35, 0.15):
        err = torch.rand(shape, generator=generator) < wrong
        other = torch.randint(0, kinds, shape, generator=generator, dtype=torch.uint8)
        copies.append(torch.where(err, other, truth))
    return copies


@pytest.mark.parametrize("shape", SHAPES)
def test_majority_is_label_voting_where_that_is_decided(shape: tuple[int, ...], generator: torch.Generator) -> None:
    labels = noisy_copies(shape, 4, generator)
    undecided = 99
    voted = sitk.GetArrayFromImage(sitk.LabelVoting([sitk.GetImageFromArray(x.numpy()) for x in labels], undecided))
    found = fuse(labels, FusionSettings(fusion="majority"))
    decided = torch.from_numpy(voted != undecided)
    assert 0.5 < decided.float().mean() < 1
    assert torch.equal(found.labels[decided], torch.from_numpy(voted)[decided])
    # A tie of two labels (2 : 2 : 1) is decided for one of the two.
    assert (found.share[~decided] == torch.tensor([0.2, 0.4])[:, None]).any(0).all()


@pytest.mark.parametrize("shape", SHAPES)
def test_staple_of_two_labels_is_itks(shape: tuple[int, ...], generator: torch.Generator) -> None:
    labels = noisy_copies(shape, 2, generator)
    images = [sitk.GetImageFromArray(x.numpy()) for x in labels]
    expected = sitk.GetArrayFromImage(sitk.STAPLE(images, 1.0, 1.0, 400))
    found = fuse(labels, FusionSettings(fusion="staple", iterations=400))
    contested = (torch.stack(labels) != labels[0]).any(0).numpy()
    assert contested.mean() > 0.3
    np.testing.assert_allclose(found.probability(1).numpy()[contested], expected[contested], atol=1e-4)
    assert np.array_equal(found.labels.numpy() == 1, expected > 0.5)


def test_staple_of_many_labels_agrees_with_itks_but_for_a_few_voxels(generator: torch.Generator) -> None:
    labels = noisy_copies((40, 30), 4, generator)
    expected = sitk.GetArrayFromImage(sitk.MultiLabelSTAPLE([sitk.GetImageFromArray(x.numpy()) for x in labels]))
    found = fuse(labels, FusionSettings(fusion="staple", iterations=200))
    assert (found.labels.numpy() == expected).mean() > 0.98


def test_iterations_are_capped_L12(generator: torch.Generator) -> None:
    labels = noisy_copies((24, 20), 2, generator)
    with pytest.warns(AnamorphWarning, match="W-FUS-001: STAPLE was stopped after 1 steps, when probabilities still"):
        few = fuse(labels, FusionSettings(fusion="staple", iterations=1)).share
    more = fuse(labels, FusionSettings(fusion="staple", iterations=400)).share
    assert float((few - more).abs().max()) > 1e-3
