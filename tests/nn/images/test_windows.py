"""Windows are torch's own, in its order, and no more are cut than are asked for."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from okng.nn.images.windows import windows_in_blocks


@pytest.mark.parametrize(
    ("shape", "side", "step"), [((2, 3, 20, 27), 8, 4), ((3, 1, 9, 9), 3, 2), ((1, 2, 8, 8), 8, 1)]
)
def test_they_are_those_of_unfold_bit_for_bit(shape: tuple[int, int, int, int], side: int, step: int) -> None:
    images = torch.rand(shape)
    expected = F.unfold(images, side, stride=step).transpose(1, 2).reshape(-1, shape[1], side, side)
    blocks = list(windows_in_blocks(images, side, step, together=7))
    assert [len(block) for block in blocks[:-1]] == [7] * (len(blocks) - 1) and 1 <= len(blocks[-1]) <= 7
    assert torch.equal(torch.cat(blocks), expected) and all(block.is_contiguous() for block in blocks)


def test_a_block_takes_no_more_memory_than_its_windows() -> None:
    """However many windows the images have."""
    images = torch.rand(4, 3, 64, 64)
    block = next(windows_in_blocks(images, 32, 1, together=5))
    assert block.untyped_storage().nbytes() == 5 * 3 * 32 * 32 * 4
