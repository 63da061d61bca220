"""Training images in batches of one shape, decoded by the same preprocessing as on the line."""

from __future__ import annotations

import copy
import tempfile
from collections import defaultdict, deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np
import torch
from torch import Tensor

from okng.errors import OkngError
from okng.inspection.reading.images import Preprocess, Source, fingerprint, image_size
from okng.inspection.reading.workers import Workers
from okng.inspection.storage.urls import known_as
from okng.inspection.verdict.likeness import Traits
from okng.training.images.copies import Chosen, Thumbnails, near_copies, numbered, thumbnail

PIXEL_BUDGET = 2 << 30
AUXILIARY_BUDGET = 1 << 30
FEATURE_BUDGET = 2 << 30  # what a coreset gathers stands beside it
LIBRARIES = 1.0  # GB of libraries, of a compiled network and of what one batch takes
LEAST = 1.7  # GB; with less too little is left for a coreset


class TrainingImages:
    """The images to learn from; decoded ones are kept while all of them fit into `budget` bytes.

    `labels`: 0 OK or 1 NG for each image; without them all are OK. `products` (n,): which of several each is of, by
    number; without them all are of one. `groups`: a number for each image where a person has said which belong
    together; None where near copies do.
    """

    groups: np.ndarray | None = None
    _of_each: tuple[str, ...] = ("sources", "labels", "places", "shapes")

    def __init__(
        self,
        sources: Sequence[Source],
        preprocess: Preprocess,
        budget: int = PIXEL_BUDGET,
        labels: Sequence[int] | None = None,
        products: Sequence[int] | np.ndarray | None = None,
    ):
        self.sources = list(sources)
        self.labels = [0] * len(self.sources) if labels is None else [int(label) for label in labels]
        if len(self.labels) != len(self.sources):
            raise ValueError(f"{len(self.labels)} labels of {len(self.sources)} images")
        self.products = np.zeros(len(self.sources), int) if products is None else np.array(products, int)
        self.places = list(range(len(self.sources)))  # among the images that were given
        self.preprocess, self.budget = preprocess, budget
        self.shapes = [preprocess.shape(*image_size(source)) for source in self.sources]
        self._keep = self._fits()
        self._kept: dict[int, Tensor] = {}  # this, and what follows, by their places
        self._fingerprints: dict[int, str] = {}
        self._thumbnails = Thumbnails(len(self.sources))
        self._traits: dict[int, Traits] = {}

    def __len__(self) -> int:
        return len(self.sources)

    def name(self, index: int) -> str:
        """What a person knows image `index` by: its folder and file, or its place among those given."""
        return known_as(self.sources[index], self.places[index])

    def __getitem__(self, index: int) -> Tensor:
        """Image `index` as uint8 (C, H, W)."""
        place = self.places[index]
        if place in self._kept:
            return self._kept[place]
        pixels, self._traits[place] = self.preprocess.read(self.sources[index])
        image = torch.from_numpy(pixels.copy()).permute(2, 0, 1).contiguous()  # (C, H, W)
        if place not in self._thumbnails:
            self._thumbnails.put(place, thumbnail(pixels))
        if self._keep:
            self._kept[place] = image
        return image

    def fingerprints(self) -> list[str]:
        """What tells each image from all others, see `images.fingerprint`; read once."""
        for place, source in zip(self.places, self.sources, strict=True):
            if place not in self._fingerprints:
                self._fingerprints[place] = fingerprint(source)
        return [self._fingerprints[place] for place in self.places]

    def thumbnails(self) -> Chosen:
        """What near copies are known by, see `copies.thumbnail`: float32 (n, SIDE, SIDE); no image is read again."""
        for index, place in enumerate(self.places):
            if place not in self._thumbnails:
                self[index]
        return Chosen(self._thumbnails, np.array(self.places))

    def alike(self) -> np.ndarray:
        """The group (n,) of each image: what a person said, or its near copies."""
        return near_copies(self.thumbnails()) if self.groups is None else numbered(self.groups)

    def decoded(self, index: int) -> tuple[np.ndarray, Traits] | None:
        """The pixels (H, W, C) of image `index` and what the original is like, if they are kept."""
        place = self.places[index]
        if self.preprocess.tile is not None or not (place in self._kept and place in self._traits):
            return None  # of an image that is cut into tiles its own pixels are wanted
        return self._kept[place].permute(1, 2, 0).numpy(), self._traits[place]

    def traits(self) -> list[Traits]:
        """What each image that has been decoded is like."""
        return [self._traits[place] for place in self.places if place in self._traits]

    def subset(self, indices: Iterable[int]) -> Self:
        """Some of the images; what is known of one is known of it in all subsets."""
        chosen = [int(i) for i in indices]
        part = copy.copy(self)
        for name in self._of_each:
            setattr(part, name, [getattr(self, name)[i] for i in chosen])
        part.products = self.products[chosen]
        part.groups = None if self.groups is None else self.groups[chosen]
        if not self._keep:  # then perhaps it can
            part._keep, part._kept = part._fits(), {}
        return part

    def _fits(self) -> bool:
        """Whether decoded images may be kept."""
        return sum(h * w * self.preprocess.channels for h, w in self.shapes) <= self.budget

    def batches(
        self, batch_size: int, shuffle: bool, among: Sequence[int] | None = None, drop_last: bool = False
    ) -> list[list[int]]:
        """Indices, all or those `among` them, in batches of one shape each; `shuffle` draws from torch's generator.

        `drop_last`: without those that are not full, if any is.
        """
        among = range(len(self)) if among is None else among
        by_shape: dict[tuple[int, int], list[int]] = defaultdict(list)
        order = torch.randperm(len(among)).tolist() if shuffle else range(len(among))
        for place in order:
            by_shape[self.shapes[among[place]]].append(among[place])
        groups = [g[i : i + batch_size] for g in by_shape.values() for i in range(0, len(g), batch_size)]
        if drop_last:
            groups = [group for group in groups if len(group) == batch_size] or groups
        return [groups[i] for i in torch.randperm(len(groups)).tolist()] if shuffle else groups

    def load(self, batches: Sequence[list[int]]) -> Iterator[tuple[list[int], Tensor]]:
        """Each batch's indices and images, uint8 (B, C, H, W), read ahead."""
        for indices, (images,) in ahead(batches, lambda index: [self[index]]):
            yield indices, images


