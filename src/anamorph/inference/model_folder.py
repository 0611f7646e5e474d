"""A trained model on disk: weights that are nothing but numbers, and a card that says what they are for.

=======================  =================================================================================
``model.safetensors``    every parameter and buffer of the method
``model.json``           the ``ModelCard``, written last; it names the hash of the weights
=======================  =================================================================================

Nothing in a folder is ever executed: pickled weights are refused unopened.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from anamorph.data.files import atomic_write
from anamorph.data.plan import Plan
from anamorph.errors import ConfigurationError, InputError, IntegrityError
from anamorph.inference.model_card import (
    CARD,
    CARD_VERSION,
    WEIGHTS,
    ModelCard,
    first_problem,
    model_name,
    read_card,
    unreadable,
)
from anamorph.inference.register import resolve_device
from anamorph.inference.run_folder import environment
from anamorph.methods import METHODS
from anamorph.methods.base import Domain, Method

MOST_NAMED = 5
"""Parameters that a refusal lists by name."""

PICKLES = (".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".bin")
PICKLED_BYTES = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
"""How files of ``torch.save`` and ``pickle`` begin."""


@dataclass(frozen=True, eq=False)
class Model:
    """A trained method, ready for use.

    Args:
        method: in evaluation mode, on ``device``.
        card: what is known of it.
        device: where it computes.
        name: see ``model_name``.
    """

    method: Method
    card: ModelCard
    device: torch.device
    name: str = ""

    def __repr__(self) -> str:
        return f"Model({self.name or 'unnamed'}, {self.card.method}, {', '.join(self.card.plan.modalities)})"

    @property
    def facts(self) -> dict[str, Any]:
        """What the record of a run says of it."""
        card = self.card
        return {
            "name": self.name,
            "method": card.method,
            "weights_sha256": card.weights_sha256,
            "modalities": [card.modality] if card.modality else list(card.plan.modalities),
            "intended_use": card.intended_use,
            "licence": card.licence,
        }


def domain_of(plan: Plan) -> Domain:
    """What a plan's images look like to a method."""
    return Domain(plan.shape, plan.spacing, plan.channels, len(plan.labels), tuple(plan.modalities))


def windows_of(models: Iterable[Model]) -> dict[str, tuple[float, float]]:
    """Ends of the modalities that models see between two values; of two models that differ, the later's."""
    return {name: ends for model in models for name, ends in model.card.plan.windows.items()}


def write_model(folder: Path, method: Method, method_name: str, plan: Plan, *, facts: Mapping[str, Any]) -> None:
    """Write weights and card, each atomically, in place of an earlier model's.

    Args:
        folder: made where it is not there.
        method: its parameters and buffers are stored.
        method_name: its name in ``METHODS``.
        plan: of the data it was trained on.
        facts: fields of the card by name: ``pairs``, ``modality``, ``spacings``, ``appearance``, ``trained``,
            ``scores``, ``licence``, ``notes``, ``intended_use``. Tuples, paths and NaN are made fit for JSON, paths by
            their names alone.
    """
    # Copies, since safetensors refuses tensors that share their memory.
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in method.state_dict().items()}
    weights = save(tensors, {"format": "pt"})
    card = ModelCard(
        version=CARD_VERSION,
        method=method_name,
        settings=_plain(method.settings.model_dump(mode="json")),
        plan=plan,
        environment={"anamorph": version("anamorph")} | environment(),
        weights_sha256=hashlib.sha256(weights).hexdigest(),
        **_plain(facts),
    )
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_write(folder / WEIGHTS) as part:
        part.write_bytes(weights)
    with atomic_write(folder / CARD) as part:
        part.write_text(json.dumps(card.model_dump(mode="json"), indent=1, allow_nan=False) + "\n", encoding="utf-8")


def read_model(folder: str | Path, device: str = "auto") -> Model:
    """A model for use; its weights are checked before anything is made of them.

    Args:
        folder: as ``write_model`` left it.
        device: "auto" takes a GPU where there is one.

    Raises:
        InputError: E-IO-001, no model there; E-MOD-004, weights of another network; E-MOD-007, a method that is not
            known; E-MOD-008, the card cannot be understood.
        ConfigurationError: E-MOD-011, a card, plan or settings of another version.
        IntegrityError: E-MOD-001, pickled weights; E-MOD-002, a damaged file; E-MOD-003, weights that are not those
            of the card; E-MOD-006, NaN or Inf in them.
    """
    folder = Path(folder)
    chosen = resolve_device(device)
    _refuse_pickle(folder)
    card = read_card(folder)
    method = _method_of(card, folder)
    _load(method, _weights(folder, card), folder)
    return Model(method.to(chosen).eval().requires_grad_(False), card, chosen, model_name(folder))


