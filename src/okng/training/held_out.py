"""Which images are held out from learning, and what a detector that has not learnt them says of them."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import numpy as np

from okng.detectors.base import Detector
from okng.detectors.engine import TorchEngine
from okng.errors import OkngError
from okng.inspection.inspector import Decoded, Inspector
from okng.inspection.reading.images import Source
from okng.inspection.verdict.calibration import NAMED, Calibration, highest_apart
from okng.inspection.verdict.result import NO_RULES, Inspection
from okng.inspection.verdict.rules import Rules
from okng.training.images.copies import near_copies, numbered
from okng.training.images.data import TrainingImages
from okng.training.loop.frozen import FrozenBackbones
from okng.training.progress import Narrator

HELD_OUT = 0.2  # of the groups of OK images, for calibration
SPLIT_FROM = 100  # with fewer every image is worth learning from: calibrate by cross-fitting
FOLDS = 5
CHEAP_FOLDS, POOLED_UNTIL = 10, 1000  # for what is cheap to fit again, see `Detector.collects_only`
FEW = 20  # different images; with fewer no threshold for 5 % is more than their largest score


@dataclass(frozen=True)
class Judged:
    """What detectors said of images they had not learnt: places (m,), raw scores (m,), map maxima (m,) if any."""

    index: np.ndarray
    scores: np.ndarray
    peaks: np.ndarray | None

    @classmethod
    def together(cls, parts: Sequence[Judged]) -> Judged:
        """All of `parts` as one."""
        peaks = [part.peaks for part in parts if part.peaks is not None]
        index, scores = (np.concatenate([getattr(part, name) for part in parts]) for name in ("index", "scores"))
        return cls(index, scores, np.concatenate(peaks) if peaks else None)

    def at(self, places: np.ndarray) -> Judged:
        """Those at `places`, or where a mask (m,) is true."""
        return Judged(self.index[places], self.scores[places], None if self.peaks is None else self.peaks[places])

    def one_of_each(self, groups: np.ndarray, seed: int) -> Judged:
        """One image of each group, drawn at random by `seed`; `groups` (n,) are all images' groups."""
        drawn = np.random.default_rng([seed, 1]).permutation(len(self.index))
        _, first = np.unique(groups[self.index[drawn]], return_index=True)
        return self.at(np.sort(drawn[first]))


def say_apart(judged: Judged, images: TrainingImages, tell: Narrator, consequence: str) -> np.ndarray:
    """The images (m,) that stand apart, highest first, each said with its score, and then the `consequence`.

    Those of each product are compared with each other.
    """
    found: list[int] = []
    for product in np.unique(of := images.products[judged.index]):
        its = np.flatnonzero(of == product)
        places = its[highest_apart(judged.scores[its])]
        middle = float(np.median(judged.scores[its]))
        for i in places[:NAMED]:
            name, score = images.name(judged.index[i]), judged.scores[i]
            tell.say(f"{name} scores {score:.4g}, far above the others (median {middle:.4g}): is it OK?")
        if len(places) > NAMED:
            tell.say(f"and {len(places) - NAMED} more like that")
        found += places.tolist()
    if found:
        tell.say(consequence)
    return np.array(found, int)


def named(judged: Judged, places: np.ndarray, images: TrainingImages) -> list[dict[str, Any]]:
    """The images at `places` as a manifest holds them."""
    return [{"image": images.name(judged.index[i]), "score": float(judged.scores[i])} for i in places]


def once(images: TrainingImages, tell: Narrator) -> tuple[TrainingImages, int]:
    """`images` without copies of earlier ones, by their bytes, and how many copies there were."""
    keys = list(zip(images.fingerprints(), images.labels, strict=True))
    first = np.unique(numbered(keys), return_index=True)[1]
    copies = len(images) - len(first)
    if copies:
        tell.say(f"{copies} of {len(images)} images are copies of others, byte for byte; each counts once")
    return images.subset(first), copies


def kept_together(
    images: TrainingImages, label: Callable[[Source], Hashable] | None, tell: Narrator
) -> tuple[np.ndarray, int]:
    """The group (n,) of each of the OK `images`, and how many are near copies.

    A person's `label` goes before the guess by near copies: only a person knows whether nearly equal images are frames
    of one part or parts of one product.
    """
    groups = near_copies(images.thumbnails())
    sizes = np.bincount(groups)
    near, bursts = int(sizes[sizes > 1].sum()), int((sizes > 1).sum())
    which = np.flatnonzero(groups == sizes.argmax())[:2]
    such = f"{near} images are near copies, such as {' and '.join(map(images.name, which))}"
    if label is not None:
        labels = [label(source) for source in images.sources]
        lots, some = numbered(labels), ", ".join(sorted({str(each) for each in labels})[:3])
        tell.say(f"{len(images)} images in {lots.max() + 1} groups ({some}, ...): kept together, each counts once")
        if len(set(zip(groups, lots, strict=True))) > len(sizes):
            tell.say(f"{such}: some are of different groups, and are told apart as asked")
        if not lots.any():
            raise OkngError("all images are of one group, so none can be held out; group_by has to tell two or more")
        return lots, near
    if near:
        tell.say(f"{such}: kept together, all of them count as {bursts} in the calibration")
    if near and len(sizes) < FEW <= len(images):
        tell.say(
            f"so only {len(sizes)} are different, few to calibrate by: if these are several products whose images are "
            "nearly equal, give each its name (okng train NAME=FOLDER NAME=FOLDER), or "
            "say what belongs together by group_by (--group-by)"
        )
    return groups, near


