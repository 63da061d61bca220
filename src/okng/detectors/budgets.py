"""The budgets that a detector can be run on: "cpu" is minutes per fit on one core, "paper" what its paper states."""

from __future__ import annotations

from typing import Any

from okng.detectors.cards import cards
from okng.errors import OkngError

BUDGETS = ("cpu", "paper")
SMALL_SIDE = 48  # pixels; the median image is small up to this


def arguments_for(budget: str, detector: str, small: bool) -> dict[str, Any] | None:
    """What the card of `detector` gives it on small or large images; None where nobody has chosen it yet.

    `OkngError` for a `budget` that there is not.
    """
    if budget not in BUDGETS:
        raise OkngError(f"a budget is {' or '.join(BUDGETS)}, not {budget!r}")
    if detector not in cards():
        return None
    run = "paper" if budget == "paper" else "cpu-small" if small else "cpu-large"
    return cards()[detector].arguments.get(run)
