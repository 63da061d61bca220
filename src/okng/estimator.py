"""okng as a scikit-learn estimator, for arrays of images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from sklearn.base import BaseEstimator, OutlierMixin
from sklearn.utils import check_array, check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from okng.detectors.catalogue import DEFAULT
from okng.errors import OkngError
from okng.inspection.inspector import Images, Inspector
from okng.training.fit import fit

if TYPE_CHECKING:
    from okng.detectors.base import Detector

# What `fit` calls them, and what they are called here.
OWN = {"size": "size", "seed": "random_state", "false_alarm_rate": "contamination", "auxiliary": "auxiliary"}
RATE = 0.05  # of false alarms, where "auto" leaves it to okng


class InputError(OkngError, ValueError):
    """What scikit-learn calls a ValueError: data or parameters that can't be used."""


class ImageOutlierDetector(OutlierMixin, BaseEstimator):
    """Any detector of `okng list` with scikit-learn's verbs and signs: low scores and -1 are odd.

    X is (n_samples, H, W) or (n_samples, H, W, 3), or flat, (n_samples, H * W) or (n_samples, H * W * 3), with
    `image_shape` = (H, W) or (H, W, 3). Its values are whole numbers from 0 to 255, or floats in [0, 1]; which of them
    is learnt in `fit`. Mind the sign: everywhere else in okng higher is odder.

    `detector`: a name of `okng list` or a class. `contamination`: the share of odd images among those learnt from, in
    (0, 0.5], for the threshold; with "auto" all are OK, and 0.05 of such images may be called odd. Either way it is the
    false-alarm rate on images like those of X. `size`: as in `okng.fit`. `random_state`: a seed, a RandomState, or None
    for another fit each time. `arguments`: the detector's own parameters.

    >>> ImageOutlierDetector("patchcore", contamination=0.05).fit(X).predict(X_new)  # doctest: +SKIP
    array([ 1,  1, -1])
    """

    def __init__(
        self,
        detector: str | type[Detector] = DEFAULT,
        contamination: float | Literal["auto"] = "auto",
        size: int | tuple[int, int] | None = None,
        random_state: int | np.random.RandomState | None = 0,
        arguments: dict[str, Any] | None = None,
        image_shape: tuple[int, ...] | None = None,
        auxiliary: Images | None = None,
    ):
        self.detector = detector
        self.contamination = contamination
        self.size = size
        self.random_state = random_state
        self.arguments = arguments
        self.image_shape = image_shape
        self.auxiliary = auxiliary

    def fit(self, X: np.ndarray, y: Any = None) -> ImageOutlierDetector:
        """Learn from the images `X`; `y` is ignored."""
        rate = RATE if isinstance(self.contamination, str) and self.contamination == "auto" else self.contamination
        if not isinstance(rate, int | float | np.floating) or not 0 < rate <= 0.5:
            raise InputError(f"contamination is 'auto' or a share from above 0 to 0.5, not {self.contamination!r}")
        X = self._checked(X, reset=True)
        self.white_ = 1.0 if X.dtype.kind == "f" and X.max() <= 1 else 255.0
        seed = self.random_state
        if not isinstance(seed, int | np.integer):
            seed = int(check_random_state(seed).randint(2**31))
        if own := sorted(OWN.keys() & (self.arguments or {})):
            raise InputError(
                f"arguments are the detector's own parameters; give {own[0]} as ImageOutlierDetector({OWN[own[0]]}=…)"
            )
        self.inspector_: Inspector = fit(
            list(self._pixels(X)),  # an array of three grey images could be one with its channels first
            self.detector,
            size=self.size,
            auxiliary=self.auxiliary,
            false_alarm_rate=float(rate),
            seed=int(seed),
            **(self.arguments or {}),
        )
        self.offset_ = -self.inspector_.calibration.threshold
        return self

    def score_samples(self, X: np.ndarray) -> np.ndarray:
        """The negated raw scores (n_samples,): lower = odder, as in scikit-learn."""
        check_is_fitted(self, "inspector_")
        return -self.inspector_.score_samples(list(self._pixels(self._checked(X, reset=False))))

    def decision_function(self, X: np.ndarray) -> np.ndarray:
        """`score_samples` less `offset_`, so that odd images are negative (n_samples,)."""
        return self.score_samples(X) - self.offset_

    def predict(self, X: np.ndarray) -> np.ndarray:
        """1 for OK, -1 for NG (n_samples,)."""
        return np.where(self.decision_function(X) < 0, -1, 1)

    def _checked(self, X: Any, reset: bool) -> np.ndarray:
        """`X` as an array of numbers, flat or not; scikit-learn says what is wrong with it."""
        fewest = 2 if reset else 1
        if np.asarray(X).ndim > 2:
            images: np.ndarray = check_array(X, allow_nd=True, ensure_2d=False, ensure_min_samples=fewest)
        else:
            images = validate_data(self, X, reset=reset, ensure_min_samples=fewest)
        if images.dtype.kind == "b":
            raise InputError("X is true or false, not brightness; give X * 255 for black and white images")
        return images

    def _pixels(self, X: np.ndarray) -> np.ndarray:
        """uint8 (n, H, W) or (n, H, W, 3) of checked `X`."""
        shape = self.image_shape or X.shape[1:]
        if len(shape) not in (2, 3) or (len(shape) == 3 and shape[2] != 3):
            example = "ImageOutlierDetector(image_shape=(28, 28))"
            raise InputError(f"X is (n, H, W) or (n, H, W, 3), not {X.shape}; flat rows need their shape: {example}")
        if X[0].size != np.prod(shape):
            raise InputError(f"an image of X has {X[0].size} values, but image_shape {shape} is {np.prod(shape)}")
        if X.min() < 0 or X.max() > self.white_ or (self.white_ == 255 and np.any(X % 1)):
            learnt = "floats in [0, 1]" if self.white_ == 1 else "whole numbers from 0 to 255"
            raise InputError(f"the values of X are {learnt}, not from {X.min()} to {X.max()}; rescale X")
        return np.rint(X.reshape(-1, *shape) * (255 / self.white_)).astype(np.uint8)
