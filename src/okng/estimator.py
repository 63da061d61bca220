"""okng as a scikit-learn estimator, for arrays of images."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, OutlierMixin

from okng.inspection.inspector import Inspector
from okng.training.fit import fit


class ImageOutlierDetector(OutlierMixin, BaseEstimator):
    """Any detector of `okng list` with scikit-learn's verbs and signs: low scores and -1 are odd.

    X is uint8 of shape (n_samples, H, W) or (n_samples, H, W, 3). `arguments` are the detector's own parameters. Mind
    the sign: everywhere else in okng higher is odder.

    >>> ImageOutlierDetector("patchcore", contamination=0.05).fit(X).predict(X_new)  # doctest: +SKIP
    array([ 1,  1, -1])
    """

    def __init__(
        self,
        detector: str = "patchcore",
        contamination: float = 0.05,
        size: int | tuple[int, int] | None = None,
        random_state: int = 0,
        arguments: dict[str, Any] | None = None,
    ):
        self.detector = detector
        self.contamination = contamination
        self.size = size
        self.random_state = random_state
        self.arguments = arguments

    def fit(self, X: np.ndarray, y: Any = None) -> ImageOutlierDetector:
        """Learn from OK images `X`; `contamination` is the false-alarm rate asked for, `y` is ignored."""
        self.inspector_: Inspector = fit(
            np.asarray(X),
            self.detector,
            size=self.size,
            false_alarm_rate=self.contamination,
            seed=self.random_state,
            **(self.arguments or {}),
        )
        return self

    def score_samples(self, X: np.ndarray) -> np.ndarray:
        """The negated raw scores (n_samples,): lower = odder, as in scikit-learn."""
        return -self.inspector_.score_samples(np.asarray(X))

    def decision_function(self, X: np.ndarray) -> np.ndarray:
        """`score_samples` shifted so that odd images are negative (n_samples,)."""
        return self.score_samples(X) + self.inspector_.calibration.threshold

    def predict(self, X: np.ndarray) -> np.ndarray:
        """1 for OK, -1 for NG (n_samples,)."""
        return np.where(self.decision_function(X) < 0, -1, 1)
