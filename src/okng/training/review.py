"""The oddest of the images that a fit was given as OK, for a person to look at."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from heapq import heappush, heappushpop

import numpy as np

from okng.detectors.base import Detector
from okng.errors import OkngError
from okng.inspection.reading.images import Source
from okng.inspection.verdict.calibration import Calibration
from okng.inspection.verdict.result import NO_RULES, Inspection, judged
from okng.inspection.verdict.rules import Rules
from okng.planted.measure import Plan
from okng.planted.result import Sensitivity
from okng.training.held_out import uncalibrated
from okng.training.images.data import TrainingImages
from okng.training.progress import Narrator


@dataclass
class Oddest:
    """The `limit` highest scores of one detector's judgement, or of comparable ones, with their maps."""

    limit: int
    scores: list[float] = field(default_factory=list)
    peaks: list[float] = field(default_factory=list)
    calibration: Calibration | None = None
    rules: Rules = NO_RULES
    _heap: list[tuple[float, int, Inspection, Source, str]] = field(default_factory=list)

    def add(self, inspection: Inspection, source: Source, name: str) -> None:
        """Take in one image, known to a person as `name`."""
        self.scores.append(inspection.score)
        if inspection.map is not None:
            self.peaks.append(float(inspection.map.max()))
            inspection = replace(inspection, map=inspection.map.copy())  # a view would keep its whole batch alive
        entry = (inspection.score, -len(self.scores), inspection, source, name)
        if len(self._heap) < self.limit:
            heappush(self._heap, entry)
        else:
            heappushpop(self._heap, entry)

    def conclude(
        self, calibration: Calibration | None = None, false_alarm_rate: float = 0.05, rules: Rules = NO_RULES
    ) -> None:
        """Judge the images by `calibration`, or by their own scores where theirs compare with no others."""
        peaks, self.rules = np.array(self.peaks) if self.peaks else None, rules
        self.calibration = calibration or Calibration.fit(np.array(self.scores), peaks, "own", false_alarm_rate)

    def ranked(self) -> list[tuple[Inspection, Source, str]]:
        """Highest score first, with the p-value, verdict and regions of the calibration."""
        calibration = self.calibration
        assert calibration is not None, "conclude comes first"
        found = []
        for _, _, seen, source, name in sorted(self._heap, key=lambda entry: entry[:2], reverse=True):
            found.append((judged(seen, calibration, self.rules), source, name))
        return found


class Review:
    """What a fit shows of the images it was given: hand one to `okng.fit`, then write it with `okng.report`.

    No image is shown as judged by a detector that had learnt it: an image's own patches make it look plain. `held_out`
    are those that the calibration counts; where they were cross-fitted (`method` "cross" or "pooled") the final
    detector has learnt all or most of them too. `learnt` are, of a split, the others, judged by a second detector that
    learnt the held-out ones alone: their scores compare with each other and with nothing else. With `plant`, defects
    are planted into held-out images too, and `sensitivity` says which are found; `unplanted` says why where that could
    not be measured.
    """

    def __init__(self, limit: int = 24, plant: bool = False):
        self.held_out, self.learnt = Oddest(limit), Oddest(limit)
        self.method = ""
        self.plant = plant
        self.sensitivity: Sensitivity | None = None
        self.unplanted = ""
        self._plan: Plan | None = None
        self._planned = np.empty(0, int)  # the places of the plan's sources

    def look(
        self,
        detector: Detector,
        images: TrainingImages,
        folds: list[np.ndarray],
        k: int,
        seed: int,
        tell: Narrator,
        rules: Rules = NO_RULES,
    ) -> None:
        """Have `detector`, which has not learnt fold `k` of the `images`, look for what is planted into that."""
        if not self.plant or self.unplanted:
            return
        try:
            if self._plan is None:
                self._planned = np.concatenate(folds)
                self._plan = Plan([images.sources[i] for i in self._planned], images.preprocess, seed, tell)
            start = sum(len(fold) for fold in folds[:k])
            self._plan.look(uncalibrated(detector, images, rules), range(start, start + len(folds[k])), tell)
        except OkngError as error:
            self._plan, self.unplanted = None, str(error)

    def conclude(self, calibration: Calibration, calibrating: np.ndarray, rules: Rules = NO_RULES) -> None:
        """Once all images are judged, and those at the places `calibrating` (m,) have set the threshold."""
        self.method = calibration.method
        if self._plan is not None:
            try:
                self.sensitivity = self._plan.conclude(
                    calibration, np.flatnonzero(np.isin(self._planned, calibrating)).tolist()
                )
            except OkngError as error:
                self.unplanted = str(error)
        self.held_out.conclude(calibration, rules=rules)
        if self.learnt.scores:
            self.learnt.conclude(false_alarm_rate=calibration.false_alarm_rate, rules=rules)
