"""Cohorts of the fault catalogue: P04, P10, P12, S09, S10, and tables that are none."""

from __future__ import annotations

import gzip
import os
import random
from pathlib import Path

import numpy as np
import pytest

from anamorph.data.cohort import Cohort, Scan
from anamorph.data.cohort_diagnosis import describe_cohort
from anamorph.data.cohort_files import NAME, PAIRS, read_cohort, read_tables, write_cohort
from anamorph.data.files import write
from anamorph.data.image import Image
from anamorph.errors import InputError

HEADER = "case,modality,image,labels,split\n"


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "cohort").mkdir()
    (tmp_path / "secret.nii").write_text("secret")
    for name in ("a.nii", "b.nii"):
        (tmp_path / "cohort" / name).write_text(name)
    return tmp_path / "cohort"


TABLES = [
    pytest.param("", "E-COH-001", "an empty file, expected a table with the columns case, modality, image", id="empty"),
    pytest.param("case,modality,image\n", "E-COH-001", "no rows", id="header-only"),
    pytest.param(HEADER + "a,t1,a.nii\n", "E-COH-001", "line 2: 3 cells, expected 5", id="short-row"),
    pytest.param(HEADER + "a,t1,a.nii,,,,\n", "E-COH-001", "line 2: 7 cells, expected 5", id="long-row"),
    pytest.param(HEADER + '\na,t1,"a.nii,,\n', "E-COH-001", "line 3: unexpected end", id="quote"),
    pytest.param(HEADER + "a,t1,a.nii\0,,\n", "E-COH-001", "line 2: a control character", id="S10-nul"),
    pytest.param(HEADER + 'a,"t\n1",a.nii,,\n', "E-COH-001", "line 3: a control character", id="line-in-cell"),
    pytest.param(HEADER + f"a,t1,{'a' * 200_000},,\n", "E-COH-001", "line 2: field larger", id="long-cell"),
    pytest.param("case,modality\na,t1\n", "E-COH-002", "no column image", id="no-column"),
    pytest.param("case,modality,imgae\na,t1,a\n", "E-COH-002", "'imgae', .*did you mean image", id="misspelt"),
    pytest.param("case,modality,image,lables\na,t1,a,b\n", "E-COH-002", "did you mean labels", id="misspelt-optional"),
    pytest.param("case,case,modality,image\na,a,t1,a\n", "E-COH-002", "column 'case' twice", id="column-twice"),
    pytest.param(HEADER + "a,t1,,,\n", "E-COH-003", "line 2: no image", id="no-image"),
    pytest.param(HEADER + "a,t1,a.nii,,val\n", "E-COH-003", "'val', .*did you mean validation", id="val"),
    pytest.param(HEADER + "a,t1,a.nii,,valid\n", "E-COH-003", "did you mean validation", id="valid"),
    pytest.param(HEADER + "a,t1,a.nii,,tr\n", "E-COH-003", "did you mean train", id="tr"),
    pytest.param(HEADER + "a,t1,a.nii,,Train\n", "E-COH-003", "did you mean train", id="capital"),
    pytest.param(HEADER + "a,t1,a.nii,,ts\n", "E-COH-003", "did you mean test", id="ts"),
    pytest.param(
        HEADER + "a,t1,a.nii,,1\n",
        "E-COH-003",
        "split '1', expected train, validation, test, extra",
        id="number",
    ),
    pytest.param(HEADER + "../x,t1,a.nii,,\n", "E-COH-004", "line 2: case '../x'", id="S10-climbing"),
    pytest.param(HEADER + "..,t1,a.nii,,\n", "E-COH-004", "line 2: case '..'", id="S10-dots"),
    pytest.param(HEADER + "a,t1/t2,a.nii,,\n", "E-COH-004", "modality 't1/t2'", id="S10-slash"),
    pytest.param(HEADER + "a\\b,t1,a.nii,,\n", "E-COH-004", "case", id="S10-backslash"),
    pytest.param(HEADER + ",t1,a.nii,,\n", "E-COH-004", "that is empty", id="S10-empty"),
    pytest.param(HEADER + f"{'a' * 101},t1,a.nii,,\n", "E-COH-004", "more than 100 bytes", id="S10-long"),
    pytest.param(HEADER + "=HYPERLINK(1),t1,a.nii,,\n", "E-COH-004", "case", id="S08"),
    pytest.param(HEADER + "a,t1,a.nii,,\na,t1,b.nii,,\n", "E-COH-005", "line 3: a t1 a second time", id="twice"),
    pytest.param(HEADER + "a_b,c,a.nii,,\na,b_c,b.nii,,\n", "E-COH-005", "line 3", id="same-name"),
    pytest.param(HEADER + "a,t1,a.nii,,train\na,t2,b.nii,,test\n", "E-COH-007", "subject a in train", id="P04-torn"),
    pytest.param(HEADER + "a,t1,c.nii,d.nii,\n", "E-COH-006", "2 of 2 files are missing: c.nii, d.nii", id="missing"),
    pytest.param(HEADER + "a,t1,.,,\n", "E-COH-006", "1 of 1 files", id="a-folder"),
    pytest.param(HEADER + f"a,t1,{'x' * 300},,\n", "E-COH-006", "1 of 1 files", id="long-name"),
    pytest.param(HEADER + "a,t1,/no/such/place/scan.nii,,\n", "E-COH-006", ": place/scan.nii;", id="S03"),
]


