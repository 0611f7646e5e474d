"""Segmentation by atlases, from files to labels: in 2-D and 3-D, cached, resumed, with failing atlases and models."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from anamorph.data.cohort import Scan
from anamorph.data.files import read, read_labels, write
from anamorph.data.image import Image, Labelmap
from anamorph.data.network_grid import image_to_network
from anamorph.data.plan import Intensity
from anamorph.errors import AnamorphError, AnamorphWarning, ConfigurationError, InputError, ResourceError
from anamorph.evaluation.overlap import dice
from anamorph.fusion import FusionSettings
from anamorph.inference import multi_atlas_work
from anamorph.inference.model_domain import own_grid
from anamorph.inference.model_folder import Model
from anamorph.inference.multi_atlas import segment_by_atlases, segment_targets
from anamorph.inference.multi_atlas_cases import Target
from anamorph.inference.multi_atlas_jobs import one_by_one
from anamorph.inference.multi_atlas_stages import MultiAtlasSegmentation
from anamorph.inference.register import Registration
from anamorph.inference.register_model import register_with
from anamorph.methods.patch_simnet import PatchSimNet
from anamorph.pairwise.settings import PairwiseSettings
from anamorph.spatial.grid import Grid
from anamorph.spatial.transform import Affine, resample

spec = importlib.util.spec_from_file_location("multi_atlas_scans", Path(__file__).with_name("multi_atlas_scans.py"))
assert spec is not None
assert spec.loader is not None
scans = importlib.util.module_from_spec(spec)
spec.loader.exec_module(scans)
FLAT = [(4.0, -3.0), (-3.0, 4.0), (2.0, 3.0)]
MAJORITY = FusionSettings(fusion="majority")


@pytest.fixture
def atlases(tmp_path: Path) -> list[Scan]:
    """Three of them, in 2-D."""
    return [scans.a_scan(tmp_path / "atlases", f"a{place}", "ct", shift) for place, shift in enumerate(FLAT)]


@pytest.fixture
def target(tmp_path: Path) -> Scan:
    return scans.a_scan(tmp_path / "targets", "t", "mr", (0.0, 0.0))


@pytest.fixture
def placed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A register that knows where the atlases lie, and notes whom it was asked for."""
    calls: list[str] = []

    def register(fixed: Image, moving: Image, **rest: Any) -> Registration:
        calls.append(moving.name)
        shift = {f"a{place}": shift for place, shift in enumerate(FLAT)}.get(moving.name[:2], (0.0, 0.0))
        matrix = np.eye(fixed.grid.ndim + 1)
        matrix[:2, -1] = shift
        return Registration(fixed, moving, Affine(matrix), Affine(matrix), Affine.identity(fixed.grid.ndim))

    monkeypatch.setattr(multi_atlas_work, "register", register)
    return calls


@pytest.fixture
def segment(
    placed: list[str], target: Scan, atlases: list[Scan], tmp_path: Path
) -> Callable[..., MultiAtlasSegmentation]:
    """Of the target by the atlases, where they are known to lie, with changes."""

    def run(**changes: Any) -> MultiAtlasSegmentation:
        asked: dict[str, Any] = {
            "cache": tmp_path / "cache", "fusion": MAJORITY, "file": target.image,
            "atlases": atlases, "device": "cpu",
        }  # fmt: skip
        asked |= {"target": read(target.image, modality="mr")} | changes
        return segment_by_atlases(asked.pop("target"), asked.pop("atlases"), **asked)

    return run


def overlap(found: Labelmap, scan: Scan) -> list[float]:
    assert scan.labels is not None
    true = read_labels(scan.labels).data.numpy()
    return [dice(true == label, found.data.numpy() == label) for label in (3, 7)]


