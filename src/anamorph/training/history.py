"""What a training went through: one row an epoch, as ``history.csv``, and for TensorBoard where it is installed."""

from __future__ import annotations

import csv
import math
import time
import warnings
from collections.abc import Mapping
from pathlib import Path

from anamorph.data.files import atomic_write

Row = Mapping[str, float | int]
EVENTS = "events.out.tfevents.anamorph"
"""Of TensorBoard, which takes any name with tfevents in it; its own writer would put the host's name there."""


class History:
    """The rows of a run's epochs; the file is replaced as a whole with each new one.

    Args:
        folder: of the run.
        epochs: that are done; later rows of a run that went further without a checkpoint are dropped.
    """

    def __init__(self, folder: Path, epochs: int = 0) -> None:
        self.path = folder / "history.csv"
        self.rows = [row for row in _read(self.path) if int(row["epoch"]) <= epochs]
        if self.path.exists():
            self._write()
        self._board = Board(folder / "tensorboard") if Board.installed() else None
        if self._board is not None:
            for row in self.rows:
                self._board.add({name: float(text) for name, text in row.items() if text})

    def add(self, row: Row) -> None:
        """One more epoch, or one anew."""
        self.rows = [before for before in self.rows if int(before["epoch"]) < row["epoch"]]
        self.rows.append({name: str(value) for name, value in row.items()})
        self._write()
        if self._board is not None:
            self._board.add(row)

    def close(self) -> None:
        """Let go of TensorBoard's file."""
        if self._board is not None:
            self._board.close()

    def _write(self) -> None:
        names = list(dict.fromkeys(name for row in self.rows for name in row))
        with atomic_write(self.path) as part, part.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, names, restval="", lineterminator="\n")
            writer.writeheader()
            writer.writerows(self.rows)


class Board:
    """The same rows for TensorBoard (extra ``track``)."""

    def __init__(self, folder: Path) -> None:
        from torch.utils.tensorboard import RecordWriter
        from torch.utils.tensorboard.writer import Event  # pyright: ignore[reportAttributeAccessIssue]

        folder.mkdir(exist_ok=True)
        self._event = Event
        self._records = RecordWriter((folder / EVENTS).open("wb"))
        self._records.write(Event(wall_time=time.time(), file_version="brain.Event:2").SerializeToString())

    @staticmethod
    def installed() -> bool:
        """Whether it can be written for."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of its own dependencies
                import torch.utils.tensorboard  # noqa: F401
        except ImportError:
            return False
        return True

    def add(self, row: Row) -> None:
        """One more epoch."""
        from torch.utils.tensorboard.summary import scalar

        for name, value in row.items():
            if name != "epoch" and math.isfinite(value):
                summary = scalar(name.replace(".", "/"), float(value))
                event = self._event(wall_time=time.time(), step=int(row["epoch"]), summary=summary)
                self._records.write(event.SerializeToString())
        self._records.flush()

    def close(self) -> None:
        """Let go of the file."""
        self._records.close()


def _read(path: Path) -> list[dict[str, str]]:
    """The rows of an earlier run; a file that cannot be understood counts as empty."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return [row for row in csv.DictReader(file) if (row.get("epoch") or "").isdigit()]
    except (OSError, UnicodeDecodeError, csv.Error):
        return []
