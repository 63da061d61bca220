"""Pictures of the pages of `okng serve`: every page at a desk and on a phone, light and dark, in both languages.

    python benchmarks/pages_pictures.py MODEL.okng IMAGES FOLDER [--docs docs/images]

Serves MODEL with a store of its own, inspects IMAGES (a folder; those of a subfolder called good are taken for OK, the
others for NG), reviews some of them, learns false alarms, and keeps a PNG of each page in FOLDER. With --docs three of
them are written small, for docs/review.md.
"""

from __future__ import annotations

import argparse
import io
import random
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx
from PIL import Image

CHROMIUM = "/usr/bin/chromium"
PAGES = (
    "live",
    "review",
    "review?view=group",
    "review?order=sample",
    "learn",
    "threshold",
    "rules",
    "drift",
    "results",
)
PHONE = {"viewport": {"width": 360, "height": 740}, "device_scale_factor": 2, "is_mobile": True, "has_touch": True}
LOOKS = {
    "desk": {"viewport": {"width": 1280, "height": 860}},
    "desk-dark": {"viewport": {"width": 1280, "height": 860}, "color_scheme": "dark"},
    "desk-ko": {"viewport": {"width": 1280, "height": 860}, "locale": "ko-KR"},
    "phone": PHONE,
    "phone-ko-dark": {**PHONE, "locale": "ko-KR", "color_scheme": "dark"},
}
SHOWN = {
    "review": ("desk", "review.webp"),
    "threshold": ("desk-dark", "threshold.webp"),
    "live": ("phone", "live.webp"),
}
LARGEST = 80_000  # bytes of a picture in the documents


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("images", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--docs", type=Path)
    parser.add_argument("--count", type=int, default=90)
    asked = parser.parse_args()
    asked.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        url, server = started(asked.model, Path(folder))
        try:
            prepare(url, asked.images, asked.count)
            pictures(url, asked.folder, asked.docs)
        finally:
            server.terminate()
            server.wait()


def started(model: Path, folder: Path) -> tuple[str, subprocess.Popen[bytes]]:
    """A server of `model` that keeps everything in `folder`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "okng", "serve", str(model), "--store", str(folder / "okng.sqlite")]
    server = subprocess.Popen([*command, "--port", str(port), "--keep-images", "all"])
    url = f"http://127.0.0.1:{port}"
    until = time.monotonic() + 120
    while time.monotonic() < until:
        try:
            httpx.get(f"{url}/health")
            return url, server
        except httpx.TransportError:
            time.sleep(0.2)
    raise SystemExit("the server didn't start")


def prepare(url: str, images: Path, count: int) -> None:
    """Inspect `count` images, review 30 of them as their folders say, draw a sample, learn three false alarms."""
    files = sorted(images.rglob("*.png")) + sorted(images.rglob("*.jpg"))
    random.Random(0).shuffle(files)
    with httpx.Client(base_url=url, timeout=120) as client:
        truth = {}
        for file in files[:count]:
            answer = client.post("/api/inspect", files={"image": (file.name, file.read_bytes())})
            answer.raise_for_status()
            truth[answer.json()["id"]] = "OK" if file.parent.name == "good" else "NG"
        page = client.get("/api/results", params={"order": "borderline", "limit": 30}).json()["results"]
        for said in ("OK", "NG"):
            records = [one["id"] for one in page if truth[one["id"]] == said]
            client.post("/api/reviews", json={"records": records, "said": said}).raise_for_status()
        client.post("/review/sample", data={"size": "20", "days": "1"})
        for one in client.get("/api/results", params={"review": "none", "limit": 500}).json()["results"][::3]:
            client.post("/api/reviews", json={"records": [one["id"]], "said": truth[one["id"]]})
        found = client.get("/api/results", params={"verdict": "NG", "review": "OK"}).json()["results"]
        if found:
            name = found[0]["model"]
            work = {"kind": "update", "records": [one["id"] for one in found[:3]]}
            job = client.post(f"/api/models/{name}/jobs", json=work)
            if job.status_code == 200:
                while client.get(f"/api/jobs/{job.json()['id']}").json()["state"] == "running":
                    time.sleep(0.5)


def pictures(url: str, folder: Path, docs: Path | None) -> None:
    """A picture of every page in every look."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        for look, how in LOOKS.items():
            context = browser.new_context(base_url=url, **{"locale": "en-GB", **how})
            window = context.new_page()
            for page in PAGES:
                window.goto(f"/{page}")
                if page == "rules":
                    drawn(window)
                window.wait_for_timeout(300)
                name = page.replace("?", "-").replace("=", "-")
                window.screenshot(
                    path=folder / f"{name}-{look}.png", full_page=page not in ("rules", "review?view=group")
                )
                if docs is not None and SHOWN.get(page, ("",))[0] == look:
                    small(window.screenshot(), docs / SHOWN[page][1])
            context.close()
        browser.close()


def drawn(window: Any) -> None:
    """A zone and a rule that aren't saved."""
    window.locator("#box").click()
    window.locator("#add-rule").click()
    window.locator("#list [data-of=min_length]").fill("40")
    window.evaluate("scrollTo(0, 0)")


def small(content: bytes, path: Path) -> None:
    """A picture for the documents: as good as `LARGEST` bytes allow."""
    image = Image.open(io.BytesIO(content)).convert("RGB")
    image.thumbnail((1000, 1000))
    for quality in range(88, 20, -6):
        file = io.BytesIO()
        image.save(file, "WEBP", quality=quality, method=6)
        if file.tell() < LARGEST:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(file.getvalue())
            return


if __name__ == "__main__":
    main()
