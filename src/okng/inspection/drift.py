"""Drift: are the images still like those learnt, and if not, is it the light, the lens or the part?

Three numbers of each image, its score, brightness and sharpness, are compared with those of OK images in the model
file. Each gives a p-value, the p-values of a stable line are uniform, and a conformal test martingale bets that they
are not: capital that bets on a fair game hardly ever grows (Vovk, Nouretdinov & Gammerman, ICML 2003; Volkhonskiy et
al., PMLR 60, 2017, for a fixed calibration set).

- p-values are smoothed, (#{greater} + θ (1 + #{equal})) / (n + 1) with θ uniform: exactly uniform also among ties. θ
  comes from the seed and the image's number, so that a run can be computed again.
- Bets are linear, f_e(p) = 1 + e (p - 1/2), and the Simple Jumper moves between them: small p mean larger values, and
  so negative e. All in logarithms.
- **The set of n is one and the same for all images**, so their p-values depend on each other: given the set their
  mean is off 1/2, by 1 / √(12 n) or so, and a long run of uncorrected bets is sure to win. Of iid values the mean of
  p given the set is within Δ = √(ln(2/δ) / (2 n)) of 1/2, with a chance of 1 - δ (Hoeffding: it is n / (n + 1) times
  the mean of n independent mid-ranks, plus a constant). So each bet is divided by 1 + |e| Δ. Given such a set the
  capital is then a supermartingale, and by Ville's inequality it ever reaches c with a chance of 1 / c at most: **δ +
  1 / c in all, however long the run is**. Drifts smaller than Δ are not seen.
- Capital that is lost in a long stable time would have to be won back first. So a share of it is kept and put in
  later, 1 / (2.11 (k + 1) ln² (k + 1)) at image k, which sums to 1: a mixture over the time of the change, under the
  same bound.

The bound is for images that come independently from what the n came from. Frames of one part, a share of NG images
that was not among them, or scores that are not those of a plain split make it a rule of thumb: `Drift.bounded`.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from okng.checks import check_rate, plain, seed_of
from okng.errors import OkngError
from okng.inspection.inspector import Inspector
from okng.inspection.verdict.result import Inspection

BETS = (-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0)
ODDER = (-2.0, -1.0, -0.5, 0.0)  # where smaller values say nothing
JUMP = 0.01
STARTS = 2.109742801  # the sum of 1 / (k ln² k) from 2 on
FADE = 0.02  # weight of the newest image in the recent mean


@dataclass(frozen=True)
class DriftState:
    """What is known after `count` images, each by what was watched.

    `since`: the image, from 1 on, after which a change set in, of what raised an alarm. `evidence`: the capital's
    logarithm to base 10, `needed` where it raises one. `p` and `theta`: of the newest image. `recent`: the mean of
    about the last 50 images, `learnt` the median of those learnt. `words`: for people.
    """

    count: int
    since: dict[str, int]
    evidence: dict[str, float]
    needed: float
    p: dict[str, float]
    theta: dict[str, float]
    recent: dict[str, float]
    learnt: dict[str, float]
    words: str

    @property
    def drifted(self) -> bool:
        """Whether anything raised an alarm."""
        return bool(self.since)


class Drift:
    """Watches a line for drift from what `inspector` learnt; `add` is given each inspection, in order.

    `risk`: the chance that it ever raises an alarm on a stable line, over all that is watched. An alarm stays until
    `restart`. `to_json` is small, and `from_json` goes on from it. `bounded`: whether the risk is one; see above.
    """

    def __init__(self, inspector: Inspector, risk: float = 0.01, seed: int = 0):
        risk, seed = plain("risk", risk), seed_of(seed)
        check_rate(risk)
        self.risk, self.seed, self.count = risk, seed, 0
        calibration, manifest = inspector.calibration, inspector.manifest
        whole_maps = inspector.rules.masks and manifest.get("zones_calibrated") == "whole maps"
        of_a_split = calibration.method == "split" and calibration.unit == "image" and not calibration.dropped
        self.bounded = of_a_split and not whole_maps
        samples = (inspector.learnt_images or {}).get("samples", {})
        references = {"score": calibration.scores, **{name: np.array(samples[name]) for name in sorted(samples)}}
        share = risk / len(references)
        self.needed = math.log(2 / share)  # c, and δ = share / 2
        self.watches = {
            name: Watch(values, share / 2, BETS if name != "score" or self.bounded else ODDER)
            for name, values in references.items()
        }
        self._last: dict[str, tuple[float, float]] = {}

    def add(self, inspection: Inspection) -> DriftState:
        """Take in one inspected image; what is known then."""
        self.take([inspection])
        return self.state

    def take(self, inspections: Sequence[Inspection]) -> None:
        """The same of several at once, which takes a part of the time, where nobody asks what is known between."""
        numbers = np.arange(self.count + 1, self.count + 1 + len(inspections))
        thetas = np.array([np.random.default_rng([self.seed, number]).random(3) for number in numbers.tolist()])
        described = np.array([inspection.traits is not None for inspection in inspections])
        self.count += len(inspections)
        self._last = {}
        for (name, watch), theta in zip(self.watches.items(), thetas.T, strict=False):  # (n,)
            if name == "score":
                has, values = np.ones(len(inspections), bool), [inspection.score for inspection in inspections]
            else:
                has = described
                values = [getattr(one.traits, name) for one in inspections if one.traits is not None]
            if values:
                p = watch.add(np.array(values, np.float64), theta[has], numbers[has], self.needed)
                if has[-1]:
                    self._last[name] = (float(p[-1]), float(theta[-1]))

    @property
    def state(self) -> DriftState:
        """What is known so far."""
        watches = self.watches.items()
        return DriftState(
            count=self.count,
            since={name: watch.alarm for name, watch in watches if watch.alarm is not None},
            evidence={name: round(watch.evidence / math.log(10), 4) for name, watch in watches},
            needed=round(self.needed / math.log(10), 4),
            p={name: p for name, (p, _) in self._last.items()},
            theta={name: theta for name, (_, theta) in self._last.items()},
            recent={name: watch.recent for name, watch in watches if watch.recent is not None},
            learnt={name: watch.middle for name, watch in watches},
            words=self._words(),
        )

    def restart(self) -> None:
        """Begin anew, as after an alarm that was looked into; more alarms than one then have their chances summed."""
        for name, watch in self.watches.items():
            self.watches[name] = Watch(watch.reference, watch.delta, watch.bets)
            self.watches[name].low = self.count

    def to_json(self) -> dict[str, Any]:
        """All that is to be kept, as JSON values."""
        watches = {name: watch.to_json() for name, watch in self.watches.items()}
        return {
            "risk": self.risk, "seed": self.seed, "count": self.count, "model": self._digest(), "watches": watches,
        }  # fmt: skip

    @classmethod
    def from_json(cls, inspector: Inspector, fields: Any) -> Drift:
        """The inverse of `to_json`, for the same model; `OkngError` where it is another one's or makes no sense."""
        try:
            drift = cls(inspector, float(fields["risk"]), fields["seed"])
            drift.count = int(fields["count"])
            same = fields["model"] == drift._digest()
            for name, watch in drift.watches.items():
                if same:
                    watch.resume(fields["watches"][name])
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise OkngError("what was kept of the drift makes no sense; begin it anew") from error
        if not same:
            raise OkngError("what was kept of the drift is of another model; begin it anew")
        return drift

    def _digest(self) -> str:
        running = hashlib.sha256()
        for name, watch in self.watches.items():
            running.update(name.encode() + watch.reference.tobytes())
        return running.hexdigest()[:16]

    def _words(self) -> str:
        """What has changed, and what that is a sign of."""
        least = math.ceil(2 * math.log(2 / self.watches["score"].delta)) + 1  # with fewer no bet can win
        too_few = [name for name, watch in self.watches.items() if len(watch.reference) < least]
        moved = {name: watch for name, watch in self.watches.items() if watch.alarm is not None}
        if not moved:
            steady = f"steady: nothing points to a change in {self.count:,} images"
            blind = f"; the {' and '.join(too_few)} of fewer than {least} OK images can't tell" if too_few else ""
            return steady + blind
        said, why = [], ""
        for name, watch in moved.items():
            more = watch.rising
            how = {
                "score": ("odder", "less odd"),
                "brightness": ("brighter", "darker"),
                "sharpness": ("sharper or noisier", "less sharp"),
            }[name][not more]
            said.append(f"{how} since image {watch.alarm:,} ({watch.recent:.3g} against {watch.middle:.3g})")
        if "sharpness" in moved:
            why = (
                "camera noise or another surface" if moved["sharpness"].rising else "focus, dirt on the lens, or motion"
            )
        if "brightness" in moved:
            why = f"{why + ', and ' if why else ''}lamp, exposure, or the colour of the material"
        if not why:
            why = (
                "light and sharpness are as learnt, so look at the parts: another batch, or a fault in production"
                if len(self.watches) > 1
                else "the model does not know the light it learnt, so it may be that or the parts"
            )
        return f"images are {' and '.join(said)}: {why}"


