"""`okng watch` is killed with signal 9 at random moments while images come: what is lost, what is done twice?

    python benchmarks/watch_kill.py [--kills 200] [--store postgresql://USER@HOST/NAME] [--broker-port 1883]

Images come into a folder at random times, most renamed into place, some written slowly. The program is started, killed
after up to two seconds of work, and started again. It moves the files and sends to a CSV file, to a web server that
fails at every fifth message, and with --broker-port to MQTT's topic okng/watch_kill. At the end it may finish, and
everything is counted: every image must be recorded once and lie in one folder, and each sink must have had it, a
receiver that drops ids it has seen exactly once. Writes results/watch.csv.
"""

from __future__ import annotations

import argparse
import datetime
import itertools
import json
import os
import platform
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from typing import IO

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "line"))

from parts import inspector, png
from receivers import Web, listening

from okng.benchmark.rows import read_rows, write_rows
from okng.store import Store

RESULTS = Path(__file__).parents[1] / "results" / "watch.csv"
COLUMNS = ("what", "store", "figure", "value", "seed", "command", "versions", "machine", "date")
PACKAGES = ("okng", "sqlalchemy", "watchfiles", "httpx", "paho-mqtt", "onnxruntime")
A_KILL = 12  # images for each


def feed(place: Path, count: int, rng: random.Random, done: threading.Event) -> None:
    """Put `count` images into the folder, at random times."""
    for number in range(count):
        content = png(number, number % 5 == 0)
        target = place / f"{number}.png"
        if number % 10 == 7:
            with target.open("wb") as file:
                for at in range(0, len(content), 500):
                    file.write(content[at : at + 500])
                    file.flush()
                    time.sleep(rng.uniform(0, 0.02))
        else:
            hidden = place / f".{number}.part"
            hidden.write_bytes(content)
            hidden.rename(target)
        time.sleep(rng.uniform(0, 0.15))
        while len(list(place.glob("*.png"))) > 3 * A_KILL:  # the program is not there most of the time
            time.sleep(0.05)
    done.set()


def started(command: list[str], log: IO[str]) -> subprocess.Popen[str]:
    """The program, once it watches."""
    program = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert program.stderr is not None
    while line := program.stderr.readline():
        log.write(line)
        if line.startswith("watching"):
            threading.Thread(target=lambda: log.writelines(program.stderr or ()), daemon=True).start()
            return program
    raise SystemExit(f"okng watch did not start; see {log.name}")


def main() -> None:
    """Kill it, and count."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--store")
    parser.add_argument("--broker-port", type=int)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    rng = random.Random(asked.seed)
    web = Web(lambda count: {1: "500", 6: "cut"}.get(count % 10))
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory())).resolve()
        place, model, table = folder / "in", folder / "parts.onnx", folder / "all.csv"
        place.mkdir()
        inspector().save(model)
        url = asked.store or str(folder / "store.sqlite")
        got = None
        words = ["watch", model, place, "--store", url, "--then", "move", "--engine", "onnxruntime", "--settle", "0.1"]
        words += ["--to", f"csv:{table}", "--to", f"webhook:{web.url}"]
        if asked.broker_port:
            words += ["--to", f"mqtt://127.0.0.1:{asked.broker_port}/okng/watch_kill"]
            got = stack.enter_context(listening(asked.broker_port, "okng/watch_kill"))
        command = [sys.executable, "-m", "okng", *map(str, words)]
        log = stack.enter_context((folder / "log").open("w"))
        count, fed = asked.kills * A_KILL, threading.Event()
        threading.Thread(target=feed, args=(place, count, random.Random(asked.seed), fed), daemon=True).start()
        working = 0.0
        for kill in range(asked.kills):
            program = started(command, log)
            pause = rng.uniform(0, 2)
            time.sleep(pause)
            working += pause
            os.kill(program.pid, signal.SIGKILL)
            program.wait()
            print(f"\r{kill + 1} kills", end="", file=sys.stderr)
        program = started(command, log)
        store = Store.open(url)
        fed.wait()
        while list(place.glob("*.png")) or store.deliveries.waiting():
            time.sleep(0.2)
        program.terminate()  # like Ctrl-C, which a program in the background is not told of
        program.wait()
        recorded = Counter(Path(str(record.path)).name for record in store.records.each())
        verdicts = {Path(str(record.path)).name: record.verdict for record in store.records.each()}
        store.close()
        moved = Counter(path.name for path in place.glob("*/*.png"))
        wrong = sum(verdicts.get(path.name) != path.parent.name for path in place.glob("*/*.png"))
        seen = {
            "csv": [line.split(",")[-1] for line in table.read_text().splitlines()[1:]],
            "webhook": [body["message"] for body in web.bodies()],
        }
        if got is not None:
            seen["mqtt"] = [body["message"] for body in got]
        in_order = [body["id"] for body in unique(web.bodies())]
    figures = {
        "kills": asked.kills,
        "seconds of work": round(working),
        "images": count,
        "not recorded": sum(recorded[f"{number}.png"] == 0 for number in range(count)),
        "recorded twice": sum(times > 1 for times in recorded.values()),
        "not moved, or under two verdicts": sum(moved[f"{number}.png"] != 1 for number in range(count)),
        "moved under the wrong verdict": wrong,
        "webhook out of order": sum(a > b for a, b in itertools.pairwise(in_order)),
    }
    for sink, ids in seen.items():
        figures[f"{sink}: lost"] = count - len(set(ids))
        figures[f"{sink}: repeats, which the id tells"] = len(ids) - len(set(ids))
    print("\n" + json.dumps(figures, indent=1))
    kind = "postgresql" if asked.store else "sqlite"
    given = f" --kills {asked.kills}" + (" --store URL" if asked.store else "") + f" --seed {asked.seed}"
    common = {
        "what": "kill -9",
        "store": kind,
        "seed": asked.seed,
        "command": "python benchmarks/watch_kill.py" + given + (" --broker-port PORT" if got is not None else ""),
        "versions": ", ".join(f"{name} {version(name)}" for name in PACKAGES),
        "machine": f"{os.cpu_count()} cores, {platform.machine()}",
        "date": datetime.date.today().isoformat(),
    }
    others = [row for row in read_rows(RESULTS) if (row["what"], row["store"]) != (common["what"], kind)]
    write_rows(
        RESULTS, COLUMNS, [*others, *({**common, "figure": name, "value": value} for name, value in figures.items())]
    )


def unique(bodies: list[dict[str, int]]) -> list[dict[str, int]]:
    """As a receiver sees them that drops what it has seen."""
    return list({body["message"]: body for body in bodies}.values())


if __name__ == "__main__":
    main()
