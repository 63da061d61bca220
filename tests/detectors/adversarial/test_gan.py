"""A GAN's discriminator: it knows OK images from noise, its generator neither collapses nor memorises, and a GAN that
diverges ends in one line with nothing saved."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tests.cli.test_cli import okng, one_line
from torch import Tensor

from okng import fit
from okng.datasets import open_dataset
from okng.detectors.adversarial.gan import GAN
from okng.detectors.base import Train
from okng.detectors.catalogue import create
from okng.errors import OkngError
from okng.inspection.reading.images import Preprocess
from okng.metrics.ranking import auroc
from okng.training.images.data import TrainingImages
from okng.training.loop.phases import run_phases


def built(**arguments: object) -> GAN:
    torch.manual_seed(0)
    detector = create("gan", **arguments)
    assert isinstance(detector, GAN)
    return detector


def bars() -> np.ndarray:
    """uint8 (16, 28, 28): an upright bar in every place."""
    x = np.broadcast_to(np.arange(28), (28, 28))
    return np.stack([(255 * (np.abs(x - c) < 3)).astype(np.uint8) for c in range(6, 22)])


@pytest.mark.parametrize(("size", "channels"), [((28, 28), 1), ((32, 32), 3), ((33, 47), 3)])
def test_the_score_is_the_negative_logit(size: tuple[int, int], channels: int) -> None:
    detector = built(image_size=size, channels=channels, width=4, latent=3)
    images = torch.rand(2, channels, *size)
    with torch.no_grad():
        scores = detector(images)
        real = detector.gan.discriminator(images * 2 - 1).sigmoid()
    assert scores.map is None
    torch.testing.assert_close(scores.image.sigmoid(), 1 - real)


def test_paper_size() -> None:
    detector = GAN()
    (phase,) = detector.phases()
    assert isinstance(phase, Train) and phase.batch_size == 128
    rates = [(u.optimizer.defaults["lr"], u.optimizer.defaults["betas"], u.every) for u in phase.updates]
    assert rates == [(2e-4, (0.5, 0.999), 1)] * 2
    assert detector.gan.latent == 100 and detector.gan.discriminator.last.in_channels == 512


@pytest.mark.slow  # a fit on digits
@pytest.mark.real_data
def test_it_knows_digits_from_noise_and_its_own_differ(okng_data: Path) -> None:
    dataset = open_dataset(okng_data / "mnist", "2")
    digits = [np.asarray(sample.image) for sample in dataset.train[:1300]]
    settings = {"width": 16, "latent": 32, "epochs": 8, "batch_size": 16, "learning_rate": 1e-3}
    detector = built(image_size=(28, 28), channels=1, **settings)
    run_phases(detector, TrainingImages(digits[:1000], Preprocess("L", (28, 28))), device="cpu")
    pixels = torch.from_numpy(np.stack(digits))[:, None] / 255  # (1300, 1, 28, 28)
    learnt, unseen = pixels[:1000], pixels[1000:]
    noise = torch.rand(300, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        scores = torch.cat([detector(unseen).image, detector(noise).image])
        generated = (detector.gan.generate(unseen) + 1) / 2
    assert auroc([0] * 300 + [1] * 300, scores.numpy()) > 0.95
    assert spread(generated) > 0.25 * spread(unseen)
    assert torch.cdist(generated.flatten(1), learnt.flatten(1)).min() > 0.5


def spread(images: Tensor) -> float:
    """The mean distance of two of the images."""
    return float(torch.pdist(images.flatten(1)).mean())


@pytest.mark.parametrize("rate", [1.0, 1e12])
def test_a_diverging_gan_is_one_line_and_no_model(rate: float, tmp_path: Path) -> None:
    for i, image in enumerate(bars()):
        Image.fromarray(image).save(tmp_path / f"{i:02}.png")
    settings = {"width": 4, "latent": 4, "epochs": 10, "batch_size": 8, "learning_rate": rate}
    with pytest.raises(OkngError, match="diverged"):
        fit(tmp_path, "gan", holdout=0.2, device="cpu", **settings)
    words = [word for key, value in settings.items() for word in ("-p", f"{key}={value}")]
    model = tmp_path / "out" / "parts.okng"
    model.parent.mkdir()
    done = okng("train", tmp_path, "-d", "gan", "--holdout", 0.2, "--device", "cpu", "-o", model, *words)
    assert "diverged" in one_line(done) and "smaller learning rate" in one_line(done)
    assert not model.exists()
