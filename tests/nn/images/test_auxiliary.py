from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from okng.nn.images import auxiliary as aux

EACH = [
    aux.gaussian_blurred,
    aux.gaussian_noise,
    aux.horizontal_flip,
    aux.rotated,
    aux.sheared,
    aux.svd_blurred,
    aux.vertical_flip,
]


@pytest.fixture
def images() -> Tensor:
    torch.manual_seed(0)
    return torch.rand(5, 3, 20, 28)


@pytest.mark.parametrize("make", EACH)
def test_shape_and_range_stay_and_the_image_does_not(make: Callable[[Tensor], Tensor], images: Tensor) -> None:
    made = make(images)
    assert made.shape == images.shape and float(made.min()) >= 0 and float(made.max()) <= 1
    assert ((made - images).abs().amax((1, 2, 3)) > 0.05).all()


@pytest.mark.parametrize("make", EACH)
def test_draws_are_torchs(make: Callable[[Tensor], Tensor], images: Tensor) -> None:
    made = []
    for _ in range(2):
        torch.manual_seed(3)
        made.append(make(images))
    assert torch.equal(*made)


def test_rotations_are_the_three_turns() -> None:
    torch.manual_seed(0)
    images = torch.rand(30, 1, 6, 6)
    turns = [images.rot90(k, (2, 3)) for k in (1, 2, 3)]
    made = aux.rotated(images)
    found = [next(k for k in range(3) if torch.equal(turns[k][i], made[i])) for i in range(30)]
    assert set(found) == {0, 1, 2}


def test_flips(images: Tensor) -> None:
    assert torch.equal(aux.horizontal_flip(images)[..., 0], images[..., -1])
    assert torch.equal(aux.vertical_flip(images)[..., 0, :], images[..., -1, :])


def test_a_shear_leans_lines_and_keeps_rows() -> None:
    """A vertical line: each row still has it once, at a place that moves evenly from row to row."""
    torch.manual_seed(1)
    images = torch.zeros(4, 1, 40, 40)
    images[..., 19:21] = 1
    made = aux.sheared(images)[:, 0]  # (4, 40, 40)
    places = (made * torch.arange(40.0)).sum(2) / made.sum(2)  # (4, 40)
    torch.testing.assert_close(made.sum(2), torch.full((4, 40), 2.0))
    steps = places.diff(dim=1)
    torch.testing.assert_close(steps, steps[:, :1].expand(4, 39), atol=1e-3, rtol=0)
    assert steps.abs().max() <= aux.SHEAR and steps[:, 0].unique().numel() == 4


def test_svd_blur_has_the_rank_it_says_and_is_the_nearest_of_it(images: Tensor) -> None:
    """Of an image that has that rank already nothing is lost."""
    low = images[..., :1] * images[..., :1, :]  # rank 1
    torch.testing.assert_close(aux.svd_blurred(low), low)
    smooth = 0.5 + 0.01 * (images - 0.5)  # where nothing is clipped
    rank = torch.linalg.matrix_rank(aux.svd_blurred(smooth).double(), atol=1e-5)
    assert (rank == round(20 * aux.RANK)).all()


def test_adversarial_noise_is_one_step_uphill() -> None:
    torch.manual_seed(0)
    images = torch.rand(2, 1, 8, 8) * 0.6 + 0.2
    weights = torch.randn(1, 1, 8, 8)
    with torch.no_grad():  # as within a loss that is not being differentiated
        made = aux.adversarial_noise(images, lambda some: (weights * some).sum())
    torch.testing.assert_close(made - images, aux.STEP * weights.sign().expand_as(images))
    assert not made.requires_grad
