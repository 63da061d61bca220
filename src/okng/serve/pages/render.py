"""From a template and what it shows to a page in a person's language."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from okng.report.language import line_of
from okng.report.settings import number, share
from okng.serve.pages.words import LANGUAGES, translator

SCRIPTS = {
    "live": "live.js",
    "review": "review.js",
    "learn": "learn.js",
    "threshold": "threshold.js",
    "rules": "rules.js",
}
TYPES = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}


def count(value: int) -> str:
    """1234567 as 1,234,567."""
    return f"{value:,}"


@cache
def environment() -> Environment:
    """Where the templates are; what they show is escaped."""
    made = Environment(
        loader=PackageLoader("okng.serve.pages"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    made.filters.update(number=number, share=share, count=count)
    made.globals.update(languages=LANGUAGES, asset=asset, line_of=line_of)
    return made


def render(template: str, language: str, **content: Any) -> str:
    """The page that `template` makes of `content`, in a language of `LANGUAGES`."""
    return environment().get_template(template).render(language=language, t=translator(language), **content)


@cache
def static(name: str) -> bytes | None:
    """A file that pages load; None for what there is not. The style is the report's, and what pages add to it."""
    folder = files("okng.serve.pages") / "static"
    if name == "style.css":
        report = files("okng.report") / "templates" / "style.css"
        return report.read_bytes() + b"\n" + (folder / "pages.css").read_bytes()
    known = {file.name for file in folder.iterdir() if file.name.rpartition(".")[2] in TYPES}
    return (folder / name).read_bytes() if name in known else None


@cache
def asset(name: str) -> str:
    """The address of a file that pages load, with its digest: a browser keeps it until it is another."""
    content = static(name)
    assert content is not None, name
    return f"/static/{name}?{hashlib.sha256(content).hexdigest()[:12]}"
