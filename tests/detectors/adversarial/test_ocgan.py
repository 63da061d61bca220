"""What tells OCGAN from an autoencoder: the cube of codes is bounded, filled evenly, and mined for what is not OK."""

from __future__ import annotations

import pytest
import torch
from tests.detectors.scenes import SIDE, crosses, rings, source, tensor
from torch import Tensor

from okng.detectors.adversarial.ocgan import OCGAN
from okng.detectors.base import Batch, Train
from okng.detectors.catalogue import create
from okng.errors import OkngError
from okng.metrics.ranking import auroc
from okng.training.loop.phases import run_phases

TINY = {"code": 4, "width": 4, "visual_width": 4, "classifier_width": 4, "dropout": 0.0}


def built(**arguments: object) -> OCGAN:
    torch.manual_seed(0)
    detector = create("ocgan", **arguments)
    assert isinstance(detector, OCGAN)
    return detector


@pytest.mark.parametrize(
    ("size", "channels"), [((16, 16), 1), ((28, 28), 1), ((32, 32), 3), ((61, 61), 3), ((64, 64), 3), ((31, 90), 1)]
)
def test_every_size_is_recovered_and_codes_are_bounded(size: tuple[int, int], channels: int) -> None:
    detector = built(image_size=size, channels=channels, **TINY)
    images = torch.rand(2, channels, *size)
    with torch.no_grad():
        codes = detector.gan.encoder(100 * images)
        scores = detector(images)
        assert detector.gan.decoder(codes).shape == images.shape
    assert codes.shape == (2, 4) and float(codes.abs().max()) <= 1
    assert scores.map is not None and scores.map.shape == (2, *size)
    torch.testing.assert_close(scores.map.mean((1, 2)), scores.image)


def test_a_batch_trains_first_the_judges_then_encoder_and_decoder() -> None:
    detector = built(image_size=(28, 28), channels=1, epochs=8, warm_up=0.5, **TINY)
    first, second = detector.phases()
    assert isinstance(first, Train) and isinstance(second, Train) and (first.epochs, second.epochs) == (4, 4)
    parts = {"critics": detector.gan.critic_parameters(), "generator": detector.gan.generator_parameters()}
    assert sum(len(p) for p in parts.values()) == len(list(detector.parameters()))
    batch = Batch(torch.rand(4, 1, 28, 28), torch.arange(4))
    detector.train()
    for update, moving in zip(second.updates, parts, strict=True):
        before = [p.clone() for p in detector.parameters()]
        detector.zero_grad()
        loss = update.loss(batch)
        assert isinstance(loss, dict) and len(loss) == 3
        torch.stack([*loss.values()]).sum().backward()
        update.optimizer.step()
        ours = {id(p) for p in parts[moving]}
        for parameter, old in zip(detector.parameters(), before, strict=True):
            assert parameter.requires_grad
            assert torch.equal(parameter, old) or id(parameter) in ours
            assert parameter.grad is None or id(parameter) in ours, "judging and mining leave no gradients behind"
    assert all(module.training for module in detector.modules())


def evenness(codes: Tensor) -> float:
    """Mean over dimensions of the Kolmogorov-Smirnov distance of `codes` (n, d) to the even distribution on (-1, 1)."""
    ordered = ((codes + 1) / 2).sort(0).values
    steps = torch.arange(1, len(codes) + 1)[:, None] / len(codes)
    return float((ordered - steps).abs().amax(0).mean())


def test_on_rings() -> None:
    """Codes fill the cube more evenly than without the discriminators, mining finds what the classifier calls odd
    on nearly every batch, and crosses are found."""
    unseen, odd = tensor(rings(200, seed=1)), tensor(crosses(100))
    small = {"code": 4, "width": 8, "classifier_width": 8, "dropout": 0.0}
    how = {"epochs": 8, "batch_size": 16, "learning_rate": 2e-3, "warm_up": 0.5, "mining_steps": 3}
    distance = {}
    for weights in ({"latent_weight": 0.0, "visual_weight": 0.0}, {"latent_weight": 3.0}):
        detector = built(image_size=(SIDE, SIDE), channels=1, **weights, **small, **how)
        run_phases(detector, source(rings(256)), device="cpu")
        with torch.no_grad():
            distance[weights["latent_weight"]] = evenness(detector.gan.encoder(2 * unseen - 1))
    assert distance[3.0] < 0.95 * distance[0.0]
    gan, lower = detector.gan, 0
    for _ in range(20):
        codes = gan.random_codes(32, unseen)
        with torch.no_grad():
            before = gan.classifier(gan.decoder(codes)).sigmoid().mean()
        mined = gan.mine(codes, 5)
        with torch.no_grad():
            lower += int(gan.classifier(gan.decoder(mined)).sigmoid().mean() < before)
    assert lower >= 19
    with torch.no_grad():
        found = auroc([0] * 200 + [1] * 100, detector(torch.cat([unseen, odd])).image.numpy())
    assert found > 0.93


@pytest.mark.parametrize(
    "arguments",
    [{"dropout": 1.0}, {"reconstruction_weight": 0.0}, {"warm_up": 1.5}],
)
def test_ranges(arguments: dict[str, object]) -> None:
    with pytest.raises(OkngError, match="ocgan: "):
        create("ocgan", **arguments)