def test_labels_of_another_modality_come_onto_the_targets_own_grid(
    segment: Callable[..., MultiAtlasSegmentation], target: Scan
) -> None:
    found = segment(fusion=FusionSettings(fusion="joint"), names={3: "left"})
    assert found.labels.grid.same_as(read(target.image).grid)
    assert found.labels.values() == [0, 3, 7]
    assert dict(found.labels.names) == {3: "left", 7: "label 7"}
    assert found.labels.dtype == np.uint8
    assert min(overlap(found.labels, target)) > 0.8
    assert [atlas.used for atlas in found.atlases] == [True, True, True]
    assert [atlas.rank for atlas in found.atlases] == [1, 2, 3]
    assert all(0.5 < (atlas.agreement or 0) <= 1 for atlas in found.atlases)
    assert set(found.seconds) == {"align", "register", "fuse"}


def test_in_three_dimensions(tmp_path: Path, placed: list[str]) -> None:
    target = scans.a_scan(tmp_path, "t", "mr")
    atlases = [scans.a_scan(tmp_path, f"a{place}", "ct", (*shift, 0.0)) for place, shift in enumerate(FLAT)]
    found = segment_by_atlases(
        read(target.image, modality="mr"), atlases, cache=tmp_path / "cache", fusion=MAJORITY, device="cpu"
    )  # fmt: skip
    assert min(overlap(found.labels, target)) > 0.9


def test_by_the_pairwise_engine(target: Scan, tmp_path: Path) -> None:
    """Where the atlas lies it overlaps by half at most; so few pixels fill no more than 8 x 8 bins."""
    atlas = scans.a_scan(tmp_path, "a0", "ct", (8.0, -6.0))
    image, engine = read(target.image, modality="mr"), scans.QUICK.model_copy(update={"bins": 8})
    assert atlas.labels is not None
    assert max(overlap(read_labels(atlas.labels), target)) < 0.55
    found = segment_by_atlases(image, [atlas], cache=tmp_path / "cache", registration=engine, device="cpu")
    assert min(overlap(found.labels, target)) > 0.75
    assert found.atlases[0].kept == "deformable"


def test_votes_become_probabilities_and_uncertainty(segment: Callable[..., MultiAtlasSegmentation]) -> None:
    found = segment(margin_mm=0.0)
    parts = torch.stack([found.probability(value) for value in (0, 3, 7)])
    torch.testing.assert_close(parts.sum(0), torch.ones(found.labels.grid.shape))
    assert torch.equal(parts.max(0).values[found.labels.data > 0], found.share[found.labels.data > 0])
    agreed = found.share == 1
    assert bool(agreed.any())
    assert not bool(agreed.all())
    assert float(found.entropy[agreed].max()) == 0
    assert float(found.entropy[~agreed].min()) > 0


def test_what_is_finished_is_not_done_again(
    segment: Callable[..., MultiAtlasSegmentation], atlases: list[Scan], placed: list[str]
) -> None:
    segment()
    assert len(placed) == 6
    placed.clear()
    again = segment(fusion=FusionSettings(fusion="local"))
    assert placed == []
    assert all(atlas.cached for atlas in again.atlases)
    assert set(again.seconds) == {"fuse"}
    segment(registration=PairwiseSettings(smoothness=0.5))
    assert sorted(placed) == ["a0_ct.nrrd", "a1_ct.nrrd", "a2_ct.nrrd"]  # the alignments stand
    placed.clear()
    file = atlases[0].labels
    assert file is not None
    labels = read_labels(file)
    write(replace(labels, data=torch.where(labels.data == 3, 4, labels.data)), file)
    with pytest.warns(AnamorphWarning, match="W-FUS-002"):
        changed = segment()
    assert placed == ["a0_ct.nrrd", "a0_ct.nrrd"]
    assert sorted(changed.labels.names) == [3, 4, 7]


def test_a_damaged_entry_is_made_anew(segment: Callable[..., MultiAtlasSegmentation], tmp_path: Path) -> None:
    first = segment()
    file = next((tmp_path / "cache").glob("*/labels.npy"))
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    again = segment()
    assert sorted(atlas.cached for atlas in again.atlases) == [False, True, True]
    assert torch.equal(first.labels.data, again.labels.data)


