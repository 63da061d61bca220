"""What tells SimpleNet from a toy: noise in feature space alone, told from unseen OK patches by a margin."""

from __future__ import annotations

import pytest
import torch
from tests.detectors.scenes import discs, in_colour

from okng.detectors.base import Batch, Train
from okng.detectors.catalogue import create
from okng.detectors.synthetic_anomalies.simplenet import SimpleNet
from okng.errors import OkngError
from okng.inspection.reading.images import Preprocess
from okng.nn.images.blur import gaussian_blur
from okng.training.images.data import TrainingImages
from okng.training.loop.phases import run_phases


def built(**arguments: object) -> SimpleNet:
    torch.manual_seed(0)
    small = {"hidden": 64, "noise": 0.5, "epochs": 30, "batch_size": 4, "discriminator_rate": 2e-3}
    detector = create("simplenet", **{**small, **arguments})
    assert isinstance(detector, SimpleNet)
    return detector


@pytest.fixture(scope="module")
def fitted() -> SimpleNet:
    detector = built()
    run_phases(detector, TrainingImages(list(discs(12)), Preprocess("RGB", (64, 64), 16)), device="cpu")
    return detector


def test_unseen_ok_patches_are_told_from_noisy_ones(fitted: SimpleNet) -> None:
    with torch.no_grad():
        ok = fitted.projection(fitted.patches(in_colour(discs(6, seed=1))).flatten(0, 2))  # (6 * 64, d)
        noisy = ok + fitted.noise * torch.randn(ok.shape, generator=torch.Generator().manual_seed(0))
        margin = fitted.discriminator(ok).mean() - fitted.discriminator(noisy).mean()
    assert float(margin) > 0.3


def test_it_finds_what_is_odd_and_where(fitted: SimpleNet) -> None:
    images = discs(4, seed=2)
    spoilt = images.copy()
    spoilt[:, 24:36, 24:36] = [20, 20, 230]
    with torch.no_grad():
        normal, odd = fitted(in_colour(images)), fitted(in_colour(spoilt))
    assert odd.image.min() > normal.image.max() and odd.map is not None
    for drawn in odd.map:
        y, x = divmod(int(drawn.argmax()), 8)
        assert 2 <= y <= 5 and 2 <= x <= 5


def test_the_loss_is_zero_beyond_the_margin_and_no_gradient_reaches_the_backbone() -> None:
    detector = built(noise=1e-6)
    (phase,) = detector.phases()
    assert isinstance(phase, Train) and phase.prepare is not None
    prepared = phase.prepare(in_colour(discs(2)))
    assert isinstance(prepared, torch.Tensor)
    batch = Batch(in_colour(discs(2)), torch.arange(2), (prepared,))
    losses = detector.loss(batch)
    torch.stack([*losses.values()]).sum().backward()
    assert all(p.grad is None for p in detector.backbone.parameters())
    assert all(p.grad is not None for p in detector.projection.parameters())

    class Says(torch.nn.Module):
        """0.3 of the first half, which is OK, and -2 of the noisy half."""

        def forward(self, patches: torch.Tensor) -> torch.Tensor:
            half = len(patches) // 2
            return torch.cat([torch.full((half, 1), 0.3), torch.full((half, 1), -2.0)])

    detector.discriminator = Says()  # type: ignore[assignment]
    losses = detector.loss(batch)
    assert float(losses["OK"]) == pytest.approx(0.2) and float(losses["noisy"]) == 0


def test_the_noise_has_the_deviation_asked_for() -> None:
    detector, seen = built(noise=0.25), []
    detector.discriminator.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    with torch.no_grad():
        detector.loss(Batch(torch.zeros(1), torch.arange(1), (torch.rand(2, 16, 16, len(detector.projection.bias)),)))
    ok, noisy = seen[0].chunk(2)
    assert float((noisy - ok).std()) == pytest.approx(0.25, rel=0.02)


def test_the_image_is_the_highest_of_patches_that_are_not_smoothed(fitted: SimpleNet) -> None:
    images = in_colour(discs(3, seed=3))
    with torch.no_grad():
        scores, doubts = fitted(images), fitted.doubts(fitted.patches(images))
    assert torch.equal(scores.image, doubts.amax((1, 2)))
    torch.testing.assert_close(scores.map, gaussian_blur(doubts, 0.5))  # 4 px are half a cell of stride 8


def test_the_paper_has_two_rates_and_a_discriminator_of_1024() -> None:
    detector = SimpleNet(weights="none")
    (phase,) = detector.phases()
    assert isinstance(phase, Train) and (phase.epochs, phase.batch_size) == (160, 8)
    groups = phase.updates[0].optimizer.param_groups
    assert [(group["lr"], group["weight_decay"]) for group in groups] == [(1e-4, 1e-2), (2e-4, 1e-5)]
    assert detector.discriminator[0].out_features == 1024 and detector.discriminator[3].bias is None  # type: ignore[union-attr]


@pytest.mark.parametrize("arguments", [{"noise": 0.0}, {"neighbourhood": 2}, {"hidden": 0}, {"sigma": 0.0}])
def test_ranges(arguments: dict[str, object]) -> None:
    with pytest.raises(OkngError, match="simplenet: "):
        built(weights="none", **arguments)
