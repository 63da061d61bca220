"""The pages walked through for real: each command and example runs, in order, on parts that are drawn."""

from __future__ import annotations

import csv
import importlib.util
import json
import re
import shutil
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from tests.site.conftest import DESK, PHONE, faults
from tests.site.steps import DOCS, ROOT, steps, unknown, why_not

# In the order of a newcomer: a later page takes what an earlier one has made.
GUIDES = (
    "start", "guides/first-inspection", "guides/choose-a-method", "guides/few-images", "guides/large-images",
    "guides/several-products", "guides/threshold", "guides/false-alarms", "guides/edge", "guides/compare",
    "guides/reproduce", "reference/file-format", "rules", "drift", "troubleshooting", "guides/many-machines",
    "guides/line", "watch", "serve",
)  # fmt: skip
# What a command has that isn't typed here: why, and what does it.
ELSEWHERE = {
    r"^python3 -m venv|^pip ": "makes environments, from the network: benchmarks/walk.py, benchmarks/extras.py",
    r"^python benchmarks/draw_parts": "the fixture draws with it, smaller parts",
    r"^python benchmarks/|test_device": "takes minutes to days: tests/test_documents.py reads script and options",
    r"^okng reproduce": "needs data sets: tests/benchmark/test_reproduce.py",
    r"--precision bf16": "needs a processor that has it: tests/exporting/test_parity.py",
    r"s3://": "needs storage: tests/cli/test_storage.py starts one",
    r"--ray|^torchrun": "needs Ray, or machines: tests/cluster/test_cluster.py, tests/training/loop/test_ranks.py",
    r"--devices 2": "trains for minutes: tests/training/loop/test_ranks.py",
    r"^curl ": "tests/serve/test_examples.py types it, at a server with that record",
    r"rtsp://|camera:0": "needs a camera: tests/line/test_video.py",
    r"^okng outbox --": "needs messages that were refused: tests/cli/test_outbox_verb.py",
}
# Of other pages: what they show is no step for a person.
SHOWN = {
    "architecture": "the verbs at a glance: tests/test_documents.py reads them",
    "benchmarks": "commands that measure: tests/test_documents.py reads script and options",
}
TYPED_BY = ("README", "ko/", "tutorials/")  # tests/site/test_readme.py, tests/site/test_tutorials.py
# A tree, a file, and paragraphs of lists.
NO_STEP = ("line/new\n├── 1.png", "[Service]", "Open <http://127", "장치에는 다음과 같이", "<http://127.0.0.1:8000>을")
# The same command on less, so that all of it takes minutes.
SMALLER = {
    "--plants 5": "--plants 5 --kinds scratch",
    "padim,mahalanobis,subspace_ad": "mahalanobis,subspace_ad",
    "--tile 128 --overlap 16": "--tile 64 --overlap 8",
}
NEEDED = {
    "guides/many-machines": ("fsspec",),
    "guides/line": ("sqlalchemy", "asyncua"),
    "watch": ("sqlalchemy", "cv2", "paho.mqtt"),
    "serve": ("sqlalchemy", "uvicorn"),
}
TYPED: set[str] = set()  # what guides share is typed once


def test_every_block_of_every_page_is_typed_by_a_test_or_says_why_not() -> None:
    with_steps = set()
    for page in [*sorted(ROOT.glob("README*.md")), *sorted(DOCS.rglob("*.md"))]:
        name = page.relative_to(DOCS if page.is_relative_to(DOCS) else ROOT).with_suffix("").as_posix()
        if steps(page) and name not in SHOWN and not name.startswith(TYPED_BY):
            with_steps.add(name)
        if name not in SHOWN and not name.startswith("tutorials/"):
            assert [text for text in unknown(page) if not text.startswith(NO_STEP)] == [], name
    assert with_steps == set(GUIDES)


def test_every_reason_is_needed_and_names_what_there_is() -> None:
    found = [step for page in GUIDES for step in steps(DOCS / f"{page}.md")]
    for pattern, why in ELSEWHERE.items():
        assert any(why_not(*step, {pattern: why}) for step in found), f"no command has {pattern}"
    for why in [*ELSEWHERE.values(), *SHOWN.values()]:
        for named in re.findall(r"[\w/]+\.py", why):
            assert (ROOT / named).is_file(), why
    assert all((DOCS / f"{page}.md").is_file() for page in SHOWN)


def test_the_measured_walk_typed_what_the_pages_say() -> None:
    """Each command of benchmarks/walk.py stands on its page, and the table has its steps."""
    spec = importlib.util.spec_from_file_location("walk", ROOT / "benchmarks" / "walk.py")
    assert spec is not None and spec.loader is not None
    sys.modules["walk"] = walked = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(walked)
    for step in walked.STEPS:
        lines = [line.strip() for line in (ROOT / step.page).read_text().splitlines()]
        assert [line for line in step.typed if line not in lines] == [], step.page
    with (ROOT / "results" / "walk.csv").open(newline="") as file:
        assert [row["step"] for row in csv.DictReader(file)] == [step.goal for step in walked.STEPS]


