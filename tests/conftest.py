"""Fixtures that several rooms share."""

from __future__ import annotations

import os
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from okng.detectors.cards import cards

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: spinning threads crawl on a shared processor
AXE = "4.10.3"  # the version of axe-core


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


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium, for pages that are looked at."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install '.[dev]'")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("chromium is not installed: apt-get install chromium")
    with sync_api.sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield running
        running.close()


@pytest.fixture(scope="session")
def axe(request: pytest.FixtureRequest) -> str:
    """The script of axe-core, brought by npm once and kept in pytest's cache."""
    kept = request.config.cache.mkdir("axe-core") / f"axe-{AXE}.min.js"  # type: ignore[union-attr]
    if not kept.is_file():
        if shutil.which("npm") is None:
            pytest.skip("npm, which brings axe-core, is not installed: apt-get install npm")
        done = subprocess.run(
            ["npm", "pack", f"axe-core@{AXE}", "--silent"], cwd=kept.parent, capture_output=True, text=True, timeout=60
        )
        if done.returncode:
            pytest.skip(f"npm can't bring axe-core: {done.stderr.strip().splitlines()[-1:]}")
        with tarfile.open(kept.parent / done.stdout.strip().splitlines()[-1]) as packed:
            script = packed.extractfile("package/axe.min.js")
            assert script is not None
            kept.write_bytes(script.read())
    return kept.read_text("utf-8")
