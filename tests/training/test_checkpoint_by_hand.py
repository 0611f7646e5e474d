"""Checkpoints: what comes back, which stay, and what happens to damaged ones."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from anamorph.errors import AnamorphWarning, IntegrityError, ResourceError
from anamorph.training.checkpoint import Checkpoint, Checkpoints, pack_optimisers, unpack_optimisers


def checkpoint(step: int) -> Checkpoint:
    weights = {"w": torch.full((3, 2), float(step)), "count": torch.tensor(step)}
    return Checkpoint(step, {"weights": weights, "optimisers": {}}, {"training": {"step": step}})


@pytest.fixture
def kept(tmp_path: Path) -> Checkpoints:
    return Checkpoints(tmp_path / "checkpoint", steps=4)


def names(kept: Checkpoints) -> list[str]:
    return sorted(path.name for path in kept.folder.iterdir())


def test_what_was_saved_comes_back(kept: Checkpoints) -> None:
    assert kept.newest() is None
    shared = torch.arange(6.0)
    kept.save(Checkpoint(7, {"weights": {"a": shared, "b": shared[2:], "c": shared.view(2, 3).T}}, {"x": [1, None]}))
    found = kept.newest()
    assert found is not None
    assert (found.step, found.state["x"]) == (7, [1, None])
    assert found.tensors["weights"]["c"].tolist() == [[0, 3], [1, 4], [2, 5]]
    assert found.tensors["weights"]["b"].tolist() == [2, 3, 4, 5]


def test_the_last_two_stay_and_the_last_end_of_an_epoch(kept: Checkpoints) -> None:
    for step in (0, 1, 4, 5, 6, 7):
        kept.save(checkpoint(step))
    assert names(kept) == ["step_00000004", "step_00000006", "step_00000007"]
    newest, end = kept.newest(), kept.newest(end_of_epoch=True)
    assert newest is not None
    assert end is not None
    assert (newest.step, end.step) == (7, 4)
    kept.discard_after(4)
    assert names(kept) == ["step_00000004"]


def test_the_same_step_again_replaces_what_was_there(kept: Checkpoints) -> None:
    kept.save(checkpoint(3))
    kept.save(Checkpoint(3, {"weights": {"w": torch.zeros(1)}}, {}))
    found = kept.newest()
    assert found is not None
    assert found.tensors["weights"]["w"].tolist() == [0]


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [cut, flip, Path.unlink], ids=["cut", "flipped", "gone"])
@pytest.mark.parametrize("file", ["weights.safetensors", "state.json", "manifest.json"])
def test_r07_a_damaged_newest_gives_way_to_the_one_before(
    kept: Checkpoints, damage: Callable[[Path], None], file: str
) -> None:
    for step in (4, 5):
        kept.save(checkpoint(step))
    damage(kept.folder / "step_00000005" / file)
    with pytest.warns(AnamorphWarning, match="W-TRN-006: step_00000005: damaged"):
        found = kept.newest()
    assert found is not None
    assert found.step == 4


def test_r07_all_damaged_is_a_refusal(kept: Checkpoints) -> None:
    for step in (4, 5):
        kept.save(checkpoint(step))
        cut(kept.folder / f"step_0000000{step}" / "weights.safetensors")
    with pytest.warns(AnamorphWarning), pytest.raises(IntegrityError, match=r"E-TRN-006: .*--force") as caught:
        kept.newest()
    assert caught.value.exit_code == 6


def test_a_manifest_cannot_point_elsewhere(kept: Checkpoints, tmp_path: Path) -> None:
    kept.save(checkpoint(4))
    secret = tmp_path / "secret.safetensors"
    secret.write_bytes((kept.folder / "step_00000004" / "weights.safetensors").read_bytes())
    manifest = kept.folder / "step_00000004" / "manifest.json"
    content = json.loads(manifest.read_text())
    content["../../secret.safetensors"] = content["weights.safetensors"]
    manifest.write_text(json.dumps(content))
    with pytest.raises(IntegrityError):
        kept.newest()


def test_r03_a_full_disk_leaves_the_old_ones(kept: Checkpoints, monkeypatch: pytest.MonkeyPatch) -> None:
    kept.save(checkpoint(4))

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "no space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ResourceError, match="E-OUT-003: step_00000005: not written: no space left"):
        kept.save(checkpoint(5))
    assert names(kept) == ["step_00000004"]


def test_what_a_killed_save_left_is_removed_by_the_next(kept: Checkpoints) -> None:
    kept.save(checkpoint(4))
    (kept.folder / ".part-1234").mkdir()
    (kept.folder / ".part-1234" / "weights.safetensors").write_bytes(b"half")
    found = kept.newest()
    assert found is not None
    assert found.step == 4
    kept.save(checkpoint(5))
    assert names(kept) == ["step_00000004", "step_00000005"]


@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD])
def test_optimisers_come_apart_and_together(kind: type[torch.optim.Optimizer]) -> None:
    options = {"momentum": 0.9} if kind is torch.optim.SGD else {}
    layer = nn.Linear(3, 2)
    optimiser = kind(layer.parameters(), lr=0.1, **options)
    layer(torch.ones(1, 3)).sum().backward()
    optimiser.step()
    state = optimiser.state_dict()
    tensors, plain = pack_optimisers({"a.b": state})
    back = unpack_optimisers(tensors, json.loads(json.dumps(plain)))["a.b"]
    optimiser.load_state_dict(back)
    again = optimiser.state_dict()["state"]
    assert again.keys() == state["state"].keys()
    for parameter, values in state["state"].items():
        assert {name: torch.as_tensor(value).tolist() for name, value in values.items()} == {
            name: torch.as_tensor(value).tolist() for name, value in again[parameter].items()
        }
