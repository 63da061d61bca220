"""Both languages say the same things, and the templates and scripts say nothing else."""

from __future__ import annotations

import re
from importlib.resources import files
from string import Formatter
from typing import Any

import numpy as np
import pytest

from okng.errors import OkngError
from okng.inspection.inspector import Inspector
from okng.inspection.reading.images import Preprocess
from okng.inspection.verdict.calibration import Calibration
from okng.inspection.verdict.rules import Rules
from okng.report.promise import promise
from okng.serve.pages.words import LANGUAGES, REFUSED, language_of, refused, translator, words

PAGES = files("okng.serve.pages")
FILES = (".html", ".js", ".css", ".toml", ".svg")


def figures(text: str) -> set[str]:
    return {name for _, name, _, _ in Formatter().parse(text) if name}


def test_both_languages_have_all_keys_with_the_same_figures() -> None:
    english, korean = words("en"), words("ko")
    assert english.keys() == korean.keys()
    assert [key for key in english if figures(english[key]) != figures(korean[key])] == []
    assert [key for key in english if not english[key].strip() or not korean[key].strip()] == []
    hangul = re.compile("[가-힣]")
    untranslated = {key for key in korean if not hangul.search(korean[key])}
    assert untranslated <= {key for key in korean if korean[key] == english[key]} | {"frame.p_value"}
    assert {key for key in english if hangul.search(english[key])} == set()


def test_every_word_is_used_and_every_used_word_exists() -> None:
    texts = [file.read_text("utf-8") for folder in ("templates", "static") for file in (PAGES / folder).iterdir()]
    texts += [file.read_text("utf-8") for file in PAGES.iterdir() if file.name.endswith(".py")]
    texts += [file.read_text("utf-8") for file in (files("okng.serve") / "routes").rglob("*.py")]  # type: ignore[attr-defined]
    text = "\n".join(texts)
    known = words("en")
    pages = "|".join({key.partition(".")[0] for key in known})
    named = {key for key in re.findall(rf'"((?:{pages})\.[a-z_]+)"(?!\s*~)', text) if not key.endswith(FILES)}
    composed = {*re.findall(rf'"((?:{pages})\.[a-z_]*)"\s*~', text), *re.findall(rf'f"((?:{pages})\.[a-z_]*)\{{', text)}
    assert named - known.keys() == set()
    assert [start for start in composed if not any(key.startswith(start) for key in known)] == []
    spoken = {f"rules.{key}" for key in re.findall(r'(?:say|free|filled)\([^")]*"(\w+)"', text)}
    spoken |= {"rules.x", "rules.y", "rules.zones_none", "rules.rules_none"}
    assert spoken - known.keys() == set()
    composed |= {f"{REFUSED}."}
    unused = {key for key in known.keys() - named - spoken if not key.startswith(tuple(composed))}
    assert unused == set()


def test_the_refusals_that_are_translated_are_the_errors_own_lines() -> None:
    """Of each the longest piece between two figures stands somewhere in the code, as far as a line goes."""
    code = "\n".join(file.read_text("utf-8") for file in (files("okng") / "").rglob("*.py"))  # type: ignore[attr-defined]
    lines = {key: text for key, text in words("en").items() if key.startswith("refused.") and key != "refused.number"}
    pieces = {key: max(re.split(r"\{\w+\}", text), key=len).strip() for key, text in lines.items()}
    begun = {key: re.sub(r"\S*$", "", piece[:28]) if len(piece) > 28 else piece for key, piece in pieces.items()}
    composed = {"no_torch", "zone_name", "rule_name", "two_zones", "two_rules", "number_of", "area", "length", "count"}
    composed |= {"whole", "negative", "corners", "no_area", "crosses"}  # of zones and rules: raised below
    assert [key for key, piece in begun.items() if piece not in code and key.partition(".")[2] not in composed] == []


def box(**more: Any) -> dict[str, Any]:
    return {"zones": [{"name": "라벨", "points": [[0, 0], [1, 0], [1, 1], [0, 1]], **more}]}


