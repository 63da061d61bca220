"""`okng.fit`: OK images in, a calibrated inspector out."""

from __future__ import annotations

import copy
import datetime
import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch

import okng
from okng.checks import plain, seed_of
from okng.datasets.ok_images import part_images
from okng.detectors.base import Detector
from okng.detectors.catalogue import DEFAULT, detector_class, find, name_of, parameters
from okng.detectors.engine import TorchEngine
from okng.detectors.presets import preset_of
from okng.errors import OkngError
from okng.inspection.inspector import Images, Inspector, each_image
from okng.inspection.model_file import remove
from okng.inspection.reading.images import Source, image_size
from okng.inspection.verdict.learnt import CALIBRATING
from okng.inspection.verdict.likeness import describe, warn_of_shrinking
from okng.inspection.verdict.rules import Rules
from okng.inspection.verdict.zoned import BY
from okng.nn.features.backbones import Backbone
from okng.training.asked import NOT_WHERE, check_devices, check_images, check_input, check_values
from okng.training.held_out import (
    CHEAP_FOLDS,
    FOLDS,
    HELD_OUT,
    Judged,
    divided,
    judge,
    named,
    once,
    say_apart,
)
from okng.training.images.copies import GroupBy, labelled, numbered
from okng.training.images.data import PIXEL_BUDGET, SharedFeatures, TrainingImages, within
from okng.training.images.input import build, on_budget
from okng.training.images.reading import auxiliary_images, given_images, whole, with_header
from okng.training.images.size import time_of_one
from okng.training.images.tiles import TileImages, tiles_in_words
from okng.training.loop.frozen import FrozenBackbones, is_frozen
from okng.training.loop.phases import run_phases
from okng.training.loop.ranks import check_device, check_ranks
from okng.training.loop.turns import one_at_a_time
from okng.training.products import (
    by_product,
    calibrated_each,
    check_different,
    described_each,
    groups_of_each,
    say_who_decides,
)
from okng.training.progress import Narrator, duration, narrated
from okng.training.review import Review

COUNTED = "the threshold counts that as OK; if it is not, take it out and fit again, or add --drop-outliers"
DROPPED = "left out of the calibration, as asked: the promise is about images like the others"
LEARNT = "that was learnt as OK; if it is not, take it out and fit again"


