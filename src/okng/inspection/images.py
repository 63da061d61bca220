"""From an image to the pixels a detector sees: the one preprocessing of training and of the line.

Pillow decodes (`decoding.py`) and resizes, so that a detector meets the same bytes wherever it runs.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from okng.errors import OkngError
from okng.inspection.arrays import one_image
from okng.inspection.decoding import decode, digest, header, is_deep
from okng.inspection.formats import Encoded, UnreadableImage, blaming
from okng.inspection.likeness import Traits, sharpness
from okng.inspection.tiling import check_tile, corners

__all__ = [
    "Preprocess", "Source", "UnreadableImage", "fingerprint", "image_size", "is_grey", "open_image", "white_level",
]  # fmt: skip

Source = Path | str | Encoded | np.ndarray
"""An image file, also one held in memory, or pixels: uint8 or uint16 of shape (H, W), (H, W, 1), (H, W, 3), (H, W, 4)
or floats from 0 to 1 of these shapes. `each_image` makes it of all else a person may hand over."""

WHITE_LEVELS = (255, 1023, 4095, 16383, 65535)  # 8, 10, 12, 14 and 16 bits per sample
BRIGHTER = 0.01  # with a larger share of samples above a model's white, an image has more bits than those learnt


def open_image(source: Source) -> Image.Image:
    """Decode `source` upright (EXIF orientation applied), in whatever mode it is stored; 16-bit colour as 8-bit.

    Of several pages the first is taken unless one is named. Raises `UnreadableImage` as `decoding.decode` does.
    """
    pixels = _decoded(source)
    if isinstance(pixels, np.ndarray):
        return Image.fromarray((pixels >> 8).astype(np.uint8) if pixels.ndim == 3 else pixels)
    return pixels


def fingerprint(source: Source) -> str:
    """What only the same image file, under whatever name, or the same array has: 16 hexadecimal digits."""
    if isinstance(source, np.ndarray):
        return hashlib.sha256(repr(source.shape).encode() + source.tobytes()).hexdigest()[:16]
    return digest(source)


def image_size(source: Source) -> tuple[int, int]:
    """Height and width as the image will be seen upright, read from the header alone."""
    if isinstance(source, np.ndarray):
        height, width = one_image(source).shape[:2]
        return height, width
    return header(source).size


def is_grey(source: Source) -> bool:
    """Whether the image is stored without colour, by its header."""
    return one_image(source).ndim == 2 if isinstance(source, np.ndarray) else header(source).is_grey


def white_level(sources: Iterable[Source]) -> int:
    """The largest value a sample of these images can have: 255, or for 16-bit files the bits really in use.

    A 12-bit camera often writes 16-bit files; read against 65535 they would be nearly black. Floating-point
    samples that stay within 0 and 1 have white at 1. Unreadable files are left out.
    """
    brightest, floats = 0.0, False
    for source in sources:
        try:
            if not isinstance(source, np.ndarray) and not header(source).deep:
                continue
            samples = _deep_samples(_decoded(source))
        except UnreadableImage:
            continue
        if samples is not None:
            brightest, floats = max(brightest, _brightest(samples)), floats or samples.dtype == np.float32
    return _white(brightest, floats)


@dataclass(frozen=True)
class Preprocess:
    """How any image becomes a detector's input.

    `mode` is "RGB" or "L" (grey). `size` is one number to keep each image's aspect ratio at an area of about
    size² pixels, or (height, width) to bring every image to one shape. `multiple` is what both sides are
    rounded to, the backbone's stride. `white` is the sample value that becomes 255, for more than 8 bits. An image of
    another depth than that has a white of its own: 8-bit images are taken as they are, and one of 16 bits that the
    model, having learnt fewer, would see as white is read against the bits it uses itself. With a `tile` an input is a
    square of so many pixels of the original, brought to `size`, and neighbours overlap by `overlap` px: see `tiling`.
    """

    mode: str
    size: int | tuple[int, int]
    multiple: int = 1
    white: int = 255
    tile: int | None = None
    overlap: int = 0

    def shape(self, height: int, width: int) -> tuple[int, int]:
        """The input's height and width for an image of this height and width."""
        if not isinstance(self.size, int):
            return self.size
        # A single row of pixels would become one `multiple` by millions: there the aspect ratio has to give.
        limit = max(1.0, self.size / self.multiple)
        aspect = min(max(math.sqrt(height / width), 1 / limit), limit)
        return self._round(self.size * aspect), self._round(self.size / aspect)

    def inputs(self, height: int, width: int) -> int:
        """How many inputs an image of this height and width becomes."""
        return 1 if self.tile is None else len(corners(height, width, self.tile, self.overlap))

    def decode(self, source: Source) -> Image.Image:
        """The image upright and at its own size, in `mode` with 8 bits per sample."""
        return self._decode(source)[0]

    def load(self, source: Source) -> tuple[np.ndarray, tuple[int, int]]:
        """The input, uint8 of shape (h, w, C), and the original's (height, width)."""
        pixels, traits = self.read(source)
        return pixels, traits.size

    def read(self, source: Source) -> tuple[np.ndarray, Traits]:
        """The input, uint8 of shape (h, w, C), and what the original is like."""
        image, white = self._decode(source)
        pixels = self._input(image, source)
        return pixels, self._traits(image, pixels, white, source)

    def read_whole(self, source: Source) -> tuple[np.ndarray, Traits]:
        """All pixels, uint8 (H, W, C), of which tiles are cut, and what the original is like, as `read` says it."""
        image, white = self._decode(source)
        traits = self._traits(image, self._input(image, source), white, source)
        with blaming(source):
            return np.asarray(image).reshape(image.height, image.width, self.channels), traits

    def _input(self, image: Image.Image, source: Source) -> np.ndarray:
        """The whole image as an input (h, w, C)."""
        h, w = self.shape(image.height, image.width)
        with blaming(source):
            if (h, w) != (image.height, image.width):
                image = image.resize((w, h), Image.Resampling.BILINEAR)  # antialiased when shrinking
            return np.asarray(image).reshape(h, w, self.channels)

    def _traits(self, image: Image.Image, pixels: np.ndarray, white: int, source: Source) -> Traits:
        """What the original `image` of the input `pixels` is like; of tiles the one in the middle says how sharp."""
        detail = pixels
        if self.tile is not None:
            left, top = (max(side - self.tile, 0) // 2 for side in image.size)
            right, bottom = min(left + self.tile, image.width), min(top + self.tile, image.height)
            middle = image.crop((left, top, right, bottom))
            detail = np.asarray(middle).reshape(middle.height, middle.width, self.channels)
        head = None if isinstance(source, np.ndarray) else header(source)
        grey, kind = (is_grey(source), None) if head is None else (head.is_grey, head.format)
        size = (image.height, image.width)
        return Traits(size, grey, white, kind, round(float(pixels.mean()), 1), sharpness(detail))

    @property
    def channels(self) -> int:
        """3 for "RGB", 1 for "L"."""
        return len(self.mode)

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, fields: Any) -> Preprocess:
        """The inverse of `to_json`; raises `OkngError` for fields that make no sense."""
        try:
            size = fields["size"] if isinstance(fields["size"], int) else tuple(fields["size"])
            mode, multiple, white = fields["mode"], fields["multiple"], fields["white"]
            sides = (size,) if isinstance(size, int) else size
            numbers_fit = all(isinstance(n, int) and 0 < n < 1 << 20 for n in (*sides, multiple, white))
            tile, overlap = fields.get("tile"), fields.get("overlap", 0)
            if tile is not None:
                check_tile(tile, overlap)
            fits = (isinstance(size, int) and tile is None) or (not isinstance(size, int) and len(size) == 2)
            if mode in ("RGB", "L") and numbers_fit and fits:
                return cls(mode, size, multiple, white, tile, overlap)
        except (KeyError, TypeError, AttributeError, OkngError):
            pass
        raise OkngError("the model file's preprocessing is not one this okng knows; fit the model again")

    def _round(self, side: float) -> int:
        return max(1, round(side / self.multiple)) * self.multiple

    def _decode(self, source: Source) -> tuple[Image.Image, int]:
        """The image in `mode` with 8 bits per sample, and the sample value that was taken as white."""
        pixels = _decoded(source)
        with blaming(source):
            samples = _deep_samples(pixels)
            white = 255 if samples is None else self._white_of(samples)
            return _to_mode(pixels if samples is None else _to_8_bits(samples, white), self.mode), white

    def _white_of(self, samples: np.ndarray) -> int:
        """The model's white, unless these deep samples are of another depth than the images learnt."""
        brightest, floats = _brightest(samples), samples.dtype == np.float32
        darker = floats and brightest <= 1  # the whole range is within the first step of other depths
        brighter = np.mean(samples > self.white) > BRIGHTER or self.white == 255
        return _white(brightest, floats) if darker or brighter else self.white


