"""Write docs/tutorials/NAME.md: each tutorial with what it prints and draws.

    python benchmarks/tutorials.py [--only solar_cells] [--fashion FOLDER]

A tutorial is docs/tutorials/NAME.py, a script of cells: `# %% [markdown]` begins a text in comments, `# %%` code. Each
cell of code runs in a new folder, and below it stands what it printed and each picture that it saved; the comment
beside `save` says what there is to see. FOLDER has Fashion-MNIST. Minutes on two cores.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import re
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[1] / "docs" / "tutorials"
LARGEST = 100_000  # bytes of a picture
Said = tuple[str, list[tuple[str, str]]]  # of a cell: what it printed, and (file, words) of its pictures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=[script.stem for script in sorted(FOLDER.glob("*.py"))])
    parser.add_argument("--fashion", type=Path, default=Path("/usr/share/datasets/fashion-mnist"))
    asked = parser.parse_args()
    for script in sorted(FOLDER.glob("*.py")):
        if asked.only in (None, script.stem):
            arguments = [str(asked.fashion.resolve())] if script.stem == "clothes" else []
            script.with_suffix(".md").write_text(run(script, arguments), encoding="utf-8")


def run(script: Path, arguments: list[str]) -> str:
    """The page of `script`, all of whose cells run; its pictures go beside it."""
    named: dict[str, Any] = {"__name__": "__main__"}
    sys.argv = [str(script), *arguments]
    home = Path.cwd()
    with tempfile.TemporaryDirectory() as work:
        os.chdir(work)
        try:
            text = page(script, lambda code: said(code, named))
        finally:
            os.chdir(home)
    return text


def said(code: str, named: dict[str, Any]) -> Said:
    """What a cell prints, and its pictures, which are moved beside the page."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, "cell", "exec"), named)
    pictures = saved(code)
    for name, _ in pictures:
        content = Path(name).read_bytes()
        if len(content) > LARGEST:
            sys.exit(f"{name} has {len(content)} bytes, and may have {LARGEST}; draw it smaller")
        (FOLDER / name).write_bytes(content)
    return printed.getvalue(), pictures


def saved(code: str) -> list[tuple[str, str]]:
    """(file, words) of each picture that `code` saves."""
    return re.findall(r'\.save\("([\w-]+\.webp)"\)  # (.+)$', code, re.MULTILINE)


def page(script: Path, run_cell: Callable[[str], Said]) -> str:
    """The page as Markdown, with what `run_cell` says of each cell of code."""
    parts = []
    for kind, text in cells(script.read_text(encoding="utf-8")):
        if kind == "markdown":
            parts.append(text)
            continue
        printed, pictures = run_cell(text)
        parts.append(f"```python\n{text}\n```")
        if printed:
            parts.append(f"```text\n{printed.rstrip()}\n```")
        parts += [f"![{words}]({name})" for name, words in pictures]
    parts.append(f"[The whole script]({script.name}), of which `python benchmarks/tutorials.py` made this page.")
    return "\n\n".join(parts) + "\n"


def cells(source: str) -> list[tuple[str, str]]:
    """("markdown" or "code", text) of each cell of a script."""
    found = []
    for head, body in re.findall(r"^# %%(.*)\n((?:(?!# %%).*\n)*)", source, re.MULTILINE):
        if "markdown" in head:
            found.append(("markdown", re.sub(r"^# ?", "", body, flags=re.MULTILINE).strip()))
        else:
            found.append(("code", body.strip("\n")))
    return found


if __name__ == "__main__":
    main()
