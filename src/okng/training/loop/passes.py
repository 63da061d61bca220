"""Passes over the training images without gradients: what a `Collect` gathers, what a `prepare` makes of each image."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import nn

from okng.detectors.base import Batch, Collect, Detector, Train
from okng.training.images.data import FeatureStore, SharedFeatures, TrainingImages
from okng.training.loop.checkpoint import Checkpoint
from okng.training.loop.feed import Feed, parts_of
from okng.training.loop.frozen import FrozenBackbones
from okng.training.loop.ranks import Ranks
from okng.training.loop.seeds import generator_at, seed_torch
from okng.training.progress import Narrator

COLLECT_BATCH = 16
HELD_BACK, FEWEST = 5, 5  # a fifth of the OK images is held back, where there are so many


@dataclass
class Fit:
    """What all phases of a fit work with.

    `first` is, of each `prepare` of a pass, the first phase's number with it; `parted` the last phase's that held back.
    """

    detector: Detector
    images: TrainingImages
    fabric: Fabric
    seed: int
    feed: Feed
    checkpoint: Checkpoint
    shared: SharedFeatures | None
    backbones: FrozenBackbones
    tell: Narrator
    ranks: Ranks
    first: dict[Any, int] = field(default_factory=dict)
    parted: int = 0


def collect(fit: Fit, number: int, phase: Collect) -> None:
    """One pass, then the phase's own conclusion."""
    store = None
    if fit.shared is not None and phase.prepare is not None:
        stores, first = fit.shared.stores, fit.first.setdefault(phase.prepare, number)
        if first not in stores:
            stores[first] = prepare(fit, number, phase, fit.shared.images)
        store = stores[first]
    meant = _halves(fit.detector)
    seed_torch(fit.seed, number, 0)
    shown = seen_by(fit, phase)
    fit.tell.begin(phase.name, len(shown))
    fast = fit.backbones.in_a_fit(fit.detector, fit.fabric, len(fit.images)) if store is None else nullcontext()
    with torch.no_grad(), fit.fabric.autocast(), fast:
        for batch in _passing(fit, phase, store, shown):
            phase.visit(batch)
            fit.tell.advance(len(batch.images))
        shares = phase.finish()
        if shares is not None:
            fit.tell.begin(f"{phase.name}: concluding", 1)
            before = 0.0
            for share in shares:
                fit.tell.advance(share - before)
                before = share
    _widen(fit.detector, meant)


def seen_by(fit: Fit, phase: Collect) -> list[int]:
    """The images that a pass visits."""
    everyone = list(range(len(fit.images)))
    if not (phase.held_back or phase.learnt):
        return everyone
    learnt, held_back = divided(fit, fit.parted)
    return learnt if phase.learnt else held_back or everyone


def _halves(detector: Detector) -> set[tuple[nn.Module, str]]:
    """The buffers, module and name, that are of half precision."""
    named = ((module, *each) for module in detector.modules() for each in module.named_buffers(recurse=False))
    return {(module, name) for module, name, buffer in named if buffer.dtype in (torch.bfloat16, torch.float16)}


def _widen(detector: Detector, meant: set[tuple[nn.Module, str]]) -> None:
    """Make float32 of what was gathered in half precision, but for what was `meant` to be: it judges in float32."""
    for module, name in _halves(detector) - meant:
        setattr(module, name, module.get_buffer(name).float())


def prepare(fit: Fit, number: int, phase: Collect | Train, images: TrainingImages) -> FeatureStore:
    """Run the frozen part once per image of `images`."""
    assert phase.prepare is not None
    store = FeatureStore(len(images), images.budget)
    fit.tell.begin(f"{phase.name}: frozen features", len(images))
    seed_torch(fit.seed, number, 0)
    fast = fit.backbones.in_a_fit(fit.detector, fit.fabric, len(images))
    with torch.no_grad(), fit.fabric.autocast(), fast:
        for indices, pixels in fit.feed.pixels(images, images.batches(COLLECT_BATCH, shuffle=False)):
            parts = parts_of(phase.prepare(pixels))
            for row, index in enumerate(indices):
                store.put(images.places[index], [part[row] for part in parts])
            fit.tell.advance(len(indices))
    return store


def divided(fit: Fit, number: int) -> tuple[list[int], list[int]]:
    """The images that phase `number` learns from where it holds some back, and those held back, OK ones alone.

    What belongs together is not parted: groups that a person gave, else near copies. Of several products each has its
    share held back, where it has enough images.
    """
    everyone = range(len(fit.images))
    ok = [i for i in everyone if fit.images.labels[i] == 0]
    if len(ok) < FEWEST:
        return list(everyone), []
    groups = fit.images.subset(ok).alike()  # (n,)
    products = fit.images.products[ok]  # (n,)
    room = np.bincount(products) // HELD_BACK  # of each product
    order = torch.randperm(int(groups.max()) + 1, generator=generator_at(fit.seed, number)).tolist()
    held_back: set[int] = set()
    for group in order:
        copies = np.flatnonzero(groups == group)
        of_each = np.bincount(products[copies], minlength=len(room))
        if (of_each <= room).all():
            held_back |= {ok[i] for i in copies}
            room -= of_each
    return [i for i in everyone if i not in held_back], sorted(held_back)


def _passing(fit: Fit, phase: Collect, store: FeatureStore | None, shown: list[int]) -> Iterator[Batch]:
    """The batches of one pass over the images `shown`; with a `prepare` what it made, of `store` if there is one."""
    groups = fit.images.batches(COLLECT_BATCH, shuffle=False, among=shown)
    if store is not None:
        for indices in groups:
            shape = len(indices), fit.images.preprocess.channels, *fit.images.shapes[indices[0]]
            yield fit.feed.batch(indices, torch.empty(shape, device="meta"), store)
        return
    for batch in fit.feed.batches(groups):
        if phase.prepare is not None:
            batch.prepared, batch.images = parts_of(phase.prepare(batch.images)), batch.images.to("meta")
        yield batch
