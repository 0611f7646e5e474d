"""What can be decided about Atlas-ISTN: its networks, its objective, its atlas, its variants and its refinement."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from anamorph.methods.base import MethodSettings, TermWeights, Weight
from anamorph.networks.spatial_transformer import Deformations
from anamorph.networks.unet import Initialisation

Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0)]
Channels = Annotated[tuple[Count, ...], Field(min_length=1)]
Answer = Literal["refine", "one_pass", "itn"]
"""What ``segment`` gives: the atlas after refinement, the atlas after one pass, or the segmentation network's own."""

SEGMENTATION, SMOOTHNESS = "segmentation", "smoothness"


class AtlasISTNWeights(TermWeights):
    """Weights of the terms; 0 leaves one out. All but the first are further multiplied by the fade-in."""

    segmentation: Weight = 1.0
    """Of L_s: the segmentation network's outputs."""
    atlas_to_segmentation: Weight = 1.0
    """Of L_a2s: the atlas, warped to the case."""
    segmentation_to_atlas: Weight = 1.0
    """Of L_s2a: the case's labels, warped to the atlas."""
    smoothness: Weight = 800.0
    """lambda, of L_reg; 500 for the paper's brains and the release's letters."""


class RefinementSettings(MethodSettings):
    """Settings of the refinement of cases, each by itself."""

    iterations: Annotated[int, Field(ge=0)] = 100
    """K, steps at most; 50 for the paper's brains and the release's letters."""
    atlas_to_segmentation: Weight = 1.0
    """beta*."""
    segmentation_to_atlas: Weight = 0.0
    """gamma*."""
    smoothness: Weight = 800.0
    """lambda*."""
    learning_rate: Positive = 1e-3
    """Of Adam."""
    tolerance: Annotated[float, Field(ge=0, lt=1)] = 1e-3
    """It has converged when the last ``patience`` steps lowered the objective by less than this share; 0: never."""
    patience: Count = 20
    """See there."""
    batch: Count = 1
    """Cases refined at a time. Alone, no other case changes a bit of one; several are faster together, on a GPU above
    all, take as many times the memory, and may round otherwise."""

    @model_validator(mode="after")
    def _check(self) -> RefinementSettings:
        if not self.atlas_to_segmentation and not self.segmentation_to_atlas:
            raise ValueError("atlas_to_segmentation or segmentation_to_atlas is above 0")
        return self


