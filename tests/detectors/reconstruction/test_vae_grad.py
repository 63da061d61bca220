"""What tells γ-VAE-grad: energy falls, OK detail stays, and a defect is taken away rather than blurred."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from okng.detectors.base import Batch, Train
from okng.detectors.catalogue import create
from okng.detectors.reconstruction.vae_grad import VAEGrad
from okng.errors import OkngError
from okng.inspection.reading.images import Preprocess
from okng.metrics.ranking import auroc
from okng.nn.networks.gaussian import divergence
from okng.training.images.data import TrainingImages
from okng.training.loop.phases import run_phases

SIDE = 24


def built(**arguments: object) -> VAEGrad:
    torch.manual_seed(0)
    small = {"image_size": (SIDE, SIDE), "channels": 1, "width": 8, "code": 4, "steps": 5}
    detector = create("vae_grad", **{**small, **arguments})
    assert isinstance(detector, VAEGrad)
    return detector


def parts(count: int, seed: int) -> np.ndarray:
    """OK: a square with a fine pattern, here and there. uint8 (count, SIDE, SIDE)."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:SIDE, :SIDE]
    made = []
    for _ in range(count):
        top, left = rng.integers(5, 9, 2)
        inside = (abs(y - top - 5) < 6) & (abs(x - left - 5) < 6)
        made.append(np.where(inside, 140 + 30 * ((x + y) % 2), 60) + rng.normal(0, 3, (SIDE, SIDE)))
    return np.stack(made).clip(0, 255).astype(np.uint8)


def tensor(images: np.ndarray) -> Tensor:
    return torch.from_numpy(images)[:, None] / 255


@pytest.fixture(scope="module")
def fitted() -> VAEGrad:
    detector = built(steps=40, epochs=20, batch_size=16, learning_rate=3e-3)
    run_phases(detector, TrainingImages(list(parts(160, 0)), Preprocess("L", (SIDE, SIDE))), device="cpu")
    return detector


@pytest.fixture(scope="module")
def spoilt() -> tuple[Tensor, Tensor, Tensor]:
    """Unseen OK images, the same with a bright square pasted, and where it is (N, SIDE, SIDE)."""
    ok = tensor(parts(16, 1))
    rng, where = np.random.default_rng(2), torch.zeros(16, SIDE, SIDE, dtype=torch.bool)
    for mask in where:
        top, left = rng.integers(8, 14, 2)
        mask[top : top + 3, left : left + 3] = True
    return ok, ok.masked_fill(where[:, None], 1.0), where


def test_the_energy_is_its_formula_and_the_gradient_its_own() -> None:
    detector = built(tie=0.3).double()
    with torch.no_grad():
        detector.log_variance.fill_(math.log(0.04))
    images, before = torch.rand(2, 1, SIDE, SIDE).double(), torch.rand(2, 1, SIDE, SIDE).double()
    with torch.no_grad():
        mean, log_variance = detector.encode(images)
        errors = (images - detector.decoder(mean)).square().sum((1, 2, 3))
        moved = (images - before).abs().sum((1, 2, 3))
        expected = errors + 2 * 0.04 * divergence(mean, log_variance) + 0.3 * moved
        torch.testing.assert_close(detector.energy(images, before)[0], expected)
        detector.prior = False
        torch.testing.assert_close(detector.energy(images, before)[0], errors + 0.3 * moved)
        detector.prior = True
        gradient, _ = detector.gradient(images, before)
        nudge = torch.zeros_like(images)
        nudge[:, 0, 10, 10] = 1e-5
        slope = (detector.energy(images + nudge, before)[0] - detector.energy(images - nudge, before)[0]) / 2e-5
        torch.testing.assert_close(gradient[:, 0, 10, 10], slope, rtol=1e-4, atol=1e-6)


def test_twice_the_variance_times_the_bound_is_the_energy_without_its_tie() -> None:
    """Up to what does not depend on the image: the same gradient."""
    detector = built(tie=0.0)
    with torch.no_grad():
        detector.log_variance.fill_(math.log(0.02))
    images = torch.rand(1, 1, SIDE, SIDE)
    gradient, _ = detector.gradient(images, images)
    images.requires_grad_()
    mean, log_variance = detector.encode(images)
    nats = torch.distributions.Normal(detector.decoder(mean), 0.02**0.5).log_prob(images).sum()
    bound = nats - divergence(mean, log_variance).sum()
    (expected,) = torch.autograd.grad(-2 * 0.02 * bound, images)
    torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-5)


def test_a_step_is_masked_by_the_squared_residual() -> None:
    detector = built(steps=1, step_size=0.25)
    images = torch.rand(2, 1, SIDE, SIDE)
    with torch.no_grad():
        gradient, residuals = detector.gradient(images, images)
        torch.testing.assert_close(detector.project(images), (images - 0.25 * gradient * residuals**2).clamp(0, 1))
        detector.masked = False
        torch.testing.assert_close(detector.project(images), (images - 0.25 * gradient).clamp(0, 1))
        detector.steps = 0
        assert torch.equal(detector.project(images), images) and not detector(images).image.any()


