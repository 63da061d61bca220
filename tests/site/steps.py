"""What the pages show to be typed, and the pages that each test of the site types."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PROGRAMS = ("okng", "python", "python3", "pip", "curl", "torchrun", "make", "pytest")
STEP = re.compile(
    rf"^ {{4,}}((?:{'|'.join(PROGRAMS)}) (?:[^\n]*\\\n)*[^\n]*)$|^( *)```(python|json)\n(.*?)^ *```", re.M | re.S
)


def steps(page: Path) -> list[tuple[str, str]]:
    """("sh", a command), ("python", an example) and ("json", a file), in the order of the page."""
    return [
        (step[3], textwrap.dedent(step[4])) if step[3] else ("sh", " ".join(step[1].partition(" # ")[0].split("\\\n")))
        for step in STEP.finditer(page.read_text())
    ]


def unknown(page: Path) -> list[str]:
    """The blocks of code that are no steps: between fences, or indented after an empty line."""
    found = re.finditer(r"^( *)```(\w*)\n(.*?)^\1```|(?<=\n\n)((?: {4,}\S[^\n]*\n)+)", page.read_text(), re.M | re.S)
    return [
        text
        for block in found
        if block[2] not in ("python", "json")
        for text in [textwrap.dedent(block[3] or block[4])]
        if not all(line.startswith((" ", *(f"{program} " for program in PROGRAMS))) for line in text.splitlines())
    ]


def why_not(kind: str, step: str, reasons: dict[str, str]) -> str:
    """Why a step is not typed by a test, by the first of the patterns that finds it; blank where it is."""
    return next((why for pattern, why in reasons.items() if kind == "sh" and re.search(pattern, step)), "")
