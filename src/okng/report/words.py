"""How the report says how odd an image is."""

from __future__ import annotations

import math

from okng.inspection.verdict.calibration import Calibration
from okng.report.language import translator


def p(value: float, calibration: Calibration) -> str:
    """A p-value of two digits; "≤ 0.023" for the smallest one, below which n images can tell nothing."""
    return f"{'≤ ' if value <= calibration.smallest_rate else ''}{value:.2g}"


def distance(score: float, calibration: Calibration) -> float | None:
    """How far `score` lies from the usual OK image, the held-out median, where the threshold lies at 1.

    So it has the same meaning whatever the detector's unit. None where the threshold is not above the median.
    """
    ascending = calibration.scores
    usual = float(ascending[(len(ascending) - 1) // 2] + ascending[len(ascending) // 2]) / 2
    room = calibration.threshold - usual
    return (score - usual) / room if room > 0 else None


def how_far(score: float, calibration: Calibration, language: str = "en") -> str:
    """`distance` as a sentence without its stop, or empty."""
    far = distance(score, calibration)
    if far is None:
        return ""
    t = translator(language)
    if far <= 0:
        return t("far.no_odder")
    if far <= 1:
        return t("far.of_the_way", share=math.floor(100 * far))
    return t("far.times", n=f"{far:.3g}")
