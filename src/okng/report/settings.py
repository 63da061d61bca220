"""How the model was made, calibrated and used, as tables of words; and how the report writes numbers."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any

from okng.detectors.cards import cards
from okng.inspection.inspector import Inspector
from okng.report.language import Translate, translator, words

SPELT = {name.lower(): name for name in ("NG", "OK", "SSPCAB", "SVDD", "okng")} | {"torch": "PyTorch"}


def settings(
    inspector: Inspector, milliseconds: Mapping[str, float], language: str = "en"
) -> dict[str, list[tuple[str, str]]]:
    """Tables of (name, value); `milliseconds` is the mean time per image by stage."""
    t, known = translator(language), words(language)
    preprocess, calibration, manifest = inspector.preprocess, inspector.calibration, inspector.manifest
    detector = manifest.get("detector", {})
    card = cards().get(detector.get("name", ""))
    if isinstance(preprocess.size, int):
        size = t("setting.about", side=preprocess.size)
    else:
        size = f"{preprocess.size[1]} × {preprocess.size[0]} px"
    tables: dict[str, dict[str, Any]] = {
        "Detector": {
            "method": method(inspector),
            "paper": f"{card.paper} ({card.year})" if card else None,
            **detector.get("arguments", {}),
        },
        "Fit": {**manifest.get("provenance", {}), "okng version": manifest.get("okng")},
        "Calibration": {
            "product": inspector.product,
            "asked false-alarm rate": asked(calibration.false_alarm_rate),
            "OK scores": len(calibration.scores),
            "held out by": known.get(f"setting.by_{calibration.method}", calibration.method),
            "score threshold": number(calibration.threshold),
            "map threshold": None if calibration.pixel_threshold is None else number(calibration.pixel_threshold),
            "threshold from": known.get(f"basis.{calibration.basis}", calibration.basis),
        },
        "Input": {
            "colour": t("setting.grey") if preprocess.mode == "L" else preprocess.mode,
            "size": size,
            "tiles": preprocess.tile and t("setting.tile", side=preprocess.tile, overlap=preprocess.overlap),
            "sides rounded to": t("setting.multiples", side=preprocess.multiple),
            "white level": preprocess.white,
        },
        "Rules": {
            "zones": ", ".join(f"{zone.name} ({zone.kind})" for zone in inspector.rules.zones),
            "rules": ", ".join(f"{rule.name} ({rule.verdict})" for rule in inspector.rules.rules),
        },
        "Time per image": {stage: f"{value:.1f} ms" for stage, value in milliseconds.items()},
    }

    def named(key: str, table: str) -> str:
        own = table == "Detector" and key in detector.get("arguments", {})  # by their names, as -p takes them
        word = ("" if table else "of_") + re.sub("[^a-z]+", "_", key.lower())
        return _title(key) if own else known.get(f"setting.{word}", _title(key))

    said = {
        named(name, ""): [
            (named(key, name), _text(value, t)) for key, value in table.items() if value not in (None, "", [])
        ]
        for name, table in tables.items()
    }
    return {name: rows for name, rows in said.items() if rows}


def method(inspector: Inspector) -> str:
    """The detector's name as its paper writes it, or empty where the model file does not say."""
    name = inspector.manifest.get("detector", {}).get("name", "")
    return cards()[name].title if name in cards() else str(name)


def number(value: float) -> str:
    """Four significant digits."""
    return f"{value:.4g}"


def share(value: float) -> str:
    """A share in percent, with more digits where it is small."""
    return f"{value:.2%}" if 0 < value < 0.01 else f"{value:.1%}"


def asked(rate: float) -> str:
    """A rate in percent as a person would have typed it."""
    return f"{100 * rate:.4g}%"


def metric(value: float) -> str:
    """Four decimals, or a dash for what is not defined."""
    return "–" if math.isnan(value) else f"{value:.4f}"


def _title(key: str) -> str:
    """The words of a key, a capital first, and abbreviations and names as they are `SPELT`."""
    first, *others = key.replace("_", " ").split(" ")
    return " ".join([SPELT.get(first, first[:1].upper() + first[1:]), *(SPELT.get(word, word) for word in others)])


def _text(value: Any, t: Translate) -> str:
    """A manifest's value as a person would write it."""
    if isinstance(value, bool):
        return t("setting.yes" if value else "setting.no")
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list | tuple):
        return ", ".join(_text(item, t) for item in value)
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict) else str(value)
