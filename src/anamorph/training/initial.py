"""Where a training begins: networks of the method with the weights of trained models."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from anamorph.inference.model_folder import read_model
from anamorph.inference.model_variants import give_weights, network_of
from anamorph.methods.base import Method
from anamorph.training.configuration import InitialNetwork


def begin_with(method: Method, initial: Mapping[str, InitialNetwork]) -> dict[str, str]:
    """Give networks of a method the weights of others.

    Args:
        method: before its training.
        initial: network of the method -> whose weights it gets.

    Returns:
        Network -> digest of the model that it comes from, and its name there; for the card.

    Raises:
        ConfigurationError: E-EVA-015, there is no such network, or it is of another shape.
        AnamorphError: as ``read_model``.
    """
    found = {}
    for name, source in initial.items():
        with torch.random.fork_rng(devices=[]):  # a model draws weights before it is given those of the file
            model = read_model(source.model, "cpu")
        given = network_of(model.method, source.network)
        give_weights(network_of(method, name), given, f"{name or 'all'} from {source.model}")
        found[name] = f"{model.card.weights_sha256[:16]} {source.network}".strip()
    return found
