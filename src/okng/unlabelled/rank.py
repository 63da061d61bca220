"""`okng.rank`: which of some unlabelled images are odd among the others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from okng.checks import plain, seed_of, whole_number
from okng.detectors.arguments import checked_arguments
from okng.errors import OkngError, so_many
from okng.inspection.inspector import Images, each_image
from okng.inspection.reading.images import Preprocess, white_level
from okng.inspection.storage.urls import shown
from okng.training.images.data import TrainingImages
from okng.training.images.reading import whole, with_header
from okng.training.progress import Narrator

LEAST = 5  # below, nobody can tell which of them are odd
TOGETHER = 100  # images that score one another: time grows with their square


@dataclass(frozen=True)
class Ranked:
    """How odd an image is among the others that were given with it.

    `path`: the file, or None for pixels. `score`: from 0 to 1, of its part of the images; it has no meaning beyond
    them. `map` (h, w): the same by place, on the network's grid, at least 0.
    """

    path: str | None
    score: float
    map: np.ndarray = field(repr=False)


def rank(
    images: Images,
    *,
    size: int = 256,
    together: int = TOGETHER,
    seed: int = 0,
    tell: Narrator | None = None,
    **arguments: Any,
) -> list[Ranked]:
    """Unlabelled `images` score one another, oddest first: no OK images, nothing learnt, and no verdict.

    This is transductive (MuSc, see `okng.unlabelled.musc`): a score holds among these images alone and changes with
    them. So there is no threshold, no false-alarm rate and no model file, and nothing is promised; to know what OK
    looks like, look through the first ones, and give the rest to `okng.fit`. Most images have to be OK: a defect that
    a third of them have is OK here.

    `size`: the area as the side of a square; aspect ratios are kept. `together`: more images than that are divided at
    random, by `seed`, into parts of about that, of 5 or more, only images of a part are compared, and each part's
    scores go from 0 to 1. `arguments` are those of `MuSc`. Raises `OkngError` for fewer than 5 readable images, and for
    unknown or senseless arguments.
    """
    import inspect

    from okng.unlabelled.musc import MuSc

    tell = tell or Narrator(quiet=True)
    seed, size, together = seed_of(seed), plain("size", size), plain("together", together)
    if not isinstance(size, int) or not 32 <= size <= 8192:
        raise OkngError(f"size is a number from 32 to 8192, not {size}")
    whole_number(LEAST, together=together)
    known = dict(inspect.signature(MuSc.__init__, eval_str=True).parameters)
    known.pop("self")
    with torch.random.fork_rng(devices=[]):  # random weights are those of the seed, and the program's draws its own
        torch.manual_seed(seed)
        method = MuSc(**checked_arguments("musc", known, arguments))
    sources, _ = with_header(list(each_image(images)), False, tell, "unlabelled")
    preprocess = Preprocess("RGB", size, method.backbone.multiple, white_level(sources))
    readable, _ = whole(TrainingImages(sources, preprocess), False, tell)
    if len(readable) < LEAST:
        some = so_many(len(readable), "readable image")
        raise OkngError(f"{some} too few to tell which of them are odd; bring {LEAST} or more")
    order = torch.randperm(len(readable), generator=torch.Generator().manual_seed(seed)).tolist()
    parts = min(-(-len(order) // together), len(order) // LEAST)
    found: list[Ranked] = []
    for number in range(parts):
        members = sorted(order[number::parts])
        scores, maps = _scored(method, readable, members, tell.advance)
        for index, score, place in zip(members, scores, maps, strict=True):
            source = readable.sources[index]
            path = shown(source) if isinstance(source, str | Path) else None
            found.append(Ranked(path, float(score), place.numpy()))
        tell.say(f"part {number + 1} of {parts}: {len(members)} images scored one another")
    return sorted(found, key=lambda each: -each.score)


def _scored(
    method: Any, images: TrainingImages, members: list[int], advance: Callable[[], Any]
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Scores and maps of the images `members` by one another."""
    grids, classes = [], []
    for index in members:
        levels, token = method.tokens(images[index][None].float() / 255)
        grids.append([level[0] for level in levels])
        classes.append(token[0])
        advance()
    scores, maps = method(grids, torch.stack(classes))
    return scores, maps
