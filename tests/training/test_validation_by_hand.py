"""What a method is judged by."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from anamorph.data.cohort import PairRule
from anamorph.data.prepared import PreparedCohort
from anamorph.evaluation.overlap import label_overlap
from anamorph.inference.model_folder import domain_of
from anamorph.methods import METHODS
from anamorph.methods.base import Deformation
from anamorph.methods.both_ways import BothWays
from anamorph.training.configuration import PairChoice
from anamorph.training.distributed import Processes
from anamorph.training.items import choose_items
from anamorph.training.players import Players
from anamorph.training.validation import Validation, choice_of, mean_dice, sample_of
from tests.training.tiny import SHAPE, SPACING, Align, prepared_cohort

ADVERSARIES: dict[str, Any] = {"features": 2, "blocks": 1, "discriminator_features": 2, "discriminator_layers": 1}


def validation_of(
    cohort: PreparedCohort, name: str, most: int = 50, rule: PairRule = "within", **settings: Any
) -> Validation:
    kind: Any = METHODS[name]
    torch.manual_seed(0)
    method = kind(kind.Settings(**settings), domain_of(cohort.plan)).eval()
    items = choose_items(cohort, "validation", kind.items, PairChoice(rule=rule))
    return Validation(items, Players(method, kind.schedule, Processes("cpu")), most)


def scored(validation: Validation) -> dict[str, float]:
    return validation.score(validation.players.method, lambda done: None)


def test_dice_is_that_of_the_referee(generator: torch.Generator) -> None:
    truth, found = (torch.randint(0, 4, (1, 1, 9, 8), generator=generator) for _ in range(2))
    rows = label_overlap(truth[0, 0].numpy(), found[0, 0].numpy(), {1: "1", 2: "2", 3: "3"})
    assert mean_dice(truth, found, 3) == [pytest.approx(next(row.value for row in rows if row.metric == "dice_mean"))]


def test_classes_that_occur_nowhere_do_not_count() -> None:
    truth, found = torch.tensor([0, 1, 1, 3]), torch.tensor([0, 1, 0, 0])
    assert mean_dice(truth, found, 5) == [pytest.approx((2 / 3 + 0) / 2)]
    assert mean_dice(torch.zeros(4, dtype=torch.int64), torch.zeros(4, dtype=torch.int64), 5) == []


def test_a_registration_is_judged_by_the_labels_it_warps(cohort: PreparedCohort, monkeypatch) -> None:
    validation = validation_of(cohort, "align")
    displacement = torch.ones(1, 2, *SHAPE)  # the second modality lies one voxel farther along each axis
    for factor, better in ((0.0, False), (1.0, True), (-1.0, False)):
        monkeypatch.setattr(
            type(validation.players.method), "register", lambda *_, f=factor: Deformation(f * displacement)
        )
        forward = choose_items(cohort, "validation", "pairs", PairChoice(rule="within", fixed_modality="ct"))
        validation.items, validation.chosen = forward, [0, 1]
        validation.reader.items = forward
        dice = scored(validation)["registration_dice"]
        assert (dice == pytest.approx(1.0)) == better, factor


def test_a_segmentation_is_judged_by_what_it_finds(cohort: PreparedCohort, monkeypatch) -> None:
    validation = validation_of(cohort, "segment")

    def truth_of(method: object, image: Tensor, modality: str) -> Tensor:
        threshold = image > 0.5 if modality == "ct" else image < 0.5
        return torch.cat([~threshold, threshold], 1).float()

    monkeypatch.setattr(type(validation.players.method), "segment", truth_of)
    assert scored(validation) == {"segmentation_dice": pytest.approx(1.0)}


@pytest.mark.parametrize("sides", [("fixed", "moving"), ("moving",)])
def test_both_sides_of_a_pair_are_segmented(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sides) -> None:
    """Each under its own modality, as far as it has labels: ct found to the voxel, of mr nothing."""
    both = len(sides) == 2
    cohort = prepared_cohort(tmp_path / "one", 1, 2, unlabelled=() if both else ("c1",), listed=[(2, 5)])
    monkeypatch.setitem(METHODS, "both", type("Both", (Align,), {"tasks": ("register", "segment")}))
    validation = validation_of(cohort, "both", rule="listed")
    assert validation.measures == (("registration_dice", "segmentation_dice") if both else ("segmentation_dice",))
    asked = []

    def segment(method: object, image: Tensor, modality: str) -> Tensor:
        asked.append(modality)
        found = image > 0.5 if modality == "ct" else torch.zeros_like(image, dtype=torch.bool)
        return torch.cat([~found, found], 1).float()

    monkeypatch.setattr(METHODS["both"], "segment", segment)
    dice = scored(validation)["segmentation_dice"]
    assert asked == (["ct", "mr"] if both else ["mr"])
    assert dice == pytest.approx(0.5 if both else 0.0)


def test_both_directions_are_judged_where_both_are_found(cohort: PreparedCohort, monkeypatch) -> None:
    """Forward the labels meet; backward they are pushed twice as far away."""
    displacement = torch.ones(1, 2, *SHAPE)

    class BothDirections(BothWays, Align):
        def register_both(self, fixed: Tensor, moving: Tensor) -> tuple[Deformation, Deformation]:
            return Deformation(displacement), Deformation(displacement)

    monkeypatch.setitem(METHODS, "both", BothDirections)
    validation = validation_of(cohort, "both")
    forward = choose_items(cohort, "validation", "pairs", PairChoice(rule="within", fixed_modality="ct"))
    validation.items, validation.chosen, validation.reader.items = forward, [0, 1], forward
    found = scored(validation)
    assert set(found) == {"registration_dice", "backward_registration_dice"}
    assert found["registration_dice"] == pytest.approx(1.0)
    assert found["backward_registration_dice"] < 0.5
    assert choice_of(found) == pytest.approx(sum(found.values()) / 2)


def test_a_translation_is_judged_by_the_other_image(cohort: PreparedCohort, monkeypatch) -> None:
    """Of CycleGAN, which moves nothing: as the images lie. How its players stand is told as well."""
    validation = validation_of(cohort, "cyclegan", **ADVERSARIES)
    assert validation.measures == ("translation_rmse",)
    method: Any = validation.players.method
    monkeypatch.setattr(type(method), "translate", lambda self, image, modality: 1 - image)
    batch = validation.items.load(range(len(validation.items)))
    squares = np.square(1 - batch["moving"] - batch["fixed"]).reshape(len(validation.items), -1)
    found = scored(validation)
    assert found == {"translation_rmse": pytest.approx(float(np.sqrt(squares.mean(1)).mean()), rel=1e-5)}
    assert choice_of(found) == -found["translation_rmse"]
    assert choice_of({**found, "registration_dice": 0.3}) == pytest.approx(0.3)
    images = {name: torch.from_numpy(batch[name]) for name in ("fixed", "moving")}
    expected = [method.health({name: image[[item]] for name, image in images.items()}) for item in range(len(squares))]
    assert validation.health == {
        name: pytest.approx(np.mean([one[name] for one in expected]), rel=1e-4) for name in expected[0]
    }


def test_images_of_two_subjects_do_not_judge_a_translation(cohort: PreparedCohort) -> None:
    assert validation_of(cohort, "cyclegan", rule="between", **ADVERSARIES).measures == ("objective",)
    assert validation_of(cohort, "align").health == {}


def test_without_labels_the_objective_decides_and_less_is_better(tmp_path: Path) -> None:
    cohort = prepared_cohort(tmp_path / "bare", 2, 2, unlabelled=("c0", "c1", "c2", "c3"))
    validation = validation_of(cohort, "align")
    found = scored(validation)
    batch = validation.items.load(range(len(validation.items)))
    with torch.no_grad():
        images = {name: torch.from_numpy(batch[name]) for name in ("fixed", "moving")}
        terms = validation.players.method.terms(images, "network")
    assert found == {"objective": pytest.approx(float(terms["similarity"] + 0.1 * terms["smoothness"]), rel=1e-5)}
    assert choice_of(found) == -found["objective"]


def test_where_some_have_labels_those_are_looked_at(tmp_path: Path) -> None:
    cohort = prepared_cohort(tmp_path / "some", 1, 4, unlabelled=("c1", "c3"))
    validation = validation_of(cohort, "align")
    assert [validation.items.name(item) for item in validation.chosen] == [
        "c2_ct-c2_mr", "c2_mr-c2_ct", "c4_ct-c4_mr", "c4_mr-c4_ct"
    ]  # fmt: skip
    assert len(validation_of(cohort, "align", most=2).chosen) == 2


def test_several_measures_count_alike() -> None:
    assert choice_of({"registration_dice": 0.5, "segmentation_dice": 0.7}) == pytest.approx(0.6)
    assert choice_of({}) is None


def test_a_stop_between_items_ends_it(cohort: PreparedCohort) -> None:
    validation = validation_of(cohort, "align")
    told: list[float] = []

    def between(done: float) -> None:
        told.append(done)
        if done >= 0.5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        validation.score(validation.players.method, between)
    assert told == [0.0, 0.25, 0.5]


def test_a_sample_shows_what_went_in_and_what_came_out(cohort: PreparedCohort) -> None:
    validation = validation_of(cohort, "align")
    found = sample_of(validation.players.method, validation.items, 0, validation.players)
    assert found["fixed"].shape == found["moving"].shape == found["warped"].shape == (1, *SHAPE)
    assert found["displacement"].shape == (2, *SHAPE)
    assert found["warped_labels"].shape == SHAPE
    assert set(np.unique(found["fixed_labels"])) == {0, 1}
    assert (found["name"], found["spacing"]) == ("c5_ct-c5_mr", SPACING)
    assert found["modalities"] == ("ct", "mr")
    validation = validation_of(cohort, "cyclegan", **ADVERSARIES)
    found = sample_of(validation.players.method, validation.items, 0, validation.players)
    assert "warped" not in found
    assert found["moving_translated"].shape == found["fixed_translated"].shape == (1, *SHAPE)
    validation = validation_of(cohort, "segment")
    found = sample_of(validation.players.method, validation.items, 0, validation.players)
    assert found["image"].shape == (1, *SHAPE)
    assert found["prediction"].shape == SHAPE
