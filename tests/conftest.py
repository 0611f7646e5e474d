"""Options and fixtures that every test may use."""

from __future__ import annotations

import os
import signal
from pathlib import Path

# Numerical libraries read these when they are first imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS", "1")
os.environ["MPLBACKEND"] = "agg"

import hypothesis
import pytest
import torch

hypothesis.settings.register_profile("repeatable", deadline=None, derandomize=True, database=None, print_blob=True)
hypothesis.settings.load_profile("repeatable")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--device", choices=["cpu", "cuda"], default="cpu", help="where the tensor tests compute")


def pytest_configure(config: pytest.Config) -> None:
    torch.set_num_threads(1)
    # A shell that runs this in the background has it ignored, and the programs under test would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if config.getoption("--device") == "cuda" and not torch.cuda.is_available():
        raise pytest.UsageError("--device cuda: torch sees no GPU here")


@pytest.fixture(scope="session")
def device(pytestconfig: pytest.Config) -> torch.device:
    """Where tensors of this run live: ``--device``."""
    return torch.device(str(pytestconfig.getoption("--device")))


@pytest.fixture
def generator() -> torch.Generator:
    """Seeded anew for each test, and on the CPU, so that every device sees the same numbers."""
    return torch.Generator().manual_seed(0)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real images that ``ANAMORPH_DATA`` names; its licences keep them out of the repository."""
    folder = os.environ.get("ANAMORPH_DATA")
    if not folder:
        pytest.skip("ANAMORPH_DATA does not name a folder of real images")
    if not Path(folder).is_dir():
        pytest.skip("ANAMORPH_DATA names a folder that does not exist")
    return Path(folder)
