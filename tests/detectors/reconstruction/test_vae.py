"""What tells a VAE: codes are distributions, those of the prior decode to OK images, and there are three scores."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from okng.datasets import open_dataset
from okng.detectors.base import Batch, Train
from okng.detectors.catalogue import create
from okng.detectors.reconstruction.vae import VAE
from okng.errors import OkngError
from okng.inspection.reading.images import Preprocess
from okng.nn.networks.gaussian import divergence
from okng.training.images.data import TrainingImages
from okng.training.loop.phases import run_phases

SCORES = ("reconstruction", "probability", "elbo")
VARIANCES = ("global", "pixel")


def built(**arguments: object) -> VAE:
    torch.manual_seed(0)
    detector = create("vae", **arguments)
    assert isinstance(detector, VAE)
    return detector


def fitted(detector: VAE, images: list[np.ndarray]) -> VAE:
    run_phases(detector, TrainingImages(images, Preprocess("L", (28, 28))), device="cpu")
    return detector


def scored(detector: VAE, images: Tensor) -> dict[str, Tensor]:
    made = {}
    for detector.score in SCORES:  # type: ignore[assignment]
        with torch.no_grad():
            made[detector.score] = detector(images).image
    return made


@pytest.mark.parametrize("variance", VARIANCES)
def test_the_scores_are_their_formulas(variance: str) -> None:
    """Written out with torch's distributions, over the model's own draws."""
    detector = built(code=3, width=4, samples=5, variance=variance)
    detector.global_variance.fill_(0.02)
    images = torch.rand(4, 1, 28, 28)
    with torch.no_grad():
        mean, log_variance = detector.encode(images)
        posterior = Normal(mean, (log_variance / 2).exp())
        surprise = torch.zeros(4, 28, 28)
        for draw in detector.draws:
            copies, log_spread = detector.decode(posterior.mean + posterior.stddev * draw)
            surprise -= Normal(copies, (log_spread / 2).exp()).log_prob(images).mean(1) / len(detector.draws)
        kl = kl_divergence(posterior, Normal(0.0, 1.0)).sum(1)
        detector.score = "probability"
        scores = detector(images)
    assert scores.map is not None
    torch.testing.assert_close(scores.map, surprise)
    found = scored(detector, images)
    torch.testing.assert_close(found["probability"], surprise.mean((1, 2)))
    torch.testing.assert_close(found["elbo"], surprise.mean((1, 2)) + kl / 784)
    torch.testing.assert_close(found["reconstruction"], (detector.decode(mean)[0] - images).square().mean((1, 2, 3)))


@pytest.mark.parametrize("variance", VARIANCES)
def test_the_loss_is_the_negative_evidence_lower_bound(variance: str) -> None:
    """Written out with torch's distributions, in nats per value; its code is drawn anew each time."""
    detector = built(code=3, width=4, variance=variance)
    batch = Batch(torch.rand(4, 1, 28, 28), torch.arange(4))
    torch.manual_seed(5)
    losses = detector.loss(batch)
    torch.manual_seed(5)
    with torch.no_grad():
        mean, log_variance = detector.encode(batch.images)
        posterior = Normal(mean, (log_variance / 2).exp())
        copies, log_spread = detector.decode(posterior.mean + posterior.stddev * torch.randn(4, 3))
        spread = (log_spread / 2).exp()
        if variance == "global":
            spread = (copies - batch.images).square().mean().sqrt()  # the batch's own, the best one
        surprise = -Normal(copies, spread).log_prob(batch.images).mean()
        kl = kl_divergence(posterior, Normal(0.0, 1.0)).sum(1).mean()
    assert float(kl) > 1e-3
    torch.testing.assert_close(losses["surprise"].detach(), surprise)
    torch.testing.assert_close(losses["divergence"].detach(), kl / 784, rtol=1e-3, atol=0)
    again = detector.loss(batch)
    assert not torch.equal(losses["surprise"], again["surprise"])
    assert torch.equal(losses["divergence"], again["divergence"])


def test_more_draws_come_closer_in_proportion() -> None:
    """The variance of the estimate falls as 1 / samples."""
    detector = built(code=4, width=4)
    image = torch.rand(1, 1, 28, 28)
    spread = {}
    for samples in (4, 64):
        estimates = []
        for seed in range(60):
            detector.draws = torch.randn(samples, 4, generator=torch.Generator().manual_seed(seed))
            with torch.no_grad():
                estimates.append(detector(image).image)
        spread[samples] = torch.cat(estimates).var()
    assert 8 < spread[4] / spread[64] < 32