@pytest.mark.parametrize(("text", "code", "match"), TABLES)
def test_a_table_that_is_refused(text, code, match, folder, refuses):
    (folder / NAME).write_text(text)
    with refuses(code, 3, folder, match):
        read_cohort(folder)


@pytest.mark.parametrize(
    ("content", "code", "match"),
    [
        pytest.param(HEADER.encode("utf-16"), "E-COH-001", "no text in UTF-8", id="utf-16"),
        pytest.param(gzip.compress(HEADER.encode()), "E-COH-001", "no text in UTF-8", id="gzip"),
        pytest.param(b"case,modality,image\n\xe9,t1,a.nii\n", "E-COH-001", "no text in UTF-8", id="latin-1"),
        pytest.param(None, "E-IO-001", "no such file", id="absent"),
    ],
)
def test_bytes_that_are_no_table(content, code, match, folder, refuses):
    if content is not None:
        (folder / NAME).write_bytes(content)
    with refuses(code, 3, folder, match):
        read_cohort(folder / NAME)


@pytest.mark.parametrize("row", ["huge"])
def test_a_table_of_more_than_64_mib(row, folder, refuses):
    with (folder / NAME).open("wb") as file:
        file.truncate((1 << 26) + 1)
    with refuses("E-COH-001", 3, folder, "67108865 bytes"):
        read_cohort(folder)


PAIR_HEADER = "fixed_case,fixed_modality,moving_case,moving_modality,displacement\n"
PAIR_TABLES = [
    pytest.param("a,t1,c,t1,\n", "E-COH-009", "line 2: c_t1, which cohort.csv does not have", id="unknown"),
    pytest.param("a,t1,a,t1,\n", "E-COH-009", "line 2: a_t1 with itself", id="itself"),
    pytest.param("a,t1,a,t2,\na,t1,a,t2,\n", "E-COH-009", "line 3: a_t1 with a_t2 a second time", id="twice"),
    pytest.param("a,t1,b,t1,\n", "E-COH-009", "a_t1 of train with b_t1 of test", id="P04-across"),
    pytest.param("a,t1,a,t2,none.nii\n", "E-COH-006", "1 of 4 files are missing: none.nii", id="missing"),
]


@pytest.mark.parametrize(("rows", "code", "match"), PAIR_TABLES)
def test_pairs_that_are_refused(rows, code, match, folder, refuses):
    (folder / NAME).write_text(HEADER + "a,t1,a.nii,,\na,t2,a.nii,,\nb,t1,b.nii,,test\n")
    (folder / PAIRS).write_text(PAIR_HEADER + rows)
    with refuses(code, 3, folder, match):
        read_cohort(folder)


def outside(folder, path):
    (folder / NAME).write_text(HEADER + f"a,t1,a.nii,,\nb,t1,{path},,\n")


