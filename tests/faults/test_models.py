"""Rows of the fault catalogue about models; the id ends each test's name."""

from __future__ import annotations

import json
import os
import pickle
import struct
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from anamorph.data.plan import Intensity, Plan
from anamorph.inference.model_folder import domain_of, read_model, write_model
from anamorph.methods import METHODS
from anamorph.methods.base import Batch, Deformation, Method, MethodSettings

Refuses = Callable[..., Any]
PLAN = Plan(spacing=(2.0, 2.0, 2.0), shape=(8, 8, 8), modalities={"ct": Intensity()})


class TinySettings(MethodSettings):
    width: int = 3
    weights: MethodSettings = MethodSettings()


class Tiny(Method):
    Settings = TinySettings

    def __init__(self, settings: TinySettings, domain: Any) -> None:
        super().__init__(settings, domain)
        self.layers = nn.ModuleList(nn.Linear(settings.width, settings.width) for _ in range(4))

    def networks_of(self, player: str) -> Sequence[nn.Module]:
        return [self.layers]

    def terms(self, batch: Batch, player: str) -> dict[str, Tensor]:
        return {}

    def register(self, fixed: Tensor, moving: Tensor) -> Deformation:
        return Deformation(torch.zeros(1, 3, *self.domain.shape))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A healthy model."""
    monkeypatch.setitem(METHODS, "tiny", Tiny)
    write_model(tmp_path / "model", Tiny(TinySettings(), domain_of(PLAN)), "tiny", PLAN, facts={})
    read_model(tmp_path / "model", "cpu")
    return tmp_path / "model"


def card_with(folder: Path, **changes: Any) -> None:
    card = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps(card | changes))


def weights_with(folder: Path, change: Callable[[dict[str, Tensor]], Any]) -> None:
    """Changed weights under a card that names their hash: only what they are can betray them."""
    import hashlib

    tensors = load((folder / "model.safetensors").read_bytes())
    change(tensors)
    content = save(tensors)
    (folder / "model.safetensors").write_bytes(content)
    card_with(folder, weights_sha256=hashlib.sha256(content).hexdigest())


class Evil:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, ("touch executed",)


def zipped(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("archive/data.pkl", pickle.dumps(Evil(), 2))


@pytest.mark.parametrize("protocol", [2, 4, 5, "zip"])
@pytest.mark.parametrize("place", ["weights.pt", "model/model.pt", "model/model.safetensors", "weights"])
def test_pickled_weights_are_never_opened_M01(
    folder: Path, place: str, protocol: Any, refuses: Refuses, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder.parent)
    if place.startswith("model/"):
        (folder / "model.safetensors").unlink()
    file = folder.parent / place
    zipped(file) if protocol == "zip" else file.write_bytes(pickle.dumps(Evil(), protocol))
    given = folder if place.startswith("model/") else file
    with refuses("E-MOD-001", 6, folder, match=rf"{file.name}: pickled weights.*safetensors"):
        read_model(given, "cpu")
    assert not (folder.parent / "executed").exists()


def test_a_pickle_beside_the_weights_is_not_looked_at_M01(folder: Path) -> None:
    (folder / "optimizer.pt").write_bytes(pickle.dumps(Evil(), 2))
    assert read_model(folder, "cpu").card.method == "tiny"


@pytest.mark.parametrize("size", [640, 896, 1152, 1408])
def test_a_header_whose_length_looks_like_a_pickle_is_read_M01(folder: Path, size: int) -> None:
    """0x0280 to 0x0580: these bytes begin a pickle as well."""
    weights_with(folder, lambda tensors: None)
    content = (folder / "model.safetensors").read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = content[8 : 8 + length].ljust(size)
    changed = struct.pack("<Q", size) + header + content[8 + length :]
    assert changed[0] == 0x80
    (folder / "model.safetensors").write_bytes(changed)
    import hashlib

    card_with(folder, weights_sha256=hashlib.sha256(changed).hexdigest())
    assert read_model(folder, "cpu").card.method == "tiny"


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[:-7],
        lambda content: content[:60],
        lambda content: content[:5],
        lambda content: b"",
        lambda content: content + b"more",
        lambda content: struct.pack("<Q", 2**62) + content[8:],
        lambda content: struct.pack("<Q", 2**64 - 1) + content[8:],
        lambda content: content[:8] + b"[" + content[9:],
    ],
    ids=["cut", "cut in header", "cut in length", "empty", "trailing", "2^62", "2^64", "no json"],
)
def test_damaged_weights_are_refused_M02(folder: Path, damage: Callable[[bytes], bytes], refuses: Refuses) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(damage(weights.read_bytes()))
    with refuses("E-MOD-002", 6, folder, match=r"model.safetensors: .*copy the folder again"):
        read_model(folder, "cpu")


def test_a_flipped_bit_is_found_M03(folder: Path, refuses: Refuses) -> None:
    weights = folder / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-3] ^= 1
    weights.write_bytes(content)
    with refuses("E-MOD-003", 6, folder, match=r"sha256"):
        read_model(folder, "cpu")


def test_missing_and_extra_weights_are_named_M04(folder: Path, refuses: Refuses) -> None:
    def change(tensors: dict[str, Tensor]) -> None:
        for number in range(3):
            del tensors[f"layers.{number}.weight"]
        tensors["stranger"] = torch.zeros(2)
        tensors["layers.3.bias"] = torch.zeros(5)
        tensors["layers.2.bias"] = torch.zeros(3, dtype=torch.float64)

    weights_with(folder, change)
    found = r"6 tensors do not fit: layers.0.weight is missing, .*, layers.2.weight is missing, stranger is not of this"
    with refuses("E-MOD-004", 3, folder, match=rf"{found} network, .* and 1 more"):
        read_model(folder, "cpu")


def test_a_wrong_shape_is_named_M04(folder: Path, refuses: Refuses) -> None:
    weights_with(folder, lambda tensors: tensors.update({"layers.1.weight": torch.zeros(3, 4)}))
    with refuses("E-MOD-004", 3, folder, match=r"layers.1.weight is float32 3 x 4, not float32 3 x 3"):
        read_model(folder, "cpu")


def test_settings_of_another_size_do_not_fit_M04(folder: Path, refuses: Refuses) -> None:
    card_with(folder, settings={"width": 7, "weights": {}})
    with refuses("E-MOD-004", 3, folder, match=r"8 tensors do not fit.* and 3 more"):
        read_model(folder, "cpu")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_M06(folder: Path, value: float, refuses: Refuses) -> None:
    weights_with(folder, lambda tensors: tensors["layers.2.bias"].fill_(value))
    with refuses("E-MOD-006", 6, folder, match=r"NaN or Inf in layers.2.bias"):
        read_model(folder, "cpu")


ALIKE = {"mean": [[0.0] * 21], "spread": [[1.0] * 21], "largest": 1.0}


@pytest.mark.parametrize(
    "appearance",
    [
        {"mr": ALIKE},
        {"ct": ALIKE | {"mean": [[0.0] * 20]}},
        {"ct": ALIKE | {"mean": [[0.0] * 21] * 2}},
        {"ct": ALIKE | {"spread": [[0.0] * 21]}},
    ],
    ids=["modality", "quantiles", "channels", "no-spread"],
)
def test_an_appearance_that_fits_no_image_is_refused_M05(folder: Path, appearance: Any, refuses: Refuses) -> None:
    card_with(folder, appearance={"ct": ALIKE})
    read_model(folder, "cpu")
    card_with(folder, appearance=appearance)
    with refuses("E-MOD-008", 3, folder, match=r"model.json: appearance"):
        read_model(folder, "cpu")


def test_an_unknown_method_is_refused_with_the_nearest_M05(folder: Path, refuses: Refuses) -> None:
    card_with(folder, method="tini")
    with refuses("E-MOD-007", 3, folder, match=r"'tini' is not known.*did you mean tiny\?"):
        read_model(folder, "cpu")


@pytest.mark.parametrize("version", [0, 2, 17])
def test_cards_of_other_versions_M11(folder: Path, version: int, refuses: Refuses) -> None:
    card_with(folder, version=version)
    with refuses("E-MOD-011", 2, folder, match=rf"a card of version {version}, expected 1; "):
        read_model(folder, "cpu")
    plan = PLAN.model_dump(mode="json") | {"version": version}
    card_with(folder, version=1, plan=plan)
    with refuses("E-MOD-011", 2, folder, match=rf"a plan of version {version}, expected 1; "):
        read_model(folder, "cpu")


def test_settings_of_another_version_M11(folder: Path, refuses: Refuses) -> None:
    card_with(folder, settings={"width": 3, "depth": 2})
    with refuses("E-MOD-011", 2, folder, match=r"settings that tiny does not take: depth: extra inputs"):
        read_model(folder, "cpu")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "no JSON"),
        (b'{"version": 1', "no JSON"),
        (b"[1, 2]", "a list"),
        (b'{"version": 1, "version": 1}', "a key twice"),
        (b'{"version": 1, "scores": {"dice": NaN}}', "number NaN"),
        (b'{"version": 1, "scores": {"dice": 1e999}}', "number 1e999"),
        (b"[" * 100_000, "brackets too deep"),
        (b"\xff\xfe", "no plain JSON"),
        (b'{"version": 1}', "method: field required"),
        (b" " * (2**24 + 1), "more than 16777216 bytes"),
    ],
    ids=["empty", "cut", "list", "twice", "NaN", "overflow", "deep", "no text", "incomplete", "huge"],
)
def test_cards_that_cannot_be_understood_M11(folder: Path, content: bytes, told: str, refuses: Refuses) -> None:
    (folder / "model.json").write_bytes(content)
    with refuses("E-MOD-008", 3, folder, match=told):
        read_model(folder, "cpu")


def test_what_is_no_model_is_said_to_be_none(folder: Path, refuses: Refuses) -> None:
    with refuses("E-IO-001", 3, folder, match=r"expected a model folder with model.json and model.safetensors"):
        read_model(folder / "nowhere", "cpu")
    with refuses("E-IO-001", 3, folder, match=r"model.json: this is a file, expected a model folder"):
        read_model(folder / "model.json", "cpu")
    (folder / "model.safetensors").unlink()
    with refuses("E-IO-001", 3, folder, match=r"model.safetensors"):
        read_model(folder, "cpu")
