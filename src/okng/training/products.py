"""Several products that one detector learns: each is held out, and calibrated, by itself."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping
from itertools import combinations
from typing import Any

import numpy as np

from okng.checks import check_product
from okng.errors import OkngError
from okng.inspection.inspector import Images
from okng.inspection.reading.images import Source
from okng.inspection.verdict.calibration import Calibration
from okng.inspection.verdict.likeness import Traits, describe
from okng.training.held_out import (
    CHEAP_FOLDS,
    FEW,
    FOLDS,
    POOLED_UNTIL,
    SPLIT_FROM,
    Judged,
    how_held_out,
    kept_together,
)
from okng.training.images.copies import joined, near_pairs
from okng.training.images.data import TrainingImages
from okng.training.progress import Narrator


def by_product(images: Images | Mapping[str, Images]) -> dict[str | None, Images]:
    """The images of each product by its name, or all of them by None; `OkngError` for names that can't be used."""
    if not isinstance(images, Mapping):
        return {None: images}
    if len(images) < 2:
        raise OkngError("several products are two or more, each with its name; give the images of one without a name")
    for name in images:
        check_product(name)
    return {name: images[name] for name in images}


def check_different(images: TrainingImages, names: list[str | None]) -> None:
    """`OkngError` where one of the OK `images`, pixel for pixel, was given as of two products, in whatever files."""
    if len(names) == 1:
        return
    alike: dict[bytes, list[int]] = defaultdict(list)
    thumbnails = images.thumbnails()
    for index in range(len(images)):
        thumbnail = thumbnails[np.array([index])]
        for other in alike[key := hashlib.blake2b(thumbnail.tobytes(), digest_size=16).digest()]:
            a, b = (int(images.products[i]) for i in (other, index))
            if a != b and images[other].equal(images[index]):
                raise OkngError(
                    f"{images.name(other)} of {names[a]} and {images.name(index)} of {names[b]} are one picture, "
                    "pixel for pixel; leave it to one of them"
                )
        alike[key].append(index)


def groups_of_each(
    images: TrainingImages, names: list[str | None], label: Callable[[Source], Hashable] | None, tell: Narrator
) -> tuple[np.ndarray, int]:
    """The group (n,) of each of the OK `images`, and how many are near copies.

    Each product is looked at by itself: beside another one its own images would all look alike. Near copies of two
    products, such as frames of one part, are of one group too, unless a person's `label` tells them apart.
    """
    groups, near, whose = np.zeros(len(images), int), 0, dict[Any, str | None]()
    begun = 0
    for number, name in enumerate(names):
        places = np.flatnonzero(images.products == number)
        part = images.subset(places)
        if name is not None and len(part) < 2:
            raise OkngError(f"{name} has {len(part)} readable images; bring at least 2 of each product, better 20")
        try:
            found, copies = kept_together(part, label, tell)
        except OkngError as error:
            raise OkngError(f"{name}: {error}" if name is not None else str(error)) from error
        if label is not None:
            for each in {label(source) for source in part.sources}:
                if (other := whose.setdefault(each, name)) != name:
                    raise OkngError(
                        f"the group {each} has images of {other} and of {name}; where those have nothing in common, "
                        "let group_by (--group-by) tell the product too"
                    )
        groups[places], near, begun = found + begun, near + copies, begun + int(found.max()) + 1
    rows, columns = _across(images, names, "told apart as asked" if label is not None else "kept together", tell)
    if label is not None or not len(rows):
        return groups, near
    first = np.unique(groups, return_index=True)[1]  # an image of each group, which all its images are joined to
    everyone = np.arange(len(images))
    groups = joined(len(images), np.append(rows, everyone), np.append(columns, first[groups]))
    return groups, int((np.bincount(groups)[groups] > 1).sum())


def say_who_decides(
    groups: np.ndarray,
    products: np.ndarray,
    names: list[str | None],
    holdout: float | None,
    cheap: bool,
    tell: Narrator,
) -> None:
    """Say where a product of few images decides how all are held out, and what that costs; `groups` as of `divided`."""
    counts = [len(np.unique(groups[products == number])) for number in range(len(names))]
    few, many = int(np.argmin(counts)), int(np.argmax(counts))
    method, alone = (how_held_out(counts[number], holdout, cheap) for number in (few, many))
    if method == alone:
        return
    fits = min(counts[many], CHEAP_FOLDS if cheap else FOLDS) + (method == "cross")
    enough = POOLED_UNTIL if cheap else SPLIT_FROM
    costs = {
        "split": f"that takes {fits} fits instead of one, and promises about the asked rate instead of at most that; "
        f"with {enough} of each, or by --promise strict, a fifth of each is held out once",
        "pooled": f"that calls fewer NG than the asked rate allows; with {FEW} of each it does not",
    }
    tell.say(
        f"{names[few]} has only {counts[few]} different images, so all products are cross-fitted as it is, "
        f"{names[many]} with its {counts[many]} too: {costs[alone]}"
    )


def calibrated_each(
    names: list[str | None],
    products: np.ndarray,
    judged: Judged,
    left_out: np.ndarray,
    method: str,
    false_alarm_rate: float,
    unit: str,
) -> dict[str | None, Calibration]:
    """A calibration for each product, by those `judged` that are its own; `left_out` are images dropped from it.

    `products` (n,) of all OK images by their number; `method` and `unit` as `Calibration` has them.
    """
    found = {}
    for number, name in enumerate(names):
        its = judged.at(products[judged.index] == number)
        dropped = int((products[left_out] == number).sum())
        found[name] = Calibration.fit(its.scores, its.peaks, method, false_alarm_rate, unit, dropped)
    return found


def described_each(
    names: list[str | None], products: np.ndarray, traits: list[Traits], groups: np.ndarray, judged: np.ndarray
) -> dict[str, dict[str, Any]]:
    """What a model file says of each product's images: how many, how many were held out, and what they are like.

    `products`, `groups` (n,) and `traits` are of all OK images, `judged` (m,) the places of those held out.
    """
    found = {}
    for number, name in enumerate(names):
        its = np.flatnonzero(products == number)
        firsts = its[np.unique(groups[its], return_index=True)[1]]  # one of each group
        found[str(name)] = {
            "images": len(its), "held_out": int((products[judged] == number).sum()),
            "learnt_images": describe([traits[i] for i in its], apart=[traits[i] for i in firsts]),
        }  # fmt: skip
    return found


def _across(
    images: TrainingImages, names: list[str | None], done: str, tell: Narrator
) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of near copies, places (p,) and (p,), of two products each; they are said, and what is `done` with them.

    Two products at a time: beside a third, unlike one the images of both would look alike.
    """
    thumbnails = images.thumbnails()
    found = [np.empty((2, 0), int)]
    for a, b in combinations(range(len(names)), 2):
        places = np.flatnonzero(np.isin(images.products, (a, b)))
        pairs = places[np.stack(near_pairs(thumbnails.of(places)))]  # (2, p)
        of = images.products[pairs]
        pairs = np.where(of[0] < of[1], pairs, pairs[::-1])[:, of[0] != of[1]]
        if pairs.size:
            tell.say(
                f"{len(set(pairs[0]))} images of {names[a]} are near copies of images of {names[b]}, such as "
                f"{images.name(pairs[0, 0])} and {images.name(pairs[1, 0])}: {done}"
            )
        found.append(pairs)
    rows, columns = np.concatenate(found, axis=1)
    return rows, columns
