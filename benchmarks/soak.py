"""Many threads, many images, one inspector: is every score what one thread alone is told, and is memory flat?

    python benchmarks/soak.py [--threads 8] [--images 10000]

Every thread inspects all images, each from another place on, so that at any time they are at different ones. A small
autoencoder on made-up 32 px images, each engine on one thread a call and in a process of its own. Scores and maps are
compared to the last digit with those of one thread. Memory is what the process holds (Linux), after a tenth of the work
and at most from then on. How much more all threads score in a second than one is measured with a larger autoencoder on
128 px images, in turns, each by the round in which the machine gave it most: with less than a core for one thread, or
for all of them no more than that, the figure stays blank. Writes results/soak.csv.
"""

from __future__ import annotations

import argparse
import datetime
import json
import math
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path

import numpy as np

import okng
from okng.benchmark.rows import write_rows
from okng.exporting import export_onnx

RESULTS = Path(__file__).parents[1] / "results" / "soak.csv"
ENGINES = ("torch", "openvino", "onnxruntime")
CHUNK = 100  # images handed over at once
SIDE = 32
ROUNDS, LARGE = 40, 128  # of the throughput


def pictures(count: int, side: int) -> np.ndarray:
    """uint8 (count, side, side): stripes, each image with another phase and noise of its own."""
    rng = np.random.default_rng(0)
    phase = rng.uniform(0, 6, (count, 1, 1))
    stripes = 120 + 60 * np.sin(np.arange(side) / 3 + phase)  # (count, 1, side)
    return (stripes + rng.uniform(-40, 40, (count, side, side))).astype(np.uint8)


def soak(model: str, engine: str, threads: int, count: int) -> dict[str, float]:
    """Inspect `count` images on one thread, then on each of `threads`."""
    images = pictures(count, SIDE)
    inspector = okng.load(model, engine=engine, threads=1)

    def inspect(chunk: int) -> list[tuple[float, int]]:
        """The score of each image and a checksum of its map."""
        some = images[chunk * CHUNK : (chunk + 1) * CHUNK]
        return [(found.score, zlib.crc32(found.map)) for found in inspector.inspect(some)]  # type: ignore[arg-type]

    chunks = count // CHUNK
    alone = [inspect(chunk) for chunk in range(chunks)]
    memory: list[float] = []
    differing = [0, 0]

    def inspect_all(thread: int) -> None:
        first = thread * chunks // threads
        for chunk in (*range(first, chunks), *range(first)):
            for found, wanted in zip(inspect(chunk), alone[chunk], strict=True):
                differing[0] += found[0] != wanted[0]
                differing[1] += found[1] != wanted[1]
            memory.append(held())

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(inspect_all, range(threads)))
    return {
        "inspected": len(memory) * CHUNK,
        "scores that differ": differing[0],
        "maps that differ": differing[1],
        "mb after a tenth": memory[len(memory) // 10],
        "mb at most since": max(memory[len(memory) // 10 :]),
    }


def throughput(model: str, engine: str, threads: int) -> dict[str, float]:
    """How much more `threads` threads score in a second than one, and how many cores they were given."""
    pixels = pictures(2 * threads, LARGE)[..., None]
    score = okng.load(model, engine=engine, threads=1).engine
    rounds: dict[int, list[tuple[float, float]]] = {}  # by threads: cores given, images in a second
    for _ in range(1 + ROUNDS):
        for count in (1, threads):
            with ThreadPoolExecutor(count) as pool:
                start, busy = time.perf_counter(), time.process_time()
                list(pool.map(lambda image: score(image[None]), pixels))
                seconds = time.perf_counter() - start
                given = (time.process_time() - busy) / seconds
            rounds.setdefault(count, []).append((given, len(pixels) / seconds))
    one, all_of_them = (max(rounds[count][1:]) for count in (1, threads))  # the first round compiles
    free = one[0] > 0.9 and all_of_them[0] > 1
    return {
        "throughput of all threads by that of one": all_of_them[1] / one[1] if free else math.nan,
        "cores one was given": one[0],
        "cores all were given": all_of_them[0],
    }


def held() -> float:
    """MB of memory that this process holds."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1e6


def main() -> None:
    """Run every engine and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=8)
    parser.add_argument("--images", type=int, default=10_000)
    asked = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name, side, width in (("small", SIDE, 8), ("large", LARGE, 32)):
            arguments = {"width": width, "code": 8, "epochs": 1}
            inspector = okng.fit(pictures(40, side), "autoencoder", holdout=0.5, device="cpu", **arguments)
            inspector.save(Path(folder) / f"{name}.okng")
            export_onnx(inspector, Path(folder) / f"{name}.onnx")
        for engine in ENGINES:
            told = json.dumps([folder, engine, asked.threads, asked.images])
            command = [sys.executable, __file__, "--worker", told]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            found = json.loads(done.stdout.splitlines()[-1])
            print(engine, found, flush=True)
            rows += [
                {"engine": engine, "figure": name, "value": "" if math.isnan(value) else f"{value:.6g}"}
                for name, value in found.items()
            ]
    common = {
        "threads": asked.threads,
        "images": asked.images,
        "command": f"python benchmarks/soak.py --threads {asked.threads} --images {asked.images}",
        "versions": ", ".join(f"{name} {version(name)}" for name in ("okng", "torch", "openvino", "onnxruntime")),
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, no GPU",
        "date": datetime.date.today().isoformat(),
    }
    write_rows(RESULTS, ("engine", "figure", "value", *common), [{**row, **common} for row in rows])


def worker(folder: str, engine: str, threads: int, count: int) -> dict[str, float]:
    """What is told of one engine."""
    small, large = (f"{folder}/{name}.{'okng' if engine == 'torch' else 'onnx'}" for name in ("small", "large"))
    return {**soak(small, engine, threads, count), **throughput(large, engine, threads)}


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        print(json.dumps(worker(*json.loads(sys.argv[2]))))
    else:
        main()
