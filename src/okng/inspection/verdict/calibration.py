"""From a raw score to a verdict: conformal calibration on OK images that the detector did not learn from."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from okng.checks import check_rate
from okng.errors import OkngError

MIN_FOR_TAIL = 30  # with fewer held-out scores a fitted tail is guesswork
FAR = 8.0  # robust standard deviations above the median
MIN_TO_COMPARE = 5
NAMED = 5  # images that stand apart, in words


@dataclass(frozen=True)
class Calibration:
    """Held-out OK scores and the thresholds drawn from them.

    `scores` (n,) are the raw scores of OK images the detector was not fitted on, `peaks` (n,) the maxima of
    their maps (None for a detector without maps), both ascending, `method` how they were held out: "split"; "pooled" or
    "cross", in folds, whose models gave the scores; or "updated" (see `updated`). An image is NG when its score is
    above `threshold`; its regions are where the map is above `pixel_threshold`. `basis` says where the threshold comes
    from: "conformal" (a rank among the scores; promised for a split), "tail" (estimated), "largest" (all that n allows)
    or "manual". `unit`: what each score stands for, an "image", or a "group" of images that one of them was drawn from.
    `dropped`: how many scores that stood apart a person had left out.

    Exchangeability of the OK images is the only assumption of the conformal promise, which a split makes: over draws of
    the calibration images, an unseen OK image is called NG with probability at most the asked rate (Vovk et al.,
    Algorithmic Learning in a Random World, 2005; for anomaly detection Laxhammar & Falkman, 2010). Images of one group
    (lot, shift) are not exchangeable with those of another, groups are: one image drawn at random from each held-out
    group and one drawn from a new group are (Dunn, Wasserman & Ramdas, 2022, "subsampling once"). So with groups the
    promise is about such an image, every group counting the same; inside one group the rate may be higher or lower.

    "pooled": the detector is the model of one of the folds. Where these are of one size each score has the law of an
    unseen image's score by it: the share of scores above any fixed number is the rate there, on average, so the rate at
    the threshold is about k / (n + 1), the asked one or, for few scores, less (2.6 % for 5 % asked of 38). The scores
    depend on each other, and no bound for finite n is claimed: the known one for scores of folds, twice the rate and at
    most √(2 / n) more (CV+, Barber et al., Annals of Statistics 49, 2021), is of comparisons with the models of all
    folds. "cross": the detector has learnt more than the models that gave the scores
    did; one to which that makes new images look less odd calls fewer of them NG than was asked.
    """

    scores: np.ndarray
    peaks: np.ndarray | None
    method: str
    false_alarm_rate: float
    threshold: float
    pixel_threshold: float | None
    basis: str
    unit: str = "image"
    dropped: int = 0

    @classmethod
    def fit(
        cls,
        scores: np.ndarray,
        peaks: np.ndarray | None,
        method: str,
        false_alarm_rate: float,
        unit: str = "image",
        dropped: int = 0,
    ) -> Calibration:
        """Calibrate on held-out OK `scores` (n,), and `peaks` (n,) of their maps, for an asked rate."""
        peaks = None if peaks is None else _ascending(peaks)
        blank = cls(_ascending(scores), peaks, method, false_alarm_rate, 0.0, None, "", unit, dropped)
        return blank.at(false_alarm_rate)

    def at(self, false_alarm_rate: float) -> Calibration:
        """The same held-out scores with the thresholds for another rate, in (0, 1)."""
        false_alarm_rate = float(false_alarm_rate)
        check_rate(false_alarm_rate)
        threshold, basis = _threshold(self.scores, false_alarm_rate)
        pixel = None if self.peaks is None else _threshold(self.peaks, false_alarm_rate)[0]
        return replace(self, false_alarm_rate=false_alarm_rate, threshold=threshold, pixel_threshold=pixel, basis=basis)

    def with_threshold(self, threshold: float) -> Calibration:
        """The same calibration with a threshold chosen by a person.

        The rate becomes what the threshold gives on the held-out images; the pixel threshold is left as it
        is.
        """
        if not isinstance(threshold, int | float | np.number) or not np.isfinite(threshold):
            raise OkngError(f"a threshold is a finite number, not {threshold!r}")
        rate = float((self.scores > threshold).mean())
        return replace(self, threshold=float(threshold), basis="manual", false_alarm_rate=rate)

    def updated(self, scores: np.ndarray, peaks: np.ndarray | None, unit: str = "image") -> Calibration:
        """The calibration after the detector took in more OK images; `scores` and `peaks` (m,) of those held out.

        If m alone suffices for the conformal promise at the present rate, the old scores are dropped: what is left is a
        plain split. Else they are kept, as the detector before the update gave them, beside the new ones. What it has
        learnt since rarely makes an OK image odder (PatchCore with a share as `coreset`: no patch gets farther, a score
        rises by its weight alone, an eighth at most), so old scores are upper bounds and err towards fewer false
        alarms, more so the more was learnt; as they come of another detector, the rate is expected, no longer promised.
        A threshold set by hand stays.
        """
        method, dropped = "split", 0
        if _rank(self.false_alarm_rate, len(scores)) < 1 or len(scores) == 0:
            method, unit, dropped = "updated", self.unit, self.dropped
            scores = np.concatenate([self.scores, scores])
            peaks = None if self.peaks is None or peaks is None else np.concatenate([self.peaks, peaks])
        peaks = None if peaks is None else _ascending(peaks)
        renewed = replace(self, scores=_ascending(scores), peaks=peaks, method=method, unit=unit, dropped=dropped)
        return renewed.with_threshold(self.threshold) if self.basis == "manual" else renewed.at(self.false_alarm_rate)

    def p_value(self, score: float) -> float:
        """The chance that an OK image looks at least this odd: (1 + #{held-out >= score}) / (n + 1)."""
        at_least = len(self.scores) - int(np.searchsorted(self.scores, score, side="left"))
        return (1 + at_least) / (len(self.scores) + 1)

    def is_ng(self, score: float) -> bool:
        """Whether `score` is above the threshold; if conformal, whether the p-value is at most the rate.

        A score that is not a number is NG: nothing passes unseen because a detector failed.
        """
        return not score <= self.threshold

    @property
    def smallest_rate(self) -> float:
        """The smallest false-alarm rate that n held-out images can promise, 1 / (n + 1)."""
        return 1 / (len(self.scores) + 1)

    @property
    def may_reach(self) -> float:
        """The false-alarm rate that this one threshold stays below in 95 of 100 draws of the held-out images.

        The promise is about the average of such draws. With k of the n + 1 ranks above it, the rate that a threshold
        really has is Beta(k, n + 1 - k) distributed (Vovk, Conditional validity of inductive conformal predictors,
        ACML 2012), lower where scores are tied; this is that law's 95 % point. For k ≥ 1.
        """
        n = len(self.scores)
        k = min(_rank(self.false_alarm_rate, n), n)
        log = [math.lgamma(n + 1) - math.lgamma(i + 1) - math.lgamma(n - i + 1) for i in range(k)]  # binomials
        low, high = 0.0, 1.0
        for _ in range(40):  # Beta(k, n + 1 - k) is below r as often as k or more of n are, each with a chance of r
            r = (low + high) / 2
            fewer = sum(math.exp(log[i] + i * math.log(r) + (n - i) * math.log1p(-r)) for i in range(k))
            low, high = (r, high) if fewer > 0.05 else (low, r)
        return high

    def promise(self) -> str:
        """One sentence: what the threshold promises, and why."""
        if not self.dropped:
            return self._promise()
        left_out = "1 image that stood apart was" if self.dropped == 1 else f"{self.dropped} that stood apart were"
        return f"{self._promise()}; {left_out} dropped, so this is about images like the others"

    def _promise(self) -> str:
        n, asked = len(self.scores), _percent(self.false_alarm_rate)
        grouped = self.unit == "group"
        whose = "held-out OK images" if self.method == "split" else "cross-fitted OK scores"
        if self.method == "updated":
            whose = "held-out OK scores, all or some from before an update"
        held = f"{n} {whose}, one from each group" if grouped else f"{n} {whose}"
        if self.basis == "manual":
            return f"threshold set by hand; {asked} of {held} lie above it"
        if self.basis == "conformal" and self.method == "split":
            like = f"of new groups like the {n} held out" if grouped else f"like the {n} held out"
            kind = "conformal, every group counting the same" if grouped else "conformal"
            spread = f"this one threshold, 19 times in 20, up to {100 * self.may_reach:.2g}%"
            return f"at most {asked} false alarms on average on OK images {like} ({kind}); {spread}"
        needed = math.ceil(1 / self.false_alarm_rate - 1e-9) - 1
        if self.basis == "conformal" and self.method == "updated":
            return f"about {asked} false alarms or fewer expected, by {held} (close, not promised)"
        if self.basis == "conformal":  # strict holds out a fifth
            strict = f"--promise strict gives one from {5 * needed} {self.unit}s on"
            return f"about {asked} false alarms or fewer expected, by {held} (no guarantee: {strict})"
        can = "can promise" if self.method == "split" else "reach"  # scores that are no plain split promise nothing
        least = _percent(self.smallest_rate)
        if self.basis == "tail":
            average = f"on average too low: expect up to the {least} that {n} {can} at best"
            return f"{asked} false alarms is an estimate from the tail of {held}, {average}; {needed} would do"
        return f"threshold is the largest of {held}; {n} {can} {least} at best, {needed} would do for {asked}"

    def to_json(self) -> dict[str, Any]:
        """Everything but the arrays, as JSON values."""
        return {
            "method": self.method,
            "n": len(self.scores),
            "false_alarm_rate": self.false_alarm_rate,
            "threshold": self.threshold,
            "pixel_threshold": self.pixel_threshold,
            "basis": self.basis,
            "unit": self.unit,
            "dropped": self.dropped,
        }

    @classmethod
    def from_json(cls, fields: Any, scores: np.ndarray, peaks: np.ndarray | None) -> Calibration:
        """The inverse of `to_json`, given the arrays; raises `OkngError` for fields that make no sense."""
        try:
            threshold, rate = float(fields["threshold"]), float(fields["false_alarm_rate"])
            pixel = None if peaks is None else float(fields["pixel_threshold"])
            if math.isfinite(threshold) and math.isfinite(pixel or 0) and 0 <= rate <= 1:
                peaks = None if peaks is None else _ascending(peaks)
                method, basis = str(fields["method"]), str(fields["basis"])
                unit, dropped = str(fields.get("unit", "image")), int(fields.get("dropped", 0))
                return cls(_ascending(scores), peaks, method, rate, threshold, pixel, basis, unit, dropped)
        except (KeyError, TypeError, ValueError, OverflowError, OkngError):
            pass
        raise OkngError("the model file's calibration makes no sense; fit the model again")


def _threshold(scores: np.ndarray, rate: float) -> tuple[float, str]:
    """The threshold for `rate` from sorted held-out `scores`, and on what it rests.

    The conformal p-value is at most `rate` exactly when fewer than k = floor(rate (n + 1)) held-out scores
    reach the score, that is when it exceeds the k-th largest.
    """
    n = len(scores)
    k = _rank(rate, n)
    if k >= 1:
        return float(scores[max(n - k, 0)]), "conformal"
    if n >= MIN_FOR_TAIL:
        return max(float(scores[-1]), tail_threshold(scores, rate)), "tail"
    return float(scores[-1]), "largest"


def _rank(rate: float, n: int) -> int:
    """k: of n held-out scores the k-th largest is the threshold for `rate`; 0 where n are too few."""
    return math.floor(rate * (n + 1) + 1e-9)  # 0.05 * 20 is a hair under 1 in floating point


def tail_threshold(scores: np.ndarray, rate: float) -> float:
    """The score that a share `rate` of OK images exceeds, by peaks over threshold (Pickands 1975).

    Excesses of the sorted `scores` (n,) over their 80 % quantile follow a generalised Pareto law, fitted by
    probability-weighted moments (Hosking & Wallis, Technometrics 29, 1987, section 3.2), which is steady for
    the few dozen points at hand where maximum likelihood is not.

    On average the rate is more than asked, for it varies and is skewed. Over draws of normal, exponential, lognormal
    and heavy-tailed scores the mean was, simulated, 1.8 to 2.1 % where 1 % is asked of 40, .32 to .37 % for .2 % of
    200, .9 to 1.1 % for .1 % of 40; the median 1.1 to 1.5 %, .18 to .26 % and .15 to .3 %. A threshold that is never
    below the largest score keeps the mean of a split within 1 / (n + 1).
    """
    n = len(scores)
    over = max(10, n // 5)
    start = float(scores[n - over - 1])
    excess = scores[n - over :] - start  # ascending
    mean = float(excess.mean())
    weighted = float((excess * (over - 1 - np.arange(over)) / (over - 1)).mean())  # E[x (1 - F(x))]
    if mean - 2 * weighted <= 1e-9 * mean:  # all tied: no tail to fit
        return float(scores[-1])
    shape = 2 - mean / (mean - 2 * weighted)  # xi; Hosking's k is -xi
    scale = mean * (1 - shape)
    ratio = rate * n / over
    if abs(shape) < 1e-6:
        return start - scale * math.log(ratio)
    return start + scale / shape * float(ratio**-shape - 1)


def stand_apart(scores: np.ndarray) -> np.ndarray:
    """Which of held-out OK `scores` (n,) are far above the others, (n,) of bool: more than `FAR` deviations.

    The deviation is 1.4826 times the median distance from the median, which half of the scores would have to be wrong
    to move. At 8 it cries wolf in one to seven of a hundred fits of up to 60 scores that are normally to lognormally
    distributed, by simulation; a black or a foreign image lies at 20 to 1,000. Of fewer than `MIN_TO_COMPARE` none.
    """
    if len(scores) < MIN_TO_COMPARE:
        return np.zeros(len(scores), bool)
    above = scores - np.median(scores)
    deviation = 1.4826 * np.median(np.abs(above)) or 1.2533 * np.abs(above).mean()  # the latter where most are tied
    apart: np.ndarray = above > FAR * deviation
    return apart


def highest_apart(scores: np.ndarray) -> np.ndarray:
    """The places (m,) of those of `scores` (n,) that `stand_apart`, highest first."""
    places = np.flatnonzero(stand_apart(scores))
    return places[np.argsort(-scores[places])]


def _ascending(scores: np.ndarray) -> np.ndarray:
    scores = np.asarray(scores, np.float64)
    if scores.ndim != 1 or len(scores) == 0 or not np.isfinite(scores).all():
        raise OkngError("calibration needs finite scores of at least one held-out OK image")
    return np.sort(scores)


def _percent(rate: float) -> str:
    return f"{100 * rate:.3g}%"
