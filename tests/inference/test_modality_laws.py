"""An image that looks like another modality is told, whoever named it; one that looks like its own never is."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from anamorph.data.image import Image, Mask
from anamorph.data.network_grid import image_to_network
from anamorph.data.plan import Intensity, Plan
from anamorph.errors import AnamorphWarning
from anamorph.inference.model_domain import FEWEST_IMAGES, appearance_of
from anamorph.inference.model_folder import Model, read_model
from anamorph.inference.multi_atlas_cache import store_model, stored_model
from anamorph.inference.register_model import register_with
from anamorph.inference.segment import segment_with
from anamorph.inference.translate import translate_with
from anamorph.methods import METHODS
from anamorph.methods.both_ways import BothWays
from anamorph.spatial.grid import Grid

Trained = Callable[..., Model]
MakePlan = Callable[..., Plan]

GRID = Grid((16, 14, 12), np.diag([3.0, 3.0, 4.0, 1.0]))
TISSUES = {"t1": (5.0, 300.0, 420.0, 550.0), "t2": (5.0, 900.0, 480.0, 330.0), "ct": (-1000.0, 10.0, 40.0, 700.0)}
"""Air, and shells of water, grey and white from the outside, as scanners show them."""
ALIKE = {"t1": Intensity(), "t2": Intensity()}
MIXED = {"ct": Intensity(kind="window", low=-200.0, high=300.0), "t1": Intensity()}
PAIRS = {"rule": "within", "fixed_modality": "t1", "moving_modality": "t2"}
SMALL = {"features": 2, "blocks": 1, "discriminator_features": 2, "discriminator_layers": 1}


def head(shows: str, seed: int, modality: str | None = None, channels: int = 1) -> Image:
    """Of a size, a gain and noise of its own, in every channel."""
    rng = np.random.default_rng(seed)
    middle, ends = (np.array(GRID.shape).reshape(3, 1, 1, 1) / 2 - away for away in (0.5, 1.0))
    radius = np.sqrt((((np.indices(GRID.shape) - middle) / ends) ** 2).sum(0)) / rng.uniform(0.85, 1.05)
    air, water, grey, white = TISSUES[shows]
    values = np.select([radius < 0.6, radius < 0.8, radius < 1.0], [white, grey, water], air)
    gain = 1.0 if shows == "ct" else rng.uniform(0.5, 2.0)
    data = gain * (values + rng.normal(0, 8, (channels, *GRID.shape)))
    return Image.from_array(data, GRID.affine, modality, name=f"{shows}_{seed}.nii")


def inside(image: Image) -> Mask:
    return Mask(image.data[0] > 0.3 * image.data.max(), GRID)


def facts_of(plan: Plan, count: int = 12) -> dict[str, Any]:
    """What a training on ``count`` heads of each modality says of them."""

    def prepared(shows: str, seed: int) -> np.ndarray:
        image = head(shows, seed, shows, plan.channels)
        return image_to_network(image, plan, GRID, inside(image)).numpy()

    return {"appearance": {name: appearance_of([prepared(name, n) for n in range(count)]) for name in plan.modalities}}


def told(work: Callable[[], Any]) -> list[str]:
    """What is said of modalities while it runs."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", AnamorphWarning)
        work()
    return [str(one.message) for one in caught if "W-MOD-017" in str(one.message)]


def both_ways(trained: Trained, plan: Plan, facts: Mapping[str, Any], monkeypatch: pytest.MonkeyPatch) -> Model:
    one_way: Any = METHODS["shift"]

    class Both(BothWays, one_way):
        def register_both(self, fixed: Any, moving: Any) -> Any:
            return (one_way.register(self, fixed, moving),) * 2

    monkeypatch.setitem(METHODS, "both", Both)
    return trained("both", plan, {"pairs": PAIRS, **facts})


LINE = "W-MOD-017: {0}: looks like {1}, but is taken for {2}; check the modality, and name it if it was left open"


