"""From an image to the pixels a detector sees: the one preprocessing of training and of the line.

Pillow decodes (`decoding.py`) and resizes, so that a detector meets the same bytes wherever it runs. Images much larger
than the input are reduced in two steps, see `Preprocess.gap`; models from before that say so and are read as they were.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from okng.errors import OkngError
from okng.inspection.reading.arrays import one_image
from okng.inspection.reading.decoding import Box, Header, decode, decode_reduced, digest, header, is_deep
from okng.inspection.reading.formats import Encoded, UnreadableImage, blaming
from okng.inspection.reading.reducing import rows_reduced
from okng.inspection.reading.tiling import check_tile, corners
from okng.inspection.verdict.likeness import Traits, sharpness

__all__ = [
    "Preprocess", "Source", "UnreadableImage", "fingerprint", "image_size", "is_grey", "open_image", "white_level",
]  # fmt: skip

Source = Path | str | Encoded | np.ndarray
"""An image file, also one held in memory, or pixels: uint8 or uint16 of shape (H, W), (H, W, 1), (H, W, 3), (H, W, 4)
or floats from 0 to 1 of these shapes. `each_image` makes it of all else a person may hand over."""

WHITE_LEVELS = (255, 1023, 4095, 16383, 65535)  # 8, 10, 12, 14 and 16 bits per sample
GAP = 3.0  # Pillow calls it not to be told from one step
PAYS = 4  # rows that become one: fewer are resized as quickly as they are brought together
BRIGHTER = 0.01  # with a larger share of samples above a model's white, an image has more bits than those learnt


def open_image(source: Source) -> Image.Image:
    """Decode `source` upright (EXIF orientation applied), in whatever mode it is stored; 16-bit colour as 8-bit.

    Of several pages the first is taken unless one is named. Raises `UnreadableImage` as `decoding.decode` does.
    """
    pixels = _decoded(source)
    if isinstance(pixels, np.ndarray):
        deep = pixels.ndim == 3 and pixels.dtype == np.uint16
        return Image.fromarray((pixels >> 8).astype(np.uint8) if deep else pixels)
    return pixels


def fingerprint(source: Source) -> str:
    """What only the same image file, under whatever name, or the same pixels have: 16 hexadecimal digits.

    Pixels are taken as `one_image` gives them: an array of floats is known again by what was learnt of it.
    """
    if isinstance(source, np.ndarray):
        pixels = one_image(source)
        return hashlib.sha256(repr(pixels.shape).encode() + pixels.tobytes()).hexdigest()[:16]
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


class _Seen(NamedTuple):
    """An image as it was decoded: upright, grey or in a model's mode, 8 bits per sample."""

    image: Image.Image
    box: Box | None  # the part of `image` that is the original; None for all of it
    size: tuple[int, int]  # the original's height and width
    white: int  # the sample value that was taken as white
    head: Header | None  # None for pixels


