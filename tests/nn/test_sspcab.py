from __future__ import annotations

import pytest
import torch

from okng.nn.sspcab import SSPCAB


def answering(kernel: int, dilation: int) -> set[tuple[int, int]]:
    """Where, seen from a place of the input that changes, what is predicted changes; weights and input are positive."""
    torch.manual_seed(0)
    block = SSPCAB(4, kernel, dilation)
    for corner in block.corners:
        torch.nn.init.uniform_(corner.weight, 0.1, 1)
    features = torch.rand(1, 4, 19, 21)
    changed = features.clone()
    changed[0, 2, 9, 10] += 1
    with torch.no_grad():
        moved = (block.predicted(changed) != block.predicted(features)).any(1)[0]  # (19, 21)
    return {(int(y) - 9, int(x) - 10) for y, x in moved.nonzero()}


def test_it_answers_at_exactly_the_four_corners_and_is_blind_to_the_middle() -> None:
    assert answering(1, 1) == {(-2, -2), (-2, 2), (2, -2), (2, 2)}
    assert answering(1, 3) == {(-4, -4), (-4, 4), (4, -4), (4, 4)}


def test_larger_kernels_begin_beyond_the_mask() -> None:
    """Of 2k' + 2d + 1 places along a side the outer k' are seen."""
    assert answering(2, 1) == {(y, x) for y in (-3, -2, 2, 3) for x in (-3, -2, 2, 3)}


@pytest.mark.parametrize("size", [(1, 1), (3, 8), (16, 16)])
def test_it_keeps_shapes_and_has_gradients_for_all_weights(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    block = SSPCAB(64)
    features = torch.rand(2, 64, *size)
    given = block(features)
    assert given.shape == features.shape and (given >= 0).all() and (given <= block.predicted(features)).all()
    if min(size) > 2:
        (given - features).square().mean().backward()
        assert all(weight.grad is not None and weight.grad.any() for weight in block.parameters())


def test_an_image_does_not_depend_on_the_others_of_its_batch() -> None:
    torch.manual_seed(0)
    block, features = SSPCAB(8), torch.rand(3, 8, 6, 6)
    torch.testing.assert_close(block(features)[1:2], block(features[1:2]))
