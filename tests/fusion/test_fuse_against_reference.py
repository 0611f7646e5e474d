"""The formulas written down literally, voxel by voxel and patch by patch in float64, against ``fuse``."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import product

import numpy as np
import pytest
import torch

from anamorph.fusion import FusionSettings, fuse

FLOOR, LEAST = 1e-3, 1e-3
FAR = 8
"""Voxels by which pictures go on beyond their border here."""

Place = tuple[int, ...]
Weigh = Callable[[int, Place], float]
"""Distance of an atlas at a voxel -> weight."""

GRIDS = [(5, 4), (3, 3, 2)]


class Picture:
    """Intensities scaled over the whole image, that go on beyond its border, and their descriptors."""

    def __init__(self, image: np.ndarray, similarity: str) -> None:
        self.shape = image.shape[1:]
        rows = image.reshape(len(image), -1)
        if similarity == "local_mi":
            low, high = np.quantile(rows, [0.01, 0.99], axis=1)
        else:
            low, high = rows.mean(1), rows.mean(1) + rows.std(1)
        extra = (1,) * len(self.shape)
        self.values = (image - low.reshape(-1, *extra)) / (high - low).reshape(-1, *extra)
        self.described: dict[Place, np.ndarray] = {}
        self.padded = np.pad(self.values, [(0, 0), *[(FAR, FAR)] * len(self.shape)], mode="edge")

    def at(self, place: Place) -> np.ndarray:
        """One number a channel."""
        return self.padded[(slice(None), *[p + FAR for p in place])]

    def around(self, place: Place) -> np.ndarray:
        """Channels x the patch of radius 1."""
        return self.padded[(slice(None), *[slice(p + FAR - 1, p + FAR + 2) for p in place])].reshape(
            len(self.values), -1
        )

    def mind(self, place: Place) -> np.ndarray:
        """Channels of all directions, channel by channel of the image."""
        if place not in self.described:
            ndim = len(place)
            neighbours = [moved(sign * (a == axis) for a in range(ndim)) for axis in range(ndim) for sign in (-1, 1)]
            d = []
            for n in neighbours:
                d.append(np.mean((self.around(place) - self.around(add(place, n))) ** 2, axis=1))
            stacked = np.array(d)
            self.described[place] = np.exp(-stacked / np.maximum(stacked.mean(0), FLOOR)).ravel()
        return self.described[place]


def moved(steps) -> Place:
    return tuple(int(s) for s in steps)


def add(*places: Place) -> Place:
    return tuple(sum(along) for along in zip(*places, strict=True))


def patch(ndim: int, radius: int) -> list[Place]:
    return list(product(range(-radius, radius + 1), repeat=ndim))


def gaussian(ndim: int, sigma: float) -> dict[Place, float]:
    window = {y: np.exp(-0.5 * sum(a * a for a in y) / sigma**2) for y in patch(ndim, int(np.ceil(3 * sigma)))}
    return {y: w / sum(window.values()) for y, w in window.items()}


def box(ndim: int, radius: int) -> dict[Place, float]:
    return {y: 1 / (2 * radius + 1) ** ndim for y in patch(ndim, radius)}


def patch_distance(similarity: str, f: Picture, m: Picture, x: Place, shift: Place, window: dict, bins: int) -> float:
    """D between the target at x and an atlas at x + shift."""
    weights = np.array(list(window.values()))
    if similarity == "mind":
        squares = [np.mean((f.mind(add(x, y)) - m.mind(add(x, y, shift))) ** 2) for y in window]
        return float(weights @ squares)
    a = np.array([f.at(add(x, y)) for y in window]).T
    b = np.array([m.at(add(x, y, shift)) for y in window]).T
    return float(np.mean([channel_distance(similarity, p, q, weights, bins) for p, q in zip(a, b, strict=True)]))


def channel_distance(similarity: str, a: np.ndarray, b: np.ndarray, w: np.ndarray, bins: int) -> float:
    if similarity == "local_mi":
        i, j = (np.clip(np.floor(v * bins), 0, bins - 1).astype(int) for v in (a, b))
        joint = np.zeros((bins, bins))
        np.add.at(joint, (i, j), w)
        own = [entropy(joint.sum(1)), entropy(joint.sum(0))]
        return 1 - (sum(own) - entropy(joint)) / max(own) if max(own) > 1e-6 else 1.0
    a, b = a - w @ a, b - w @ b
    a, b = a / np.sqrt(w @ a**2 + FLOOR), b / np.sqrt(w @ b**2 + FLOOR)
    return float(w @ (a - b) ** 2) if similarity == "ssd" else float(1 - (w @ (a * b)) ** 2)


def entropy(p: np.ndarray) -> float:
    p = p[p > 0]
    return float(-(p * np.log(p)).sum())


def voted(candidates: list[tuple[int, float]]) -> dict[int, float]:
    """Shares of the labels, in the order in which they are first proposed."""
    votes: dict[int, float] = {}
    for label, weight in candidates:
        votes[label] = votes.get(label, 0.0) + weight
    votes = {label: max(vote, 0.0) for label, vote in votes.items()}
    return {label: vote / sum(votes.values()) for label, vote in votes.items()}


class Scene:
    """A target and three atlases, of two channels in 2-D."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        generator = np.random.default_rng(3)
        channels = 2 if len(shape) == 2 else 1
        self.shape, self.ndim = shape, len(shape)
        self.target = generator.random((channels, *shape))
        self.images = [self.target * k + generator.random((channels, *shape)) for k in (1, -2, 3)]
        self.labels = [generator.integers(0, 3, shape) for _ in self.images]

    def pictures(self, similarity: str) -> tuple[Picture, list[Picture]]:
        return Picture(self.target, similarity), [Picture(image, similarity) for image in self.images]

    def check(self, settings: FusionSettings, shares_at: Callable[[Place], dict[int, float]]) -> None:
        found = fuse(
            [torch.from_numpy(x) for x in self.labels],
            settings,
            target=torch.from_numpy(self.target).float(),
            images=[torch.from_numpy(x).float() for x in self.images],
        )
        probabilities = {value: found.probability(value).numpy() for value in range(3)}
        for x in np.ndindex(self.shape):
            shares = shares_at(x)
            for value, map_ in probabilities.items():
                assert map_[x] == pytest.approx(shares.get(value, 0.0), abs=2e-4)
            expected = entropy(np.array(list(shares.values()))) / np.log(3)
            assert float(found.entropy[x]) == pytest.approx(expected, abs=5e-4)
            best = max(shares.values())
            runners_up = [share for share in shares.values() if share < best]
            if not runners_up or best - max(runners_up) > 1e-3:
                assert shares[int(found.labels[x])] == best