@dataclass(frozen=True)
class Preprocess:
    """How any image becomes a detector's input.

    `mode` is "RGB" or "L" (grey). `size` is one number to keep each image's aspect ratio at an area of about
    size² pixels, or (height, width) to bring every image to one shape. `multiple` is what both sides are
    rounded to, the backbone's stride. `white` is the sample value that becomes 255, for more than 8 bits. An image of
    another depth than that has a white of its own: 8-bit images are taken as they are, and one of 16 bits that the
    model, having learnt fewer, would see as white is read against the bits it uses itself. With a `tile` an input is a
    square of so many pixels of the original, brought to `size`, and neighbours overlap by `overlap` px: see `tiling`.

    An image much larger than its input is first reduced by a whole number to no less than `gap` times the input: a JPEG
    while it is decoded, from twice `gap` on, anything else by means of squares of pixels, from four times `gap` on, for
    below that it takes no longer in one step. The rest is resized. That is up to three times quicker, and less than one
    of 255 levels off on average. None: all in one step, as for models that know no `gap`.
    """

    mode: str
    size: int | tuple[int, int]
    multiple: int = 1
    white: int = 255
    tile: int | None = None
    overlap: int = 0
    gap: float | None = GAP

    def shape(self, height: int, width: int) -> tuple[int, int]:
        """The input's height and width for an image of this height and width."""
        if not isinstance(self.size, int):
            return self.size
        # A single row of pixels would become one `multiple` by millions: there the aspect ratio has to give.
        limit = max(1.0, self.size / self.multiple)
        aspect = min(max(math.sqrt(height / width), 1 / limit), limit)
        return self.rounded(self.size * aspect), self.rounded(self.size / aspect)

    def inputs(self, height: int, width: int) -> int:
        """How many inputs an image of this height and width becomes."""
        return 1 if self.tile is None else len(corners(height, width, self.tile, self.overlap))

    def decode(self, source: Source) -> Image.Image:
        """The image upright and at its own size, in `mode` with 8 bits per sample."""
        return _coloured(self._seen(source, reduced=False).image, self.mode)

    def load(self, source: Source) -> tuple[np.ndarray, tuple[int, int]]:
        """The input, uint8 of shape (h, w, C), and the original's (height, width)."""
        pixels, traits = self.read(source)
        return pixels, traits.size

    def read(self, source: Source) -> tuple[np.ndarray, Traits]:
        """The input, uint8 of shape (h, w, C), and what the original is like."""
        seen = self._seen(source, reduced=self.tile is None)
        pixels = self._input(seen, source)
        return pixels, self._traits(seen, pixels, source)

    def read_whole(self, source: Source) -> tuple[np.ndarray, Traits]:
        """All pixels, uint8 (H, W, C), of which tiles are cut, and what the original is like, as `read` says it."""
        seen = self._seen(source, reduced=False)
        traits = self._traits(seen, self._input(seen, source), source)
        with blaming(source):
            return np.asarray(_coloured(seen.image, self.mode)).reshape(*seen.size, self.channels), traits

    def _seen(self, source: Source, reduced: bool) -> _Seen:
        """The image, which may be `reduced` while it is decoded."""
        head = None if isinstance(source, np.ndarray) else header(source)
        if reduced and self.gap and head is not None and head.format == "JPEG" and not isinstance(source, np.ndarray):
            h, w = self.shape(*head.size)
            image, box = decode_reduced(source, (math.ceil(self.gap * h), math.ceil(self.gap * w)))
            with blaming(source):
                return _Seen(_to_mode(image, self.mode), box, head.size, 255, head)
        pixels, white = self._stored(source)
        with blaming(source):
            if isinstance(pixels, Image.Image) and pixels.mode not in ("L", "RGB"):
                pixels = _to_mode(pixels, self.mode)
            size = pixels.shape[:2] if isinstance(pixels, np.ndarray) else (pixels.height, pixels.width)
            step = int(size[0] / self.shape(*size)[0] / self.gap) if reduced and self.gap else 1
            if step >= PAYS:
                image = rows_reduced(pixels, step)  # of the columns `_input` takes the means
                return _Seen(_to_mode(image, self.mode), (0, 0, size[1], size[0] / step), size, white, head)
            image = Image.fromarray(pixels) if isinstance(pixels, np.ndarray) else pixels
            return _Seen(_to_mode(image, self.mode), None, size, white, head)

    def _input(self, seen: _Seen, source: Source) -> np.ndarray:
        """The whole image as an input (h, w, C)."""
        h, w = self.shape(*seen.size)
        image = seen.image
        with blaming(source):
            if (h, w) != (image.height, image.width):  # antialiased when shrinking
                gap = None if seen.box is None else self.gap
                image = image.resize((w, h), Image.Resampling.BILINEAR, seen.box, gap)
            return np.asarray(_coloured(image, self.mode)).reshape(h, w, self.channels)

    def _traits(self, seen: _Seen, pixels: np.ndarray, source: Source) -> Traits:
        """What the original of the input `pixels` is like; of tiles the one in the middle says how sharp."""
        detail = pixels
        if self.tile is not None:
            left, top = (max(side - self.tile, 0) // 2 for side in seen.image.size)
            right, bottom = min(left + self.tile, seen.image.width), min(top + self.tile, seen.image.height)
            middle = _coloured(seen.image.crop((left, top, right, bottom)), self.mode)
            detail = np.asarray(middle).reshape(middle.height, middle.width, self.channels)
        grey, kind = (is_grey(source), None) if seen.head is None else (seen.head.is_grey, seen.head.format)
        return Traits(seen.size, grey, seen.white, kind, round(float(pixels.mean()), 1), sharpness(detail))

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
            tile, overlap, gap = fields.get("tile"), fields.get("overlap", 0), fields.get("gap")
            if tile is not None:
                check_tile(tile, overlap)
            fits = (isinstance(size, int) and tile is None) or (not isinstance(size, int) and len(size) == 2)
            if mode in ("RGB", "L") and numbers_fit and fits and (gap is None or 1 <= gap <= 8):
                return cls(mode, size, multiple, white, tile, overlap, gap)
        except (KeyError, TypeError, AttributeError, OkngError):
            pass
        raise OkngError("the model file's preprocessing is not one this okng knows; fit the model again")

    def rounded(self, side: float) -> int:
        """`side` in px as the nearest multiple."""
        return max(1, round(side / self.multiple)) * self.multiple

    def _stored(self, source: Source) -> tuple[Image.Image | np.ndarray, int]:
        """The image as it is stored but with 8 bits per sample, and the sample value that was taken as white."""
        pixels = _decoded(source)
        with blaming(source):
            samples = _deep_samples(pixels)
            if samples is None:
                return pixels, 255
            white = self._white_of(samples)
            return _to_8_bits(samples, white), white

    def _white_of(self, samples: np.ndarray) -> int:
        """The model's white, unless these deep samples are of another depth than the images learnt."""
        brightest, floats = _brightest(samples), samples.dtype == np.float32
        darker = floats and brightest <= 1  # the whole range is within the first step of other depths
        brighter = np.count_nonzero(samples > self.white) > BRIGHTER * samples.size or self.white == 255
        return _white(brightest, floats) if darker or brighter else self.white


def _decoded(source: Source) -> Image.Image | np.ndarray:
    """The image as stored: by Pillow, or samples (H, W) or (H, W, 3)."""
    return one_image(source) if isinstance(source, np.ndarray) else decode(source)


def _deep_samples(pixels: Image.Image | np.ndarray) -> np.ndarray | None:
    """Samples (H, W) or (H, W, 3) of more than 8 bits; None for any other image."""
    if isinstance(pixels, np.ndarray):
        return None if pixels.dtype == np.uint8 else pixels
    return np.asarray(pixels) if is_deep(pixels.mode) else None


def _brightest(samples: np.ndarray) -> float:
    return float(samples.max(initial=0, where=np.isfinite(samples) if samples.dtype.kind == "f" else True))


def _white(brightest: float, floats: bool) -> int:
    levels = (1, *WHITE_LEVELS) if floats else WHITE_LEVELS
    return next((level for level in levels if brightest <= level), WHITE_LEVELS[-1])


def _to_8_bits(samples: np.ndarray, white: int) -> np.ndarray:
    """`white` becomes 255 and what is brighter too; NaN is black."""
    if samples.dtype == np.uint16:
        levels: np.ndarray = _levels(white)[samples]  # one look at each sample, where arithmetic passes eight times
        return levels
    return _scaled(samples, white)


def _scaled(samples: np.ndarray, white: int) -> np.ndarray:
    scaled = np.nan_to_num(np.clip(samples.astype(np.float32), 0, white)) * (255 / white)
    levels: np.ndarray = np.rint(scaled).astype(np.uint8)
    return levels


@lru_cache(16)
def _levels(white: int) -> np.ndarray:
    """The 8-bit value of each 16-bit one."""
    return _scaled(np.arange(1 << 16), white)


def _to_mode(image: Any, mode: str) -> Image.Image:
    """Convert 8-bit samples to "RGB" or "L", but leave grey ones grey; transparent pixels lie on black."""
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "black"), image)
    converted: Image.Image = image if image.mode in (mode, "L") else image.convert(mode)
    return converted


def _coloured(image: Image.Image, mode: str) -> Image.Image:
    """Grey made "RGB" where that is the `mode`: after resizing, which is the same and a third of the work."""
    return image if image.mode == mode else image.convert(mode)
