from __future__ import annotations

import pytest
import torch

from okng.nn.networks.sizes import halvings, pad_to_grid


@pytest.mark.parametrize(
    ("size", "times", "grid"),
    [
        ((16, 16), 2, (4, 4)),
        ((28, 28), 2, (7, 7)),
        ((32, 32), 3, (4, 4)),
        ((64, 64), 4, (4, 4)),
        ((256, 256), 6, (4, 4)),
        ((33, 47), 3, (5, 6)),
        ((250, 31), 2, (63, 8)),
    ],
)
def test_the_shorter_side_ends_at_4_to_7(size: tuple[int, int], times: int, grid: tuple[int, int]) -> None:
    assert halvings(size) == (times, grid)
    padded = pad_to_grid(torch.rand(1, 2, *size), times)
    assert padded.shape[2:] == (grid[0] * 2**times, grid[1] * 2**times)


def test_padding_repeats_the_border_and_leaves_the_rest() -> None:
    images = torch.rand(2, 1, 6, 8)
    assert pad_to_grid(images, 1) is images
    padded = pad_to_grid(images, 2)
    assert torch.equal(padded[:, :, :6], images) and torch.equal(padded[:, :, 6:], images[:, :, 5:].expand(2, 1, 2, 8))
