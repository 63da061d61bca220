"""`okng.sensitivity`: what a model would find, measured with defects planted into OK images it has not learnt."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

import okng
from okng.checks import at_least, check_seed
from okng.datasets.ok_images import lister
from okng.errors import OkngError, nearest_names
from okng.inspection.images import Source, UnreadableImage, fingerprint, image_size, white_level
from okng.inspection.inspector import Images, Inspector, each_image
from okng.inspection.result import Inspection
from okng.planted.curve import clopper_pearson, size_interval
from okng.planted.defects import KINDS, SMALLEST
from okng.planted.result import Curve, Point, Recipe, Sensitivity, Trial, pixels_of, plant_recipe, within
from okng.training.progress import Narrator, narrated

FEWEST = 5  # images; of fewer no interval says anything
MOST = 100  # images that are planted into
PLANTS = (8, 20)  # fewest and most of each kind and size: fewer where an input has more than `USUAL` pixels
USUAL = 256 * 256
LADDER = (0.015, 0.03, 0.06, 0.12, 0.24, 0.48)  # sizes, in shares of the root of an image's area
ASKED = 0.9  # the share that has to be found
DRAWN = 60  # points of a curve that is drawn


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
    default 20, and down to 8 where the model's input is larger than 256 × 256. The seed decides every plant.
    `progress`: show on standard error how far it is.

    A plant is found if the image is called NG at the model's threshold and, of a model that says where, the heatmap has
    its highest point or a region at the plant, within one place of the map. Planted defects are no real ones: the
    figures compare sizes, kinds and models, and promise no share of real defects.

    Raises `OkngError` for fewer than 5 images that the model has not learnt, and for unknown kinds.
    """
    tell = tell or Narrator(quiet=True)
    check_seed(seed)
    at_least(1, plants=plants)
    wanted = _kinds(kinds)
    inspector = model if isinstance(model, Inspector) else okng.load(model)
    sources, left_out, calibrating = _unlearnt(list(each_image(images, lister())), inspector, seed, tell)
    shapes = [image_size(source) for source in sources]
    side = float(np.median([math.sqrt(h * w) for h, w in shapes]))
    ladder = _ladder(sizes, side)
    if plants is None:
        h, w = inspector.preprocess.shape(*shapes[0])
        plants = int(np.clip(round(PLANTS[1] * USUAL / (h * w)), *PLANTS))
    recipes = []
    for k, kind in enumerate(wanted):
        for j, size in enumerate(ladder):
            for i in range(plants):
                image = (i + (j + k) * plants) % len(sources)
                recipes.append(Recipe(kind, size, _seed(seed, k, j, i), image, (image + 1) % len(sources)))
    white = max(white_level(sources), inspector.preprocess.white)
    trials, clean = _tried(inspector, sources, recipes, white, tell)
    curves = {}
    for kind in wanted:
        own = [trial for trial in trials if trial.recipe.kind == kind]
        if own:
            curves[kind] = _curve(kind, own, len(sources), seed)
    if not curves:
        raise OkngError("these images are of one plain colour, so there is nothing that these kinds of defects change")
    return Sensitivity(
        curves=curves,
        overall=_curve("all", trials, len(sources), seed),
        unchanged=tuple(kind for kind in wanted if kind not in curves),
        images=len(sources),
        calibrating=calibrating,
        left_out=left_out,
        alarms=sum(inspector.calibration.is_ng(score) for score in clean),
        localises=inspector.calibration.pixel_threshold is not None,
        side=side,
        threshold=inspector.calibration.threshold,
        trials=tuple(trials),
        clean=tuple(clean),
        seed=seed,
        sources=tuple(sources),
        white=white,
    )


