"""Finding image files, for the line and the lab alike."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import warnings
from collections import Counter
from collections.abc import Iterator
from heapq import merge
from pathlib import Path

from okng.errors import OkngError, OkngWarning
from okng.inspection.reading.formats import FORMATS, exists, page_of
from okng.inspection.storage.urls import names_image, shown, url_of

SUFFIXES_OF = {"JPEG2000": (".jp2", ".j2k"), "AVIF": (".avif",), "HEIF": (".heic", ".heif", ".hif")}
IMAGE_SUFFIXES = (
    ".png", ".jpg", ".jpeg", ".jfif", ".bmp", ".tif", ".tiff", ".webp", ".pgm", ".ppm", ".gif",
    *(suffix for name, suffixes in SUFFIXES_OF.items() if name in FORMATS for suffix in suffixes),
)  # fmt: skip
OTHER_SUFFIXES = {
    *(suffix for suffixes in SUFFIXES_OF.values() for suffix in suffixes if suffix not in IMAGE_SUFFIXES),
    ".3fr", ".arw", ".cr2", ".cr3", ".dng", ".erf", ".nef", ".orf", ".pef", ".raf", ".raw", ".rw2", ".srw",  # raw
    ".apng", ".cin", ".dcm", ".dds", ".dicom", ".dpx", ".eps", ".exr", ".fits", ".hdr", ".ico", ".jls", ".jpe",
    ".jpf", ".jpx", ".jxl", ".jxr", ".mat", ".mpo", ".nii", ".npy", ".npz", ".nrrd", ".pam", ".pbm", ".pcx", ".pfm",
    ".pnm", ".psb", ".psd", ".qoi", ".sgi", ".svg", ".svs", ".tga", ".wdp", ".wmf", ".xcf",
    ".avi", ".m4v", ".mkv", ".mov", ".mp4", ".webm",
}  # fmt: skip
"""What holds pictures too, and is left out with a word."""
LISTS = (".txt", ".csv", ".json")

SORTED_AT_ONCE = 10_000  # names of files
OVERLAYS_MARK = ".okng-overlays"
"""A folder with a file of this name holds pictures that okng drew over images."""


def find_images(folder: Path, strict: bool = False) -> list[Path]:
    """All image files in `folder`, then those of each folder in it; an empty list where there are none.

    See `each_found`, which does not hold them all.
    """
    return list(each_found(folder, strict))


def each_found(folder: Path, strict: bool = False) -> Iterator[Path]:
    """The image files in `folder`, then those of each folder in it, one by one.

    Names are in natural order (`2.png` before `10.png`). Hidden files and folders (`._x.png`,
    `.ipynb_checkpoints`) are left out, and so are folders of okng's own overlays. Linked folders are followed, but no
    folder is visited twice. Files of formats okng doesn't read are counted in an `OkngWarning`, and so is a folder
    below or a link that can't be read, unless `strict`. Raises `OkngError` for a `folder` that cannot be read.

    All folders are listed before the first image is given: one that is moved into a folder below, while others are
    still looked at, does not come a second time.
    """
    others: Counter[str] = Counter()
    for inside, packed in list(_walk(folder, set(), strict)):
        for name in _in_order(packed):
            if is_image(name):
                yield inside / name
            elif suffix := other_suffix(name):
                others[suffix] += 1
    warn_of_others(others, folder)


def other_suffix(name: str) -> str:
    """The suffix of a file that holds a picture okng doesn't read; "" of any other."""
    suffix = Path(name).suffix.lower()
    return suffix if suffix in OTHER_SUFFIXES else ""


def warn_of_others(others: Counter[str], place: object) -> None:
    """Say how many files there are by each `other_suffix`, which are left out of `place`."""
    if not others:
        return
    kinds = ", ".join(f"{suffix} {count}" for suffix, count in others.most_common())
    heif = "; .heic is read after: pip install pi-heif" if {".heic", ".heif", ".hif"} & others.keys() else ""
    total = others.total()
    _warn(
        f"{total} file{'s'[: total != 1]} of formats okng doesn't read left out of {place} ({kinds}); "
        f"save them as PNG{heif}"
    )


def is_image(name: str) -> bool:
    """Whether a file of this name is an image: not hidden, one of `IMAGE_SUFFIXES` in either case."""
    return not name.startswith(".") and name.lower().endswith(IMAGE_SUFFIXES)


def subfolders(folder: Path) -> list[Path]:
    """The folders directly in `folder`, without hidden ones, in natural order; errors as in `find_images`."""
    return [folder / name for name in _within(folder, strict=False)[1]]