@pytest.mark.parametrize("shape", GRIDS)
@pytest.mark.parametrize("similarity", ["ssd", "lncc", "mind", "local_mi"])
@pytest.mark.parametrize("name", ["global", "local", "block"])
def test_weights_by_distance(name: str, similarity: str, shape: tuple[int, ...]) -> None:
    scene = Scene(shape)
    read = {"global": {"patch_radius": 1}, "local": {"sigma": 0.6}, "block": {"block_radius": 1}}
    options = {**read[name], **({"bins": 4} if similarity == "local_mi" else {})}
    settings = FusionSettings.model_validate({"fusion": name, "similarity": similarity, **options})
    window = gaussian(scene.ndim, 0.6) if name == "local" else box(scene.ndim, 1)
    power = 3 if name == "block" else 1
    f, ms = scene.pictures(similarity)
    here = (0,) * scene.ndim

    def distance(i: int, x: Place) -> float:
        return patch_distance(similarity, f, ms[i], x, here, window, 4)

    means = [np.mean([distance(i, x) for x in np.ndindex(shape)]) for i in range(3)] if name == "global" else None

    def shares_at(x: Place) -> dict[int, float]:
        d = means or [distance(i, x) for i in range(3)]
        return voted([(int(scene.labels[i][x]), (d[i] + LEAST) ** -power) for i in range(3)])

    scene.check(settings, shares_at)


