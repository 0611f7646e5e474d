"""Jobs dealt to other processes by Dask: some on this machine, or those of a scheduler that runs elsewhere.

Whoever does a job has to see the same folders under the same names. A worker that dies loses the job it was doing,
which goes to another one; what was finished is on the disk. A job on which several workers died is given up, and told.
"""

from __future__ import annotations

import math
import os
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from importlib import import_module
from importlib.util import find_spec
from typing import Any
from urllib.parse import urlsplit

from anamorph.errors import ConfigurationError, ResourceError, warn
from anamorph.inference.memory import available_memory
from anamorph.inference.multi_atlas_jobs import Map, one_by_one

CONNECT_SECONDS = 30.0
ROOM = 1.5
"""Memory that a worker may take beyond the estimate before it is stopped: an estimate is one."""
JOBS_EACH = 4
"""Registrations from which a process is worth its start, where nobody has said how many."""
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@contextmanager
def open_cluster(
    scheduler: str | None = None,
    workers: int | None = None,
    *,
    job_bytes: int = 0,
    max_memory: int | None = None,
    threads: int | None = None,
    connect_seconds: float = CONNECT_SECONDS,
) -> Iterator[Map]:
    """Whoever does the jobs: a scheduler's workers, processes of this machine, or this process one by one.

    Args:
        scheduler: address, as ``tcp://HOST:8786``.
        workers: processes to start here; fewer where memory does not suffice (W-CLU-003). 1 or None: this one.
        job_bytes: that one job takes.
        max_memory: bytes for all workers together; those of the machine if absent.
        threads: of all of them together; all cores if absent.
        connect_seconds: how long to wait for the scheduler.

    Raises:
        ConfigurationError: E-CLU-001, Dask is not installed; E-CLU-004, both are asked for.
        ResourceError: E-CLU-002, no scheduler answers.
    """
    if scheduler is None and workers in (None, 1):
        yield one_by_one
        return
    if scheduler is not None and workers is not None:
        raise ConfigurationError("E-CLU-004", "a scheduler and processes of this machine", expected="one of the two")
    distributed = _distributed()
    with ExitStack() as stack:
        if scheduler is None:
            assert workers is not None
            fit = fitting(workers, job_bytes, max_memory)
            address = stack.enter_context(_local(distributed, fit, job_bytes, threads or cores()))
        else:
            _refuse_silence(scheduler, connect_seconds)
            address = scheduler
        client = stack.enter_context(distributed.Client(address, timeout=connect_seconds, set_as_default=False))
        yield _dealt_by(distributed, client)


def processes_for(jobs: int, job_bytes: int, max_memory: int | None = None, threads: int | None = None) -> int:
    """How many processes of this machine to start where nobody has said: one a core, within the memory.

    Args:
        jobs: registrations; with few of them, starting takes longer than it saves.
        job_bytes: that one of them takes.
        max_memory: bytes for all; those of the machine if absent.
        threads: to use in all; all cores if absent.

    Returns:
        1, this one alone, also where Dask is not installed.
    """
    if find_spec("distributed") is None:
        return 1
    return max(1, min(threads or cores(), jobs // JOBS_EACH, _most(job_bytes, max_memory)))


def cores() -> int:
    """Of the CPU, that this process may use."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _most(job_bytes: int, max_memory: int | None) -> int:
    """How many jobs fit into the memory at once, one at least."""
    budget = available_memory() if max_memory is None else max_memory
    return max(1, budget // job_bytes) if job_bytes else sys.maxsize


def fitting(workers: int, job_bytes: int, max_memory: int | None = None) -> int:
    """How many processes fit into the memory, one at least."""
    most = _most(job_bytes, max_memory)
    if most < workers:
        warn("W-CLU-003", f"{most} of {workers} workers are started, so that each has the memory of a registration")
    return min(workers, most)


def _distributed() -> Any:
    """Dask's scheduler, of the extra ``cluster``."""
    try:
        return import_module("distributed")
    except ImportError as error:
        do = "pip install 'anamorph[cluster]'"
        raise ConfigurationError("E-CLU-001", "Dask is not installed", expected="dask[distributed]", do=do) from error


def _refuse_silence(scheduler: str, seconds: float) -> None:
    """Knock before Dask does, which would go on trying in the background."""
    try:
        address = urlsplit(scheduler)
        with socket.create_connection((address.hostname or "", address.port or 0), timeout=seconds):
            return
    except (OSError, ValueError) as error:
        found = f"no scheduler answers at {scheduler}"
        raise ResourceError("E-CLU-002", found, expected="a running one, as tcp://HOST:8786") from error


@contextmanager
def _local(distributed: Any, workers: int, job_bytes: int, cores: int) -> Iterator[str]:
    """Address of processes on this machine, which share some of its cores."""
    threads = str(max(1, cores // workers))
    limit = math.ceil(ROOM * job_bytes) if job_bytes else "auto"
    with distributed.LocalCluster(
        n_workers=workers, threads_per_worker=1, processes=True, memory_limit=limit, dashboard_address=None,
        host="127.0.0.1", silence_logs=50, env=dict.fromkeys(THREADS, threads),
    ) as cluster:  # fmt: skip
        yield cluster.scheduler_address


def _dealt_by(distributed: Any, client: Any) -> Map:
    def dealt(work: Callable[[Any], Any], jobs: Sequence[Any]) -> Iterator[tuple[int, Any]]:
        # Not "pure": the same job twice is asked for twice, and found in the cache.
        futures = [client.submit(work, job, pure=False, retries=0) for job in jobs]
        places = {future.key: place for place, future in enumerate(futures)}
        try:
            for future in distributed.as_completed(futures, loop=client.loop):
                error = future.exception()
                place = places[future.key]
                yield place, future.result() if error is None else _told(distributed, error)
                future.release()
        finally:
            client.cancel(futures)

    return dealt


def _told(distributed: Any, error: BaseException) -> Exception:
    """Why a job came to nothing, in words where its workers died."""
    if isinstance(error, distributed.KilledWorker):
        found = f"{error.allowed_failures + 1} workers ended while they did it"  # pyright: ignore[reportAttributeAccessIssue]
        return ResourceError("E-CLU-005", found, do="give each worker more memory, or use fewer of them")
    return error if isinstance(error, Exception) else RuntimeError(type(error).__name__)
