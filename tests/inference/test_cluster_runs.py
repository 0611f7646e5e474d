"""Jobs dealt to two processes of this machine: results, failures, and a worker that is killed."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from anamorph.errors import AnamorphWarning, ConfigurationError, InputError, ResourceError
from anamorph.inference import cluster
from anamorph.inference.cluster import fitting, open_cluster
from anamorph.inference.multi_atlas_jobs import Map, one_by_one

GIB = 2**30


@pytest.fixture(scope="module")
def two_workers() -> Iterator[Map]:
    pytest.importorskip("distributed", reason="Dask comes with the extra [cluster]")
    with open_cluster(workers=2) as dealt:
        yield dealt


def test_every_job_is_done_and_failures_are_told(two_workers: Map) -> None:
    def work(job: int) -> int:  # sent to the workers by value, which know no tests
        if job == 2:
            from anamorph.errors import InputError

            raise InputError("E-ATL-013", "an atlas without labels", do="leave it out")
        return os.getpid() * 10 + job

    found = dict(two_workers(work, range(6)))
    assert sorted(found) == list(range(6))
    error = found.pop(2)
    assert isinstance(error, InputError)
    assert str(error) == "E-ATL-013: an atlas without labels; leave it out"
    assert [value % 10 for _, value in sorted(found.items())] == [0, 1, 3, 4, 5]
    assert os.getpid() not in {value // 10 for value in found.values()}


def test_a_killed_worker_loses_nothing(two_workers: Map, tmp_path: Path) -> None:
    """The first to do job 1 is killed in the middle of it; what was finished is counted once."""
    kill = signal.SIGKILL

    def work(job: int) -> int:
        begun = tmp_path / f"begun{job}"
        first = not begun.exists()
        begun.touch()
        if job == 1 and first:
            os.kill(os.getpid(), kill)
        (tmp_path / f"done{job}").touch()
        return job

    found = dict(two_workers(work, range(4)))
    assert found == {place: place for place in range(4)}
    assert len(list(tmp_path.glob("done*"))) == 4


def test_this_process_does_the_jobs_where_nothing_else_is_asked_for() -> None:
    with open_cluster() as dealt:
        assert dealt is one_by_one

    def work(job: int) -> int:
        return 6 // job

    places = list(one_by_one(work, [1, 0, 3]))
    assert [place for place, _ in places] == [0, 1, 2]
    assert (places[0][1], places[2][1]) == (6, 2)
    assert isinstance(places[1][1], ZeroDivisionError)


def test_no_more_workers_than_the_memory_holds() -> None:
    assert fitting(4, 2 * GIB, 8 * GIB) == 4
    assert fitting(4, 0, GIB) == 4
    with pytest.warns(AnamorphWarning, match="W-CLU-003: 2 of 4 workers"):
        assert fitting(4, 3 * GIB, 8 * GIB) == 2
    with pytest.warns(AnamorphWarning, match="W-CLU-003: 1 of 4 workers"):
        assert fitting(4, 30 * GIB, 8 * GIB) == 1


def test_a_scheduler_that_does_not_answer() -> None:
    pytest.importorskip("distributed", reason="Dask comes with the extra [cluster]")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for address in (f"tcp://127.0.0.1:{port}", "nonsense"):
        with pytest.raises(ResourceError, match=f"E-CLU-002: no scheduler answers at {address}"):
            with_scheduler(address)


def with_scheduler(address: str, **more: Any) -> None:
    with open_cluster(address, connect_seconds=2.0, **more):
        pass


def test_what_cannot_be_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigurationError, match="E-CLU-004"):
        with_scheduler("tcp://127.0.0.1:1", workers=2)

    def absent(name: str) -> Any:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(cluster, "import_module", absent)
    with pytest.raises(ConfigurationError, match=r"E-CLU-001: .*pip install 'anamorph\[cluster\]'"):
        with_scheduler("tcp://127.0.0.1:1")