def outside_by_link(folder):
    (folder / "link.nii").symlink_to("../secret.nii")
    outside(folder, "link.nii")


def outside_by_linked_folder(folder):
    (folder / "data").symlink_to("..")
    outside(folder, "data/secret.nii")


def outside_by_displacement(folder):
    (folder / NAME).write_text(HEADER + "a,t1,a.nii,,\nb,t1,b.nii,,\n")
    (folder / PAIRS).write_text(PAIR_HEADER + "a,t1,b,t1,../secret.nii\n")


def outside_by_loop(folder):
    (folder / "x.nii").symlink_to("y.nii")
    (folder / "y.nii").symlink_to("x.nii")
    outside(folder, "x.nii")


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda folder: outside(folder, "../secret.nii"), id="S09-climbing"),
        pytest.param(lambda folder: outside(folder, "a/../../secret.nii"), id="S09-hidden"),
        pytest.param(lambda folder: outside(folder, folder.parent / "secret.nii"), id="S09-absolute"),
        pytest.param(lambda folder: outside(folder, "../../../../../../etc/passwd"), id="S09-passwd"),
        pytest.param(outside_by_link, id="S09-link"),
        pytest.param(outside_by_linked_folder, id="S09-linked-folder"),
        pytest.param(outside_by_displacement, id="S09-displacement"),
        pytest.param(outside_by_loop, id="S09-loop"),
    ],
)
def test_files_outside_of_the_root(make, folder, refuses):
    make(folder)
    with refuses("E-COH-008", 6, folder, "outside the root folder"):
        read_cohort(folder, root=folder)


@pytest.mark.parametrize("row", ["S09-allowed"])
def test_files_elsewhere_are_usual_without_a_root(row, folder):
    outside(folder, "../secret.nii")
    assert read_cohort(folder).scans[1].image == folder.parent / "secret.nii"
    assert read_cohort(folder, root=folder.parent).scans[1].image == folder.parent / "secret.nii"


@pytest.mark.parametrize("row", ["P10"])
def test_the_order_of_rows_and_folders_does_not_matter(row, folder):
    rows = [f"c{number},{kind},a.nii,,\n" for number in range(20) for kind in ("t1", "t2")]
    pairs = [f"c{number},t1,c{number},t2,\n" for number in range(20)]
    found = set()
    for seed in range(5):
        random.Random(seed).shuffle(rows)
        random.Random(seed).shuffle(pairs)
        (folder / NAME).write_text(HEADER + "".join(rows))
        (folder / PAIRS).write_text(PAIR_HEADER + "".join(pairs))
        cohort = read_cohort(folder)
        found.add((cohort.scans, cohort.listed, cohort.divided(test=0.3, validation=0.2).scans))
    assert len(found) == 1


# -- P04, P12: what only the voxels show -------------------------------------------------------------------------------

SPACING = np.diag([1.0, 1.5, 2.0, 1.0])


def cohort_of(folder, count, change=None):
    """A cohort of noise; ``change(number, values, affine)`` gives the values and affine of a case."""
    scans = []
    for number in range(count):
        values = np.random.default_rng(number).normal(100, 20, (6, 7, 8)).astype(np.float32)
        values, affine = (change or (lambda n, v, a: (v, a)))(number, values, SPACING.copy())
        name = f"c{number:02}.nii.gz"
        write(Image.from_array(values, affine), folder / name)
        split = "test" if number == count - 1 else "validation" if number == count - 2 else "train"
        scans.append(Scan(f"c{number:02}", "t1", folder / name, split=split))
    write_cohort(Cohort(folder, tuple(scans)), folder)
    return read_tables(folder)


def told(found):
    return [problem.code for problem in found.problems], {
        facts.scan.case: codes for facts in found.scans if (codes := [problem.code for problem in facts.problems])
    }


@pytest.mark.parametrize("row", ["P04-healthy"])
def test_a_healthy_cohort(row, folder):
    found = describe_cohort(cohort_of(folder, 5))
    assert told(found) == ([], {})
    assert not found.refused