def test_an_interrupted_run_goes_on(segment: Callable[..., MultiAtlasSegmentation]) -> None:
    def interrupted(work: Callable[[Any], Any], jobs: Sequence[Any]) -> Iterator[tuple[int, Any]]:
        for place, found in one_by_one(work, jobs):
            yield place, found
            if type(jobs[0]).__name__ == "Registration" and place == 1:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        segment(map=interrupted)
    assert sorted(atlas.cached for atlas in segment().atlases) == [False, True, True]


def test_the_likest_are_chosen(
    segment: Callable[..., MultiAtlasSegmentation], atlases: list[Scan], tmp_path: Path
) -> None:
    noise = scans.a_scan(tmp_path / "atlases", "noise", "ct", (0.0, 0.0))
    image = read(noise.image)
    values = torch.from_numpy(np.random.default_rng(0).normal(0, 100, image.data.shape).astype(np.float32))
    write(replace(image, data=values), noise.image)
    found = segment(select=2, atlases=[noise, *atlases])
    assert [atlas.used for atlas in found.atlases] == [True, True, False, False]
    assert found.atlases[-1].name == "noise_ct"
    assert found.atlases[-1].agreement is None


def test_a_failing_atlas_does_not_stop_the_rest(
    segment: Callable[..., MultiAtlasSegmentation], atlases: list[Scan], tmp_path: Path
) -> None:
    atlases[0].image.write_bytes(b"no image")
    missing = replace(atlases[1], case="missing", image=tmp_path / "nothing.nrrd")
    unlabelled = replace(atlases[1], case="unlabelled", labels=None)
    with pytest.warns(AnamorphWarning) as told:
        found = segment(atlases=[*atlases, missing, unlabelled])
    assert sorted(str(line.message)[:45] for line in told) == [
        "W-ATL-004: t_mr.nrrd: the atlas a0_ct does no",
        "W-ATL-004: t_mr.nrrd: the atlas missing_ct do",
        "W-ATL-004: t_mr.nrrd: the atlas unlabelled_ct",
    ]
    failures = {atlas.name: atlas.failure[:9] for atlas in found.atlases if atlas.failure}
    assert failures == {"a0_ct": "E-FMT-009", "missing_ct": "E-IO-001:", "unlabelled_ct": "E-ATL-013"}
    assert [atlas.name for atlas in found.atlases if atlas.used] == [a.name for a in found.atlases[:2]]


def test_without_any_atlas_there_is_no_answer(
    segment: Callable[..., MultiAtlasSegmentation], atlases: list[Scan]
) -> None:
    with pytest.raises(InputError, match=r"E-ATL-012: t_mr.nrrd: no atlas is left \(none was given\)"):
        segment(atlases=[])
    with pytest.raises(InputError, match=r"E-ATL-012.*E-ATL-013"), pytest.warns(AnamorphWarning, match="W-ATL-004"):
        segment(atlases=[replace(atlases[0], labels=None)])


def test_a_full_disk_stops_everything(segment: Callable[..., MultiAtlasSegmentation]) -> None:
    def full(work: Callable[[Any], Any], jobs: Sequence[Any]) -> Iterator[tuple[int, Any]]:
        yield 0, ResourceError("E-OUT-003", "not written: no space left on device")

    with pytest.raises(ResourceError, match="E-OUT-003"):
        segment(map=full)


def test_no_image_is_an_atlas_of_itself(
    segment: Callable[..., MultiAtlasSegmentation], target: Scan, atlases: list[Scan]
) -> None:
    with pytest.warns(AnamorphWarning, match="W-ATL-005: t_mr.nrrd: the atlas t_mr is this very image"):
        found = segment(atlases=[*atlases, target])
    assert "t_mr" not in [atlas.name for atlas in found.atlases]


def test_the_region_holds_the_structures_and_gold_is_the_true_box(
    segment: Callable[..., MultiAtlasSegmentation], target: Scan
) -> None:
    truth = read_labels(target.labels)  # type: ignore[arg-type]
    regions = {rule: segment(region=rule, margin_mm=3.0, truth=truth).region for rule in ("coarse", "gold", "none")}
    whole, places = truth.grid, truth.grid.to_world(np.argwhere(truth.data.numpy() > 0))
    assert regions["none"].same_as(whole)
    for rule in ("coarse", "gold"):
        assert np.prod(regions[rule].shape) < np.prod(whole.shape)
        assert regions[rule].contains(places).all()


