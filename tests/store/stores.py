"""Made-up records, and Debian's PostgreSQL, started for a test as an unprivileged user."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from okng.inspection.verdict.regions import Region
from okng.inspection.verdict.result import Inspection
from okng.store import ModelUsed, Store

USER = "postgres"  # Debian's package makes it; the server refuses root


MODEL = ModelUsed("parts", "a" * 64, threshold=2.0, version=1)


def inspection(score: float = 1.0, path: str | None = "a.png", p_value: float = 0.5) -> Inspection:
    region = Region((1.0, 2.0, 3.0, 4.0), 4.0, (2.0, 3.0), score, [(1.0, 2.0), (3.0, 4.0)])
    verdict = "NG" if score > MODEL.threshold else "OK"
    return Inspection(0, path, score, p_value, verdict, (20, 30), None, (region,), {"decode": 1.0, "score": 2.0})


def put(store: Store, score: float = 1.0, **how: object) -> int:
    """One record."""
    given = {"path": how.pop("path", "a.png"), "p_value": how.pop("p_value", 0.5)}
    return store.record(inspection(score, **given), **{"model": MODEL, "source": "test", "digest": "d", **how})  # type: ignore[arg-type]


def programs() -> Path:
    """The folder of initdb and postgres, or the test is skipped."""
    import pytest

    pytest.importorskip("psycopg")
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    if not found:
        pytest.skip("PostgreSQL's server is not installed: apt-get install postgresql")
    if os.getuid() == 0 and subprocess.run(["id", USER], capture_output=True).returncode:
        pytest.skip(f"PostgreSQL refuses root, and there is no user {USER}")
    return found[-1].parent


@contextmanager
def postgres() -> Iterator[str]:
    """The URL of an empty database, of a server that ends with the block.

    Its folder is none of pytest's: those are closed to other users, again and again, by each run of tests.
    """
    bin = programs()
    as_root = os.getuid() == 0
    how: dict[str, Any] = {"user": USER, "group": USER, "extra_groups": []} if as_root else {}
    with tempfile.TemporaryDirectory(prefix="okng-postgres-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        if as_root:
            shutil.chown(folder, USER)
        quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": folder, **how}
        data = folder / "data"
        subprocess.run([bin / "initdb", "-A", "trust", "-U", "okng", "-N", "-D", data], check=True, **quiet)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={folder} -c fsync=off"
        control = [bin / "pg_ctl", "-D", data, "-w", "-s"]
        subprocess.run([*control, "-l", folder / "log", "-o", options, "start"], check=True, **quiet)
        try:
            yield f"postgresql://okng@127.0.0.1:{port}/postgres"
        finally:
            subprocess.run([*control, "-m", "immediate", "stop"], check=False, **quiet)
