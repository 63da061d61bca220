"""A `Train` phase: epochs of gradient steps, and which of them stays."""

from __future__ import annotations

import math
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from okng.detectors.base import Batch, Train
from okng.errors import diverged
from okng.training.images.data import FeatureStore
from okng.training.loop.checkpoint import Standing
from okng.training.loop.losses import Losses, NoNumber
from okng.training.loop.passes import FEWEST, Fit, divided, prepare
from okng.training.loop.seeds import seed_torch

APART = 5.0  # a rise of so many times what the losses of the first epoch's batches lie apart
SAVED_AFTER = 500  # batches, at the end of an epoch: a phase counted in steps may have thousands of tiny epochs


def train(fit: Fit, number: int, phase: Train, first_epoch: int) -> None:
    """Epochs of gradient steps, from `first_epoch` on; the last one ends where the phase's steps do.

    One loss that is descended has to fall: a fit whose mean loss has risen instead ends here, though all numbers
    are finite. Losses of networks that contend with each other may rise, and those of a phase that says so.
    """
    store = None if phase.prepare is None else prepare(fit, number, phase, fit.images)
    try:
        _Descent(fit, number, phase, store).run(first_epoch)
    finally:
        for module in phase.trains:
            module.eval()
        if store is not None:
            store.close()


