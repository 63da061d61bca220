"""What a comparison needs to know of a data set before anything is fitted: its digest, and the images to be shown."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from okng.comparing.judging import keys_of, mark_of
from okng.datasets import NG, OK, Dataset, Sample
from okng.datasets.ok_images import part_images
from okng.detectors.catalogue import detector_class
from okng.errors import OkngError
from okng.inspection.inspector import Images, each_image
from okng.inspection.reading.images import Preprocess, Source
from okng.training.held_out import kept_together
from okng.training.images.data import TrainingImages
from okng.training.images.reading import whole, with_header
from okng.training.progress import Narrator

HELD_BACK = 0.2  # of OK images alone, to be judged
SHOWN = {NG: 4, OK: 2}  # images that every method is shown on; only OK ones where there are no others
NO_NG = "held back as a test by seed 0; near copies stay together"


@dataclass(frozen=True)
class Comparable:
    """A data set with labelled test images; `held_back`: they are OK ones that were taken from the training images."""

    dataset: Dataset
    data: str
    shown: tuple[str, ...]
    held_back: bool


def comparable(dataset: Dataset, tell: Narrator) -> Comparable:
    """The data set as methods are compared on it.

    Where it has no labelled test images, a fifth of the OK images becomes the test: they tell of false alarms and of
    costs. The images to be shown are taken at fixed places of the test set, NG and OK apart, before any method is run.
    """
    held_back = not any(sample.label is not None for sample in dataset.test)
    if held_back:
        dataset = _hold_back(dataset, tell)
    learnt = set(keys_of([*dataset.train]))
    labelled = [sample for sample in dataset.test if sample.label is not None]
    keys = keys_of(labelled)
    shown: list[str] = []
    with_ng = any(sample.label == NG for sample in labelled)
    for label, count in SHOWN.items() if with_ng else ((OK, sum(SHOWN.values())),):
        found = [key for key, sample in zip(keys, labelled, strict=True) if sample.label == label and key not in learnt]
        shown += [found[i] for i in _spread(len(found), count) if not found[i].startswith("unreadable")]
    return Comparable(dataset, _digest(dataset), tuple(shown), held_back)


def auxiliary_for(detectors: Sequence[str], given: Images | None) -> tuple[Source, ...]:
    """What is `given` beside the data sets, image by image; `OkngError` where none of the `detectors` can use it."""
    if given is None:
        return ()
    if not any(detector_class(name).takes_auxiliary for name in detectors):
        raise OkngError("none of these detectors uses auxiliary images; leave out auxiliary, or --auxiliary")
    found = tuple(each_image(given, lambda folder: part_images(folder)[0]))
    if not found:
        raise OkngError("there is no auxiliary image among what was given; bring images of something else")
    return found


def digest_of(sources: Sequence[Source]) -> str:
    """Sixteen hexadecimal digits of all images."""
    return hashlib.sha256(" ".join(map(mark_of, sources)).encode()).hexdigest()[:16]


def _spread(total: int, count: int) -> list[int]:
    """`count` places in the middle of as many equal parts of `total` ones."""
    count = min(count, total)
    return [int((2 * i + 1) * total / (2 * count)) for i in range(count)]


def _hold_back(dataset: Dataset, tell: Narrator) -> Dataset:
    sources, _ = with_header([sample.image for sample in dataset.train], False, tell)
    images, _ = whole(TrainingImages(sources, Preprocess("L", 64)), False, tell)
    if len(images) < 5:
        raise OkngError(f"{dataset.name} has no test images, and of OK ones {len(images)}; bring at least 5, better 50")
    groups, _ = kept_together(images, None, tell)
    order = np.random.default_rng(0).permutation(int(groups.max()) + 1)
    test = groups == order[0]
    for group in order[1:]:
        if test.sum() >= HELD_BACK * len(images):
            break
        test |= groups == group
    if test.all():
        raise OkngError(f"all images of {dataset.name} are near copies of each other: there is nothing to judge by")
    kinds = {id(sample.image): sample.kind for sample in dataset.train}
    train: list[Sample] = []
    held: list[Sample] = []
    for i, source in enumerate(images.sources):
        (held if test[i] else train).append(Sample(source, OK, kinds.get(id(source), "")))  # type: ignore[arg-type]
    protocol = f"{dataset.protocol} Of the OK images {len(held)} are {NO_NG}."
    return replace(dataset, train=tuple(train), test=tuple(held), protocol=protocol)


def _digest(dataset: Dataset) -> str:
    """Sixteen hexadecimal digits of all images, labels and masks, so that a folder that has changed is another one."""
    parts = [
        [name, [[mark_of(sample.image), sample.label, sample.kind, _masks(sample)] for sample in samples]]
        for name, samples in (("train", dataset.train), ("test", dataset.test), ("ng", dataset.ng))
    ]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def _masks(sample: Sample) -> str:
    if sample.mask is None:
        return ""
    return " ".join(map(mark_of, sample.mask if isinstance(sample.mask, tuple) else [sample.mask]))
