"""What a detector says when an argument of the right type can't be used: one line with what it may be.

`create` puts the detector's name before it.
Ranges that fewer share, such as a share below 1 or an odd window, are checked where they are used.
"""

from __future__ import annotations

from okng.errors import OkngError


def check_input(image_size: tuple[int, int], channels: int, smallest: int = 16) -> None:
    """OkngError unless both sides of `image_size` (h, w) are `smallest` or more and `channels` is 1 or 3."""
    if min(image_size) < smallest:
        raise OkngError(f"both sides of image_size are {smallest} or more, not {image_size}")
    if channels not in (1, 3):
        raise OkngError(f"channels is 1 (grey) or 3 (RGB), not {channels}")


def at_least(smallest: int, /, **values: float | None) -> None:
    """OkngError that names the first of `values` below `smallest`; None is a value that was not given."""
    for name, value in values.items():
        if value is not None and value < smallest:
            raise OkngError(f"{name} is {smallest} or more, not {value}")


def positive(**values: float) -> None:
    """OkngError that names the first of `values` that is not above 0."""
    for name, value in values.items():
        if value <= 0:
            raise OkngError(f"{name} is above 0, not {value}")


def check_seed(seed: int) -> None:
    """OkngError unless `seed` is from 0 to 2³² - 1."""
    if not 0 <= seed < 2**32:
        raise OkngError(f"a seed is from 0 to {2**32 - 1}, not {seed}")
