"""How a set is divided into images to learn from and images to be judged by. Figures of two protocols don't compare.

- one-vs-rest: the normal classes of the training part against the whole test part (Ruff et al., Deep One-Class
  Classification, ICML 2018, section 4). A set without a split of its own gives 80 % of the normal classes to
  training and all else to testing.
- 80/20: the classes of both parts pooled, 80 % of the normal ones for training, the rest and as many NG images for
  testing (the first protocol of Perera et al., OCGAN, CVPR 2019).
- leave-one-class-out: one class is NG and all others are normal (Akcay et al., GANomaly, ACCV 2018).
- mvtec: what the folders of MVTec AD say (Bergmann et al., CVPR 2019).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from okng.datasets.base import NG, OK, Dataset, Sample
from okng.errors import OkngError, nearest_names

BY_CLASS = ("one-vs-rest", "80/20", "leave-one-class-out")
PROTOCOLS = (*BY_CLASS, "mvtec")
MVTEC_LAYOUTS = ("mvtec", "mvtec-loco", "mvtec-ad-2", "mvtec-3d", "bmad")


@dataclass(frozen=True)
class Classes:
    """Samples of several classes (`kind`), not yet labelled; `test` is None where the set has no split of its own."""

    folder: Path
    layout: str
    train: tuple[Sample, ...]
    test: tuple[Sample, ...] | None
    about: str = ""  # what else the protocol has to say of how the samples came to be

    @property
    def names(self) -> list[str]:
        """The classes to learn from, in the order they first come."""
        return list(dict.fromkeys(sample.kind for sample in self.train))


def divide(
    classes: Classes, normal: str | None, protocol: str | None = None, abnormal: str | None = None, seed: int = 0
) -> Dataset:
    """Label and divide `classes` by `protocol`, one-vs-rest by default.

    `normal` is a class or several ("3,5"); leave-one-class-out takes `abnormal` instead. Raises `OkngError` for a
    class that is none, and for a protocol of another layout.
    """
    protocol = protocol or (BY_CLASS[2] if abnormal is not None else BY_CLASS[0])
    if protocol not in BY_CLASS:
        raise OkngError(f"{classes.folder} holds classes; its protocols are {', '.join(BY_CLASS)}, not {protocol!r}")
    if (protocol == "leave-one-class-out") != (abnormal is not None):
        raise OkngError(
            "leave-one-class-out takes the one NG class, abnormal or --abnormal; the others take normal or --normal"
        )
    if protocol == "leave-one-class-out":
        return _leave_one_out(classes, normal, str(abnormal), seed)
    names = _check_classes(normal, classes.names, classes.folder)
    if protocol == "80/20":
        return _balanced(classes, names, seed)
    return _one_vs_rest(classes, names, seed)


def check_protocol(dataset: Dataset, protocol: str | None, abnormal: str | None) -> Dataset:
    """`dataset` if its own folders are the protocol that was asked for; an `OkngError` otherwise."""
    own = "mvtec" if dataset.layout in MVTEC_LAYOUTS else "native"
    if protocol not in (None, own, "native") or abnormal is not None:
        asked = repr(protocol) if abnormal is None else f"abnormal={abnormal!r}"
        raise OkngError(f"{dataset.name} is divided already, its protocol is {own}; leave {asked} out")
    return dataset


def contaminate(dataset: Dataset, share: float, seed: int) -> Dataset:
    """`dataset` with NG samples out of its test part as `share` of the training samples; no detector is told."""
    if not 0 <= share < 1:
        raise OkngError(f"contamination is the share of NG images among the training images such as 0.05, not {share}")
    if share == 0:
        return dataset
    count = round(share / (1 - share) * len(dataset.train))
    drawn, rest = take_ng(dataset.test, count, seed)
    protocol = (
        f"{dataset.protocol} Contamination {share:.2%}: {count} NG images, drawn from the test images by seed {seed} "
        "and taken out of them, are among the training images as if they were OK."
    )
    return replace(dataset, protocol=protocol, train=(*dataset.train, *drawn), test=rest)


def take_ng(samples: Sequence[Sample], count: int, seed: int) -> tuple[tuple[Sample, ...], tuple[Sample, ...]]:
    """`count` of the NG samples, drawn by `seed`, and all the others; at least one NG sample stays."""
    places = [i for i, sample in enumerate(samples) if sample.label == NG]
    if count >= len(places):
        raise OkngError(f"{count} NG images are to be learnt from but the test part has {len(places)}; ask for fewer")
    drawn = set(np.random.default_rng(seed).permutation(places)[:count].tolist())
    return (
        tuple(samples[i] for i in sorted(drawn)),
        tuple(sample for i, sample in enumerate(samples) if i not in drawn),
    )


def split_by_seed(samples: Sequence[Sample], seed: int) -> tuple[tuple[Sample, ...], tuple[Sample, ...]]:
    """80 % of `samples` (rounded down) and the rest, drawn at random by `seed`, each in the order given."""
    order = np.random.default_rng(seed).permutation(len(samples))
    cut = len(samples) * 4 // 5
    return tuple(samples[i] for i in sorted(order[:cut])), tuple(samples[i] for i in sorted(order[cut:]))


def _one_vs_rest(classes: Classes, normal: list[str], seed: int) -> Dataset:
    said = _spell(normal)
    if classes.test is not None:
        protocol = (
            f"One-vs-rest on the native split: {said} of the training part for training, the whole test part for "
            f"testing, where all but {said} is NG."
        )
        train, test, ng = _of(classes.train, normal), _label(classes.test, normal), _but(classes.train, normal)
    else:
        train, rest = _split(classes, _of(classes.train, normal), said, seed)
        protocol = (
            f"One-vs-rest, 80/20 by seed {seed}: 80 % of {said} for training; the other 20 % (OK) and all other "
            "classes (NG) for testing."
        )
        test, ng = rest + _but(classes.train, normal), ()
    return _dataset(classes, protocol, train, test, ng)


def _balanced(classes: Classes, normal: list[str], seed: int) -> Dataset:
    pool = classes.train + (classes.test or ())
    said = _spell(normal)
    train, rest = _split(classes, _of(pool, normal), said, seed)
    others = _but(pool, normal)
    order = np.random.default_rng([seed, 1]).permutation(len(others))  # not the draw that divided the normal class
    drawn = tuple(others[i] for i in sorted(order[: len(rest)]))
    protocol = (
        f"80/20 balanced by seed {seed}: all images of {said} pooled, 80 % for training and 20 % for testing, with "
        f"as many of the other classes' images ({len(drawn)} of {len(others)}) drawn as NG."
    )
    return _dataset(classes, protocol, train, rest + drawn, ())


def _leave_one_out(classes: Classes, normal: str | None, abnormal: str, seed: int) -> Dataset:
    if normal is not None:
        raise OkngError(f"leave-one-class-out: all classes but {abnormal} are normal; leave normal={normal!r} out")
    (left_out,) = _check_classes(abnormal, classes.names, classes.folder, several=False)
    pool = classes.train + (classes.test or ())
    normals = [name for name in classes.names if name != left_out]
    train, rest = _split(classes, _of(pool, normals), f"all classes but {left_out}", seed)
    protocol = (
        f"Leave-one-class-out by seed {seed}: class {left_out} is NG, all its images for testing; the others are "
        "normal, pooled, 80 % for training and 20 % for testing."
    )
    return _dataset(classes, protocol, train, rest + _but(pool, normals), ())


def _dataset(
    classes: Classes,
    protocol: str,
    train: tuple[Sample, ...],
    test: tuple[Sample, ...],
    ng: tuple[Sample, ...],
) -> Dataset:
    told = f"{protocol} {classes.about}".strip()
    return Dataset(classes.folder.resolve().name, classes.layout, told, train, test, ng)


def _split(
    classes: Classes, samples: tuple[Sample, ...], said: str, seed: int
) -> tuple[tuple[Sample, ...], tuple[Sample, ...]]:
    if len(samples) < 2:
        raise OkngError(f"{said} of {classes.folder} has one image; an 80/20 split takes two or more: add some")
    return split_by_seed(samples, seed)


def _of(samples: tuple[Sample, ...], normal: Collection[str]) -> tuple[Sample, ...]:
    return tuple(replace(sample, label=OK) for sample in samples if sample.kind in normal)


def _but(samples: tuple[Sample, ...], normal: Collection[str]) -> tuple[Sample, ...]:
    return tuple(replace(sample, label=NG) for sample in samples if sample.kind not in normal)


def _label(samples: tuple[Sample, ...], normal: Collection[str]) -> tuple[Sample, ...]:
    return tuple(replace(sample, label=OK if sample.kind in normal else NG) for sample in samples)


def _spell(names: list[str]) -> str:
    return f"class {names[0]}" if len(names) == 1 else f"classes {', '.join(names)}"


def _check_classes(asked: str | None, known: Collection[str], folder: Path, several: bool = True) -> list[str]:
    """The classes `asked` for, "3" or "3,5", in the order of the set; an `OkngError` that names them otherwise."""
    if asked is None:
        raise OkngError(f"{folder} holds several classes; say which one is normal: {', '.join(known)}")
    given = [asked] if asked in known or not several else [name.strip() for name in asked.split(",")]
    for name in given:
        if name not in known:
            raise OkngError(f"{folder} has no class {name!r}; {nearest_names(name, known)}")
    if set(given) == set(known) and len(known) > 1:
        raise OkngError(f"{folder}: all classes are given as normal; leave at least one out to be NG")
    return [name for name in known if name in given]
