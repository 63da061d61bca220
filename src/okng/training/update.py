"""`okng.update`: more OK images into a fitted inspector, without the old ones."""

from __future__ import annotations

import copy
import datetime
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

import okng
from okng.checks import check_share, plain, seed_of
from okng.detectors.engine import TorchEngine
from okng.errors import OkngError
from okng.inspection.inspector import Images, Inspector
from okng.inspection.verdict.learnt import CALIBRATING, calibrating
from okng.inspection.verdict.likeness import describe
from okng.inspection.verdict.zoned import BY, WHOLE
from okng.training.held_out import (
    HELD_OUT,
    SPLIT_FROM,
    divided,
    judge,
    kept_together,
    named,
    once,
    say_apart,
)
from okng.training.images.copies import GroupBy, labelled
from okng.training.images.data import PIXEL_BUDGET, TrainingImages
from okng.training.images.reading import given_images, whole, with_header
from okng.training.images.tiles import TileImages
from okng.training.loop.frozen import FrozenBackbones
from okng.training.loop.phases import run_phases
from okng.training.loop.ranks import check_device
from okng.training.loop.turns import one_at_a_time
from okng.training.progress import Narrator, narrated

COUNTED = "the threshold counts that as OK; if it is not, take it out and update the old model again"


@narrated
@one_at_a_time
def update(
    model: Inspector | str | Path,
    images: Images,
    *,
    false_alarm_rate: float | None = None,
    holdout: float | None = None,
    group_by: GroupBy | None = None,
    seed: int = 0,
    device: str = "auto",
    precision: str = "f32",
    strict: bool = False,
    progress: bool = False,
    tell: Narrator | None = None,
) -> Inspector:
    """A new inspector that has learnt from `images` (all OK) too; `model`, an inspector or its file, stays as it is.

    PaDiM ends as a fit on all images would, up to rounding; PatchCore with a memory of the same size that covers all
    patches nearly as well. Arguments, input size and, unless `false_alarm_rate` is given, the rate are the model's.

    `holdout`: the share of the new images that is not learnt but scored for calibration, by default 0.2 from 100 images
    on, else 0. Learnt images never calibrate. So a few false alarms that a person marks as OK are all learnt and the
    threshold stays; it is what the old held-out images gave, see `Calibration.updated`. Of what was learnt before, the
    model knows the bytes only: near copies of that are not recognised among new images, and when they are held out
    their scores are too low. `progress`: show on standard error how far it is. As fits do, updates take turns.

    Raises `OkngError` for a detector that can't be updated, for exported models, and when no image is readable.
    """
    started = time.monotonic()
    tell = tell or Narrator(quiet=True)
    seed, holdout = seed_of(seed), plain("holdout", holdout)
    check_share("holdout", holdout, "a share of the new images such as 0.2, or 0 to learn from all")
    check_device(device, precision)
    old = model if isinstance(model, Inspector) else okng.load(model)
    if old.products:
        raise OkngError("a model of several products can't be updated; fit all their images again")
    if false_alarm_rate is not None:
        old = old.at(plain("false_alarm_rate", false_alarm_rate))
    if not isinstance(old.engine, TorchEngine):
        raise OkngError("an exported model can't be updated; update the .okng file it was exported from")
    old.engine.detector.update_phases()  # raises here, before any work, if there are none
    given = given_images(images, strict)
    label = None if group_by is None else labelled(given, group_by)
    sources, skipped = with_header(given, strict, tell)
    room = PIXEL_BUDGET if old.preprocess.tile is None else 0  # tiles are cut from the originals, and have the room
    everything, broken = whole(TrainingImages(sources, old.preprocess, room), strict, tell)
    if len(everything) == 0:
        raise OkngError("there is no readable image among what was given; bring at least one OK image")
    everything, copies = once(everything, tell)
    everything, known = _new(everything, old.manifest, tell)
    n = len(everything)

    groups, near = kept_together(everything, label, tell) if n > 1 else (np.zeros(n, int), 0)
    if label is not None:
        everything.groups = groups
    share = (HELD_OUT if groups.max() + 1 >= SPLIT_FROM else 0.0) if holdout is None else holdout
    held = divided(groups, share, seed)[1][0] if share > 0 and n > 1 else np.empty(0, int)
    detector = copy.deepcopy(old.engine.detector)
    learnt = everything.subset(np.setdiff1d(np.arange(n), held))
    lessons = learnt if learnt.preprocess.tile is None else TileImages(learnt)
    backbones = FrozenBackbones()
    settings: dict[str, Any] = {"seed": seed, "device": device, "precision": precision, "backbones": backbones}
    run_phases(detector, lessons, update=True, tell=tell, **settings)
    scores, peaks = np.empty(0), np.empty(0) if old.calibration.peaks is not None else None
    apart: list[dict[str, Any]] = []
    chosen = np.empty(0, int)
    if len(held):
        judged = judge(detector, everything, held, "calibration", tell, rules=old.rules, backbones=backbones)
        apart = named(judged, say_apart(judged, everything, tell, COUNTED), everything)
        one_each = judged.one_of_each(groups, seed)
        scores, peaks, chosen = one_each.scores, one_each.peaks, one_each.index
    else:
        tell.say("all images are learnt, none is held out: the threshold stays")
    done = {
        "images": n, "learnt_from": len(learnt), "held_out": len(held), "skipped": skipped + broken,
        "copies": copies + known, "near_copies": near, "stand_apart": apart, "seed": seed,
        "okng": okng.__version__, "torch": torch.__version__, "seconds": round(time.monotonic() - started, 1),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }  # fmt: skip
    manifest = _recorded(old.manifest, done)
    if before := manifest.get("learnt_images"):
        manifest["learnt_images"] = describe(everything.traits(), before)
    fingerprints = everything.fingerprints()
    manifest["seen"] = [*dict.fromkeys([*manifest.get("seen", ()), *fingerprints])]
    unlearnt = {*manifest.get("unlearnt", ()), *(fingerprints[i] for i in held)} - set(learnt.fingerprints())
    manifest["unlearnt"] = sorted(unlearnt)
    calibration = old.calibration.updated(scores, peaks, "image" if label is None else "group")
    kept = calibrating(old.manifest) if calibration.method == "updated" else ()
    manifest[CALIBRATING] = sorted(unlearnt & {*kept, *(fingerprints[i] for i in chosen)})
    manifest.pop(WHOLE, None)  # of the detector before
    if BY in manifest and calibration.method == "split" and len(held):
        manifest[BY] = "zones"
    return Inspector(TorchEngine(detector), old.preprocess, calibration, manifest)


def _new(images: TrainingImages, manifest: dict[str, Any], tell: Narrator) -> tuple[TrainingImages, int]:
    """`images` without those that the model has learnt, by their bytes, and how many those were."""
    learnt = set(manifest.get("seen", ())) - set(manifest.get("unlearnt", ()))
    new = [i for i, fingerprint in enumerate(images.fingerprints()) if fingerprint not in learnt]
    known = len(images) - len(new)
    if not new:
        raise OkngError("the model has learnt all of these images already; bring others")
    if known:
        tell.say(f"{known} of {len(images)} images are learnt already; each counts once")
    return images.subset(new), known


def _recorded(manifest: dict[str, Any], done: dict[str, Any]) -> dict[str, Any]:
    """The manifest with an update in its provenance: its counts added, itself at the end of "updates"."""
    manifest = copy.deepcopy(manifest)
    provenance = manifest.setdefault("provenance", {})
    for key in ("images", "learnt_from", "held_out", "skipped", "copies", "near_copies"):
        provenance[key] = provenance.get(key, 0) + done[key]
    provenance["updates"] = [*provenance.get("updates", []), done]
    return manifest
