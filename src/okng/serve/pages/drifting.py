"""The drift page: the evidence that the line has changed, and what light and sharpness say of the cause."""

from __future__ import annotations

import datetime
import math
from typing import Any

from okng.report.settings import asked, number
from okng.serve.pages.words import Translate
from okng.serve.watching import Watch

FEW = 20  # images before which nothing is said
WORTH = 20.0  # times the stake from which on it is said that something may be changing
LEVELS = (1, 10, 100, 1000)


def state(watch: Watch, t: Translate) -> dict[str, Any]:
    """The state in a word and a sentence."""
    now = watch.state
    if now.drifted:
        since = _moment(watch, min(now.since.values()))
        return {"state": "alarm", "text": t("drift.alarm_text", time=since)}
    if now.count < FEW:
        return {"state": "unknown", "text": t("drift.unknown_text", n=now.count)}
    kind = "watch" if max(now.evidence.values()) >= math.log10(WORTH) else "steady"
    return {"state": kind, "text": t(f"drift.{kind}_text", n=f"{now.count:,}")}


def whole(watch: Watch, t: Translate) -> dict[str, Any]:
    """What the page shows: a chart for each number that is watched, in percent from the left and the top."""
    now = watch.state
    alarm = 10**now.needed
    said = {
        "n": now.count,
        "charts": [_chart(watch, name, t) for name in now.evidence] if now.count else [],
        "advice": _advice(watch, t),
        "note": t("drift.curve_note", alarm=f"{alarm:,.0f}"),
        "bound": t("drift.bounded" if watch.drift.bounded else "drift.unbounded", risk=asked(watch.drift.risk)),
    }
    return {**state(watch, t), **said}


def _chart(watch: Watch, name: str, t: Translate) -> dict[str, Any]:
    now = watch.state
    values = [min(max(point[2].get(name, 0.0), -1.0), 1.6 * now.needed) for point in watch.curve] or [0.0]
    low, high = min(-0.3, *values), max(1.15 * now.needed, *values)
    first, last = (watch.curve[0], watch.curve[-1]) if watch.curve else ((0, watch.begun, {}), (0, watch.begun, {}))
    width = max(1, last[0] - first[0])

    def y(value: float) -> float:
        return round(100 * (high - value) / (high - low), 2)

    def x(image: int) -> float:
        return round(100 * (image - first[0]) / width, 2)

    moved = name in now.since
    rising = watch.drift.watches[name].rising
    return {
        "name": name,
        "state": ("above" if rising else "below") if moved else "in_range",
        "now": 10 ** min(now.evidence[name], 12.0),
        "alarm": 10**now.needed,
        "curve": [(x(point[0]), y(value)) for point, value in zip(watch.curve, values, strict=False)],
        "line": y(now.needed),
        "levels": [(y(math.log10(level)), f"×{level:,}") for level in LEVELS if low < math.log10(level) < high],
        "ticks": [(0, _clock(first[1])), (100, _clock(last[1]))],
        "recent": number(now.recent[name]) if name in now.recent else "–",
        "learnt": number(now.learnt[name]),
        "since": _moment(watch, now.since[name]) if moved else "",
        "text": t(f"drift.{name}_{'more' if rising else 'less'}") if moved else "",
    }  # fmt: skip


def _advice(watch: Watch, t: Translate) -> list[str]:
    """Where to look, by what has moved: light and lens are told from the parts."""
    moved = watch.state.since
    found = []
    if "brightness" in moved:
        found.append(t("drift.look_light"))
    if "sharpness" in moved:
        found.append(t("drift.look_noise" if watch.drift.watches["sharpness"].rising else "drift.look_focus"))
    if moved and not found:
        found.append(t("drift.look_parts" if len(watch.drift.watches) > 1 else "drift.look_anywhere"))
    return found


def _moment(watch: Watch, image: int) -> str:
    """When an image came, by the nearest point of the curve."""
    at = next((point[1] for point in watch.curve if point[0] >= image), watch.begun)
    return datetime.datetime.fromtimestamp(at).strftime("%Y-%m-%d %H:%M")


def _clock(at: float) -> str:
    return datetime.datetime.fromtimestamp(at).strftime("%m-%d %H:%M")
