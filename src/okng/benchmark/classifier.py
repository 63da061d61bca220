"""The slides' question of whether background is noise: VGG11 learns ten classes of COCO crops, with it and without."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from okng.datasets.base import Sample
from okng.datasets.coco import read_coco
from okng.training.loop.turns import one_at_a_time
from okng.training.progress import Narrator

# VGG11 (Simonyan, Zisserman, ICLR 2015, configuration A): channels in units of `width`, 0 halves the sides.
LAYERS = (1, 0, 2, 0, 4, 4, 0, 8, 8, 0, 8, 8, 0)


@one_at_a_time
def coco_masks(
    folder: Path,
    version: str,
    seed: int = 0,
    width: int = 64,
    epochs: int = 100,
    batch_size: int = 64,
    learning_rate: float = 1e-3,
    tell: Narrator | None = None,
) -> dict[str, float]:
    """`accuracy` on the test crops after the last epoch, and `epochs_to_80`, the first at which it is 80 % or more.

    Both versions start from the same weights and meet the crops in the same order. The network is VGG11 for 32 × 32
    images, with one linear layer at its end and batch normalisation; `width` 64 is the full one. `epochs_to_80` is NaN
    where no epoch got there. The slides name neither optimiser nor augmentation; here it is Adam, and none.
    """
    tell = tell or Narrator(quiet=True)
    classes = read_coco(folder, version, seed)
    names = list(dict.fromkeys(sample.kind for sample in classes.train))
    train, train_labels = _tensors(classes.train, names)
    test, test_labels = _tensors(classes.test or (), names)
    torch.manual_seed(seed)
    network = vgg11(width, len(names))
    optimizer = torch.optim.Adam(network.parameters(), learning_rate)
    accuracy, reached = 0.0, float("nan")
    tell.begin(f"VGG11 on {version} crops", epochs)
    for epoch in range(epochs):
        network.train()
        order = torch.randperm(len(train), generator=torch.Generator().manual_seed(1000 * seed + epoch))
        for indices in order.split(batch_size):
            if len(indices) > 1:  # batch normalisation needs two
                optimizer.zero_grad()
                cross_entropy(network(train[indices]), train_labels[indices]).backward()
                optimizer.step()
        network.eval()
        with torch.no_grad():
            said = torch.cat([network(part).argmax(1) for part in test.split(500)])
        accuracy = float((said == test_labels).float().mean())
        if reached != reached and accuracy >= 0.8:
            reached = float(epoch + 1)
        tell.advance(note=f"accuracy {accuracy:.3f}")
    return {"accuracy": accuracy, "epochs_to_80": reached}


def vgg11(width: int, classes: int = 10) -> nn.Sequential:
    """Images (B, 3, 32, 32) to a score per class (B, classes)."""
    layers: list[nn.Module] = []
    channels = 3
    for factor in LAYERS:
        if factor == 0:
            layers.append(nn.MaxPool2d(2))
        else:
            layers += [nn.Conv2d(channels, factor * width, 3, padding=1), nn.BatchNorm2d(factor * width), nn.ReLU()]
            channels = factor * width
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels, classes))


def _tensors(samples: tuple[Sample, ...], names: list[str]) -> tuple[Tensor, Tensor]:
    """Images (N, 3, 32, 32) in [0, 1] and the numbers of their classes (N,)."""
    pixels = np.stack([np.asarray(sample.image) for sample in samples])  # (N, 32, 32, 3)
    labels = torch.tensor([names.index(sample.kind) for sample in samples])
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255, labels
