"""Run a detector's phases: the one training loop that all methods share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from okng.detectors.base import Collect, Detector, Train
from okng.detectors.engine import full_float32
from okng.training.images.data import AuxiliaryImages, SharedFeatures, TrainingImages
from okng.training.loop.checkpoint import Checkpoint
from okng.training.loop.descent import train
from okng.training.loop.feed import Feed
from okng.training.loop.frozen import FrozenBackbones
from okng.training.loop.passes import Fit, collect
from okng.training.loop.ranks import PRECISIONS, Ranks, check_ranks, fabric_of, join
from okng.training.loop.seeds import BETWEEN, seed_torch
from okng.training.loop.turns import one_at_a_time
from okng.training.progress import Narrator


@one_at_a_time
def run_phases(
    detector: Detector,
    images: TrainingImages,
    *,
    seed: int = 0,
    device: str = "auto",
    precision: str = "f32",
    devices: int = 1,
    nodes: int = 1,
    checkpoint: Path | None = None,
    resume: bool = False,
    update: bool = False,
    shared: SharedFeatures | None = None,
    backbones: FrozenBackbones | None = None,
    auxiliary: AuxiliaryImages | None = None,
    tell: Narrator | None = None,
) -> list[dict[str, Any]]:
    """Fit `detector` in place on `images`, or with `update` let it take them in beside what it learnt before.

    `shared`: the frozen features of these and other images, for fits of detectors that were built alike; what passes
    over the images need of them is then computed once, for all the images at once, by the first of the fits. Without
    it a pass computes what it needs on its way and keeps nothing. `backbones`: what computes frozen backbones, for such
    fits and for what judges by them. `auxiliary`: for `Batch.auxiliary`.

    `device` is "auto", "cpu", "cuda" or "mps", `precision` "f32", "bf16" or "f16", the latter two mixed with f32. With
    a `checkpoint` path the state is written there after every phase and every epoch, in phases that are counted in
    steps after the epochs that end another 500 of them; with `resume` the work continues from it. Because every epoch
    draws from a generator seeded by (seed, phase, epoch), a resumed fit ends with the same result as one that was
    never stopped. It is torch's one generator, so fits in threads take turns.

    `devices` on each of `nodes`: so many processes, which torchrun has started and which all call this alike, share the
    gradient steps: each takes its rows of the same batches, and gradients, losses and batch normalisation are those of
    the whole batch. What a loss draws at random is drawn by each anew. Passes without gradients are made whole by each.
    Only the first one writes the checkpoint, and all read it: it has to lie where all nodes see it.

    Returned is the history of its training: for each epoch, or in phases that are counted in steps for each 500 of
    them, the name of the "phase", the number of the "epoch", from 1, and by their names the means of its "losses"; in
    phases that validate "validation" too.
    """
    tell = Narrator(quiet=True) if check_ranks(devices, nodes) or tell is None else tell
    precision = PRECISIONS.get(precision, precision)
    fabric = fabric_of(device, precision, devices, nodes)
    join(fabric, devices, nodes)
    told: list[Any] = [[detector.name, detector.arguments, images.preprocess.to_json()], seed, precision, images.labels]
    if devices * nodes > 1:
        told.append(devices * nodes)
    if checkpoint is not None:
        told += [images.fingerprints(), [] if auxiliary is None else auxiliary.fingerprints]
    ranks = Ranks(fabric)
    ranks.check_same(told)
    backbones = backbones or FrozenBackbones()
    state = Checkpoint(checkpoint, detector, fabric, told, backbones.compiling, tell)
    feed = Feed(images, fabric.device, seed, auxiliary)
    fit = Fit(detector, images, fabric, seed, feed, state, shared, backbones, tell, ranks)
    ranks.wait()
    at_phase, at_epoch = state.restore() if resume and checkpoint is not None and checkpoint.exists() else (0, 0)
    ranks.wait()  # before the first one writes another
    detector.to(fabric.device)
    ranks.agree(detector)
    with full_float32(fabric.device):
        seed_torch(seed, 0, 0)
        for number, phase in enumerate(detector.update_phases() if update else detector.phases()):
            if isinstance(phase, Train) and phase.holds_back:
                fit.parted = number
            if number >= at_phase:
                if number == at_phase and at_epoch:
                    state.take_state(phase)
                if isinstance(phase, Collect):
                    collect(fit, number, phase)
                else:
                    train(fit, number, phase, at_epoch if number == at_phase else 0)
                ranks.agree(detector)
                state.save(number + 1, 0)
            elif number == at_phase - 1:
                state.take_detector()  # what it does between the phases until then is in there already
            seed_torch(seed, number, BETWEEN)  # for what it draws before its next phase
    detector.eval()
    return state.history