def divided(
    groups: np.ndarray,
    holdout: float | None,
    seed: int,
    cheap: bool = False,
    products: np.ndarray | None = None,
    names: Sequence[str | None] = (None,),
) -> tuple[str, list[np.ndarray]]:
    """How images are held out, and which, per fold; `groups` (n,) are never parted.

    `products` (n,): of which product, from 0 on, each image is; without them all are of one. Each is divided by itself,
    so that every product's share is held out; how is decided by the one with the fewest groups. A group with images of
    several lies in one fold for all of them. `names`: of the products, for what can't be divided.

    "split": some, once. "cross": in folds, and in the end all are learnt. "pooled": in folds too, but the model that
    has not learnt the first one, the smallest, stays. A model that learns more than those whose scores calibrate it
    finds new images less odd than they do, so that "cross" calls fewer NG than was asked; the folds' models are alike.

    `holdout`: the share of the groups, 0 for "cross"; None decides by their number, and by whether fitting again is
    `cheap`.
    """
    products = np.zeros(len(groups), int) if products is None else products
    of_each = [np.flatnonzero(products == product) for product in range(int(products.max()) + 1)]
    counts = [len(np.unique(groups[places])) for places in of_each]
    for name, count in zip(names, counts, strict=False):
        if count < 2:
            whose = "" if name is None else f"{name}: "
            raise OkngError(
                f"{whose}all images are near copies of one, so none can be held out; bring images of other parts"
            )
    method = how_held_out(min(counts), holdout, cheap)
    share = HELD_OUT if holdout is None else holdout
    parts = CHEAP_FOLDS if cheap else FOLDS
    draws = np.random.default_rng(seed)
    orders = [draws.permutation(count) for count in counts]
    fold_of = np.full(int(groups.max()) + 1, -1)
    held_of_each: list[list[np.ndarray]] = [[] for _ in of_each]
    for product in sorted(range(len(of_each)), key=counts.__getitem__):  # what a small one shares is divided by it
        places, order, count = of_each[product], orders[product], counts[product]
        its, of = np.unique(groups[places], return_inverse=True)
        by_order = places[np.argsort(np.argsort(order)[of], kind="stable")]  # (m,) in the order of their groups
        if method == "split":
            held_out = min(max(1, round(share * count)), count - 1)
            sizes = np.array([held_out, count - held_out])
        else:
            sizes = np.array([len(fold) for fold in np.array_split(order, min(parts, count))])
        known = fold_of[its][fold_of[its] >= 0]  # of groups that it shares
        room = np.maximum(0, sizes - np.bincount(known, minlength=len(sizes)))
        folds = np.split(its[order][fold_of[its[order]] < 0], np.cumsum(room)[:-1])
        if method == "pooled" and not len(known):
            folds.sort(key=lambda fold: int(np.isin(groups[places], fold).sum()))
        for number, fold in enumerate(folds):
            fold_of[fold] = number
        held = [by_order[fold_of[groups[by_order]] == number] for number in range(len(sizes))]
        if max(map(len, held)) == len(places):
            raise OkngError(
                f"{names[product]}: its images are near copies of other products' images, and can't be held out and "
                "learnt; bring images of other parts"
            )
        held_of_each[product] = held[:1] if method == "split" else held
    together = [np.concatenate(each) for each in zip_longest(*held_of_each, fillvalue=np.empty(0, int))]
    return method, together


def how_held_out(groups: int, holdout: float | None, cheap: bool) -> str:
    """What `divided` does with so many groups."""
    if holdout is None and cheap and FEW <= groups < POOLED_UNTIL:
        return "pooled"
    share = (HELD_OUT if groups >= SPLIT_FROM else 0.0) if holdout is None else holdout
    return "split" if share else "cross"


def judge(
    detector: Detector,
    images: TrainingImages,
    index: np.ndarray,
    name: str,
    tell: Narrator,
    show: Callable[[Inspection, Source, str], None] | None = None,
    rules: Rules = NO_RULES,
    backbones: FrozenBackbones | None = None,
) -> Judged:
    """What `detector` says of `images` at the places `index`, by the path that later inspects.

    Images that are decoded already are not read again, and frozen backbones are computed by `backbones`, as they were
    to learn. `show` is shown every inspection, with the image and its name. With the zones of `rules` a score is that
    of the map within them.
    """
    tell.begin(name, len(index))
    scores, peaks = [], []
    inspector = _Rereading(uncalibrated(detector, images, rules), images, index)
    with (backbones or FrozenBackbones()).running(detector, len(index)):
        for i, inspection in zip(index, inspector.inspect([images.sources[i] for i in index]), strict=True):
            scores.append(inspection.score)
            if inspection.map is not None:
                peaks.append(float(inspection.map.max()))
            if show is not None:
                show(inspection, images.sources[i], images.name(i))
            tell.advance()
    return Judged(index, np.array(scores), np.array(peaks) if peaks else None)


class _Rereading(Inspector):
    """`inspector` for the `images` at the places `index`, in that order: what is decoded already is not read again."""

    def __init__(self, inspector: Inspector, images: TrainingImages, index: np.ndarray):
        super().__init__(inspector.engine, inspector.preprocess, inspector.calibration, inspector.manifest)
        self._images, self._index = images, index

    def decode(self, source: Source, place: int = 0) -> Decoded:
        """One image as the engine takes it."""
        known = self._images.decoded(int(self._index[place]))
        return super().decode(source, place) if known is None else Decoded(place, source, *known, 0.0)


def uncalibrated(detector: Detector, images: TrainingImages, rules: Rules = NO_RULES) -> Inspector:
    """An inspector that scores as the detector does and has no threshold yet."""
    nothing = Calibration(np.zeros(1), None, "none", 0.5, np.inf, None, "")
    return Inspector(TorchEngine(detector), images.preprocess, nothing, {"rules": rules.to_json()})