def test_the_draws_are_the_models_own() -> None:
    """Kept with it, the same in each new one, and none of them taken from the generator that training uses."""
    detector = built()
    after = torch.rand(1)
    other = built(samples=4)
    assert torch.equal(after, torch.rand(1))
    assert detector.draws.shape == (16, 32) and torch.equal(other.draws, detector.draws[:4])
    assert "draws" in detector.state_dict()


@pytest.mark.parametrize("variance", VARIANCES)
def test_pixels_that_never_change_do_not_make_scores_infinite(variance: str) -> None:
    settings = {"code": 2, "width": 4, "epochs": 25, "batch_size": 4, "learning_rate": 1e-2}
    detector = fitted(built(variance=variance, **settings), [np.zeros((28, 28), np.uint8)] * 16)
    images = torch.zeros(2, 1, 28, 28)
    images[1] = 1
    with torch.no_grad():
        spread = detector.decode(detector.encode(images)[0])[1]
    assert float(spread.min()) >= 2 * np.log(0.05) - 1e-4
    for score in scored(detector, images).values():
        assert torch.isfinite(score).all() and score[1] > score[0]


def test_the_global_variance_is_the_mean_squared_error_of_drawn_copies() -> None:
    x = np.broadcast_to(np.arange(28), (28, 28))
    bars = [(255 * (np.abs(x - c) < 3)).astype(np.uint8) for c in range(6, 22)]
    settings = {"code": 4, "width": 8, "epochs": 40, "batch_size": 8, "learning_rate": 5e-3}
    detector = fitted(built(variance="global", smallest_deviation=0.001, **settings), bars)
    images = torch.from_numpy(np.stack(bars))[:, None] / 255
    with torch.no_grad():
        mean, log_variance = detector.encode(images)
        copies, _ = detector.decode(mean + (log_variance / 2).exp() * torch.randn_like(mean))
        error = float((copies - images).square().mean())
        scores = scored(detector, torch.cat([images, images.mT]))
    assert 0.5 < float(detector.global_variance) / error < 2
    assert all(score[16:].min() > score[:16].max() for score in scores.values())


def test_paper_size() -> None:
    detector = built()
    phase = next(iter(detector.phases()))
    assert isinstance(phase, Train) and (phase.epochs, phase.batch_size) == (100, 128)
    (update,) = phase.updates
    losses = update.loss(Batch(torch.rand(2, 1, 28, 28), torch.arange(2)))
    assert isinstance(losses, dict) and list(losses) == ["surprise", "divergence"]
    torch.stack([*losses.values()]).sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in detector.parameters())


@pytest.mark.real_data
def test_the_prior_decodes_to_ok_images(okng_data: Path) -> None:
    """Several latent dimensions are used; what the prior gives is as normal as unseen images, a negative is not."""
    train = [np.asarray(sample.image) for sample in open_dataset(okng_data / "mnist", "3").train[:1000]]
    unseen = torch.from_numpy(np.stack(train[800:]))[:, None] / 255
    settings = {"code": 16, "width": 8, "epochs": 10, "batch_size": 32, "learning_rate": 2e-3}
    detector = fitted(built(variance="global", **settings), train[:800])
    with torch.no_grad():
        mean, log_variance = detector.encode(unseen)
        made = detector.decode(torch.randn(200, 16, generator=torch.Generator().manual_seed(1)))[0]
        used = [float(divergence(mean[:, [i]], log_variance[:, [i]]).mean()) > 0.1 for i in range(16)]
    assert sum(used) >= 3
    normal, sampled, inverted = scored(detector, unseen), scored(detector, made), scored(detector, 1 - unseen[:20])
    for score in SCORES:
        assert sampled[score].mean() < normal[score].mean() + 2 * normal[score].std()
        assert inverted[score].min() > normal[score].max()


@pytest.mark.parametrize(
    "arguments",
    [{"samples": 0}, {"smallest_deviation": 0.0}],
)
def test_ranges(arguments: dict[str, object]) -> None:
    with pytest.raises(OkngError, match="vae: "):
        create("vae", **arguments)