@pytest.mark.parametrize("shape", GRIDS)
def test_weights_by_local_mutual_information(shape: tuple[int, ...]) -> None:
    scene = Scene(shape)
    f, ms = scene.pictures("local_mi")
    window = box(scene.ndim, 1)
    distance = partial(patch_distance, "local_mi", f, shift=(0,) * scene.ndim, window=window, bins=5)

    def shares_at(x: Place) -> dict[int, float]:
        return voted([(int(scene.labels[i][x]), (1 - distance(m=ms[i], x=x)) ** 3) for i in range(3)])

    scene.check(FusionSettings(fusion="local_mi", block_radius=1, bins=5), shares_at)


def inside(place: Place, shape: tuple[int, ...]) -> bool:
    return all(0 <= p < n for p, n in zip(place, shape, strict=True))


def by_length(shifts: list[Place]) -> list[Place]:
    return sorted(shifts, key=lambda s: (sum(a * a for a in s), s))


@pytest.mark.parametrize("shape", GRIDS)
@pytest.mark.parametrize("similarity", ["ssd", "lncc", "mind"])
def test_non_local_voting(similarity: str, shape: tuple[int, ...]) -> None:
    scene = Scene(shape)
    f, ms = scene.pictures(similarity)
    window, shifts = box(scene.ndim, 1), by_length(patch(scene.ndim, 1))

    def shares_at(x: Place) -> dict[int, float]:
        candidates = []
        for i, m in enumerate(ms):
            for shift in shifts:
                if inside(add(x, shift), shape):
                    d = patch_distance(similarity, f, m, x, shift, window, 0)
                    candidates.append((d, int(scene.labels[i][add(x, shift)])))
        nearest = sorted(candidates, key=lambda c: c[0])[:5]
        width = nearest[0][0] + LEAST
        return voted([(label, np.exp(-d / width)) for d, label in nearest])

    options = {"fusion": "non_local", "similarity": similarity, "patch_radius": 1, "search_radius": 1, "nearest": 5}
    scene.check(FusionSettings.model_validate(options), shares_at)


@pytest.mark.parametrize("shape", GRIDS)
@pytest.mark.parametrize(("similarity", "alpha", "beta"), [("ssd", 0.1, 2), ("mind", 1.0, 1)])
def test_joint_label_fusion(similarity: str, alpha: float, beta: int, shape: tuple[int, ...]) -> None:
    scene = Scene(shape)
    f, ms = scene.pictures(similarity)
    window, shifts = box(scene.ndim, 1), by_length(patch(scene.ndim, 1))

    def features(picture: Picture, x: Place) -> np.ndarray:
        if similarity == "mind":
            return np.array([picture.mind(add(x, y)) for y in window])
        values = np.array([picture.at(add(x, y)) for y in window])
        return (values - values.mean(0)) / np.sqrt(values.var(0) + FLOOR)

    def shares_at(x: Place) -> dict[int, float]:
        errors, labels = [], []
        for i, m in enumerate(ms):
            allowed = [shift for shift in shifts if inside(add(x, shift), shape)]
            shift = min(allowed, key=lambda s: patch_distance(similarity, f, m, x, s, window, 0))
            errors.append(np.linalg.norm(features(f, x) - features(m, add(x, shift)), axis=1))
            labels.append(int(scene.labels[i][add(x, shift)]))
        m_x = np.array([[np.mean(a * b) ** beta for b in errors] for a in errors])
        w = np.linalg.solve(m_x + alpha * np.trace(m_x) / 3 * np.eye(3), np.ones(3))
        return voted(list(zip(labels, w / w.sum(), strict=True)))

    options = {"similarity": similarity, "alpha": alpha, "beta": beta, "patch_radius": 1, "search_radius": 1}
    scene.check(FusionSettings.model_validate({"fusion": "joint", **options}), shares_at)
