"""Made-up records, and Debian's PostgreSQL, started for a test as an unprivileged user."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from okng.inspection.regions import Region
from okng.inspection.result import Inspection
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
def postgres(folder: Path) -> Iterator[str]:
    """The URL of an empty database, of a server with its data in `folder` that ends with the block."""
    bin = programs()
    how = {"user": USER, "group": USER, "extra_groups": []} if os.getuid() == 0 else {}
    folder.mkdir(parents=True, exist_ok=True)
    if os.getuid() == 0:
        shutil.chown(folder, USER)
        for above in folder.parents:  # pytest's folders are root's alone
            if above.stat().st_uid == 0 and above != Path("/"):
                above.chmod(above.stat().st_mode | 0o011)
    data = folder / "data"
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": folder, **how}
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
