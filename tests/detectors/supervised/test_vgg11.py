"""What a supervised classifier does under class imbalance, and that it is VGG-11."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from okng.datasets import open_dataset
from okng.datasets.base import NG
from okng.detectors.base import Batch, Train
from okng.detectors.catalogue import create
from okng.detectors.supervised import vgg11 as module
from okng.detectors.supervised.vgg11 import VGG11
from okng.errors import OkngError
from okng.inspection.reading.images import Preprocess
from okng.metrics.ranking import auroc
from okng.nn.features.backbones import Backbone
from okng.training.images.data import TrainingImages
from okng.training.loop.phases import run_phases


def built(**arguments: object) -> VGG11:
    torch.manual_seed(0)
    detector = create("vgg11", **arguments)
    assert isinstance(detector, VGG11)
    return detector


def test_it_is_vgg_11_with_the_papers_optimiser() -> None:
    detector = built()
    layers = [m for m in detector.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert [m.out_channels for m in layers[:-1]] == [64, 128, 256, 256, 512, 512, 512, 512]  # type: ignore[union-attr]
    (phase,) = detector.phases()
    assert isinstance(phase, Train) and (phase.epochs, phase.batch_size) == (74, 256)
    (group,) = phase.updates[0].optimizer.param_groups
    assert (group["lr"], group["momentum"], group["weight_decay"]) == (0.01, 0.9, 5e-4)


@pytest.mark.parametrize(
    ("size", "channels"), [((28, 28), 1), ((32, 32), 3), ((8, 40), 1), ((64, 64), 3), ((70, 99), 3)]
)
def test_every_size(size: tuple[int, int], channels: int) -> None:
    detector = built(image_size=size, channels=channels, width=4)
    with torch.no_grad():
        scores = detector(torch.rand(2, channels, *size))
    assert scores.image.shape == (2,) and scores.map is None


def test_the_loss_counts_every_image_the_same_and_the_score_is_the_logarithm_of_the_odds() -> None:
    detector = built(width=4)
    images, labels = torch.rand(5, 3, 32, 32), torch.tensor([0, 0, 0, 0, 1])
    with torch.no_grad():
        p = detector.logits(images).softmax(1)  # (5, 2)
        expected = -p[torch.arange(5), labels].log().mean()
        torch.testing.assert_close(detector.loss(Batch(images, torch.arange(5), labels=labels)), expected)
        torch.testing.assert_close(detector(images).image, (p[:, 1] / p[:, 0]).log(), rtol=1e-4, atol=1e-5)


def test_trained_weights_are_taken_by_their_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(1)
    theirs = Backbone("vgg11_bn", (32,), "none").eval()
    torch.save(theirs.net.state_dict(), tmp_path / "vgg11.pth")
    ours, images = built(weights=str(tmp_path / "vgg11.pth")), torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(ours.features((images - ours.mean) / ours.std), theirs(images)[0])

    def offline(*_: object) -> Backbone:
        raise OkngError("no network")

    monkeypatch.setattr(module, "Backbone", offline)
    with pytest.raises(OkngError, match="can't be downloaded; give weights=FILE"):
        built(weights="imagenet")


@pytest.mark.real_data
@pytest.mark.slow
def test_imbalance_hides_in_the_accuracy(okng_data: Path) -> None:
    """1 % of the images are OK ("8"): all NG are recognised and few OK are, which the accuracy does not tell.

    The ranking knows more than the verdicts do, and with a third of the images OK they are right.
    """
    dataset = open_dataset(okng_data / "mnist", "8")
    samples = [(np.asarray(s.image), int(s.label == NG)) for s in dataset.test]
    ng = [image for image, label in samples[:1400] if label]
    test, labels = samples[1400:3400], np.array([label for _, label in samples[1400:3400]])
    images = torch.from_numpy(np.stack([image for image, _ in test]))[:, None] / 255

    def odds(count: int) -> np.ndarray:
        ok = [np.asarray(s.image) for s in dataset.train[:count]]
        detector = built(image_size=(28, 28), channels=1, width=8, epochs=2, batch_size=32, learning_rate=0.02)
        source = TrainingImages([*ok, *ng], Preprocess("L", (28, 28)), labels=[0] * len(ok) + [1] * len(ng))
        run_phases(detector, source, device="cpu")
        with torch.no_grad():
            return detector(images).image.numpy()

    rare, common = odds(15), odds(600)
    assert ((rare > 0) == labels).mean() > 0.85
    assert (rare[labels == 1] > 0).mean() > 0.97
    assert (rare[labels == 0] <= 0).mean() < 0.5
    assert auroc(labels, rare) > 0.8
    assert (common[labels == 0] <= 0).mean() > 0.7


@pytest.mark.parametrize(
    "arguments",
    [{"width": 32, "weights": "imagenet"}, {"momentum": 1.0}],
)
def test_ranges(arguments: dict[str, object]) -> None:
    with pytest.raises(OkngError, match="vgg11: "):
        create("vgg11", **arguments)
