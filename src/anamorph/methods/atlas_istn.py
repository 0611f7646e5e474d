"""Atlas-ISTN: a network segments, another registers what it found to an atlas, which is the mean of the cases so far.

    y_hat       = ITN(x)                                                                       (4)
    v, T        = STN(y_hat, y_a)               channels of the classes c > 0                  (5)
    Phi, Phi^-1 = T o exp(v), exp(-v) o T^-1    networks.spatial_transformer                   (6, 7, 8)

    L_s   = mean over voxels and classes of (y - y_hat)^2                                      (10)
    L_a2s = mean over voxels and classes c > 0 of (y - y_a o Phi^-1)^2                         (11)
    L_s2a = mean over voxels and classes c > 0 of (y o Phi - y_a)^2                            (12)
    L_reg = mean squared forward difference of exp(v), in halves of the image                  (13)
    L     = w_1 L_s + omega (w_2 L_a2s + w_3 L_s2a + lambda L_reg)                             (14)
    omega = 1, or 1 / (1 + exp(-(t - fade_in_epoch) / fade_in_width))                          (24)

    z_a   = mean of z at t = 0, then (1 - eta) z_a + eta (mean of z o Phi)                     (15, 16)
            "unbiased", (1 - eta) z_a + eta (mean of z o Phi) o Phi_mean^-1                    methods.atlas_mean

with x an image, y its labels one-hot and blurred by a Gaussian, z images and labels alike, t the epochs done. A warp
reads the border value outside. The affine map enters after ``affine_from_epoch`` epochs. A segmentation is the atlas
warped to the case, after refinement (``atlas_refinement``) or one pass, or the ITN's own; as probabilities, outputs
are cut off below 0 and divided by their sum.

Source: M. Sinclair et al. (2022), Atlas-ISTN: joint segmentation, registration and atlas construction with
image-and-spatial transformer networks, doi:10.1016/j.media.2022.102383; numbers of equations are the paper's. Units,
layers and limits are those of the release (github.com/biomedia-mira/atlas-istn).

Deviations: docs/methods/atlas_istn.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from anamorph.errors import ConfigurationError
from anamorph.losses import mse
from anamorph.losses.segmentation import one_hot
from anamorph.methods.atlas_istn_settings import (
    SEGMENTATION,
    AtlasISTNSettings,
    AtlasISTNWeights,
    RefinementSettings,
)
from anamorph.methods.atlas_mean import map_parts, mean_map, means_of, sums_of, without_labels
from anamorph.methods.atlas_refinement import Refinement, normalised_smoothness, refine_cases
from anamorph.methods.base import Batch, Domain, Method, MethodSettings, computed
from anamorph.methods.schedule import Augmentation, Schedule
from anamorph.methods.segmentation import (
    ProbabilityBatch,
    check_classes,
    labelled_items,
    probabilities_of_regressed,
)
from anamorph.networks.spatial_transformer import (
    AtlasTransformation,
    SpatialTransformer,
    affine_matrix,
)
from anamorph.networks.unet import StridedUNet
from anamorph.spatial.field import warp
from anamorph.types import ImageBatch

__all__ = [
    "AtlasISTN",
    "AtlasISTNSettings",
    "AtlasISTNWeights",
    "AtlasTransformation",
    "Refinement",
    "RefinementSettings",
]

LabelBatch = Float[Tensor, "batch classes *spatial"]
"""Labels of the background and every class as numbers, regressed, blurred or averaged: B (1 + classes) I J (K)."""
Cases = tuple[LabelBatch, ImageBatch]
"""Labels, blurred, and images of some cases."""
Atlas = tuple[Float[Tensor, "1 classes *spatial"], Float[Tensor, "1 channels *spatial"]]
"""The same of an atlas."""


class AtlasISTN(Method):
    """See the module.

    Args:
        settings: as chosen.
        domain: what is segmented; all modalities go through one network, and into one image of the atlas.

    Raises:
        ConfigurationError: E-MOD-020, the domain has no classes.

    Attributes:
        atlas_labels: y_a, 1 (1 + classes) I J (K), summing to one over the classes; 0 before training.
        atlas_image: x_a, 1 C I J (K).
        epoch: t, epochs done.
    """

    Settings = AtlasISTNSettings
    items = "cases"
    tasks = ("segment",)
    schedule = Schedule(
        epochs=1200,
        batch_size=8,
        learning_rate=1e-3,
        decay="half_life",
        half_life=500.0,
        validate_every=10,
        augmentation=Augmentation(translation=8.0, rotation=15.0, scale=0.1),
    )
    atlas_labels: Tensor
    atlas_image: Tensor
    epoch: Tensor

    def __init__(self, settings: AtlasISTNSettings, domain: Domain) -> None:
        super().__init__(settings, domain)
        check_classes(domain)
        self.chosen = settings
        self.sees_images = settings.stn_input == "images"
        self.image_transformer = None
        if not self.sees_images:
            normalised = not settings.supervised_segmentation
            self.image_transformer = StridedUNet(
                domain.ndim,
                domain.channels,
                1 + domain.classes,
                settings.channels,
                normalised,
                settings.initialisation,
                settings.negative_slope,
            )
        inputs = 2 * (domain.channels if self.sees_images else domain.classes)
        self.spatial_transformer = SpatialTransformer(domain.shape, inputs, settings.stn_channels, settings.stn)
        self.register_buffer("atlas_labels", torch.zeros(1, 1 + domain.classes, *domain.shape))
        self.register_buffer("atlas_image", torch.zeros(1, domain.channels, *domain.shape))
        self.register_buffer("epoch", torch.tensor(0))

    # -- training ------------------------------------------------------------------------------------------------------

    @classmethod
    def out_of_reach(cls, settings: MethodSettings, schedule: Schedule) -> str:
        """The affine map."""
        assert isinstance(settings, AtlasISTNSettings)
        if settings.stn != "full" or settings.affine_from_epoch < schedule.epochs:
            return ""
        begin = f"affine_from_epoch is {settings.affine_from_epoch}"
        return f"{begin}, and there are {schedule.epochs} epochs: no affine map is learnt; lower it, or say stn=svf"

    def networks_of(self, player: str) -> Sequence[nn.Module]:
        """Both networks; without those that no term reaches."""
        deforming = any(name != SEGMENTATION for name in self.chosen.active)
        found = [self.image_transformer, self.spatial_transformer if deforming else None]
        return [network for network in found if network is not None]

    def weights_of(self, player: str) -> Mapping[str, float]:
        """Of the terms that this variant has, multiplied by omega as they are in equation 14."""
        omega = self._omega()
        return {name: weight * (1.0 if name == SEGMENTATION else omega) for name, weight in self.chosen.active.items()}

    def terms(self, batch: Batch, player: str) -> dict[str, Tensor]:
        """Means over the items that have labels; 0 where none has."""
        items, some = labelled_items(batch)
        image, mask, wanted = items["image"], items.get("mask"), self.chosen.active
        truth = one_hot(items["labels"], self.domain.classes, self.chosen.label_smoothing_sigma)
        seen = image if self.sees_images else self.itn(image)
        computed: dict[str, Callable[[], Tensor]] = {SEGMENTATION: lambda: mse(truth, seen, mask)}
        if any(name != SEGMENTATION for name in wanted):
            found, truth_classes = self.transformation(seen), truth[:, 1:]
            atlas = self.atlas_labels[:, 1:].expand_as(truth_classes)
            computed["atlas_to_segmentation"] = lambda: mse(truth_classes, _warped(atlas, found.inverse), mask)
            computed["segmentation_to_atlas"] = lambda: mse(
                atlas,
                _warped(truth_classes, found.forward),
                None if mask is None else warp(mask, found.forward.detach()),
            )
            computed["smoothness"] = lambda: normalised_smoothness(found.local)
        return {name: computed[name]() * some for name in wanted}

    @torch.no_grad()
    def before_training(self, batches: Iterable[Batch]) -> None:
        """The atlas at t = 0: the mean of all labelled cases, or the one case that is fixed.

        Raises:
            InputError: E-TRN-003, no case has labels.
        """
        self.epoch.zero_()
        if self.chosen.atlas == "fixed":
            labels, image = _drawn(map(self._cases, batches), self.chosen.atlas_seed)
        else:
            labels, image = means_of(computed(batches, lambda batch: sums_of(*self._cases(batch))))
        self.atlas_labels.copy_(labels)
        self.atlas_image.copy_(image)

    @torch.no_grad()
    def after_epoch(self, epoch: int, batches: Iterable[Batch]) -> None:
        """Equations 15 and 16; memory does not grow with the number of cases."""
        if self.chosen.atlas == "learnt" and self.chosen.update_rate:
            labels, image, *mean = means_of(computed(batches, lambda batch: sums_of(*self._in_atlas_space(batch))))
            if self.chosen.unbiased:
                back = mean_map(mean, self.domain.shape, self.chosen.squarings).inverse
                labels, image = _warped(labels, back), _warped(image, back)
            self.atlas_labels.lerp_(labels, self.chosen.update_rate)
            self.atlas_image.lerp_(image, self.chosen.update_rate)
        self.epoch.fill_(epoch + 1)

    def template(self) -> Mapping[str, Tensor]:
        """The atlas."""
        return {"image": self.atlas_image, "labels": self.atlas_labels}

    def _omega(self) -> float:
        """Equation 24."""
        if self.chosen.fade_in_epoch is None:
            return 1.0
        exponent = (int(self.epoch) - self.chosen.fade_in_epoch) / self.chosen.fade_in_width
        return 0.5 * (1 + math.tanh(exponent / 2))

    def _cases(self, batch: Batch) -> Cases:
        """Labels, blurred, and images of the labelled cases; there may be none."""
        chosen = batch["labelled"]
        labels = batch["labels"][chosen]
        if not len(labels):
            return self.atlas_labels[:0], self.atlas_image[:0]
        return one_hot(labels, self.domain.classes, self.chosen.label_smoothing_sigma), batch["image"][chosen]

    def _in_atlas_space(self, batch: Batch) -> tuple[Tensor, ...]:
        """Labels and images of the labelled cases, warped to the atlas; if unbiased the parts of their maps, too."""
        labels, image = self._cases(batch)
        if len(labels):
            found = self.one_pass(image)
            labels, image = _warped(labels, found.forward), _warped(image, found.forward)
        else:
            half = labels.new_zeros(0, self.domain.ndim, *self.spatial_transformer.velocity_shape)
            found = AtlasTransformation(half, None, self.domain.shape)
        return (labels, image, *map_parts(found)) if self.chosen.unbiased else (labels, image)

    # -- use -----------------------------------------------------------------------------------------------------------

    def itn(self, image: ImageBatch) -> LabelBatch:
        """y_hat, B (1 + classes) I J (K): regressed one-hot labels, which are no probabilities.

        Raises:
            ConfigurationError: E-MOD-021, the variant has no such network.
        """
        if self.image_transformer is None:
            raise _without_segmentation("it registers images, and has no segmentation network")
        return self.image_transformer(image).float()

    def transformation(self, seen: ImageBatch) -> AtlasTransformation:
        """What the spatial transformer finds in one pass.

        Args:
            seen: outputs of ``itn``, or images where the variant sees those, on the grid of the atlas.

        Raises:
            ValueError: they are on another grid.
        """
        self._check_grid(seen)
        atlas = self.atlas_image if self.sees_images else self.atlas_labels[:, 1:]
        own = seen if self.sees_images else seen[:, 1:]
        return self._maps(*self.spatial_transformer(torch.cat([own, atlas.expand_as(own)], 1)))

    def one_pass(self, image: ImageBatch) -> AtlasTransformation:
        """Equation 9."""
        return self.transformation(image if self.sees_images else self.itn(image))

    def atlas_to_case(self, transformation: AtlasTransformation) -> LabelBatch:
        """y_a o Phi^-1, B (1 + classes) I J (K) (equation 20)."""
        atlas = self.atlas_labels.expand(len(transformation.inverse), *self.atlas_labels.shape[1:])
        return _warped(atlas, transformation.inverse)

    def refine(
        self,
        image: ImageBatch,
        settings: RefinementSettings | None = None,
        progress: Callable[[float], None] | None = None,
    ) -> Refinement:
        """Equations 17 to 21, for each case by itself; the model stays as it is, whatever mode the caller is in.

        Args:
            image: on the grid of the atlas.
            settings: those of the model if absent.
            progress: told the share that is done.

        Raises:
            ConfigurationError: E-MOD-021, the variant has no segmentation to refine by.
        """
        if not self.chosen.segments:
            raise _without_segmentation("its networks were not taught to segment, so there is nothing to refine by")
        chosen = settings or self.chosen.refinement
        with torch.no_grad():  # as many at once as are refined at once: a convolution of more may round otherwise
            logits = torch.cat([self.itn(cases) for cases in image.split(chosen.batch)])
        self._check_grid(logits)
        return refine_cases(self.spatial_transformer, self._maps, logits, self.atlas_labels, chosen, progress)

    def segment(self, image: ImageBatch, modality: str = "") -> ProbabilityBatch:
        """What the setting ``test`` says; ``validation`` while the training validates."""
        answer = self.chosen.validation if self.validating else self.chosen.test
        if answer == "itn":
            return probabilities_of_regressed(self.itn(image))
        found = self.refine(image).transformation if answer == "refine" else self.one_pass(image)
        return probabilities_of_regressed(self.atlas_to_case(found))

    def _maps(self, velocity: Tensor, parameters: Tensor | None) -> AtlasTransformation:
        """Equations 6 to 8, of what the spatial transformer or a refined one finds."""
        matrix = None
        if parameters is not None and (self.chosen.stn == "affine" or self._affine_entered()):
            with torch.autocast(parameters.device.type, enabled=False):
                matrix = affine_matrix(parameters, self.domain.shape, self.domain.spacing)
        return AtlasTransformation(velocity, matrix, self.domain.shape, self.chosen.squarings)

    def _check_grid(self, seen: ImageBatch) -> None:
        if tuple(seen.shape[2:]) != tuple(self.domain.shape):
            raise ValueError(f"images lie on the grid of the atlas {self.domain.shape}, found {tuple(seen.shape[2:])}")

    def _affine_entered(self) -> bool:
        return int(self.epoch) >= self.chosen.affine_from_epoch


def _warped(image: ImageBatch, displacement: Tensor) -> ImageBatch:
    return warp(image, displacement, outside="border")


def _drawn(cases: Iterable[Cases], seed: int) -> Atlas:
    """One case, all being equally likely: the n-th takes the place of the one before with a chance of 1 in n."""
    generator, count, chosen = torch.Generator().manual_seed(seed), 0, None
    for labels, image in cases:
        for item in range(len(labels)):
            count += 1
            if int(torch.randint(count, (), generator=generator)) == 0:
                chosen = labels[item : item + 1].clone(), image[item : item + 1].clone()
    if chosen is None:
        raise without_labels()
    return chosen


def _without_segmentation(found: str) -> ConfigurationError:
    return ConfigurationError("E-MOD-021", found, do="use one_pass")
