"""``cohort.csv`` has a row a scan; beside it ``pairs.csv`` one a listed pair, ``labels.csv`` one a label.

==============  =======================  ======================================================================
table           column                   holds
==============  =======================  ======================================================================
``cohort.csv``  case, modality           names that make the file names of everything derived from the scan
..              image                    file, relative to the table's folder
..              labels, mask, landmarks  files, where there are any
..              split                    train (also where empty), validation, test or extra
``pairs.csv``   fixed_case, ...          fixed_modality, moving_case, moving_modality: two scans of one split
..              displacement             file of the true map on the fixed grid, where it is known
``labels.csv``  label, name              what a value of the label maps is called
==============  =======================  ======================================================================

UTF-8, with or without a byte-order mark; comma, semicolon or tab. Columns may be absent from ``labels`` on and stand
in any order. Whatever the order of the rows, scans come out by case and modality.
"""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import get_args

from anamorph.data.cohort import FILES, Cohort, Pair, Scan, Split, subject_of
from anamorph.data.cohort_table import Table, header_of
from anamorph.data.files import atomic_write
from anamorph.data.landmark_formats import FORMULA, listed
from anamorph.errors import InputError, warn

NAME, PAIRS, LABELS = "cohort.csv", "pairs.csv", "labels.csv"
COLUMNS = ("case", "modality", *FILES, "split")
PAIR_COLUMNS = ("fixed_case", "fixed_modality", "moving_case", "moving_modality", "displacement")
LABEL_COLUMNS = ("label", "name")
NEEDED, PAIRS_NEED = 3, 4
"""How many of the columns must be there, from the first on."""
MOST_NAME_BYTES = 100
FORBIDDEN = re.compile(r"[/\\\x00-\x1f\x7f-\x9f]")
"""What would lead a file name into another folder, or acts on a terminal."""
HIDDEN_OR_FORMULA = (".", *FORMULA)
"""A file whose name begins so is hidden, climbs, looks like a flag, or is computed by a spreadsheet."""


def table_of(path: Path) -> Path:
    """The table that a path means: itself, or ``cohort.csv`` in a folder."""
    return path / NAME if path.is_dir() else path


def is_cohort(path: Path) -> bool:
    """Whether a path means a cohort rather than one file: a folder with ``cohort.csv``, or a table with its columns."""
    if path.is_dir() or path.name == NAME:
        return table_of(path).is_file()
    if path.suffix.lower() != ".csv" or not path.is_file():
        return False
    try:
        with path.open("rb") as file:
            first = file.readline(1 << 12).decode("utf-8-sig", "replace")
    except OSError:  # whoever reads it as something else will say so
        return False
    return set(COLUMNS[:NEEDED]) <= set(header_of(first)[1])


def read_cohort(path: Path, root: Path | None = None) -> Cohort:
    """A cohort whose files are all there.

    Args:
        path: ``cohort.csv``, or the folder that holds it.
        root: folder that no file may lie outside of, links followed.

    Raises:
        InputError: E-COH-006, files are missing; else as in ``read_tables``.
        IntegrityError: E-COH-008, a file lies outside ``root``.
    """
    cohort = read_tables(path, root)
    refuse_missing(cohort, table_of(path).name)
    return cohort


def read_tables(path: Path, root: Path | None = None) -> Cohort:
    """What the tables say, whether or not the files are there; arguments and IntegrityError as in ``read_cohort``.

    Raises:
        InputError: E-IO-001, the table cannot be read; E-COH-001, it is none; E-COH-002, its columns; E-COH-003, a
            cell; E-COH-004, a case or modality that cannot be part of a file name; E-COH-005, a scan twice; E-COH-007,
            a subject in two splits; E-COH-009, a pair.
    """
    path = table_of(path)
    folder = path.parent.resolve()
    table = Table(path, folder, root.resolve() if root is not None else None)
    scans: dict[str, Scan] = {}
    for line, row in table.rows(COLUMNS, NEEDED):
        scan = _scan(row, line, table)
        if scan.name in scans:
            found = f"line {line}: {scan.case} {scan.modality} a second time"
            raise InputError("E-COH-005", found, file=path, expected="each case and modality once")
        scans[scan.name] = scan
    if not scans:
        raise InputError("E-COH-001", "no rows", file=path, expected="one a scan")
    _refuse_torn_subjects(scans.values(), path)
    pairs: tuple[Pair, ...] = ()
    if os.path.lexists(path.parent / PAIRS):
        table = Table(path.parent / PAIRS, folder, table.root)
        pairs = tuple(sorted(_pairs(table, scans), key=lambda pair: (pair.fixed.name, pair.moving.name)))
    names: dict[int, str] = {}
    if os.path.lexists(path.parent / LABELS):
        names = _label_names(Table(path.parent / LABELS, folder, None))
    return Cohort(folder, tuple(sorted(scans.values(), key=lambda scan: (scan.case, scan.modality))), pairs, names)


