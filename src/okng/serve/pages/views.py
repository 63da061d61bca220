"""Rows of the store as what templates show. Nothing here knows of HTTP."""

from __future__ import annotations

import datetime
import math
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import Any, TypeVar

from okng.inspection.verdict.calibration import Calibration
from okng.report.words import distance
from okng.report.words import p as p_words
from okng.serve.pages.words import Translate
from okng.store.records import Filter, Record
from okng.store.store import Store

MARKS = 600  # of images in the chart of an hour
HOUR = 3600.0
SAID = {"OK": "ok", "NG": "ng", "unknown": "unsure"}
"""The store's words for what a person says, and the pages'."""


@dataclass(frozen=True)
class Shown:
    """One inspected image as a page shows it; addresses of pictures are None where there is no picture.

    `said` is "ok", "ng", "unsure" or empty, `mistake` "false_alarm", "missed" or empty. `shown` is the width and height
    that a picture is drawn at.
    """

    id: int
    name: str
    source: str
    verdict: str
    score: float
    p: str
    far: str
    time: str
    iso: str
    regions: list[Any]
    reasons: list[str]
    width: int
    height: int
    shown: tuple[int, int]
    small: bool
    original: str | None
    heatmap: str | None
    said: str
    mistake: str
    model: str
    version: int | None
    digest: str
    kept: bool


def shown(record: Record, t: Translate, calibration: Calibration | None, pictures: tuple[bool, bool]) -> Shown:
    """A record as it is shown; `calibration` is that of its model, `pictures` whether there is one, and a map."""
    scale = min(1.0, 480 / max(record.width, record.height))
    said = SAID.get(record.review or "", "")
    mistake = {("NG", "ok"): "false_alarm", ("OK", "ng"): "missed"}.get((record.verdict, said), "")
    path = record.path or ""
    of = f"?of={record.digest[:8]}"  # browsers keep pictures, and another store at this address has the same numbers
    at = datetime.datetime.fromtimestamp(record.at)
    return Shown(
        id=record.id,
        name=PurePath(path.replace("\\", "/")).name or t("frame.image", id=record.id),
        source=f"{record.source}: {path}" if path else record.source,
        verdict=record.verdict,
        score=record.score,
        p=p_words(record.p_value, calibration) if calibration else f"{record.p_value:.2g}",
        far=how_far(record.score, calibration, t) if calibration else "",
        time=at.strftime("%Y-%m-%d %H:%M:%S"),
        iso=at.astimezone().isoformat(timespec="seconds"),
        regions=record.details.get("regions", []),
        reasons=record.details.get("reasons", []),
        width=record.width,
        height=record.height,
        shown=(max(1, round(record.width * scale)), max(1, round(record.height * scale))),
        small=max(record.width, record.height) <= 128,
        original=f"/pictures/{record.id}{of}" if pictures[0] else None,
        heatmap=f"/pictures/{record.id}/heat{of}" if pictures[0] and pictures[1] else None,
        said=said,
        mistake=mistake,
        model=record.model,
        version=record.version,
        digest=record.digest,
        kept=record.has_image,
    )


def how_far(score: float, calibration: Calibration, t: Translate) -> str:
    """How far a score lies on the way to the threshold, in words."""
    far = distance(score, calibration)
    if far is None:
        return ""
    if far <= 0:
        return t("record.usual")
    if far <= 1:
        return t("record.far", share=f"{int(100 * far)}%")
    return t("record.times", times=f"{far:.3g}")


Found = TypeVar("Found")


class Recently:
    """What takes long to find out, for all who ask within `seconds`; any number of threads may."""

    def __init__(self, seconds: float):
        self.seconds = seconds
        self._known: dict[str, tuple[float, Any]] = {}
        self._lock = threading.Lock()

    def get(self, name: str, find: Callable[[], Found]) -> Found:
        """What `find` gave last, or gives now; who asks meanwhile waits for that."""
        with self._lock:
            at, found = self._known.get(name, (-math.inf, None))
            if time.monotonic() - at >= self.seconds:
                found = find()
                self._known[name] = time.monotonic(), found
            told: Found = found
            return told


@dataclass(frozen=True)
class Hour:
    """The scores of an hour; `points` (x, y, whether NG), `line` and `levels` in percent from the left and the top."""

    total: int
    ng: int
    threshold: float
    points: list[tuple[float, float, bool]]
    line: float
    levels: list[tuple[float, str]]
    ticks: list[tuple[float, int]]


def hour(scores: Sequence[tuple[int, float, float, float, str]], calibration: Calibration, now: float) -> Hour:
    """The chart of `Records.scores` rows of the last hour; every NG is drawn before OK ones as far as there is room.

    The axis of scores ends where the bulk does: one image a hundred times as odd as the rest is drawn at the edge.
    """
    threshold = calibration.threshold
    values = [row[2] for row in scores]
    spread = (threshold - float(calibration.scores[0])) or abs(threshold) or 1.0
    spread = abs(spread)
    low = max(min([*values, float(calibration.scores[0])]), threshold - 4 * spread)
    high = min(max([*values, threshold + spread / 2]), threshold + 6 * spread)
    low, high = low - 0.04 * (high - low), high + 0.06 * (high - low)

    def y(score: float) -> float:
        return round(100 * (1 - min(1.0, max(0.0, (score - low) / (high - low)))), 2)

    odd = [row for row in scores if row[4] == "NG"]
    fine = [row for row in scores if row[4] != "NG"]
    drawn = _thinned(odd, MARKS) + _thinned(fine, MARKS - min(MARKS, len(odd)))
    points = [
        (round(100 * (1 - min(1.0, max(0.0, (now - at) / HOUR))), 2), y(score), verdict == "NG")
        for _, at, score, _, verdict in drawn
    ]
    levels = [(y(value), f"{value:.3g}") for value in (low + (high - low) * share for share in (0.15, 0.5, 0.85))]
    ticks = [(round(100 - 100 * minutes / 60, 2), minutes) for minutes in (60, 30, 0)]
    return Hour(len(scores), len(odd), threshold, points, y(threshold), levels, ticks)


def _thinned(rows: list[Any], most: int) -> list[Any]:
    """At most `most` of `rows`, evenly."""
    if len(rows) <= most:
        return rows
    return [rows[i * len(rows) // most] for i in range(most)] if most else []


@dataclass(frozen=True)
class Counts:
    """Images since midnight, NG ones that nobody reviewed, and how many come in a minute."""

    inspected: int
    ok: int
    ng: int
    to_review: int
    per_minute: float


def counts(store: Store, which: Filter, now: float) -> Counts:
    """What the live page counts."""
    midnight = datetime.datetime.fromtimestamp(now).replace(hour=0, minute=0, second=0, microsecond=0).timestamp()
    today = store.records.tally(replace(which, since=midnight))
    late = store.records.tally(replace(which, since=now - 600))
    waiting = store.records.tally(replace(which, since=now - 7 * 86_400, verdict="NG", review="none"))["NG"]
    return Counts(today["OK"] + today["NG"], today["OK"], today["NG"], waiting, sum(late.values()) / 10)
