"""A model with an atlas set by hand: what the answers are, what a refinement changes, and where the map leads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from anamorph.cli.main import main
from anamorph.data.files import read_labels, write
from anamorph.data.image import Image, Labelmap
from anamorph.data.network_grid import labels_to_native
from anamorph.data.plan import Intensity, Plan
from anamorph.data.transform_files import read_transform
from anamorph.errors import AnamorphWarning
from anamorph.inference import atlas_segmentation, segment
from anamorph.inference.atlas_folder import atlas_of
from anamorph.inference.correspondence import labels_in
from anamorph.inference.model_folder import domain_of, read_model, write_model
from anamorph.inference.model_variants import with_settings
from anamorph.methods import METHODS

SHAPE, SPACING, SHIFT = (32, 32), 2.0, np.array([6.0, -4.0])
"""Voxels of the network, mm, and how far the case lies from the atlas, mm."""


class Threshold(nn.Module):
    """Grey g -> 1 - g for the background and g for the class."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return torch.cat([1 - image, image], 1)


def disc(shape: tuple[int, int], spacing: float, centre: np.ndarray) -> np.ndarray:
    """1 within 14 mm of a point, as seen from the middle of the image."""
    places = np.stack(np.meshgrid(*(spacing * (np.arange(n) - (n - 1) / 2) for n in shape), indexing="ij"), -1)
    return (np.linalg.norm(places - centre, axis=-1) < 14).astype(np.uint8)


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    plan = Plan(
        orientation="RA",
        spacing=(SPACING, SPACING),
        shape=SHAPE,
        modalities={"mr": Intensity(kind="window", low=0, high=100)},
        labels={7: "disc"},
    )
    kind = METHODS["atlas-istn"]

    class ByHand(kind):
        def __init__(self, settings: Any, domain: Any) -> None:
            super().__init__(settings, domain)
            self.image_transformer = Threshold()

    monkeypatch.setitem(METHODS, "atlas-istn", ByHand)
    torch.manual_seed(0)
    refinement = {"iterations": 60, "learning_rate": 0.01, "smoothness": 1.0, "tolerance": 0}
    method = ByHand(kind.Settings(affine_from_epoch=0, refinement=refinement), domain_of(plan))
    atlas = torch.from_numpy(disc(SHAPE, SPACING, np.zeros(2))).float()
    method.atlas_labels.copy_(torch.stack([1 - atlas, atlas])[None])
    method.atlas_image.copy_(atlas[None, None])
    write_model(tmp_path / "model", method, "atlas-istn", plan, facts={"modality": "mr"})
    return tmp_path / "model"


@pytest.fixture
def case(tmp_path: Path) -> tuple[Path, Path]:
    """An image on a finer grid than the network's, and its labels."""
    truth = disc((60, 56), 1.0, SHIFT)
    affine = np.diag([1.0, 1.0, 1.0])
    write(Image.from_array(100.0 * truth, affine, modality="mr"), tmp_path / "case.nii.gz")
    write(Labelmap.from_array(7 * truth, affine), tmp_path / "truth.nii.gz")
    return tmp_path / "case.nii.gz", tmp_path / "truth.nii.gz"


def segmented(*words: object) -> None:
    assert main(["segment", *map(str, words), "--modality", "mr", "--device", "cpu", "--quiet"]) == 0


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return 2 * float(((a > 0) & (b > 0)).sum()) / float((a > 0).sum() + (b > 0).sum())


def read_back(folder: Path, name: str = "segmentation") -> np.ndarray:
    return read_labels(folder / f"{name}.nii.gz").data.numpy()


def test_a_refinement_brings_the_atlas_to_the_image(model: Path, case: tuple[Path, Path], tmp_path: Path) -> None:
    image, truth = case
    out = tmp_path / "out"
    segmented(image, "--model", model, "--out", out, "--labels", truth)
    real = read_labels(truth)
    by_network, one_pass, refined = (
        dice(read_back(out, name), real.data.numpy())
        for name in ("segmentation_network", "segmentation_one_pass", "segmentation")
    )
    assert by_network > 0.95
    assert one_pass < 0.8
    assert refined > 0.93
    record = json.loads((out / "run.json").read_text(encoding="utf-8"))
    assert record["refinement"]["objective"] < 0.2 * record["refinement"]["objective_before"]
    assert {"segmentation_network.nii.gz", "segmentation_one_pass.nii.gz", "atlas_to_image.h5"} <= set(
        record["outputs"]
    )
    atlas = atlas_of(read_model(model, "cpu"))
    labels = atlas.labels()
    assert labels is not None
    to_image = read_transform(out / "atlas_to_image.h5", grid=atlas.grid)
    with pytest.warns(AnamorphWarning, match="W-TRF-006"):  # the image reaches beyond what the network sees
        carried = labels_in(labels, to_image, real.grid)
    assert dice(carried.data.numpy(), read_back(out)) > 0.98  # the map is the one that made the answer


def test_what_nobody_looks_at_is_not_brought_onto_the_image(
    model: Path, case: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    brought: list[torch.Tensor] = []

    def counted(probabilities: torch.Tensor, *where: Any) -> Labelmap:
        brought.append(probabilities)
        return labels_to_native(probabilities, *where)

    for module in (atlas_segmentation, segment):
        monkeypatch.setattr(module, "labels_to_native", counted)
    few = with_settings(read_model(model, "cpu"), {"refinement": {"iterations": 3}})
    found = segment.segment_with(few, case[0])
    assert len(brought) == 1
    assert found.atlas is not None
    assert not {"network", "one_pass", "to_image"} & vars(found.atlas).keys()
    assert not vars(found.atlas.found).keys() & {"inverse", "forward", "local"}
    assert found.atlas.one_pass is found.atlas.one_pass
    assert len(brought) == 2
    assert found.atlas.network is not None
    segmented(case[0], "--model", model, "--out", tmp_path / "out", "--refine", 3)
    for name, labels in (("one_pass", found.atlas.one_pass), ("network", found.atlas.network)):
        assert labels is not None
        assert np.array_equal(read_back(tmp_path / "out", f"segmentation_{name}"), labels.data.numpy())


def test_steps_and_smoothness_are_chosen(model: Path, case: tuple[Path, Path], tmp_path: Path) -> None:
    image, _ = case
    segmented(image, "--model", model, "--out", tmp_path / "none", "--refine", 0)
    segmented(image, "--model", model, "--out", tmp_path / "few", "--refine", 3, "--lambda", 5)
    assert not (tmp_path / "none" / "segmentation_one_pass.nii.gz").exists()
    assert np.array_equal(read_back(tmp_path / "none"), read_back(tmp_path / "few", "segmentation_one_pass"))
    record = json.loads((tmp_path / "few" / "run.json").read_text(encoding="utf-8"))
    assert record["refinement"]["steps"] == 3
    again = ("--config", tmp_path / "few" / "run.json", "--out", tmp_path / "again")
    segmented(image, "--model", model, *again)
    assert np.array_equal(read_back(tmp_path / "few"), read_back(tmp_path / "again"))


def test_a_model_without_an_atlas_does_not_refine(
    model: Path, case: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = read_model(model, "cpu").card.plan
    unet = METHODS["unet"]
    write_model(tmp_path / "unet", unet(unet.Settings(), domain_of(plan)), "unet", plan, facts={"modality": "mr"})
    words = ["segment", case[0], "--model", tmp_path / "unet", "--out", tmp_path / "out", "--refine", 5]
    assert main([str(word) for word in words]) == 2
    assert "E-EVA-014" in capsys.readouterr().err
