"""`ImageOutlierDetector` answers as scikit-learn's users expect."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
from sklearn.exceptions import NotFittedError
from sklearn.utils.estimator_checks import parametrize_with_checks

from okng import ImageOutlierDetector, OkngError
from tests.contract.conftest import EXAMPLE, pictures


class RowsAsImages(ImageOutlierDetector):
    """Rows of few real numbers, which scikit-learn's checks bring, as uint8 strips: ten units from black to white."""

    def _pixels(self, X: np.ndarray) -> np.ndarray:
        grey = ((X.astype(float) + 5) * 25.5 % 256).astype(np.uint8)  # (n, d), no two rows alike wherever they lie
        return grey[:, None, :].repeat(8, 1).repeat(8, 2)  # (n, 8, 8 d)


TRAINING = "okng's threshold is of held-out images: how many training images lie above it is not fixed"
DOES_NOT_APPLY = {"check_outliers_train": TRAINING, "check_outliers_fit_predict": TRAINING}


@parametrize_with_checks([RowsAsImages(EXAMPLE)], expected_failed_checks=lambda _: DOES_NOT_APPLY)
def test_scikit_learns_own_checks(estimator: Any, check: Any) -> None:
    check(estimator)


@pytest.fixture(scope="module")
def grey() -> np.ndarray:
    return np.ascontiguousarray(pictures(12, seed=1)[..., 0])  # (12, 64, 64)


def test_before_fit_it_is_not_fitted(grey: np.ndarray) -> None:
    for ask in ("predict", "decision_function", "score_samples"):
        with pytest.raises(NotFittedError):
            getattr(ImageOutlierDetector(), ask)(grey)


def test_flat_floats_and_whole_numbers_are_the_same_images(grey: np.ndarray) -> None:
    wanted = ImageOutlierDetector(EXAMPLE).fit(grey).score_samples(grey)
    flat = grey.reshape(12, -1)
    for X in (flat, flat.astype(np.int64), flat.astype(float), flat / 255):
        found = ImageOutlierDetector(EXAMPLE, image_shape=(64, 64)).fit(X)
        np.testing.assert_array_equal(found.score_samples(X), wanted)
        assert found.n_features_in_ == 4096
    colour = pictures(12, seed=1)
    wanted = ImageOutlierDetector(EXAMPLE).fit(colour).score_samples(colour)
    rows = ImageOutlierDetector(EXAMPLE, image_shape=(64, 64, 3)).fit(colour.reshape(12, -1))
    np.testing.assert_array_equal(rows.score_samples(colour.reshape(12, -1)), wanted)


def test_the_scale_is_the_one_that_was_learnt(grey: np.ndarray) -> None:
    """A black image of whole numbers lies in [0, 1] too."""
    found = ImageOutlierDetector(EXAMPLE).fit(grey.astype(float))
    black = np.zeros((1, 64, 64))
    np.testing.assert_array_equal(found.score_samples(black), found.score_samples(black.astype(np.uint8)))
    shares = ImageOutlierDetector(EXAMPLE).fit(grey / 255)
    with pytest.raises(ValueError, match=r"floats in \[0, 1\], not from .* rescale X"):
        shares.predict(grey)
    with pytest.raises(OkngError, match="whole numbers from 0 to 255"):
        found.predict(grey / 255)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"contamination": 0.0}, "contamination is 'auto' or a share"),
        ({"contamination": 0.7}, "contamination is 'auto' or a share"),
        ({"contamination": "some"}, "contamination is 'auto' or a share"),
        ({"contamination": None}, "contamination is 'auto' or a share"),
        ({"random_state": 1.5}, "1.5 cannot be used to seed"),
        ({"arguments": {"seed": 3}}, r"give seed as ImageOutlierDetector\(random_state=…\)"),
        ({}, r"flat rows need their shape: ImageOutlierDetector\(image_shape=\(28, 28\)\)"),
        ({"image_shape": (28, 28)}, "has 4096 values, but image_shape"),
    ],
)
def test_mistakes_are_value_errors(grey: np.ndarray, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ImageOutlierDetector(EXAMPLE, **settings).fit(grey.reshape(12, -1))


def test_true_and_false_are_no_brightness(grey: np.ndarray) -> None:
    for X in (grey > 100, grey.reshape(12, -1) > 100):
        with pytest.raises(ValueError, match=r"true or false, not brightness; give X \* 255"):
            ImageOutlierDetector(EXAMPLE, image_shape=(64, 64)).fit(X)


def test_contamination_is_the_rate_and_auto_is_okngs(grey: np.ndarray) -> None:
    rates = [
        ImageOutlierDetector(EXAMPLE, contamination=asked).fit(grey).inspector_.calibration.false_alarm_rate
        for asked in ("auto", 0.2)
    ]
    assert rates == [0.05, 0.2]


def test_random_state(grey: np.ndarray) -> None:
    seeds = [
        ImageOutlierDetector(EXAMPLE, random_state=state).fit(grey).inspector_.manifest["provenance"]["seed"]
        for state in (None, None, np.random.RandomState(1), np.random.RandomState(1), np.int64(7))
    ]
    assert seeds[0] != seeds[1] and seeds[2] == seeds[3] and seeds[4] == 7


def test_it_can_be_pickled(grey: np.ndarray) -> None:
    found = ImageOutlierDetector(EXAMPLE).fit(grey)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(found)).predict(grey), found.predict(grey))
