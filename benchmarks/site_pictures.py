"""Pictures of the site, made by the very commands of its first pages, on parts that are drawn.

    python benchmarks/site_pictures.py [--work FOLDER]

Runs docs/start.md's commands in FOLDER (by default a new one), then writes to docs/images: the report and the page of a
training as a browser shows them (Chromium), a terminal, and what a threshold is. What is there in FOLDER stays.
"""

from __future__ import annotations

import argparse
import io
import subprocess
import sys
import tempfile
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import okng

ROOT = Path(__file__).parents[1]
IMAGES = ROOT / "docs" / "images"
CHROMIUM = "/usr/bin/chromium"
LARGEST = 120_000  # bytes of a picture
COMMANDS = (
    "train parts/ok -o parts.okng --report look",
    "inspect parts.okng new --report report",
)
SHOTS = {  # page, from what on, how high in px
    "report.webp": ("report/report.html", "h1", 640),
    "report-oddest.webp": ("report/report.html", "#oddest, h2:has-text('The oddest images')", 700),
    "training-found.webp": ("look/training.html", "h2:has-text('What would it find')", 570),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = asked.work or Path(folder)
        said = walk(work)
        (IMAGES / "terminal.svg").write_text(terminal(said), encoding="utf-8")
        (IMAGES / "promise.svg").write_text(promise(work), encoding="utf-8")
        shots(work)


def walk(work: Path) -> list[tuple[str, list[str]]]:
    """Each command with the lines it ends with, as a person sees them."""
    if not (work / "parts").exists():
        subprocess.run([sys.executable, ROOT / "benchmarks" / "draw_parts.py", "--into", work], check=True)
    said = []
    for command in COMMANDS:
        target = work / command.rpartition(" ")[2]
        log = work / f"{command.partition(' ')[0]}.log"
        if not (target.exists() and log.exists()):
            done = subprocess.run(
                [sys.executable, "-m", "okng", *command.split()], cwd=work, text=True, check=True,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            )  # fmt: skip
            log.write_text(done.stdout, encoding="utf-8")
        said.append((f"okng {command}", log.read_text(encoding="utf-8").splitlines()))
    return said


def terminal(said: list[tuple[str, list[str]]]) -> str:
    """The commands and the lines that matter, as a drawing of a terminal."""
    lines: list[tuple[str, str]] = []
    for command, printed in said:
        kept = [line for line in printed if line.startswith(("OK  ", "NG  ", "threshold", "learnt", "wrote"))]
        lines += [("$ " + command, "#9cdcfe"), *((cut(line), colour(line)) for line in kept), ("", "")]
    lines = lines[:-1]
    height = 30 + 19 * len(lines)
    drawn = [
        f'<text x="16" y="{34 + 19 * row}" fill="{fill}" xml:space="preserve">{escape(text)}</text>'
        for row, (text, fill) in enumerate(lines)
        if text
    ]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 820 {height}" role="img" font-size="13" '
        'font-family="ui-monospace, Menlo, Consolas, monospace">\n'
        "<title>A terminal: okng train learns 80 OK images, okng inspect says OK or NG of twelve new ones</title>\n"
        f'<rect width="820" height="{height}" rx="8" fill="#1b2330"/>\n' + "\n".join(drawn) + "\n</svg>\n"
    )


def cut(line: str) -> str:
    return line if len(line) < 101 else line[:98].rpartition(" ")[0] + " …"


def colour(line: str) -> str:
    return {"NG": "#ff9d76", "OK": "#7fd1a8"}.get(line[:2], "#d7dee8")


def promise(work: Path) -> str:
    """Scores of held-out OK images, and of NG ones, with the thresholds of two rates."""
    inspector = okng.load(work / "parts.okng")
    ok = np.sort(inspector.calibration.scores)
    ng = np.sort([one.score for one in inspector.inspect(work / "parts" / "ng")])
    thresholds = {rate: inspector.at(rate).calibration.threshold for rate in (0.05, 0.02)}
    low, high, width = float(ok[0]) - 0.05, float(max(ng)) + 0.1, 760

    def across(score: float) -> float:
        return 30 + width * float(np.log(score / low) / np.log(high / low))

    parts = [
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 820 300" role="img" font-size="13" '
        'font-family="system-ui, sans-serif">',
        "<title>Scores of 80 OK images that were judged by models that had not learnt them, ten NG images, and the "
        "thresholds of 5 % and 2 %</title>",
        '<rect width="820" height="300" rx="8" fill="#fff"/>',
        '<line x1="30" y1="240" x2="790" y2="240" stroke="#56616e"/>',
        '<text x="30" y="262" fill="#18212b">looks OK</text>',
        '<text x="790" y="262" text-anchor="end" fill="#18212b">looks odd: a higher score</text>',
    ]
    columns: dict[int, int] = {}
    for score in ok:
        column = round(across(score) / 8)
        columns[column] = columns.get(column, 0) + 1
        parts.append(f'<circle cx="{8 * column}" cy="{241 - 8 * columns[column]}" r="3.4" fill="#0b6892"/>')
    for score in ng:
        x = across(score)
        parts.append(f'<path d="M{x - 4:.1f} 228l8 8m0-8l-8 8" stroke="#b93a0c" stroke-width="2"/>')
    for number, (rate, threshold) in enumerate(thresholds.items()):
        above = int((ok > threshold).sum())
        x, y = across(threshold), 40 + 40 * number
        parts.append(
            f'<line x1="{x:.1f}" y1="{y - 12}" x2="{x:.1f}" y2="240" stroke="#18212b" stroke-dasharray="5 4"/>'
        )
        words = f"{rate:.0%} asked: threshold {threshold:.3f}, {above} of {len(ok)} OK images above it"
        parts.append(f'<text x="{x + 8:.1f}" y="{y}" fill="#18212b">{words}</text>')
    parts += [
        '<circle cx="40" cy="284" r="3.4" fill="#0b6892"/><text x="50" y="288" fill="#18212b">an OK image, '
        "judged by a model that had not learnt it</text>",
        '<path d="M440 280l8 8m0-8l-8 8" stroke="#b93a0c" stroke-width="2"/><text x="456" y="288" fill="#18212b">an '
        "NG image, which nobody had to show before</text>",
    ]
    return "\n".join([*parts, "</svg>\n"])


def shots(work: Path) -> None:
    """The parts of pages that the site shows."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        window = browser.new_page(viewport={"width": 1100, "height": 800})
        for name, (page, start, height) in SHOTS.items():
            window.goto((work / page).resolve().as_uri())
            window.wait_for_timeout(300)
            top = top_of(window, start)
            clip = {"x": 0, "y": max(0, top - 16), "width": 1100, "height": height}
            small(window.screenshot(full_page=True, clip=clip), IMAGES / name)
        browser.close()


def top_of(window: Any, selector: str) -> float:
    box = window.locator(selector).first.bounding_box()
    assert box is not None
    return float(box["y"])


def small(content: bytes, path: Path) -> None:
    """As good as `LARGEST` bytes allow."""
    image = Image.open(io.BytesIO(content)).convert("RGB")
    for quality in range(90, 20, -6):
        file = io.BytesIO()
        image.save(file, "WEBP", quality=quality, method=6)
        if file.tell() < LARGEST:
            path.write_bytes(file.getvalue())
            return


if __name__ == "__main__":
    main()
