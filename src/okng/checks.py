"""What a detector says when an argument of the right type can't be used: one line with what it may be.

`create` puts the detector's name before it.
Ranges that fewer share, such as a share below 1 or an odd window, are checked where they are used.
"""

from __future__ import annotations

import math
import re
from numbers import Integral
from typing import Any

from okng.errors import OkngError

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
"""What a product, and a model that is served, may be called: it is a folder's name and part of an address."""


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


def whole_number(smallest: int, /, **values: object) -> None:
    """OkngError that names the first of `values` that is no whole number from `smallest` on; None was not given."""
    for name, value in values.items():
        if value is not None and (isinstance(value, bool) or not isinstance(value, Integral) or value < smallest):
            raise OkngError(f"{name} is a whole number, {smallest} or more, not {value!r}")


def positive(**values: float) -> None:
    """OkngError that names the first of `values` that is not above 0."""
    for name, value in values.items():
        if value <= 0:
            raise OkngError(f"{name} is above 0, not {value}")


def seed_of(given: object) -> int:
    """The seed that was `given`, NumPy's numbers too; OkngError unless it is a whole number from 0 to 2³² - 1."""
    seed = plain("seed", given)
    if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < 2**32:
        raise OkngError(f"a seed is from 0 to {2**32 - 1}, not {given!r}")
    return seed


def check_rate(rate: float) -> None:
    """OkngError unless `rate` is a false-alarm rate, above 0 and below 1."""
    if not isinstance(rate, int | float) or not 0 < rate < 1:
        raise OkngError(f"a false-alarm rate lies between 0 and 1, not {rate!r}; 0.05 means 5 in 100")


def seconds_of(limit: float | str | None) -> float | None:
    """Of a time limit such as 60, "60m", "90s" or "2h"; a number alone is minutes."""
    if limit is None:
        return None
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(s|m|min|h)?\s*", str(limit))
    if found is None:
        raise OkngError(f"a time limit is such as 60m, 2h or 90s, not {limit!r}")
    return float(found[1]) * {"s": 1, "h": 3600}.get(found[2] or "m", 60)


def check_share(name: str, share: float | None, meaning: str) -> None:
    """OkngError unless `share` is None or from 0 to below 1; `meaning` says what it and 0 stand for."""
    if share is not None and not (isinstance(share, int | float) and 0 <= share < 1):
        raise OkngError(f"{name} is {meaning}, not {share!r}")


def typed(value: Any) -> str:
    """`value` of an argument as it is typed after -p: 8,16 for a tuple, true, false and none."""
    if isinstance(value, list | tuple):
        return ",".join(map(typed, value))
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)


def plain(name: str, value: Any) -> Any:
    """`value` as Python's own numbers, texts and tuples, which a model file can hold.

    NumPy's scalars and short arrays, and tensors of them, become what they stand for. OkngError, which names `name`,
    for anything else that can't be stored, a number that is not finite included.
    """
    if hasattr(value, "tolist") and not isinstance(value, type):  # of NumPy or torch
        value = value.tolist()
    if isinstance(value, float) and not math.isfinite(value):
        raise OkngError(f"{name} is a finite number, not {value}")
    if isinstance(value, list | tuple):
        return tuple(plain(name, item) for item in value)
    for kind in (bool, int, float, str):  # a subclass, such as an enumeration's, as what it is
        if isinstance(value, kind):
            return kind(value)
    if value is None:
        return None
    raise OkngError(f"{name} is a number, a text or several of them, not {value!r}")


def check_product(name: object) -> None:
    """`OkngError` for what a product can't be called, see `NAME`."""
    if not isinstance(name, str) or not NAME.fullmatch(name):
        meant = re.sub(r"[^A-Za-z0-9._-]+", "-", str(name)).strip("-._")[:64]
        raise OkngError(
            f"a product's name has letters from A to Z, digits, - _ and . only, 64 at most, not {name!r}"
            f"{f'; call it {meant}' if meant else ''}; the folder of its OK images may be called anything"
        )


def check_named(*places: object) -> None:
    """`OkngError` where one of the `places` of images is an empty text, which pathlib takes for the working folder."""
    if any(isinstance(place, str) and not place.strip() for place in places):
        raise OkngError("an empty text names no images (a variable that is not set?); name a folder, or . for this one")
