"""A trained model under other settings and with other networks: what changes, what stays, and what is refused."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from anamorph.data.cohort import Scan
from anamorph.data.image import Image
from anamorph.data.plan import Plan
from anamorph.errors import AnamorphWarning, ConfigurationError
from anamorph.inference.contenders import segmenting_model
from anamorph.inference.model_folder import Model, domain_of, read_model, write_model
from anamorph.inference.model_variants import with_networks, with_settings
from anamorph.methods import METHODS
from anamorph.spatial.grid import Grid

PLAN = Plan(spacing=(1.0, 1.0), shape=(16, 16), orientation="RA", modalities={"grey": {}}, labels={1: "a", 2: "b"})  # pyright: ignore
IMAGE = torch.linspace(-1, 1, 256).reshape(1, 1, 16, 16)


def model(folder: Path, name: str, seed: int, **settings: object) -> Model:
    """One that was never trained, with weights of its own."""
    torch.manual_seed(seed)
    kind = METHODS[name]
    method = kind(kind.Settings.model_validate(settings), domain_of(PLAN))
    if name == "atlas-istn":
        square = torch.zeros(1, 3, 16, 16)
        square[:, 0], square[:, 1, 4:9, 4:9] = 1, 1
        square[:, 0, 4:9, 4:9] = 0
        method.atlas_labels.copy_(square)  # pyright: ignore
    write_model(folder, method, name, PLAN, facts={})
    return read_model(folder, "cpu")


def weights(found: Model, prefix: str) -> dict[str, Tensor]:
    state = found.method.state_dict()
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture
def unet(tmp_path: Path) -> Model:
    return model(tmp_path / "unet", "unet", 1, channels=(4, 8))


@pytest.fixture
def istn(tmp_path: Path) -> Model:
    return model(tmp_path / "istn", "atlas-istn", 2, channels=(4, 8), stn_channels=(4, 4), affine_from_epoch=0)


def test_other_settings_keep_the_weights_and_the_model(istn: Model) -> None:
    before = istn.method.segment(IMAGE)
    found = with_settings(istn, {"test": "itn", "refinement": {"iterations": 3}})
    told, trained = (dict[str, Any](of.card.settings) for of in (found, istn))
    assert (told["test"], told["refinement"]["iterations"], told["channels"]) == ("itn", 3, [4, 8])
    assert told["refinement"]["learning_rate"] == trained["refinement"]["learning_rate"]
    assert same(weights(found, ""), weights(istn, ""))
    assert not found.method.training
    assert not any(parameter.requires_grad for parameter in found.method.parameters())
    assert not torch.equal(found.method.segment(IMAGE), before)
    assert torch.equal(istn.method.segment(IMAGE), before)
    assert istn.card.settings["test"] == "refine"
    assert with_settings(istn, {}).card == istn.card


def test_rows_of_one_model_are_kept_apart(istn: Model) -> None:
    """What an evaluation keeps is void as soon as the settings differ."""
    stamps = [
        segmenting_model(with_settings(istn, {"refinement": {"smoothness": weight}}), "x").stamp
        for weight in (1.0, 2.0, 2.0)
    ]
    assert stamps[0] != stamps[1] == stamps[2]


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"tets": "itn"}, "E-EVA-014"),
        ({"refinement": {"iterations": -1}}, "E-EVA-014"),
        ({"channels": (4, 8, 16)}, "E-EVA-015"),
        ({"stn": "svf"}, "E-EVA-015"),
    ],
)
def test_settings_that_do_not_fit(changes: dict, code: str, istn: Model) -> None:
    with pytest.raises(ConfigurationError, match=f"^{code}: "):
        with_settings(istn, changes)


def test_the_network_of_another_training(istn: Model, unet: Model) -> None:
    found = with_networks(istn, {"image_transformer": "plain.network"}, {"plain": unet})
    assert same(weights(found, "image_transformer."), weights(unet, "network."))
    assert same(weights(found, "spatial_transformer."), weights(istn, "spatial_transformer."))
    assert torch.equal(found.method.state_dict()["atlas_labels"], istn.method.state_dict()["atlas_labels"])
    assert not same(weights(istn, "image_transformer."), weights(unet, "network."))
    assert found.card.weights_sha256 not in (istn.card.weights_sha256, unet.card.weights_sha256)
    again = with_networks(istn, {"image_transformer": "plain.network"}, {"plain": unet})
    assert again.card.weights_sha256 == found.card.weights_sha256


def test_a_network_before_training_is_always_the_same(istn: Model) -> None:
    before = torch.get_rng_state()
    found, again = (with_networks(istn, {"spatial_transformer": "initial"}, {}) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before)
    assert same(weights(found, ""), weights(again, ""))
    assert not same(weights(found, "spatial_transformer."), weights(istn, "spatial_transformer."))
    assert same(weights(found, "image_transformer."), weights(istn, "image_transformer."))


def test_a_network_of_zeros_leaves_the_atlas_as_it_is(istn: Model) -> None:
    found = with_settings(with_networks(istn, {"spatial_transformer": "zero"}, {}), {"test": "one_pass"})
    atlas = found.method.state_dict()["atlas_labels"]
    assert torch.allclose(found.method.segment(IMAGE), atlas, atol=1e-6)
    assert not torch.allclose(with_settings(istn, {"test": "one_pass"}).method.segment(IMAGE), atlas, atol=1e-3)
    assert found.card.weights_sha256 != istn.card.weights_sha256
    assert any(tensor.any() for tensor in weights(istn, "spatial_transformer.").values())


@pytest.mark.parametrize(
    ("parts", "found"),
    [
        ({"itn": "plain.network"}, "no network 'itn' in AtlasISTN, expected image_transformer, spatial_transformer"),
        ({"image_transformer": "plain.unet"}, "no network 'unet' in UNet, expected network"),
        ({"image_transformer": "other.network"}, "no model 'other', expected plain, initial or zero"),
        ({"spatial_transformer": "plain.network"}, "weights that do not fit"),
    ],
)
def test_networks_that_are_not_there(parts: dict[str, str], found: str, istn: Model, unet: Model) -> None:
    with pytest.raises(ConfigurationError, match=f"^E-EVA-015: .*{found}"):
        with_networks(istn, parts, {"plain": unet})


def image() -> Image:
    return Image(IMAGE[0], Grid((16, 16), np.eye(3)), modality="grey")


def scores_of(found: Model) -> dict[tuple[str, str], float]:
    scan = Scan("case", "grey", Path("image.nii.gz"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AnamorphWarning)
        scores = segmenting_model(found, "x", consistency=True).run(scan, image()).scores
    return {(score.metric, score.label): score.value for score in scores}


def test_maps_that_undo_each_other_are_consistent(istn: Model) -> None:
    """Without velocities, and with the affine map that an untrained network begins with, both maps are the identity."""
    with torch.no_grad():
        for parameter in istn.method.spatial_transformer.parameters():  # pyright: ignore
            parameter.zero_()
    for answer in ("one_pass", "refine"):
        found = scores_of(with_settings(istn, {"test": answer, "refinement": {"iterations": 0}}))
        assert found["mice_voxels", ""] == found["mice_mm", ""] == pytest.approx(0, abs=1e-6)
        assert found["ic_dice", "a"] == pytest.approx(1)


def test_refined_maps_are_not_those_of_one_pass(istn: Model) -> None:
    one_pass, refined = (scores_of(with_settings(istn, {"test": answer})) for answer in ("one_pass", "refine"))
    assert one_pass.keys() == refined.keys() >= {("mice_voxels", ""), ("ic_dice", "a"), ("ic_dice_mean", "")}
    assert 0 < refined["mice_voxels", ""] != one_pass["mice_voxels", ""] > 0


def test_nothing_is_told_of_what_has_no_map_to_an_atlas(istn: Model, unet: Model) -> None:
    assert scores_of(unet) == scores_of(with_settings(istn, {"test": "itn"})) == {}


def test_the_atlas_that_a_segmentation_came_from_is_told_by_its_topology(istn: Model, unet: Model) -> None:
    scan = Scan("case", "grey", Path("image.nii.gz"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AnamorphWarning)
        square = segmenting_model(with_settings(istn, {"test": "itn"}), "x").run(scan, image()).atlas[1]
        assert segmenting_model(unet, "x").run(scan, image()).atlas == {}
    assert (square.components, square.tunnels, square.voxels) == (1, 0, 25)


def test_consistency_is_told_where_it_is_asked_for(istn: Model) -> None:
    scan = Scan("case", "grey", Path("image.nii.gz"))
    asked, not_asked = (segmenting_model(istn, "x", consistency=asked) for asked in (True, False))
    assert asked.stamp != not_asked.stamp
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AnamorphWarning)
        assert {score.metric for score in asked.run(scan, image()).scores} >= {"mice_mm", "ic_dice"}
        assert not_asked.run(scan, image()).scores == ()
