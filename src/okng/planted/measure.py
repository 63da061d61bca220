"""`okng.sensitivity`: what a model would find, measured with defects planted into OK images it has not learnt."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

import numpy as np
from PIL import Image

import okng
from okng.checks import plain, seed_of, whole_number
from okng.datasets.ok_images import lister
from okng.errors import OkngError, nearest_names, so_many
from okng.inspection.inspector import Images, Inspector, each_image
from okng.inspection.reading.images import Preprocess, Source, UnreadableImage, fingerprint, image_size, white_level
from okng.inspection.verdict.calibration import Calibration
from okng.inspection.verdict.learnt import calibrating
from okng.inspection.verdict.result import Inspection, judged
from okng.inspection.verdict.rules import Rules
from okng.inspection.verdict.zones import SAMPLES, inspected
from okng.planted.curve import clopper_pearson, size_interval
from okng.planted.defects import KINDS, SMALLEST, Planted
from okng.planted.result import Curve, Point, Recipe, Sensitivity, Trial, pixels_of, plant_recipe, within
from okng.training.progress import Narrator, narrated

FEWEST = 5  # images; of fewer no interval says anything
MOST = 60  # images that are planted into
PLANTS = (5, 20)  # fewest and most of each kind and size: fewer where an input has more than `USUAL` pixels
USUAL = 256 * 256
LADDER = (0.015, 0.03, 0.06, 0.12, 0.24, 0.48)  # sizes, in shares of the root of an image's area
ASKED = 0.9  # the share that has to be found
DRAWN = 60  # points of a curve that is drawn
TRIES = 10  # of a place within the zones
ROOM = 1.5  # sizes to each side of it: enough for a part that lies beside its place, or there once more


@narrated
def sensitivity(
    model: Inspector | str | Path,
    images: Images,
    *,
    kinds: Sequence[str] | str | None = None,
    sizes: Sequence[float] | None = None,
    plants: int | None = None,
    seed: int = 0,
    progress: bool = False,
    tell: Narrator | None = None,
) -> Sensitivity:
    """Measure what `model`, an inspector or its file, would find: plant defects into OK `images` and look.

    `images`: OK images, as `okng.fit` takes them; what the model has learnt is left out, for a detector finds every
    change of an image it knows by heart. Those held out from learning to set the threshold may be among them. `kinds`:
    some of `okng.planted.defects.KINDS`, by default all nine. `sizes`: the defects' longest sides in pixels of the
    images, rising; by default six from 1.5 to 48 % of an image's side. `plants`: how many of each kind and size, by
    default 20, and down to 5 where the model's input is larger than 256 × 256. The seed decides every plant.
    `progress`: show on standard error how far it is.

    A plant is found if the image is called NG at the model's threshold and, of a model that says where, the heatmap has
    its highest point or a region at the plant, within one place of the map. Planted defects are no real ones: the
    figures compare sizes, kinds and models, and promise no share of real defects. With zones, defects are planted into
    what is inspected.

    Raises `OkngError` for fewer than 5 images that the model has not learnt, and for unknown kinds.
    """
    tell = tell or Narrator(quiet=True)
    inspector = model if isinstance(model, Inspector) else okng.load(model)
    _ = inspector.calibration  # of several products one has to be meant
    wanted = _kinds(kinds)
    seed, plants = seed_of(seed), plain("plants", plants)
    whole_number(1, plants=plants)
    sources, left_out, by = _unlearnt(list(each_image(images, lister())), inspector, tell)
    if inspector.rules.rules:
        tell.say("rules are left out: a find is a score above the threshold, whatever they say of its regions")
    plan = Plan(sources, inspector.preprocess, seed, tell, wanted, sizes, plants)
    plan.look(inspector, range(len(sources)), tell)
    return plan.conclude(inspector.calibration, by, left_out)


@dataclass(frozen=True)
class _Look:
    """What a detector says of an image: the raw `score`, and of its map the highest value and that at a plant."""

    score: float
    highest: float | None
    here: float | None

    def found(self, calibration: Calibration) -> bool:
        """Whether the image is called NG, and for this place."""
        if self.here is None or calibration.pixel_threshold is None:  # it doesn't say where
            return calibration.is_ng(self.score)
        there = self.here == self.highest or self.here > calibration.pixel_threshold
        return calibration.is_ng(self.score) and there


class Plan:
    """What is planted into which of `sources`, none of which the detector that looks at it has learnt.

    A fit that holds out several folds has several detectors; each looks at the images of its own fold, and the verdicts
    follow when the threshold is known.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        preprocess: Preprocess,
        seed: int,
        tell: Narrator,
        kinds: Sequence[str] = tuple(KINDS),
        sizes: Sequence[float] | None = None,
        plants: int | None = None,
    ):
        self.images = _readable(sources, preprocess, seed, tell)
        self.sources = [sources[i] for i in self.images]
        self.preprocess, self.kinds, self.seed = preprocess, kinds, seed
        shapes = [image_size(source) for source in self.sources]
        self.side = float(np.median([math.sqrt(h * w) for h, w in shapes]))
        ladder = _ladder(sizes, self.side)
        if plants is None:
            h, w = preprocess.shape(*shapes[0])
            seen = h * w * preprocess.inputs(*shapes[0])
            plants = int(np.clip(round(PLANTS[1] * USUAL / seen), *PLANTS))
        self.white = max(white_level(self.sources), preprocess.white)
        count = len(self.sources)
        self.recipes: list[list[Recipe]] = [[] for _ in self.sources]  # of each image
        for k, kind in enumerate(kinds):
            for j, size in enumerate(ladder):
                for i in range(plants):
                    image = (i + (j + k) * plants) % count
                    drawn = int(np.random.SeedSequence([seed, k, j, i]).generate_state(1)[0])
                    self.recipes[image].append(Recipe(kind, size, drawn, image, (image + 1) % count, first=i == 0))
        self.looks: list[tuple[Recipe, _Look, _Look]] = []  # with the plant and without it
        self.clean: list[float] = []
        self.shown: list[tuple[Recipe, Inspection]] = []  # the first plant of each kind and size

    def look(self, inspector: Inspector, held: Iterable[int], tell: Narrator) -> None:
        """Have `inspector` look at those images, numbered as the sources that were given, that it has not learnt."""
        held = set(held)
        own = [i for i, image in enumerate(self.images) if image in held]
        waiting: deque[tuple[Recipe, np.ndarray] | None] = deque()  # None: the image as it is

        def made() -> Iterator[np.ndarray]:
            for i in own:
                pair = self.sources[i], self.sources[(i + 1) % len(self.sources)]
                image, other = (pixels_of(source, self.preprocess) for source in pair)
                inside = _inspected(inspector.rules, image)
                waiting.append(None)
                yield image
                for asked in self.recipes[i]:
                    recipe, planted = _planted(asked, image, other, self.white, inside)
                    if planted.mask.any():
                        waiting.append((recipe, planted.mask))
                        yield planted.pixels
                    else:
                        tell.advance()

        tell.begin("planting and looking", sum(1 + len(self.recipes[i]) for i in own))
        plain: Inspection | None = None
        for inspection in inspector.inspect(made()):
            planted = waiting.popleft()
            if planted is None:
                plain = inspection
                self.clean.append(inspection.score)
            else:
                recipe, mask = planted
                assert plain is not None, "an image comes before its plants"
                self.looks.append((recipe, _at(inspection, mask), _at(plain, mask)))
                if recipe.first:  # a view of the map would keep its whole batch alive
                    own_map = None if inspection.map is None else inspection.map.copy()
                    self.shown.append((recipe, replace(inspection, map=own_map)))
            tell.advance()

    def conclude(self, calibration: Calibration, calibrating: Iterable[int], left_out: int = 0) -> Sensitivity:
        """What was found at the thresholds of `calibration`, which those images set, numbered as they were given."""
        trials = [
            Trial(recipe, seen.score, calibration.is_ng(seen.score), seen.found(calibration), plain.found(calibration))
            for recipe, seen, plain in self.looks
        ]
        of_kind: dict[str, list[Trial]] = {kind: [] for kind in self.kinds}
        for trial in trials:
            of_kind[trial.recipe.kind].append(trial)
        count = len(self.sources)
        curves = {kind: _curve(kind, own, count, self.seed) for kind, own in of_kind.items() if own}
        if not curves:
            raise OkngError("these images are of one plain colour: these kinds of defects change nothing in them")
        return Sensitivity(
            curves=curves,
            overall=_curve("all", trials, count, self.seed),
            unchanged=tuple(kind for kind in self.kinds if kind not in curves),
            images=count,
            calibrating=len({*calibrating} & {*self.images}),
            left_out=left_out,
            alarms=sum(calibration.is_ng(score) for score in self.clean),
            localises=calibration.pixel_threshold is not None,
            side=self.side,
            threshold=calibration.threshold,
            trials=tuple(trials),
            clean=tuple(self.clean),
            shown=tuple((recipe, judged(seen, calibration)) for recipe, seen in self.shown),
            sources=tuple(self.sources),
            preprocess=self.preprocess,
            white=self.white,
            seed=self.seed,
        )