def refuse_missing(
    cohort: Cohort,
    where: str,
    do: str = "correct the paths, which are relative to the table; anamorph check names each",
) -> None:
    """Refuse a cohort some of whose files are not there.

    Args:
        cohort: which.
        where: the table or folder that names the files.
        do: what helps.

    Raises:
        InputError: E-COH-006.
    """
    files = [file for scan in cohort.scans for file in scan.files.values()]
    files += [pair.displacement for pair in cohort.listed if pair.displacement is not None]
    missing = [_shown(file, cohort.root) for file in dict.fromkeys(files) if not _is_file(file)]
    if missing:
        found = f"{len(missing)} of {len(files)} files are missing: {listed(missing)}"
        raise InputError("E-COH-006", found, file=where, do=do)


def write_cohort(cohort: Cohort, folder: Path) -> None:
    """Write ``cohort.csv``, and ``pairs.csv`` and ``labels.csv`` where there is something to list; replaces all.

    Paths are written relative to ``folder``, so that it can be moved together with the files.

    Raises:
        InputError: E-COH-004, a name that could not be read back; E-COH-003, a path of which that is true.
        ConfigurationError, ResourceError: as ``atomic_write``.
    """
    for scan in cohort.scans:
        for what in ("case", "modality"):
            _refuse_name(getattr(scan, what), what, NAME)
    _write(folder / NAME, COLUMNS, [_row_of(scan, folder) for scan in cohort.scans])
    if cohort.listed:
        _write(folder / PAIRS, PAIR_COLUMNS, [_row_of_pair(pair, folder) for pair in cohort.listed])
    else:
        (folder / PAIRS).unlink(missing_ok=True)
    if cohort.label_names:
        _write(folder / LABELS, LABEL_COLUMNS, [[str(label), name] for label, name in cohort.label_names.items()])
    else:
        (folder / LABELS).unlink(missing_ok=True)


def relative(file: Path, folder: Path) -> str:
    """A file as the table writes it."""
    text = Path(os.path.relpath(os.path.abspath(file), folder.resolve())).as_posix()
    return f"./{text}" if text.startswith(FORMULA) else text


def split_of(word: str, where: str, path: Path) -> Split:
    """The split that a word means; nothing means train.

    Raises:
        InputError: E-COH-003, another word.
    """
    words: tuple[Split, ...] = get_args(Split)
    for split in words:
        if word == split:
            return split
    if not word:
        return "train"
    near = get_close_matches(word.lower(), words, n=1, cutoff=0.3)
    do = f"did you mean {near[0]}?" if near else ""
    expected = f"{', '.join(words)} or nothing"
    raise InputError("E-COH-003", f"{where}: split {word[:40]!r}", file=path, expected=expected, do=do)


def _shown(file: Path, folder: Path) -> str:
    """A file for a message: from the table's folder, or no more than its last folder and name."""
    return file.relative_to(folder).as_posix() if file.is_relative_to(folder) else "/".join(file.parts[-2:])


def _is_file(file: Path) -> bool:
    try:
        return file.is_file()
    except OSError:  # a name too long, a folder that may not be entered
        return False


def safe_name(text: str) -> str:
    """A name from elsewhere made fit for file names, with W-COH-004 where that changes it.

    Raises:
        InputError: E-COH-004, nothing is left.
    """
    name = FORBIDDEN.sub("-", text).lstrip("".join(HIDDEN_OR_FORMULA) + " ").rstrip()
    name = name.encode(errors="replace")[:MOST_NAME_BYTES].decode(errors="ignore")
    if name != text and name:
        warn("W-COH-004", f"the name {text[:MOST_NAME_BYTES]!r} becomes {name!r}")
    _refuse_name(name, "name", None, text)
    return name


