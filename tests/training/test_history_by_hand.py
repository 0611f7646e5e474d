"""history.csv and its copy for TensorBoard."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import pytest

from anamorph.training.history import EVENTS, History, Row


def row(epoch: int, **values: float) -> Row:
    return {"epoch": epoch, "step": 10 * epoch, "network.similarity": 0.5, **values}


def read(folder: Path) -> list[dict[str, str]]:
    with (folder / "history.csv").open() as file:
        return list(csv.DictReader(file))


def test_a_row_an_epoch_and_columns_that_come_later(tmp_path: Path) -> None:
    history = History(tmp_path)
    history.add(row(1))
    history.add(row(2, **{"validation.objective": 0.25}))
    history.close()
    assert [found["epoch"] for found in read(tmp_path)] == ["1", "2"]
    assert [found["validation.objective"] for found in read(tmp_path)] == ["", "0.25"]


def test_what_went_further_than_the_checkpoint_is_dropped_and_an_epoch_stands_once(tmp_path: Path) -> None:
    history = History(tmp_path)
    for epoch in (1, 2, 3):
        history.add(row(epoch))
    history.close()
    resumed = History(tmp_path, epochs=2)
    assert [found["epoch"] for found in read(tmp_path)] == ["1", "2"]
    resumed.add(row(3, seconds=1.0))
    resumed.add(row(3, seconds=2.0))
    resumed.close()
    assert [(found["epoch"], found["seconds"]) for found in read(tmp_path)] == [("1", ""), ("2", ""), ("3", "2.0")]


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"nothing,of\nours,1\n", b"epoch\n\n"])
def test_a_file_that_is_no_history_counts_as_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "history.csv").write_bytes(content)
    history = History(tmp_path, epochs=3)
    history.add(row(4))
    history.close()
    assert [found["epoch"] for found in read(tmp_path)] == ["4"]


def test_tensorboard_reads_the_same_numbers_and_no_name_of_the_machine(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    history = History(tmp_path)
    history.add(row(1))
    history.add(row(2, **{"validation.objective": float("nan")}))
    history.close()
    events = [event for event in EventFileLoader(str(tmp_path / "tensorboard" / EVENTS)).Load() if event.summary.value]
    told = {(event.step, event.summary.value[0].tag): event.summary.value[0].tensor.float_val[0] for event in events}
    assert told == {
        (1, "step"): 10.0, (1, "network/similarity"): 0.5, (2, "step"): 20.0, (2, "network/similarity"): 0.5
    }  # fmt: skip
    assert [path.name for path in (tmp_path / "tensorboard").iterdir()] == [EVENTS]


def test_r18_without_tensorboard_there_is_the_table_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("torch.utils.tensorboard")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    history = History(tmp_path)
    history.add(row(1))
    history.close()
    assert [path.name for path in tmp_path.iterdir()] == ["history.csv"]
