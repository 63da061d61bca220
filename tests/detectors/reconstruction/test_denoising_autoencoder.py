"""What tells a denoising autoencoder: without noise it is the plain one, with it it maps back to OK images."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from okng.detectors.base import Batch, Detector
from okng.detectors.catalogue import create
from okng.detectors.reconstruction.denoising_autoencoder import DenoisingAutoencoder
from okng.inspection.reading.images import Preprocess
from okng.training.images.data import TrainingImages
from okng.training.loop.phases import run_phases

BARS = {"image_size": (28, 28), "channels": 1, "code": 8, "batch_size": 8, "learning_rate": 3e-3}


def built(**arguments: object) -> DenoisingAutoencoder:
    torch.manual_seed(0)
    detector = create("denoising_autoencoder", **arguments)
    assert isinstance(detector, DenoisingAutoencoder)
    return detector


def bars(where: range) -> list[np.ndarray]:
    x = np.broadcast_to(np.arange(28), (28, 28))
    return [(255 * (np.abs(x - c) < 3)).astype(np.uint8) for c in where]


def fitted(detector: Detector) -> Detector:
    run_phases(detector, TrainingImages(bars(range(6, 22)), Preprocess("L", (28, 28))), device="cpu")
    return detector


def test_without_noise_it_is_the_autoencoder_bit_for_bit() -> None:
    detector = fitted(built(**BARS, epochs=3, noise=0.0))
    torch.manual_seed(0)
    plain = fitted(create("autoencoder", **BARS, epochs=3))
    state = detector.state_dict()
    assert state.keys() == plain.state_dict().keys()
    assert all(torch.equal(state[name], tensor) for name, tensor in plain.state_dict().items())
    images = torch.rand(3, 1, 28, 28)
    with torch.no_grad():
        assert torch.equal(detector(images).image, plain(images).image)


def test_the_loss_compares_with_the_clean_image_and_every_step_draws_anew() -> None:
    """A network that copies its input keeps all the noise: its loss is the noise's variance."""
    detector = built(**BARS, noise=0.3)
    detector.encoder, detector.decoder = nn.Sequential(), nn.Sequential()
    batch = Batch(torch.rand(64, 1, 28, 28), torch.arange(64))
    first, second = (detector.loss(batch)["loss"] for _ in range(2))
    assert first != second
    torch.testing.assert_close(first, torch.tensor(0.09), rtol=0.02, atol=0)
    assert not detector(batch.images).image.any()  # no noise at scoring


def test_it_maps_noisy_images_back_to_ok_ones() -> None:
    noise = 0.3
    detector = built(**BARS, epochs=60, noise=noise)
    fitted(detector)
    clean = torch.from_numpy(np.stack(bars(range(6, 22))))[:, None].float() / 255  # (16, 1, 28, 28)
    drawn = noise * torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))

    def left(images: Tensor) -> Tensor:
        """The share of the noise's energy by which what is made of noisy images differs from the clean ones."""
        with torch.no_grad():
            return detector.errors(images + drawn, images).mean((1, 2)) / noise**2

    assert left(clean).max() < 1 and left(clean).mean() < 0.3
    assert left(clean.mT).min() > left(clean).max() and left(clean.mT).mean() > 4 * left(clean).mean()
