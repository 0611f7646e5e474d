"""Trainings in processes of their own: several that train together as torchrun starts them, or one to be killed."""

from __future__ import annotations

import multiprocessing
import os
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch

from anamorph.methods import METHODS
from anamorph.methods.base import Method

FORKS: Any = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(
    [
        *("anamorph.training.loop", "anamorph.cli.main", "anamorph.cli.train", "tests.training.tiny"),
        *("torch._dynamo", "torch.utils.tensorboard", "psutil"),  # which torch and Accelerate import when first used
    ]
)


def start(
    function: Callable[..., None],
    *arguments: Any,
    log: Path,
    environment: Mapping[str, str] | None = None,
    more: Mapping[str, Any] | None = None,
) -> BaseProcess:
    """A process that runs a function of this tree; what it prints goes to ``log``."""
    process = FORKS.Process(target=_run, args=(function, arguments, more or {}, environment or {}, log))
    process.start()
    return process


def together(function: Callable[..., None], *arguments: Any, log: Path, processes: int = 2) -> list[BaseProcess]:
    """The same, several times, with the environment that torchrun gives."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return [
        start(
            function,
            *arguments,
            log=log.with_suffix(f".{rank}"),
            environment={
                "RANK": str(rank),
                "LOCAL_RANK": str(rank),
                "WORLD_SIZE": str(processes),
                "LOCAL_WORLD_SIZE": str(processes),
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(port),
                "OMP_NUM_THREADS": "1",
            },
        )
        for rank in range(processes)
    ]


def codes(processes: Sequence[BaseProcess], seconds: float = 60) -> list[int | None]:
    """How they ended; None for one that has not within the time, and is killed."""
    end = time.monotonic() + seconds
    for process in processes:
        process.join(max(0.0, end - time.monotonic()))
    found = [process.exitcode for process in processes]
    for process in processes:
        if process.exitcode is None:
            process.kill()
            process.join()
    return found


def _run(
    function: Callable[..., None],
    arguments: Sequence[Any],
    more: Mapping[str, Any],
    environment: Mapping[str, str],
    log: Path,
) -> None:
    from tests.training.tiny import TINY

    kinds: dict[str, type[Method]] = TINY
    METHODS.update(kinds)
    os.environ.update(environment)
    torch.set_num_threads(1)
    with log.open("w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        sys.stdout, sys.stderr = os.fdopen(1, "w", 1), os.fdopen(2, "w", 1)
        function(*arguments, **more)
