"""`okng.update`: more OK images into a fitted inspector, without the old ones."""

from __future__ import annotations

import copy
import datetime
import time
from pathlib import Path
from typing import Any
from warnings import warn

import numpy as np
import torch

import okng
from okng.checks import check_seed
from okng.datasets.ok_images import lister
from okng.detectors.engine import TorchEngine
from okng.errors import OkngError
from okng.inspection.inspector import Images, Inspector, each_image
from okng.training.data import TrainingImages
from okng.training.fit import HELD_OUT, SPLIT_FROM, judge, whole, with_header
from okng.training.phases import run_phases
from okng.training.progress import Narrator, narrated
from okng.training.turns import one_at_a_time


@narrated
@one_at_a_time
def update(
    model: Inspector | str | Path,
    images: Images,
    *,
    false_alarm_rate: float | None = None,
    holdout: float | None = None,
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
    threshold stays; it is what the old held-out images gave, see `Calibration.updated`. `progress`: show on standard
    error how far it is. As fits do, updates take turns.

    Raises `OkngError` for a detector that can't be updated, for exported models, and when no image is readable.
    """
    started = time.monotonic()
    tell = tell or Narrator(quiet=True)
    if holdout is not None and not 0 <= holdout < 1:
        raise OkngError(f"holdout is a share of the new images such as 0.2, or 0 to learn from all, not {holdout}")
    check_seed(seed)
    old = model if isinstance(model, Inspector) else okng.load(model)
    if false_alarm_rate is not None:
        old = old.at(false_alarm_rate)
    if not isinstance(old.engine, TorchEngine):
        raise OkngError("an exported model can't be updated; update the .okng file it was exported from")
    old.engine.detector.update_phases()  # raises here, before any work, if there are none
    sources, skipped = with_header(list(each_image(images, lister(warn if tell.quiet else tell.say))), strict, tell)
    everything, broken = whole(TrainingImages(sources, old.preprocess), strict, tell)
    sources, n = everything.sources, len(everything)
    if n == 0:
        raise OkngError("there is no readable image among what was given; bring at least one OK image")

    share = (HELD_OUT if n >= SPLIT_FROM else 0.0) if holdout is None else holdout
    order = np.random.default_rng(seed).permutation(n)
    held = order[: min(max(1, round(share * n)), n - 1)] if share > 0 else order[:0]
    detector = copy.deepcopy(old.engine.detector)
    learnt = everything.subset(np.setdiff1d(order, held))
    run_phases(detector, learnt, seed=seed, device=device, precision=precision, update=True, tell=tell)
    scores, peaks = np.empty(0), np.empty(0) if old.calibration.peaks is not None else None
    if len(held):
        scores, peaks = judge(detector, old.preprocess, [sources[i] for i in held], "calibration", tell)
    else:
        tell.say("all images are learnt, none is held out: the threshold stays")
    done = {
        "images": n, "learnt_from": len(learnt), "held_out": len(held), "skipped": skipped + broken, "seed": seed,
        "okng": okng.__version__, "torch": torch.__version__, "seconds": round(time.monotonic() - started, 1),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }  # fmt: skip
    manifest = _recorded(old.manifest, done)
    manifest["seen"] = [*manifest.get("seen", ()), *everything.fingerprints()]
    return Inspector(TorchEngine(detector), old.preprocess, old.calibration.updated(scores, peaks), manifest)


def _recorded(manifest: dict[str, Any], done: dict[str, Any]) -> dict[str, Any]:
    """The manifest with an update in its provenance: its counts added, itself at the end of "updates"."""
    manifest = copy.deepcopy(manifest)
    provenance = manifest.setdefault("provenance", {})
    for key in ("images", "learnt_from", "held_out", "skipped"):
        provenance[key] = provenance.get(key, 0) + done[key]
    provenance["updates"] = [*provenance.get("updates", []), done]
    return manifest