def _scan(row: dict[str, str], line: int, table: Table) -> Scan:
    for what in ("case", "modality"):
        _refuse_name(row[what], f"line {line}: {what}", table.path)
    image, labels, mask, landmarks = (table.file(row[kind], line) for kind in FILES)
    if image is None:
        raise InputError("E-COH-003", f"line {line}: no image", file=table.path, expected="a file")
    split = split_of(row["split"], f"line {line}", table.path)
    return Scan(row["case"], row["modality"], image, labels, mask, landmarks, split)


def _refuse_name(name: str, what: str, file: str | Path | None, shown: str | None = None) -> None:
    """Refuse a case or modality that cannot be part of a file name (E-COH-004)."""
    if name and not FORBIDDEN.search(name) and not name.startswith(HIDDEN_OR_FORMULA) and name == name.strip():
        if len(name.encode(errors="replace")) <= MOST_NAME_BYTES:
            return
        problem = f"of more than {MOST_NAME_BYTES} bytes"
    else:
        problem = "that cannot be part of a file name" if name else "that is empty"
    expected = f"letters, digits and the like, none of / \\ in it, none of {' '.join(HIDDEN_OR_FORMULA)} in front"
    raise InputError("E-COH-004", f"{what} {(shown or name)[:40]!r} {problem}", file=file, expected=expected)


def _refuse_torn_subjects(scans: Iterable[Scan], path: Path) -> None:
    split_of: dict[str, Scan] = {}
    for scan in scans:
        other = split_of.setdefault(subject_of(scan.case), scan)
        if other.split != scan.split:
            found = f"subject {subject_of(scan.case)} in {other.split} ({other.name}) and in {scan.split} ({scan.name})"
            raise InputError("E-COH-007", found, file=path, expected="one split a subject")


def _pairs(table: Table, scans: dict[str, Scan]) -> Iterator[Pair]:
    seen: set[str] = set()
    for line, row in table.rows(PAIR_COLUMNS, PAIRS_NEED):
        names = [f"{row[f'{side}_case']}_{row[f'{side}_modality']}" for side in ("fixed", "moving")]
        unknown = [name for name in names if name not in scans]
        problem = f"{unknown[0]}, which {NAME} does not have" if unknown else ""
        if not problem:
            pair = Pair(scans[names[0]], scans[names[1]], table.file(row["displacement"], line))
            if pair.fixed is pair.moving:
                problem = f"{names[0]} with itself"
            elif pair.fixed.split != pair.moving.split:
                problem = f"{names[0]} of {pair.fixed.split} with {names[1]} of {pair.moving.split}"
            elif pair.name in seen:
                problem = f"{names[0]} with {names[1]} a second time"
            else:
                seen.add(pair.name)
                yield pair
                continue
        expected = "each pair of two scans of one split once"
        raise InputError("E-COH-009", f"line {line}: {problem}", file=table.path, expected=expected)


def _label_names(table: Table) -> dict[int, str]:
    names: dict[int, str] = {}
    for line, row in table.rows(LABEL_COLUMNS, len(LABEL_COLUMNS)):
        label = row["label"]
        if not label.isascii() or not label.isdigit() or not int(label) or int(label) in names or not row["name"]:
            found = f"line {line}: label {label[:40]!r} named {row['name'][:40]!r}"
            raise InputError("E-COH-003", found, file=table.path, expected="each label from 1 on once, with a name")
        names[int(label)] = row["name"]
    return names


def _row_of(scan: Scan, folder: Path) -> list[str]:
    files = [relative(file, folder) if (file := getattr(scan, kind)) is not None else "" for kind in FILES]
    return [scan.case, scan.modality, *files, scan.split]


def _row_of_pair(pair: Pair, folder: Path) -> list[str]:
    names = [pair.fixed.case, pair.fixed.modality, pair.moving.case, pair.moving.modality]
    return [*names, "" if pair.displacement is None else relative(pair.displacement, folder)]


def _write(path: Path, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    with atomic_write(path) as part, part.open("w", encoding="utf-8", newline="") as file:
        try:
            csv.writer(file, lineterminator="\n").writerows([columns, *rows])
        except UnicodeEncodeError as error:
            raise InputError("E-COH-003", "a file name that is no text", file=path, do="rename the file") from error
