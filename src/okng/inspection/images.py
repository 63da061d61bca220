"""From an image file to the pixels a detector sees: the one preprocessing of training and of the line.

Pillow decodes and resizes, here and nowhere else, so that a detector meets the same bytes wherever it runs.
"""

from __future__ import annotations

import hashlib
import math
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from okng.errors import OkngError

Source = Path | str | np.ndarray
"""An image file, or pixels: uint8 or uint16 of shape (H, W), (H, W, 1) or (H, W, 3)."""

WHITE_LEVELS = (255, 1023, 4095, 16383, 65535)  # 8, 10, 12, 14 and 16 bits per sample
# Only these decoders meet a file, whatever it is called; some of Pillow's others start programs.
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "PPM", "TIFF", "WEBP")
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What undoes each EXIF orientation."""

# Pillow warns of odd metadata and of images above half its size limit; nobody here can act on that. Once for
# all, because `warnings.catch_warnings` is not safe in the threads that decode.
warnings.filterwarnings("ignore", module=r"PIL\.")


class UnreadableImage(OkngError):
    """A file that is not a whole image: `path` and `reason` in one line."""

    def __init__(self, path: str, reason: str):
        super().__init__(f"{path}: {reason}")
        self.path, self.reason = path, reason


def open_image(source: Source) -> Image.Image:
    """Decode `source` upright (EXIF orientation applied), in whatever mode it is stored.

    Of several frames the first is taken. Raises `UnreadableImage` for anything that is no complete image of
    `FORMATS`, or has more than Pillow's limit of 179 megapixels.
    """
    if isinstance(source, np.ndarray):
        return _from_array(source)
    with _blaming(source), Image.open(source, formats=FORMATS) as image:
        orientation = _orientation(image)
        image.load()
        return image.transpose(UPRIGHT[orientation]) if orientation in UPRIGHT else image


def fingerprint(source: Source) -> str:
    """What only the same image file, under whatever name, or the same array has: 16 hexadecimal digits."""
    if isinstance(source, np.ndarray):
        return hashlib.sha256(repr(source.shape).encode() + source.tobytes()).hexdigest()[:16]
    with _blaming(source):
        return hashlib.sha256(Path(source).read_bytes()).hexdigest()[:16]


def image_size(source: Source) -> tuple[int, int]:
    """Height and width as the image will be seen upright, read from the header alone."""
    return _header(source)[1]


def is_grey(source: Source) -> bool:
    """Whether the image is stored without colour, by its header."""
    mode, _ = _header(source)
    return mode in ("1", "L", "LA") or _is_deep(mode)


def white_level(sources: Iterable[Source]) -> int:
    """The largest value a sample of these images can have: 255, or for 16-bit files the bits really in use.

    A 12-bit camera often writes 16-bit files; read against 65535 they would be nearly black. Floating-point
    samples that stay within 0 and 1 have white at 1. Unreadable files are left out.
    """
    brightest = 0.0
    levels: tuple[int, ...] = WHITE_LEVELS
    for source in sources:
        try:
            if not _is_deep(_header(source)[0]):
                continue
            samples = np.asarray(open_image(source))
        except UnreadableImage:
            continue
        brightest = max(brightest, float(samples.max(initial=0, where=np.isfinite(samples))))
        if samples.dtype == np.float32:
            levels = (1, *WHITE_LEVELS)
    return next((level for level in levels if brightest <= level), WHITE_LEVELS[-1])


@dataclass(frozen=True)
class Preprocess:
    """How any image becomes a detector's input.

    `mode` is "RGB" or "L" (grey). `size` is one number to keep each image's aspect ratio at an area of about
    size² pixels, or (height, width) to bring every image to one shape. `multiple` is what both sides are
    rounded to, the backbone's stride. `white` is the sample value that becomes 255, for more than 8 bits.
    """

    mode: str
    size: int | tuple[int, int]
    multiple: int = 1
    white: int = 255

    def shape(self, height: int, width: int) -> tuple[int, int]:
        """The input's height and width for an image of this height and width."""
        if not isinstance(self.size, int):
            return self.size
        # A single row of pixels would become one `multiple` by millions: there the aspect ratio has to give.
        limit = max(1.0, self.size / self.multiple)
        aspect = min(max(math.sqrt(height / width), 1 / limit), limit)
        return self._round(self.size * aspect), self._round(self.size / aspect)

    def decode(self, source: Source) -> Image.Image:
        """The image upright and at its own size, in `mode` with 8 bits per sample."""
        image = open_image(source)
        with _blaming(source):
            return _to_mode(image, self.mode, self.white)

    def load(self, source: Source) -> tuple[np.ndarray, tuple[int, int]]:
        """The input, uint8 of shape (h, w, C), and the original's (height, width)."""
        image = self.decode(source)
        width, height = image.size
        h, w = self.shape(height, width)
        with _blaming(source):
            if (h, w) != (height, width):
                image = image.resize((w, h), Image.Resampling.BILINEAR)  # antialiased when shrinking
            pixels = np.asarray(image)
        return pixels.reshape(h, w, self.channels), (height, width)

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
            if mode in ("RGB", "L") and numbers_fit and (isinstance(size, int) or len(size) == 2):
                return cls(mode, size, multiple, white)
        except (KeyError, TypeError):
            pass
        raise OkngError("the model file's preprocessing is not one this okng knows; fit the model again")

    def _round(self, side: float) -> int:
        return max(1, round(side / self.multiple)) * self.multiple


