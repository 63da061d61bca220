"""What tells ADVAE from a variational autoencoder with a residual: its map is the gradient of the latent means."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.detectors.scenes import SIDE, rings, tensor
from torch import Tensor, nn

from okng.detectors.base import Batch
from okng.detectors.catalogue import create
from okng.detectors.reconstruction.advae import ADVAE
from okng.inspection.reading.images import Preprocess
from okng.nn.networks.grad_cam import grad_cam
from okng.training.images.data import TrainingImages
from okng.training.loop.phases import run_phases

SMALL = {"width": 4, "hidden": 24, "latent": 5}


def built(**arguments: object) -> ADVAE:
    torch.manual_seed(0)
    detector = create("advae", **{"image_size": (SIDE, SIDE), "channels": 1, **SMALL, **arguments})
    assert isinstance(detector, ADVAE)
    return detector


def framed(count: int, seed: int = 0) -> np.ndarray:
    """Rings in the lower left quarter of black images, uint8 (count, 32, 32)."""
    return np.pad(rings(count, seed), ((0, 0), (16, 0), (0, 16)))


@pytest.fixture(scope="module")
def learnt() -> ADVAE:
    detector = built(image_size=(32, 32), width=8, hidden=64, latent=8, epochs=25, batch_size=16, learning_rate=5e-3)
    run_phases(detector, TrainingImages(list(framed(200)), Preprocess("L", (32, 32))), device="cpu")
    return detector


@pytest.mark.parametrize(
    ("size", "channels", "grid"),
    [((28, 28), 1, (7, 7)), ((32, 32), 3, (8, 8)), ((33, 47), 3, (8, 11)), ((64, 64), 1, (8, 8))],
)
def test_every_size(size: tuple[int, int], channels: int, grid: tuple[int, int]) -> None:
    detector = built(image_size=size, channels=channels)
    images = torch.rand(2, channels, *size)
    with torch.no_grad():
        scores = detector(images)
        _, hidden = detector.encode(images)
        assert detector.decoder(detector.mean(hidden)).shape == images.shape
    assert scores.map is not None and scores.map.shape == (2, *grid) and float(scores.map.min()) >= 0


def test_paper_size() -> None:
    """The authors' network for digits: 64 and 128 channels, 6272 values, 1024 units, 32 latent variables."""
    detector = ADVAE()
    assert [layer.out_channels for layer in detector.features if isinstance(layer, nn.Conv2d)] == [64, 128]
    assert detector.hidden.weight.shape == (1024, 6272) and detector.mean.weight.shape == (32, 1024)


def test_the_map_is_grad_cam_of_every_latent_mean() -> None:
    """Written out, it is what autograd says."""
    detector = built()
    features = detector.features(torch.rand(3, 1, SIDE, SIDE)).detach().requires_grad_()
    hidden = detector.hidden(features.flatten(1)).relu()
    means = detector.mean(hidden)  # (3, 5)
    maps = [grad_cam(means[:, i], features).relu() for i in range(5)]
    torch.testing.assert_close(detector.attention(features, hidden), torch.stack(maps).mean(0))
    assert torch.stack(maps).mean(0).any()


def test_the_loss_is_the_bound_in_nats_per_image() -> None:
    detector, images = built(), torch.rand(3, 1, SIDE, SIDE)
    for layer in (detector.mean, detector.log_variance, detector.decoder[-1]):
        nn.init.zeros_(layer.weight)  # type: ignore[arg-type]
        nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    losses = detector.loss(Batch(images, torch.arange(3)))
    surprise = SIDE * SIDE * float(torch.tensor(2.0).log())
    assert (
        float(losses["surprise"].detach()) == pytest.approx(surprise, rel=1e-5)
        and float(losses["divergence"].detach()) == 0
    )
    torch.testing.assert_close(detector(images).image, torch.full((3,), surprise / SIDE**2))
    nn.init.ones_(detector.mean.bias)
    assert float(detector.loss(Batch(images, torch.arange(3)))["divergence"].detach()) == pytest.approx(5 * 0.5)


def test_attention_is_at_a_pasted_bar(learnt: ADVAE) -> None:
    """And comes from what the encoder learnt: with other weights there it is another map."""
    images = tensor(framed(60, seed=1))
    spoilt = images.clone()
    spoilt[:, :, 4:7, 18:30] = 1
    box = torch.zeros(8, 8, dtype=torch.bool)
    box[:3, 4:8] = True  # the places that see the bar
    with torch.no_grad():
        found, before = maps_of(learnt, spoilt), maps_of(learnt, images)
        assert float((found[:, box].mean(1) / found[:, ~box].mean(1)).mean()) > 1.5
        changed = (found - before).abs()
        assert float(changed[:, box].mean()) > 5 * float(changed[:, ~box].mean())
        assert not torch.allclose(found[0], found[1], rtol=1e-2)
        other = built(image_size=(32, 32), width=8, hidden=64, latent=8)
        other.load_state_dict(learnt.state_dict())
        other.features[0].reset_parameters()  # type: ignore[operator]
        other.features[2].reset_parameters()  # type: ignore[operator]
        assert correlation(maps_of(other, spoilt), found) < 0.9


def maps_of(detector: ADVAE, images: Tensor) -> Tensor:
    found = detector(images).map
    assert isinstance(found, Tensor)
    return found


def correlation(a: Tensor, b: Tensor) -> float:
    return float(torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1])
