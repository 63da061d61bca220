"""kill -9 in the middle of inspections: is every acknowledged record there, and none twice?

    python benchmarks/serve_kill.py [--kills 200] [--store sqlite|postgresql] [--clients 4]

Clients inspect parts, each under a key of its own, as fast as they are answered. At a random moment the server is
killed and started again; what was not answered is asked again under the same key, as a client on a line would. At the
end each answer must be in the store as it was given, and each key once. PostgreSQL is Debian's, started here; it stays,
for it is the server of okng that dies. Writes results/serve.csv.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from served import Client, Server, files, model, pictures, write

from okng.store import Store

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "store"))


async def until_killed(
    server: Server, images: list[bytes], clients: int, after: float, open_keys: list[int], answered: dict[int, Any]
) -> None:
    """Ask for `open_keys`, then for new ones, until the server is killed `after` some seconds."""
    fresh = iter(range(max([*answered, *open_keys, -1]) + 1, 10**9))
    repeated, unanswered = list(open_keys), []

    async def one() -> None:
        client = Client(server.port)
        while True:
            key = repeated.pop() if repeated else next(fresh)
            unanswered.append(key)
            try:
                status, told = await client.ask(images[key % len(images)], f"?key={key}")
            except (OSError, EOFError):
                return
            if status == 200:
                answered[key] = told
                unanswered.remove(key)
            else:
                await asyncio.sleep(0.05)

    async def kill() -> None:
        await asyncio.sleep(after)
        server.process.kill()

    await asyncio.gather(kill(), *(one() for _ in range(clients)))
    server.process.wait()
    open_keys[:] = [*repeated, *unanswered]


@contextlib.contextmanager
def database(kind: str, folder: Path) -> Iterator[str]:
    """Where the store is."""
    if kind == "sqlite":
        yield str(folder / "okng.sqlite")
        return
    from stores import postgres

    with postgres() as url:
        yield url


def main() -> None:
    """Kill, start again, count."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--store", choices=("sqlite", "postgresql"), default="sqlite")
    parser.add_argument("--clients", type=int, default=4)
    asked = parser.parse_args()
    rng, open_keys, answered = random.Random(0), [], {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        small = model(folder / "small.onnx", 32, "autoencoder", width=8, code=8, epochs=1)
        images = files(pictures(50, 32, seed=1))
        with database(asked.store, folder) as url:
            for kill in range(asked.kills):
                server = Server(small, url, folder, "--keep-images", "all", "--engine", "onnxruntime")
                after = rng.uniform(0.1, 1.5)
                asyncio.run(until_killed(server, images, asked.clients, after, open_keys, answered))
                print(f"{kill + 1} of {asked.kills}: {len(answered)} answered", flush=True)
            store = Store.open(url)
            kept = list(store.records.each())
            store.close()
    by_id = {record.id: record for record in kept}
    lost = sum(told["id"] not in by_id or by_id[told["id"]].to_dict() != told for told in answered.values())
    twice = sum(count - 1 for count in Counter(record.key for record in kept).values())
    unasked = sum(int((record.key or " -1").rpartition(" ")[2]) not in {*answered, *open_keys} for record in kept)
    figures = {"answered": len(answered), "lost": lost, "twice": twice, "never asked": unasked, "kills": asked.kills}
    print(figures)
    how = f"{asked.store}, {asked.kills} kills, {asked.clients} clients"
    rows = [
        {"figure": f"kill -9: {name}", "value": value, "unit": "", "arguments": how} for name, value in figures.items()
    ]
    options = f"--kills {asked.kills} --store {asked.store} --clients {asked.clients}"
    write(rows, "serve_kill.py", options, options)
    if lost or twice or unasked:
        raise SystemExit("acknowledged records are missing or double")


if __name__ == "__main__":
    main()
