"""Which images a model has not learnt: they alone say what its scores of new images are like."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from okng.errors import OkngError, OkngWarning
from okng.inspection.reading.images import Source, fingerprint
from okng.inspection.storage.urls import known_as
from okng.inspection.verdict.calibration import NAMED, highest_apart

CALIBRATING = "calibrating"  # of the manifest: which of the images that were not learnt set the threshold


def calibrating(manifest: Mapping[str, Any]) -> Sequence[str]:
    """Which images, by their digests, set the threshold without being learnt; all such where the file doesn't say."""
    marks: Sequence[str] = manifest.get(CALIBRATING, manifest.get("unlearnt", ()))
    return marks


def not_learnt(manifest: Mapping[str, Any], images: Iterable[Source]) -> tuple[list[Source], dict[str, Any]]:
    """Those of the OK `images` that the model of this manifest has not learnt, each once; it warns of the others.

    With them the manifest of a model that they calibrate: they are seen and unlearnt, so that nothing tests on them, an
    update may learn them, and they may calibrate again. Raises `OkngError` if there are none.
    """
    seen, held_out = (manifest.get(key, ()) for key in ("seen", "unlearnt"))
    learnt = set(seen) - set(held_out)
    new: dict[str, Source] = {}
    left_out = 0
    for source in images:
        mark = fingerprint(source)
        left_out += mark in learnt
        if mark not in learnt:
            new.setdefault(mark, source)
    if not new:
        raise OkngError("the model has learnt all of these images; give OK images that it has not learnt")
    if left_out:
        warnings.warn(f"{left_out} images are left out, because the model has learnt them", OkngWarning, stacklevel=4)
    given = {key: [*dict.fromkeys([*marks, *new])] for key, marks in (("seen", seen), ("unlearnt", held_out))}
    return list(new.values()), {**manifest, **given, CALIBRATING: [*new]}


def warn_apart(scores: np.ndarray, images: Sequence[Source]) -> None:
    """Warn of those of the OK `images` whose `scores` (n,) stand far above the others': NG ones raise the threshold."""
    places = highest_apart(scores)
    if not len(places):
        return
    some = [known_as(images[i], i) for i in places[:NAMED]]
    more = f" and {len(places) - NAMED} more" if len(places) > NAMED else ""
    warnings.warn(
        f"of the images that set the threshold {', '.join(some)}{more} score far above the others (from "
        f"{scores[places].min():.4g}, median {np.median(scores):.4g}): are they OK? NG ones make it too high",
        OkngWarning,
        stacklevel=4,
    )