def _inspected(rules: Rules, image: np.ndarray) -> np.ndarray | None:
    """Which places (h, w) of a grid over the image zones leave to inspect; None for all."""
    height, width = image.shape[:2]
    return inspected(rules.zones, (min(height, SAMPLES), min(width, SAMPLES))) if rules.masks else None


def _planted(
    asked: Recipe, image: np.ndarray, other: np.ndarray, white: int, inside: np.ndarray | None
) -> tuple[Recipe, Planted]:
    """What is planted by the recipe that was `asked`, or, with zones, by another that lies `inside` (h, w) them.

    Of the asked one and up to `TRIES` others the first counts that lies inside by half or takes half of all that is
    inside, else the one that comes nearest to that; where none touches it the mask is empty.
    """
    if inside is None:
        return asked, plant_recipe(asked, image, other, white)
    best, most = (asked, Planted(image, np.zeros(image.shape[:2], bool))), 0.0
    area = inside.mean() * image.shape[0] * image.shape[1]  # px
    for recipe in chain([asked], _windows(asked, image, inside)):
        planted = plant_recipe(recipe, image, other, white)
        rows, columns = np.nonzero(planted.mask)
        at = rows * len(inside) // len(image), columns * inside.shape[1] // image.shape[1]
        share = inside[at].sum() / min(len(rows), area) if len(rows) else 0.0
        if share > most:
            best, most = (recipe, planted), share
        if share >= 0.5:
            break
    return best


