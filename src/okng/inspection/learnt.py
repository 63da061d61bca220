"""Which images a model has not learnt: they alone say what its scores of new images are like."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from typing import Any

from okng.errors import OkngError, OkngWarning
from okng.inspection.images import Source, fingerprint


def not_learnt(manifest: Mapping[str, Any], images: Iterable[Source]) -> list[Source]:
    """Those of the OK `images` that the model of this manifest has not learnt, each once; it warns of the others.

    Raises `OkngError` if there are none.
    """
    seen, held_out = (set(manifest.get(key, ())) for key in ("seen", "unlearnt"))
    learnt, known, new = seen - held_out, set(), []
    left_out = 0
    for source in images:
        mark = fingerprint(source)
        left_out += mark in learnt
        if mark not in learnt and mark not in known:
            known.add(mark)
            new.append(source)
    if not new:
        raise OkngError("the model has learnt all of these images; give OK images that it has not learnt")
    if left_out:
        warnings.warn(f"{left_out} images are left out, because the model has learnt them", OkngWarning, stacklevel=4)
    return new