@pytest.mark.parametrize(
    ("given", "figures"),
    [
        (box(points=[[0, 0], [1, 1], [1, 0], [0, 1]]), ["라벨"]),
        (box(points=[[0, 0], [1, 1]]), ["라벨", "2 corners"]),
        (box(points=[[0, 0], [0.5, 0.5], [1, 1]]), ["라벨"]),
        (box(name=""), ["''"]),
        (box(kind="ignore"), []),
        ({"zones": [*box()["zones"], *box()["zones"]]}, []),
        ({"rules": [{"name": "a", "verdict": "NG", "min_area": 9, "max_area": 4}]}, ["9", "4"]),
        ({"rules": [{"name": "a", "verdict": "NG", "min_length": 9, "max_length": 4}]}, ["9", "4"]),
        ({"rules": [{"name": "a", "verdict": "NG", "min_count": 9, "max_count": 4}]}, ["9", "4"]),
        ({"rules": [{"name": "a", "verdict": "NG", "min_count": 0.5}]}, ["min_count"]),
        ({"rules": [{"name": "a", "verdict": "NG", "min_area": -1}]}, ["min_area"]),
        ({"rules": [{"name": "a", "verdict": "NG", "min_area": None, "max_area": "x"}]}, ["'x'"]),
        ({"rules": [{"name": "", "verdict": "NG"}]}, ["''"]),
        ({"rules": [{"name": "a", "verdict": "NG"}] * 2}, []),
        ({"rules": [{"name": "a", "verdict": "NG", "zone": "z"}]}, ["'z'"]),
    ],
)
def test_what_is_wrong_with_drawn_zones_is_said_in_korean(given: dict[str, Any], figures: list[str]) -> None:
    with pytest.raises(OkngError) as error:
        Rules.from_json(given)
    line = str(error.value)
    told = refused(line, "ko")
    assert refused(line, "en") == line and told != line and re.search("[가-힣]", told)
    assert [figure for figure in figures if figure not in told] == []
    assert refused("nobody knows this line", "ko") == "nobody knows this line"


@pytest.mark.parametrize(
    ("chosen", "accepted", "expected"),
    [
        (None, "", "en"),
        (None, "ko-KR,ko;q=0.9,en-US;q=0.8,en;q=0.7", "ko"),
        (None, "de-DE,de;q=0.9,en;q=0.3,ko;q=0.5", "ko"),
        (None, "en-GB", "en"),
        (None, "ko;q=0", "en"),
        (None, "fr", "en"),
        ("en", "ko", "en"),
        ("xx", "ko", "ko"),
        (None, "ko;q=much", "en"),
    ],
)
def test_the_language_is_the_chosen_or_the_accepted_one(chosen: str | None, accepted: str, expected: str) -> None:
    assert language_of(chosen, accepted) == expected


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_promise_promises_what_the_calibration_does(language: str) -> None:
    t = translator(language)
    scores = np.linspace(1, 2, 200)

    def said(calibration: Calibration, rules: Any = None, **manifest: str) -> str:
        return promise(Inspector(None, Preprocess("RGB", 64), calibration, {"rules": rules, **manifest}), t)  # type: ignore[arg-type]

    split = Calibration.fit(scores, scores, "split", 0.05)
    assert "5%" in said(split) and f"{100 * split.may_reach:.2g}%" in said(split)
    kinds = [
        split,
        Calibration.fit(scores, None, "split", 0.05, unit="group"),
        Calibration.fit(scores, None, "pooled", 0.05),
        split.updated(np.empty(0), np.empty(0)),
        split.at(0.001),
        Calibration.fit(scores[:20], None, "split", 0.01),
        split.with_threshold(1.5),
    ]
    assert len({said(one) for one in kinds}) == 7  # no two kinds of promise are said alike
    estimate = said(split.at(0.001))
    too_low = {"en": "on average too low", "ko": "평균적으로는 이보다 많이"}
    assert "0.1%" in estimate and "0.5%" in estimate and too_low[language] in estimate
    not_guaranteed = {"en": "not guaranteed", "ko": "보장은 아닙니다"}[language]
    assert [not_guaranteed in said(one) for one in kinds] == [False, False, True, True, False, False, False]
    dropped = said(Calibration.fit(scores, None, "split", 0.05, dropped=2))
    assert dropped.startswith(said(split)) and "2" in dropped[len(said(split)) :]
    rules = {"rules": [{"name": "large", "verdict": "NG", "min_area": 9}]}
    zones = {"zones": [{"name": "label", "kind": "ignore", "points": [[0, 0], [1, 0], [0, 0.5]]}]}
    assert said(split, rules) == f"{said(split)} {t('promise.rules_split')}"
    assert said(kinds[2], rules) == f"{said(kinds[2])} {t('promise.rules')}"
    assert said(split, zones, zones_calibrated="whole maps") == f"{said(split)} {t('promise.whole_maps')}"
