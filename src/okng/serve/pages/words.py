"""The words of the server's pages, beside those of the report, and which language a person reads."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache

from okng.report import language as shared
from okng.report.language import LANGUAGES, Translate

__all__ = ["LANGUAGES", "Translate", "language_of", "refused", "translator", "words"]
ROOM = "okng.serve.pages"
REFUSED = "refused"  # the page of words that are errors' own lines, in English


def words(language: str) -> Mapping[str, str]:
    """The words of these pages alone, by dotted key."""
    return shared.words(language, ROOM)


def translator(language: str) -> Translate:
    """What turns a key and figures into words of `language`."""
    return shared.translator(language, ROOM)


def language_of(chosen: str | None, accepted: str) -> str:
    """The language a person chose, or the first that the header Accept-Language weighs highest and the pages have."""
    if chosen in LANGUAGES:
        return chosen
    weighed = []
    for place, part in enumerate(accepted.split(",")):
        tag, _, rest = part.strip().partition(";")
        try:
            weight = float(rest.partition("=")[2]) if rest else 1.0
        except ValueError:
            weight = 0.0
        language = tag.partition("-")[0].lower()
        if language in LANGUAGES and weight > 0:
            weighed.append((-weight, place, language))
    return min(weighed)[2] if weighed else "en"


def refused(line: str, language: str) -> str:
    """An error's line in a `language`, as far as the words know it; any other stays as it is."""
    if language == "en":
        return line
    for name, pattern in _refusals():
        if found := pattern.fullmatch(line):
            return translator(language)(f"refused.{name}", **found.groupdict())
    return line


@cache
def _refusals() -> list[tuple[str, re.Pattern[str]]]:
    """What each line of the page `refused` looks like, its figures as groups: the longest words first."""
    known = [(key.partition(".")[2], text) for key, text in words("en").items() if key.startswith(f"{REFUSED}.")]
    known.sort(key=lambda each: -len(each[1]))
    return [(name, re.compile(re.sub(r"\\\{(\w+)\\\}", r"(?P<\1>.+)", re.escape(text)))) for name, text in known]
