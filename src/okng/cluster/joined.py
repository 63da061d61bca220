"""A Ray cluster, joined or begun, and how much room it has."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from okng.errors import OkngError, in_one_line, missing_extra

CONNECTED_WITHIN = 10.0  # seconds
RETRIES = 3  # of work whose worker died under it


@contextmanager
def joined(address: str) -> Iterator[Any]:
    """Ray, joined with the cluster at `address`, or with one that begins and ends here.

    Where the program has joined one itself, "auto" is that one, and it stays; any other address is an `OkngError`.
    """
    try:
        import ray
    except ImportError as error:
        raise missing_extra("ray", "ray") from error
    if ray.is_initialized():
        if address != "auto":
            raise OkngError(
                f"this program has joined a Ray cluster already, so it can't join {address}: "
                'say ray="auto" to work on that one, or call ray.shutdown() first'
            )
        yield ray
        return
    how: dict[str, Any] = {"include_dashboard": False, "num_cpus": os.cpu_count()} if address == "local" else {}
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # else it warns of it
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # else a cluster that it starts tells a server of itself
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    try:
        if colon and port.isdecimal():  # Ray itself would try for minutes
            socket.create_connection((host.strip("[]"), int(port)), CONNECTED_WITHIN).close()
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **how)
    except (ConnectionError, ValueError, RuntimeError, OSError) as error:
        why = in_one_line(error)
        raise OkngError(f"there is no Ray cluster at {address} ({why}); --ray local starts one") from error
    try:
        yield ray
    finally:
        ray.shutdown()


def begin_in(folder: Path) -> None:
    """Have this worker find relative names where the program that asks finds them.

    A worker begins where its cluster was started. A machine without this `folder` can be asked for whole names alone.
    """
    with suppress(OSError):
        os.chdir(folder)


def workers_of(ray: Any, threads: int, gpu: bool) -> int:
    """As `room_of`; `OkngError` where there is none."""
    count = room_of(ray, threads, gpu)
    if count < 1:
        wanted = "GPU" if gpu else f"machine with {threads} cores"
        raise OkngError(f"the cluster has no {wanted}; it has {ray.cluster_resources()}")
    return count


def room_of(ray: Any, threads: int, gpu: bool) -> int:
    """How many workers of `threads` cores, or with `gpu` of a GPU beside, its machines have room for at once."""
    machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    fit = [(int(has.get("CPU", 0) // threads), int(has.get("GPU", 0))) for has in machines]  # a worker is on one
    return sum(min(each) if gpu else each[0] for each in fit)