class AtlasISTNSettings(MethodSettings):
    """Settings of ``AtlasISTN``."""

    channels: Channels = (8, 16, 32, 64)
    """Of the segmentation network at each scale; the paper's brains have one scale fewer."""
    initialisation: Initialisation = "torch"
    """Of that network's weights. torch: as the release's. he: fewer rectifiers shut for good in the first steps."""
    negative_slope: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Of that network's rectifiers below zero; above 0, as 0.1, none shuts for good. Not in the paper."""
    stn_channels: Channels = (16, 16, 32)
    """Of the spatial transformer at 1/2, 1/4, ...; one more 32 is the release's second version."""
    stn: Deformations = "full"
    """full; svf: velocities alone, for cases that are aligned; affine: no velocities."""
    stn_input: Literal["labels", "images"] = "labels"
    """labels: outputs of the segmentation network and labels of the atlas. images: image and image of the atlas, and no
    segmentation network ("VML")."""
    supervised_segmentation: bool = True
    """False: no L_s, and batch normalisation in the segmentation network ("Atlas-ISTN without L_s")."""
    squarings: Annotated[int, Field(ge=1, le=12)] = 6
    """Of the integration."""
    affine_from_epoch: Annotated[int, Field(ge=0)] = 200
    """Epochs before the affine map enters, of stn full; without it nothing waits for them."""
    fade_in_epoch: Annotated[float, Field(ge=0)] | None = None
    """Epoch at which omega is one half; if absent it is 1 throughout."""
    fade_in_width: Positive = 25.0
    """Epochs in which its odds grow e-fold."""
    label_smoothing_sigma: Annotated[float, Field(ge=0)] = 0.5
    """Of the Gaussian that blurs labels, in voxels."""
    atlas: Literal["learnt", "fixed"] = "learnt"
    """learnt: the mean of the cases. fixed: one of them, drawn by ``atlas_seed``."""
    update_rate: Annotated[float, Field(ge=0, le=1)] = 0.01
    """eta, of a learnt atlas at the end of each epoch."""
    unbiased: bool = False
    """Take the mean map of the cases out of what a learnt atlas is updated by, so that it comes to lie in the middle of
    the cases wherever it began. Not in the paper."""
    atlas_seed: Annotated[int, Field(ge=0)] = 0
    """Of a fixed atlas."""
    weights: AtlasISTNWeights = AtlasISTNWeights()
    """Of the terms."""
    test: Annotated[Answer | None, Field(validate_default=True)] = None
    """What a segmentation is; if absent refine, or one_pass where no segmentation is learnt."""
    validation: Annotated[Answer | None, Field(validate_default=True)] = None
    """The same during training; if absent one_pass, or itn where no deformation is learnt."""
    refinement: RefinementSettings = RefinementSettings()
    """At test time."""

    @field_validator("test", "validation")
    @classmethod
    def _chosen(cls, answer: Answer | None, info: Any) -> Answer | None:
        """Spelled out, so that what is saved says what was done."""
        if answer is not None or not {"stn", "stn_input", "supervised_segmentation", "weights"} <= info.data.keys():
            return answer
        if info.field_name == "test":
            return "refine" if _segments(info.data) else "one_pass"
        return "one_pass" if any(name != SEGMENTATION for name in _active(info.data)) else "itn"

    @model_validator(mode="after")
    def _check(self) -> AtlasISTNSettings:
        if self.stn_input == "images" and not self.supervised_segmentation:
            raise ValueError("stn_input images has no segmentation network to supervise or not")
        if not self.active:
            raise ValueError("at least one term of this variant has a weight above 0")
        if self.unbiased and (self.atlas != "learnt" or not self.update_rate):
            raise ValueError("unbiased is about an atlas that is learnt, with an update_rate above 0")
        if not self.segments and {self.test, self.validation} != {"one_pass"}:
            raise ValueError("without a segmentation network that learns from labels, test and validation are one_pass")
        for why, name in self._idle():
            raise ValueError(f"{name} would do nothing {why}")
        return self

    def _idle(self) -> Iterator[tuple[str, str]]:
        """Settings that were chosen and that this variant has no use for: why, and which."""
        usual = {name: field.default for name, field in type(self).model_fields.items()}
        unused = {
            "without fade_in_epoch": () if self.fade_in_epoch is not None else ("fade_in_width",),
            "with a fixed atlas": () if self.atlas == "learnt" else ("update_rate",),
            "with a learnt atlas": () if self.atlas == "fixed" else ("atlas_seed",),
            "without a segmentation network that learns from labels": () if self.segments else ("refinement",),
            "without a segmentation network": () if self.stn_input == "labels" else ("negative_slope",),
        }
        for why, names in unused.items():
            yield from ((why, name) for name in names if getattr(self, name) != usual[name])
        if self.stn == "affine":
            for name in ("weights", "refinement"):
                if getattr(self, name).smoothness != usual[name].smoothness:
                    yield "with stn affine, which has no velocities", f"{name}.smoothness"

    @property
    def segments(self) -> bool:
        """Whether there is a segmentation network that learns from labels."""
        return _segments(dict(self))

    @property
    def active(self) -> dict[str, float]:
        """Weights of the terms that the variant has, without the fade-in."""
        return _active(dict(self))


def _segments(fields: dict[str, Any]) -> bool:
    supervised = fields["stn_input"] == "labels" and fields["supervised_segmentation"]
    return bool(supervised and fields["weights"].segmentation)


def _active(fields: dict[str, Any]) -> dict[str, float]:
    absent = set() if _segments(fields) else {SEGMENTATION}
    if fields["stn"] == "affine":
        absent.add(SMOOTHNESS)
    return {name: weight for name, weight in fields["weights"] if weight and name not in absent}
