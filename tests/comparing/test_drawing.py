"""The drawing of accuracy against speed: every label can be read."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from okng.comparing.drawing import HEIGHT, ROUND, WIDTH, Box, scatter, span
from okng.detectors.cards import cards


@pytest.mark.parametrize("seed", range(4))
def test_no_label_lies_on_another_or_on_a_point_however_close_the_methods_are(seed: int) -> None:
    rng = np.random.default_rng(seed)
    spread = (0.0, 0.002, 0.02, 0.3)[seed]
    methods = [
        (name, 20 * 10 ** (3 * spread * rng.random()), 1 - spread * rng.random(), 0.5, 1.0, False) for name in cards()
    ]
    drawing = scatter(methods)
    assert drawing is not None and len(drawing.points) == len(cards())
    boxes = [point.box for point in drawing.points]
    assert not [pair for pair in combinations(boxes, 2) if pair[0].meets(pair[1])]
    dots = [Box(point.x - ROUND, point.y - ROUND, 2 * ROUND, 2 * ROUND) for point in drawing.points]
    assert not [(box, dot) for box in boxes for dot in dots if box.meets(dot)]
    assert all(box.x >= 0 and box.x + box.width <= WIDTH and box.y + box.height <= HEIGHT for box in boxes)


def test_axes_hold_all_points_and_name_round_numbers() -> None:
    drawing = scatter([("a", 8.0, 0.69, 0.57, 0.8, False), ("b", 170.0, 0.925, 0.86, 0.96, True)])
    assert drawing is not None
    slow, fast = drawing.points[1], drawing.points[0]
    assert 0 < fast.x < slow.x < WIDTH and 0 <= slow.y < fast.y <= HEIGHT
    assert fast.bottom == HEIGHT and fast.top < fast.y < fast.bottom  # the interval is cut at the axis
    assert [words for _, words in drawing.across] == ["10 ms", "20 ms", "50 ms", "100 ms", "200 ms"]
    assert drawing.upwards[0] == (0.0, "1") and drawing.upwards[-1][0] == HEIGHT
    assert scatter([]) is None
    alone = scatter([("one", 5.0, 1.0, 0.9, 1.0, True)])
    assert alone is not None and alone.points[0].y == 0 and not alone.points[0].far


@pytest.mark.parametrize(
    ("milliseconds", "said"), [(7.834, "7.83 ms"), (116.2, "116 ms"), (999.7, "1 s"), (2577, "2.58 s")]
)
def test_times_as_a_person_reads_them(milliseconds: float, said: str) -> None:
    assert span(milliseconds) == said
