"""What several layouts need to divide a set: which class is normal, and a split where the set brings none."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np

from okng.datasets.base import Sample
from okng.errors import OkngError, nearest_names


def check_normal(normal: str | None, classes: Collection[str], folder: Path) -> str:
    """`normal` if it is one of `classes`; an `OkngError` that names them otherwise."""
    if normal is None:
        raise OkngError(f"{folder} holds several classes; say which one is normal: {', '.join(classes)}")
    if normal not in classes:
        raise OkngError(f"{folder} has no class {normal!r}; {nearest_names(normal, classes)}")
    return normal


def split_by_seed(samples: Sequence[Sample], seed: int) -> tuple[tuple[Sample, ...], tuple[Sample, ...]]:
    """80 % of `samples` (rounded down) and the rest, drawn at random by `seed`, each in the order given."""
    order = np.random.default_rng(seed).permutation(len(samples))
    cut = len(samples) * 4 // 5
    return tuple(samples[i] for i in sorted(order[:cut])), tuple(samples[i] for i in sorted(order[cut:]))
