"""Fixtures that several rooms share."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from okng.detectors.cards import cards

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: spinning threads crawl on a shared processor


@pytest.hookimpl(optionalhook=True)  # there is none without pytest-xdist
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Which tests one process runs: those that share what they fitted or started (see `together`).

    Its own way to say so, `xdist_group`, is not heard by pytest 9.
    """
    from xdist.scheduler import LoadScopeScheduling

    class Together(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return together(nodeid)

    return Together(config, log)


def together(test: str) -> str:
    """What `test`, a node's id, is run with: a file's tests; of the contract a detector's, of all files."""
    file, _, name = test.partition("::")
    if file.startswith("tests/contract/"):
        for given in name.partition("[")[2].rstrip("]").split("-"):
            if given in cards():
                return f"contract of {given}"
    return file


@pytest.fixture(scope="session")
def okng_data() -> Path:
    """The folder with mnist/, cifar10/, coil20/, magnetic_tile/ and mvtec_ad/, named by OKNG_DATA."""
    named = os.environ.get("OKNG_DATA")
    if not named:
        pytest.skip("OKNG_DATA does not name a folder of real images")
    folder = Path(named).expanduser()
    if not folder.is_dir():
        pytest.skip(f"OKNG_DATA names {folder}, which is missing")
    return folder
