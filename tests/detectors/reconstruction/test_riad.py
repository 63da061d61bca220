"""What tells RIAD from an autoencoder: no pixel is seen by what guesses it."""

from __future__ import annotations

import pytest
import torch
from tests.detectors.scenes import SIDE, rings, source, tensor

from okng.detectors.base import Batch, Train
from okng.detectors.catalogue import create
from okng.detectors.reconstruction.riad import RIAD, magnitudes, similarities
from okng.errors import OkngError
from okng.training.loop.phases import run_phases

SMALL = {"cells": (2, 4), "width": 4, "levels": 2, "window": 3}


def built(**arguments: object) -> RIAD:
    torch.manual_seed(0)
    detector = create("riad", **{"image_size": (SIDE, SIDE), "channels": 1, **SMALL, **arguments})
    assert isinstance(detector, RIAD)
    return detector


@pytest.mark.parametrize(("size", "channels"), [((28, 28), 1), ((33, 47), 3)])
def test_every_size(size: tuple[int, int], channels: int) -> None:
    detector = built(image_size=size, channels=channels).eval()
    images = torch.rand(2, channels, *size)
    with torch.no_grad():
        scores = detector(images)
        assert detector.guessed(images, detector.divisions[0]).shape == images.shape
    assert scores.map is not None and scores.map.shape == (2, *size)
    torch.testing.assert_close(scores.image, scores.map.amax((1, 2)))


def test_paper_size() -> None:
    detector = RIAD()
    assert detector.divisions.shape == (4, 3, 1, 256, 256)
    (phase,) = detector.phases()
    assert isinstance(phase, Train) and phase.validate is not None and phase.updates[0].schedule is not None
    assert [phase.updates[0].schedule(share) for share in (0, 0.8, 0.9)] == [1, 1, 0.1]


@pytest.mark.parametrize("size", [(16, 16), (33, 47)])
@pytest.mark.parametrize("side", [1, 2, 5])
def test_every_pixel_is_in_one_set_and_cells_stay_whole(size: tuple[int, int], side: int) -> None:
    detector = built(image_size=size)
    division = detector.divided(side)
    assert division.shape == (3, 1, *size) and bool((division.sum(0) == 1).all())
    number = division.int().argmax(0)[0]  # (H, W)
    corner = number[::side, ::side].repeat_interleave(side, 0).repeat_interleave(side, 1)[: size[0], : size[1]]
    assert torch.equal(number, corner)
    cells = [int((number[::side, ::side] == n).sum()) for n in range(3)]
    assert max(cells) - min(cells) <= 1


def test_divisions_of_training_differ_and_those_of_scoring_stay() -> None:
    first, second = built(), built()
    assert not torch.equal(first.divided(2), first.divided(2))
    assert torch.equal(first.divisions, second.divisions)


def test_no_pixel_is_seen_by_what_guesses_it() -> None:
    """Nor is any other of its set: the gradient is exactly 0, and that by the other sets is not."""
    detector = built().eval()
    for division in detector.divisions:
        images = torch.rand(1, 1, SIDE, SIDE, requires_grad=True)
        guesses = detector.guessed(images, division)
        for row, column in [(0, 0), (3, 9), (15, 15), (8, 7)]:
            (gradient,) = torch.autograd.grad(guesses[0, 0, row, column], images, retain_graph=True)
            own = division[:, 0, row, column]  # (sets,)
            assert not gradient[0, 0][division[own][0, 0]].any()
            assert gradient[0, 0][~division[own][0, 0]].any()


def test_similarity_of_gradients() -> None:
    torch.manual_seed(0)
    a, b = torch.rand(2, 3, 16, 20), torch.rand(2, 3, 16, 20)
    alike, apart = similarities(a, a), similarities(a, b)
    assert [s.shape for s in apart] == [(2, 1, 16, 20), (2, 1, 8, 10), (2, 1, 4, 5), (2, 1, 2, 2)]
    for same, other in zip(alike, apart, strict=True):
        assert bool((same == 1).all()) and bool((other > 0).all()) and other.mean() < 0.99
    g, h = magnitudes(a.mean(1, keepdim=True)), magnitudes(b.mean(1, keepdim=True))
    torch.testing.assert_close(apart[0], (2 * g * h + 0.0026) / (g.square() + h.square() + 0.0026))


def test_gradients_of_a_slope() -> None:
    """By Prewitt's kernels of unit sum, a slope of s a pixel has the magnitude 2s, whatever its direction."""
    y, x = torch.meshgrid(torch.arange(9.0), torch.arange(9.0), indexing="ij")
    for image in (0.3 * x, 0.3 * y, 0.18 * x + 0.24 * y):
        found = magnitudes(image[None, None])[0, 0, 1:-1, 1:-1]
        torch.testing.assert_close(found, torch.full((7, 7), 0.6))
    assert float(magnitudes(torch.ones(1, 1, 9, 9)).max()) < 1e-5


def test_losses_are_zero_for_a_perfect_guess() -> None:
    detector = built()
    detector.guessed = lambda images, division: images  # type: ignore[method-assign]
    images = torch.rand(2, 1, SIDE, SIDE)
    losses = detector.loss(Batch(images, torch.arange(2)))
    assert set(losses) == {"error", "gradients", "structure"}
    assert max(float(loss) for loss in losses.values()) < 1e-5
    detector.guessed = lambda images, division: torch.zeros_like(images)  # type: ignore[method-assign]
    assert min(float(loss) for loss in detector.loss(Batch(images, torch.arange(2))).values()) > 0.1


def test_cells_that_are_too_few() -> None:
    with pytest.raises(OkngError, match="cells is sides"):
        built(cells=(2, 16))


def test_a_defect_is_guessed_away_and_found() -> None:
    """A bright spot in the empty corner: the guess does not have it, and the map has its highest place there."""
    detector = built(epochs=8, batch_size=16, learning_rate=5e-3, width=8)
    run_phases(detector, source(rings(256)), device="cpu")
    images = tensor(rings(50, seed=1))
    spoilt = images.clone()
    spoilt[:, :, 0:3, 0:3] = 1
    with torch.no_grad():
        guesses = detector.guessed(spoilt, detector.divisions[1])
        before, after = detector(images), detector(spoilt)
    assert float(guesses[:, :, 0:3, 0:3].mean()) < 0.5
    assert (after.image[:, None] > before.image).float().mean() > 0.9
    assert after.map is not None
    place = after.map.flatten(1).argmax(1)  # (50,)
    assert ((place // SIDE < 6) & (place % SIDE < 6)).float().mean() > 0.8
