"""What mkdocs is told besides mkdocs.yml: pages that code makes, and links that lead out of docs/."""

from __future__ import annotations

import csv
import re
from pathlib import Path
from typing import Any

import method_pages
import reference_pages
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
CODE = "https://github.com/okng/okng/blob/main/"
TAKEN = {  # pages of the site that are files of the project
    "guides/add-a-method.md": "CONTRIBUTING.md",
    "changelog.md": "CHANGELOG.md",
    "security.md": "SECURITY.md",
}


def made() -> dict[str, str]:
    """The text of each page that isn't a file of docs/, by its address there."""
    pages = {**method_pages.pages(), **reference_pages.pages()}
    return pages | {page: at_home((ROOT / source).read_text(), page) for page, source in TAKEN.items()}


def on_config(config: Any) -> Any:
    """Put a page for each method below "Methods"."""
    for entry in config.nav:
        if "Methods" in entry:
            entry["Methods"] += method_pages.nav()
    return config


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that code makes."""
    for address, text in made().items():
        files.append(File.generated(config, address, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Fill in tables of results, and lead links to files outside of docs/ to the repository."""
    for marker, table in {**method_pages.TABLES, **reference_pages.TABLES, "<!-- made: the walk -->": walk}.items():
        if marker in markdown:
            markdown = markdown.replace(marker, table())
    return outwards(markdown, page.file.src_uri)


def walk() -> str:
    """The steps that `benchmarks/walk.py` took, with what each took."""
    counted = ("words", "processor_seconds", "seconds")
    lines = ["| step | page | to read, words | work, s | took, s | what came of it |", "|---" * 6 + "|"]
    pages = {source: page for page, source in TAKEN.items()}
    with (ROOT / "results" / "walk.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        page = pages.get(row["page"], row["page"].removeprefix("docs/"))
        cells = [row["step"], f"[{Path(page).stem}]({page})", *(row[column] for column in counted), row["result"]]
        lines.append("| " + " | ".join(cells) + " |")
    sums = [f"**{sum(int(row[column]) for row in rows)}**" for column in counted]
    return "\n".join([*lines, f"| **in all** | | {' | '.join(sums)} | |"])


def outwards(markdown: str, address: str) -> str:
    """`markdown` with links that climb out of docs/ as links to the repository's files."""
    up = "../" * (address.count("/") + 1)
    return re.sub(rf"\]\({re.escape(up)}(?!\.\.)([^)\s]*)\)", rf"]({CODE}\1)", markdown)


def at_home(markdown: str, address: str) -> str:
    """The text of a file in the project's folder with its links as those of a page at `address`."""
    up = "../" * address.count("/")

    def moved(found: re.Match[str]) -> str:
        target = found[1]
        if re.match(r"\w+:|#", target):
            return found[0]
        file, hash_, anchor = target.partition("#")
        for page, source in TAKEN.items():
            if file == source:
                return f"]({up}{page}{hash_}{anchor})"
        return f"]({up}{target.removeprefix('docs/')})" if target.startswith("docs/") else f"]({CODE}{target})"

    return re.sub(r"\]\(([^)\s]+)\)", moved, markdown)


KOREAN = {  # what the theme says on every page
    '<html lang="en"': '<html lang="ko"',
    "Table of contents": "목차",
    "Skip to content": "본문으로",
    "Back to top": "맨 위로",
    'aria-label="Search"': 'aria-label="검색"',
    'placeholder="Search"': 'placeholder="검색"',
}


def on_post_page(output: str, page: Any, **_: Any) -> str:
    """Give the dialog of the search its name, and let the theme of Korean pages speak Korean."""
    output = output.replace('role="dialog"', 'role="dialog" aria-label="Search"', 1)
    for english, korean in KOREAN.items() if page.file.src_uri.startswith("ko/") else ():
        output = output.replace(english, korean)
    return output