def at_place(scores: np.ndarray, mask: np.ndarray, threshold: float) -> bool:
    """Whether the map `scores` (h, w) is highest, or above `threshold`, at `mask` (H, W) or one place beside it."""
    h, w = scores.shape
    cells = np.asarray(Image.fromarray(mask.astype(np.float32)).resize((w, h), Image.Resampling.BOX)) > 0
    wide = np.pad(cells, 1)
    near = np.any([wide[1 + i : 1 + i + h, 1 + j : 1 + j + w] for i in (-1, 0, 1) for j in (-1, 0, 1)], axis=0)
    return bool(near.any()) and bool(scores[near].max() >= min(float(scores.max()), np.nextafter(threshold, np.inf)))


def _tried(
    inspector: Inspector, sources: list[Source], recipes: list[Recipe], white: int, tell: Narrator
) -> tuple[list[Trial], list[float]]:
    """What becomes of each recipe whose defect changes the image, and the raw scores of the images as they are."""
    of_image: list[list[Recipe]] = [[] for _ in sources]
    for recipe in recipes:
        of_image[recipe.image].append(recipe)
    waiting: deque[tuple[Recipe, np.ndarray] | None] = deque()  # None: the image as it is

    def made() -> Iterator[np.ndarray]:
        """Each image, then what is planted into it; an image is decoded twice, for itself and as the other one."""
        other = pixels_of(sources[0])
        for i, own in enumerate(of_image):
            image, other = other, pixels_of(sources[(i + 1) % len(sources)])
            waiting.append(None)
            yield image
            for recipe in own:
                planted = plant_recipe(recipe, image, other, white)
                if planted.mask.any():
                    waiting.append((recipe, planted.mask))
                    yield planted.pixels
                else:
                    tell.advance()

    pixel_threshold = inspector.calibration.pixel_threshold

    def shown(inspection: Inspection, mask: np.ndarray) -> bool:
        if inspection.map is None or pixel_threshold is None:
            return inspection.is_ng
        return inspection.is_ng and at_place(inspection.map, mask, pixel_threshold)

    tell.begin("planting and looking", len(recipes) + len(sources))
    trials: list[Trial] = []
    clean: list[float] = []
    plain: Inspection | None = None
    for inspection in inspector.inspect(made()):
        planted = waiting.popleft()
        if planted is None:
            plain = inspection
            clean.append(inspection.score)
        else:
            recipe, mask = planted
            assert plain is not None, "an image comes before its plants"
            found, by_chance = shown(inspection, mask), shown(plain, mask)
            trials.append(Trial(recipe, inspection.score, inspection.is_ng, found, by_chance))
        tell.advance()
    return trials, clean


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


def _seed(seed: int, *place: int) -> int:
    return int(np.random.SeedSequence([seed, *place]).generate_state(1)[0])


def _unlearnt(given: list[Source], inspector: Inspector, seed: int, tell: Narrator) -> tuple[list[Source], int, int]:
    """Up to `MOST` readable images that were not learnt, drawn by the seed; how many were, and how many calibrated."""
    seen = set(inspector.manifest.get("seen", ()))
    held_out = set(inspector.manifest.get("unlearnt", ()))
    good: list[Source] = []
    kept: list[bool] = []
    learnt = 0
    for source in given:
        try:
            mark = fingerprint(source)
            image_size(source)
        except UnreadableImage as error:
            tell.say(f"skipped: {error}")
            continue
        if mark in seen and mark not in held_out:
            learnt += 1
            continue
        good.append(source)
        kept.append(mark in held_out)
    if learnt:
        tell.say(f"{learnt} of {len(given)} images are left out, because the model has learnt them")
    if len(good) < FEWEST:
        why = f": the model has learnt {learnt} of the {len(given)} that were given" if learnt else ""
        raise OkngError(f"{len(good)} images are too few{why}; give {FEWEST} or more OK images that it has not learnt")
    drawn = np.random.default_rng([seed, len(good)]).permutation(len(good))[:MOST]
    picked = []
    for i in drawn:
        try:
            pixels_of(good[i])
            picked.append(i)
        except UnreadableImage as error:
            tell.say(f"skipped: {error}")
    if len(picked) < FEWEST:
        raise OkngError(f"{len(picked)} images can be read, too few; give {FEWEST} or more")
    return [good[i] for i in picked], learnt, sum(kept[i] for i in picked)