class _Descent:
    def __init__(self, fit: Fit, number: int, phase: Train, store: FeatureStore | None):
        self.fit, self.number, self.phase, self.store = fit, number, phase, store
        self.optimizers = [fit.fabric.setup_optimizers(update.optimizer) for update in phase.updates]
        self.learnt, self.held_back = self.divided()
        self.whole = len(self.groups(shuffle=False))  # batches of an epoch
        self.steps = phase.epochs * self.whole if phase.steps is None else phase.steps
        self.losses = Losses(phase.updates, fit.fabric.device, fit.ranks.mean)

    def run(self, first_epoch: int) -> None:
        """All epochs that are left, and at the end back to the best one if the phase validates."""
        fit, phase, whole = self.fit, self.phase, self.whole
        fit.tell.begin(phase.name, self.steps, first_epoch * whole)
        standing = fit.checkpoint.standing() if first_epoch else Standing()
        # An average that a step moves may be a backbone, too, and it must not stay what it was when it was compiled.
        fast = phase.augment is not None and phase.after_step is None
        seen = self.steps * phase.batch_size
        by_backbones = fit.backbones.in_a_fit(fit.detector, fit.fabric, seen, anew=True) if fast else nullcontext()
        with by_backbones, fit.ranks.normalising(phase.trains):
            for epoch in range(first_epoch, -(-self.steps // whole)):
                mean, apart = self.epoch(epoch)
                if standing.first is None:
                    standing.first, standing.apart = mean, apart
                complete = (epoch + 1) * whole <= self.steps
                if self.has_run_away(mean, standing.first, standing.apart) and complete:
                    rose = f"its mean loss rose from {standing.first:.3g} to {mean:.3g}"
                    raise diverged(f"{phase.name} diverged in epoch {epoch + 1}", rose)
                saved = phase.steps is None or (epoch + 1) * whole % SAVED_AFTER < whole
                if saved or (epoch + 1) * whole >= self.steps:
                    self.record(epoch, standing)
                if saved:
                    fit.checkpoint.save(self.number, epoch + 1, [u.optimizer for u in phase.updates], standing)
        if standing.best:
            fit.checkpoint.put(standing.best)

    def epoch(self, epoch: int) -> tuple[float, float]:
        """One epoch's steps; its mean loss, and how far its batches' losses lie apart."""
        fit, phase = self.fit, self.phase
        seed_torch(fit.seed, self.number, 1 + epoch)
        for module in phase.trains:
            module.train()
        groups = self.groups(shuffle=True)[: self.steps - epoch * self.whole]
        fit.ranks.seed()
        batches = fit.feed.batches(
            list(map(fit.ranks.share, groups)), self.store, phase.augment, (self.number, 1 + epoch)
        )
        try:
            for step, (group, batch) in enumerate(zip(groups, batches, strict=True), epoch * self.whole):
                fit.ranks.take(group)
                self.losses.seen += len(group)
                for number, optimizer in enumerate(self.optimizers):
                    if step % phase.updates[number].every == 0:
                        self.descend(number, optimizer, batch, len(group), step / self.steps)
                if phase.after_step is not None:
                    with torch.no_grad(), fit.ranks.gathering():
                        phase.after_step()
                    for module in phase.trains:  # where it draws at random, or looks at a loss
                        fit.ranks.agree(module)
                place = f"epoch {epoch + 1}/{phase.epochs}" if phase.steps is None else f"step {step + 1}/{self.steps}"
                latest = " ".join(f"{loss:.4g}" for loss in self.losses.latest.values())
                fit.tell.advance(1, f"{place}  loss {latest}")
            mean, apart = self.losses.epoch_mean()
        except NoNumber as error:
            raise diverged(f"{phase.name} diverged in epoch {epoch + 1}", str(error)) from error
        for module in phase.trains:
            module.eval()
        fit.ranks.agree(fit.detector)
        return mean, apart

    def descend(self, number: int, optimizer: Any, batch: Batch, images: int, share: float) -> None:
        """One gradient step of an update, at its rate for the `share` of the steps that is done.

        `images`: of all processes' batches together.
        """
        fit, update = self.fit, self.phase.updates[number]
        if update.schedule is not None:
            factor = update.schedule(share)
            for group in update.optimizer.param_groups:
                group["lr"] = factor * group.setdefault("initial_lr", group["lr"])
        optimizer.zero_grad()
        with fit.fabric.autocast():
            total = self.losses.add(number, update.loss(batch), images)
        fit.fabric.backward(fit.ranks.part(total))
        fit.ranks.add_gradients(update.optimizer)
        if update.clip is not None:  # f16's gradients are unscaled first; one that overflows makes its step be left out
            fit.fabric.clip_gradients(fit.detector, optimizer, max_norm=update.clip, error_if_nonfinite=False)
        optimizer.step()

    def has_run_away(self, mean: float, first: float, apart: float) -> bool:
        """Whether the only loss of the phase has risen, from its `first` epoch to a `mean`, where it should not.

        That is, by more than it was. A likelihood may begin near zero, or below, where that says nothing: it has to
        rise by several times what batches lie apart as well.
        """
        may_rise = self.phase.may_rise or len(self.phase.updates) > 1
        return not may_rise and first != 0 and mean - first > max(abs(first), APART * apart)

    def divided(self) -> tuple[list[int], list[int]]:
        """The images to learn from, and those held back."""
        if self.phase.validate is None and not self.phase.holds_back:
            return list(range(len(self.fit.images))), []
        learnt, held_back = divided(self.fit, self.number)
        if not held_back and self.fit.images.labels.count(0) >= FEWEST:
            what = "all are learnt" if self.phase.validate is None else "the last epoch stays"
            self.fit.tell.say(f"{self.phase.name}: no group is a fifth of the images or less, so {what}")
        return learnt, held_back

    def groups(self, shuffle: bool) -> list[list[int]]:
        """The batches of an epoch, as indices."""
        return self.fit.images.batches(self.phase.batch_size, shuffle, self.learnt, self.phase.drop_last)

    def record(self, epoch: int, standing: Standing) -> None:
        """Note the losses since the last record, and validate where the phase does."""
        row: dict[str, Any] = {"phase": self.phase.name, "epoch": epoch + 1, "losses": self.losses.means()}
        if self.held_back and self.phase.validate is not None:
            row["validation"] = value = self.validate()
            if not math.isfinite(value):
                raise diverged(f"{self.phase.name} diverged in epoch {epoch + 1}", f"its validation is {value}")
            if standing.lowest is None or value < standing.lowest:
                standing.lowest = value
                standing.best = {name: tensor.detach().clone() for name, tensor in self.fit.checkpoint.learnt().items()}
        self.fit.checkpoint.history.append(row)

    def validate(self) -> float:
        """The mean of the phase's `validate` over what is held back; every epoch is asked the same."""
        fit, phase = self.fit, self.phase
        assert phase.validate is not None
        groups = fit.images.batches(phase.batch_size, shuffle=False, among=self.held_back)
        seed_torch(fit.seed, self.number, 0)
        total: Tensor | float = 0.0
        with torch.no_grad(), fit.fabric.autocast():
            for batch in fit.feed.batches(groups, self.store, phase.augment, (self.number, 0)):
                total = total + phase.validate(batch).float() * len(batch.images)
        return float(total) / len(self.held_back)
