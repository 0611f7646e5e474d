"""Some registration network and some segmentation network: which, and how one is made.

A method that joins networks of other papers holds a choice among its settings and asks for the network:

    registration: RegistrationChoice = LapIRNNetworkSettings(attention=True)          # of pydantic settings
    segmentation: SegmentationChoice = DynUNetNetworkSettings(squeeze_excitation="max")

    network = registration_network(settings.registration, domain)                     # RegistrationNetwork
    found = network.deformation(fixed, moving)                                        # Deformation, with gradient
    smoothness = diffusion(network.regularised(found))

    network = segmentation_network(settings.segmentation, domain)                     # SegmentationNetwork
    finest, *coarser = network.logits(image)                                          # each B (1 + classes) I J (K)
    weights = supervision_weights(1 + len(coarser))                                   # of networks.dynunet

``found.displacement`` is on the images' grid, in its voxels; ``found.velocity`` too, where there is one, and
``exponential(found.velocity, found.squarings)`` is ``found.displacement``. Of LapIRN all levels take part and learn:
training level by level is a matter of the method ``lapirn``. Logits are as precise as they were computed, so half under
mixed precision; there are several in training mode and with deep supervision, else one.

In YAML ``registration: {kind: voxelmorph, encoder: [8, 8], decoder: [8, 8, 8]}``; without a kind it is ``lapirn``, and
of segmentations ``dynunet``. The methods ``lapirn``, ``voxelmorph``, ``dynunet`` and ``unet`` have the same settings
without the kind (``LapIRNArchitecture`` ...), and the same networks: ``state_dict`` of what ``registration_network``
makes is that of ``network`` of ``lapirn``, and of ``backbone`` and ``head`` of ``voxelmorph``, under those names; of
what ``segmentation_network`` makes, that of ``network`` of ``dynunet`` and ``unet``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from anamorph.methods.base import Domain, MethodSettings
from anamorph.methods.registration import Count, Positive
from anamorph.networks.deformation import RegistrationNetwork
from anamorph.networks.dynunet import DynamicUNet, plan_stages
from anamorph.networks.lapirn import LaplacianPyramid
from anamorph.networks.registration_unet import Down, VoxelMorphNetwork, scales_below
from anamorph.networks.segmentation import SegmentationNetwork
from anamorph.networks.squeeze_excitation import Combination
from anamorph.networks.unet import Initialisation, StridedUNet

Features = Annotated[tuple[Count, ...], Field(min_length=1)]


class LapIRNArchitecture(MethodSettings):
    """The networks of LapIRN."""

    diffeomorphic: bool = True
    """Whether the network finds velocities, or displacements."""
    channels: Count = 7
    """A quarter of the features of every layer."""
    range_flow: Positive = 0.4
    """The farthest that one level moves a point along an axis, in halves of the image's extent."""
    squarings: Annotated[int, Field(ge=1, le=12)] = 7
    """Of the integration."""
    attention: bool = False
    """Whether each level's skip connection passes an attention gate, as in macJNet."""


class VoxelMorphArchitecture(MethodSettings):
    """The network of VoxelMorph."""

    encoder: Features = (16, 32, 32, 32)
    """Features of the U-Net, fine to coarse."""
    decoder: Features = (32, 32, 32, 32, 32, 16, 16)
    """Features on the way back; those beyond the scales work at full resolution."""
    down: Down = "pool"
    """pool: max-pooling after each convolution of the encoder. stride: its convolutions but the first halve."""
    diffeomorphic: bool = True
    """Whether the network finds a velocity, integrated on half the grid, or the displacement itself."""
    squarings: Annotated[int, Field(ge=1, le=12)] = 7
    """Of the integration."""

    @model_validator(mode="after")
    def _check(self) -> VoxelMorphArchitecture:
        scales = scales_below(self.encoder, self.down)
        if len(self.decoder) < scales:
            raise ValueError(f"decoder has {len(self.decoder)} entries for the {scales} scales of the encoder")
        return self


class DynUNetArchitecture(MethodSettings):
    """The network of nnU-Net."""

    features: Annotated[int, Field(ge=1)] = 32
    """Channels of the finest stage, doubled at each next one; 30 in the first nnU-Net."""
    most_features: Annotated[int, Field(ge=1)] = 320
    """The limit to that."""
    deep_supervision: bool = True
    """Whether coarser stages are supervised as well."""
    squeeze_excitation: Combination | None = None
    """Whether each decoding stage ends with scSE, as in macJNet, and how its two halves are joined."""


