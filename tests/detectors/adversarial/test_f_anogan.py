"""f-AnoGAN: the encoder's phase leaves the GAN alone, its losses are what they say, and a kill changes nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from okng.datasets import open_dataset
from okng.detectors.adversarial.f_anogan import FAnoGAN, UpBlock
from okng.detectors.base import Batch, Phase, Train
from okng.detectors.catalogue import create
from okng.inspection.reading.images import Preprocess
from okng.training.images.data import TrainingImages
from okng.training.loop.phases import run_phases

TINY = {"image_size": (16, 16), "channels": 1, "latent": 4, "width": 2, "batch_size": 4, "learning_rate": 1e-3}


def built(**arguments: object) -> FAnoGAN:
    torch.manual_seed(0)
    detector = create("f_anogan", **{**TINY, **arguments})
    assert isinstance(detector, FAnoGAN)
    return detector


def images(count: int = 14) -> TrainingImages:
    pixels = np.random.default_rng(0).integers(0, 255, (count, 16, 16), np.uint8)
    return TrainingImages(list(pixels), Preprocess("L", (16, 16)))


def batch_of(count: int, side: int = 16) -> Batch:
    return Batch(torch.rand(count, 1, side, side), torch.arange(count))


@pytest.mark.parametrize(("size", "channels"), [((28, 28), 1), ((32, 32), 3), ((33, 47), 3), ((31, 200), 1)])
def test_every_size(size: tuple[int, int], channels: int) -> None:
    detector = built(image_size=size, channels=channels)
    pixels = torch.rand(2, channels, *size)
    with torch.no_grad():
        residuals, _ = detector.compare(pixels * 2 - 1)
        scores = detector(pixels)
    assert residuals.shape == pixels.shape
    assert scores.map is not None and scores.map.shape == (2, *size)


def test_paper_size() -> None:
    """At 64 px: 512, 512, 256, 128, 64 channels up, 64, 128, 256, 512, 512 down, 8192 features; LayerNorm judges."""
    detector = FAnoGAN()
    up = [block for block in detector.generator.net if isinstance(block, UpBlock)]
    assert [block.shortcut[0].in_channels for block in up] == [512, 512, 256, 128]
    trunk, last = detector.critic
    assert [layer.out_channels for layer in trunk.net if isinstance(layer, nn.Conv2d)] == [64]
    assert [block.shortcut[1].out_channels for block in trunk.net[1:-1]] == [128, 256, 512, 512]
    assert last.in_features == 8192 and detector.encoder[1].out_features == 128
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in detector.critic.modules())
    assert any(isinstance(layer, nn.BatchNorm2d) for layer in detector.encoder.modules())
    gan, encoder = detector.phases()
    assert isinstance(gan, Train) and isinstance(encoder, Train)
    assert [update.every for update in gan.updates] == [1, 5]
    assert [update.optimizer.defaults["lr"] for update in [*gan.updates, *encoder.updates]] == [1e-4, 1e-4, 5e-5]


def test_the_encoder_learns_while_the_gan_stays() -> None:
    """Also its BatchNorm statistics, which no optimiser holds."""
    detector, states = built(epochs=2, encoder_epochs=2), []

    def phases() -> object:
        for phase in FAnoGAN.phases(detector):
            yield phase
            states.append({name: tensor.clone() for name, tensor in detector.state_dict().items()})

    detector.phases = phases  # type: ignore[method-assign, assignment]
    start = {name: tensor.clone() for name, tensor in detector.state_dict().items()}
    run_phases(detector, images(), device="cpu")
    after_gan, after_encoder = states
    for first, second, still in [(start, after_gan, True), (after_gan, after_encoder, False)]:
        moved = {name for name, tensor in second.items() if not torch.equal(tensor, first[name])}
        parts = {name.partition(".")[0] for name in moved}
        assert parts == ({"generator", "critic"} if still else {"encoder"})


def test_the_generator_moves_on_every_nth_batch() -> None:
    """14 images in batches of 4: four batches an epoch, of which the first teaches the generator."""
    detector, calls = built(epochs=3, encoder_epochs=1, critic_steps=4), {"critic": 0, "generator": 0}

    def counted(name: str, loss: object) -> object:
        def count(batch: Batch) -> object:
            calls[name] += 1
            return loss(batch)  # type: ignore[operator]

        return count

    detector.critic_loss = counted("critic", detector.critic_loss)  # type: ignore[method-assign, assignment]
    detector.generator_loss = counted("generator", detector.generator_loss)  # type: ignore[method-assign, assignment]
    run_phases(detector, images(), device="cpu")
    assert calls == {"critic": 12, "generator": 3}


def test_the_penalty_is_of_each_images_own_slope() -> None:
    """A critic that is linear in the pixels with a slope of length 3 pays 10 · (3 - 1)²."""
    detector = built()
    linear = nn.Linear(256, 1)
    with torch.no_grad():
        linear.weight.copy_(F.normalize(torch.randn(1, 256)) * 3)
    detector.critic = nn.Sequential(nn.Flatten(), linear)
    loss = detector.critic_loss(batch_of(5))
    torch.testing.assert_close(loss["penalty"], torch.tensor(40.0))
    detector.critic_loss(batch_of(5))["critic"].backward()
    assert all(p.grad is None for p in detector.generator.parameters())


def test_the_three_losses_of_the_encoder() -> None:
    batch = batch_of(6)
    x = batch.images * 2 - 1
    with torch.no_grad():
        izi, both, exact = (
            built(encoder=encoder, kappa=kappa).encoder_loss(batch)
            for encoder, kappa in [("izi", 1.0), ("izi_f", 0.5), ("izi_f", 0.0)]
        )
        detector = built(encoder="ziz")
        copies = detector.generator(detector.encoder(x))
        look = detector.critic[0]
        torch.testing.assert_close(izi, F.mse_loss(copies, x))
        torch.testing.assert_close(both, izi + 0.5 * F.mse_loss(look(copies), look(x)))
        assert torch.equal(exact, izi)
        torch.manual_seed(1)
        codes = torch.randn(6, 4)
        torch.manual_seed(1)
        torch.testing.assert_close(
            detector.encoder_loss(batch), F.mse_loss(detector.encoder(detector.generator(codes)), codes)
        )
        scores = detector(batch.images)
        torch.testing.assert_close(scores.image.mean(), F.mse_loss(copies, x) + F.mse_loss(look(copies), look(x)))


@pytest.mark.real_data
@pytest.mark.slow
def test_encoders_that_see_images_copy_them_better(okng_data: Path) -> None:
    """On digits held out, at 16 px: ziz, which has met generated images only, is behind izi and izi_f."""
    dataset = open_dataset(okng_data / "mnist", "2")
    source = TrainingImages([np.asarray(sample.image) for sample in dataset.train[:1700]], Preprocess("L", (16, 16)))
    unseen = torch.stack([source[i] for i in range(1500, 1700)]) / 255  # (200, 1, 16, 16)
    source = source.subset(range(1500))
    shape = {"latent": 32, "width": 8, "batch_size": 16, "critic_steps": 1, "encoder_learning_rate": 1e-3}
    first = built(epochs=3, encoder_epochs=1, **shape)
    run_phases(first, source, device="cpu")
    residual = {}
    for encoder in ("izi", "izi_f", "ziz"):
        detector = built(encoder=encoder, encoder_epochs=1, **shape)
        detector.load_state_dict(first.state_dict())
        detector.phases = lambda detector=detector: only_encoder(detector)  # type: ignore[method-assign, misc]
        run_phases(detector, source, device="cpu")
        with torch.no_grad():
            errors: Tensor = detector.compare(unseen * 2 - 1)[0]
        residual[encoder] = float(errors.square().mean())
    assert max(residual["izi"], residual["izi_f"]) < residual["ziz"]


def only_encoder(detector: FAnoGAN) -> list[Phase]:
    return [phase for phase in FAnoGAN.phases(detector) if phase.name == "encoder"]
