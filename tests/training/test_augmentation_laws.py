"""What augmentation promises, in 2-D and 3-D, of pairs and of cases."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from anamorph.methods.schedule import Augmentation
from anamorph.spatial.field import identity, jacobian_determinant, sample
from anamorph.training.augmentation import augment, move_points, spatial_displacements

SHAPES = {"2d": (24, 20), "3d": (14, 12, 10)}
SPATIAL = {"translation": 4.0, "rotation": 25.0, "scale": 0.2, "elastic": 2.0, "elastic_spacing": 6.0}
KINDS = {
    "translation": Augmentation(translation=4.0),
    "rotation": Augmentation(rotation=25.0),
    "scale": Augmentation(scale=0.2),
    "elastic": Augmentation(elastic=2.0, elastic_spacing=6.0),
    "noise": Augmentation(noise=0.3),
    "bias": Augmentation(bias=0.3),
    "gamma": Augmentation(gamma=0.5),
    "blur": Augmentation(blur=1.5),
    "anisotropy": Augmentation(anisotropy=4.0),
}
MOVING = list(KINDS)[:4]
EVERYTHING = Augmentation(**SPATIAL, noise=0.3, bias=0.3, gamma=0.5, blur=1.0, anisotropy=3.0)


@pytest.fixture(params=list(SHAPES))
def shape(request: pytest.FixtureRequest) -> tuple[int, ...]:
    return SHAPES[request.param]


@pytest.fixture(params=list(KINDS))
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


def case_of(shape: tuple[int, ...], generator: torch.Generator, batch: int = 3) -> dict[str, Tensor]:
    """Random labels in large voxels, an image that shows them, everything known."""
    coarse = torch.randint(0, 3, (batch, 1, *[n // 2 for n in shape]), generator=generator)
    labels = coarse
    for axis in range(2, coarse.ndim):
        labels = labels.repeat_interleave(2, axis)
    return {
        "image": labels.float() / 2,
        "labels": labels,
        "labelled": torch.ones(batch, dtype=torch.bool),
        "mask": (labels > 0).float(),
        "index": torch.arange(batch),
    }


def pair_of(shape: tuple[int, ...], generator: torch.Generator, batch: int = 3) -> dict[str, Tensor]:
    fixed, moving = case_of(shape, generator, batch), case_of(shape, generator, batch)
    names = {"image": "", "labels": "_labels", "labelled": "_labelled", "mask": "_mask"}
    return {
        f"{side}{to}": part[of] for side, part in (("fixed", fixed), ("moving", moving)) for of, to in names.items()
    }


def equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("make", [case_of, pair_of])
@pytest.mark.parametrize("nothing", [Augmentation(), EVERYTHING.model_copy(update={"probability": 0.0})])
def test_nothing_happens_to_the_very_same_tensors(make, nothing, shape, generator):
    batch = make(shape, generator)
    result = augment(batch, nothing, [1, 2, 3])
    assert result.keys() == batch.keys()
    assert all(result[name] is batch[name] for name in batch)


def test_each_kind_changes_the_image_and_only_moving_ones_the_rest(kind, shape, generator, device):
    batch = {name: value.to(device) for name, value in case_of(shape, generator).items()}
    before = {name: value.clone() for name, value in batch.items()}
    result = augment(batch, KINDS[kind], [5, 6, 7])
    assert equal(batch, before)
    assert all(type(value) is Tensor and value.device.type == device.type for value in result.values())
    assert all(result[name].dtype == batch[name].dtype for name in batch)
    assert all(result[name].shape == batch[name].shape for name in batch)
    assert result["image"].isfinite().all()
    for item in range(3):
        assert not torch.equal(result["image"][item], batch["image"][item])
    for name in ("labels", "mask"):
        assert (result[name] is not batch[name]) == (kind in MOVING)
    assert result["labelled"] is batch["labelled"]
    assert result["index"] is batch["index"]


def test_a_seed_repeats_and_another_differs(kind, shape, generator):
    batch = case_of(shape, generator)
    first = augment(batch, KINDS[kind], [5, 6, 7])
    torch.manual_seed(99)
    torch.rand(3)
    assert equal(first, augment(batch, KINDS[kind], [5, 6, 7]))
    assert not torch.equal(first["image"], augment(batch, KINDS[kind], [8, 9, 10])["image"])


@pytest.mark.parametrize("make", [case_of, pair_of])
def test_an_item_does_not_depend_on_its_batch(make, shape, generator):
    batch = make(shape, generator)
    some = EVERYTHING.model_copy(update={"probability": 0.5})
    together = augment(batch, some, [11, 12, 13])
    for item, seed in enumerate([11, 12, 13]):
        alone = augment({name: value[item : item + 1] for name, value in batch.items()}, some, [seed])
        assert equal(alone, {name: value[item : item + 1] for name, value in together.items()})
    backwards = augment({name: value.flip(0) for name, value in batch.items()}, some, [13, 12, 11])
    assert equal({name: value.flip(0) for name, value in backwards.items()}, together)


def test_the_global_random_state_is_left_alone(shape, generator):
    torch.manual_seed(4)
    expected = torch.rand(1)
    torch.manual_seed(4)
    augment(case_of(shape, generator), EVERYTHING, [1, 2, 3])
    assert torch.equal(torch.rand(1), expected)


@given(seed=st.integers(0, 2**40))
@settings(max_examples=25)
@pytest.mark.parametrize("ndim", [2, 3])
def test_image_labels_and_mask_stay_aligned(ndim, seed):
    shape = SHAPES[f"{ndim}d"]
    batch = case_of(shape, torch.Generator().manual_seed(seed), batch=1)
    result = augment(batch, Augmentation(**SPATIAL), [seed])
    moved, _ = spatial_displacements(Augmentation(**SPATIAL), shape, 2, torch.Generator().manual_seed(seed))
    assert moved is not None
    assert torch.equal(result["mask"], (result["labels"] > 0).float())
    # Where all voxels that the linear value is read from have one label, it is that label's intensity.
    points = (moved + identity(shape)).floor()
    corners = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * ndim)
    around = torch.stack(
        [sample(batch["labels"] + 1, points + corner.view(1, -1, *[1] * ndim), "nearest") for corner in corners]
    )
    same = (around == around[0]).all(0)
    assert same.float().mean() > 0.05
    torch.testing.assert_close(result["image"][same], result["labels"][same].float() / 2, atol=1e-5, rtol=0)


def test_a_whole_shift_moves_every_voxel_and_lets_background_in():
    image = torch.arange(1.0, 26.0).view(1, 1, 5, 5)
    batch = {"image": image, "labels": image.long(), "mask": torch.ones_like(image), "labelled": torch.tensor([True])}
    augmentation = Augmentation(translation=3.0)
    (u,) = spatial_displacements(augmentation, (5, 5), 1, torch.Generator().manual_seed(2))
    assert u is not None
    assert u.abs().max() <= 3
    torch.testing.assert_close(u, u[:, :, :1, :1].expand_as(u))
    labels = augment(batch, augmentation, [2])["labels"]
    shift = (u[0, :, 0, 0] + 0.5).floor().int().tolist()
    assert shift != [0, 0]
    for i in range(5):
        for j in range(5):
            inside = 0 <= i + shift[0] < 5 and 0 <= j + shift[1] < 5
            assert labels[0, 0, i, j] == (image[0, 0, i + shift[0], j + shift[1]] if inside else 0)
    result = augment(batch, augmentation, [2])
    assert torch.equal(result["mask"] == 0, result["labels"] == 0)
    assert result["image"].min() == 1


def test_what_comes_from_outside_is_as_dark_as_the_image_gets(generator):
    image = torch.rand(1, 2, 12, 12, generator=generator) - torch.tensor([3.0, -2.0]).view(1, 2, 1, 1)
    result = augment({"image": image}, Augmentation(translation=11.0), [3])["image"]
    lowest = image.amin((2, 3))
    torch.testing.assert_close(result.amin((2, 3)), lowest)
    assert ((result - lowest[..., None, None]).abs() < 1e-6).float().mean() > 0.3


def test_rotation_keeps_lengths_in_mm_and_the_middle(generator):
    shape, spacing = (9, 9, 5), (1.0, 1.0, 4.0)
    augmentation = Augmentation(rotation=30.0)
    (u,) = spatial_displacements(augmentation, shape, 1, generator, spacing)
    assert u is not None
    points = ((u[0] + identity(shape)).movedim(0, -1) - torch.tensor([4.0, 4.0, 2.0])) * torch.tensor(spacing)
    before = (identity(shape).movedim(0, -1) - torch.tensor([4.0, 4.0, 2.0])) * torch.tensor(spacing)
    torch.testing.assert_close(points.norm(dim=-1), before.norm(dim=-1), atol=1e-4, rtol=1e-4)
    assert (points - before).norm(dim=-1).max() > 0.5
    (cubes,) = spatial_displacements(augmentation, shape, 1, generator.manual_seed(0))
    assert not torch.allclose(u, cubes)


def test_scales_are_one_an_axis_and_within_their_limit():
    for seed in range(20):
        (u,) = spatial_displacements(Augmentation(scale=0.2), (11, 21), 1, torch.Generator().manual_seed(seed))
        assert u is not None
        factors = 1 + torch.stack([u[0, 0, 1, 0] - u[0, 0, 0, 0], u[0, 1, 0, 1] - u[0, 1, 0, 0]])
        assert ((factors > 0.8 - 1e-5) & (factors < 1.2 + 1e-5)).all()
        assert abs(float(factors[0] - factors[1])) > 1e-4
        assert u[0, :, 5, 10].abs().max() < 1e-5


@pytest.mark.parametrize(("ndim", "share"), [(2, 0.48), (3, 0.4)])
def test_elastic_stays_within_its_limit_and_does_not_fold(ndim, share):
    shape = (26, 21, 17)[:ndim]
    augmentation = Augmentation(elastic=5 * share, elastic_spacing=5.0)
    for seed in range(10):
        (u,) = spatial_displacements(augmentation, shape, 1, torch.Generator().manual_seed(seed))
        assert u is not None
        assert 0.3 < u.abs().max() <= 5 * share
        assert jacobian_determinant(u).min() > 0


def test_kinds_combine_into_one_map(generator):
    """x -> A(x + e(x)): the seed's own e, as the elastic kind is drawn after the others."""
    shape = (15, 12)
    both = Augmentation(rotation=30.0, elastic=2.0, elastic_spacing=6.0)
    generator.manual_seed(8)
    (a,) = spatial_displacements(Augmentation(rotation=30.0), shape, 1, generator)
    (e,) = spatial_displacements(Augmentation(elastic=2.0, elastic_spacing=6.0), shape, 1, generator)
    (whole,) = spatial_displacements(both, shape, 1, generator.manual_seed(8))
    assert a is not None
    assert e is not None
    assert whole is not None
    linear = torch.stack([a[0, :, 1, 0] - a[0, :, 0, 0], a[0, :, 0, 1] - a[0, :, 0, 0]], 1) + torch.eye(2)
    torch.testing.assert_close(whole, a + torch.einsum("ij,bj...->bi...", linear, e))


