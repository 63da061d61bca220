"""`okng watch`'s outbox with a broker that comes and goes: is all delivered, once and in order, and is memory flat?

    python benchmarks/watch_soak.py [--seconds 60]

Records are written at 20 a second, as by a line, for Debian's mosquitto, which runs for a few seconds, is killed, and
is started again, at random times. A subscriber counts. Memory is what the process holds, after a fifth of the time and
at most from then on. Writes its rows of results/watch.csv.
"""

from __future__ import annotations

import argparse
import datetime
import itertools
import json
import os
import platform
import random
import resource
import sys
import tempfile
import threading
import time
from importlib.metadata import version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "line"))

from parts import inspector, picture, record_of
from receivers import free_port, listening, mosquitto
from watch_kill import COLUMNS, RESULTS

from okng.benchmark.rows import read_rows, write_rows
from okng.line.outbox import Outbox
from okng.line.sinks import open_sink
from okng.store import Store

RATE = 20.0  # records in a second


def held() -> float:
    """MB of memory that this process holds."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1e6


def main() -> None:
    """Run it, and count."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    rng, port, written, ended = random.Random(asked.seed), free_port(), [], threading.Event()
    memory: list[float] = []
    (found,) = inspector().inspect([picture(1)])
    with tempfile.TemporaryDirectory() as folder:
        store = Store.open(Path(folder) / "store.sqlite")
        outbox = Outbox(store, [open_sink(f"mqtt://127.0.0.1:{port}/okng/soak")], lambda line: None)

        def write() -> None:
            begun = time.monotonic()
            while time.monotonic() - begun < asked.seconds:
                written.append(record_of(store, found, f"/in/{len(written)}.png", outbox.names))
                outbox.wake()
                memory.append(held())
                time.sleep(max(0.0, begun + len(written) / RATE - time.monotonic()))
            ended.set()

        got, falls = [], 0
        outbox.start()
        threading.Thread(target=write, daemon=True).start()
        while not ended.is_set() or store.deliveries.waiting():
            with mosquitto(Path(folder), port) as broker, listening(port, "okng/soak") as some:
                end = time.monotonic() + rng.uniform(1, 6)
                while time.monotonic() < end and (not ended.is_set() or store.deliveries.waiting()):
                    time.sleep(0.05)
                time.sleep(0.2)  # what the broker has confirmed reaches the subscriber
                broker.kill()
            got += some
            falls += 1
            time.sleep(rng.uniform(0, 3))
        outbox.stop()
        store.close()
    ids = [body["id"] for body in got]
    unique = list(dict.fromkeys(ids))
    figures = {
        "seconds": asked.seconds,
        "records": len(written),
        "times the broker was killed": falls,
        "lost": len(set(written) - set(ids)),
        "out of order": sum(a > b for a, b in itertools.pairwise(unique)),
        "repeats, which the id tells": len(ids) - len(unique),
        "mb after a fifth": round(memory[len(memory) // 5], 1),
        "mb at most since": round(max(memory[len(memory) // 5 :]), 1),
    }
    print(json.dumps(figures, indent=1))
    common = {
        "what": "broker that comes and goes",
        "store": "sqlite",
        "seed": asked.seed,
        "command": f"python benchmarks/watch_soak.py --seconds {asked.seconds:g} --seed {asked.seed}",
        "versions": ", ".join(f"{name} {version(name)}" for name in ("okng", "sqlalchemy", "paho-mqtt")),
        "machine": f"{os.cpu_count()} cores, {platform.machine()}",
        "date": datetime.date.today().isoformat(),
    }
    others = [row for row in read_rows(RESULTS) if row["what"] != common["what"]]
    rows = ({**common, "figure": name, "value": value} for name, value in figures.items())
    write_rows(RESULTS, COLUMNS, [*others, *rows])


if __name__ == "__main__":
    main()