@pytest.mark.parametrize("seed", range(100, 106))
@pytest.mark.parametrize("channels", [1, 2])
def test_a_pair_the_other_way_round_is_told_open_or_named(
    seed: int, channels: int, trained: Trained, plan: MakePlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = plan(modalities=ALIKE, channels=channels)
    model = both_ways(trained, made, facts_of(made), monkeypatch)

    def found(fixed: tuple[Any, ...], moving: tuple[Any, ...]) -> list[str]:
        sides = [head(shows, seed, modality, channels) for shows, modality in (fixed, moving)]
        return told(lambda: register_with(model, *sides))

    wrong = [LINE.format(f"t2_{seed}.nii", "t2", "t1"), LINE.format(f"t1_{seed}.nii", "t1", "t2")]
    assert found(("t2", None), ("t1", None)) == wrong
    assert found(("t2", "t1"), ("t1", "t2")) == wrong
    assert found(("t1", "t2"), ("t2", "t1")) == wrong[::-1]
    assert found(("t1", None), ("t1", None)) == wrong[1:]
    assert found(("t1", None), ("t2", None)) == []
    assert found(("t1", "t1"), ("t2", "t2")) == []
    assert found(("t2", "t2"), ("t1", "t1")) == []
    assert found(("t2", None), ("t1", "t1")) == []  # one name is enough to turn the pair round


@pytest.mark.parametrize("seed", range(100, 106))
def test_an_image_is_compared_as_each_modality_is_prepared_G21(seed: int, trained: Trained, plan: MakePlan) -> None:
    """A CT by a window, T1 by percentiles: neither tensor is what the other modality's would be."""
    made = plan(modalities=MIXED, labels={1: "a"})
    model = trained("threshold", made, facts_of(made))
    ct, t1 = f"ct_{seed}.nii", f"t1_{seed}.nii"
    assert told(lambda: segment_with(model, head("ct", seed, "t1"))) == [LINE.format(ct, "ct", "t1")]
    assert told(lambda: segment_with(model, head("t1", seed, "ct"))) == [LINE.format(t1, "t1", "ct")]
    assert told(lambda: segment_with(model, head("ct", seed, "ct"))) == []
    assert told(lambda: segment_with(model, head("t1", seed, "t1"))) == []


def test_a_translation_is_told_named_or_open(trained: Trained, plan: MakePlan) -> None:
    """NeMAR translates the moving modality alone, t2 here, which may be left open."""
    made = plan(modalities=ALIKE)
    model = trained("nemar", made, {"pairs": PAIRS, **facts_of(made)}, **SMALL)
    for modality in (None, "t2"):
        assert told(lambda name=modality: translate_with(model, head("t1", 100, name))) == [
            LINE.format("t1_100.nii", "t1", "t2")
        ]
        assert told(lambda name=modality: translate_with(model, head("t2", 100, name))) == []


def test_the_mask_holds_for_the_comparison_as_well(trained: Trained, plan: MakePlan) -> None:
    """Of a head with something bright beside it, only the mask tells the scale."""
    window = Intensity(kind="window", low=-200.0, high=300.0, content="mask")
    made = plan(modalities={"ct": window, "t1": Intensity(content="mask")}, labels={1: "a"})
    model = trained("threshold", made, facts_of(made))
    image = head("t1", 100, "ct")
    mask = inside(image)
    image.data[:, :4, :4, :3] = 20 * image.data.max()
    assert told(lambda: segment_with(model, image)) == []
    assert told(lambda: segment_with(model, image, mask=mask)) == [LINE.format("t1_100.nii", "t1", "ct")]


def test_nothing_is_told_where_modalities_cannot_be_told_apart(trained: Trained, plan: MakePlan) -> None:
    """Another contrast than either is told of neither; nor are two names of one contrast."""
    made = plan(modalities=ALIKE, labels={1: "a"})
    facts = facts_of(made)
    facts["appearance"]["t2"] = facts["appearance"]["t1"]
    model = trained("threshold", made, facts)
    for shows in ("t1", "t2", "ct"):
        for name in ALIKE:
            assert told(lambda shows=shows, name=name: segment_with(model, head(shows, 100, name))) == []


@pytest.mark.parametrize("kept", [(), ("t1",), ("t2",)])
def test_a_card_that_knows_less_than_two_modalities_is_silent(
    kept: Sequence[str], trained: Trained, plan: MakePlan
) -> None:
    made = plan(modalities=ALIKE, labels={1: "a"})
    facts = {"appearance": {name: seen for name, seen in facts_of(made)["appearance"].items() if name in kept}}
    model = trained("threshold", made, facts)
    for shows, name in (("t1", "t2"), ("t2", "t1"), ("t1", "t1")):
        assert told(lambda shows=shows, name=name: segment_with(model, head(shows, 100, name))) == []


def test_a_card_of_before_is_read_and_silent(trained: Trained, plan: MakePlan, tmp_path: Path) -> None:
    made = plan(modalities=ALIKE, labels={1: "a"})
    trained("threshold", made, facts_of(made))
    path = tmp_path / "threshold_model" / "model.json"
    card = json.loads(path.read_text())
    assert set(card.pop("appearance")) == {"t1", "t2"}
    path.write_text(json.dumps(card))
    model = read_model(path.parent, "cpu")
    assert model.card.appearance == {}
    assert told(lambda: segment_with(model, head("t2", 100, "t1"))) == []


def test_whoever_computes_for_several_atlases_knows_it_too(trained: Trained, plan: MakePlan, tmp_path: Path) -> None:
    made = plan(modalities=ALIKE)
    model = trained("shift", made, facts_of(made))
    assert stored_model(store_model(tmp_path / "cache", model), "cpu").card.appearance == model.card.appearance


def test_too_few_images_tell_nothing(plan: MakePlan) -> None:
    made = plan(modalities=ALIKE)
    images = [image_to_network(head("t1", seed, "t1"), made, GRID).numpy() for seed in range(FEWEST_IMAGES)]
    assert appearance_of(images[:-1]) is None
    assert appearance_of(images) is not None
    flat = appearance_of([np.full_like(images[0], 0.5)] * FEWEST_IMAGES)
    assert flat is not None
    assert flat.largest == 0
    assert min(flat.spread[0]) > 0


def test_neither_air_nor_place_counts(plan: MakePlan) -> None:
    """The same head at the edge of a wider view has the same quantiles."""
    near = image_to_network(head("t1", 1, "t1"), plan(modalities=ALIKE), GRID).numpy()
    far = np.pad(near, [(0, 0), (0, 16), (14, 0), (0, 12)])
    found = [appearance_of([one] * FEWEST_IMAGES) for one in (near, far)]
    assert found[0] is not None
    assert found[1] is not None
    np.testing.assert_allclose(found[0].mean, found[1].mean, atol=0.02)