@pytest.mark.parametrize("name", [pytest.param("c04.nii.gz", id="P04-copy"), pytest.param("leak.nrrd", id="P04-nrrd")])
def test_an_image_in_train_and_in_test(name, folder):
    """Found by its values, whatever the file: here with another place in the world, too."""
    cohort = cohort_of(folder, 5)
    values = np.random.default_rng(0).normal(100, 20, (6, 7, 8)).astype(np.float32)
    affine = SPACING.copy()
    affine[0, 3] = 3
    write(Image.from_array(values, affine), folder / name)
    table = (folder / NAME).read_text()
    (folder / NAME).write_text(table.replace("c04.nii.gz", name))
    found = describe_cohort(read_tables(folder))
    assert found.refused
    assert told(found) == (["E-COH-024"], {})
    assert "c00_t1 (train) and c04_t1 (test) hold the same image" in found.problems[0].message
    assert len(cohort.scans) == len(found.scans)


@pytest.mark.parametrize("row", ["P04-within"])
def test_an_image_twice_in_one_split_is_a_warning(row, folder):
    cohort_of(folder, 6)
    (folder / "c01.nii.gz").write_bytes((folder / "c00.nii.gz").read_bytes())
    found = describe_cohort(read_tables(folder))
    assert told(found) == (["W-COH-023"], {})
    assert not found.refused


@pytest.mark.parametrize("row", ["P04-one"])
def test_one_case(row, folder):
    found = describe_cohort(cohort_of(folder, 1))
    assert told(found) == (["W-COH-022"], {})


@pytest.mark.parametrize("row", ["P04-no-validation"])
def test_no_validation_cases(row, folder):
    cohort = cohort_of(folder, 4)
    scans = tuple(scan for scan in cohort.scans if scan.split != "validation")
    found = describe_cohort(Cohort(folder, scans))
    assert told(found) == (["W-COH-021"], {})
    assert found.problems[0].message == "W-COH-021: no validation cases"


def off(number, values, affine):
    affine[2, 3] += 500 * (number == 2)
    return values, affine


def coarse(number, values, affine):
    return (values[::2], affine @ np.diag([6.0, 1, 1, 1])) if number == 2 else (values, affine)


def wide(number, values, affine):
    return (np.tile(values, (3, 3, 3)), affine) if number == 2 else (values, affine)


def bright(number, values, affine):
    return (values * 50, affine) if number == 2 else (values, affine)


def flat(number, values, affine):
    return (values * 0 + 7, affine) if number == 2 else (values, affine)


@pytest.mark.parametrize(
    ("change", "code", "line"),
    [
        pytest.param(off, "W-COH-016", "its centre lies 500 mm from where t1 usually is", id="P12-500-mm-off"),
        pytest.param(coarse, "W-COH-014", "voxels of 1.5 x 2 x 6 mm, where t1 usually has 1 x 1.5 x 2", id="spacing"),
        pytest.param(wide, "W-COH-015", "view of 18 x 31.5 x 48 mm, where t1 usually has 6 x 10.5 x 16", id="view"),
        pytest.param(bright, "W-COH-017", "(1 % to 99 %), where t1 usually has", id="values"),
        pytest.param(flat, "W-COH-019", "no contrast, every value is 7", id="flat"),
    ],
)
def test_a_case_unlike_the_others_is_named(change, code, line, folder):
    found = describe_cohort(cohort_of(folder, 6, change))
    assert told(found) == ([], {"c02": [code]})
    message = found.scans[2].problems[0].message
    assert message.startswith(f"{code}: c02.nii.gz: ")
    assert line in message


@pytest.mark.parametrize("row", ["P01"])
def test_one_unreadable_case_is_told_among_the_others(row, folder):
    cohort = cohort_of(folder, 5)
    (folder / "c02.nii.gz").write_bytes((folder / "c02.nii.gz").read_bytes()[:200])
    os.remove(folder / "c03.nii.gz")
    found = describe_cohort(cohort)
    assert told(found) == ([], {"c02": ["E-NII-006"], "c03": ["E-IO-001"]})
    assert found.refused
    with pytest.raises(InputError, match="E-COH-006"):
        read_cohort(Path(folder))
