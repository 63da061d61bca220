"""The contract of a detector: networks in `__init__`, how it learns in `phases`, how it scores in `forward`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from okng.detectors.cards import cards
from okng.errors import OkngError, lacks_memory

Module = TypeVar("Module", bound=nn.Module)


@dataclass
class Scores:
    """What a detector says of a batch.

    `image` (B,) raw scores, higher = odder, any range. `map` (B, h, w) the same per position on the detector's own
    grid, or None for a detector that does not localise.
    """

    image: Tensor
    map: Tensor | None = None


@dataclass
class Batch:
    """Training images of one shape.

    `images` (B, C, H, W) in [0, 1]; `index` (B,) their places in the training set; `prepared` what the phase's
    `prepare` made of them, each (B, ...); `labels` (B,) int64, 0 OK and 1 NG, all 0 unless the detector `needs_ng`;
    `views` what the phase's `augment` made of them, each (B, ...); `auxiliary` (B, C, H, W) in [0, 1], where a person
    gave auxiliary images, one for each image, drawn anew each time. It is there in a `Train` and in a `Collect` without
    a `prepare`.
    In a `Collect` with a `prepare` the images have a shape and no values, as they are not decoded again: on "meta".
    """

    images: Tensor
    index: Tensor
    prepared: tuple[Tensor, ...] = ()
    labels: Tensor = None  # type: ignore[assignment]  # zeros where none are given
    views: tuple[Tensor, ...] = ()
    auxiliary: Tensor | None = None

    def __post_init__(self) -> None:
        if self.labels is None:
            self.labels = torch.zeros(len(self.images), dtype=torch.int64, device=self.images.device)


@dataclass
class Collect:
    """One pass over the training images without gradients: memory banks, centres, statistics.

    `finish` concludes it; where that takes long it is a generator of the share done, in [0, 1].

    `prepare` maps images (B, C, H, W) to the frozen part of the computation, (B, ...) each, and `visit` sees what it
    made, `Batch.prepared`, alone. It must depend on nothing that was learnt, nor on the other images of the batch: the
    folds of a cross-fit and phases with the same `prepare` share what it made, so that it is run once per image.

    `held_back`: it visits only the images that the last `Train` that `holds_back` held back; all of them where that had
    too few to hold any back. `learnt`: only those that it learnt.
    """

    name: str
    visit: Callable[[Batch], None]
    finish: Callable[[], Iterator[float] | None]
    prepare: Callable[[Tensor], Tensor | Sequence[Tensor]] | None = None
    held_back: bool = False
    learnt: bool = False


@dataclass
class Update:
    """One optimiser and the loss it descends, a scalar or a dictionary of scalars whose sum it is.

    `every` = n takes the step on every n-th batch of the phase only.

    `schedule` maps the share of the phase's steps that is done, in [0, 1), to a factor of the optimiser's own learning
    rates. It keeps nothing, so that a resumed fit has the same rates. `clip`: the largest norm that the gradient of the
    optimiser's parameters, all together, may have; one that is longer is shortened to it.
    """

    loss: Callable[[Batch], Tensor | dict[str, Tensor]]
    optimizer: Optimizer
    every: int = 1
    schedule: Callable[[float], float] | None = None
    clip: float | None = None


@dataclass
class Train:
    """Epochs of gradient steps; several updates run in turn on every batch.

    `steps`, where a method counts those: the training ends after so many batches, however many epochs they are, and
    `epochs` does not count.

    `prepare` maps images (B, C, H, W) to the frozen part of the computation, (B, ...) each; it is run once per image
    and cached, so it must not depend on what the phase trains, nor on the other images of the batch. `trains` are the
    modules put into training mode; all others stay in eval mode.

    `after_step` is called after each batch, without gradients: an average of weights is a submodule that it moves.

    `augment` maps an image (C, H, W) in [0, 1] on the CPU and a generator to one tensor or several, `Batch.views`, each
    of one shape for all images of a shape; `Batch.images` stay as they are. The loader's threads run it, and all that
    it draws comes from the generator, which is seeded by (seed, phase, epoch, image). Features of views by a frozen
    backbone are had by calling it in the loss under `torch.no_grad()`: it is compiled while such a phase lasts, unless
    that has an `after_step`.

    `drop_last` leaves batches that are not full out, if any is. `validate` maps a batch to a scalar: from 5 OK images
    on, the phase trains without a seeded fifth of them, no near copies of which it learns nor images of their groups
    (`group_by`), the mean over that fifth is
    taken after each epoch (in phases counted in `steps` after the epochs that end another 500, and the last), in eval
    mode and with the same draws each time, and the epoch where it was lowest is the one that stays. NG images never
    validate. `holds_back`: that fifth is not learnt either where nothing validates; the `Collect` that follows may ask
    for it. `may_rise`: the mean loss may rise, from the first epoch's, by more than that and five times what its
    batches' losses lie apart; without it, such a fit is taken for one that diverged.
    """

    name: str
    updates: Sequence[Update]
    epochs: int
    trains: Sequence[nn.Module]
    batch_size: int = 32
    prepare: Callable[[Tensor], Tensor | Sequence[Tensor]] | None = None
    steps: int | None = None
    after_step: Callable[[], None] | None = None
    augment: Callable[[Tensor, torch.Generator], Tensor | Sequence[Tensor]] | None = None
    drop_last: bool = False
    validate: Callable[[Batch], Tensor] | None = None
    holds_back: bool = False
    may_rise: bool = False


Phase = Collect | Train


class Detector(nn.Module):
    """Learns what OK images look like; scores how odd any image is.

    Class attributes say what the method needs: `fixed_size`, one input shape for all images because positions or the
    network's layers depend on it; `pretrained`, a network trained on natural RGB images, for which small images are
    enlarged and grey ones are given three channels; `exportable`, a forward that is one plain graph; `needs_ng`, it
    learns from some NG images too, told apart by `Batch.labels`; `takes_auxiliary`, it can use images of anything else,
    `Batch.auxiliary`, and does without where there are none; `largest`, up to which area, as the side of a square,
    images keep their own size when nobody says another; `collects_only`, each of its phases is a `Collect` over what
    its `prepare` made, so that fitting it again on other images costs little.
    """

    fixed_size: ClassVar[bool] = False
    pretrained: ClassVar[bool] = False
    exportable: ClassVar[bool] = True
    needs_ng: ClassVar[bool] = False
    takes_auxiliary: ClassVar[bool] = False
    largest: ClassVar[int] = 256
    collects_only: ClassVar[bool] = False

    arguments: dict[str, Any]  # the constructor's, set by `create`, stored in the model file
    name: str

    @classmethod
    def stored_arguments(cls, arguments: dict[str, Any]) -> dict[str, Any]:
        """The arguments in a model file as the constructor takes them now: a method that changed some says so here."""
        return arguments

    @property
    def multiple(self) -> int:
        """What both sides of an input are rounded to. A class that refuses other sizes says it as a number."""
        return 1

    def phases(self) -> Iterator[Phase]:
        """How it learns, in order; a later phase may depend on what an earlier one left behind."""
        raise NotImplementedError

    def update_phases(self) -> Iterator[Phase]:
        """How a fitted detector takes in further OK images without the old ones; most can't."""
        able = ", ".join(name for name, card in cards().items() if card.updates)
        raise OkngError(f"{self.name} can't be updated, {able} can; fit it again with all images")

    def forward(self, images: Tensor) -> Scores:
        """Score `images` (B, C, H, W) in [0, 1]."""
        raise NotImplementedError

    def __call__(self, images: Tensor) -> Any:
        """What `forward` gives; where that fails on sides that are no `multiple`, the `OkngError` says so."""
        try:
            return super().__call__(images)
        except RuntimeError as error:
            height, width = images.shape[-2:]
            if lacks_memory(error) or height % self.multiple == 0 == width % self.multiple:
                raise
            name = getattr(self, "name", type(self).__name__)
            raise OkngError(
                f"{name} needs sides that are multiples of {self.multiple}, not {height}x{width}"
            ) from error

    def rehearse(self, count: int, shape: tuple[int, int]) -> None:
        """Become as large as learning `count` inputs of `shape` (H, W) makes it, for its speed to be measured.

        Only what `largest` lets choose its own size needs it.
        """
        raise NotImplementedError

    def load_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Take over a fitted state; a buffer that fitting sized, such as a memory bank, takes the stored shape."""
        own = {**dict(self.named_parameters()), **dict(self.named_buffers())}
        for name, buffer in self.named_buffers():
            if name in tensors and tensors[name].shape != buffer.shape:
                module = self.get_submodule(name.rpartition(".")[0])
                setattr(module, name.rpartition(".")[2], torch.empty_like(tensors[name], device=buffer.device))
        self.load_state_dict({name: tensors[name] for name in own if name in tensors}, strict=True)


def freeze(module: Module) -> Module:
    """Put `module` into eval mode and stop its gradients, for good: its parameters are never trained."""
    module.eval().requires_grad_(False)
    return module