def _windows(asked: Recipe, image: np.ndarray, inside: np.ndarray) -> Iterator[Recipe]:
    """The recipe with other seeds, each in a window around a place drawn `inside` (h, w) the zones."""
    (height, width), (h, w) = image.shape[:2], inside.shape
    reach = math.ceil(ROOM * asked.size)
    places = np.flatnonzero(inside)
    for i in range(TRIES):
        rng = np.random.default_rng([asked.seed, i])
        row, column = divmod(int(rng.choice(places)), w)
        y, x = int((row + 0.5) * height / h), int((column + 0.5) * width / w)
        window = max(0, y - reach), min(height, y + reach), max(0, x - reach), min(width, x + reach)
        yield replace(asked, seed=int(rng.integers(1 << 32)), window=window)


def _at(inspection: Inspection, mask: np.ndarray) -> _Look:
    """What an inspection says of the place that `mask` (H, W) marks."""
    scores = inspection.map
    if scores is None:
        return _Look(inspection.score, None, None)
    return _Look(inspection.score, float(scores.max()), float(scores[cells_at(mask, scores.shape)].max()))


def cells_at(mask: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The places (h, w) of a map of this `shape` that `mask` (H, W), not empty, touches, and those beside them."""
    h, w = shape
    touched = np.asarray(Image.fromarray(mask.astype(np.float32)).resize((w, h), Image.Resampling.BOX)) > 0
    wide = np.pad(touched, 1)
    near = np.any([wide[1 + i : 1 + i + h, 1 + j : 1 + j + w] for i in (-1, 0, 1) for j in (-1, 0, 1)], axis=0)
    return np.asarray(near)


def _curve(kind: str, trials: list[Trial], images: int, seed: int) -> Curve:
    """The fitted curve of these trials, with its intervals."""
    sizes = np.array(sorted({trial.recipe.size for trial in trials}))
    hits, totals = np.zeros((images, len(sizes)), int), np.zeros((images, len(sizes)), int)
    clean = np.zeros((images, 2), int)
    called = np.zeros(len(sizes), int)
    for trial in trials:
        image, k = trial.recipe.image, int(np.searchsorted(sizes, trial.recipe.size))
        hits[image, k] += trial.found
        totals[image, k] += 1
        called[k] += trial.called
        clean[image] += (trial.by_chance, 1)
    points = tuple(
        Point(float(size), int(n), int(ng), int(k), *clopper_pearson(int(k), int(n)))
        for size, n, ng, k in zip(sizes, totals.sum(0), called, hits.sum(0), strict=True)
    )
    fitted, drawn, low, high = size_interval(sizes, hits, totals, clean, ASKED, seed)
    at = np.geomspace(sizes[0], sizes[-1], DRAWN) if len(sizes) > 1 else sizes
    lowest, highest = np.quantile(drawn.at(at), [0.025, 0.975], axis=0)
    line = tuple(zip(at.tolist(), fitted.at(at)[0].tolist(), lowest.tolist(), highest.tolist(), strict=True))
    floor, a, b, lapse = (float(value[0]) for value in (fitted.floor, fitted.a, fitted.b, fitted.lapse))
    smallest, low, high = (within(size, points) for size in (float(fitted.size_for(ASKED)[0]), low, high))
    return Curve(kind, points, floor, a, b, lapse, smallest, low, high, line)


def _kinds(kinds: Sequence[str] | str | None) -> list[str]:
    wanted = list(KINDS) if kinds is None else [kinds] if isinstance(kinds, str) else list(dict.fromkeys(kinds))
    for kind in wanted:
        if kind not in KINDS:
            raise OkngError(f"there is no planted defect {kind!r}; {nearest_names(str(kind), KINDS)}")
    if not wanted:
        raise OkngError(f"no kind of defect was asked for; known are {', '.join(KINDS)}")
    return [kind for kind in KINDS if kind in wanted]


def _ladder(sizes: Sequence[float] | None, side: float) -> list[float]:
    """The sizes in px, rising, each once."""
    if sizes is None:
        return sorted({max(SMALLEST, float(round(share * side))) for share in LADDER})
    found = sorted({float(size) for size in sizes})
    if not found or found[0] < SMALLEST or not math.isfinite(found[-1]):
        raise OkngError(f"sizes are {SMALLEST:g} px or more, not {list(sizes)}")
    return found


def _unlearnt(given: list[Source], inspector: Inspector, tell: Narrator) -> tuple[list[Source], int, list[int]]:
    """The images that were not learnt, how many were, and which of the former, by their numbers, set the threshold."""
    seen = set(inspector.manifest.get("seen", ()))
    held_out = set(inspector.manifest.get("unlearnt", ()))
    calibrated: set[str] = set() if inspector.calibration.basis == "manual" else set(calibrating(inspector.manifest))
    good: list[Source] = []
    learnt, by = 0, []
    for source in given:
        try:
            mark = fingerprint(source)
        except UnreadableImage as error:
            tell.say(f"skipped: {error}")
            continue
        if mark in seen and mark not in held_out:
            learnt += 1
            continue
        if mark in calibrated:
            by.append(len(good))
        good.append(source)
    if learnt:
        tell.say(f"{learnt} of {len(given)} images are left out, because the model has learnt them")
    if len(good) < FEWEST:
        why, instead = "", ""
        if learnt:
            why = f": the model has learnt {learnt} of the {len(given)} that were given"
            instead = ", or fit again with `okng train --report FOLDER`, which plants into the images of each fold"
        some = so_many(len(good), "image")
        raise OkngError(f"{some} too few{why}; give {FEWEST} or more OK images that it has not learnt{instead}")
    return good, learnt, by


def _readable(sources: Sequence[Source], preprocess: Preprocess, seed: int, tell: Narrator) -> list[int]:
    """Up to `MOST` of the images, drawn by the seed, that can be decoded; their numbers."""
    picked: list[int] = []
    for i in np.random.default_rng([seed, len(sources)]).permutation(len(sources)).tolist():
        if len(picked) == MOST:
            break
        try:
            pixels_of(sources[i], preprocess)
            picked.append(i)
        except UnreadableImage as error:
            tell.say(f"skipped: {error}")
    if len(picked) < FEWEST:
        some = so_many(len(picked), "readable image")
        raise OkngError(f"{some} too few to plant defects into; give {FEWEST} or more")
    return picked
