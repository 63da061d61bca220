"""What a data set is: samples to learn from, samples to be judged by."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from okng.errors import OkngError

Mask = Path | tuple[Path, ...]
"""One mask's file, or several that are united; `masks.read_mask` reads them."""

OK, NG = 0, 1


@dataclass(frozen=True)
class Sample:
    """One image with what is known about it.

    `image` is a file, or pixels as uint8 of shape (H, W) or (H, W, 3). `label` is 0 for OK, 1 for NG, None
    where nobody said. `kind` is the name of the folder or class ("good", "crack", "7"). `mask` is a file that marks
    the defect, or several; an NG sample without one has unknown extent, an OK sample needs none. `OkngError` for
    images and masks of other kinds, which would be lost on the way.
    """

    image: Path | np.ndarray
    label: int | None = None
    kind: str = ""
    mask: Mask | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.image, Path | str | np.ndarray):
            kind = type(self.image).__name__
            raise OkngError(f"a sample's image is a Path or an array, not {kind}; give numpy.asarray(image)")
        masks = self.mask if isinstance(self.mask, tuple) else (self.mask,)
        if not all(mask is None or isinstance(mask, Path) for mask in masks):
            raise OkngError("a sample's mask is the Path of an image, or a tuple of several; write an array to a file")


@dataclass(frozen=True)
class Dataset:
    """Training samples and test samples, with the protocol that says how they were divided.

    `train` is all OK, but for a contamination that was asked for: those NG samples no detector is told of. `ng`
    are NG samples of the set's training part, which a detector may learn from only where it needs labelled ones.
    """

    name: str
    layout: str
    protocol: str
    train: tuple[Sample, ...]
    test: tuple[Sample, ...]
    ng: tuple[Sample, ...] = ()
