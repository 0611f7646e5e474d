"""What holds of every rule, whatever the labels: boxes, names and number of labels, and order of axes do not matter."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from anamorph.fusion import FUSIONS, Fused, FusionSettings, fuse
from anamorph.fusion import boxes as boxes_module
from anamorph.fusion.boxes import boxes, read
from anamorph.fusion.settings import READ_BY, Fusion

SMALL = {"block_radius": 2, "sigma": 0.8, "patch_radius": 1}


def small(name: str, **more: Any) -> FusionSettings:
    """A rule with small windows, as far as it has any."""
    given_ = {field: value for field, value in SMALL.items() if name in READ_BY[field]}
    bins = {"bins": 4} if name == "local_mi" else {}
    return FusionSettings.model_validate({"fusion": name, **given_, **bins, **more})


RULES: list[FusionSettings] = [
    small(name, similarity=similarity)
    for name in FUSIONS
    for similarity in (("mind", "ssd") if name in ("local", "non_local", "joint") else ("mind",))
]


def case(shape: tuple[int, ...], count: int, seed: int = 0) -> dict[str, Tensor | list[Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    target = torch.rand(1, *shape, generator=generator)
    return {
        "target": target,
        "images": [target + 0.3 * torch.rand(1, *shape, generator=generator) for _ in range(count)],
        "labels": [(target[0] * 3 + torch.rand(shape, generator=generator)).long() for _ in range(count)],
        "weights": [torch.rand(shape, generator=generator) for _ in range(count)],
    }


def fused(found: dict, rule: FusionSettings, **changed: list[Tensor]) -> Fused:
    given_ = {**found, **changed}
    labels = given_.pop("labels")
    return fuse(labels, rule, **given_)


def name_of(rule: FusionSettings) -> str:
    return f"{rule.fusion}-{rule.similarity}"


@pytest.mark.parametrize("rule", RULES, ids=name_of)
def test_every_device_finds_the_same(rule: FusionSettings, device: torch.device) -> None:
    if device.type == "cpu":
        pytest.skip("compares another device with the CPU: --device cuda")
    found = case((9, 8), 3)
    there = {
        key: [x.to(device) for x in value] if isinstance(value, list) else value.to(device)
        for key, value in found.items()
    }
    here, away = fused(found, rule), fused(there, rule)
    assert away.labels.device.type == device.type
    torch.testing.assert_close(away.share.cpu(), here.share, atol=1e-3, rtol=0)
    torch.testing.assert_close(away.probability(1).cpu(), here.probability(1), atol=1e-3, rtol=0)


class FromDisk(Sequence):
    """Labels that are loaded anew at each access."""

    def __init__(self, paths: list[Path]) -> None:
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, place):
        return torch.from_numpy(np.load(self.paths[place], mmap_mode="c"))


def test_items_may_lie_on_disk(tmp_path: Path) -> None:
    found = case((9, 8), 3)
    on_disk = {}
    for key in ("labels", "images"):
        paths = [tmp_path / f"{key}{i}.npy" for i in range(3)]
        for path, item in zip(paths, found[key], strict=True):
            np.save(path, item.numpy())
        on_disk[key] = FromDisk(paths)
    rule = FusionSettings(patch_radius=1)
    assert torch.equal(fused({**found, **on_disk}, rule).share, fused(found, rule).share)


@pytest.mark.parametrize("rule", RULES, ids=name_of)
@pytest.mark.parametrize("shape", [(11, 9), (7, 6, 5)])
def test_a_winner_is_proposed_nearby_and_probabilities_sum_to_one(rule: FusionSettings, shape: tuple[int, ...]) -> None:
    found = case(shape, 4)
    result = fused(found, rule)
    probabilities = torch.stack([result.probability(value) for value in range(5)])
    torch.testing.assert_close(probabilities.sum(0), torch.ones(shape))
    torch.testing.assert_close(probabilities.amax(0), result.share)
    torch.testing.assert_close(probabilities.gather(0, result.labels[None])[0], result.share)
    assert 0 <= float(result.entropy.min()) <= float(result.entropy.max()) <= 1
    if rule.fusion not in ("joint", "non_local"):
        assert (torch.stack(found["labels"]) == result.labels).any(0).all()


@pytest.mark.parametrize("rule", RULES, ids=name_of)
@pytest.mark.parametrize("shape", [(21, 10), (17, 5, 4)])
def test_boxes_do_not_show(rule: FusionSettings, shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    found = case(shape, 3)
    whole = fused(found, rule)
    monkeypatch.setattr(boxes_module, "IN_FLIGHT", 100)
    assert len(boxes(shape, 10, 0)) > 2
    parts = fused(found, rule)
    torch.testing.assert_close(parts.share, whole.share, atol=1e-4, rtol=0)
    torch.testing.assert_close(parts.entropy, whole.entropy, atol=1e-4, rtol=0)
    assert (parts.labels == whole.labels).float().mean() > 0.99  # rounding may turn a near tie


@settings(max_examples=40)
@given(
    shape=st.lists(st.integers(1, 30), min_size=2, max_size=3), per_voxel=st.integers(1, 10**7), halo=st.integers(0, 9)
)
def test_boxes_tile_the_grid(shape: list[int], per_voxel: int, halo: int) -> None:
    seen = torch.zeros(shape)
    for box in boxes(shape, per_voxel, halo):
        seen[box] += 1
    assert (seen == 1).all()


@settings(max_examples=40)
@given(data=st.data(), margin=st.integers(0, 6))
def test_reading_goes_on_beyond_the_border_with_the_outermost_values(data: st.DataObject, margin: int) -> None:
    shape = data.draw(st.lists(st.integers(1, 7), min_size=2, max_size=3))
    values = torch.arange(torch.Size(shape).numel()).view(1, *shape)
    starts = [data.draw(st.integers(0, n - 1)) for n in shape]
    box = tuple(slice(a, data.draw(st.integers(a + 1, n))) for a, n in zip(starts, shape, strict=True))
    expected = values
    for axis, (edge, n) in enumerate(zip(box, shape, strict=True), start=1):
        index = torch.arange(edge.start - margin, edge.stop + margin).clamp(0, n - 1)
        expected = expected.index_select(axis, index)
    assert torch.equal(read(values, box, margin), expected)


@settings(max_examples=8)
@given(seed=st.integers(0, 1000), name=st.sampled_from(["majority", "weighted", "joint", "non_local", "staple"]))
def test_names_of_labels_do_not_matter(seed: int, name: Fusion) -> None:
    found = case((8, 7), 4, seed)
    new = torch.randperm(4000, generator=torch.Generator().manual_seed(seed))[:5] - 2000
    rule = small(name)
    before = fused(found, rule)
    after = fused(found, rule, labels=[new[labels] for labels in found["labels"]])
    assert torch.equal(after.labels, new[before.labels])
    torch.testing.assert_close(after.share, before.share)
    torch.testing.assert_close(after.entropy, before.entropy)


@pytest.mark.parametrize("rule", RULES, ids=name_of)
def test_turning_the_images_turns_the_result(rule: FusionSettings) -> None:
    found = case((9, 8), 3)
    turned = {
        key: [x.transpose(-1, -2) for x in value] if isinstance(value, list) else value.transpose(-1, -2)
        for key, value in found.items()
    }
    torch.testing.assert_close(fused(turned, rule).share.T, fused(found, rule).share, atol=1e-4, rtol=0)


@pytest.mark.parametrize("similarity", ["mind", "ssd"])
@pytest.mark.parametrize("name", ["local", "non_local", "joint"])
def test_brightness_and_contrast_of_the_target_do_not_matter(name: Fusion, similarity: str) -> None:
    found = case((9, 8), 3)
    rule = small(name, similarity=similarity)
    brighter = {**found, "target": 40 * found["target"] + 700}
    torch.testing.assert_close(fused(brighter, rule).share, fused(found, rule).share, atol=1e-3, rtol=0)


class Costs(TorchDispatchMode):
    """Calls of tensor operations, and the most elements of any result."""

    def __init__(self) -> None:
        super().__init__()
        self.calls, self.largest = 0, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        self.calls += 1
        for x in result if isinstance(result, (tuple, list)) else [result]:
            if isinstance(x, Tensor):
                self.largest = max(self.largest, x.numel())
        return result


@pytest.mark.parametrize("rule", [rule for rule in RULES if rule.fusion != "staple"], ids=name_of)
def test_138_labels_cost_what_5_do(rule: FusionSettings) -> None:
    """At each voxel the same atlases agree; only how many labels there are differs."""
    shape = (24, 23)
    place = torch.arange(24 * 23).view(shape)
    found = case(shape, 4)
    costs = []
    for kinds in (5, 138):
        labels = [(place + i % 2) % kinds for i in range(4)]
        assert len(torch.stack(labels).unique()) == kinds
        with Costs() as cost:
            fused(found, rule, labels=labels)
        costs.append(cost)
    assert costs[1].largest == costs[0].largest
    assert costs[1].calls == costs[0].calls


def test_staple_keeps_a_small_table_a_label_and_no_map_a_label() -> None:
    shape, kinds = (60, 50), 30
    labels = [(torch.arange(3000).view(shape) + i % 2) % kinds for i in range(3)]
    with Costs() as cost:
        fuse(labels, FusionSettings(fusion="staple", iterations=2))
    assert cost.largest < kinds * 60 * 50 / 4