def _decoded(source: Source) -> Image.Image | np.ndarray:
    """The image as stored: by Pillow, or samples of 16 bits."""
    if not isinstance(source, np.ndarray):
        return decode(source)
    pixels = one_image(source)
    return Image.fromarray(pixels) if pixels.dtype == np.uint8 else pixels


def _deep_samples(pixels: Image.Image | np.ndarray) -> np.ndarray | None:
    """Samples (H, W) or (H, W, 3) of more than 8 bits; None for any other image."""
    if isinstance(pixels, np.ndarray):
        return pixels
    return np.asarray(pixels) if is_deep(pixels.mode) else None


def _brightest(samples: np.ndarray) -> float:
    return float(samples.max(initial=0, where=np.isfinite(samples)))


def _white(brightest: float, floats: bool) -> int:
    levels = (1, *WHITE_LEVELS) if floats else WHITE_LEVELS
    return next((level for level in levels if brightest <= level), WHITE_LEVELS[-1])


def _to_8_bits(samples: np.ndarray, white: int) -> Image.Image:
    """`white` becomes 255 and what is brighter too; NaN is black."""
    scaled = np.nan_to_num(np.clip(samples.astype(np.float32), 0, white)) * (255 / white)
    return Image.fromarray(np.rint(scaled).astype(np.uint8))


def _to_mode(image: Any, mode: str) -> Image.Image:
    """Convert 8-bit samples to "RGB" or "L"; transparent pixels lie on black."""
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "black"), image)
    converted: Image.Image = image if image.mode == mode else image.convert(mode)
    return converted
