"""How sure a counted share is."""

from __future__ import annotations

import math


def wilson(count: float, total: int) -> tuple[float, float]:
    """The 95 % score interval of a binomial share (Wilson, JASA 22, 1927), honest at 0 and at 1 too."""
    z = 1.959964  # the 97.5 % point of the normal law
    share = count / total
    middle = (share + z * z / (2 * total)) / (1 + z * z / total)
    half = z * math.sqrt(share * (1 - share) / total + z * z / (4 * total**2)) / (1 + z * z / total)
    return max(0.0, middle - half), min(1.0, middle + half)
