"""The training images in batches on the device, with what a phase wants beside them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from okng.detectors.base import Batch
from okng.training.data import FeatureStore, TrainingImages, ahead
from okng.training.seeds import generator_at

THREADS = max(2, min(8, os.cpu_count() or 2))  # that read and augment ahead
Augment = Callable[[Tensor, torch.Generator], Tensor | Sequence[Tensor]]


class Feed:
    """Batches of `images` on the `device` of a fit with this `seed`."""

    def __init__(self, images: TrainingImages, device: torch.device, seed: int):
        self.images, self.device, self.seed = images, device, seed

    def batches(
        self,
        groups: Sequence[list[int]],
        store: FeatureStore | None = None,
        augment: Augment | None = None,
        at: tuple[int, int] = (0, 0),
    ) -> Iterator[Batch]:
        """The batches of images at the indices `groups`, floats in [0, 1], with what `store` holds of them and the
        views that `augment` makes of each by a generator of the place `at`, (phase, epoch), and of the image alone.
        """

        def read(index: int) -> list[Tensor]:
            image = self.images[index]  # uint8 (C, H, W)
            if augment is None:
                return [image]
            with torch.no_grad():
                generator = generator_at(self.seed, *at, self.images.places[index])
                return [image, *parts_of(augment(image.float() / 255, generator))]

        for indices, (pixels, *views) in ahead(groups, read, 2 if augment is None else THREADS):
            batch = self.batch(indices, self.moved(pixels).float() / 255, store)
            batch.views = tuple(map(self.moved, views))
            yield batch

    def pixels(self, images: TrainingImages, groups: Sequence[list[int]]) -> Iterator[tuple[list[int], Tensor]]:
        """Indices into any `images` and what is there, (B, C, H, W) in [0, 1]."""
        for indices, pixels in images.load(groups):
            yield indices, self.moved(pixels).float() / 255

    def batch(self, indices: list[int], images: Tensor, store: FeatureStore | None) -> Batch:
        """The batch of `images` (B, C, H, W), which are there already, at `indices`."""
        places = [self.images.places[i] for i in indices]
        prepared = () if store is None else tuple(map(self.moved, store.get(places)))
        labels = torch.tensor([self.images.labels[i] for i in indices])  # (B,) int64
        return Batch(images, self.moved(torch.tensor(indices)), prepared, self.moved(labels))

    def moved(self, tensor: Tensor) -> Tensor:
        """`tensor` on the device; a GPU does not end what it is doing before."""
        if self.device.type == "cuda":
            return tensor.pin_memory().to(self.device, non_blocking=True)
        return tensor.to(self.device)


def parts_of(made: Tensor | Sequence[Tensor]) -> tuple[Tensor, ...]:
    """What a `prepare` or an `augment` made, as a tuple also where it is one tensor."""
    return (made,) if isinstance(made, Tensor) else tuple(made)
