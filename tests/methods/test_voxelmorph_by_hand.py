"""VoxelMorph's equations on fields and images that can be followed with a pencil."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from anamorph.errors import ConfigurationError
from anamorph.methods.base import Domain
from anamorph.methods.voxelmorph import VoxelMorph, VoxelMorphSettings
from anamorph.spatial.field import compose, exponential

SMALL = {"encoder": (2, 2), "decoder": (2, 2, 2)}


def method_of(shape: tuple[int, ...], classes: int = 0, **settings: Any) -> VoxelMorph:
    domain = Domain(shape, (1.0,) * len(shape), classes=classes)
    return VoxelMorph(VoxelMorphSettings.model_validate(SMALL | settings), domain)


class Always(nn.Module):
    """A head that says the same whatever it sees."""

    def __init__(self, flow: Tensor) -> None:
        super().__init__()
        self.flow = nn.Parameter(flow)

    def forward(self, features: Tensor) -> Tensor:
        return self.flow.expand(len(features), *self.flow.shape[1:])


def finding(flow: Tensor, classes: int = 0, **settings: Any) -> VoxelMorph:
    """A method that finds ``flow`` (1 d I J (K))."""
    method = method_of(tuple(flow.shape[2:]), classes, **settings)
    method.add_module("head", Always(flow))
    return method


def constant(shape: tuple[int, ...], *components: float) -> Tensor:
    return torch.tensor(components).view(1, -1, *[1] * len(shape)).expand(1, -1, *shape).clone()


def waves(shape: tuple[int, ...], size: float) -> Tensor:
    """A smooth flow that fades out at the border."""
    axes = torch.meshgrid(*(torch.linspace(0, torch.pi, n) for n in shape), indexing="ij")
    inside = torch.stack([axis.sin() for axis in axes]).prod(0)
    return size * torch.stack([inside * (axis + number).cos() for number, axis in enumerate(axes)])[None]


@pytest.mark.parametrize("diffeomorphic", [True, False])
@pytest.mark.parametrize(("shape", "shift"), [((9, 12), (2.0, -1.0)), ((8, 7, 6), (2.0, -1.0, 1.0))])
def test_a_constant_flow_shifts_the_moving_image(shape, shift, diffeomorphic, generator) -> None:
    method = finding(constant(shape, *shift), diffeomorphic=diffeomorphic, similarity="mse")
    fixed, moving = torch.rand(2, 1, 1, *shape, generator=generator)
    terms = method.terms({"fixed": fixed, "moving": moving}, "network")
    warped = torch.zeros_like(moving)
    here = tuple(slice(max(0, -int(s)), n - max(0, int(s))) for s, n in zip(shift, shape, strict=True))
    there = tuple(slice(max(0, int(s)), n + min(0, int(s))) for s, n in zip(shift, shape, strict=True))
    warped[(0, 0, *here)] = moving[(0, 0, *there)]
    torch.testing.assert_close(terms["similarity"], (fixed - warped).square().mean())
    assert terms["smoothness"].item() == pytest.approx(0, abs=1e-10)
    found = method.register(fixed, moving)
    torch.testing.assert_close(found.displacement, constant(shape, *shift))
    assert (found.velocity is not None) == diffeomorphic


def test_smoothness_of_a_displacement_is_the_mean_over_axes_of_its_squared_differences(generator) -> None:
    flow = torch.rand(1, 2, 4, 5, generator=generator)
    terms = finding(flow, diffeomorphic=False).terms({"fixed": flow[:, :1], "moving": flow[:, 1:]}, "network")
    down = (
        sum((flow[0, c, i + 1, j] - flow[0, c, i, j]) ** 2 for c in range(2) for i in range(3) for j in range(5)) / 30
    )
    right = (
        sum((flow[0, c, i, j + 1] - flow[0, c, i, j]) ** 2 for c in range(2) for i in range(4) for j in range(4)) / 32
    )
    torch.testing.assert_close(terms["smoothness"], (down + right) / 2)


def test_smoothness_of_a_velocity_is_doubled_and_taken_on_half_the_grid() -> None:
    # 4 voxels 0 1 2 3 along the first axis: on the half grid 0.5 and 2.5, in its voxels 0.25 and 1.25. One difference
    # of 1 in one of two components: mean 1/2 along that axis, 0 along the other, 1/4 in all, twice that.
    flow = torch.zeros(1, 2, 4, 6)
    flow[0, 0] = torch.arange(4.0)[:, None]
    terms = finding(flow).terms({"fixed": torch.rand(1, 1, 4, 6), "moving": torch.rand(1, 1, 4, 6)}, "network")
    assert terms["smoothness"].item() == pytest.approx(0.5)


@pytest.mark.parametrize("shape", [(24, 21), (18, 21, 20)])
def test_what_is_registered_is_a_flow_and_near_to_what_was_trained(shape) -> None:
    method = finding(waves(shape, 2.0))
    images = torch.zeros(2, 1, 1, *shape)
    found = method.register(*images)
    assert found.velocity is not None
    torch.testing.assert_close(found.displacement, exponential(found.velocity, found.squarings))
    _, trained = method._integrated(method._flow(*images))
    assert (found.displacement - trained).abs().amax().item() < 0.1
    assert found.displacement.abs().amax().item() > 1
    back = compose(exponential(-found.velocity), found.displacement)
    inside = (slice(None), slice(None), *[slice(3, -3)] * len(shape))
    assert back[inside].abs().amax().item() < 0.05


def test_overlap_is_the_dice_of_shifted_labels_over_the_whole_batch() -> None:
    labels = torch.zeros(2, 1, 8, 8, dtype=torch.int64)
    labels[:, :, 2:4, 2:4] = 1
    labels[:, :, 5:7, 2:4] = 2
    method = finding(constant((8, 8), 1.0, 0.0), 2, diffeomorphic=False, weights={"overlap": 1.0})
    image = torch.rand(2, 1, 8, 8)
    batch = {"fixed": image, "moving": image, "fixed_labels": labels, "moving_labels": labels}
    # Each label is 2 x 2 voxels and lands one row off: half of it is shared, a Dice of 1/2.
    for fixed, moving, expected in [((1, 1), (1, 1), 0.5), ((1, 1), (0, 1), 0.25), ((1, 0), (0, 1), 0.0)]:
        known = {"fixed_labelled": torch.tensor(fixed).bool(), "moving_labelled": torch.tensor(moving).bool()}
        terms = method.terms(batch | known, "network")
        assert terms["overlap"].item() == pytest.approx(expected, abs=1e-5)
        assert terms["overlap"].requires_grad


def test_masks_say_where_the_images_are_compared() -> None:
    shape = (6, 6)
    fixed, moving = torch.zeros(1, 1, *shape), torch.zeros(1, 1, *shape)
    fixed[:, :, 0], moving[:, :, 5] = 1, 1
    mask = torch.ones(1, 1, *shape)
    mask[:, :, 0] = 0
    method = finding(constant(shape, 1.0, 0.0), diffeomorphic=False, similarity="mse")
    # Warped, the bright row 5 is row 4, and row 5 lies outside: black.
    plain = method.terms({"fixed": fixed, "moving": moving}, "network")
    assert plain["similarity"].item() == pytest.approx(2 / 6)
    masked = method.terms({"fixed": fixed, "moving": moving, "fixed_mask": mask}, "network")
    assert masked["similarity"].item() == pytest.approx(1 / 5)
    # A moving mask moves along: without row 5 of the moving image row 4 counts no more, and row 5 is outside.
    masked = method.terms({"fixed": fixed, "moving": moving, "moving_mask": mask.flip(2)}, "network")
    assert masked["similarity"].item() == pytest.approx(1 / 4)


@pytest.mark.parametrize("similarity", ["mi", "nmi", "local_mi"])
def test_histograms_span_what_the_moving_image_holds(similarity: str, generator) -> None:
    # Where outside is black and the image is not, the warped extremes would stretch the bins of that item.
    shape = (16, 16)
    fixed = torch.rand(2, 1, *shape, generator=generator) + torch.tensor([1.0, 50.0]).view(2, 1, 1, 1)
    still, moved = (
        finding(constant(shape, shift, 0.0), diffeomorphic=False, similarity=similarity) for shift in (0.0, 1.0)
    )
    inside = torch.ones(2, 1, *shape)
    batch = {"fixed": fixed, "moving": fixed, "fixed_mask": inside, "moving_mask": inside}
    assert still.terms(batch, "network")["similarity"].item() < 0.01
    there = batch | {"moving": fixed.roll(1, 2)}
    aligned = moved.terms(there, "network")["similarity"]
    assert aligned.item() < 0.01
    apart = [moved.terms({k: v[[i]] for k, v in there.items()}, "network")["similarity"] for i in range(2)]
    torch.testing.assert_close(aligned, torch.stack(apart).mean())


def test_fields_are_not_rounded_to_half_precision() -> None:
    method = method_of((16, 16))
    image = torch.rand(1, 1, 16, 16)
    with torch.autocast("cpu", torch.bfloat16):
        assert method.backbone(torch.cat([image, image], 1)).dtype == torch.bfloat16
        assert method.register(image, image).displacement.dtype == torch.float32
        assert all(
            term.dtype == torch.float32 for term in method.terms({"fixed": image, "moving": image}, "network").values()
        )


def test_settings_that_do_not_fit() -> None:
    with pytest.raises(ValidationError, match="decoder has 3 entries for the 4 scales"):
        VoxelMorphSettings(decoder=(8, 8, 8))
    with pytest.raises(ValidationError, match="an odd number"):
        VoxelMorphSettings(window=4)
    with pytest.raises(ValidationError, match="at least one weight is above 0"):
        VoxelMorphSettings.model_validate({"weights": {"similarity": 0, "smoothness": 0}})
    with pytest.raises(ConfigurationError, match="E-MOD-020"):
        method_of((8, 8), weights={"overlap": 1.0})
