"""Half a cosine, and a straight line before it."""

from __future__ import annotations

import pytest

from okng.nn.learning.schedules import cosine


def test_half_a_cosine() -> None:
    assert [cosine(share) for share in (0, 1 / 3, 0.5, 1)] == pytest.approx([1, 0.75, 0.5, 0])
    assert [cosine(share, end=0.2) for share in (0, 0.5, 1)] == pytest.approx([1, 0.6, 0.2])


def test_a_straight_line_up_to_it() -> None:
    told = [cosine(share, warm_up=0.2, start=0.1) for share in (0, 0.1, 0.2, 0.6, 1)]
    assert told == pytest.approx([0.1, 0.55, 1, 0.5, 0])