class Watch:
    """The capital of bets on the p-values of one number, among `reference` (n,) values of OK images.

    `delta`: the chance that the set is so far off that the bound fails; `bets`: the slopes e.
    """

    def __init__(self, reference: np.ndarray, delta: float, bets: tuple[float, ...]):
        self.reference = np.sort(np.asarray(reference, np.float64))
        self.middle = float(np.median(self.reference))
        self.delta, self.bets = delta, bets
        self.slopes = np.array(bets)
        self.off = correction(len(self.reference), delta)
        self.capital = np.full(len(bets), -np.inf)  # logarithms
        self.kept = 1.0  # not yet put in
        self.steps = 0
        self.evidence = 0.0
        self.low = 0  # the image after which there was last no gain
        self.alarm: int | None = None
        self.recent: float | None = None

    @property
    def rising(self) -> bool:
        """Whether the bets on larger values have won more."""
        down, up = self.slopes < 0, self.slopes > 0
        return not up.any() or bool(self.capital[down].max() >= self.capital[up].max())

    def add(self, values: np.ndarray, theta: np.ndarray, numbers: np.ndarray, needed: float) -> np.ndarray:
        """The p-values (n,) of the images `numbers` (n,), one after another; an alarm is raised at `needed`."""
        p = smoothed(self.reference, values, theta)  # (n,)
        gained = gains(p, self.slopes, self.off)  # (n, k)
        capitals = np.empty((len(p), len(self.bets) + 1))  # what is not yet put in is the last
        for i, value in enumerate(values.tolist()):
            self.recent = value if self.recent is None else (1 - FADE) * self.recent + FADE * value
            self.steps += 1
            part = start(self.steps)
            self.kept = max(0.0, self.kept - part)
            self.capital = advanced(self.capital, gained[i], part)
            capitals[i, :-1], capitals[i, -1] = self.capital, math.log(max(self.kept, 1e-300))
        for number, evidence in zip(numbers.tolist(), np.logaddexp.reduce(capitals, axis=1).tolist(), strict=True):
            self.evidence = evidence
            if self.alarm is None:
                if evidence >= needed:
                    self.alarm = self.low + 1
                elif evidence <= 0:
                    self.low = number
        return p

    def to_json(self) -> dict[str, Any]:
        """All but the reference."""
        capital = [None if not np.isfinite(value) else float(value) for value in self.capital]
        names = ("kept", "steps", "evidence", "low", "alarm", "recent")
        return {"capital": capital, **{name: getattr(self, name) for name in names}}

    def resume(self, fields: dict[str, Any]) -> None:
        """Take over what `to_json` gave."""
        capital = np.array([-np.inf if value is None else float(value) for value in fields["capital"]])
        if len(capital) != len(self.capital) or np.isnan(capital).any():
            raise ValueError("other bets")
        self.capital, self.kept, self.steps = capital, float(fields["kept"]), int(fields["steps"])
        self.evidence, self.low, self.recent = float(fields["evidence"]), int(fields["low"]), fields["recent"]
        self.alarm = None if fields["alarm"] is None else int(fields["alarm"])