def within(gigabytes: float) -> tuple[int, float]:
    """What a fit may hold that is to take no more than so many `gigabytes` in all, its libraries included.

    The `budget` of `TrainingImages` in bytes, as much again for features, and half of it for what backbones remember;
    and GB for a detector that gathers patches. Numbers alone decide, not the machine: so the same fit is made on any.
    """
    if not gigabytes >= LEAST:
        raise OkngError(f"memory is what the fit may take in all, in GB, {LEAST} or more, not {gigabytes}")
    free = gigabytes - LIBRARIES
    return int(0.2e9 * free), round(0.4 * free, 3)


def ahead(
    batches: Sequence[list[int]], read: Callable[[int], Sequence[Tensor]], threads: int = 2
) -> Iterator[tuple[list[int], list[Tensor]]]:
    """Each batch's indices and what `read` makes of each index, stacked; two batches are read ahead in threads."""

    def stack(indices: list[int], futures: list[Future[Sequence[Tensor]]]) -> tuple[list[int], list[Tensor]]:
        each = zip(*(future.result() for future in futures), strict=True)
        return indices, [torch.stack(parts) for parts in each]

    with Workers(threads) as workers:
        waiting: deque[tuple[list[int], list[Future[Sequence[Tensor]]]]] = deque()
        for indices in batches:
            waiting.append((indices, [workers.submit(read, i) for i in indices]))
            if len(waiting) > 2:
                yield stack(*waiting.popleft())
        while waiting:
            yield stack(*waiting.popleft())


