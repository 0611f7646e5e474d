"""``prepare``: what it writes, what it does not do twice, and that nothing but the inputs decides the result."""

from __future__ import annotations

import json
import threading
import weakref
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import save_file

from anamorph.data.cohort import Cohort, Pair
from anamorph.data.configuration import load, save
from anamorph.data.files import read, read_labels, read_mask, sha256, write
from anamorph.data.image import Image
from anamorph.data.network_grid import image_to_network, labels_to_network, mask_to_network, network_grid
from anamorph.data.plan import Intensity, Plan
from anamorph.data.prepared import PreparedCohort
from anamorph.data.transform_files import read_transform, write_transform
from anamorph.errors import AnamorphError, AnamorphWarning, ConfigurationError
from anamorph.inference.register import Registration
from anamorph.spatial.transform import Affine, Field
from anamorph.training import alignment, tensors
from anamorph.training.prepare import PreparationSettings, plan_for, prepare
from tests.training.scans import with_mask, write_scans

SMALL = PreparationSettings(spacing=(3.0, 3.0, 3.0), shape=(11, 9, 12))


def files_in(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Bytes of every file, and when it was written."""
    found = (file for file in folder.rglob("*") if file.is_file())
    return {file.relative_to(folder).as_posix(): (file.read_bytes(), file.stat().st_mtime_ns) for file in found}


def changed(before: dict, after: dict, folder: str = "tensors") -> set[str]:
    """Names of the scans whose file was written anew."""
    names = {name for name in after if name.startswith(folder) and after[name] != before.get(name)}
    return {Path(name).stem for name in names}


@pytest.mark.parametrize("ndim", [2, 3])
def test_every_scan_lies_on_the_networks_grid(tmp_path: Path, ndim: int) -> None:
    cohort = write_scans(tmp_path / "scans", ndim=ndim)
    scans = (with_mask(cohort.scans[0]), *cohort.scans[1:])
    cohort = replace(cohort, scans=scans, listed=(Pair(scans[0], scans[1]),))
    prepared = prepare(cohort, tmp_path / "out")
    plan = prepared.plan
    assert plan == load(Plan, tmp_path / "out" / "plan.yaml")
    assert plan.labels == {3: "label 3", 6: "label 6"}
    assert [found.scan for found in prepared.scans] == list(cohort.scans)
    assert prepared.listed == cohort.listed
    for found in prepared.scans:
        image = read(found.scan.image, modality=found.scan.modality)
        assert found.native.same_as(image.grid)
        assert found.grid.same_as(network_grid(image, plan), 1e-9)
        loaded = found.load()
        assert set(loaded) == {"image", "labels"} | ({"mask"} if found.scan.mask else set())
        mask = read_mask(found.scan.mask, image.grid) if found.scan.mask else None
        torch.testing.assert_close(loaded["image"], image_to_network(image, plan, found.grid, mask))
        assert found.scan.labels is not None
        classes = labels_to_network(read_labels(found.scan.labels), plan, found.grid)
        assert loaded["labels"].dtype == torch.uint8
        assert torch.equal(loaded["labels"].long(), classes)
        assert found.classes == (1, 2)
        if mask is not None:
            assert torch.equal(loaded["mask"], mask_to_network(mask.data, image.grid, found.grid).to(torch.uint8))


def test_the_index_tells_the_hashes_of_sources_and_tensors(tmp_path: Path) -> None:
    cohort = write_scans(tmp_path / "scans", ndim=2)
    prepared = prepare(cohort, tmp_path / "out")
    for row, found in zip(json.loads((tmp_path / "out/index.json").read_text())["scans"], prepared.scans, strict=True):
        scan = found.scan
        assert scan.labels is not None
        assert row["facts"] == {
            "sources": {"image": sha256(scan.image), "labels": sha256(scan.labels)},
            "tensors": sha256(found.file),
            "alignment": None,
            "warnings": [],
        }


def test_nan_and_mask_together_say_where_to_look(tmp_path: Path) -> None:
    cohort = write_scans(tmp_path / "scans", ndim=2, modalities=("t1",))
    first = cohort.scans[0]
    image = read(first.image)
    values = image.data[0].numpy().copy()
    values[3:5, 6:8] = np.nan
    affine = np.diag([*image.grid.spacing, 1, 1])
    nib.save(nib.Nifti1Image(values[..., None], affine), first.image)
    with pytest.warns(AnamorphWarning, match="W-VAL-001"):
        prepared = prepare(cohort, tmp_path / "out")
    mask = prepared.scans[0].load()["mask"]
    assert mask.sum() == mask.numel() - 4 - (mask.numel() - values.size)
    assert "mask" not in prepared.scans[1].load()
    facts = json.loads((tmp_path / "out/index.json").read_text())["scans"][0]["facts"]
    assert [line[:9] for line in facts["warnings"]] == ["W-VAL-001"]


def test_a_second_run_writes_no_tensors(tmp_path: Path) -> None:
    cohort, out = write_scans(tmp_path / "scans", ndim=2), tmp_path / "out"
    prepare(cohort, out)
    first = files_in(out)
    prepare(cohort, out)
    second = files_in(out)
    assert changed(first, second) == set()
    assert first["plan.yaml"] == second["plan.yaml"]
    assert first["index.json"][0] == second["index.json"][0]


def test_only_what_changed_is_done_anew(tmp_path: Path) -> None:
    cohort, out = write_scans(tmp_path / "scans", ndim=2, labelled=lambda case: case != 1), tmp_path / "out"
    prepare(cohort, out)
    names = {scan.name for scan in cohort.scans}

    def after(edit: dict, given: Cohort = cohort) -> set[str]:
        before = files_in(out)
        plan = load(Plan, out / "plan.yaml")
        save(Plan.model_validate(plan.model_dump() | edit), out / "plan.yaml")
        prepare(given, out)
        return changed(before, files_in(out))

    plan = load(Plan, out / "plan.yaml")
    assert after({"labels": {3: "cortex", 6: "core"}}) == set()
    assert after({"modalities": plan.modalities | {"t2": Intensity(kind="zscore")}}) == {
        name for name in names if name.endswith("t2")
    }
    assert after({"shape": (11, 10)}) == names
    new = write_scans(tmp_path / "new", ndim=2, splits=("train",), modalities=("t1",))
    extra = replace(new.scans[0], case="c9", image=new.scans[0].image.rename(tmp_path / "new" / "c9.nii.gz"))
    values = read(extra.image)
    write(Image(values.data + 1, values.grid), extra.image)
    more = replace(cohort, scans=(extra, *cohort.scans))
    assert after({}, more) == {"c9_t1"}
    write(Image(values.data + 2, values.grid), extra.image)
    assert after({}, more) == {"c9_t1"}
    with pytest.warns(AnamorphWarning, match="W-COH-045"):
        assert after({"labels": {6: "core"}}) == {name for name in names if not name.startswith("c1")}


@pytest.mark.filterwarnings("error::anamorph.errors.AnamorphWarning:anamorph.training.tensors")
def test_a_label_that_counts_as_another(tmp_path: Path) -> None:
    """The smaller ball, 6, as part of the larger one, 3: no hole, no class, no warning; the plan keeps it."""
    cohort = write_scans(tmp_path / "scans", ndim=2)
    plain = prepare(cohort, tmp_path / "plain")
    found = prepare(cohort, tmp_path / "out", PreparationSettings.model_validate({"learn_as": "6=3"}))
    assert (found.plan.labels, found.plan.learn_as) == ({3: "label 3"}, {6: 3})
    assert load(Plan, tmp_path / "out" / "plan.yaml") == found.plan
    for scan in found.scans:
        whole = plain.by_name[scan.name].load()["labels"]
        assert bool((whole == 2).any())
        assert bool((scan.load()["labels"] >= (whole > 0)).all())
        assert scan.classes == (1,)
    before = files_in(found.folder)
    prepare(cohort, found.folder)  # as the plan has it
    assert changed(before, files_in(found.folder)) == set()
    assert PreparedCohort.open(found.folder).plan.learn_as == {6: 3}
    prepare(cohort, plain.folder, PreparationSettings(learn_as={6: 3}))
    again, expected = (PreparedCohort.open(folder).by_name for folder in (plain.folder, found.folder))
    for name, scan in expected.items():
        assert torch.equal(again[name].load()["labels"], scan.load()["labels"])


def test_a_plan_without_labels_that_count_as_others_has_its_tensors_as_before(tmp_path: Path) -> None:
    """The recipe of tensors says nothing of them, so that those of before need not be made again."""
    prepared = prepare(write_scans(tmp_path / "scans", ndim=2), tmp_path / "out")
    assert tensors._learnt(prepared.plan) == [3, 6]
    counted = prepared.plan.model_copy(update={"labels": {3: ""}, "learn_as": {6: 3}})
    assert tensors._learnt(counted) == [3, [(6, 3)]]


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"learn_as": {6: 9}}, "label 6 counts as 9, which is not among the labels"),
        ({"learn_as": {0: 3}}, "label 0 counts as 3: it is no label of its own, nor the background"),
    ],
)
def test_labels_that_cannot_count_as_others(given: dict, line: str, tmp_path: Path) -> None:
    cohort = write_scans(tmp_path / "scans", ndim=2)
    with pytest.raises(ConfigurationError, match=f"E-CFG-010: .*{line}"):
        prepare(cohort, tmp_path / "out", PreparationSettings.model_validate(given))
    with pytest.raises(ValidationError, match="label 6 counts as 3: it is no label of its own"):
        Plan.model_validate(
            {
                "spacing": (1, 1),
                "shape": (2, 2),
                "orientation": "RA",
                "modalities": {},
                "labels": {3: "", 6: ""},
                "learn_as": {6: 3},
            }
        )


@pytest.mark.parametrize("text", ["6", "6=", "6=3,6=2", "a=3"])
def test_words_that_are_no_labels(text: str) -> None:
    with pytest.raises(ValidationError):
        PreparationSettings.model_validate({"learn_as": text})


def test_an_interrupted_run_goes_on_to_the_same_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cohort = write_scans(tmp_path / "scans", ndim=2)
    whole = prepare(cohort, tmp_path / "whole").folder
    out, written = tmp_path / "out", []

    def save_some(*arguments, **named):
        if len(written) == 4:
            raise KeyboardInterrupt
        written.append(arguments)
        save_file(*arguments, **named)

    with monkeypatch.context() as patch:
        patch.setattr(tensors, "save_file", save_some)
        with pytest.raises(KeyboardInterrupt):
            prepare(cohort, out, PreparationSettings(workers=1))
    before = files_in(out)
    assert set(before) == {"plan.yaml"} | {f"tensors/{scan.name}.safetensors" for scan in cohort.scans[:4]}
    with pytest.raises(AnamorphError, match="prepare to its end"):
        PreparedCohort.open(out)
    prepare(cohort, out)
    after = files_in(out)
    assert changed(before, after) == {scan.name for scan in cohort.scans[4:]}
    assert {name: content for name, (content, _) in after.items()} == {
        name: content for name, (content, _) in files_in(whole).items()
    }


def test_tensors_that_were_damaged_are_made_anew(tmp_path: Path) -> None:
    cohort, out = write_scans(tmp_path / "scans", ndim=2, modalities=("t1",)), tmp_path / "out"
    prepared = prepare(cohort, out)
    good = prepared.scans[0].file.read_bytes()
    flipped = good[:-5] + bytes([good[-5] ^ 1]) + good[-4:]
    for damaged in (flipped, good[:100], b""):
        prepared.scans[0].file.write_bytes(damaged)
        prepare(cohort, out)
        assert prepared.scans[0].file.read_bytes() == good


def test_neither_workers_nor_the_order_of_files_decide(tmp_path: Path) -> None:
    cohort = write_scans(tmp_path / "scans", ndim=2)
    shuffled = replace(
        cohort, scans=tuple(cohort.scans[n] for n in np.random.default_rng(1).permutation(len(cohort.scans)))
    )
    one = prepare(cohort, tmp_path / "one", PreparationSettings(workers=1))
    many = prepare(shuffled, tmp_path / "many", PreparationSettings(workers=4))
    contents = [{name: content for name, (content, _) in files_in(found.folder).items()} for found in (one, many)]
    assert contents[0] == contents[1]


@pytest.mark.parametrize("workers", [1, 2])
def test_memory_does_not_grow_with_the_cohort(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int) -> None:
    cohort = write_scans(tmp_path / "scans", ndim=2, splits=("train",) * 8 + ("validation",))
    cohort.scans[2].labels.write_bytes(b"no labels")  # pyright: ignore
    alive: weakref.WeakSet[Image] = weakref.WeakSet()
    most, lock = [0], threading.Lock()

    def watched(*arguments, **named) -> Image:
        image = read(*arguments, **named)
        with lock:
            alive.add(image)
            most[0] = max(most[0], len(alive))
        return image

    monkeypatch.setattr(tensors, "read", watched)
    with pytest.warns(AnamorphWarning, match="W-COH-048"):
        prepare(cohort, tmp_path / "out", PreparationSettings(workers=workers), skip_bad=True)
    assert 1 <= most[0] <= workers + 1


def test_settings_decide_about_a_plan_that_is_there(tmp_path: Path) -> None:
    cohort, out = write_scans(tmp_path / "scans", ndim=2), tmp_path / "out"
    first = prepare(cohort, out).plan
    settings = PreparationSettings(shape=(7, 9), intensities={"t2": Intensity(kind="zscore")}, centre="content")
    second = prepare(cohort, out, settings).plan
    expected = {"shape": (7, 9), "centre": "content", "modalities": first.modalities | settings.intensities}  # pyright: ignore
    assert second == first.model_copy(update=expected)
    assert load(Plan, out / "plan.yaml") == second
    assert prepare(cohort, out).plan == second


WRONG = [
    ({"max_voxels": 100}, "E-COH-048"),
    ({"reference": "c0_t1"}, "E-COH-048"),
    ({"alignment": "within", "alignment_folder": "somewhere"}, "E-COH-048"),
    ({"alignment": "reference", "reference": "c2_t1"}, "E-COH-047"),  # of the validation split
    ({"shape": (7, 9, 3)}, "E-CFG-010"),
    ({"orientation": "RR"}, "E-CFG-010"),
]


def test_settings_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    cohort, out = write_scans(tmp_path / "scans", ndim=2, modalities=("t1",)), tmp_path / "out"
    prepare(cohort, out)
    before = files_in(out)
    for wrong, code in WRONG:
        with pytest.raises(ConfigurationError, match=code):
            prepare(cohort, out, PreparationSettings(**wrong))
        assert files_in(out) == before


def test_intensities_from_text() -> None:
    text = "ct=window:-160:240,t1=zscore:1:99:positive,t2=percentiles:mask,us=none"
    assert PreparationSettings(intensities=text).intensities == {  # pyright: ignore
        "ct": Intensity(kind="window", low=-160, high=240),
        "t1": Intensity(kind="zscore", low=1, high=99, content="positive"),
        "t2": Intensity(kind="percentiles", content="mask"),
        "us": Intensity(kind="none"),
    }
    for wrong in ("ct", "=window", "ct=", "ct=zscore,ct=none", "ct=window:0:1:all:2", "ct=window:a:b", "ct=slope"):
        with pytest.raises(ValidationError):
            PreparationSettings(intensities=wrong)  # pyright: ignore


SHIFT = np.array([4.0, -2.5, 3.0])


def shifted(case: int, modality: str) -> np.ndarray:
    return SHIFT * (modality == "t2") + case


def test_given_transforms_bring_the_same_anatomy_together(tmp_path: Path) -> None:
    cohort = write_scans(tmp_path / "scans", shift=shifted)
    folder, out = tmp_path / "maps", tmp_path / "out"
    folder.mkdir()
    for scan in cohort.scans:
        matrix = np.eye(4)
        matrix[:3, 3] = shifted(int(scan.case[1:]), scan.modality)
        write_transform(Affine(matrix), folder / f"{scan.name}.tfm")
    settings = SMALL.model_copy(update={"alignment": "given", "alignment_folder": folder})
    prepared = prepare(cohort, out, settings)
    labels = [scan.load()["labels"] for scan in prepared.scans]
    overlap = [
        2 * float(((a == 1) & (b == 1)).sum() / ((a == 1).sum() + (b == 1).sum())) for a in labels for b in labels
    ]
    assert min(overlap) > 0.85
    assert prepared.plan.middle is not None
    for scan in prepared.scans:
        move = shifted(int(scan.scan.case[1:]), scan.scan.modality)
        np.testing.assert_allclose(scan.grid.centre, prepared.plan.middle + move, atol=1e-6)
        np.testing.assert_allclose(scan.grid.spacing, 3)
    # The maps are kept with the result, so the folder is not needed again; nor is anything done anew.
    before = files_in(out)
    prepare(cohort, out)
    assert changed(before, files_in(out)) == set()
    turned = np.eye(4)
    turned[0, 3] = 1
    write_transform(Affine(turned), out / "alignment" / "c0_t1.tfm", overwrite=True)
    prepare(cohort, out)
    assert changed(before, files_in(out)) == {"c0_t1"}


def test_a_given_deformation_is_refused(tmp_path: Path) -> None:
    cohort = write_scans(tmp_path / "scans", modalities=("t1",))
    grid = read(cohort.scans[0].image).grid
    (tmp_path / "maps").mkdir()
    write_transform(Affine.identity(3), tmp_path / "maps" / "c0_t1.tfm")
    write_transform(Field(torch.ones(3, *grid.shape), grid), tmp_path / "maps" / "field.h5")
    (tmp_path / "maps" / "field.h5").rename(tmp_path / "maps" / "c1_t1.tfm")
    settings = PreparationSettings(alignment="given", alignment_folder=tmp_path / "maps")
    with pytest.raises(AnamorphError, match=r"E-COH-052: .* c1 \(t1\): E-COH-046: c1_t1.tfm: a deformation"):
        prepare(cohort, tmp_path / "out", settings)


def counted_engine(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """The engine replaced by the truth, and whom it was asked about."""
    asked = []

    def truth(reference: Image, image: Image, *masks) -> Affine:
        asked.append((reference.name, image.name))
        sides = [shifted(int(side.name[1]), side.name[3:5]) for side in (reference, image)]
        matrix = np.eye(4)
        matrix[:3, 3] = sides[1] - sides[0]
        return Affine(matrix)

    monkeypatch.setattr(tensors, "align", truth)
    return asked


def test_alignment_within_a_case_and_to_a_reference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cohort = write_scans(tmp_path / "scans", shift=shifted)
    asked = counted_engine(monkeypatch)
    within = prepare(cohort, tmp_path / "within", SMALL.model_copy(update={"alignment": "within"}))
    assert asked == [(f"c{n}_t1.nii.gz", f"c{n}_t2.nii.gz") for n in range(3)]
    for first, second in zip(within.scans[::2], within.scans[1::2], strict=True):
        np.testing.assert_allclose(second.grid.affine[:3, 3], first.grid.affine[:3, 3] + SHIFT)
        np.testing.assert_allclose(second.grid.affine[:3, :3], first.grid.affine[:3, :3])
        assert first.grid.same_as(network_grid(read(first.scan.image), within.plan), 1e-9)

    asked.clear()
    out = tmp_path / "reference"
    together = prepare(cohort, out, SMALL.model_copy(update={"alignment": "reference", "reference": "c1_t1"}))
    assert (together.plan.reference, len(asked)) == ("c1_t1", 5)
    assert {reference for reference, _ in asked} == {"c1_t1.nii.gz"}
    of = together.by_name
    for name, scan in of.items():
        move = shifted(int(name[1]), name[3:5]) - shifted(1, "t1")
        np.testing.assert_allclose(scan.grid.centre, of["c1_t1"].grid.centre + move, atol=1e-6)
    assert sorted(file.name for file in (out / "alignment").iterdir()) == sorted(
        f"{name}.tfm" for name in of if name != "c1_t1"
    )
    np.testing.assert_allclose(read_transform(out / "alignment" / "c2_t2.tfm")(np.zeros((1, 3))), [1 + SHIFT])

    asked.clear()  # another grid, the same alignment
    finer = prepare(cohort, out, PreparationSettings(spacing=(2.0, 2.0, 2.0)))
    assert asked == []
    np.testing.assert_allclose(finer.by_name["c2_t2"].grid.centre, of["c2_t2"].grid.centre)
    beside = prepare(cohort, out, PreparationSettings(offset=(9.0, 0.0, -3.0)))  # no other alignment either
    assert (asked, beside.plan.middle) == ([], finer.plan.middle)
    np.testing.assert_allclose(
        beside.by_name["c2_t2"].grid.centre - finer.by_name["c2_t2"].grid.centre, [9, 0, -3], atol=1e-6
    )
    other = prepare(cohort, out, PreparationSettings(reference="c0_t2"))  # another reference, another middle
    assert len(asked) == 5
    assert other.plan.middle != finer.plan.middle
    none = prepare(cohort, out, PreparationSettings(alignment="none")).plan
    assert (none.middle, none.reference) == (None, "")


def test_the_engine_is_asked_for_the_map_from_the_reference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cohort = write_scans(tmp_path / "scans", ndim=2, modalities=("ct_late", "t1"), splits=("train",))
    matrix = np.array([[1.0, 0.1, 3], [0, 1.2, -4], [0, 0, 1]])
    asked = []

    def engine(fixed: Image, moving: Image, **named) -> Registration:
        asked.append((fixed, moving, named))
        linear = Affine(matrix)
        return Registration(fixed, moving, linear, linear, Affine.identity(2))

    monkeypatch.setattr(alignment, "register", engine)
    scans = tuple(with_mask(scan) for scan in cohort.scans)
    with pytest.warns(AnamorphWarning, match="W-COH-047"):
        prepared = prepare(replace(cohort, scans=scans), tmp_path / "out", PreparationSettings(alignment="within"))
    ((fixed, moving, named),) = asked
    assert [(side.name, side.modality) for side in (fixed, moving)] == [
        ("c0_ct_late.nii.gz", "ct"),  # what the engine calls it, so that it takes its window
        ("c0_t1.nii.gz", "t1"),
    ]
    assert named["settings"].transform == "affine"
    assert [named[side].name for side in ("fixed_mask", "moving_mask")] == [
        "c0_ct_late_mask.nii.gz",
        "c0_t1_mask.nii.gz",
    ]
    first, second = (scan.grid for scan in prepared.scans)
    np.testing.assert_allclose(second.affine, matrix @ first.affine)


def test_plan_for_writes_nothing(tmp_path: Path) -> None:
    cohort = write_scans(tmp_path / "scans", ndim=2)
    plan = plan_for(cohort, tmp_path / "out", PreparationSettings())
    assert not (tmp_path / "out").exists()
    assert prepare(cohort, tmp_path / "out", plan=plan.model_copy(update={"shape": (5, 5)})).plan.shape == (5, 5)


def test_progress_runs_from_stage_to_stage(tmp_path: Path) -> None:
    told: list[tuple[str, float]] = []
    prepare(
        write_scans(tmp_path / "scans", ndim=2),
        tmp_path / "out",
        progress=lambda stage, done: told.append((stage, done)),
    )
    assert list(dict.fromkeys(stage for stage, _ in told)) == ["files", "plan", "tensors"]
    for stage in ("files", "plan", "tensors"):
        shares = [done for name, done in told if name == stage]
        assert shares == sorted(shares)
        assert shares[-1] == 1


def test_real_letters_and_hippocampi(real_data: Path, tmp_path: Path) -> None:
    folder = real_data / "hippocampus_t1"
    names = sorted(file.name for file in (folder / "images").glob("*.nii.gz"))[:4]
    from anamorph.data.cohort import Scan

    scans = tuple(
        Scan(name[:-7], "t1", folder / "images" / name, folder / "labels" / name, split=split)
        for name, split in zip(names, ("train", "train", "validation", "test"), strict=True)
    )
    prepared = prepare(Cohort(folder, scans), tmp_path / "hippocampi")
    assert prepared.plan.spacing == (1.0, 1.0, 1.0)
    for scan in prepared.scans:
        assert scan.scan.labels is not None
        native, seen = read_labels(scan.scan.labels).data, scan.load()["labels"]
        if all(n <= m for n, m in zip(native.shape, prepared.plan.shape, strict=True)):
            assert torch.bincount(seen.flatten())[1:].tolist() == torch.bincount(native.flatten())[1:].tolist()


def test_masks_may_be_left_out(tmp_path: Path) -> None:
    """Then no tensors have one, and the files stay where they are."""
    cohort = write_scans(tmp_path / "scans")
    cohort = replace(cohort, scans=tuple(with_mask(scan) for scan in cohort.scans))
    prepared = prepare(cohort, tmp_path / "out", SMALL)
    assert all("mask" in found.load() for found in prepared.scans)
    before = files_in(tmp_path / "out")
    prepared = prepare(cohort, tmp_path / "out", SMALL.model_copy(update={"masks": False}))
    assert all(found.scan.mask is None and "mask" not in found.load() for found in prepared.scans)
    assert changed(before, files_in(tmp_path / "out")) == {scan.name for scan in cohort.scans}
    assert all(scan.mask is not None and scan.mask.exists() for scan in cohort.scans)


def test_intensities_measured_in_masks_need_them() -> None:
    measured = {"t1": Intensity(kind="zscore", content="mask")}
    with pytest.raises(ValidationError, match="intensities of t1 are measured in masks, which are left out"):
        PreparationSettings(masks=False, intensities=measured)
