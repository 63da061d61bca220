"""The words of pages, English and Korean: one TOML file a language in a room's folder words/, the same keys in both."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Mapping
from functools import cache
from importlib.resources import files
from typing import Any

from okng.errors import OkngError

LANGUAGES = {"en": "English", "ko": "한국어"}

LONGEST = 500  # characters of a line that the code says

Translate = Callable[..., str]
"""`t("review.left", n=3)`: the words of a key with its figures filled in."""


@cache
def words(language: str, room: str = "okng.report") -> Mapping[str, str]:
    """All words that `room`, a package, has in a language, by dotted key."""
    if language not in LANGUAGES:
        raise OkngError(f"pages are in {' or '.join(LANGUAGES)}, not {language!r}")
    text = (files(room) / "words" / f"{language}.toml").read_text("utf-8")
    return {
        f"{page}.{key}": " ".join(value.split())
        for page, keys in tomllib.loads(text).items()
        for key, value in keys.items()
    }


@cache
def translator(language: str, *rooms: str) -> Translate:
    """What turns a key and figures into words of `language`: those of the report and, where given, of more `rooms`."""
    known = {key: value for room in ("okng.report", *rooms) for key, value in words(language, room).items()}

    def t(key: str, **figures: Any) -> str:
        return known[key].format(**figures)

    return t


def line_of(page: str, line: str, t: Translate, room: str = "okng.report") -> str:
    """A `line` that the code says in English as `t` says it, if it is like one of a `page` of words; else as it is.

    So does a line of more than `LONGEST` characters, for to compare a made-up one could take minutes.
    """
    if len(line) > LONGEST:
        return line
    for name, pattern in _lines(page, room):
        if found := pattern.fullmatch(line):
            return t(f"{page}.{name}", **found.groupdict())
    return line


@cache
def _lines(page: str, room: str) -> list[tuple[str, re.Pattern[str]]]:
    """What each line of a `page` looks like, its figures as groups: the longest words first."""
    known = [(key.partition(".")[2], text) for key, text in words("en", room).items() if key.startswith(f"{page}.")]
    known.sort(key=lambda each: -len(each[1]))
    return [(name, re.compile(re.sub(r"\\\{(\w+)\\\}", r"(?P<\1>.+)", re.escape(text)))) for name, text in known]