class AuxiliaryImages:
    """Images of anything but what is inspected, such as textures, brought to whatever shape a batch has.

    Decoded ones are kept as far as they fit into `budget` bytes.
    """

    def __init__(self, sources: Sequence[Source], preprocess: Preprocess, budget: int = AUXILIARY_BUDGET):
        self.sources, self.preprocess, self.room = list(sources), preprocess, budget
        self._kept: dict[tuple[int, tuple[int, int]], Tensor] = {}

    def draw(self, shape: tuple[int, int], generator: torch.Generator) -> Tensor:
        """One of them, each as likely as any other, as uint8 (C, *shape)."""
        index = int(torch.randint(len(self.sources), (), generator=generator))
        if (index, shape) in self._kept:
            return self._kept[index, shape]
        pixels, _ = replace(self.preprocess, size=shape).load(self.sources[index])
        image = torch.from_numpy(pixels.copy()).permute(2, 0, 1).contiguous()
        if self.room >= image.numel():
            self.room -= image.numel()
            self._kept[index, shape] = image
        return image

    @cached_property
    def fingerprints(self) -> list[str]:
        """What tells each from all others, see `images.fingerprint`."""
        return [fingerprint(source) for source in self.sources]


class FeatureStore:
    """What was made of each of `count` images, exactly: the first `budget` bytes in memory, the rest on disk."""

    def __init__(self, count: int, budget: int = FEATURE_BUDGET):
        self.count, self.budget = count, budget
        self._memory: dict[Hashable, tuple[Tensor, ...]] = {}
        self._places: dict[Hashable, list[tuple[int, torch.Size, torch.dtype]]] = {}
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._held = self._end = 0  # bytes in memory and on disk

    def __contains__(self, key: Hashable) -> bool:
        return key in self._memory or key in self._places

    def __len__(self) -> int:
        return len(self._memory) + len(self._places)

    def put(self, key: Hashable, features: Sequence[Tensor]) -> None:
        """Store one image's `features`, each of any shape; raises `OkngError` where the disk has no room."""
        size = sum(f.numel() * f.element_size() for f in features)
        if self._held + size <= self.budget:
            self._held += size
            self._memory[key] = tuple(f.detach().cpu().clone() for f in features)
            return
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="okng-features-")
        self._places[key] = []
        try:
            with self._path.open("ab") as file:
                for feature in features:
                    self._places[key].append((self._end, feature.shape, feature.dtype))
                    self._end += file.write(feature.detach().cpu().flatten().view(torch.uint8).numpy().tobytes())
        except OSError as error:
            raise OkngError(
                f"the features of {self.count:,} images take {size * self.count / 1e9:.1f} GB, what is beyond "
                f"{self.budget / 1e9:.1f} GB on disk, and {tempfile.gettempdir()} has no room for it "
                f"({error.strerror}): set TMPDIR to a folder that has"
            ) from error

    def get(self, keys: Sequence[Hashable]) -> tuple[Tensor, ...]:
        """The features of several images of one shape, stacked: each (B, ...)."""
        each = [self._memory[key] if key in self._memory else self._read(key) for key in keys]
        return tuple(torch.stack(parts) for parts in zip(*each, strict=True))

    def close(self) -> None:
        """Remove what lies on disk."""
        if self._folder is not None:
            self._folder.cleanup()

    @property
    def _path(self) -> Path:
        assert self._folder is not None
        return Path(self._folder.name) / "features"

    def _read(self, key: Hashable) -> tuple[Tensor, ...]:
        read = []
        with self._path.open("rb") as file:
            for at, shape, dtype in self._places[key]:
                flat = torch.empty(shape.numel(), dtype=dtype)
                file.seek(at)
                file.readinto(flat.view(torch.uint8).numpy().data)
                read.append(flat.view(shape))
        return tuple(read)


class SharedFeatures:
    """What the frozen part of a detector makes of `images`, for several fits of it on parts of them.

    `stores`: by the number of the phase that asked for it first, filled by `run_phases` once it is needed, the features
    of all `images` by their `places`.
    """

    def __init__(self, images: TrainingImages):
        self.images = images
        self.stores: dict[int, FeatureStore] = {}

    def __enter__(self) -> SharedFeatures:
        return self

    def __exit__(self, *error: object) -> None:
        for store in self.stores.values():
            store.close()