def smoothed(reference: np.ndarray, values: np.ndarray, theta: np.ndarray) -> np.ndarray:
    """The p-values of `values`, of any shape, among the ascending `reference` (n,): small for large values."""
    n = len(reference)
    after = np.searchsorted(reference, values, side="right")
    ties = after - np.searchsorted(reference, values, side="left")
    p: np.ndarray = (n - after + theta * (1 + ties)) / (n + 1)
    return p


def correction(n: int, delta: float) -> float:
    """Δ: how far, but for a chance of `delta`, the mean p-value is from 1/2 given a set of n."""
    return math.sqrt(math.log(2 / delta) / (2 * n))


def start(step: int) -> float:
    """The share of the capital that is put in at `step`, from 1 on; all of them sum to 1."""
    return 1 / (STARTS * (step + 1) * math.log(step + 1) ** 2)


def gains(p: np.ndarray, slopes: np.ndarray, off: float) -> np.ndarray:
    """The logarithms (..., k) of what bets on each of the `slopes` (k,) win by the p-values (...).

    Each is divided by 1 + |e| Δ, where Δ is `off`.
    """
    won = 1 + slopes * (p[..., None] - 0.5)  # (..., k), 0 at the ends for slopes of 2
    result: np.ndarray = np.log(np.maximum(won, 1e-300)) - np.log1p(np.abs(slopes) * off)
    return result


def advanced(capital: np.ndarray, gained: np.ndarray, part: float) -> np.ndarray:
    """The logarithms of the capital (..., k) on each slope after `gains` (..., k): put in, jump, bet.

    `part` of 1 is put in, shared by all slopes; of what there is `JUMP` is shared anew by all.
    """
    k = gained.shape[-1]
    capital = np.logaddexp(capital, math.log(part / k))
    together = np.logaddexp.reduce(capital, axis=-1, keepdims=True)
    result: np.ndarray = np.logaddexp(capital + math.log(1 - JUMP), together + math.log(JUMP / k)) + gained
    return result
