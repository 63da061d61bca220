"""The transformations are those of a group: products, powers and inverses of flips, shifts and turns."""

from __future__ import annotations

import pytest
import torch

from okng.nn.images.geometric import Transformations


def image(height: int = 8, width: int = 8) -> torch.Tensor:
    """(1, 1, H, W), no value twice."""
    return torch.randperm(height * width, generator=torch.Generator().manual_seed(0)).float().view(1, 1, height, width)


@pytest.fixture(scope="module")
def all_72() -> Transformations:
    return Transformations((8, 8), flips=True, shifts=True)


def test_seventy_two_of_an_asymmetric_image_differ_pairwise_and_the_first_is_itself(all_72: Transformations) -> None:
    made = all_72(image())[0]  # (72, 1, 8, 8)
    assert len(all_72) == 72 == len(made.flatten(1).unique(dim=0))
    assert torch.equal(made[0], image()[0])


def test_turns_are_a_group_of_four_and_a_flip_is_its_own_inverse(all_72: Transformations) -> None:
    quarter = int(((all_72.turns == 1) & (all_72.flipped + all_72.moved_x + all_72.moved_y == 0)).nonzero())
    flip = int(((all_72.flipped == 1) & (all_72.turns + all_72.moved_x + all_72.moved_y == 0)).nonzero())

    def power(which: int, times: int) -> torch.Tensor:
        made = image()
        for _ in range(times):
            made = all_72.one_each(made, torch.tensor([which]))
        return made

    assert torch.equal(power(quarter, 1), image().rot90(1, (2, 3))) and torch.equal(power(quarter, 4), image())
    assert torch.equal(power(flip, 1), image().flip(3)) and torch.equal(power(flip, 2), image())
    pixels = image().view(64)[all_72.sources[all_72.moved_x + all_72.moved_y == 0]]  # (8, 64)
    assert torch.equal(pixels.sort(1).values, torch.arange(64.0).expand(8, 64))  # nothing is lost: permutations
    products = {
        tuple(all_72.sources[one][all_72.sources[other]].tolist())
        for one in range(72)
        for other in range(72)
        if all_72.moved_x[[one, other]].sum() + all_72.moved_y[[one, other]].sum() == 0
    }
    assert len(products) == 8  # closed: flips and turns of a square


def test_each_is_the_flip_then_the_reflected_shift_then_the_turn(all_72: Transformations) -> None:
    made = all_72(image())[0]
    for number, (flip, x, y, turns) in enumerate(
        zip(all_72.flipped, all_72.moved_x, all_72.moved_y, all_72.turns, strict=True)
    ):
        expected = image().flip(3) if flip else image()
        framed = torch.nn.functional.pad(expected, (2, 2, 2, 2), mode="reflect")  # a quarter of 8 on each side
        top, left = (2 - 2 * (0, -1, 1)[int(moved)] for moved in (y, x))
        expected = framed[:, :, top : top + 8, left : left + 8].rot90(int(turns), (2, 3))
        assert torch.equal(made[number], expected[0]), number


def test_one_each_is_the_one_that_is_asked_for(all_72: Transformations) -> None:
    images, which = torch.rand(5, 3, 8, 8), torch.tensor([0, 71, 13, 13, 40])
    expected = all_72(images)[torch.arange(5), which]
    assert torch.equal(all_72.one_each(images, which), expected)


def test_an_oblong_image_keeps_its_shape_and_its_turns_differ() -> None:
    turns = Transformations((8, 12))
    made = turns(image(8, 12))[0]
    assert made.shape == (4, 1, 8, 12) and len(made.flatten(1).unique(dim=0)) == 4
    assert torch.equal(made[2], image(8, 12)[0].rot90(2, (1, 2)))
    top, bottom = torch.zeros(1, 1, 8, 12), torch.zeros(1, 1, 8, 12)
    top[:, :, :, 6:], bottom[:, :, :4] = 1, 1  # what is right comes to the top
    assert torch.equal(turns(top)[0, 1], bottom[0])
