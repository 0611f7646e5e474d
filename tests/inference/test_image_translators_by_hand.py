"""Translations judged over pairs: true maps either way round, masks, rows of two tasks, and what cannot be judged."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from anamorph.data.cohort import Pair, Scan
from anamorph.data.files import write
from anamorph.data.image import Image, Mask
from anamorph.data.plan import Intensity, Plan
from anamorph.data.transform_files import write_transform
from anamorph.errors import AnamorphWarning, InputError
from anamorph.evaluation.scores import Score
from anamorph.inference.contenders import engine, registering_model
from anamorph.inference.evaluate import (
    by_target,
    evaluate_registration,
    evaluate_translation,
    pairs_for,
    translations_of,
    truth_of,
)
from anamorph.inference.image_translators import by_fixed_modality, translating_model, true_map
from anamorph.inference.model_folder import Model
from anamorph.inference.translate import INSIDE
from anamorph.methods import METHODS
from anamorph.spatial.grid import Grid
from anamorph.spatial.transform import Affine, Field

GRID = Grid((16, 14, 12), np.diag([3.0, 3.0, 4.0, 1.0]))
WINDOWS = {name: Intensity(kind="window", low=0.0, high=high) for name, high in (("ct", 200.0), ("mr", 100.0))}
SHIFT_MM = 6.0
SMALL = {"features": 2, "blocks": 1, "discriminator_features": 2, "discriminator_layers": 1}
METRICS = ["rmse", "psnr_db", "structural_similarity"]


class Negative(nn.Module):
    def forward(self, image: Tensor) -> Tensor:
        return -image


@pytest.fixture
def negative(trained: Callable[..., Model], plan: Callable[..., Plan], monkeypatch: pytest.MonkeyPatch) -> Any:
    """``negative("cyclegan")``: that method with ``Negative`` translators; ct is fixed, mr moving."""

    def make(name: str) -> Model:
        kind: Any = METHODS[name]

        class Known(kind):
            def __init__(self, settings: Any, domain: Any) -> None:
                super().__init__(settings, domain)
                self.translators = nn.ModuleDict({side: Negative() for side in self.targets})

        monkeypatch.setitem(METHODS, f"negative-{name}", Known)
        return trained(f"negative-{name}", plan(modalities=WINDOWS), **SMALL)

    return make


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    """The MR shows the negative of the CT two voxels further along the first axis; it has a mask."""
    mr = np.random.default_rng(0).uniform(0, 100, (18, 14, 12))
    ct = np.zeros((16, 14, 12))
    ct[:] = 200 - 2 * mr[2:]
    write(Image.from_array(ct, GRID.affine), tmp_path / "ct.nii.gz")
    write(Image.from_array(mr[:16], GRID.affine), tmp_path / "mr.nii.gz")
    inside = torch.zeros(GRID.shape, dtype=torch.bool)
    inside[4:12, 4:10, 4:8] = True
    write(Mask(inside, GRID), tmp_path / "mask.nii.gz")
    fixed = Scan("a", "ct", tmp_path / "ct.nii.gz")
    return Pair(fixed, Scan("a", "mr", tmp_path / "mr.nii.gz", mask=tmp_path / "mask.nii.gz"))


def shifted(path: Path, by_mm: float) -> Path:
    """A map file: fixed point -> the moving point so far along the first axis."""
    field = torch.zeros(3, *GRID.shape, dtype=torch.float64)
    field[0] = by_mm
    write_transform(Field(field, GRID), path)
    return path


def rows_of(found: list[Score], label: str = "") -> dict[str, float]:
    assert [row.reason for row in found if row.metric == "failed"] == []
    return {row.metric: row.value for row in found if row.label == label and row.metric in METRICS}


@pytest.mark.parametrize("known", ["own", "reverse", "listed", "none"])
def test_the_truth_is_brought_to_where_the_source_lies(negative: Any, pair: Pair, tmp_path: Path, known: str) -> None:
    """CT point x is MR point x + 2 voxels. Away from the border the negative is then exact."""
    forward = replace(pair, displacement=shifted(tmp_path / "forward.nii.gz", SHIFT_MM))
    backward = Pair(pair.moving, pair.fixed, shifted(tmp_path / "backward.nii.gz", -SHIFT_MM))
    judged = forward if known == "own" else pair
    listed = {"reverse": (backward, forward), "listed": (forward,)}.get(known, ())
    translator = translating_model(negative("cyclegan"), "negative")
    found = evaluate_translation([judged], [translator], tmp_path / "rows", listed=listed)
    assert {row.case for row in found} == {"a_ct-a_mr"}
    assert {"seconds_cpu"} < {row.metric for row in found}
    inside = rows_of(found, INSIDE)
    assert list(inside) == list(rows_of(found)) == METRICS
    if known == "none":
        assert inside["rmse"] > 30
    else:
        assert inside["rmse"] < 0.01
        assert inside["structural_similarity"] > 0.7  # its window looks beyond the mask, and there beyond the CT


@pytest.mark.parametrize("known", [True, False])
def test_on_the_networks_grid_a_perfect_translator_is_perfect(
    trained: Callable[..., Model], plan: Callable[..., Plan], monkeypatch: pytest.MonkeyPatch, pair: Pair,
    tmp_path: Path, known: bool,
) -> None:  # fmt: skip
    """Voxels of twice the size: brought back onto the image's own the negative is blurred, there it is the truth's."""
    kind: Any = METHODS["cyclegan"]

    class Known(kind):
        def __init__(self, settings: Any, domain: Any) -> None:
            super().__init__(settings, domain)
            self.translators = nn.ModuleDict({side: Negative() for side in self.targets})

    monkeypatch.setitem(METHODS, "coarse", Known)
    model = trained("coarse", plan(modalities=WINDOWS, spacing=(6.0, 6.0, 8.0), shape=(8, 7, 6)), **SMALL)
    judged = replace(pair, displacement=shifted(tmp_path / "map.nii.gz", SHIFT_MM)) if known else pair
    there, native = (translating_model(model, f"{coarse}", native=not coarse) for coarse in (True, False))
    assert there.stamp != native.stamp
    found = evaluate_translation([judged], [there, native], tmp_path / "rows")
    rmse = {row.method: row.value for row in found if row.metric == "rmse" and row.label == INSIDE}
    if known:
        assert rmse["True"] < 0.02
        assert rmse["False"] > 20
    else:
        assert rmse["True"] > 10
    source, truth = truth_of(judged, ())
    one = there.run(judged, source, truth)
    assert one.found.native is not None
    assert one.found.native.same_as(GRID)
    assert one.found.image.grid.shape == one.found.source.grid.shape == one.compared.truth.grid.shape == (8, 7, 6)
    assert bool(one.found.seen.all())


def test_maps_are_those_of_the_pair_before_any_other(pair: Pair, tmp_path: Path) -> None:
    forward = replace(pair, displacement=shifted(tmp_path / "forward.nii.gz", 3.0))
    other = Pair(replace(pair.moving, case="b"), replace(pair.fixed, case="b"), tmp_path / "none.nii.gz")
    found = true_map(forward, (other,), GRID, GRID)
    assert found is not None
    np.testing.assert_allclose(found(GRID.centre[None]), GRID.centre[None] - [3.0, 0, 0], atol=1e-4)
    assert true_map(pair, (other,), GRID, GRID) is None


def test_rows_of_two_tasks_in_one_folder(negative: Any, pair: Pair, tmp_path: Path) -> None:
    """A method of one name may register a pair and translate it."""
    rows = tmp_path / "rows"
    translator = translating_model(negative("cyclegan"), "none")
    first = evaluate_translation([pair], [translator], rows)
    evaluate_registration([pair], [engine("none")], rows)
    assert len(list(rows.iterdir())) == 2
    kept = {path: path.stat().st_mtime_ns for path in rows.iterdir()}
    assert [str(row) for row in evaluate_translation([pair], [translator], rows)] == [str(row) for row in first]
    assert {path: path.stat().st_mtime_ns for path in rows.iterdir()} == kept
    inside = Mask(torch.ones(GRID.shape, dtype=torch.bool), GRID)
    assert pair.moving.mask is not None
    pair.moving.mask.unlink()
    write(inside, pair.moving.mask)  # another mask, another row
    again = evaluate_translation([pair], [translator], rows)
    assert rows_of(again, INSIDE)["rmse"] != rows_of(first, INSIDE)["rmse"]
    assert rows_of(again, INSIDE)["rmse"] == pytest.approx(rows_of(again)["rmse"])


def test_a_training_for_each_fixed_modality(negative: Any, pair: Pair, tmp_path: Path) -> None:
    """One that translates to CT alone serves pairs whose fixed image is a CT."""
    part = translating_model(negative("nemar"), "inner")
    one = by_fixed_modality({"ct": part}, "NeMAR")
    assert (one.name, part.stamp in one.stamp) == ("NeMAR", True)
    assert by_fixed_modality({"mr": part}, "NeMAR").stamp != one.stamp
    backward = Pair(pair.moving, pair.fixed)
    found = evaluate_translation([pair, backward], [one], tmp_path / "rows")
    (failed,) = (row for row in found if row.metric == "failed")
    assert (failed.case, failed.method) == ("a_mr-a_ct", "NeMAR")
    assert failed.reason == "E-EVA-017: no training of NeMAR for the fixed modality mr, expected ct"
    assert {row.case for row in found if row.metric == "rmse"} == {"a_ct-a_mr"}


def test_a_model_that_makes_something_else_is_a_failure(negative: Any, pair: Pair, tmp_path: Path) -> None:
    other = replace(pair, fixed=replace(pair.fixed, modality="pd"))
    found = evaluate_translation([other], [translating_model(negative("nemar"), "one")], tmp_path / "rows")
    assert [row.reason for row in found] == ["E-EVA-018: ct out of mr, expected pd; choose pairs of its modalities"]


def test_scores_by_what_they_are_translations_to(negative: Any, pair: Pair, tmp_path: Path) -> None:
    backward = Pair(pair.moving, pair.fixed)
    pairs = [pair, backward, replace(pair, fixed=replace(pair.fixed, case="b", image=tmp_path / "nowhere.nii"))]
    found = by_target(evaluate_translation(pairs, [translating_model(negative("cyclegan"), "one")], tmp_path), pairs)
    labels = {
        case: {row.label for row in found if row.case == case and row.metric == "rmse"}
        for case in {r.case for r in found}
    }
    assert labels == {"a_ct-a_mr": {"to ct", f"to ct, {INSIDE}"}, "a_mr-a_ct": {"to mr"}, "b_ct-a_mr": set()}
    assert [(row.metric, row.label) for row in found if row.case == "b_ct-a_mr"] == [("failed", "")]
    assert {row.label for row in found if row.metric == "seconds_cpu"} == {"to ct", "to mr"}


@pytest.mark.parametrize("task", ["translate", "register"])
def test_pairs_that_a_model_was_not_made_for_are_told_before_any_work(
    trained: Callable[..., Model], plan: Callable[..., Plan], pair: Pair, tmp_path: Path, task: str
) -> None:
    """NeMAR registers and translates one way."""
    sides = {"pairs": {"rule": "within", "fixed_modality": "ct", "moving_modality": "mr"}}
    small = {**SMALL, "encoder": (2, 2), "decoder": (2, 2)}
    model = trained("nemar", plan(modalities=WINDOWS), facts=sides, **small)
    make: Any = translating_model if task == "translate" else registering_model
    one_way, backward = make(model, "one way"), Pair(pair.moving, pair.fixed)
    both = [backward, pair]
    told = r"W-EVA-018: one way was made for 1 of 2 pairs.*\(--fixed-modality ct --moving-modality mr\)"
    with pytest.warns(AnamorphWarning, match=told) as warned:
        assert pairs_for(both, [one_way], shared=True) == ([pair], set())
    assert len(warned) == 1
    with pytest.raises(InputError, match=r"E-EVA-018: no pair for one way: modality (mr|ct), expected (ct|mr)"):
        pairs_for([backward], [one_way], shared=True)
    assert pairs_for([pair], [one_way], shared=True) == ([pair], set())


def test_registrations_are_judged_by_the_pairs_that_all_do_and_translations_each_by_its_own(pair: Pair) -> None:
    def only(name: str, own: str) -> Any:
        def admit(pair: Pair) -> None:
            if pair.name != own:
                raise InputError("E-MOD-005", "modality mr", expected="ct")

        return replace(engine("none"), name=name, admit=admit)

    backward = Pair(pair.moving, pair.fixed)
    both, everything = [backward, pair], engine("none")
    forth, back = only("forth", pair.name), only("back", backward.name)
    with pytest.warns(AnamorphWarning, match=r"forth was made for 1 of 2 pairs; these alone are judged"):
        assert pairs_for(both, [forth, everything], shared=True) == ([pair], set())
    with pytest.warns(AnamorphWarning, match=r"forth was made for 1 of 2 pairs; it is judged by 1 "):
        chosen, spared = pairs_for(both, [forth, everything], shared=False)
    assert (chosen, spared) == (both, {(backward.name, "forth")})
    with pytest.raises(InputError, match=r"E-EVA-018: no pair that forth and back were all made for.*apart"):
        pairs_for(both, [forth, back], shared=True)
    with pytest.raises(InputError, match=r"E-EVA-018: no pair for (forth|back) among 1.*raise --most-items"):
        pairs_for(both, [forth, back], 1, shared=False)


def test_a_both_ways_model_is_for_every_pair_of_its_modalities(negative: Any, pair: Pair) -> None:
    translator, backward = translating_model(negative("cyclegan"), "one"), Pair(pair.moving, pair.fixed)
    assert pairs_for([pair, backward], [translator], shared=False) == ([pair, backward], set())
    other = replace(pair, fixed=replace(pair.fixed, modality="pd"))
    with pytest.warns(AnamorphWarning, match=r"1 of 2 pairs.*ct"):
        assert pairs_for([pair, other], [translator], shared=False)[0] == [pair]


def test_translations_to_look_at(negative: Any, pair: Pair, tmp_path: Path) -> None:
    """As they are scored; a method that fails is left out."""
    forward = replace(pair, displacement=shifted(tmp_path / "forward.nii.gz", SHIFT_MM))
    good, bad = translating_model(negative("cyclegan"), "good"), translating_model(negative("nemar"), "bad")
    backward = Pair(pair.moving, pair.fixed)
    assert list(translations_of(pair, [good, bad])) == ["good", "bad"]
    assert list(translations_of(backward, [good, bad])) == ["good"]
    shown = translations_of(pair, [good], [forward])["good"]
    (rmse,) = (row.value for row in shown.compared.scores if (row.metric, row.label) == ("rmse", INSIDE))
    assert rmse < 0.01


def test_pairs_that_lie_apart_are_failures(negative: Any, pair: Pair, tmp_path: Path) -> None:
    away = GRID.affine.copy()
    away[0, 3] = 900
    write(Image.from_array(np.ones(GRID.shape), away), pair.fixed.image.with_name("away.nii.gz"))
    other = replace(pair, fixed=replace(pair.fixed, image=pair.fixed.image.with_name("away.nii.gz")))
    (failed,) = evaluate_translation([other], [translating_model(negative("nemar"), "one")], tmp_path / "rows")
    assert failed.reason.startswith("E-GEO-015")
    assert true_map(other, (), GRID, Grid(GRID.shape, away)) is None
    assert Affine.identity(3)(GRID.centre[None]).shape == (1, 3)