@pytest.mark.slow
@pytest.mark.parametrize("page", GUIDES)
def test_a_person_can_do_what_the_page_says(page: str, walked: Path) -> None:
    for package in NEEDED.get(page, ()):
        pytest.importorskip(package, reason=f"{package} is not installed: pip install '.[dev]'")
    for kind, step in steps(DOCS / f"{page}.md"):
        if why_not(kind, step, ELSEWHERE) or step in TYPED:
            continue
        TYPED.add(step)
        if kind == "json":
            if "rules" in json.loads(step):
                (walked / "rules.json").write_text(step)
            continue
        for whole, part in SMALLER.items():
            step = step.replace(whole, part)
        if step.startswith(("okng serve parts", "okng watch")):
            said, code = until_it_works(step, walked)
        else:
            command = ["sh", "-c", as_module(step)] if kind == "sh" else [sys.executable, "-c", step]
            done = subprocess.run(command, cwd=walked, capture_output=True, text=True, timeout=900)
            said, code = done.stdout[-2000:] + done.stderr[-2000:], done.returncode
        assert code == 0, f"{page}: {step}\n{said}"


def as_module(step: str) -> str:
    """The command of a shell that runs this Python's okng."""
    return re.sub(r"^okng", f"exec '{sys.executable}' -m okng", step)


def until_it_works(step: str, walked: Path) -> tuple[str, int]:
    """What a server or a watcher says, ended by SIGTERM once it has answered or recorded; 0 if it ends well."""
    port = free_port()
    step = step.replace(":4840", f":{port}")  # the port that the page shows may be another's
    if "serve" in step:
        step += f" --port {port}"
    camera = walked / f"camera-{port}"  # new images each time
    shutil.copytree(walked / "new", camera)
    step = step.replace("/data/camera1", str(camera))
    store = walked / (re.findall(r"--store (\S+)", step) or ["okng.sqlite"])[0]
    before, end = recorded(store), time.monotonic() + 180
    log = walked / f"{port}.log"
    with log.open("w") as file:
        program = subprocess.Popen(["sh", "-c", as_module(step)], cwd=walked, stderr=file)
        try:
            while not (works := answers(port) if "serve" in step else recorded(store) > before):
                if program.poll() is not None or time.monotonic() > end:
                    break
                time.sleep(0.1)
            if program.poll() is None:
                program.terminate()
            code = program.wait(60)
        finally:
            program.kill()
    return log.read_text(), 0 if works and code in (0, 130) else 1


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def answers(port: int) -> bool:
    """Whether a server on this machine says that it lives."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def recorded(store: Path) -> int:
    """How many images a store has records of; none before there is one."""
    if not store.is_file():
        return 0
    with closing(sqlite3.connect(f"file:{store}?mode=ro", uri=True, timeout=10)) as opened:
        try:
            return int(opened.execute("SELECT count(*) FROM okng_records").fetchone()[0])
        except sqlite3.OperationalError:  # it is being made
            return 0


@pytest.mark.slow
@pytest.mark.parametrize(("look", "scheme"), [(DESK, "light"), (PHONE, "dark")], ids=["desk", "phone"])
def test_what_okng_wrote_meanwhile_is_for_everybody(
    browser: Any, axe: str, walked: Path, look: dict[str, Any], scheme: str
) -> None:
    """The report, the pages of training and sensitivity, and a comparison, by axe."""
    pages = [walked / page for page in ("report/report.html", "look/training.html", "comparison/parts.html")]
    window = browser.new_page(color_scheme=scheme, **look)
    for page in [*pages, walked / "look" / "sensitivity.html"]:
        window.goto(page.as_uri())
        assert faults(window, axe) == [], page


@pytest.fixture(scope="module")
def walked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with small parts, the rules that a guide shows, and a model such as the guides begin with."""
    folder = tmp_path_factory.mktemp("walk")
    draw = [sys.executable, ROOT / "benchmarks" / "draw_parts.py", "--side", "96", "--ok", "60", "--into", folder]
    subprocess.run(draw, check=True)
    for lot, image in enumerate(sorted((folder / "parts" / "ok").iterdir())):
        image.rename(image.with_name(f"lot{lot // 2}-{image.name}"))
    for turn, into in enumerate(("screw/ok", "nut/ok", "line/new/screw", "line/new/nut"), 1):  # other parts than those
        (folder / into).mkdir(parents=True)
        for image in sorted((folder / "parts" / "ok").iterdir())[::4]:
            with Image.open(image) as opened:
                opened.rotate(35 * turn).save(folder / into / image.name)
    shutil.make_archive(str(folder / "images"), "zip", folder / "parts" / "ok")
    film(folder)
    (folder / "okng.toml").write_text("[train]\nsize = 128\n")  # a quarter of the work
    (folder / "rules.json").write_text('{"rules": [{"name": "dust", "verdict": "OK", "max_area": 20}]}')
    train = [sys.executable, "-m", "okng", "train", "parts/ok", "-o", "parts.okng"]
    subprocess.run(train, cwd=folder, check=True)
    subprocess.run([*train[:3], "export", "parts.okng"], cwd=folder, check=True)
    return folder


def film(folder: Path) -> None:
    """film.mp4 of the new parts."""
    if find_spec("cv2") is None:
        return  # the page that shows it is skipped
    import cv2

    writer = cv2.VideoWriter(str(folder / "film.mp4"), cv2.VideoWriter_fourcc(*"mp4v"), 25, (96, 96))
    for image in sorted((folder / "new").iterdir()) * 5:
        writer.write(cv2.imread(str(image)))
    writer.release()
