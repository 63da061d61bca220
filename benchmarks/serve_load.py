"""How much `okng serve` carries: throughput beside the bare engine's, and latency up to ten times that.

    python benchmarks/serve_load.py [--seconds 15] [--clients 4] [--rounds 3] [--before SRC]

The engine alone is `Inspector.inspect` over the same PNG files in memory, of 256 px, PatchCore exported, on OpenVINO;
the server judges and keeps them. Both in turns, each by its best round, for the machine has other work; the processor's
time for an image, which that disturbs less, is told beside. Then requests come at random (Poisson) at 0.5, 1, 2 and 10
times the throughput that was found, for so many seconds each, whether or not earlier ones were answered: latency is of
what was answered with a verdict, the rest was sent away with 503. Clients run in this process, on the same cores.
With `--before`, the folder src of another state of okng, the processor's time alone is told: of the engine, of the
server as it was and as it is, in turns, by the median of the rounds. Writes results/serve.csv.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from served import Client, Server, files, model, pictures, write

import okng

SIDE = 256


def bare(path: Path, images: list[bytes], seconds: float) -> tuple[float, float]:
    """Images in a second that the inspector alone judges, and the processor's milliseconds for one."""
    inspector = okng.load(path)
    list(inspector.inspect(images[:2]))
    count, start, busy = 0, time.perf_counter(), time.process_time()
    while time.perf_counter() - start < seconds:
        count += len(list(inspector.inspect(images)))
    return count / (time.perf_counter() - start), 1000 * (time.process_time() - busy) / count


async def closed(port: int, images: list[bytes], clients: int, seconds: float) -> float:
    """Images in a second that `clients` get judged, each waiting for its answer."""
    until, done = time.perf_counter() + seconds, 0

    async def one(number: int) -> None:
        nonlocal done
        client = Client(port)
        for i in range(1_000_000):
            if time.perf_counter() > until:
                break
            status, _ = await client.ask(images[(i + number) % len(images)])
            done += status == 200
        client.close()

    start = time.perf_counter()
    await asyncio.gather(*(one(number) for number in range(clients)))
    return done / (time.perf_counter() - start)


async def opened(port: int, images: list[bytes], rate: float, seconds: float) -> tuple[list[float], int]:
    """Latencies of what was judged when requests come at `rate` in a second, and how many were sent away."""
    rng, free, took, away = random.Random(0), [], [], 0
    tasks: set[asyncio.Task[None]] = set()

    async def one(content: bytes) -> None:
        nonlocal away
        client = free.pop() if free else Client(port)
        start = time.perf_counter()
        status, _ = await client.ask(content)
        if status == 200:
            took.append(time.perf_counter() - start)
        else:
            away += status == 503
        free.append(client)

    start, due, i = time.perf_counter(), 0.0, 0
    while due < seconds:
        due += rng.expovariate(rate)
        await asyncio.sleep(max(0.0, start + due - time.perf_counter()))
        task = asyncio.create_task(one(images[i % len(images)]))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        i += 1
    await asyncio.gather(*tasks)
    for client in free:
        client.close()
    return took, away


def beside(path: Path, images: list[bytes], folder: Path, asked: argparse.Namespace) -> dict[str, list[float]]:
    """The processor's milliseconds for an image in each round: of the engine alone, and served before and now."""
    own = os.environ.get("PYTHONPATH", "")
    servers = {}
    for name, source in (("before", asked.before), ("now", own)):
        os.environ["PYTHONPATH"] = source
        (folder / name).mkdir()
        servers[name] = Server(path, str(folder / name / "load.sqlite"), folder / name)
    os.environ["PYTHONPATH"] = own
    for server in servers.values():
        asyncio.run(closed(server.port, images, asked.clients, 2))  # it compiles
    spent: dict[str, list[float]] = {"alone": [], "before": [], "now": []}
    for _ in range(asked.rounds):
        spent["alone"].append(bare(path, images, asked.seconds)[1])
        for name, server in servers.items():
            busy = server.busy()
            done = asyncio.run(closed(server.port, images, asked.clients, asked.seconds))
            spent[name].append(1000 * (server.busy() - busy) / (done * asked.seconds))
    for server in servers.values():
        server.end()
    return spent


def main() -> None:
    """Measure all of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=15)
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--before", help="The folder src of another state of okng.")
    asked = parser.parse_args()
    rows: list[dict[str, Any]] = []

    def found(figure: str, value: float, unit: str, arguments: str) -> None:
        rows.append({"figure": figure, "value": f"{value:.4g}", "unit": unit, "arguments": arguments})
        print(f"{figure} ({arguments}): {value:.4g} {unit}", flush=True)

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = model(folder / "parts.onnx", SIDE, "patchcore", size=SIDE)
        images = files(pictures(16, SIDE, seed=1))
        if asked.before:
            spent = {which: np.array(each) for which, each in beside(path, images, folder, asked).items()}
            how = f"patchcore {SIDE} px, {asked.clients} clients, {asked.rounds} rounds in turns"
            for which in ("before", "now"):
                share = float(np.median(spent["alone"] / spent[which]))
                found(f"processor time, engine alone by served {which}", share, "", how)
                more = float(np.median(spent[which] - spent["alone"]))
                found(f"processor time, added by the server {which}", more, "ms", how)
            options = f"--seconds {asked.seconds:g} --clients {asked.clients} --rounds {asked.rounds} --before SRC"
            write(rows, "serve_load.py", options, "--before")
            return
        server = Server(path, str(folder / "load.sqlite"), folder)
        asyncio.run(closed(server.port, images, asked.clients, 2))  # it compiles
        rounds, served, times_spent = [], [], []
        for _ in range(asked.rounds):
            rounds.append(bare(path, images, asked.seconds / 3))
            busy = server.busy()
            done = asyncio.run(closed(server.port, images, asked.clients, asked.seconds / 3))
            served.append(done)
            times_spent.append(1000 * (server.busy() - busy) / (done * asked.seconds / 3))
        alone, capacity = [one[0] for one in rounds], max(served)
        found("processor time, engine alone", min(one[1] for one in rounds), "ms", f"patchcore {SIDE} px")
        found("processor time, served", min(times_spent), "ms", f"patchcore {SIDE} px, {asked.clients} clients")
        found("throughput, engine alone", max(alone), "images/s", f"patchcore {SIDE} px")
        found("throughput, served", capacity, "images/s", f"patchcore {SIDE} px, {asked.clients} clients")
        found("throughput, served by alone", capacity / max(alone), "", f"patchcore {SIDE} px, {asked.clients} clients")
        for times in (0.5, 1, 2, 10):
            took, away = asyncio.run(opened(server.port, images, times * capacity, asked.seconds))
            how = f"{times:g} x capacity"
            for share in (50, 99):
                found(f"latency p{share}", 1000 * float(np.percentile(took, share)), "ms", how)
            found("sent away", away / (away + len(took)), "", how)
        server.end()
    options = f"--seconds {asked.seconds:g} --clients {asked.clients}"
    write(rows, "serve_load.py", options, options)


if __name__ == "__main__":
    main()
