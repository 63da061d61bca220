"""The size from which on planted defects are found, in words."""

from __future__ import annotations

import math

from okng.planted.result import Curve
from okng.report.language import Translate


def from_size(curve: Curve, t: Translate) -> str:
    """`Curve.words` in the language of a page."""
    smallest, largest = (f"{curve.points[end].size:.3g}" for end in (0, -1))
    if curve.smallest == 0:
        return t("find.below", size=smallest)
    if not curve.reached:
        return t("find.not_reached_to", size=largest)
    low = f"{curve.low:.3g}" if curve.low > 0 else t("find.below_short", size=smallest)
    high = f"{curve.high:.3g}" if curve.high < math.inf else t("find.not_reached")
    return t("find.from_to", size=f"{curve.smallest:.3g}", low=low, high=high)