def test_what_cannot_be_fused_is_refused_before_anything_is_registered(
    segment: Callable[..., MultiAtlasSegmentation], placed: list[str]
) -> None:
    with pytest.raises(InputError, match="E-ATL-015"):
        segment(region="gold")
    with pytest.raises(ConfigurationError, match="E-FUS-002: weighted without weights, expected a model"):
        segment(fusion=FusionSettings(fusion="weighted"))
    assert placed == []


@pytest.mark.parametrize(("shape", "code"), [((28, 26), "E-VAL-004"), ((28, 1), "E-GEO-019")])
def test_a_target_that_no_atlas_could_be_brought_onto_is_refused_once_V04(
    segment: Callable[..., MultiAtlasSegmentation], placed: list[str], tmp_path: Path, shape: tuple[int, ...], code: str
) -> None:
    """No contrast, or a single row; a test fails on any warning, so that none is told of an atlas."""
    image = Image.from_array(np.full(shape, 5.0), np.diag([3.0, 3.5, 1.0]))
    with pytest.raises(AnamorphError, match=code):
        segment(target=image, file=None)
    assert placed == []


def test_atlases_unknown_to_the_model_are_refused_before_anything_is_registered(
    segment: Callable[..., MultiAtlasSegmentation], placed: list[str], trained: Callable[..., Model],
    plan: Callable[..., Any], atlases: list[Scan], target: Scan,
) -> None:  # fmt: skip
    model = a_model(trained, plan)
    strangers = [replace(scan, modality="pet") for scan in atlases]
    with pytest.raises(InputError, match="E-MOD-005: a0_pet: modality pet"):
        segment(registration=model, atlases=strangers)
    with pytest.raises(InputError, match=r"E-MOD-005.*modality pet"):
        segment(registration=model, target=read(target.image, modality="pet"))
    with pytest.raises(ConfigurationError, match=r"E-MOD-010: .*of the image is open.*name it with --modality$"):
        segment(registration=model, target=read(target.image))
    assert placed == []


def test_atlases_with_different_labels_are_joined_and_told_L10(
    segment: Callable[..., MultiAtlasSegmentation], atlases: list[Scan], target: Scan
) -> None:
    """Label 7 of the first atlas is a label of its own, 9; two thirds still say 7."""
    assert atlases[0].labels is not None
    labels = read_labels(atlases[0].labels)
    write(replace(labels, data=torch.where(labels.data == 7, 9, labels.data)), atlases[0].labels)
    told = r"W-FUS-002: t_mr.nrrd: labels that not every atlas has: 7 in 2 of 3, 9 in 1 of 3; the others vote against"
    with pytest.warns(AnamorphWarning, match=told):
        found = segment()
    assert sorted(found.labels.names) == [3, 7, 9]
    assert min(overlap(found.labels, target)) > 0.8


def test_a_label_lost_on_the_way_is_no_label_that_an_atlas_lacks(
    segment: Callable[..., MultiAtlasSegmentation], atlases: list[Scan]
) -> None:
    """It lies outside the region that is looked at, in one atlas; no warning."""
    for atlas in atlases:
        assert atlas.labels is not None
        labels = read_labels(atlas.labels)
        labels.data[labels.data == 11] = 0
        labels.data[0, 0] = 11
        write(labels, atlas.labels)
    found = segment(margin_mm=0.0)
    assert 11 not in found.labels.names


