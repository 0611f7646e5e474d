"""Settings of LocalNet, and the networks that methods make of them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from anamorph.methods.base import Domain, MethodSettings
from anamorph.methods.registration import Count
from anamorph.networks.local_net import LocalNet, LocalNetRegistration, Normalisation


class LocalNetArchitecture(MethodSettings):
    """What any LocalNet has."""

    channels: Count = 4
    """Features of the finest scale, doubled at each next one."""
    scales: Annotated[int, Field(ge=2)] = 5
    """How many there are; each halves the one before it."""
    normalisation: Normalisation = "batch"
    """Over the batch, or of each item by itself (instance)."""


class LocalNetRegistrationArchitecture(LocalNetArchitecture):
    """One that registers."""

    direction: Literal["both", "single"] = "both"
    """Whether the network finds the way back as well: a second set of heads."""
    attention: bool = True
    """Whether skips pass an attention gate."""
    velocity: bool = False
    """Whether the network finds velocities, integrated so that nothing folds, or displacements."""
    squarings: Annotated[int, Field(ge=1, le=12)] = 7
    """Of the integration."""


def registration_backbone(settings: LocalNetRegistrationArchitecture, domain: Domain) -> LocalNet:
    """Both images in, a field for each direction out; weights as they are drawn."""
    outputs = [domain.ndim] * (2 if settings.direction == "both" else 1)
    return LocalNet(
        domain.ndim,
        2 * domain.channels,
        outputs,
        settings.channels,
        settings.scales,
        attention=settings.attention,
        normalisation=settings.normalisation,
    )


def squarings_of(settings: LocalNetRegistrationArchitecture) -> int | None:
    """None where the network finds displacements."""
    return settings.squarings if settings.velocity else None


def local_net_registration(settings: LocalNetRegistrationArchitecture, domain: Domain) -> LocalNetRegistration:
    """The network, with weights as they are drawn; those of ``biregnet`` fit it."""
    return LocalNetRegistration(registration_backbone(settings, domain), squarings_of(settings))
