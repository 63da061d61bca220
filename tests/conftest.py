"""Fixtures that several rooms share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: spinning threads crawl on a shared processor


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Which tests one process runs, under `--dist loadgroup`: those that share what they fitted or started.

    A file's, and of the contract each detector's, of both its files.
    """
    for item in items:
        group = item.nodeid.partition("::")[0]
        if group.startswith("tests/contract/") and isinstance(item, pytest.Function) and hasattr(item, "callspec"):
            given = item.callspec.params
            group = f"contract of {given.get('fitted') or given.get('name') or group}"
        item.add_marker(pytest.mark.xdist_group(group))


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