def test_other_scans_of_the_subject_are_no_atlases(
    segment: Callable[..., MultiAtlasSegmentation], target: Scan, atlases: list[Scan], tmp_path: Path
) -> None:
    """Neither another session nor another modality; those of the same name elsewhere are other people."""
    mates = [scans.a_scan(tmp_path / "atlases", f"sub-1_ses-{name}", "ct", (1.0, 1.0)) for name in "ab"]
    image = read(target.image, modality="mr")
    asked = Target("t", lambda: image, None, target.image, "sub-1")
    run: dict[str, Any] = {"cache": tmp_path / "cache", "fusion": MAJORITY, "device": "cpu"}
    with pytest.warns(AnamorphWarning, match="W-ATL-008: t: sub-1_ses-a_ct, sub-1_ses-b_ct are of the same subject"):
        ((_, found),) = segment_targets([asked], [*atlases, *mates], **run)
    assert isinstance(found, MultiAtlasSegmentation)
    assert sorted(atlas.name for atlas in found.atlases) == ["a0_ct", "a1_ct", "a2_ct"]
    ((_, alone),) = segment_targets([replace(asked, subject=None)], [*atlases, *mates], **run)
    assert isinstance(alone, MultiAtlasSegmentation)
    assert len(alone.atlases) == 5


