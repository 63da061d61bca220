"""What tells an autoencoder that detects from one that copies: everything passes through a small code."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from okng.datasets import open_dataset
from okng.datasets.base import NG
from okng.detectors.base import Batch, Train
from okng.detectors.catalogue import create
from okng.detectors.reconstruction.autoencoder import Autoencoder
from okng.inspection.reading.images import Preprocess
from okng.metrics.ranking import auroc
from okng.training.images.data import TrainingImages
from okng.training.loop.phases import run_phases


def built(**arguments: object) -> Autoencoder:
    torch.manual_seed(0)
    detector = create("autoencoder", **arguments)
    assert isinstance(detector, Autoencoder)
    return detector


@pytest.mark.parametrize(
    ("size", "channels"),
    [((16, 16), 1), ((28, 28), 1), ((28, 29), 3), ((33, 47), 3), ((31, 250), 1), ((255, 256), 3)],
)
def test_every_size_is_recovered(size: tuple[int, int], channels: int) -> None:
    detector = built(image_size=size, channels=channels, width=2, code=4)
    images = torch.rand(2, channels, *size)
    with torch.no_grad():
        copies = detector.decoder(detector.encoder(images))
        scores = detector(images)
    assert copies.shape == images.shape and float(copies.min()) >= 0 and float(copies.max()) <= 1
    assert scores.map is not None and scores.map.shape == (2, *size)
    torch.testing.assert_close(scores.image, (copies - images).square().flatten(1).mean(1))
    torch.testing.assert_close(scores.map.mean((1, 2)), scores.image)


def test_all_of_an_image_passes_through_the_code() -> None:
    """Images of one code have one copy: nothing goes around it."""
    detector = built(image_size=(40, 40), code=5)
    with torch.no_grad():
        assert detector.encoder(torch.rand(3, 3, 40, 40)).shape == (3, 5)
        last = detector.encoder[-1]
        assert isinstance(last, torch.nn.Linear)
        last.weight.zero_()
        copies = detector.decoder(detector.encoder(torch.rand(3, 3, 40, 40)))
    torch.testing.assert_close(copies, copies[:1].expand(3, 3, 40, 40))


def test_a_deep_network_starts_awake() -> None:
    """With torch's own initial weights only 0.01 of the signal arrives behind six layers."""
    detector = built(image_size=(256, 256))
    with torch.no_grad():
        assert detector.encoder[:-1](torch.rand(2, 3, 256, 256)).std() > 0.1


def test_training_lowers_the_loss() -> None:
    detector = built(image_size=(28, 28), channels=1, code=8, epochs=30, batch_size=8, learning_rate=3e-3)
    x = np.broadcast_to(np.arange(28), (28, 28))
    bars = [(255 * (np.abs(x - c) < 3)).astype(np.uint8) for c in range(6, 22)]
    source = TrainingImages(bars, Preprocess("L", (28, 28)))
    images = torch.stack([source[i] for i in range(len(source))]).float() / 255
    with torch.no_grad():
        before = detector(images).image.mean()
    run_phases(detector, source, device="cpu")
    with torch.no_grad():
        after, turned = detector(images).image, detector(images.mT).image
    assert after.mean() < 0.3 * before
    assert turned.min() > 2 * after.max()


def test_paper_size() -> None:
    """256 px RGB, code 100, one step of the default optimiser on a small batch."""
    detector = Autoencoder()
    (phase,) = detector.phases()
    assert isinstance(phase, Train) and (phase.epochs, phase.batch_size) == (200, 128)
    (update,) = phase.updates
    batch = Batch(torch.rand(2, 3, 256, 256), torch.arange(2))
    before = detector.loss(batch)["loss"]
    before.backward()
    assert all(p.grad is not None and p.grad.any() for p in detector.parameters())
    update.optimizer.step()
    assert float(detector.loss(batch)["loss"].detach()) < float(before.detach())


def digits_by_code(okng_data: Path, digit: str, count: int, batch_size: int) -> dict[int, tuple[float, float]]:
    """By the length of the code: the loss of unseen OK images, and the AUROC, after learning `count` MNIST images."""
    dataset = open_dataset(okng_data / "mnist", digit)
    train = [np.asarray(sample.image) for sample in dataset.train[:1300]]
    unseen = torch.from_numpy(np.stack(train[1000:]))[:, None] / 255
    test = torch.from_numpy(np.stack([np.asarray(s.image) for s in dataset.test[:1500]]))[:, None] / 255
    labels = [int(sample.label == NG) for sample in dataset.test[:1500]]
    found = {}
    for code in (16, 784):
        settings = {"code": code, "epochs": 14, "batch_size": batch_size, "learning_rate": 2e-3}
        detector = built(image_size=(28, 28), channels=1, **settings)
        run_phases(detector, TrainingImages(train[:count], Preprocess("L", (28, 28))), device="cpu")
        with torch.no_grad():
            found[code] = float(detector(unseen).image.mean()), auroc(labels, detector(test).image.numpy())
    return found


@pytest.mark.slow  # two fits on digits
@pytest.mark.real_data
def test_a_code_that_can_hold_anything_copies_better(okng_data: Path) -> None:
    (narrow, finds), (wide, _) = digits_by_code(okng_data, "3", 400, 16).values()
    assert wide < 0.8 * narrow and finds > 0.85


@pytest.mark.slow
@pytest.mark.real_data
@pytest.mark.parametrize("digit", ["3", "8"])
def test_and_detects_worse(okng_data: Path, digit: str) -> None:
    (narrow, finds), (wide, finds_less) = digits_by_code(okng_data, digit, 1000, 32).values()
    assert wide < 0.8 * narrow and finds_less < finds - 0.01
