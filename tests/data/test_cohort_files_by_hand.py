"""Tables of a cohort: what is read, in whichever dialect, and what comes back after writing."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from anamorph.data.cohort import Cohort, Pair, Scan
from anamorph.data.cohort_files import (
    COLUMNS,
    LABELS,
    NAME,
    PAIRS,
    is_cohort,
    read_cohort,
    read_tables,
    relative,
    safe_name,
    write_cohort,
)
from anamorph.errors import AnamorphWarning, InputError

Tables = Callable[..., Path]

ROWS = """case,modality,image,labels,mask,landmarks,split
b,t1,images/b_t1.nii.gz,,,,test
a,t2,images/a_t2.nii.gz,,mask.nii.gz,points.csv,
a,t1,images/a_t1.nii.gz,labels/a.nii.gz,,,train
"""


@pytest.fixture
def tables(tmp_path: Path) -> Tables:
    """``tables(text, pairs)``: the folder of a cohort; the files that the rows name exist."""
    folder = tmp_path / "cohort"

    def make(text: str = ROWS, pairs: str | None = None, encoding: str = "utf-8") -> Path:
        folder.mkdir(exist_ok=True)
        (folder / NAME).write_text(text, encoding)
        if pairs is not None:
            (folder / PAIRS).write_text(pairs)
        for name in ("images/b_t1", "images/a_t2", "images/a_t1", "labels/a", "mask", "map"):
            (folder / f"{name}.nii.gz").parent.mkdir(exist_ok=True)
            (folder / f"{name}.nii.gz").touch()
        (folder / "points.csv").touch()
        return folder

    return make


def test_scans_come_out_by_case_and_modality(tables: Tables) -> None:
    folder = tables()
    cohort = read_cohort(folder)
    assert cohort.root == folder
    assert cohort.scans == (
        Scan("a", "t1", folder / "images/a_t1.nii.gz", folder / "labels/a.nii.gz"),
        Scan("a", "t2", folder / "images/a_t2.nii.gz", None, folder / "mask.nii.gz", folder / "points.csv"),
        Scan("b", "t1", folder / "images/b_t1.nii.gz", split="test"),
    )
    assert (cohort.cases, cohort.modalities, cohort.listed) == (("a", "b"), ("t1", "t2"), ())
    assert list(cohort.scans[1].files) == ["image", "mask", "landmarks"]
    assert read_cohort(folder / NAME) == cohort


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        pytest.param(ROWS, "utf-8-sig", id="byte-order-mark"),
        pytest.param(ROWS.replace(",", ";"), "utf-8", id="semicolons"),
        pytest.param(ROWS.replace(",", "\t"), "utf-8", id="tabs"),
        pytest.param(ROWS.replace("\n", "\r\n"), "utf-8", id="windows"),
        pytest.param(ROWS.replace("b,t1,images", '"b" , "t1", images'.replace(" ", "")), "utf-8", id="quotes"),
        pytest.param(ROWS.replace("case,modality", " Case ,MODALITY"), "utf-8", id="capitals"),
        pytest.param(ROWS.replace("\na,t2", "\n,,,,,,\n\na,t2"), "utf-8", id="empty-rows"),
        pytest.param(ROWS.replace("images/", "./images/../images/"), "utf-8", id="dots"),
    ],
)
def test_dialects_of_one_table(text: str, encoding: str, tables: Tables) -> None:
    expected = read_cohort(tables())
    assert read_cohort(tables(text, encoding=encoding)) == expected


def test_three_columns_are_enough_in_any_order(tables: Tables) -> None:
    folder = tables("image,modality,case\nimages/a_t1.nii.gz,t1,a\n")
    assert read_cohort(folder).scans == (Scan("a", "t1", folder / "images/a_t1.nii.gz"),)


def test_another_column_is_ignored_with_a_warning(tables: Tables) -> None:
    with pytest.warns(AnamorphWarning, match=r"W-COH-002: cohort\.csv: columns ignored: age, site$"):
        cohort = read_cohort(tables("case,modality,image,age,site\na,t1,mask.nii.gz,7,rome\n"))
    assert len(cohort.scans) == 1


def test_pairs(tables: Tables) -> None:
    pairs = "fixed_case,fixed_modality,moving_case,moving_modality,displacement\na,t2,a,t1,map.nii.gz\na,t1,a,t2,\n"
    folder = tables(pairs=pairs)
    cohort = read_cohort(folder)
    assert [pair.name for pair in cohort.listed] == ["a_t1-a_t2", "a_t2-a_t1"]
    assert [pair.displacement for pair in cohort.listed] == [None, folder / "map.nii.gz"]
    assert cohort.pairs("within", fixed_modality="t2") == (Pair(cohort.scans[1], cohort.scans[0]),)


def test_a_table_written_is_read_again(tables: Tables, tmp_path: Path) -> None:
    cohort = read_cohort(tables())
    cohort = Cohort(cohort.root, cohort.scans, (Pair(cohort.scans[0], cohort.scans[1], cohort.root / "map.nii.gz"),))
    other = tmp_path / "elsewhere" / "deep"
    other.mkdir(parents=True)
    write_cohort(cohort, other)
    again = read_cohort(other)
    assert (again.scans, again.listed) == (cohort.scans, cohort.listed)
    assert again.root == other
    assert str(tmp_path) not in (other / NAME).read_text() + (other / PAIRS).read_text()
    table = pd.read_csv(other / NAME, dtype=str, keep_default_na=False)
    assert tuple(table.columns) == COLUMNS
    assert next(iter(table.image)) == "../../cohort/images/a_t1.nii.gz"
    assert list(table.split) == ["train", "train", "test"]
    extra = Cohort(cohort.root, (cohort.scans[0], replace(cohort.scans[2], split="extra")))
    write_cohort(extra, other)
    assert read_cohort(other).scans == extra.scans


def test_a_table_without_pairs_takes_those_of_the_old_one_away(tables: Tables) -> None:
    pairs = "fixed_case,fixed_modality,moving_case,moving_modality\na,t2,a,t1\n"
    folder = tables(pairs=pairs)
    cohort = read_cohort(folder)
    assert len(cohort.listed) == 1
    write_cohort(Cohort(folder, cohort.scans), folder)
    assert read_cohort(folder).listed == ()


def test_links_keep_the_names_that_tell_what_they_are(tables: Tables) -> None:
    folder = tables()
    (folder / "store").mkdir()
    (folder / "images/a_t1.nii.gz").rename(folder / "store/0123")
    (folder / "images/a_t1.nii.gz").symlink_to("../store/0123")
    assert read_cohort(folder, root=folder).scans[0].image.name == "a_t1.nii.gz"


def test_a_linked_folder_is_written_so_that_it_is_found(tables: Tables, tmp_path: Path) -> None:
    cohort = read_cohort(tables())
    (tmp_path / "far" / "away").mkdir(parents=True)
    (tmp_path / "near").symlink_to(tmp_path / "far" / "away")
    write_cohort(cohort, tmp_path / "near")
    assert read_cohort(tmp_path / "near").scans == cohort.scans


def test_a_path_that_a_spreadsheet_would_compute(tmp_path: Path) -> None:
    assert relative(tmp_path / "=1+1.nii", tmp_path) == "./=1+1.nii"
    assert relative(tmp_path / "a" / "=1.nii", tmp_path) == "a/=1.nii"


def test_what_is_a_cohort(tables: Tables, tmp_path: Path) -> None:
    folder = tables()
    assert is_cohort(folder)
    assert is_cohort(folder / NAME)
    (folder / NAME).rename(folder / "other.csv")
    assert is_cohort(folder / "other.csv")
    assert not is_cohort(folder)
    (tmp_path / "points.csv").write_text("x,y,z\n1,2,3\n")
    assert not is_cohort(tmp_path / "points.csv")
    assert not is_cohort(tmp_path / "absent.csv")


def test_all_missing_files_are_counted_and_ten_named(tables: Tables) -> None:
    folder = tables()
    (folder / "mask.nii.gz").unlink()
    (folder / "labels/a.nii.gz").unlink()
    with pytest.raises(InputError, match=r"E-COH-006: cohort\.csv: 2 of 6 files are missing: labels/a\.nii\.gz, mask"):
        read_cohort(folder)
    assert len(read_tables(folder).scans) == 3
    rows = "".join(f"c{number},t1,{number}.nii\n" for number in range(12))
    with pytest.raises(InputError, match=r"12 of 12 files .* and 2 more"):
        read_cohort(tables("case,modality,image\n" + rows))


@pytest.mark.parametrize(
    ("text", "name"),
    [("../x", "-x"), ("a/b", "a-b"), ("=1", "1"), (" T2 ", "T2"), ("x\0y", "x-y"), ("é" * 80, "é" * 50)],
)
def test_s10_a_name_from_elsewhere_is_made_fit(text: str, name: str) -> None:
    with pytest.warns(AnamorphWarning, match=r"W-COH-004") as issued:
        found = safe_name(text)
    assert found == name.lstrip("-")
    assert "\n" not in str(issued[0].message)


def test_a_decent_name_stays(recwarn: pytest.WarningsRecorder) -> None:
    assert safe_name("Zürich 7_t1.w") == "Zürich 7_t1.w"
    assert len(recwarn) == 0


def test_a_name_of_which_nothing_is_left() -> None:
    with pytest.raises(InputError, match="E-COH-004"):
        safe_name("..")


def test_sessions_of_a_subject_share_its_split(tables: Tables) -> None:
    text = "case,modality,image,split\ns_ses-1,t1,mask.nii.gz,train\ns_ses-2,t1,map.nii.gz,test\n"
    with pytest.raises(InputError, match=r"E-COH-007.*subject s in train \(s_ses-1_t1\) and in test \(s_ses-2_t1\)"):
        read_tables(tables(text))


def test_a_file_name_that_is_no_text_cannot_be_written(tmp_path: Path) -> None:
    image = tmp_path / os.fsdecode(b"\xff.nii")
    with pytest.raises(InputError, match="E-COH-003"):
        write_cohort(Cohort(tmp_path, (Scan("a", "t1", image),)), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_names_of_labels_are_written_and_read_again(tables: Tables) -> None:
    folder = tables()
    cohort = read_cohort(folder)
    assert cohort.label_names == {}
    names = {4: "liver, left lobe", 10: "Zürich"}
    write_cohort(Cohort(folder, cohort.scans, label_names=names), folder)
    assert (folder / LABELS).read_text(encoding="utf-8") == 'label,name\n4,"liver, left lobe"\n10,Zürich\n'
    assert read_cohort(folder).label_names == names
    write_cohort(cohort, folder)
    assert not (folder / LABELS).exists()


@pytest.mark.parametrize("row", ["0,x", "-1,x", "1.5,x", "one,x", "1,", "4,again", "²,x"])
def test_labels_that_cannot_be_named(row: str, tables: Tables) -> None:
    folder = tables()
    (folder / LABELS).write_text(f"label,name\n4,liver\n{row}\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"E-COH-003: labels\.csv: line 3: label"):
        read_cohort(folder)