class UNetArchitecture(MethodSettings):
    """The segmentation network of Atlas-ISTN."""

    channels: Features = (8, 16, 32, 64)
    """Channels at each scale, from fine to coarse; the paper's brains have one scale fewer."""
    initialisation: Initialisation = "torch"
    """How weights begin. torch: as the release's. he: fewer rectifiers shut for good in the first steps."""
    negative_slope: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Of the rectifiers below zero; above 0, as 0.1, none shuts for good. Not in the paper."""


class LapIRNNetworkSettings(LapIRNArchitecture):
    """LapIRN's, as a choice."""

    kind: Literal["lapirn"] = "lapirn"
    """Which network."""


class VoxelMorphNetworkSettings(VoxelMorphArchitecture):
    """VoxelMorph's, as a choice."""

    kind: Literal["voxelmorph"] = "voxelmorph"
    """Which network."""


class DynUNetNetworkSettings(DynUNetArchitecture):
    """nnU-Net's, as a choice."""

    kind: Literal["dynunet"] = "dynunet"
    """Which network."""


class UNetNetworkSettings(UNetArchitecture):
    """The one of Atlas-ISTN, as a choice."""

    kind: Literal["unet"] = "unet"
    """Which network."""


def _kind(usual: str) -> Callable[[Any], str]:
    """Of given values, as a YAML file has them, or of settings."""
    return lambda value: str(value.get("kind", usual) if isinstance(value, Mapping) else getattr(value, "kind", ""))


RegistrationChoice = Annotated[
    Annotated[LapIRNNetworkSettings, Tag("lapirn")] | Annotated[VoxelMorphNetworkSettings, Tag("voxelmorph")],
    Discriminator(_kind("lapirn"), "network_kind", "a network of kind lapirn or voxelmorph"),
]
"""A registration network and its settings."""

SegmentationChoice = Annotated[
    Annotated[DynUNetNetworkSettings, Tag("dynunet")] | Annotated[UNetNetworkSettings, Tag("unet")],
    Discriminator(_kind("dynunet"), "network_kind", "a network of kind dynunet or unet"),
]
"""A segmentation network and its settings."""


def registration_network(settings: LapIRNArchitecture | VoxelMorphArchitecture, domain: Domain) -> RegistrationNetwork:
    """The network chosen, with weights as they are drawn."""
    if isinstance(settings, LapIRNArchitecture):
        return lapirn_network(settings, domain)
    return voxelmorph_network(settings, domain)


def segmentation_network(settings: DynUNetArchitecture | UNetArchitecture, domain: Domain) -> SegmentationNetwork:
    """The network chosen, with weights as they are drawn; its outputs are the background and every class."""
    if isinstance(settings, DynUNetArchitecture):
        return dynunet_network(settings, domain)
    return unet_network(settings, domain)


def lapirn_network(settings: LapIRNArchitecture, domain: Domain) -> LaplacianPyramid:
    """Three levels."""
    squarings = settings.squarings if settings.diffeomorphic else None
    width = 4 * settings.channels
    return LaplacianPyramid(
        domain.ndim, domain.channels, width, settings.range_flow, squarings, attention=settings.attention
    )


def voxelmorph_network(settings: VoxelMorphArchitecture, domain: Domain) -> VoxelMorphNetwork:
    """U-Net and head."""
    squarings = settings.squarings if settings.diffeomorphic else None
    return VoxelMorphNetwork(domain.ndim, domain.channels, settings.encoder, settings.decoder, settings.down, squarings)


def dynunet_network(settings: DynUNetArchitecture, domain: Domain) -> DynamicUNet:
    """The domain's shape and spacing decide its stages."""
    return DynamicUNet(
        domain.channels,
        1 + domain.classes,
        plan_stages(domain.shape, domain.spacing),
        settings.features,
        settings.most_features,
        settings.deep_supervision,
        settings.squeeze_excitation,
    )


def unet_network(settings: UNetArchitecture, domain: Domain) -> StridedUNet:
    """As many scales as there are channels."""
    return StridedUNet(
        domain.ndim,
        domain.channels,
        1 + domain.classes,
        settings.channels,
        initialisation=settings.initialisation,
        negative_slope=settings.negative_slope,
    )
