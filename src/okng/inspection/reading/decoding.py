"""From an image file to its samples: headers, pages, upright, with all their bits.

Pillow decodes, here and nowhere else. It keeps 8 of the 16 bits of a colour sample, so those files are decoded twice:
once for the high bytes, once for the low ones.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, TiffImagePlugin

from okng.inspection.reading.formats import (
    FORMATS,
    Encoded,
    File,
    UnreadableImage,
    blaming,
    located,
    named_page,
    page_of,
    state_of,
)
from okng.inspection.storage.urls import url_of

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

ONE_PAGE = (".png", ".jpg", ".jpeg", ".jfif", ".bmp")
"""Suffixes of files in storage that aren't brought just to count their pages, as they have one."""

Box = tuple[float, float, float, float]
"""Left, top, right and bottom of a part of an image, in pixels."""


class Header(NamedTuple):
    """What a file says of an image before it is decoded."""

    format: str
    mode: str  # Pillow's, but "LA" for grey with alpha of 16 bits
    size: tuple[int, int]  # height and width, upright
    pages: tuple[int, ...]  # of the whole file
    deep: bool  # more than 8 bits per sample

    @property
    def is_grey(self) -> bool:
        """Whether the image is stored without colour."""
        return self.mode in ("1", "L", "LA") or self.mode.startswith("I") or self.mode == "F"


def header(source: File) -> Header:
    """The header of an image file; it is kept for as long as the file stays as it is."""
    with blaming(source):
        if isinstance(source, Encoded):
            found: Header | None = source.known.get("header")
            if found is None:
                found = source.known["header"] = _read_header(source)
            return found
        state = state_of(located(source)[0])
        return _known_header(str(source), state.st_mtime_ns, state.st_size)


def each_page(source: File) -> list[File]:
    """The images in a file: itself, or its pages where there are several, or itself where it can't be read.

    Reduced copies and masks inside a TIFF are no pages, nor is what a telephone puts behind a JPEG.
    """
    url = url_of(source)
    if url is not None and (page_of(url)[1] is not None or url.partition("::")[0].lower().endswith(ONE_PAGE)):
        return [url]
    if isinstance(source, Encoded) or not named_page(source):
        with suppress(UnreadableImage):  # it is told of where it is decoded
            pages = header(source).pages
            if len(pages) > 1 and isinstance(source, Encoded):
                return [Encoded(source.content, page) for page in pages]
            if len(pages) > 1:
                return [Path(f"{source}[{page}]") if url is None else f"{url}[{page}]" for page in pages]
    return [source if url is None else url]


def decode(source: File) -> Image.Image | np.ndarray:
    """The image upright, as Pillow stores it; 16-bit colour as uint16 (H, W, 3), laid on black where transparent.

    16-bit grey with transparency is uint16 (H, W). Of several pages the first is taken unless one is named. Raises
    `UnreadableImage` for anything that is no complete image of `FORMATS`, or has more than Pillow's limit of 179
    megapixels, and for samples of 32 bits or with a sign that are below 0 or above 65535.
    """
    with blaming(source):
        with opened(source) as image:
            raw = _deep_colour(image)
            if not raw:
                return _in_range(upright(image))
            if raw == "LA;16B":  # two bytes of grey and two of alpha are four channels
                pairs = _samples(image, "RGBA").astype(np.uint16)  # (H, W, 4)
                return on_black(pairs[:, :, [0, 2]] << 8 | pairs[:, :, [1, 3]])[:, :, 0]
            bands, order = raw.replace("a", "A").split(";16")
            order = {"N": "L" if sys.byteorder == "little" else "B"}.get(order, order)
            high = _samples(image, f"{bands};16{order}").astype(np.uint16)
        with opened(source) as image:
            low = _samples(image, f"{bands};16{'B' if order == 'L' else 'L'}")
        samples = high << 8 | low  # (H, W, 3 or 4)
        return samples[:, :, :3] if "a" in raw else on_black(samples)  # with "a" it lies on black already


def decode_reduced(source: File, least: tuple[int, int]) -> tuple[Image.Image, Box | None]:
    """A JPEG upright, decoded at 1/2, 1/4 or 1/8 of its size, but no smaller than `least` (height, width).

    libjpeg-turbo does so by shorter cosine transforms, in a part of the time. Where a side is no multiple of the step
    the last pixels lie partly outside of the image: the second value is the part that is inside; None if the image had
    to be decoded whole. Raises `UnreadableImage` as `decode` does.
    """
    with blaming(source), opened(source) as image:
        turned, whole = orientation(image), image.size
        drafted = image.draft(None, least[::-1] if turned < 5 else least)
        if drafted is None or image.size == whole:
            return upright(image), None
        inside = drafted[1][2:]  # width and height
        spare = image.width - inside[0], image.height - inside[1]
        if turned >= 5:  # 5 to 8 swap the sides
            inside, spare = inside[::-1], spare[::-1]
        left = spare[0] if turned in (2, 3, 6, 7) else 0
        top = spare[1] if turned in (3, 4, 7, 8) else 0
        return upright(image), (left, top, left + inside[0], top + inside[1])


def digest(source: File) -> str:
    """16 hexadecimal digits that only the same content, under whatever name, and the same page of it has."""
    with blaming(source):
        if isinstance(source, Encoded):
            return _of_page(hashlib.sha256(source.content).hexdigest(), source.page)
        path, page = located(source)
        state = state_of(path)
        return _of_page(_known_digest(path, state.st_mtime_ns, state.st_size), page)


