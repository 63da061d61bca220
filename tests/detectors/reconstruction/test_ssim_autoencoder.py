"""What tells an SSIM autoencoder from an L2 one: the paper's layers, and a map that sees structure, not brightness."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from okng.detectors.base import Train
from okng.detectors.catalogue import create
from okng.detectors.reconstruction.ssim_autoencoder import SSIMAutoencoder
from okng.errors import OkngError
from okng.inspection.reading.images import Preprocess
from okng.metrics.ranking import auroc
from okng.nn.images.ssim import ssim_map
from okng.training.images.data import TrainingImages
from okng.training.loop.phases import run_phases


def built(**arguments: object) -> SSIMAutoencoder:
    torch.manual_seed(0)
    detector = create("ssim_autoencoder", **arguments)
    assert isinstance(detector, SSIMAutoencoder)
    return detector


def table(network: nn.Sequential) -> list[tuple[int, int, int]]:
    """Output channels, kernel, stride of the (transposed) convolutions."""
    layers = [layer for layer in network if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d)]
    return [(layer.out_channels, layer.kernel_size[0], layer.stride[0]) for layer in layers]


ENCODER = [(32, 4, 2), (32, 4, 2), (32, 3, 1), (64, 4, 2), (64, 3, 1), (128, 4, 2), (64, 3, 1), (32, 3, 1)]
DECODER = [(32, 8, 1), (64, 3, 1), (128, 3, 1), (64, 4, 2), (64, 3, 1), (32, 4, 2), (32, 3, 1), (32, 4, 2)]


def test_the_papers_layers_at_128_pixels() -> None:
    detector = built(image_size=(128, 128), channels=1)
    assert table(detector.encoder) == [*ENCODER, (100, 8, 1)]
    assert table(detector.decoder) == [*DECODER, (1, 4, 2)]


def test_at_256_pixels_one_more_layer_in_front_and_at_the_end() -> None:
    detector = built()
    assert table(detector.encoder) == [(32, 4, 2), *ENCODER, (100, 8, 1)]
    assert table(detector.decoder) == [*DECODER, (32, 4, 2), (3, 4, 2)]
    (phase,) = detector.phases()
    assert isinstance(phase, Train) and (phase.epochs, phase.batch_size) == (200, 128)
    (group,) = phase.updates[0].optimizer.param_groups
    assert (group["lr"], group["weight_decay"]) == (2e-4, 1e-5)


def test_smaller_images_leave_out_the_first_layers() -> None:
    for side, first in ((64, 1), (32, 3), (28, 3), (16, 5)):
        expected = ENCODER[first:] if first else ENCODER
        detector = built(image_size=(side, side), channels=1)
        assert table(detector.encoder)[:-1] == expected
        assert table(detector.encoder)[-1][1] == (7 if side == 28 else 8)


@pytest.mark.parametrize(
    ("size", "channels"), [((16, 16), 1), ((28, 28), 1), ((32, 32), 3), ((33, 47), 3), ((31, 130), 1), ((127, 128), 3)]
)
def test_all_of_an_image_passes_through_the_code_and_every_size_is_recovered(
    size: tuple[int, int], channels: int
) -> None:
    detector = built(image_size=size, channels=channels, width=2, code=4, window=7)
    images = torch.rand(2, channels, *size)
    with torch.no_grad():
        assert detector.encoder(images).shape == (2, 4, 1, 1)
        copies = detector.decoder(detector.encoder(images))
        scores = detector(images)
    assert copies.shape == images.shape and float(copies.min()) >= 0 and float(copies.max()) <= 1
    assert scores.map is not None
    torch.testing.assert_close(scores.map, ((1 - ssim_map(images, copies, 3)) / 2).mean(1))
    torch.testing.assert_close(scores.image, scores.map.mean((1, 2)))


def scenes(count: int, seed: int, defect: bool = False) -> tuple[Tensor, np.ndarray]:
    """A bright disc that is never quite at the same place on a faint grating; `defect` turns a piece of the grating.

    Images (count, 1, 32, 32) and what was turned (count, 32, 32): its mean and contrast are as everywhere else.
    """
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:32, :32]
    images, masks = [], []
    for _ in range(count):
        (row, column), phase = 14 + rng.uniform(-1.5, 1.5, 2), rng.uniform(0, 2 * np.pi)
        disc = (x - column) ** 2 + (y - row) ** 2 < 7**2
        mask = np.zeros((32, 32), bool)
        mask[22:31, 22:31] = defect
        grating = 0.4 + 0.08 * np.sin(2 * np.pi * np.where(mask, y, x) / 5 + phase)
        images.append(np.where(disc, 0.9, grating))
        masks.append(mask & ~disc)
    return torch.from_numpy(np.stack(images)).float()[:, None], np.stack(masks)


def test_the_map_finds_a_faint_change_of_structure_beside_bright_edges() -> None:
    """The squared errors of the very same copies are largest along the disc."""
    settings = {"width": 4, "code": 8, "epochs": 25, "batch_size": 8, "learning_rate": 5e-3}
    detector = built(image_size=(32, 32), channels=1, **settings)
    pixels = (255 * scenes(40, seed=0)[0][:, 0]).round().byte().numpy()
    run_phases(detector, TrainingImages(list(pixels), Preprocess("L", (32, 32))), device="cpu")
    images, masks = scenes(16, seed=1, defect=True)
    with torch.no_grad():
        structure = detector(images).map.numpy()
        squared = (detector.decoder(detector.encoder(images)) - images).square().mean(1).numpy()
    labels = masks.ravel().astype(int)
    assert auroc(labels, structure.ravel()) > 0.9
    assert auroc(labels, structure.ravel()) > auroc(labels, squared.ravel()) + 0.05


@pytest.mark.parametrize(
    "arguments",
    [{"window": 1}, {"window": 8}],
)
def test_ranges(arguments: dict[str, object]) -> None:
    with pytest.raises(OkngError, match="ssim_autoencoder: "):
        create("ssim_autoencoder", **arguments)