def test_jobs_have_paths_that_hold_in_other_folders(
    placed: list[str], target: Scan, atlases: list[Scan], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    near = [
        replace(scan, image=scan.image.relative_to(tmp_path), labels=scan.labels and scan.labels.relative_to(tmp_path))
        for scan in atlases
    ]
    paths: list[Path] = []

    def noted(work: Callable[[Any], Any], jobs: Sequence[Any]) -> Iterator[tuple[int, Any]]:
        for job in jobs:
            paths.extend([job.target, job.cache, job.atlas.image, job.atlas.labels])
        return one_by_one(work, jobs)

    image = read(target.image, modality="mr")
    segment_by_atlases(image, near, cache=Path("cache"), fusion=MAJORITY, device="cpu", map=noted)
    assert paths
    assert all(path.is_absolute() for path in paths)


def test_targets_are_dealt_out_together_and_one_may_fail(
    target: Scan, atlases: list[Scan], tmp_path: Path, placed: list[str]
) -> None:
    other = scans.a_scan(tmp_path / "targets", "u", "mr", (2.0, 1.0))
    (tmp_path / "bad.nrrd").write_bytes(b"no image")
    files = {"t": target.image, "bad": tmp_path / "bad.nrrd", "u": other.image}
    targets = [Target(name, lambda file=file: read(file, modality="mr"), None, file) for name, file in files.items()]
    batches: list[tuple[str, int]] = []

    def noted(work: Callable[[Any], Any], jobs: Sequence[Any]) -> Iterator[tuple[int, Any]]:
        batches.append((type(jobs[0]).__name__ if jobs else "", len(jobs)))
        return one_by_one(work, jobs)

    found = dict(
        (asked.name, result)
        for asked, result in segment_targets(
            targets, atlases, cache=tmp_path / "cache", fusion=MAJORITY, device="cpu", map=noted
        )
    )
    assert batches == [("Alignment", 6), ("Registration", 6), ("", 0)]
    assert isinstance(found["bad"], AnamorphError)
    assert isinstance(found["t"], MultiAtlasSegmentation)
    assert isinstance(found["u"], MultiAtlasSegmentation)
    assert found["u"].image.name == "u_mr.nrrd"
    assert min(overlap(found["t"].labels, target)) > 0.9


# -- trained models ----------------------------------------------------------------------------------------------------


def a_model(trained: Callable[..., Model], plan: Callable[..., Any], method: str = "shift", **settings: Any) -> Model:
    modalities = {"mr": Intensity(), "ct": Intensity()}
    shape = settings.pop("shape", (28, 26))
    spec = plan(orientation="RA", spacing=(3.0, 3.5), shape=shape, modalities=modalities, labels={7: "b", 3: "a"})
    return trained(method, spec, **settings)


def test_a_model_registers(
    segment: Callable[..., MultiAtlasSegmentation], trained: Callable[..., Model], plan: Callable[..., Any],
    atlases: list[Scan], target: Scan,
) -> None:  # fmt: skip
    """The first atlas lies 4, -3 mm off the target, which the model knows."""
    model = a_model(trained, plan, voxels=(4 / 3, -3 / 3.5))
    found = segment(registration=model, atlases=atlases[:1], region="none")
    assert min(overlap(found.labels, target)) > 0.85
    assert found.atlases[0].rank is None
    again = segment(registration=model, atlases=atlases[:1], region="none")
    assert again.atlases[0].cached
    assert torch.equal(found.labels.data, again.labels.data)


def test_a_model_sees_intensities_measured_on_the_whole_image(
    segment: Callable[..., MultiAtlasSegmentation], trained: Callable[..., Model], plan: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch, atlases: list[Scan], target: Scan,
) -> None:  # fmt: skip
    """As in its training and by ``register_with``; its view ends before an edge that is far brighter than the rest."""
    image = read(target.image)
    image.data[..., -1] = 1000.0
    write(image, target.image)
    model, seen = a_model(trained, plan, shape=(16, 16), voxels=(0.0, 0.0)), []
    found = type(model.method).register

    def register(self: Any, fixed: Tensor, moving: Tensor) -> Any:
        seen.append(fixed[0])
        return found(self, fixed, moving)

    monkeypatch.setattr(type(model.method), "register", register)
    segment(registration=model, atlases=atlases[:1], region="none")
    register_with(model, read(target.image, modality="mr"), read(atlases[0].image, modality="ct"))
    assert float(seen[1].max()) < 0.95
    torch.testing.assert_close(seen[0], seen[1], atol=1e-4, rtol=0)


def test_a_model_weighs(
    segment: Callable[..., MultiAtlasSegmentation], trained: Callable[..., Model], plan: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch, atlases: list[Scan],
) -> None:  # fmt: skip
    """It trusts an atlas nowhere but where it says class 1, which is label 7: that wins wherever it is proposed."""
    model = a_model(trained, plan)

    def similarity(self: Any, target: Tensor, labels: Tensor) -> Tensor:
        assert target.shape == labels.shape == (1, 1, 28, 26)
        return torch.where(labels == 1, 1.0, 0.01)

    with pytest.raises(ConfigurationError, match="E-ATL-014: shift_model: a model of shift, which weighs no atlases"):
        segment(fusion=model)
    monkeypatch.setattr(type(model.method), "similarity", similarity, raising=False)
    found, plain = segment(fusion=model, region="none"), segment(region="none")
    union = plain.probability(7) > 0
    assert found.volumes()[7] > plain.volumes()[7]
    share = float((found.labels.data[union] == 7).float().mean())
    assert share > 0.95
    assert set(found.seconds) >= {"weigh", "fuse"}


def test_a_model_that_looks_at_images_sees_the_warped_atlas(
    segment: Callable[..., MultiAtlasSegmentation], trained: Callable[..., Model], plan: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch, atlases: list[Scan],
) -> None:  # fmt: skip
    """On the scale of the whole atlas, a bright edge beyond the region included. It lies 4, -3 mm off the target."""
    plain = read(atlases[0].image)
    plain.data[..., -1] = 1000.0
    write(plain, atlases[0].image)
    model = a_model(trained, plan, "patch-simnet", registration=None, channels=(2, 3, 4), patch_size=3)
    seen: list[Tensor] = []
    compared = PatchSimNet.similarity

    def similarity(self: PatchSimNet, target: Tensor, labels: Tensor, warped: Tensor | None = None) -> Tensor:
        assert warped is not None
        seen.append(warped)
        return compared(self, target, labels, warped)

    monkeypatch.setattr(PatchSimNet, "similarity", similarity)
    found = segment(fusion=model, atlases=atlases[:1], margin_mm=0.0)
    assert found.region.shape != found.image.grid.shape
    atlas, matrix, known = read(atlases[0].image, modality="ct"), np.eye(3), model.card.plan
    matrix[:2, -1] = 4.0, -3.0
    expected = image_to_network(atlas, known, Grid(found.region.shape, matrix @ found.region.affine))
    (warped,) = seen
    onto = resample(warped[0], own_grid(found.image, known), found.region)
    torch.testing.assert_close(onto[:, 1:-1, 1:-1], expected[:, 1:-1, 1:-1], atol=0.01, rtol=0)
