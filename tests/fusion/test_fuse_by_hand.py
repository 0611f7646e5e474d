"""Ties, shares, probabilities and refusals, worked out on paper."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from anamorph.errors import ConfigurationError, InputError
from anamorph.fusion import FUSIONS, FusionSettings, fuse
from anamorph.fusion.settings import READ_BY, Fusion

MAJORITY = FusionSettings(fusion="majority")
WEIGHTED = FusionSettings(fusion="weighted")


def in_place(name: str, **more: Any) -> FusionSettings:
    """A rule that does not search."""
    search = {"search_radius": 0} if name in READ_BY["search_radius"] else {}
    return FusionSettings.model_validate({"fusion": name, **search, **more})


def rows(*labels: Sequence[int]) -> list[Tensor]:
    """One-row 2-D labelmaps."""
    return [torch.tensor([row]) for row in labels]


def test_the_majority_wins_and_its_share_entropy_and_probabilities_are_told() -> None:
    fused = fuse(rows([0, 7, 2], [0, 7, 9], [0, 3, 9], [0, 7, 9]), MAJORITY)
    assert fused.labels.tolist() == [[0, 7, 9]]
    assert fused.share.tolist() == [[1.0, 0.75, 0.75]]
    nats = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    # Four labels are in dispute (2, 3, 7, 9), as many as there are atlases.
    assert fused.entropy.tolist() == [[0.0, pytest.approx(nats / math.log(4)), pytest.approx(nats / math.log(4))]]
    assert fused.probability(7).tolist() == [[0.0, 0.75, 0.0]]
    assert fused.probability(3).tolist() == [[0.0, 0.25, 0.0]]
    assert fused.probability(0).tolist() == [[1.0, 0.0, 0.0]]
    assert fused.probability(5).tolist() == [[0.0, 0.0, 0.0]]


def test_a_tie_goes_to_the_label_of_the_earliest_atlas_and_never_to_one_that_nobody_proposes() -> None:
    fused = fuse(rows([1, 3, 4, 1], [3, 1, 5, 2], [3, 1, 6, 2], [1, 3, 7, 3]), MAJORITY)
    assert fused.labels.tolist() == [[1, 3, 4, 2]]  # not 2, the mean of 1 and 3


def test_a_tie_of_weights_ignores_the_order_of_their_sums() -> None:
    weights = [torch.full((1, 1), w) for w in (0.3, 0.1, 0.2)]
    assert fuse(rows([8], [4], [4]), WEIGHTED, weights=weights).labels.item() == 8
    assert fuse(rows([4], [4], [8]), WEIGHTED, weights=[weights[1], weights[2], weights[0]]).labels.item() == 4


def test_weights_from_outside_decide_and_where_all_are_nought_all_count() -> None:
    weights = [torch.tensor([[w, 0.0]]) for w in (0.5, 0.2, 0.2)]
    fused = fuse(rows([5, 5], [6, 6], [6, 6]), WEIGHTED, weights=weights)
    assert fused.labels.tolist() == [[5, 6]]
    assert fused.share.tolist() == [[pytest.approx(5 / 9), pytest.approx(2 / 3)]]


@pytest.mark.parametrize("name", list(FUSIONS))
@pytest.mark.parametrize("shape", [(5, 4), (4, 3, 3)])
def test_one_atlas_is_copied_by_every_rule(name: Fusion, shape: tuple[int, ...], generator: torch.Generator) -> None:
    labels = torch.randint(-3, 2000, shape, generator=generator, dtype=torch.int16)
    image = torch.rand(1, *shape, generator=generator)
    settings = in_place(name)
    fused = fuse([labels], settings, target=image, images=[image], weights=[image[0]])
    assert torch.equal(fused.labels, labels)
    assert fused.labels.dtype == torch.int16
    assert float(fused.entropy.max()) == 0
    assert float(fused.share.min()) == 1


@pytest.mark.parametrize("name", ["global", "local", "block", "non_local", "joint"])
def test_the_atlas_that_shows_the_target_outvotes_two_that_do_not(name: Fusion, generator: torch.Generator) -> None:
    shape = (9, 8)
    target = torch.rand(1, *shape, generator=generator)
    others = [torch.rand(1, *shape, generator=generator) for _ in range(2)]
    labels = [torch.full(shape, value) for value in (6, 6, 2)]
    more = {"non_local": {"nearest": 3}, "joint": {"alpha": 0.01}}.get(name, {})
    settings = in_place(name, similarity="ssd", **more)
    fused = fuse(labels, settings, target=target, images=[*others, target])
    assert (fused.labels == 2).all()


def test_flat_images_make_all_atlases_weigh_alike() -> None:
    flat = torch.zeros(1, 4, 4)
    labels = [torch.full((4, 4), value) for value in (1, 2, 2)]
    for name in ("global", "local", "block", "local_mi", "non_local", "joint"):
        settings = in_place(name)
        fused = fuse(labels, settings, target=flat, images=[flat] * 3)
        assert (fused.labels == 2).all()
        torch.testing.assert_close(fused.share, torch.full((4, 4), 2 / 3))


@pytest.mark.parametrize("kind", [torch.uint8, torch.int16, torch.uint16, torch.int32, torch.int64])
def test_the_type_of_the_labels_survives(kind: torch.dtype) -> None:
    labels = [torch.tensor([[3, 200]]).to(kind), torch.tensor([[3, 100]]).to(kind)]
    fused = fuse(labels, MAJORITY)
    assert fused.labels.dtype == kind
    assert fused.labels.long().tolist() == [[3, 200]]
    assert fused.probability(100).tolist() == [[0.0, 0.5]]


def test_types_that_differ_become_int64() -> None:
    fused = fuse([torch.tensor([[1]], dtype=torch.uint8), torch.tensor([[70_000]], dtype=torch.int32)], MAJORITY)
    assert fused.labels.dtype == torch.int64


def test_progress_ends_at_one() -> None:
    told: list[float] = []
    fuse(rows([1, 2], [2, 2]), MAJORITY, progress=told.append)
    assert told[-1] == 1.0


def test_cleaning_removes_islands_fills_holes_and_leaves_the_votes() -> None:
    row = torch.tensor(
        [
            [1, 1, 1, 0, 0, 2],
            [1, 0, 1, 0, 0, 0],
            [1, 1, 1, 0, 0, 1],
            [0, 0, 0, 0, 2, 2],
        ]
    )
    fused = fuse([row], FusionSettings(fusion="majority", clean=True))
    assert fused.labels.tolist() == [[1, 1, 1, 0, 0, 0], [1, 1, 1, 0, 0, 0], [1, 1, 1, 0, 0, 0], [0, 0, 0, 0, 2, 2]]
    assert torch.equal(fused.probability(1), (row == 1).float())


def test_a_hole_that_is_another_label_stays() -> None:
    ring = torch.tensor([[1, 1, 1], [1, 2, 1], [1, 1, 1]])
    assert torch.equal(fuse([ring], FusionSettings(fusion="majority", clean=True)).labels, ring)


# -- refusals ----------------------------------------------------------------------------------------------------------

ONE = torch.zeros(2, 2, dtype=torch.int64)
IMAGE = torch.arange(4.0).view(1, 2, 2)


def test_no_atlas_is_refused() -> None:
    with pytest.raises(InputError, match="E-FUS-001: no atlas"):
        fuse([], MAJORITY)


def test_a_grid_or_number_that_differs_is_refused() -> None:
    with pytest.raises(InputError, match=r"E-FUS-001: labels of atlas 2 on a grid of \(2, 3\)"):
        fuse([ONE, torch.zeros(2, 3, dtype=torch.int64)], MAJORITY)
    with pytest.raises(InputError, match="E-FUS-001: image of 1 atlases, expected 2"):
        fuse([ONE, ONE], target=IMAGE, images=[IMAGE])
    with pytest.raises(InputError, match="E-FUS-001: the target on a grid"):
        fuse([ONE], target=torch.zeros(1, 3, 3), images=[IMAGE])


def test_a_rule_without_what_it_compares_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="E-FUS-002: joint without images"):
        fuse([ONE, ONE + 1])
    with pytest.raises(ConfigurationError, match="E-FUS-002: weighted without weights"):
        fuse([ONE, ONE + 1], WEIGHTED)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_intensities_that_are_no_numbers_are_refused(bad: float) -> None:
    with pytest.raises(InputError, match="E-FUS-003: NaN or infinite intensities in the image of atlas 2"):
        fuse([ONE, ONE + 1], target=IMAGE, images=[IMAGE, IMAGE.masked_fill(IMAGE == 2, bad)])


@pytest.mark.parametrize("bad", [-1.0, float("nan"), float("inf")])
def test_weights_that_cannot_weigh_are_refused(bad: float) -> None:
    with pytest.raises(InputError, match="E-FUS-004"):
        fuse([ONE, ONE + 1], WEIGHTED, weights=[torch.ones(2, 2), torch.full((2, 2), bad)])


@pytest.mark.parametrize(
    ("given", "idle"),
    [
        ({"fusion": "local_mi", "similarity": "ssd"}, "similarity"),
        ({"fusion": "majority", "sigma": 3.0}, "sigma"),
        ({"fusion": "joint", "iterations": 5, "nearest": 2}, "nearest, iterations"),
        ({"fusion": "local", "bins": 16}, "bins"),
    ],
)
def test_settings_refuse_what_a_rule_does_not_read(given: dict[str, Any], idle: str) -> None:
    with pytest.raises(ValueError, match=f"{idle} would do nothing with {given['fusion']}"):
        FusionSettings.model_validate(given)


def test_bins_go_with_mutual_information_alone() -> None:
    FusionSettings(fusion="local", similarity="local_mi", bins=16)
    FusionSettings(fusion="local_mi", bins=16)
    whole = FusionSettings(fusion="non_local", nearest=3, search_radius=2)
    assert FusionSettings.model_validate(whole.model_dump()) == whole


@pytest.mark.parametrize(("fusion", "similarity"), [("joint", "lncc"), ("non_local", "local_mi")])
def test_settings_refuse_a_similarity_that_a_rule_cannot_use(fusion: str, similarity: str) -> None:
    with pytest.raises(ValueError, match=f"{fusion} compares by .*, not by {similarity}"):
        FusionSettings.model_validate({"fusion": fusion, "similarity": similarity})
