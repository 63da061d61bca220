"""What a detector is built for: the input's size, its colour and its depth, by the images that are given."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from okng.checks import typed
from okng.detectors.base import Detector
from okng.detectors.budgets import SMALL_SIDE, arguments_for
from okng.detectors.cards import cards
from okng.detectors.catalogue import create, detector_class, parameters
from okng.errors import OkngError
from okng.inspection.reading.images import Preprocess, Source, image_size, is_grey, white_level
from okng.training.images.size import SIZE, own_size, size_within
from okng.training.progress import Narrator


def on_budget(budget: str, detector: str, sources: Sequence[Source], tell: Narrator) -> dict[str, Any]:
    """The arguments of a budget for such images, `size` among them; what "paper" can't do is said."""
    sides = np.median([image_size(source) for source in sources], axis=0)
    chosen = arguments_for(budget, detector, small=bool(max(sides) <= SMALL_SIDE))
    if chosen is None:
        raise OkngError(
            f"nobody has chosen arguments of {detector} for the budget {budget} on such images; "
            f"name them instead of a budget; okng list {detector} explains them"
        )
    words = {key: typed(value) for key, value in chosen.items()}
    if "size" in words:
        words["size"] = words["size"].replace(",", "x")  # as after --size
    tell.say(f"budget {budget}: " + (", ".join(f"{key}={value}" for key, value in words.items()) or "the defaults"))
    if budget == "paper":
        tell.say(f"not as in the paper: {cards()[detector].left_out}")
    return dict(chosen)


def build(
    name: str,
    sources: Sequence[Source],
    size: int | tuple[int, int] | None,
    arguments: dict[str, Any],
    seconds: float | None = None,
    chosen: str = "as asked",
    tile: int | None = None,
) -> tuple[Detector, Preprocess, str]:
    """An unfitted detector, the preprocessing for it, and a sentence that says which input size and why.

    `seconds`: what an image may take on this machine; the size is then the largest that keeps to it. `chosen`: who
    chose `size`, in words. `tile`: the side of the squares that images are cut into, which keep their own scale unless
    there is a `size`.
    """
    kind = detector_class(name)
    known = parameters(name)
    _check_size(size)
    if given := {"image_size", "channels"} & arguments.keys():
        raise OkngError(f"{given.pop()} follows from the images; leave it out, and give size, or --size, if need be")
    shapes = np.array([image_size(source) if tile is None else (tile, tile) for source in sources])  # (n, 2)
    height, width = (int(side) for side in np.median(shapes, axis=0))
    mode = "RGB" if kind.pretrained or not all(is_grey(source) for source in sources) else "L"
    may_round = False  # sides that nobody has asked for
    if tile is not None and size is None:
        size, why = tile, f"tiles of {tile} px at their own scale"
    elif size is not None:
        why = chosen
    elif seconds is not None:
        if kind.largest == SIZE:
            raise OkngError(
                f"only patch_memory chooses its size by the time an image takes; give {name} a size, or --size"
            )
        with torch.random.fork_rng(devices=[]):  # the detector that stays draws what it would without a trial
            trial = create(name, **arguments)

        def shape_of(side: int) -> tuple[int, int]:
            return Preprocess(mode, side, trial.multiple).shape(height, width)

        size, why = size_within(seconds, trial, shape_of, len(sources), height, width)
    elif not kind.pretrained and height * width < SIZE * SIZE:
        size, why = (height, width), "the images' own size, and this detector gains nothing from enlarging"
        may_round = True
    elif kind.largest == SIZE:
        size, why = SIZE, f"area of about {SIZE}², the default (--size changes it)"
    else:
        size, why = own_size(kind.largest, height, width)
    if "image_size" in known:
        if "channels" in known:
            arguments = {**arguments, "channels": len(mode)}
        shape = Preprocess(mode, size).shape(height, width)
        multiple: Any = kind.multiple
        if not isinstance(multiple, int):  # where the class does not say, it is known once one is built
            with torch.random.fork_rng(devices=[]):
                multiple = create(name, image_size=shape, **arguments).multiple
        if may_round:
            rounded = Preprocess(mode, size, multiple).rounded
            size = (rounded(height), rounded(width))
        arguments = {**arguments, "image_size": Preprocess(mode, size, multiple).shape(height, width)}
    built = create(name, **arguments)
    preprocess = Preprocess(mode, size, built.multiple, white_level(sources))
    shape = preprocess.shape(height, width)
    if why == chosen and shape != Preprocess(mode, size).shape(height, width):
        why = f"{chosen}, in multiples of {built.multiple}"
    if kind.fixed_size or "image_size" in known or not isinstance(size, int):
        if any(side % built.multiple for side in shape):
            raise OkngError(f"{name} needs sides that are multiples of {built.multiple}, not {shape[0]}x{shape[1]}")
        return built, Preprocess(mode, shape, built.multiple, preprocess.white), _explain(shape, why, shapes)
    varied = len({preprocess.shape(int(h), int(w)) for h, w in shapes}) > 1
    note = "each image keeps its own aspect ratio" if varied else "aspect ratio kept"
    return built, preprocess, f"input {shape[0]}x{shape[1]}{' (median)' if varied else ''}: {why}; {note}"


def _explain(shape: tuple[int, int], why: str, shapes: np.ndarray) -> str:
    aspects = shapes[:, 0] / shapes[:, 1]
    squeezed = aspects.max() / aspects.min() > 1.1
    note = "the images' aspect ratios differ, and this detector needs one shape for all" if squeezed else "one shape"
    return f"input {shape[0]}x{shape[1]}: {why}; {note}"


def _check_size(size: Any) -> None:
    if size is None:
        return
    sides = [size, size] if isinstance(size, int) else list(size)
    if len(sides) != 2 or any(not isinstance(side, int) or not 8 <= side <= 8192 for side in sides):
        raise OkngError(f"size is one number such as 256, or HxW such as 256x512, each from 8 to 8192, not {size}")