def natural_order(name: str) -> tuple[list[str | int], str]:
    """A sort key that reads digits as numbers; the plain text decides between `1.png` and `01.png`."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)], name


def read_list(path: Path) -> list[Path | str]:
    """The images that a list names: a .txt with one path a line, a .csv with a column "path", a .json list of paths.

    Paths are relative to the list's folder or, where there is no such file, to the working folder; URLs of storage are
    taken as they are, if they are called as images are.
    """
    try:
        text = path.read_text("utf-8-sig")
        if path.suffix.lower() == ".csv":
            names = [row["path"] for row in csv.DictReader(io.StringIO(text))]  # a name may go over lines
        else:
            names = json.loads(text) if path.suffix.lower() == ".json" else text.split("\n")
            if not isinstance(names, list):
                raise TypeError(names)
        named = [url_of(name.strip()) or Path(name.strip()).expanduser() for name in names if name.strip()]
    except UnicodeDecodeError as error:
        raise OkngError(f"{path} is no text in UTF-8; save the list as UTF-8, in Excel as CSV UTF-8") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError, csv.Error) as error:
        raise OkngError(
            f"{path} is no list of images; give images, folders, a .txt with one path a line, a .csv with a column "
            "named path, or a .json list of paths"
        ) from error
    for name in named:
        if isinstance(name, str) and not names_image(page_of(name)[0]):
            raise OkngError(f"{path} names {shown(name)}, which is called as no image is; a list names single images")
    found = [beside if isinstance(name, Path) and exists(beside := path.parent / name) else name for name in named]
    if not any(exists(Path(name)) for name in found):
        raise OkngError(f"{path} names no file that is there; its paths are relative to its folder, or to this one")
    return found


def _walk(folder: Path, seen: set[Path], strict: bool) -> Iterator[tuple[Path, list[bytes]]]:
    """`folder`, then those below it, none hidden, in natural order, each with the packed names of its files."""
    real = folder.resolve()
    if real in seen:  # a link back up, or two links to one place
        return
    top = not seen
    seen.add(real)
    try:
        packed, folders = _within(folder, strict)
    except OkngError as error:
        if top or strict:
            raise
        _warn(f"skipped: {error}")
        return
    yield folder, packed
    for name in folders:
        yield from _walk(folder / name, seen, strict)


def _within(folder: Path, strict: bool) -> tuple[list[bytes], list[str]]:
    """The names of the files in `folder`, packed for `_in_order`, and of the folders in natural order; none hidden.

    Those of files are held as bytes: of a million they take 10 to 20 MB, where a list of paths would take 500. A link
    that leads nowhere is left out; one that can't be followed too, with a warning, or an error if `strict`. A folder of
    okng's own overlays has none.
    """
    folders: list[str] = []
    files: list[str] = []
    packed: list[bytes] = []

    def pack() -> None:
        packed.append("/".join(sorted(files, key=natural_order)).encode("utf-8", "surrogateescape"))
        files.clear()

    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name == OVERLAYS_MARK:
                    return [], []
                if entry.name.startswith("."):
                    continue
                try:
                    is_folder, is_file = entry.is_dir(), entry.is_file()  # a pipe or a device is neither
                except OSError as error:
                    line = f"cannot read {entry.path} ({error.strerror}); check where it leads and its permissions"
                    if strict:
                        raise OkngError(line) from error
                    _warn(f"skipped: {line}")
                    continue
                if is_folder:
                    folders.append(entry.name)
                elif is_file:
                    files.append(entry.name)
                    if len(files) == SORTED_AT_ONCE:
                        pack()
    except OSError as error:
        raise OkngError(
            f"cannot read folder {error.filename} ({error.strerror}); check its path and permissions"
        ) from error
    if files:
        pack()
    return packed, sorted(folders, key=natural_order)


def _in_order(packed: list[bytes]) -> Iterator[str]:
    """The names that `_within` packed, in natural order."""
    return merge(*map(_unpacked, packed), key=natural_order)


def _unpacked(names: bytes) -> Iterator[str]:
    """The names that stand between slashes, which no name holds."""
    begin = 0
    while begin < len(names):
        end = names.find(b"/", begin)
        end = len(names) if end < 0 else end
        yield names[begin:end].decode("utf-8", "surrogateescape")
        begin = end + 1


def _warn(line: str) -> None:
    warnings.warn(line, OkngWarning, stacklevel=3)
