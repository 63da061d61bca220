"""A newcomer's first ten minutes, run for real: train, serve, inspect, review, learn, compare, take, go back.

    python benchmarks/first_ten_minutes.py OK_FOLDER IMAGES [--count 200]

OK_FOLDER holds OK images, IMAGES others (those of a subfolder called good are OK). `okng train` and `okng serve` are
run as a person runs them, the images are sent over HTTP, and all that follows is done in a browser by keys and clicks;
the "person" knows what each image really is from its folder. Each step is checked by the REST interface. Writes
results/first_ten_minutes.csv: seconds of each step, and what came of it.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx
from pages_pictures import CHROMIUM, started

import okng
from okng.benchmark.rows import write_rows

RESULTS = Path(__file__).parents[1] / "results" / "first_ten_minutes.csv"
COLUMNS = ("step", "seconds", "result", "command", "seed", "versions", "machine", "date")
REVIEWED, LEARNT = 10, 3
rows: list[dict[str, Any]] = []


@contextmanager
def step(name: str) -> Iterator[dict[str, str]]:
    """Time a step; what it puts into "result" is kept."""
    begun, said = time.monotonic(), {"result": ""}
    yield said
    rows.append({"step": name, "seconds": f"{time.monotonic() - begun:.1f}", **said})
    print(f"{rows[-1]['seconds']:>7} s  {name}: {said['result']}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ok", type=Path)
    parser.add_argument("images", type=Path)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--train", nargs="*", default=[], help="further options of okng train")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with step("train") as said:
            command = [
                sys.executable,
                "-m",
                "okng",
                "train",
                str(asked.ok),
                "-o",
                str(folder / "parts.okng"),
                *asked.train,
            ]
            done = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=True)
            said["result"] = next(line for line in done.stderr.splitlines() if line.startswith("threshold"))
        with step("serve"):
            url, server = started(folder / "parts.okng", folder)
        try:
            on_the_line(url, asked.images, asked.count)
        finally:
            server.terminate()
            server.wait()
    write(asked)


def on_the_line(url: str, images: Path, count: int) -> None:
    """All that is done with the server."""
    files = sorted(images.rglob("*.png")) + sorted(images.rglob("*.jpg"))
    random.Random(0).shuffle(files)
    truth = {}
    with httpx.Client(base_url=url, timeout=300) as client:
        with step(f"{count} images over HTTP") as said:
            for file in files[:count]:
                answer = client.post("/api/inspect", files={"image": (file.name, file.read_bytes())})
                answer.raise_for_status()
                truth[answer.json()["id"]] = "OK" if file.parent.name == "good" else "NG"
            tally = client.get("/api/results/tally").json()
            assert sum(tally.values()) == count == len(truth), tally
            said["result"] = f"{tally['OK']} OK, {tally['NG']} NG"
        in_the_browser(url, client, truth)


def in_the_browser(url: str, client: httpx.Client, truth: dict[int, str]) -> None:
    """Review, learn, compare, take, go back."""
    from playwright.sync_api import sync_playwright

    def reviewed() -> list[dict[str, Any]]:
        return client.get("/api/results", params={"review": "any", "limit": 500}).json()["results"]

    def false_alarms() -> list[int]:
        return [one["id"] for one in reviewed() if (one["verdict"], one["review"]) == ("NG", "OK")]

    def model() -> dict[str, Any]:
        return client.get("/api/models").json()[0]

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        window = browser.new_context(base_url=url, locale="en-GB").new_page()

        def answer() -> None:
            record = int(window.locator("#answer input[name=image]").input_value())
            with window.expect_navigation():
                window.keyboard.press({"OK": "o", "NG": "n"}[truth[record]])

        with step(f"review {REVIEWED} in the browser") as said:
            window.goto("/review?order=border")
            for _ in range(REVIEWED):
                answer()
            assert len(reviewed()) == REVIEWED
            said["result"] = f"{len(false_alarms())} false alarms among them"
        with step(f"review on until there are {LEARNT} false alarms") as said:
            while len(false_alarms()) < LEARNT:
                answer()
            said["result"] = f"{len(reviewed())} reviewed"
        with step(f"learn {LEARNT} false alarms") as said:
            window.goto("/learn")
            for record in false_alarms()[:LEARNT]:
                window.get_by_label(f"Learn image {record}", exact=True).check()
            window.get_by_role("button", name="Learn the chosen images").click()
            window.get_by_role("button", name="Take version 2").wait_for(timeout=600_000)
            assert model()["version"] == 1
            said["result"] = "version 2 made, version 1 inspects"
        with step("compare") as said:
            lines = window.locator("table.compared tbody tr").all()
            cells = [[cell.inner_text().split("\n")[0] for cell in line.locator("th, td").all()] for line in lines]
            said["result"] = "; ".join(f"{what}: {old} → {new.split()[0]}" for what, old, new in cells)
        with step("take the new version") as said:
            window.get_by_role("button", name="Take version 2").click()
            window.wait_for_url("**said=learn.taken**")
            assert model()["version"] == 2
            learnt = client.get("/api/results", params={"review": "OK", "verdict": "NG"}).json()["results"][:LEARNT]
            again = [client.get(f"/api/results/{one['id']}/image").content for one in learnt]
            verdicts = [client.post("/api/inspect", content=content).json()["verdict"] for content in again]
            said["result"] = f"the learnt images are now {', '.join(verdicts)}"
        with step("go back") as said:
            window.get_by_role("button", name="Use this version: version 1").click()
            window.wait_for_url("**n=1")
            assert model()["version"] == 1
            said["result"] = "version 1 inspects"
        browser.close()


def write(asked: argparse.Namespace) -> None:
    """The table of results."""
    same = {
        "command": f"python benchmarks/first_ten_minutes.py OK_FOLDER IMAGES --count {asked.count}",
        "seed": 0,
        "versions": f"okng {okng.__version__}, fastapi {version('fastapi')}, Python {platform.python_version()}",
        "machine": f"{os.cpu_count()} cores, {platform.machine()}",
        "date": datetime.date.today().isoformat(),
    }
    total = sum(float(row["seconds"]) for row in rows)
    rows.append({"step": "in all", "seconds": f"{total:.1f}", "result": ""})
    write_rows(RESULTS, COLUMNS, [{**row, **same} for row in rows])


if __name__ == "__main__":
    main()