def test_the_variance_is_learnt(fitted: VAEGrad) -> None:
    """It goes where the copies' errors are, which is its best value, and the loss rests on it."""
    unseen = tensor(parts(100, 3))
    with torch.no_grad():
        errors = (unseen - fitted.decoder(fitted.encode(unseen)[0])).square().mean()
        assert 0.4 < float(fitted.log_variance.exp() / errors) < 2.5
    images, index = torch.rand(2, 1, SIDE, SIDE), torch.arange(2)
    torch.stack([*(detector := built()).loss(Batch(images, index)).values()]).sum().backward()
    assert detector.log_variance.grad is not None and detector.log_variance.grad != 0


def test_a_code_that_runs_away_does_not_end_the_training() -> None:
    """A log-variance of 100 would be a divergence of e^100, and the next step of the weights at random."""
    detector = built()
    last = [layer for layer in detector.encoder.modules() if isinstance(layer, torch.nn.Linear)][-1]
    with torch.no_grad():
        last.bias[4:] = torch.tensor([100.0, 8.5, 7.0, -3.0])
    batch = Batch(tensor(parts(2, 1)), torch.arange(2))
    losses = detector.loss(batch)
    assert float(losses["divergence"].detach()) < 0.5 * 4 * math.exp(8.1) / SIDE**2
    _, log_variance = detector.encode(batch.images)
    assert (log_variance[:, :2] == 8).all() and (log_variance[:, 2:] < 8).all()


def test_the_energy_falls(fitted: VAEGrad, spoilt: tuple[Tensor, Tensor, Tensor]) -> None:
    """Of each image, in nine steps of ten, and by much."""
    _, images, _ = spoilt
    energies, fitted.steps = [], 1
    moved = images
    with torch.no_grad():
        for _ in range(40):
            energies.append(fitted.energy(moved, images)[0])
            gradient, residuals = fitted.gradient(moved, images)
            moved = (moved - fitted.step_size * gradient * residuals.square()).clamp(0, 1)
        fitted.steps = 40
        torch.testing.assert_close(fitted.project(images), moved)
    energy = torch.stack(energies)  # (40, N)
    assert float((energy.diff(dim=0) <= 0).float().mean()) >= 0.9
    assert (energy[-1] < 0.7 * energy[0]).all()


def test_ok_detail_stays_and_a_defect_goes(fitted: VAEGrad, spoilt: tuple[Tensor, Tensor, Tensor]) -> None:
    """The defining property: less blur than a copy, and nearer to the image before it was spoilt."""
    ok, bad, where = spoilt
    with torch.no_grad():
        copies, moved = fitted.decoder(fitted.encode(bad)[0]), fitted.project(bad)
        blur, kept = fitted.decoder(fitted.encode(ok)[0]) - ok, fitted.project(ok) - ok
        assert float(kept.abs().mean()) < 0.5 * float(blur.abs().mean())
        assert float((moved - ok).square().mean()) < float((copies - ok).square().mean())
        assert float((moved - ok)[where[:, None]].abs().mean()) < 0.5 * float((bad - ok)[where[:, None]].abs().mean())
        found = {}
        for fitted.score in ("residual", "gradient", "projection"):  # type: ignore[assignment]
            scores = fitted(torch.cat([ok, bad]))
            assert scores.map is not None
            torch.testing.assert_close(scores.map.mean((1, 2)), scores.image)
            found[fitted.score] = auroc(where.flatten().numpy(), scores.map[16:].flatten().numpy())
            assert auroc([0] * 16 + [1] * 16, scores.image.numpy()) > 0.95
    assert found["projection"] >= found["residual"] - 0.01 and min(found.values()) > 0.9


def test_what_is_like_nothing_learnt_does_not_run_away(fitted: VAEGrad) -> None:
    """Black, white and noise: the longest steps that there are."""
    images = torch.stack([torch.zeros(1, SIDE, SIDE), torch.ones(1, SIDE, SIDE), torch.rand(1, SIDE, SIDE)])
    with torch.no_grad():
        moved = fitted.project(images)
    assert moved.min() >= 0 and moved.max() <= 1 and float((moved - images).square().mean((1, 2, 3)).min()) > 1e-3


def test_without_a_tie_more_moves(fitted: VAEGrad, spoilt: tuple[Tensor, Tensor, Tensor]) -> None:
    ok, *_ = spoilt
    with torch.no_grad():
        tied = (fitted.project(ok) - ok).abs().mean()
        fitted.tie = 0.0
        free = (fitted.project(ok) - ok).abs().mean()
        fitted.tie = 0.05
    assert float(tied) < 0.9 * float(free)


def test_defaults() -> None:
    detector = create("vae_grad", width=2)
    assert isinstance(detector, VAEGrad) and (detector.steps, detector.step_size, detector.tie) == (100, 0.5, 0.05)
    (phase,) = detector.phases()
    assert isinstance(phase, Train) and (phase.epochs, phase.batch_size) == (250, 64)
    assert not detector.exportable and built(score="residual").exportable


@pytest.mark.parametrize("arguments", [{"smallest_deviation": 0.0}, {"step_size": 0.0}, {"steps": -1}, {"tie": -0.1}])
def test_ranges(arguments: dict[str, object]) -> None:
    with pytest.raises(OkngError, match="vae_grad: "):
        create("vae_grad", **arguments)
