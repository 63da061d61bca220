"""How the report says numbers."""

from __future__ import annotations

import math

import numpy as np

from okng.inspection.calibration import Calibration


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


def p(value: float, calibration: Calibration) -> str:
    """A p-value of two digits; "≤ 0.023" for the smallest one, below which n images can tell nothing."""
    return f"{'≤ ' if value <= calibration.smallest_rate else ''}{value:.2g}"


def distance(score: float, calibration: Calibration) -> float | None:
    """How far `score` lies from the usual OK image, the held-out median, where the threshold lies at 1.

    So it has the same meaning whatever the detector's unit. None where the threshold is not above the median.
    """
    usual = float(np.median(calibration.scores))
    room = calibration.threshold - usual
    return (score - usual) / room if room > 0 else None


def how_far(score: float, calibration: Calibration) -> str:
    """`distance` as a sentence without its stop, or empty."""
    far = distance(score, calibration)
    if far is None:
        return ""
    if far <= 0:
        return "No odder than the usual OK image"
    if far <= 1:
        return f"{math.floor(100 * far)}% of the way from the usual OK image to the threshold"
    return f"{far:.3g} times as far from the usual OK image as the threshold"
