"""Which files are images and which page of one is meant: the decoders there are, and what is wrong with the rest."""

from __future__ import annotations

import io
import os
import re
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image, Jpeg2KImagePlugin, TiffImagePlugin, UnidentifiedImageError, WebPImagePlugin  # noqa: F401

from okng.errors import OkngError
from okng.inspection.storage.urls import shown, url_of

with suppress(ImportError):  # Pillow before 11.3 has none
    from PIL import AvifImagePlugin  # noqa: F401
with suppress(ImportError):  # the extra `heif`
    import pi_heif

    pi_heif.register_heif_opener()

Image.preinit()
# Only these decoders meet a file, whatever it is called; some of Pillow's others start programs.
HARMLESS = ("PNG", "JPEG", "BMP", "GIF", "PPM", "TIFF", "WEBP", "JPEG2000", "AVIF", "HEIF")
FORMATS = tuple(name for name in HARMLESS if name in Image.OPEN)

# Pillow warns of odd metadata and of images above half its size limit; nobody here can act on that. Once for
# all, because `warnings.catch_warnings` is not safe in the threads that decode.
warnings.filterwarnings("ignore", module=r"PIL\.")


class UnreadableImage(OkngError):
    """A file that is not a whole image: `path` and `reason` in one line."""

    def __init__(self, path: str, reason: str):
        super().__init__(f"{path}: {reason}")
        self.path, self.reason = path, reason


@dataclass(frozen=True)
class Encoded:
    """An image file held in memory, and which of its pages is meant (None: the first).

    `known` is what was found out of it already, such as its header, which is asked for several times.
    """

    content: bytes = field(repr=False)
    page: int | None = None
    known: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    def __str__(self) -> str:
        return "bytes" if self.page is None else f"bytes[{self.page}]"


File = Path | str | Encoded
"""An image file. A page of one that has several is a path of its own: "scan.tif[3]", counted from 0."""


def exists(path: Path) -> bool:
    """Whether `path` is a file, a folder, or a page of a file; of what is in storage only listing it will say."""
    return url_of(path) is not None or path.exists() or named_page(path) is not None


@contextmanager
def blaming(source: object) -> Iterator[None]:
    """Whatever goes wrong inside is the image's fault: decoders meet any bytes and raise any error."""
    try:
        yield
    except OkngError:
        raise
    except Exception as error:
        name = shown(source) if isinstance(source, Path | str | Encoded) else "pixels"
        raise UnreadableImage(printable(name), _reason(error, source)) from error


def printable(name: str) -> str:
    """A file's name in one line: it can hold a line break, and what follows would pass for a line of ours."""
    return name if name.isprintable() else ascii(name)


def located(source: File) -> tuple[Any, int | None]:
    """What Pillow shall open, a path or a stream, and the page that is meant."""
    if isinstance(source, Encoded):
        return io.BytesIO(source.content), source.page
    if (url := url_of(source)) is not None:
        from okng.inspection.storage.stored import fetched

        file, page = page_of(url)
        return fetched(file), page
    return named_page(source) or (Path(source), None)


def state_of(path: Path) -> os.stat_result:
    """What the file system says of a file; refuses pipes and devices, for opening one might never return."""
    state = path.stat()
    if not (stat.S_ISREG(state.st_mode) or stat.S_ISDIR(state.st_mode)):
        raise OSError(0, "it is a pipe or a device, not a file")
    return state


def named_page(path: Path | str) -> tuple[Path, int] | None:
    """The file and the page that "scan.tif[3]" means, unless a file is really called so."""
    file, page = page_of(str(path))
    if page is None or Path(path).exists() or not Path(file).is_file():
        return None
    return Path(file), page


def page_of(name: str) -> tuple[str, int | None]:
    """A name without the page it ends in, and that page: "scan.tif[3]" is page 3."""
    match = re.fullmatch(r"(.+)\[(\d{1,9})\]", name, re.DOTALL)
    return (name, None) if match is None else (match[1], int(match[2]))


def _reason(error: Exception, source: object) -> str:
    match error:
        case UnidentifiedImageError():
            why = _unknown(source) if isinstance(source, Path | str | Encoded) else ""
            return why or f"holds no image of a format okng reads ({', '.join(FORMATS)})"
        case Image.DecompressionBombError():
            return "too large to decode (over 179 megapixels); crop or tile it"
        case MemoryError():
            return "too large for this machine's memory; crop or tile it"
        case OSError(strerror=str(strerror)):
            return f"can't be read ({strerror})"
    return f"damaged ({(str(error).splitlines() or [type(error).__name__])[0]}); copy it again"


def _unknown(source: File) -> str:
    """Why Pillow knows nothing of a file: it is empty, or a TIFF of such samples; "" for any other."""
    try:
        place, _ = located(source)
        with open(place, "rb") if isinstance(place, Path) else place as file:  # noqa: PTH123
            head = file.read(8)
            if not head:
                return "is empty; copy it again"
            tags = TiffImagePlugin.ImageFileDirectory_v2(head)
            file.seek(tags.next)
            tags.load(file)
        bits = max(tags.get(258, (1,)))
        kind = {2: "signed ", 3: "floating-point "}.get(max(tags.get(339, (1,))), "")
        return (
            f"is a TIFF of {tags.get(277, 1)} bands of {bits}-bit {kind}samples, which okng doesn't read; "
            "save it with 8 or 16 bits in grey or RGB"
        )
    except Exception:
        return ""
