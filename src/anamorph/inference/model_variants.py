"""A trained model used otherwise than it was trained: other settings at test time, or networks of another training.

Nothing is written: a variant is a model in memory, with a card and a digest of its own.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from pydantic import ValidationError
from torch import nn

from anamorph.data.configuration import merged
from anamorph.errors import ConfigurationError
from anamorph.inference.model_card import first_problem
from anamorph.inference.model_folder import Model, domain_of
from anamorph.methods.base import Method, MethodSettings

INITIAL = "initial"
"""In place of another model's network: weights as they are drawn before a training."""
SEED = 0
"""Of those weights."""
ZERO = "zero"
"""Likewise: weights of 0. A spatial transformer then moves nothing, so that one pass gives the atlas as it is."""


def with_settings(model: Model, changes: Mapping[str, Any]) -> Model:
    """The same weights under other settings, such as those of a refinement.

    Args:
        model: trained.
        changes: nested as in the settings of its method, as far as they differ.

    Raises:
        ConfigurationError: E-EVA-014, the method does not take them; E-EVA-015, they are those of another network.
    """
    settings = changed_settings(model.method.settings, changes)
    method, trained = _drawn(model, settings), model.method
    give_weights(method, trained, ", ".join(changes))
    card = model.card.model_copy(update={"settings": settings.model_dump(mode="json")})
    return replace(model, method=method.to(model.device).eval().requires_grad_(False), card=card)


def changed_settings(settings: MethodSettings, changes: Mapping[str, Any]) -> MethodSettings:
    """Settings with changes, checked.

    Raises:
        ConfigurationError: E-EVA-014.
    """
    try:
        return type(settings).model_validate(merged(settings.model_dump(mode="json"), changes))
    except ValidationError as error:
        found = f"settings at test time that do not fit: {first_problem(error)}"
        raise ConfigurationError("E-EVA-014", found, expected="some of the method's own") from None


def with_networks(model: Model, parts: Mapping[str, str], others: Mapping[str, Model]) -> Model:
    """The same with some of its networks replaced.

    Args:
        model: trained; it stays as it is.
        parts: network of its method -> ``MODEL.NETWORK`` of another model, "initial" for one before training, or "zero"
            for one whose weights are 0.
        others: models by the names in ``parts``.

    Raises:
        ConfigurationError: E-EVA-015, there is no such network, or it is of another shape.
    """
    method = copy.deepcopy(model.method)
    digest = hashlib.sha256(model.card.weights_sha256.encode())
    for name, source in parts.items():
        other, _, path = source.partition(".")
        if source in (INITIAL, ZERO):
            given = network_of(_drawn(model, model.method.settings), name)
            if source == ZERO:
                given.load_state_dict({key: torch.zeros_like(tensor) for key, tensor in given.state_dict().items()})
        elif other in others:
            given = network_of(others[other].method, path)
            digest.update(others[other].card.weights_sha256.encode())
        else:
            raise _unfit(f"no model {other!r}", f"{', '.join(others)}, {INITIAL} or {ZERO}")
        give_weights(network_of(method, name), given, f"{name} from {source}")
        digest.update(f"{name} {source}".encode())
    card = model.card.model_copy(update={"weights_sha256": digest.hexdigest()})
    return replace(model, method=method.to(model.device).eval().requires_grad_(False), card=card)


def _drawn(model: Model, settings: MethodSettings) -> Method:
    """The method of a model before training; the caller's sequence of random numbers is none of ours."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        return type(model.method)(settings, domain_of(model.card.plan))


def network_of(method: Method, name: str) -> nn.Module:
    """A network of a method, as registration or segmentation.ct; all of it for an empty name.

    Raises:
        ConfigurationError: E-EVA-015, there is none of that name.
    """
    found: nn.Module = method
    for word in name.split(".") if name else ():
        known = dict(found.named_children())
        if word not in known:
            raise _unfit(f"no network {name!r} in {type(method).__name__}", ", ".join(known))
        found = known[word]
    return found


def give_weights(target: nn.Module, source: nn.Module, what: str) -> None:
    """Weights and buffers from one into the other.

    Raises:
        ConfigurationError: E-EVA-015, they do not fit.
    """
    wanted, given = ({name: tensor.shape for name, tensor in of.state_dict().items()} for of in (target, source))
    if wanted != given:
        raise _unfit(f"weights that do not fit ({what})", "a change that leaves the networks as they are")
    target.load_state_dict(source.state_dict())


def _unfit(found: str, expected: str) -> ConfigurationError:
    return ConfigurationError("E-EVA-015", found, expected=expected)
