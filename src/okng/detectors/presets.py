"""Three ways to run the default detector. What each is worth and takes: docs/benchmarks.md."""

from __future__ import annotations

from typing import Any

from okng.detectors.catalogue import DEFAULT
from okng.errors import OkngError, nearest_names

# `size` is that of `okng.fit`, all else the detector's own.
PRESETS: dict[str, dict[str, Any]] = {
    "fast": {"size": 256, "coreset_limit": 1000},
    "default": {},
    "best": {"backbone": "efficientnet_lite2"},
}


def preset_of(name: str, detector: str) -> dict[str, Any]:
    """The arguments of preset `name`; `OkngError` for one that there is not, or another `detector` than the default."""
    if name not in PRESETS:
        raise OkngError(f"there is no preset {name!r}; {nearest_names(name, PRESETS)}")
    if detector != DEFAULT:
        raise OkngError(f"presets are of {DEFAULT}, and {detector} has none; leave out preset, or the detector")
    return dict(PRESETS[name])
