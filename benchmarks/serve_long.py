"""`okng serve` for long: memory, latency and the store over a million inspections, which are a day of a busy line.

    python benchmarks/serve_long.py [--images 1000000] [--minutes 1e9] [--clients 4] [--keep-gb 0.1]

A small model, so that it is the server that works; each image is inspected as soon as one of `--clients` connections is
free, and the server keeps its store within `--keep-gb`, as it looks every ten minutes. Rows are written after each
tenth of the way, and at the end of `--minutes`. Writes results/serve.csv.
"""

from __future__ import annotations

import argparse
import asyncio
import sqlite3
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from served import Client, Server, files, model, pictures, write

SIDE = 32


async def some(server: Server, images: list[bytes], clients: int, count: int, until: float) -> list[float]:
    """Seconds that each of `count` inspections took, or of as many as are done at the time `until`."""
    took: list[float] = []
    left = iter(range(count))

    async def one() -> None:
        client = Client(server.port)
        for i in left:
            start = time.perf_counter()
            if start > until:
                break
            status, told = await client.ask(images[i % len(images)])
            assert status == 200, told
            took.append(time.perf_counter() - start)
        client.close()

    await asyncio.gather(*(one() for _ in range(clients)))
    return took


def main() -> None:
    """Inspect, and look ten times."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1_000_000)
    parser.add_argument("--minutes", type=float, default=1e9)
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--keep-gb", type=float, default=0.1)
    asked = parser.parse_args()
    options = f"--images {asked.images} --minutes {asked.minutes:g} --clients {asked.clients} --keep-gb {asked.keep_gb}"
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        small = model(folder / "small.onnx", SIDE, "autoencoder", width=8, code=8, epochs=1)
        images, store = files(pictures(50, SIDE, seed=1)), folder / "long.sqlite"
        server = Server(small, str(store), folder, "--keep-images", "none", "--keep-gb", asked.keep_gb)
        until, done = time.perf_counter() + 60 * asked.minutes, 0
        for tenth in range(1, 11):
            start, busy = time.perf_counter(), server.busy()
            took = asyncio.run(some(server, images, asked.clients, tenth * asked.images // 10 - done, until))
            if not took:
                break
            spent, busy, done = time.perf_counter() - start, server.busy() - busy, done + len(took)
            with sqlite3.connect(store) as connection:
                kept, size = connection.execute("SELECT COUNT(*), SUM(bytes) FROM okng_records").fetchone()
            how = f"autoencoder {SIDE} px, {asked.clients} clients, after {done} images"
            figures = (
                ("memory", server.memory(), "MB"),
                ("latency p50", 1000 * float(np.percentile(took, 50)), "ms"),
                ("latency p99", 1000 * float(np.percentile(took, 99)), "ms"),
                ("longest", 1000 * max(took), "ms"),
                ("throughput", len(took) / spent, "images/s"),
                ("processor time", 1000 * busy / len(took), "ms"),
                ("records kept", kept, ""),
                ("the store's file", store.stat().st_size / 1e6, "MB"),
                ("the store by its records", size / 1e6, "MB"),
            )
            for figure, value, unit in figures:
                rows.append({"figure": f"long: {figure}", "value": f"{value:.4g}", "unit": unit, "arguments": how})
            print(how, ", ".join(f"{figure} {value:.4g} {unit}" for figure, value, unit in figures), flush=True)
            write(rows, "serve_long.py", options)
        server.end()


if __name__ == "__main__":
    main()
