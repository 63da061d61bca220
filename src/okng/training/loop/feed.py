"""The training images in batches on the device, with what a phase wants beside them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from okng.detectors.base import Batch
from okng.training.images.data import AuxiliaryImages, FeatureStore, TrainingImages, ahead
from okng.training.loop.seeds import generator_at

THREADS = max(2, min(8, os.cpu_count() or 2))  # that read and augment ahead
Augment = Callable[[Tensor, torch.Generator], Tensor | Sequence[Tensor]]


class Feed:
    """Batches of `images` on the `device` of a fit with this `seed`, with `auxiliary` images if there are any."""

    def __init__(
        self, images: TrainingImages, device: torch.device, seed: int, auxiliary: AuxiliaryImages | None = None
    ):
        self.images, self.device, self.seed, self.auxiliary = images, device, seed, auxiliary

    def batches(
        self,
        groups: Sequence[list[int]],
        store: FeatureStore | None = None,
        augment: Augment | None = None,
        at: tuple[int, int] = (0, 0),
    ) -> Iterator[Batch]:
        """The batches of images at the indices `groups`, floats in [0, 1], with what `store` holds of them.

        The views that `augment` makes of an image, and the auxiliary image beside it, are drawn by the place `at`,
        (phase, epoch), and by the image alone.
        """

        def read(index: int) -> list[Tensor]:
            image, place = self.images[index], (self.seed, *at, self.images.places[index])  # uint8 (C, H, W)
            parts = [image]
            if self.auxiliary is not None:
                parts.append(self.auxiliary.draw(self.images.shapes[index], generator_at(*place, 1)))
            if augment is not None:
                with torch.no_grad():
                    parts += parts_of(augment(image.float() / 255, generator_at(*place)))
            return parts

        for indices, (pixels, *others) in ahead(groups, read, 2 if augment is None else THREADS):
            batch = self.batch(indices, self.moved(pixels).float() / 255, store)
            if self.auxiliary is not None:
                batch.auxiliary = self.moved(others.pop(0)).float() / 255
            batch.views = tuple(map(self.moved, others))
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
