from __future__ import annotations

import torch

from okng.nn.features.patches import local_average, mean_of_highest, on_finest_grid


def test_local_average_is_the_mean_with_zeros_beyond_the_edge() -> None:
    features = torch.arange(9.0).view(1, 1, 3, 3)
    average = local_average(features, 3)[0, 0]
    assert float(average[1, 1]) == 4.0
    assert abs(float(average[0, 0]) - (0 + 1 + 3 + 4) / 9) < 1e-6


def test_the_finest_grid_keeps_positions() -> None:
    fine, coarse = torch.zeros(1, 2, 8, 8), torch.zeros(1, 3, 4, 4)
    coarse[0, 0, 3, 0] = 1
    joined = on_finest_grid([fine, coarse])
    assert joined.shape == (1, 5, 8, 8)
    row, column = divmod(int(joined[0, 2].argmax()), 8)
    assert row in (6, 7) and column in (0, 1)


def test_mean_of_highest() -> None:
    scores = torch.arange(1000.0).view(2, 20, 25)
    assert mean_of_highest(scores, 0.01).tolist() == [497.0, 997.0]  # five of 500
    assert mean_of_highest(scores[:, :2, :2], 0.01).tolist() == [26.0, 526.0]  # at least one