@narrated
@one_at_a_time
def fit(
    images: Images | Mapping[str, Images],
    detector: str | type[Detector] = DEFAULT,
    *,
    preset: str | None = None,
    budget: str | None = None,
    ng: Images | None = None,
    auxiliary: Images | None = None,
    size: int | tuple[int, int] | None = None,
    tile: int | None = None,
    overlap: int | None = None,
    time_per_image: float | None = None,
    false_alarm_rate: float = 0.05,
    holdout: float | None = None,
    promise: str = "auto",
    group_by: GroupBy | None = None,
    drop_outliers: bool = False,
    rules: Rules | dict[str, Any] | str | Path | None = None,
    seed: int = 0,
    device: str = "auto",
    precision: str = "f32",
    devices: int = 1,
    nodes: int = 1,
    max_memory: float | None = None,
    checkpoint: str | Path | None = None,
    resume: bool = False,
    strict: bool = False,
    review: Review | None = None,
    progress: bool = False,
    tell: Narrator | None = None,
    **arguments: Any,
) -> Inspector:
    """Learn what OK looks like from `images` and calibrate on OK images that the detector had not learnt.

    `images`: a folder, files, or uint8 pixels; all of them OK. Of several products a mapping from each one's name to
    its images: one detector learns all, and each product is held out and calibrated by itself, with a threshold and a
    promise of its own; `Inspector.of` says later which product is meant.

    `detector` and `arguments`: a name of `okng list`, or your own subclass of `Detector`, and its parameters. `preset`:
    "fast", "default" or "best" for the default detector; `budget`: "cpu" for arguments that take minutes on one core,
    by the size of the images, or "paper" for what the method's paper states. `size`, `time_per_image` and `arguments`
    go before either. `ng`: NG images for the few detectors that need some (their cards say so); all of them are learnt
    and none calibrates, so figures measured on them later are worth nothing. `auxiliary`: images of anything but what
    is inspected, such as textures, for the few detectors that can use them; they are brought to the shape of the
    others. `size`: the area asked for, as the side of a square (aspect ratios are kept), or (height, width); by default
    as large as the images are, for the default detector from 256 to 640, for others up to 256. `tile`: images are cut
    into squares of so many pixels that `overlap` by an eighth of it or as many as asked, learnt and judged one by one
    at their own scale: for defects that shrinking would hide. The time of an image is that of all its tiles; an image's
    score is the highest of them, calibrated as such. `time_per_image`: seconds that the default detector may take for
    an image; the size is then the largest that keeps to it, measured on this machine as it is now. `false_alarm_rate`:
    the share of OK images that may be called NG. `holdout`: the share held out for calibration; 0 cross-fits instead:
    all images are learnt, and each was judged by one of 5 or 10 detectors that had not learnt it. `promise`: "strict"
    holds out 0.2, or `holdout`, and guarantees the false-alarm rate. By default, "auto", detectors that train do so
    from 100 images on, and cross-fit fewer; those that only collect frozen features (`collects_only`) cross-fit up to
    19, and of 20 to 999 are fitted without each tenth in turn; all scores calibrate the one that had not learnt the
    first: about the rate asked, not guaranteed.

    Copies of an image count once; near copies of it, such as the frames of a burst, lie on the same side of every split
    and calibrate as one. `group_by` says instead what is kept together, and calibrates by one image of each group: the
    lot, shift or serial number that a pattern finds in the paths, that a function says of an image, or a label for each
    image; the promise is then about images of new groups. `drop_outliers`: held-out images that stand apart are always
    named; this leaves them out of the calibration, and where they would be learnt, out of that too. `review`: is shown
    every OK image as a detector judged it that had not learnt it. `rules`: zones of the image to inspect or to ignore,
    and rules for regions, as JSON or a file of it (`okng rules`); the calibration is then within the zones.

    `devices` on each of `nodes`: so many GPUs, or processes of a CPU, share the gradient steps, see `run_phases`;
    batches stay as large as they are and are divided. `torchrun --nproc-per-node DEVICES --nnodes NODES` starts the
    script on each node; all processes return the same, so let one save it. `okng train --devices` starts them itself.

    `max_memory`: GB that the fit may take in all, 1.7 or more; pixels and features beyond their share lie on disk or
    are read again, and a detector with an argument `memory` gets a share of it. What others gather of every image is
    not bounded: a fit says so when it begins. By default 2 GiB of pixels, as much of features, and what the detector
    takes.

    `checkpoint` and `resume`: where the state is written as the fit goes on, and whether to continue from it. It stays
    there, so that no fit is lost before it is saved; `okng.training.fit.discard` removes it. `strict`: stop at an
    unreadable image instead of naming and skipping it. `progress`: show on standard error how far it is.

    Of a folder, what looks like NG, a mask or a test is left out and said, see `okng.datasets.ok_images`.

    Fits take turns in a process: while one runs, another waits and says so, for they draw from torch's one generator.
    So the seed decides, as long as nothing else in the process draws from it meanwhile. It is left as it was.

    Raises `OkngError` for fewer than two readable images or groups, unknown names, values out of range or that no file
    can hold, a detector that needs NG images and gets none, and one that gets some and can't use them.
    """
    started = time.monotonic()
    tell = tell or Narrator(quiet=True)
    detector = name_of(detector)
    seed, size, holdout = seed_of(seed), plain("size", size), plain("holdout", holdout)
    false_alarm_rate, time_per_image = plain("false_alarm_rate", false_alarm_rate), plain("time", time_per_image)
    tile, overlap = plain("tile", tile), plain("overlap", overlap)
    if overlap is None and isinstance(tile, int):
        overlap = tile // 8
    rules = Rules.of(rules)
    own = isinstance(auxiliary, str) and "auxiliary" in parameters(detector)
    if own and not detector_class(detector).takes_auxiliary:  # images that it makes itself, as oe_sdn does
        arguments["auxiliary"], auxiliary = auxiliary, None
    check_values(false_alarm_rate, holdout, promise)
    check_input(size, tile, overlap, time_per_image)
    check_devices(detector, devices * nodes, time_per_image)
    check_images(detector, ng is not None, auxiliary is not None, tile is not None, bool(rules))
    if preset is not None and budget is not None:
        raise OkngError("preset and budget both choose arguments; give one of them")
    chosen: dict[str, Any] = {} if preset is None else preset_of(preset, detector)
    room, patches = (PIXEL_BUDGET, None) if max_memory is None else within(plain("memory", max_memory))
    rank = check_ranks(devices, nodes)
    check_device(device, precision)
    tell = Narrator(quiet=True) if rank else tell
    by_name = by_product(images)
    names = list(by_name)
    if len(names) > 1 and review is not None:
        raise OkngError("the page of a training is of one product; leave out review, or --report")
    given = [given_images(some, strict) for some in by_name.values()]
    label = None if group_by is None else labelled(list(chain(*given)), group_by)
    readable = [with_header(some, strict, tell) for some in given]
    sources = list(chain(*(some for some, _ in readable)))
    skipped = sum(unread for _, unread in readable)
    products = np.repeat(np.arange(len(names)), [len(some) for some, _ in readable])
    if budget is not None:
        chosen = on_budget(budget, detector, sources, tell)
    usual = chosen.pop("size", None)
    chose = "as asked"
    if size is None and time_per_image is None and usual is not None and tile is None:
        size, chose = usual, f"what the preset {preset} says" if preset else f"what the {budget} budget says"
    if patches is not None and "memory" in parameters(detector):
        chosen["memory"] = patches
    arguments = {**chosen, **arguments}
    torch.manual_seed(seed)
    if tile is not None and all(max(image_size(source)) <= tile for source in sources):
        raise OkngError(f"tiles of {tile} px are no smaller than the images; leave out tile, or give a smaller one")
    built, preprocess, why = build(detector, sources, size, arguments, time_per_image, chose, tile)
    tell.say(why)
    gathers_all = built.collects_only and "memory" not in parameters(detector) and not find(detector).bounded
    if max_memory is not None and gathers_all:
        tell.say(
            f"what {detector} gathers of the images is not bounded by the memory asked for: of many images the fit may "
            f"take more than {max_memory:g} GB; a method with a parameter memory, such as {DEFAULT}, keeps to it"
        )
    if tile is not None:
        preprocess = replace(preprocess, size=preprocess.shape(tile, tile), tile=tile, overlap=overlap or 0)
        sizes = [image_size(source) for source in sources]
        with torch.random.fork_rng(devices=[]):  # the detector that stays draws what it would without a trial
            trial = build(detector, sources, preprocess.size, arguments, tile=tile)[0]
            took = time_of_one(trial, preprocess.shape(1, 1), sum(preprocess.inputs(*each) for each in sizes))
        tell.say(tiles_in_words(sizes, tile, overlap or 0, took))
    odd: list[Source] = []
    if ng is not None:
        odd, unread = with_header(list(each_image(ng, lambda folder: part_images(folder)[0])), strict, tell, "NG")
        skipped += unread
    labels = [0] * len(sources) + [1] * len(odd)
    products = np.append(products, np.zeros(len(odd), int))  # of NG images none
    of_whole = room if tile is None else 0  # tiles are cut from the originals, and have the room
    both = TrainingImages([*sources, *odd], preprocess, of_whole, labels, products)
    everything, broken = whole(both, strict, tell)
    check_different(everything.subset(np.flatnonzero(np.equal(everything.labels, 0))), names)
    everything, copies = once(everything, tell)
    skipped += broken
    n = everything.labels.count(0)  # the OK images come first
    if ng is not None and len(everything) == n:
        raise OkngError("none of the NG images is readable; bring at least one")
    if n < 2:
        one = "one image can't be both learnt from and held out" if n else "there is no readable image"
        one = "all of them are copies of one image" if n and copies else one
        raise OkngError(f"{one}; bring at least 2 OK images, better 20 or more")
    beside = None if auxiliary is None else auxiliary_images(auxiliary, everything, strict, tell)
    ok = everything.subset(range(n))
    groups, near = groups_of_each(ok, names, label, tell)
    if label is not None or len(names) > 1:
        everything.groups = np.append(groups, np.full(len(everything) - n, -1))  # NG images never validate
    share = HELD_OUT if holdout is None and promise == "strict" else holdout
    method, folds = divided(groups, share, seed, built.collects_only, ok.products, names)
    say_who_decides(groups, ok.products, names, share, built.collects_only, tell)

    learnt_images = ok.traits()
    apart_images = [learnt_images[i] for i in np.unique(groups, return_index=True)[1]]
    seen = [image.size if tile is None else (tile, tile) for image in learnt_images]
    warn_of_shrinking(seen, ok.shapes)
    tiles = None if tile is None else TileImages(everything, room)
    settings: dict[str, Any] = {
        "seed": seed, "device": device, "precision": precision, "resume": resume, "tell": tell,
        "auxiliary": beside, "devices": devices, "nodes": nodes,
    }  # fmt: skip
    path = None if checkpoint is None else Path(checkpoint).expanduser()
    if path is not None and not resume and not rank:
        discard(path)  # a fold of another fit would be gone on with later

    def another() -> Detector:
        """As `built` was before it learnt."""
        if method != "split":  # then it has not learnt yet: in the end, if at all
            frozen = (part for part in built.modules() if isinstance(part, Backbone) and is_frozen(part))
            shared = {id(part): part for part in frozen} if built.collects_only else {}  # no phase moves what it has
            return copy.deepcopy(built, shared)
        torch.manual_seed(seed)
        return build(detector, sources, preprocess.size, arguments, tile=tile)[0]

    def lessons(index: Iterable[int]) -> TrainingImages:
        """What is learnt of those images: they themselves, or all their tiles."""
        return everything.subset(index) if tiles is None else tiles.of(index)

    everyone = np.arange(len(everything))
    judged, first, begun = [], built, time.monotonic()
    history: list[dict[str, Any]] = []
    inputs = everything if tiles is None else tiles
    again = method != "split"  # images pass the frozen backbones more than once
    remembered = FrozenBackbones(len(inputs) if again else 0, room // 2)
    with SharedFeatures(inputs) as features, remembered as backbones:
        settings |= {"shared": features if again else None, "backbones": backbones}
        for k, held in enumerate(folds):
            learner, learner_path = built, path
            if method != "split":
                took, begun = time.monotonic() - begun, time.monotonic()
                left = took * (len(folds) - k + (method == "cross"))  # in the end all are learnt
                known = f", about {duration(left)} left" if k > 1 else ""  # the first fold has computed the features
                tell.say(f"cross-fitting: fold {k + 1} of {len(folds)}{known}")
                learner = another()
                learner_path = None if path is None else _of_fold(path, k)
            part = lessons(np.setdiff1d(everyone, held))
            trained = run_phases(learner, part, checkpoint=learner_path, **settings)
            show = None if review is None else review.held_out.add
            judged.append(judge(learner, ok, held, "calibration", tell, show, rules, backbones))
            if k == 0:
                first, history = learner, trained
            if review is not None:
                review.look(learner, ok, folds, k, seed, tell, rules)
        scores = Judged.together(judged)
        apart = say_apart(scores, ok, tell, DROPPED if drop_outliers else COUNTED)
        kept = scores.at(np.setdiff1d(np.arange(len(scores.index)), apart)) if drop_outliers else scores
        left_out = np.setdiff1d(scores.index, kept.index)
        unlearnt = left_out if method == "cross" else np.union1d(folds[0], left_out)
        learnt = np.setdiff1d(everyone, unlearnt)
        if method == "cross" or len(unlearnt) > len(folds[0]):
            history = run_phases(built, lessons(learnt), checkpoint=path, **settings)
        else:
            built = first
    one_each = kept.one_of_each(numbered(list(zip(groups, ok.products, strict=True))), seed)
    if rules and one_each.peaks is None:
        raise OkngError(NOT_WHERE.format(detector))
    unit = "image" if label is None else "group"
    calibrations = calibrated_each(names, ok.products, one_each, left_out, method, false_alarm_rate, unit)
    if review is not None:
        if method == "split" and len(scores.index) >= FOLDS:
            tell.say("for the report: a second detector learns the held-out images alone and judges the others")
            second = another()
            alone = lessons([*kept.index, *range(n, len(everything))])
            run_phases(second, alone, **{**settings, "resume": False})
            others = judge(second, ok, learnt[learnt < n], "report", tell, review.learnt.add, rules, backbones)
            say_apart(others, ok, tell, LEARNT)
        review.conclude(calibrations[None], one_each.index, rules)
    fingerprints = everything.fingerprints()
    known_beside = [] if beside is None else beside.fingerprints
    manifest = {
        "okng": okng.__version__,
        "detector": {"name": built.name, "arguments": built.arguments},
        "provenance": {
            "images": n, "learnt_from": int((learnt < n).sum()), "held_out": len(scores.index),
            "ng_images": len(everything) - n, "auxiliary_images": len(known_beside), "skipped": skipped,
            "copies": copies, "near_copies": near, "groups": int(groups.max()) + 1,
            "stand_apart": named(scores, apart, ok),
            "seed": seed, "input": why, "budget": budget, "preset": preset,
            "torch": torch.__version__, "seconds": round(time.monotonic() - started, 1),
            "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        },
        "history": history,  # of each epoch, its losses
        "learnt_images": describe(learnt_images, apart=apart_images),  # what they were like
        "seen": [*fingerprints, *known_beside],  # never to be tested on
        "unlearnt": [fingerprints[i] for i in unlearnt],  # of those; an update may learn them
        CALIBRATING: [fingerprints[i] for i in np.intersect1d(unlearnt, one_each.index)],
    }  # fmt: skip
    if rules:
        manifest |= {"rules": rules.to_json(), BY: "zones"}
    if len(names) > 1:
        manifest["products"] = described_each(names, ok.products, learnt_images, groups, scores.index)
    return Inspector(TorchEngine(built), preprocess, calibrations, manifest)


def discard(checkpoint: str | Path) -> None:
    """Remove what a fit has left at `checkpoint`, once its result is saved."""
    for path in _checkpoints(Path(checkpoint)):
        remove(path)


def is_stopped(checkpoint: str | Path) -> bool:
    """Whether a fit that did not end has left something at `checkpoint`."""
    return any(path.exists() for path in _checkpoints(Path(checkpoint)))


def _checkpoints(checkpoint: Path) -> list[Path]:
    checkpoint = checkpoint.expanduser()
    return [checkpoint, *(_of_fold(checkpoint, k) for k in range(max(FOLDS, CHEAP_FOLDS)))]


def _of_fold(checkpoint: Path, k: int) -> Path:
    return checkpoint.with_name(f"{checkpoint.name}.{k}")
