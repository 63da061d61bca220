"""The words of the server's pages, beside those of the report, and which language a person reads."""

from __future__ import annotations

from collections.abc import Mapping

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
    return shared.line_of(REFUSED, line, translator(language), ROOM)
