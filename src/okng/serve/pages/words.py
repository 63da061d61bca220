"""The pages' words, English and Korean: one TOML file a language, the same keys in both."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from functools import cache
from importlib.resources import files
from typing import Any

LANGUAGES = {"en": "English", "ko": "한국어"}

Translate = Callable[..., str]
"""`t("review.left", n=3)`: the words of a key with its figures filled in."""


@cache
def words(language: str) -> Mapping[str, str]:
    """All words of a language by dotted key."""
    text = (files("okng.serve.pages") / "words" / f"{language}.toml").read_text("utf-8")
    return {
        f"{page}.{key}": " ".join(value.split())
        for page, keys in tomllib.loads(text).items()
        for key, value in keys.items()
    }


def translator(language: str) -> Translate:
    """What turns a key and figures into words of `language`."""
    known = words(language)

    def t(key: str, **figures: Any) -> str:
        return known[key].format(**figures)

    return t


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