@contextmanager
def opened(source: File) -> Iterator[Image.Image]:
    """The image in a file at the page that is meant, not yet decoded."""
    file, page = located(source)
    if isinstance(file, Path):
        state_of(file)
    with Image.open(file, formats=FORMATS) as image:
        pages = _pages(image)
        if page is not None and page not in pages:
            raise OSError(0, f"it has no page {page}, but {len(pages)}, counted from 0")
        if wanted := pages[0] if page is None else page:
            image.seek(wanted)
        yield image


def orientation(image: Image.Image) -> int:
    """EXIF's orientation, 1 to 8, by the header; 1 where there is none or it is damaged."""
    if image.format == "TIFF":  # Pillow turns these by itself
        return 1
    try:
        # Not PNG's own `getexif`, which would decode all pixels to look for EXIF behind them.
        found = Image.Image.getexif(image).get(0x0112, 1)
    except Exception:  # damaged metadata spoils no pixels
        return 1
    return found if found in UPRIGHT else 1


def upright(image: Image.Image) -> Image.Image:
    """The image decoded and turned as its EXIF orientation asks for."""
    turned = orientation(image)  # before decoding, which may forget it
    image.load()
    return image.transpose(UPRIGHT[turned]) if turned in UPRIGHT else image


def is_deep(mode: str) -> bool:
    """Whether Pillow's `mode` has more than 8 bits per sample."""
    return mode.startswith("I") or mode == "F"


def keeps_bits(image: Image.Image) -> bool:
    """Whether decoding `image` by Pillow alone keeps all bits of its samples."""
    return not _deep_colour(image)


def _in_range(image: Image.Image) -> Image.Image:
    """`image`, unless it has whole numbers that no camera of up to 16 bits gives: they would all be black, or white."""
    if image.mode == "I":
        samples = np.asarray(image)  # (H, W)
        low, high = int(samples.min()), int(samples.max())
        if low < 0 or high > 65535:
            raise OSError(0, f"its samples go from {low} to {high}, not from 0 to 65535; save it with 8 or 16 bits")
    return image


@lru_cache(1 << 16)
def _known_header(path: str, changed: int, length: int) -> Header:
    """The header of a file in this state; a fit asks for it several times."""
    return _read_header(path)


def _read_header(source: File) -> Header:
    with opened(source) as image:
        width, height = image.size
        raw = _deep_colour(image)
        size = (width, height) if orientation(image) >= 5 else (height, width)  # 5 to 8 swap the sides
        mode, kind = "LA" if raw.startswith("LA") else image.mode, "JPEG" if image.format == "MPO" else image.format
        return Header(str(kind), mode, size, _pages(image), bool(raw) or is_deep(mode))


@lru_cache(1 << 10)
def _known_digest(path: Path, changed: int, length: int) -> str:
    """SHA-256 of a file in this state; each of its pages asks for it."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _of_page(sha256: str, page: int | None) -> str:
    return (sha256 if page is None else hashlib.sha256(f"{sha256}[{page}]".encode()).hexdigest())[:16]


def _pages(image: Image.Image) -> tuple[int, ...]:
    """The pages that are images of their own; the image is left at the page it was at."""
    count = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)
    if not isinstance(image, TiffImagePlugin.TiffImageFile):
        return tuple(range(count))
    here, pages = image.tell(), []
    for page in range(count):
        image.seek(page)
        if not image.tag_v2.get(254, 0) & 0b101:  # neither a reduced copy nor a mask
            pages.append(page)
    image.seek(here)
    return tuple(pages) or (0,)


def _deep_colour(image: Image.Image) -> str:
    """How 16-bit colour, or grey with alpha, lies in the file, such as "RGB;16B"; "" for anything else."""
    tiles = getattr(image, "tile", [])
    if image.mode not in ("RGB", "RGBA") or not tiles:
        return ""
    if isinstance(image, TiffImagePlugin.TiffImageFile) and image.tag_v2.get(284) == 2:
        if max(image.tag_v2.get(258, (8,))) > 8:
            raise OSError(0, "its colours lie in separate planes of more than 8 bits; save them interleaved")
        return ""
    codec, arguments = tiles[0].codec_name, tiles[0].args
    if codec == "ppm":
        return "RGB;16B" if arguments[1] > 255 else ""
    raw = str(arguments[0] if isinstance(arguments, tuple) else arguments)
    return raw if ";16" in raw else ""


def _samples(image: Image.Image, raw: str) -> np.ndarray:
    """Decode `image` as if its bytes lay as `raw` says, upright, uint8 (H, W, bands)."""
    for i, tile in enumerate(image.tile):  # type: ignore[attr-defined]
        codec, arguments = tile.codec_name, tile.args
        if codec == "ppm":
            codec, arguments = "raw", ("RGB;16B", 0, 1)
        arguments = (raw, *arguments[1:]) if isinstance(arguments, tuple) else raw
        image.tile[i] = tile._replace(codec_name=codec, args=arguments)  # type: ignore[attr-defined]
    return np.asarray(upright(image))


def on_black(samples: np.ndarray) -> np.ndarray:
    """Samples (H, W, n) laid on black by the last of two or four channels, alpha; three are colour alone."""
    if samples.shape[2] == 3:
        return samples
    colour, alpha = samples[:, :, :-1].astype(np.float32), samples[:, :, -1:].astype(np.float32)
    return np.rint(colour * (alpha / np.iinfo(samples.dtype).max)).astype(samples.dtype)
