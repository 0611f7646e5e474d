"""Cases left out, by name or by their contrast, and labels that become one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from anamorph.data.cohort import Cohort, Pair, Scan
from anamorph.data.cohort_selection import of_modalities, of_usual_contrast, with_merged_labels, without
from anamorph.data.files import read_labels, write
from anamorph.data.image import Image, Labelmap
from anamorph.errors import InputError
from anamorph.spatial.grid import Grid

GRID = Grid.from_spacing((4, 4, 4), 1.0)
SPREADS = [3.0, 1.0, 5.0, 2.0, 4.0]
"""Standard deviation of the T1 of each case."""


@pytest.fixture
def cohort(tmp_path: Path) -> Cohort:
    """Five cases whose T1 and T2 share labels 0 to 4, the last in split test."""
    half = torch.ones(GRID.shape)
    half[:2] = -1
    labels = torch.arange(64, dtype=torch.int32).view(GRID.shape) % 5
    scans = []
    for number, spread in enumerate(SPREADS):
        write(Labelmap(labels, GRID, np.dtype(np.uint8)), tmp_path / f"c{number}_seg.nii.gz")
        for modality, sd in (("t1", spread), ("t2", 9.0)):
            image = tmp_path / f"c{number}_{modality}.nii.gz"
            write(Image((7 + sd * half)[None], GRID), image)
            split = "test" if number == 4 else "train"
            scans.append(Scan(f"c{number}", modality, image, tmp_path / f"c{number}_seg.nii.gz", split=split))
    listed = tuple(Pair(scans[2 * n], scans[2 * n + 1]) for n in range(5))
    return Cohort(tmp_path, tuple(scans), listed, {1: "core", 2: "oedema", 4: "enhancing tumour"})


def test_scans_of_some_modalities(cohort: Cohort) -> None:
    found = of_modalities(cohort, ["t1"])
    assert found.modalities == ("t1",)
    assert len(found.cases) == 5
    assert found.listed == ()
    assert of_modalities(cohort, ["t1", "t2"]).listed == cohort.listed


def test_cases_left_out_by_name(cohort: Cohort) -> None:
    found = without(cohort, ["c[13]", "*4"])
    assert found.cases == ("c0", "c2")
    assert [pair.fixed.case for pair in found.listed] == ["c0", "c2"]
    assert without(cohort, []).scans == cohort.scans


@pytest.mark.parametrize(
    ("share", "cases"),
    [(0.2, ("c0",)), (0.4, ("c0", "c3")), (0.6, ("c0", "c3", "c4")), (0.99, ("c0", "c1", "c3", "c4"))],
)
def test_the_middle_by_contrast(share: float, cases: tuple[str, ...], cohort: Cohort) -> None:
    """Ranked 1 c1, 2 c3, 3 c0, 4 c4, 5 c2; of an odd number left out one more at the upper end."""
    assert of_usual_contrast(cohort, "t1", share).cases == cases


def test_half_of_229_cases_are_114(cohort: Cohort, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the paper's 114 of 229; images are made up."""
    scans = tuple(Scan(f"c{number:03}", "t1", Path(str(number))) for number in range(229))

    def made_up(path: Path) -> Image:
        values = torch.zeros(1, *GRID.shape)
        values[0, 0] = float(path.name)
        return Image(values, GRID)

    monkeypatch.setattr("anamorph.data.cohort_selection.read", made_up)
    kept = of_usual_contrast(Cohort(Path(), scans), "t1").cases
    assert len(kept) == 114
    assert (kept[0], kept[-1]) == ("c057", "c170")


def test_labels_become_one_in_files_of_their_own(cohort: Cohort, tmp_path: Path) -> None:
    found = with_merged_labels(cohort, {2: 1, 4: 1}, tmp_path / "merged")
    assert found.label_names == {1: "core, oedema, enhancing tumour"}
    assert len({scan.labels for scan in found.scans}) == 5
    for scan, before in zip(found.scans, cohort.scans, strict=True):
        assert scan.labels is not None
        assert before.labels is not None
        assert scan.labels.parent == tmp_path / "merged"
        old, new = read_labels(before.labels), read_labels(scan.labels)
        assert new.values() == [0, 1, 3]
        assert torch.equal(new.data == 1, torch.isin(old.data, torch.tensor([1, 2, 4])))
        assert (new.dtype, scan.split) == (old.dtype, before.split)
    assert found.listed[0].fixed is found.scans[0]


@pytest.mark.parametrize(
    ("merge", "says"),
    [
        ({2: 1, 1: 3}, "label 1 both merged and merged into"),
        ({9: 1}, "label 9 in none of 5 files, expected some of 1,"),
    ],
)
def test_labels_that_cannot_be_merged(merge: dict[int, int], says: str, cohort: Cohort, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"E-COH-055: .*{says}"):
        with_merged_labels(cohort, merge, tmp_path / "merged")


def test_what_is_not_there_is_refused(cohort: Cohort) -> None:
    with pytest.raises(InputError, match="E-COH-056: no scan of modality 'ct', expected one of t1, t2"):
        of_modalities(cohort, ["t1", "ct"])
    with pytest.raises(InputError, match="E-COH-056"):
        of_usual_contrast(cohort, "ct")
    with pytest.raises(InputError, match=r"E-COH-037: no case that 'd\*' names"):
        without(cohort, ["d*"])
    with pytest.raises(InputError, match="E-COH-054: none of 10 scans is left"):
        without(cohort, ["c*"])
