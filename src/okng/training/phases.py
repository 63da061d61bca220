"""Run a detector's phases: the one training loop that all methods share."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor
from torch.optim import Optimizer

from okng.detectors.base import Batch, Collect, Detector, Train
from okng.errors import OkngError, diverged, no_device
from okng.inspection.model_file import read_model, write_model
from okng.training.data import FeatureStore, SharedFeatures, TrainingImages
from okng.training.frozen import compiled_backbones
from okng.training.progress import Narrator
from okng.training.turns import one_at_a_time

PRECISIONS = {"f32": "32-true", "bf16": "bf16-mixed", "f16": "16-mixed"}  # as Fabric calls them, which will do too
COLLECT_BATCH = 16
COMPILE_FROM = 50  # images
RISE = 2.0  # an epoch's mean loss above so many times the first epoch's: the training has run away
BETWEEN = 10_006  # in the place of an epoch: the seed of what is drawn between two phases
SAVED_AFTER = 500  # batches, at the end of an epoch: a phase counted in steps may have thousands of tiny epochs


class StaleCheckpoint(OkngError):
    """A checkpoint that another fit left."""


@one_at_a_time
def run_phases(
    detector: Detector,
    images: TrainingImages,
    *,
    seed: int = 0,
    device: str = "auto",
    precision: str = "f32",
    checkpoint: Path | None = None,
    resume: bool = False,
    update: bool = False,
    shared: SharedFeatures | None = None,
    tell: Narrator | None = None,
) -> None:
    """Fit `detector` in place on `images`, or with `update` let it take them in beside what it learnt before.

    `shared`: the frozen features of these and other images, for fits of detectors that were built alike; what passes
    over the images need of them is then computed once, for all the images at once, by the first of the fits. Without
    it a pass computes what it needs on its way and keeps nothing.

    `device` is "auto", "cpu", "cuda" or "mps", `precision` "f32", "bf16" or "f16", the latter two mixed with f32. With
    a `checkpoint` path the state is written there after every phase and every epoch, in phases that are counted in
    steps after the epochs that end another 500 of them; with `resume` the work continues from it. Because every epoch
    draws from a generator seeded by (seed, phase, epoch), a resumed fit ends with the same result as one that was
    never stopped. It is torch's one generator, so fits in threads take turns.
    """
    tell = tell or Narrator(quiet=True)
    precision = PRECISIONS.get(precision, precision)
    if precision not in PRECISIONS.values():
        raise OkngError(f"precision is f32, bf16 or f16, not {precision!r}")
    try:
        fabric = Fabric(accelerator=device, devices=1, precision=precision)  # type: ignore[arg-type]
    except (RuntimeError, ValueError, ImportError) as error:
        raise no_device(device, error) from error
    runner = _Runner(detector, images, fabric, precision, seed, checkpoint, shared, tell)
    at_phase, at_epoch = runner.restore() if resume and checkpoint is not None and checkpoint.exists() else (0, 0)
    detector.to(fabric.device)
    _seed(seed, 0, 0)
    for number, phase in enumerate(detector.update_phases() if update else detector.phases()):
        if number >= at_phase:
            if number == at_phase and at_epoch:
                runner.take_state(phase)
            if isinstance(phase, Collect):
                runner.collect(number, phase)
            else:
                runner.train(number, phase, at_epoch if number == at_phase else 0)
            runner.save(number + 1, 0, [])
        elif number == at_phase - 1:
            runner.take_detector()  # what it does between the phases until then is in there already
        _seed(seed, number, BETWEEN)  # for what it draws before its next phase
    detector.eval()


class _Runner:
    def __init__(
        self,
        detector: Detector,
        images: TrainingImages,
        fabric: Fabric,
        precision: str,
        seed: int,
        checkpoint: Path | None,
        shared: SharedFeatures | None,
        tell: Narrator,
    ):
        self.detector, self.images, self.fabric = detector, images, fabric
        self.precision, self.seed, self.checkpoint, self.tell = precision, seed, checkpoint, tell
        self.shared = shared
        self.first: dict[Any, int] = {}  # of each `prepare` of a pass, the number of the first phase with it
        self.stored: dict[str, Any] = {}
        self.tensors: dict[str, Tensor] = {}

    def batches(self, groups: Sequence[list[int]], store: FeatureStore | None = None) -> Iterator[Batch]:
        """Batches on the device, images as floats in [0, 1]."""
        for indices, images in self.pixels(self.images, groups):
            yield self.batch(indices, images, store)

    def pixels(self, images: TrainingImages, groups: Sequence[list[int]]) -> Iterator[tuple[list[int], Tensor]]:
        """Indices into `images` and what is there, (B, C, H, W) in [0, 1] on the device."""
        for indices, pixels in images.load(groups):
            yield indices, pixels.to(self.fabric.device).float() / 255

    def batch(self, indices: list[int], images: Tensor, store: FeatureStore | None) -> Batch:
        """The batch of `images` (B, C, H, W) at `indices`."""
        device = self.fabric.device
        places = [self.images.places[i] for i in indices]
        prepared = () if store is None else tuple(p.to(device) for p in store.get(places))
        labels = torch.tensor([self.images.labels[i] for i in indices], device=device)  # (B,) int64
        return Batch(images, torch.tensor(indices, device=device), prepared, labels)

    def passing(self, phase: Collect, store: FeatureStore | None) -> Iterator[Batch]:
        """The batches of one pass; where the phase has a `prepare` what it made, of `store` if there is one."""
        groups = self.images.batches(COLLECT_BATCH, shuffle=False)
        if store is not None:
            for indices in groups:
                shape = len(indices), self.images.preprocess.channels, *self.images.shapes[indices[0]]
                yield self.batch(indices, torch.empty(shape, device="meta"), store)
            return
        for batch in self.batches(groups):
            if phase.prepare is not None:
                batch.prepared, batch.images = parts_of(phase.prepare(batch.images)), batch.images.to("meta")
            yield batch

    def collect(self, number: int, phase: Collect) -> None:
        """One pass without gradients, then the phase's own conclusion."""
        store = None
        if self.shared is not None and phase.prepare is not None:
            stores, first = self.shared.stores, self.first.setdefault(phase.prepare, number)
            if first not in stores:
                stores[first] = self.prepare(number, phase, self.shared.images)
            store = stores[first]
        _seed(self.seed, number, 0)
        self.tell.begin(phase.name, len(self.images))
        fast = self.fast_backbones(self.images) if store is None else nullcontext()
        with torch.no_grad(), self.fabric.autocast(), fast:
            for batch in self.passing(phase, store):
                phase.visit(batch)
                self.tell.advance(len(batch.images))
            shares = phase.finish()
            if shares is not None:
                self.tell.begin(f"{phase.name}: concluding", 1)
                before = 0.0
                for share in shares:
                    self.tell.advance(share - before)
                    before = share

    def train(self, number: int, phase: Train, first_epoch: int) -> None:
        """Epochs of gradient steps, from `first_epoch` on; the last one ends where the phase's steps do.

        One loss that is descended has to fall: a fit whose mean loss has risen instead ends here, though all numbers
        are finite. Losses of networks that contend with each other may rise.
        """
        optimizers = [update.optimizer for update in phase.updates]
        wrapped = [self.fabric.setup_optimizers(optimizer) for optimizer in optimizers]
        store = None if phase.prepare is None else self.prepare(number, phase, self.images)
        whole = len(self.images.batches(phase.batch_size, shuffle=False))  # batches of an epoch
        steps = phase.epochs * whole if phase.steps is None else phase.steps
        self.tell.begin(phase.name, steps, first_epoch * whole)
        at_first = self.stored.get("loss") if first_epoch else None
        try:
            for epoch in range(first_epoch, -(-steps // whole)):
                _seed(self.seed, number, 1 + epoch)
                for module in phase.trains:
                    module.train()
                groups = self.images.batches(phase.batch_size, shuffle=True)[: steps - epoch * whole]
                total, seen = 0.0, 0
                for step, batch in enumerate(self.batches(groups, store), epoch * whole):
                    losses = []
                    for update, optimizer in zip(phase.updates, wrapped, strict=True):
                        if step % update.every == 0:
                            losses.append(self.descend(update.loss, optimizer, batch, phase.name, epoch))
                    total, seen = total + sum(losses) * len(batch.images), seen + len(batch.images)
                    place = f"epoch {epoch + 1}/{phase.epochs}" if phase.steps is None else f"step {step + 1}/{steps}"
                    self.tell.advance(1, f"{place}  loss " + " ".join(f"{loss:.4g}" for loss in losses))
                for module in phase.trains:
                    module.eval()
                mean = total / seen
                at_first = mean if at_first is None else at_first
                if len(phase.updates) == 1 and len(groups) == whole and mean > RISE * abs(at_first) > 0:
                    rose = f"its mean loss rose from {at_first:.3g} to {mean:.3g}"
                    raise diverged(f"{phase.name} diverged in epoch {epoch + 1}", rose)
                if phase.steps is None or (epoch + 1) * whole % SAVED_AFTER < whole:
                    self.save(number, epoch + 1, optimizers, at_first)
        finally:
            for module in phase.trains:
                module.eval()
            if store is not None:
                store.close()

    def descend(self, loss_of: Any, optimizer: Any, batch: Batch, name: str, epoch: int) -> float:
        """One gradient step; the loss's value. A loss that is no number any more ends the fit."""
        optimizer.zero_grad()
        with self.fabric.autocast():
            loss = loss_of(batch)
            total = torch.stack([*loss.values()]).sum() if isinstance(loss, dict) else loss
        value = float(total.detach())
        if not torch.isfinite(total.detach()):
            raise diverged(f"{name} diverged in epoch {epoch + 1}", f"its loss is {value}")
        self.fabric.backward(total)
        optimizer.step()
        return value

    def prepare(self, number: int, phase: Collect | Train, images: TrainingImages) -> FeatureStore:
        """Run the frozen part once per image of `images`."""
        assert phase.prepare is not None
        store = FeatureStore(len(images))
        self.tell.begin(f"{phase.name}: frozen features", len(images))
        _seed(self.seed, number, 0)
        with torch.no_grad(), self.fabric.autocast(), self.fast_backbones(images):
            for indices, pixels in self.pixels(images, images.batches(COLLECT_BATCH, shuffle=False)):
                parts = parts_of(phase.prepare(pixels))
                for row, index in enumerate(indices):
                    store.put(images.places[index], [part[row] for part in parts])
                self.tell.advance(len(indices))
        return store

    def fast_backbones(self, images: TrainingImages) -> AbstractContextManager[None]:
        """Compiling takes a second or so, which must pay."""
        worth = len(images) >= COMPILE_FROM and self.fabric.device.type == "cpu" and self.precision == "32-true"
        return compiled_backbones(self.detector) if worth else nullcontext()

    # Checkpoints: the detector's tensors, the optimisers' tensors, and where in the phases we are.

    def save(self, phase: int, epoch: int, optimizers: Sequence[Optimizer], loss: float = 0.0) -> None:
        """Write where we are, and the first epoch's mean `loss`, if a checkpoint was asked for."""
        if self.checkpoint is None:
            return
        tensors = {f"detector.{name}": tensor for name, tensor in self.detector.state_dict().items()}
        plain: list[Any] = []
        for i, optimizer in enumerate(optimizers):
            state = optimizer.state_dict()
            plain.append({"groups": state["param_groups"], "state": {}})
            for key, values in state["state"].items():
                for name, value in values.items():
                    if isinstance(value, Tensor):
                        tensors[f"optimizer.{i}.{key}.{name}"] = value
                    else:
                        plain[i]["state"].setdefault(str(key), {})[name] = value
        manifest = {
            "identity": self.identity, "phase": phase, "epoch": epoch, "loss": loss, "optimizers": plain,
            "scaler": self.fabric.strategy.precision.state_dict(),  # of the losses, at 16-mixed
        }  # fmt: skip
        write_model(self.checkpoint, manifest, {name: t.detach().cpu().numpy() for name, t in tensors.items()})

    def restore(self) -> tuple[int, int]:
        """Read the checkpoint; the phase and the epoch to continue with."""
        assert self.checkpoint is not None
        self.stored, arrays = read_model(self.checkpoint)
        if self.stored.get("identity") != self.identity:
            raise StaleCheckpoint(
                f"{self.checkpoint} was begun with other settings or other images; "
                "give the same ones, or leave out --resume to begin anew"
            )
        self.tensors = {name: torch.from_numpy(array.copy()) for name, array in arrays.items()}
        self.take_detector()
        phase, epoch = int(self.stored["phase"]), int(self.stored["epoch"])
        self.tell.say(f"going on from {self.checkpoint}: phase {phase + 1}, epoch {epoch + 1}")
        return phase, epoch

    def take_state(self, phase: Collect | Train) -> None:
        """Set the detector and, in the middle of a training phase, its optimisers to the stored state."""
        self.take_detector()
        if not isinstance(phase, Train) or not self.stored["optimizers"]:
            return
        self.fabric.strategy.precision.load_state_dict(self.stored["scaler"])
        for i, (update, plain) in enumerate(zip(phase.updates, self.stored["optimizers"], strict=True)):
            state: dict[int, dict[str, Any]] = {int(key): dict(values) for key, values in plain["state"].items()}
            for name, tensor in self.tensors.items():
                if name.startswith(f"optimizer.{i}."):
                    _, _, key, field = name.split(".", 3)
                    state.setdefault(int(key), {})[field] = tensor
            update.optimizer.load_state_dict({"state": state, "param_groups": plain["groups"]})

    def take_detector(self) -> None:
        """Set the detector to the stored state."""
        prefix = "detector."
        self.detector.load_tensors({n[len(prefix) :]: t for n, t in self.tensors.items() if n.startswith(prefix)})

    @cached_property
    def identity(self) -> str:
        """A digest of everything that must be the same for a fit to go on."""
        detector = [self.detector.name, self.detector.arguments, self.images.preprocess.to_json()]
        told = [detector, self.seed, self.precision, self.images.fingerprints(), self.images.labels]
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def parts_of(made: Tensor | Sequence[Tensor]) -> tuple[Tensor, ...]:
    """What a `prepare` made, as a tuple also where it is one tensor."""
    return (made,) if isinstance(made, Tensor) else tuple(made)


def _seed(seed: int, phase: int, epoch: int) -> None:
    """Seed torch by the place in the fit, so that an epoch draws the same numbers whenever it is run."""
    far = epoch // (BETWEEN + 1) * 2_654_435_761  # beyond the phase's own ten thousand; of a seed torch takes 32 bits
    torch.manual_seed(seed * 1_000_003 + phase * 10_007 + epoch + far)
