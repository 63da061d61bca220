"""`okng serve` for long: memory, latency, the store and every verdict over a million inspections.

    python benchmarks/serve_long.py [--images 1000000] [--minutes 60] [--keep-gb 0.1] [--different 20000]

They are a day of a busy line. A small model, so that it is the server that works. Images are made up, `--different`
ones, each hundredth with a defect; they come again and again, `BATCH` at a time on `BATCHES` connections to /api/batch,
one by one on another to /api/inspect, whose latency is told. Each verdict, score and p-value is compared with what
`okng inspect --csv` says of that file with the same model. The server keeps its store within `--keep-gb`. After every
`EVERY` images a row is added to results/serve_long.csv, so that a run that is cut short counts, too.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import itertools
import json
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from served import Client, Server, files, model, of_all, pictures

from okng.benchmark.rows import write_rows

RESULTS = Path(__file__).parents[1] / "results" / "serve_long.csv"
SIDE, BATCH, BATCHES, EVERY = 32, 32, 2, 20_000
BOUNDARY = b"okng-boundary"


def expected(model: Path, folder: Path) -> list[tuple[str, float, float]]:
    """(verdict, score, p-value) of each image in `folder`, by the command line."""
    told = folder.parent / "expected.csv"
    command = [sys.executable, "-m", "okng", "inspect", model, folder, "--csv", told, "--threads", "1"]
    subprocess.run([str(word) for word in command], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    with told.open(newline="", encoding="utf-8") as lines:
        rows = sorted(csv.DictReader(lines), key=lambda row: row["path"])
    return [(row["verdict"], float(row["score"]), float(row["p_value"])) for row in rows]


class Batches:
    """A connection to /api/batch."""

    def __init__(self, port: int):
        self.port = port
        self.streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, images: list[bytes]) -> list[dict[str, Any]]:
        """The results of `images`."""
        if self.streams is None:
            self.streams = await asyncio.open_connection("127.0.0.1", self.port, limit=2**24)
        reader, writer = self.streams
        head = b'--%s\r\nContent-Disposition: form-data; name="images"; filename="%d.png"\r\n\r\n%s\r\n'
        body = b"".join(head % (BOUNDARY, number, image) for number, image in enumerate(images))
        body += b"--%s--\r\n" % BOUNDARY
        kind = b"Content-Type: multipart/form-data; boundary=%s\r\nContent-Length: %d" % (BOUNDARY, len(body))
        writer.write(
            b"POST /api/batch HTTP/1.1\r\nHost: localhost\r\n%s\r\nContent-Length: %d\r\n\r\n" % (kind, len(body))
        )
        writer.write(body)
        head = await reader.readuntil(b"\r\n\r\n")
        lines = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:] if line)
        told = json.loads(await reader.readexactly(int(lines[b"content-length"])))
        assert head.split()[1] == b"200", told
        results: list[dict[str, Any]] = told["results"]
        return results


class Work:
    """What is to be done, and how it went since the last row."""

    def __init__(self, images: list[bytes], wanted: list[tuple[str, float, float]], until: float):
        self.images, self.wanted, self.until = images, wanted, until
        self.numbers = itertools.count()
        self.begun = self.done = self.differing = 0
        self.took: list[float] = []

    def some(self, count: int, most: int) -> Iterator[int]:
        """The next `count` images, or as many as there are up to `most`."""
        for _ in range(count):
            if self.begun < most and time.monotonic() < self.until:
                self.begun += 1
                yield next(self.numbers) % len(self.images)

    def answered(self, numbers: list[int], told: list[dict[str, Any]]) -> None:
        """Compare."""
        for number, one in zip(numbers, told, strict=True):
            self.done += 1
            self.differing += (one["verdict"], one["score"], one["p_value"]) != self.wanted[number]

    async def up_to(self, most: int, server: Server) -> None:
        """Inspect until `most` are done, or time is up."""

        async def by_batch(client: Batches) -> None:
            while numbers := list(self.some(BATCH, most)):
                self.answered(numbers, await client.ask([self.images[number] for number in numbers]))

        async def one_by_one(client: Client) -> None:
            while numbers := list(self.some(1, most)):
                start = time.perf_counter()
                status, told = await client.ask(self.images[numbers[0]])
                self.took.append(time.perf_counter() - start)
                assert status == 200, told
                self.answered(numbers, [told])

        await asyncio.gather(one_by_one(Client(server.port)), *(by_batch(Batches(server.port)) for _ in range(BATCHES)))


def main() -> None:
    """Inspect, and look every now and then."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1_000_000)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--keep-gb", type=float, default=0.1)
    parser.add_argument("--different", type=int, default=20_000)
    asked = parser.parse_args()
    options = f"--images {asked.images} --minutes {asked.minutes:g} --keep-gb {asked.keep_gb:g}"
    common = of_all(f"python benchmarks/serve_long.py {options} --different {asked.different}")
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        small = model(folder / "small.onnx", SIDE, "autoencoder", width=8, code=8, epochs=1)
        pixels = pictures(asked.different, SIDE, seed=1)
        pixels[::100, 8:14, 8:14] = 255  # a defect
        images, parts, store = files(pixels), folder / "parts", folder / "long.sqlite"
        parts.mkdir()
        for number, content in enumerate(images):
            (parts / f"{number:06}.png").write_bytes(content)
        wanted = expected(small, parts)
        assert len(wanted) == len(images)
        server = Server(small, str(store), folder, "--keep-gb", asked.keep_gb)
        start = time.monotonic()
        work = Work(images, wanted, start + 60 * asked.minutes)

        async def all_of_it() -> None:
            before, busy = start, server.busy()
            while work.done < asked.images and time.monotonic() < work.until:
                at, work.took = work.done, []
                await work.up_to(min(asked.images, (at // EVERY + 1) * EVERY), server)
                now, busier, count = time.monotonic(), server.busy(), max(1, work.done - at)
                with sqlite3.connect(f"file:{store}?mode=ro", uri=True) as connection:
                    kept, size = connection.execute("SELECT COUNT(*), SUM(bytes) FROM okng_records").fetchone()
                latency = np.percentile([1000 * took for took in work.took], [50, 99, 100]).tolist()
                told = {
                    "images": work.done, "minutes": (now - start) / 60, "memory MB": server.memory(),
                    "latency p50 ms": latency[0], "latency p99 ms": latency[1], "longest ms": latency[2],
                    "images per second": count / (now - before), "processor ms": 1000 * (busier - busy) / count,
                    "records kept": kept, "records MB": size / 1e6, "file MB": store.stat().st_size / 1e6,
                    "wal MB": Path(f"{store}-wal").stat().st_size / 1e6,
                }  # fmt: skip
                row = {figure: value if isinstance(value, int) else f"{value:.4g}" for figure, value in told.items()}
                rows.append({**row, "verdicts that differ": work.differing, **common})
                print({**row, "verdicts that differ": work.differing}, flush=True)
                write_rows(RESULTS, list(rows[0]), rows)
                before, busy = now, busier

        asyncio.run(all_of_it())
        server.end()


if __name__ == "__main__":
    main()
