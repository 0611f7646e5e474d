"""The cells of a table that people write: what is no table, or lacks a column, is refused with its line."""

from __future__ import annotations

import csv
import io
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from anamorph.data.landmark_formats import listed
from anamorph.errors import InputError, IntegrityError, warn

MOST_BYTES = 1 << 26
MOST_SHOWN = 40
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
LIKE = 0.75
"""Likeness (difflib) from which an unknown column is a known one misspelt, rather than one more."""


@dataclass(frozen=True)
class Table:
    """A CSV file.

    Args:
        path: where it is.
        folder: what the paths in it are relative to, resolved.
        root: folder that they must not lead out of, resolved; None for anywhere.
    """

    path: Path
    folder: Path
    root: Path | None = None

    def rows(self, columns: Sequence[str], needed: int) -> Iterator[tuple[int, dict[str, str]]]:
        """Line number and cells by column, "" where there is none; empty rows are skipped.

        Args:
            columns: those that are known.
            needed: how many of them must be there, from the first on.

        Raises:
            InputError: E-IO-001, E-COH-001, E-COH-002.
        """
        lines = io.StringIO(self._text(columns[:needed]), newline="")
        delimiter, header = header_of(lines.readline())
        self._check_columns(header, columns, needed)
        reader = csv.reader(lines, delimiter=delimiter, strict=True)
        try:
            for cells in reader:
                cells = [cell.strip() for cell in cells]
                if not any(cells):
                    continue
                line = reader.line_num + 1
                if len(cells) != len(header):
                    raise self._refused(f"line {line}: {len(cells)} cells", str(len(header)))
                if any(map(CONTROL.search, cells)):
                    raise self._refused(f"line {line}: a control character", "one line of text a cell")
                found = dict(zip(header, cells, strict=True))
                yield line, {column: found.get(column, "") for column in columns}
        except csv.Error as error:
            raise self._refused(f"line {reader.line_num + 1}: {error}", "a table") from error

    def file(self, text: str, line: int) -> Path | None:
        """The file that a cell names; None for an empty one. Links are not followed: their names tell what they hold.

        Raises:
            IntegrityError: E-COH-008, it lies outside ``root``, links followed.
        """
        if not text:
            return None
        file = Path(os.path.normpath(self.folder / text))
        if self.root is not None and not _is_within(file, self.root):
            found = f"line {line}: {file.name[:MOST_SHOWN]} lies outside the root folder"
            raise IntegrityError("E-COH-008", found, file=self.path, expected="files within it")
        return file

    def _text(self, needed: Sequence[str]) -> str:
        try:
            size = self.path.stat().st_size
            content = self.path.read_bytes() if 0 < size <= MOST_BYTES else b""
        except OSError as error:
            reason = (error.strerror or "it cannot be read").lower()
            raise InputError("E-IO-001", reason, file=self.path, expected="a table") from error
        if not content:
            found = f"{size} bytes" if size else "an empty file"
            raise self._refused(found, f"a table with the columns {', '.join(needed)}")
        try:
            return content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise self._refused("no text in UTF-8", "CSV in UTF-8") from error

    def _check_columns(self, header: Sequence[str], columns: Sequence[str], needed: int) -> None:
        absent = [column for column in columns if column not in header]
        unknown = [column for column in header if column not in columns]
        twice = [column for column, count in Counter(header).items() if count > 1 and column]
        near = [(column, near) for column in unknown for near in get_close_matches(column, absent, n=1, cutoff=LIKE)]
        do = ""
        if twice:
            found = f"column {twice[0][:MOST_SHOWN]!r} twice"
        elif near:
            found, do = f"unknown column {near[0][0][:MOST_SHOWN]!r}", f"did you mean {near[0][1]}?"
        elif set(absent) & set(columns[:needed]):
            found = f"no column {absent[0]}"
        else:
            if any(unknown):
                warn("W-COH-002", f"columns ignored: {listed(list(filter(None, unknown)))}", file=self.path)
            return
        raise InputError("E-COH-002", found, file=self.path, expected=", ".join(columns), do=do)

    def _refused(self, found: str, expected: str) -> InputError:
        return InputError("E-COH-001", found, file=self.path, expected=expected)


def header_of(line: str) -> tuple[str, list[str]]:
    """The delimiter of a table with this first line, and its columns in lower case."""
    delimiter = max(",;\t", key=line.count)
    return delimiter, [cell.strip().strip('"').lower() for cell in line.strip("\r\n").split(delimiter)]


def _is_within(file: Path, root: Path) -> bool:
    try:
        return file.resolve().is_relative_to(root)
    except (OSError, RuntimeError):  # a loop of links
        return False
