"""Batches come in order, whoever reads them, and what goes wrong is named."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from anamorph.data.prepared import PreparedCohort
from anamorph.errors import InputError, ResourceError
from anamorph.training.configuration import PairChoice
from anamorph.training.distributed import Processes
from anamorph.training.items import Items, choose_items
from anamorph.training.reading import Pass, Reader, budget_of_process


@pytest.fixture
def items(cohort: PreparedCohort) -> Items:
    return choose_items(cohort, "train", "pairs", PairChoice(rule="within"))


@pytest.fixture(params=[0, 2], ids=["thread", "processes"])
def reader(request: pytest.FixtureRequest, items: Items) -> Iterator[Reader]:
    made = Reader(items, request.param)
    yield made
    made.close()


def test_batches_come_in_the_order_in_which_they_are_asked_for(reader: Reader, items: Items) -> None:
    wanted = [[3, 1], [], [2], [9, 8, 7], [0]]
    for items_of_batch, batch in zip(wanted, reader.batches(wanted), strict=True):
        if not items_of_batch:
            assert batch is None
            continue
        assert batch is not None
        expected = items.load(items_of_batch)
        assert {name: values.tobytes() for name, values in batch.items()} == {
            name: values.tobytes() for name, values in expected.items()
        }
    assert reader.waited > 0


def test_it_reads_ahead_but_not_everything(items: Items) -> None:
    asked = []
    reader = Reader(items)
    batches = reader.batches(asked.append(number) or [0] for number in range(50))
    next(batches)
    assert asked == [0, 1, 2]
    reader.close()


def test_a_damaged_file_is_named(reader: Reader, cohort: PreparedCohort) -> None:
    cohort.by_name["c0_ct"].file.write_bytes(b"none")
    with pytest.raises(InputError, match=r"E-TRN-002: c0_ct.safetensors: c0_ct: its tensors are damaged"):
        next(reader.batches([[0]]))


def test_tensors_stay_in_memory_where_they_fit(items: Items, cohort: PreparedCohort) -> None:
    small, large = Reader(items, budget=items.bytes - 1), Reader(items, budget=items.bytes)
    for reader in (small, large):
        list(reader.batches([[0, 1]]))
    for number in range(5):
        for modality in ("ct", "mr"):
            cohort.by_name[f"c{number}_{modality}"].file.unlink()
    assert len(list(large.batches([[0, 1]]))) == 1
    with pytest.raises(InputError):
        list(small.batches([[0, 1]]))
    for reader in (small, large):
        reader.close()


def test_neighbours_on_one_machine_share_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("anamorph.training.reading.available_memory", lambda: 8000)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    assert budget_of_process() == 2000
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert budget_of_process() == 500


def test_r12_a_killed_reading_process_is_a_refusal_that_names_signal_and_cases(items: Items) -> None:
    reader = Reader(items, workers=2)
    batches = reader.batches([[0, 5]] * 100)
    next(batches)
    pid = reader._workers[0].pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    begin = time.monotonic()
    with pytest.raises(ResourceError) as caught:
        list(batches)
    assert time.monotonic() - begin < 30
    assert caught.value.code == "E-TRN-007"
    assert "signal SIGKILL" in str(caught.value)
    assert "c0_ct-c0_mr, c2_mr-c2_ct" in str(caught.value)
    reader.close()


def test_r11_processes_need_no_shared_memory(items: Items) -> None:
    before = set(Path("/dev/shm").iterdir())
    reader = Reader(items, workers=1)
    list(reader.batches([[0, 1]] * 3))
    made = {path.name for path in set(Path("/dev/shm").iterdir()) - before}
    assert not [name for name in made if name.startswith("torch_")]
    reader.close()


def test_a_pass_shows_every_item_once_in_order_each_time(cohort: PreparedCohort) -> None:
    cases = choose_items(cohort, "train", "cases", PairChoice())
    every = Pass(cases, 4, Processes("cpu"))
    for _ in range(2):
        assert [batch["index"].tolist() for batch in every] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert [int(number) for (number,) in every.computed(lambda batch: [batch["index"].sum()])] == [6, 22, 17]
    image = next(iter(every))["image"][0].numpy()
    assert np.array_equal(image, cases.load([0])["image"][0])
