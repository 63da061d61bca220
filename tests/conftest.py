"""Fixtures that several rooms share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: spinning threads crawl on a shared processor


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