def test_points_move_with_the_image(shape):
    image = torch.zeros(1, 1, *shape)
    middle = tuple(n // 2 for n in shape)
    image[(0, 0, *middle)] = 1
    for axis in range(2, image.ndim):  # a small bump, whose centre of mass is a point
        image = (image.roll(1, axis) + 2 * image + image.roll(-1, axis)) / 4
    augmentation = Augmentation(translation=2.0, rotation=20.0, elastic=1.0, elastic_spacing=8.0)
    for seed in range(5):
        (u,) = spatial_displacements(augmentation, shape, 1, torch.Generator().manual_seed(seed))
        assert u is not None
        point = torch.tensor(middle).float().view(1, -1, 1)
        moved = move_points(point, u)
        torch.testing.assert_close(moved + sample(u, moved), point, atol=1e-4, rtol=0)
        warped = augment({"image": image}, augmentation, [seed])["image"][0, 0]
        mass = (identity(shape) * warped).flatten(1).sum(1) / warped.sum()
        assert (mass - moved[0, :, 0]).norm() < 0.3


@pytest.mark.parametrize("same", [False, True])
def test_pairs_move_alike_or_apart(same, shape, generator):
    batch = pair_of(shape, generator)
    for name in ("", "_labels", "_mask"):
        batch[f"moving{name}"] = batch[f"fixed{name}"]
    result = augment(batch, Augmentation(**SPATIAL, same_for_pair=same), [1, 2, 3])
    for name in ("", "_labels", "_mask"):
        assert torch.equal(result[f"fixed{name}"], result[f"moving{name}"]) == same
    noisy = augment(batch, Augmentation(noise=0.2, same_for_pair=same), [1, 2, 3])
    assert not torch.equal(noisy["fixed"], noisy["moving"])


def test_the_share_of_items_is_the_probability():
    image = torch.rand(1, 1, 4, 4)
    augmentation = Augmentation(probability=0.25, noise=0.5)
    touched = [augment({"image": image}, augmentation, [seed])["image"] is not image for seed in range(400)]
    assert 0.18 < sum(touched) / 400 < 0.32


def test_noise_is_a_share_of_the_contrast(generator):
    image = torch.rand(1, 1, 64, 64, generator=generator)
    shares = []
    for seed in range(30):
        added = augment({"image": 100 * image}, Augmentation(noise=0.4), [seed])["image"] - 100 * image
        shares.append(float(added.std() / (100 * image).std()))
    assert max(shares) <= 0.42
    assert max(shares) > 0.3
    assert min(shares) < 0.1


def test_gamma_keeps_the_order_and_the_extremes(shape, generator):
    image = 3 * torch.rand(1, 2, *shape, generator=generator) - 1
    result = augment({"image": image}, Augmentation(gamma=0.7), [1])["image"]
    for channel in range(2):
        before, after = image[0, channel].flatten(), result[0, channel].flatten()
        assert torch.equal(before.argsort(), after.argsort())
        torch.testing.assert_close(after.aminmax(), before.aminmax(), atol=1e-5, rtol=0)
        power = ((after - after.min()) / (after.max() - after.min())).log() / (
            (before - before.min()) / (before.max() - before.min())
        ).log()
        power = power[power.isfinite()].median()
        assert abs(math.log(power)) <= 0.71


def test_bias_is_one_smooth_factor(shape, generator):
    image = 1 + torch.rand(1, 2, *shape, generator=generator)
    image[(0, slice(None), *[0] * len(shape))] = 0
    result = augment({"image": image}, Augmentation(bias=0.2), [1])["image"]
    factor = (result / image)[0, :, 1:, 1:]
    torch.testing.assert_close(factor[0], factor[1])
    assert result[(0, 0, *[0] * len(shape))] == 0
    assert (factor[0].diff(dim=0).abs().max() / factor[0].mean()) < 0.5
    assert factor.std() > 0.01


def test_blur_and_anisotropy_keep_constant_images_and_the_mean(shape, generator):
    for augmentation in (Augmentation(blur=2.0), Augmentation(anisotropy=3.0)):
        flat = torch.full((1, 1, *shape), 0.7)
        torch.testing.assert_close(augment({"image": flat}, augmentation, [2])["image"], flat)
        image = torch.rand(1, 1, *shape, generator=generator)
        result = augment({"image": image}, augmentation, [2])["image"]
        assert result.std() < image.std()
        assert abs(result.mean() - image.mean()) < 0.02


def test_anisotropy_blurs_one_axis_alone():
    for seed in range(6):
        ramp = torch.arange(12.0).remainder(2)
        stripes = {axis: ramp.view(*[-1 if a == axis else 1 for a in range(3)]).expand(12, 12, 12) for axis in range(3)}
        changed = [
            not torch.allclose(
                augment({"image": x[None, None]}, Augmentation(anisotropy=4.0), [seed])["image"][0, 0], x
            )
            for x in stripes.values()
        ]
        assert sum(changed) == 1


def test_an_item_without_a_seed_stays_as_it_is(shape, generator):
    batch = pair_of(shape, generator)
    found, whole = (augment(batch, EVERYTHING, seeds) for seeds in ([3, None, 5], [3, 4, 5]))
    for name in ("fixed", "moving", "fixed_labels", "moving_mask"):
        assert torch.equal(found[name][1], batch[name][1])
        assert torch.equal(found[name][::2], whole[name][::2])
        assert not torch.equal(whole[name][1], batch[name][1])


def test_one_seed_an_item(shape, generator):
    with pytest.raises(ValueError, match="one seed an item"):
        augment(case_of(shape, generator), EVERYTHING, [1, 2])
