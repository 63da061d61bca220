"""Learning rates over a training, as factors of an optimiser's own: what `Update.schedule` takes."""

from __future__ import annotations

import math


def cosine(share: float, end: float = 0.0, warm_up: float = 0.0, start: float = 0.0) -> float:
    """The factor when this `share` of the steps, in [0, 1], is done.

    From `start` straight to 1 within the first `warm_up` of the steps, then along half a cosine down to `end`.
    """
    if share < warm_up:
        return start + (1 - start) * share / warm_up
    return end + (1 - end) * (1 + math.cos(math.pi * (share - warm_up) / (1 - warm_up))) / 2