def _method_of(card: ModelCard, folder: Path) -> Method:
    """The method as it was before training."""
    kind = METHODS.get(card.method)
    if kind is None:
        near = get_close_matches(card.method, METHODS, n=1)
        raise InputError(
            "E-MOD-007",
            f"the method {card.method[:60]!r} is not known",
            file=folder / CARD,
            expected=", ".join(sorted(METHODS)),
            do=f"did you mean {near[0]}?" if near else "update Anamorph",
        )
    try:
        settings = kind.Settings.model_validate(card.settings)
    except ValidationError as error:
        found = f"settings that {card.method} does not take: {first_problem(error)}"
        do = "use the Anamorph that wrote it, or train again"
        raise ConfigurationError("E-MOD-011", found, file=folder / CARD, do=do) from None
    with torch.random.fork_rng(devices=[]):  # initial weights are drawn, and the caller's sequence is none of ours
        return kind(settings, domain_of(card.plan))


def _refuse_pickle(folder: Path) -> None:
    """Say of pickled weights what they are, without opening them."""
    if folder.is_file():
        if folder.suffix.lower() in PICKLES or _is_pickled(folder):
            raise _pickled(folder)
        raise InputError("E-IO-001", "this is a file", file=folder, expected="a model folder")
    weights = folder / WEIGHTS
    if weights.is_file() and _is_pickled(weights):
        raise _pickled(weights)
    if folder.is_dir() and not weights.exists():
        others = sorted(path for path in folder.iterdir() if path.suffix.lower() in PICKLES)
        if others:
            raise _pickled(others[0])


def _pickled(path: Path) -> IntegrityError:
    found = "pickled weights, which could run any code"
    return IntegrityError("E-MOD-001", found, file=path, expected=WEIGHTS, do="never load them; ask for safetensors")


def _is_pickled(path: Path) -> bool:
    """By the first bytes; in a safetensors file they are the length of the header, which fits into the file."""
    try:
        with path.open("rb") as file:
            first, size = file.read(8), path.stat().st_size
    except OSError as error:
        raise unreadable(error, path) from error
    return first.startswith(PICKLED_BYTES) and int.from_bytes(first, "little") > size


def _weights(folder: Path, card: ModelCard) -> dict[str, Tensor]:
    """The tensors of the file whose hash the card names; the bytes that are hashed are those that are used."""
    path = folder / WEIGHTS
    try:
        content = path.read_bytes()
    except OSError as error:
        raise unreadable(error, path) from error
    try:
        tensors = load(content)
    except (SafetensorError, ValueError, KeyError, OverflowError) as error:
        found = f"damaged, cut off or not safetensors ({str(error)[:120]})"
        raise IntegrityError("E-MOD-002", found, file=path, do="copy the folder again") from None
    digest = hashlib.sha256(content).hexdigest()
    if digest != card.weights_sha256:
        found = f"sha256 {digest[:12]}..., {CARD} names {card.weights_sha256[:12]}..."
        raise IntegrityError("E-MOD-003", found, file=path, expected="the weights of this card", do="copy it again")
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise IntegrityError("E-MOD-006", f"NaN or Inf in {name}", file=path, do="train the model again")
    return tensors


def _load(method: Method, tensors: Mapping[str, Tensor], folder: Path) -> None:
    wanted = method.state_dict()
    problems = [f"{name} is missing" for name in wanted if name not in tensors]
    problems += [f"{name} is not of this network" for name in tensors if name not in wanted]
    problems += [
        f"{name} is {_kind(tensor)}, not {_kind(wanted[name])}"
        for name, tensor in tensors.items()
        if name in wanted and _kind(tensor) != _kind(wanted[name])
    ]
    if problems:
        more = f" and {len(problems) - MOST_NAMED} more" if len(problems) > MOST_NAMED else ""
        raise InputError(
            "E-MOD-004",
            f"{len(problems)} tensors do not fit: {', '.join(problems[:MOST_NAMED])}{more}",
            file=folder / WEIGHTS,
            expected="the weights of the card's method and settings",
        )
    method.load_state_dict(dict(tensors))


def _kind(tensor: Tensor) -> str:
    shape = " x ".join(map(str, tensor.shape)) or "one number"
    return f"{str(tensor.dtype).removeprefix('torch.')} {shape}"


def _plain(value: Any) -> Any:
    """Facts as JSON has them."""
    if isinstance(value, BaseModel):
        return _plain(value.model_dump(mode="json"))
    if isinstance(value, Mapping):
        return {str(name): _plain(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(part) for part in value]
    if isinstance(value, Path):
        return value.name
    if hasattr(value, "item"):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
