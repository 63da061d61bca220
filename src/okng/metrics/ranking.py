"""How well image scores rank NG above OK.

Labels are 0 (OK) or 1 (NG), scores raw numbers of any range, higher for odder, both of shape (N,). Only the
order of the scores counts. With one class there is nothing to rank: every function then returns NaN, and
whoever prints it says which class is missing. A score that is not finite raises `OkngError`.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from okng.errors import OkngError


class F1Max(NamedTuple):
    """The largest F1 and the threshold that reaches it, with NG predicted where `score >= threshold`."""

    value: float
    threshold: float


def auroc(labels: ArrayLike, scores: ArrayLike) -> float:
    """The chance that an NG image scores above an OK one, ties counting half; 0.5 is guessing."""
    from sklearn.metrics import roc_auc_score

    checked = _check(labels, scores)
    return float(roc_auc_score(*checked)) if _both_classes(checked[0]) else math.nan


def average_precision(labels: ArrayLike, scores: ArrayLike) -> float:
    """The step-wise area under the precision-recall curve, equal scores being one threshold.

    Guessing gives the share of NG images, so values of differently mixed sets do not compare.
    """
    from sklearn.metrics import average_precision_score

    checked = _check(labels, scores)
    return float(average_precision_score(*checked)) if _both_classes(checked[0]) else math.nan


def f1_max(labels: ArrayLike, scores: ArrayLike) -> F1Max:
    """The largest F1 over all thresholds, and that threshold.

    This is an oracle: the threshold is chosen with the labels it is judged by. It says what the ranking could
    give, not what a threshold set on OK images will give.
    """
    from sklearn.metrics import precision_recall_curve

    checked = _check(labels, scores)
    if not _both_classes(checked[0]):
        return F1Max(math.nan, math.nan)
    precision, recall, thresholds = precision_recall_curve(*checked)
    # The curve's last point (recall 0) belongs to no threshold. Precision and recall are 0 only together.
    precision, recall = precision[:-1], recall[:-1]
    f1 = 2 * precision * recall / np.maximum(precision + recall, np.finfo(float).tiny)
    best = int(np.argmax(f1))
    return F1Max(float(f1[best]), float(thresholds[best]))


def _check(labels: ArrayLike, scores: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Labels as bool (N,) and scores as float64 (N,)."""
    truth = np.asarray(labels)
    values = np.asarray(scores, dtype=np.float64)
    if truth.ndim != 1 or truth.shape != values.shape:
        raise ValueError(f"labels {truth.shape} and scores {values.shape} must be two vectors of one length")
    if not np.isin(truth, (0, 1)).all():
        raise ValueError("labels must be 0 (OK) or 1 (NG)")
    if not np.isfinite(values).all():
        bad = int(np.flatnonzero(~np.isfinite(values))[0])
        raise OkngError(f"the score of image {bad} is {values[bad]}; train the model again")
    return truth.astype(bool), values


def _both_classes(truth: np.ndarray) -> bool:
    return bool(truth.any() and not truth.all())
