"""Jobs dealt to two processes of this machine: results, failures, and a worker that is killed."""

from __future__ import annotations

import importlib.util
import os
import signal
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from anamorph.data.files import read
from anamorph.errors import AnamorphWarning, ConfigurationError, InputError, ResourceError
from anamorph.fusion import FusionSettings
from anamorph.inference import cluster
from anamorph.inference.cluster import fitting, open_cluster, processes_for
from anamorph.inference.multi_atlas import segment_by_atlases
from anamorph.inference.multi_atlas_jobs import Map, one_by_one
from anamorph.pairwise.settings import PairwiseSettings

spec = importlib.util.spec_from_file_location("multi_atlas_scans", Path(__file__).with_name("multi_atlas_scans.py"))
assert spec is not None
assert spec.loader is not None
scans = importlib.util.module_from_spec(spec)
spec.loader.exec_module(scans)

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


@pytest.mark.timeout(600)  # workers that import torch for the first time
def test_a_segmentation_by_two_workers_is_that_of_one_process(two_workers: Map, tmp_path: Path) -> None:
    """Alignments and registrations by the pairwise engine; an atlas without labels fails there as here."""
    target = scans.a_scan(tmp_path / "targets", "t", "ct", (0.0, 0.0))
    atlases = [
        scans.a_scan(tmp_path / "atlases", f"a{i}", "ct", shift) for i, shift in enumerate([(4.0, -3), (-3.0, 4)])
    ]
    atlases.append(replace(atlases[0], case="unlabelled", labels=None))
    engine = PairwiseSettings(transform="rigid", search="header", linear_similarity="mse")
    found = {}
    for name, dealt in {"here": one_by_one, "there": two_workers}.items():
        with pytest.warns(AnamorphWarning, match="W-ATL-004: t_ct.nrrd: the atlas unlabelled_ct does not.*E-ATL-013"):
            found[name] = segment_by_atlases(
                read(target.image, modality="ct"), atlases, cache=tmp_path / name, registration=engine,
                fusion=FusionSettings(fusion="majority"), device="cpu", map=dealt,
            )  # fmt: skip
    here, there = found["here"], found["there"]
    assert torch.equal(here.labels.data, there.labels.data)
    torch.testing.assert_close(here.share, there.share)
    assert here.labels.values() == [0, 3, 7]
    facts = [[(atlas.name, atlas.used, atlas.cached, atlas.kept) for atlas in one.atlases] for one in (here, there)]
    assert facts[0] == facts[1]
    assert sorted(path.name for path in (tmp_path / "here").iterdir()) == sorted(
        path.name for path in (tmp_path / "there").iterdir()
    )


def test_this_process_does_the_jobs_where_nothing_else_is_asked_for() -> None:
    for workers in (None, 1):
        with open_cluster(workers=workers) as dealt:
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


def test_as_many_processes_as_cores_memory_and_work_allow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "cores", lambda: 8)
    monkeypatch.setattr(cluster, "find_spec", lambda name: object())
    assert processes_for(100, GIB, 100 * GIB) == 8
    assert processes_for(100, GIB, 100 * GIB, threads=3) == 3
    assert processes_for(100, 3 * GIB, 8 * GIB) == 2
    assert processes_for(100, 30 * GIB, 8 * GIB) == 1
    assert processes_for(100, 0, GIB) == 8
    assert processes_for(9, GIB, 100 * GIB) == 2
    assert processes_for(0, GIB, 100 * GIB) == 1
    monkeypatch.setattr(cluster, "find_spec", lambda name: None)
    assert processes_for(100, GIB, 100 * GIB) == 1


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
