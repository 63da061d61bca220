"""How large a detector's input is when nobody says so: by the images, and by the time that one of them may take."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable

import torch

from okng.detectors.base import Detector
from okng.errors import OkngError

SIZE = 256  # what pretrained networks are given at least
LEAST = 128  # px; below, there is little that a network can see
RUNS = 5  # of an input that is timed, after one that warms up


def own_size(largest: int, height: int, width: int) -> tuple[int, str]:
    """As large as images of `height` and `width` are, from SIZE to `largest`, as the side of a square, and why."""
    own = math.sqrt(height * width)
    if own > largest:
        return largest, f"area of about {largest}², the most by default (--size changes it){_lost(own / largest)}"
    if own > SIZE:
        return int(own), "as large as the images"
    return SIZE, f"area of about {SIZE}², for a network that learnt from such"


def size_within(
    seconds: float,
    detector: Detector,
    shape_of: Callable[[int], tuple[int, int]],
    count: int,
    height: int,
    width: int,
) -> tuple[int, str]:
    """The largest size up to `own_size` whose inputs `detector` scores within `seconds` here and now, and why.

    `shape_of` a size is the input (h, w) for images of `height` and `width`, of which `count` will be learnt. Raises
    `OkngError` where not even LEAST keeps to it.
    """
    largest, _ = own_size(detector.largest, height, width)
    sizes = [*range(LEAST, largest, detector.multiple), largest]
    took = {}

    def is_within(size: int) -> bool:
        took[size] = _timed(detector, shape_of(size), count)
        return took[size] <= seconds

    if is_within(sizes[-1]):
        chosen = sizes[-1]
    elif not is_within(sizes[0]):
        least, asked = _milliseconds(took[LEAST]), _milliseconds(seconds)
        raise OkngError(f"an image takes {least} even at {LEAST}²; grant more than {asked}, or give --size")
    else:
        low, high = 0, len(sizes) - 1  # sizes[low] keeps to it, sizes[high] does not
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if is_within(sizes[middle]) else (low, middle)
        chosen = sizes[low]
    threads = torch.get_num_threads()
    by = f"by PyTorch on {threads} thread{'s' if threads > 1 else ''}"
    why = f"an image takes {_milliseconds(took[chosen])} {by}, asked at most {_milliseconds(seconds)}"
    return chosen, why + _lost(math.sqrt(height * width) / chosen)


def time_of_one(detector: Detector, shape: tuple[int, int], count: int) -> float | None:
    """Seconds that one input of `shape` (h, w) takes before any is learnt; None where that can't be told."""
    try:
        return _timed(detector, shape, count)
    except NotImplementedError:
        return None


def _timed(detector: Detector, shape: tuple[int, int], count: int) -> float:
    """Seconds that one input of `shape` (h, w) takes, the median of some."""
    detector.rehearse(count, shape)
    image = torch.full((1, 3, *shape), 0.5)
    times = []
    with torch.inference_mode():
        for _ in range(RUNS + 1):
            begun = time.perf_counter()
            detector(image)
            times.append(time.perf_counter() - begun)
    return statistics.median(times[1:])


def _lost(shrunk: float) -> str:
    """What becomes of a defect in images that are `shrunk` so many times, blank where they hardly are."""
    return f"; shrunk {shrunk:.1f} times: a scratch of 10 px becomes {10 / shrunk:.0f}" if shrunk > 1.2 else ""


def _milliseconds(seconds: float) -> str:
    return f"{1e3 * seconds:.0f} ms" if seconds >= 1e-3 else f"{1e3 * seconds:.2g} ms"
