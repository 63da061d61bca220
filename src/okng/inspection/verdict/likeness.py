"""What the learnt images were like, and a line where inspected ones are not: another camera, size, bits or light."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from okng.errors import OkngWarning

SAMPLES = 1000  # images whose brightness and sharpness a model keeps
ALL_NG_FROM = 5  # images; that so many are NG by themselves is unlikely
SHRINK = 3  # times; beyond it small defects vanish
LOSSY = ("JPEG", "JPEG2000", "WEBP", "AVIF", "HEIF")
BITS = {255: "8-bit", 1023: "10-bit", 4095: "12-bit", 16383: "14-bit", 65535: "16-bit", 1: "floating-point"}


class Traits(NamedTuple):
    """What one image is like, seen upright."""

    size: tuple[int, int]  # height and width
    grey: bool
    white: int  # the sample value that was taken as white, 255 for 8 bits
    format: str | None  # Pillow's name of it, None for pixels
    brightness: float  # mean of the input, 0 to 255
    sharpness: float = 0.0  # see `sharpness`


def sharpness(pixels: np.ndarray) -> float:
    """How much of the contrast of `pixels` uint8 (h, w, C) lies in the finest detail: 0 for none.

    The standard deviation of the Laplacian over that of the grey values, so that more light changes nothing; a lens out
    of focus lowers it, noise raises it.
    """
    grey = pixels[:, :, 0].astype(np.float32)  # (h, w)
    for channel in range(1, pixels.shape[2]):  # several times quicker than NumPy's mean over so short an axis
        grey += pixels[:, :, channel]
    grey /= pixels.shape[2]
    spread = float(grey.std())
    if min(grey.shape) < 3 or spread == 0:
        return 0.0
    around = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:]
    return round(float((around - 4 * grey[1:-1, 1:-1]).std()) / spread, 5)


def describe(
    images: Sequence[Traits], before: dict[str, Any] | None = None, apart: Sequence[Traits] | None = None
) -> dict[str, Any]:
    """What `images`, at least one, and those described `before` were like, as JSON values for a model's manifest.

    Ranges are [smallest, largest]: "height", "width" and "aspect" (height / width), "brightness". What occurred is a
    list: "grey" (true, false), "white", "format". "samples" are values of single images, at most `SAMPLES`, against
    which drift is told: of `apart`, without near copies, by default of all `images`.
    """
    heights, widths = [image.size[0] for image in images], [image.size[1] for image in images]
    ranges = {
        "height": heights,
        "width": widths,
        "aspect": [round(h / w, 4) for h, w in zip(heights, widths, strict=True)],
        "brightness": [image.brightness for image in images],
    }
    sets: dict[str, set[Any]] = {
        "grey": {image.grey for image in images},
        "white": {image.white for image in images},
        "format": {image.format for image in images if image.format},
    }
    old = before or {}
    samples = {name: [getattr(image, name) for image in apart or images] for name in ("brightness", "sharpness")}
    if before is not None:
        samples = {name: old["samples"][name] + new for name, new in samples.items()} if "samples" in old else {}
    for name, values in samples.items():
        samples[name] = [values[i] for i in np.linspace(0, len(values) - 1, min(len(values), SAMPLES)).astype(int)]
    return {
        **{name: [min(values + old.get(name, [])), max(values + old.get(name, []))] for name, values in ranges.items()},
        **{name: sorted(values.union(old.get(name, []))) for name, values in sets.items()},
        **({"samples": samples} if samples else {}),
    }


class Likeness:
    """Compares inspected images with what a model's `learnt` says of those it learnt from, and warns once."""

    def __init__(self, learnt: dict[str, Any] | None):
        self.learnt = learnt
        self.total = self.ng = self.unlike = 0
        self.differences: dict[str, tuple[int, str]] = {}  # how many images, and of the first one in words

    def add(self, image: Traits, is_ng: bool) -> None:
        """One inspected image."""
        self.total += 1
        self.ng += is_ng
        found = {} if self.learnt is None else _differences(image, self.learnt)
        for name, words in found.items():
            count, first = self.differences.get(name, (0, words))
            self.differences[name] = count + 1, first
        self.unlike += bool(found.keys() - {"brightness"})

    def warn(self) -> None:
        """`OkngWarning` where images were unlike those learnt, or all of them NG; at most one of each."""
        dim, first = self.differences.get("brightness", (0, ""))
        said = {name: words for name, (_, words) in self.differences.items() if name != "brightness"}
        if 2 * dim >= self.total > 0 and dim:  # a single dark image is one to be judged
            said["brightness"] = first
        count = max(self.unlike, dim if "brightness" in said else 0)
        if said:
            which = "the images are" if count == self.total else f"{count} of {self.total} images are"
            _warn(f"{which} unlike those learnt from: {'; '.join(said.values())}")
        if self.ng == self.total >= ALL_NG_FROM:
            why = (
                "likely because they are unlike those learnt from"
                if said
                else "if most of them are good, see whether camera, light and position are as they were when learning"
            )
            _warn(f"all {self.total} images are NG: {why}")


def warn_of_shrinking(images: Sequence[tuple[int, int]], inputs: Sequence[tuple[int, int]]) -> None:
    """Say so when images (height, width) shrink more than threefold to their inputs (height, width)."""
    shrinks = [math.sqrt(h * w / (high * wide)) for (h, w), (high, wide) in zip(images, inputs, strict=True)]
    most = max(shrinks, default=0)
    if most > SHRINK:
        (h, w), (high, wide) = images[shrinks.index(most)], inputs[shrinks.index(most)]
        size = min(8192, math.ceil(math.sqrt(h * w) / SHRINK / 32) * 32)
        _warn(
            f"images shrink {most:.1f}-fold, from {h}x{w} to {high}x{wide}: a defect of 8 px becomes "
            f"{8 / most:.1g} px; --size {size} (size={size}) sees it, and takes longer"
        )


def _differences(image: Traits, learnt: dict[str, Any]) -> dict[str, str]:
    """In what `image` is beyond what was learnt, each in words."""
    found = {}
    (h, w), (low_h, high_h), (low_w, high_w) = image.size, learnt["height"], learnt["width"]
    larger = max(h / high_h, w / high_w, low_h / h, low_w / w) > 1.5
    aspect, (flat, tall) = h / w, learnt["aspect"]
    if larger or not flat / 1.25 <= aspect <= tall * 1.25:
        one = f"{low_h}x{low_w}"
        many = f"{one} to {high_h}x{high_w}"
        found["size"] = f"{h}x{w} against {one if (low_h, low_w) == (high_h, high_w) else many}"
    if image.grey not in learnt["grey"]:
        found["colour"] = "grey against colour" if image.grey else "colour against grey"
    if image.white not in learnt["white"]:
        known = ", ".join(BITS.get(white, f"white at {white}") for white in learnt["white"])
        found["bits"] = f"{BITS.get(image.white, f'white at {image.white}')} samples against {known}"
    formats = learnt["format"]
    if image.format and formats and image.format not in formats and {image.format, *formats} & set(LOSSY):
        found["format"] = f"{image.format} against {', '.join(formats)}"
    dark, bright = learnt["brightness"]
    margin = max(25.0, bright - dark)
    if not dark - margin <= image.brightness <= bright + margin:
        found["brightness"] = f"mean brightness {image.brightness:.0f} against {dark:.0f} to {bright:.0f} of 255"
    return found


def _warn(line: str) -> None:
    warnings.warn(line, OkngWarning, stacklevel=3)