@contextmanager
def _blaming(source: Source) -> Iterator[None]:
    """Whatever goes wrong inside is the image's fault: decoders meet any bytes and raise any error."""
    try:
        yield
    except Exception as error:
        name = "pixels" if isinstance(source, np.ndarray) else str(source)
        name = name if name.isprintable() else ascii(name)  # a name can hold a line break
        raise UnreadableImage(name, _reason(error)) from error


def _reason(error: Exception) -> str:
    match error:
        case UnidentifiedImageError():
            return f"holds no image of a format okng reads ({', '.join(FORMATS)})"
        case Image.DecompressionBombError():
            return "too large to decode (over 179 megapixels); crop or tile it"
        case MemoryError():
            return "too large for this machine's memory; crop or tile it"
        case OSError(strerror=str(strerror)):
            return f"can't be read ({strerror})"
    return f"damaged ({(str(error).splitlines() or [type(error).__name__])[0]}); copy it again"


def _orientation(image: Image.Image) -> int:
    """EXIF's orientation, 1 to 8, by the header; 1 where there is none or it is damaged."""
    if image.format == "TIFF":  # Pillow turns these by itself
        return 1
    try:
        # Not PNG's own `getexif`, which would decode all pixels to look for EXIF behind them.
        orientation = Image.Image.getexif(image).get(0x0112, 1)
    except Exception:  # damaged metadata spoils no pixels
        return 1
    return orientation if orientation in UPRIGHT else 1


def _to_mode(image: Image.Image, mode: str, white: int) -> Image.Image:
    """Convert to "RGB" or "L" with 8 bits per sample; transparent pixels lie on black, NaN is black too."""
    if _is_deep(image.mode):
        samples = np.nan_to_num(np.clip(np.asarray(image, np.float32), 0, white))
        image = Image.fromarray(np.rint(samples * (255 / white)).astype(np.uint8))
    elif image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "black"), image)
    return image if image.mode == mode else image.convert(mode)


def _header(source: Source) -> tuple[str, tuple[int, int]]:
    """Pillow's mode of the image as stored, and its upright (height, width)."""
    if isinstance(source, np.ndarray):
        image = _from_array(source)
        return image.mode, (image.height, image.width)
    with _blaming(source):
        state = Path(source).stat()
        return _read_header(str(source), state.st_mtime_ns, state.st_size)


@lru_cache(1 << 16)
def _read_header(path: str, changed: int, length: int) -> tuple[str, tuple[int, int]]:
    """The header of a file in this state; a fit asks for it several times."""
    with Image.open(path, formats=FORMATS) as image:
        width, height = image.size
        return image.mode, (width, height) if _orientation(image) >= 5 else (height, width)  # 5 to 8 swap the sides


def _is_deep(mode: str) -> bool:
    return mode.startswith("I") or mode == "F"


def _from_array(pixels: np.ndarray) -> Image.Image:
    grey = pixels[:, :, 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels
    deep = grey.ndim == 2 and grey.dtype == np.uint16
    plain = grey.dtype == np.uint8 and (grey.ndim == 2 or (grey.ndim == 3 and grey.shape[2] == 3))
    if not (deep or plain) or grey.size == 0:
        raise OkngError(
            f"an array of {pixels.dtype} and shape {pixels.shape} is no image; give uint8 of shape (H, W) or "
            "(H, W, 3), or uint16 of shape (H, W)"
        )
    return Image.fromarray(np.ascontiguousarray(grey))
