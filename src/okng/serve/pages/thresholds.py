"""The threshold page: the scores seen, and what another threshold would change among them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from okng.inspection.verdict.calibration import Calibration
from okng.report.charts import histogram
from okng.store.records import Filter
from okng.store.store import Store

NEWEST = 5_000  # images whose scores the page is given
DIGITS = 6  # of those scores


def thresholds(store: Store, which: Filter, calibration: Calibration) -> dict[str, Any]:
    """What the template shows of the images `which`, all judged by the model's one version, so that scores compare."""
    threshold = calibration.threshold
    seen = {
        "called_ng": _scores(store, which),
        "reviewed_ok": _scores(store, replace(which, review="OK")),
        "reviewed_ng": _scores(store, replace(which, review="NG")),
    }
    rows = [(name, seen[key]) for name, key in (("all", "called_ng"), ("ok", "reviewed_ok"), ("ng", "reviewed_ng"))]
    drawn = histogram([row for row in rows if len(row[1])] or [("all", calibration.scores)], calibration)
    (left, low), (right, high) = drawn.ticks[0], drawn.ticks[-1]
    per_percent = (high - low) / (right - left)
    return {
        "histogram": drawn,
        "scores": len(seen["called_ng"]),
        "held_out": len(calibration.scores),
        "threshold": threshold,
        "lowest": low + (1 - left) * per_percent,
        "highest": low + (99 - left) * per_percent,
        "rate": f"{100 * calibration.false_alarm_rate:.4g}",
        "now": {
            key: (int((scores > threshold).sum() if key != "reviewed_ng" else (scores <= threshold).sum()), len(scores))
            for key, scores in seen.items()
        },
        "data": {key: [float(f"{score:.{DIGITS}g}") for score in np.sort(scores)] for key, scores in seen.items()},
    }


def _scores(store: Store, which: Filter) -> np.ndarray:
    return np.array([row[2] for row in store.records.scores(which, NEWEST)], np.float64)
