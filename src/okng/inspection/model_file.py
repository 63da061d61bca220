"""One file for a fitted detector: a safetensors file with a JSON manifest in its header, whole or refused.

A digest over every byte of the file is written into the header, so a flipped bit anywhere is found before a
single value is used. Nothing in the file is code; a pickle is refused by name.
"""

from __future__ import annotations

import codecs
import contextlib
import glob
import hashlib
import json
import os
import secrets
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

from okng.errors import OkngError, no_number
from okng.inspection.storage.urls import shown, url_of

FORMAT = 1
BLANK = "0" * 64  # stands in the digest's place while the digest is computed
_MARK = b'\\"sha256\\": \\"'  # what precedes it: JSON in a JSON string


def write_model(path: Path, manifest: dict[str, Any], tensors: dict[str, np.ndarray]) -> None:
    """Write atomically: `path` holds the old file or the new one, never a part. `manifest` is any JSON.

    `OkngError`, and nothing is written, if there is anything in it that is no number.
    """
    in_order = {name: np.asarray(array, order="C") for name, array in tensors.items()}
    described = described_as_json({"sha256": BLANK, "format": FORMAT, "manifest": manifest}, in_order)
    content = bytearray(safetensors.numpy.save(in_order, {"okng": described}))
    at = content.index(_MARK) + len(_MARK)
    content[at : at + 64] = digest(content, at)
    write_atomically(path, content)


def check_ending(path: Path, exported: bool = False) -> None:
    """`OkngError` unless `path` ends as such a model file does: by that an exported one is told from a .okng file."""
    wanted = ".onnx" if exported else ".okng"
    if path.suffix == wanted:
        return
    if path.suffix == ".onnx":
        raise OkngError(f"{shown(path)} would be a PyTorch model; save it as .okng, then run: okng export")
    raise OkngError(f"the name of such a model ends in {wanted}, unlike {shown(path)}; save it as {path.name}{wanted}")


def described_as_json(described: dict[str, Any], arrays: dict[str, np.ndarray]) -> str:
    """What a header says, as JSON; `OkngError` if there is anything in it, or in `arrays`, that is no number.

    A single infinite number is allowed in `arrays`: a bound that is not known, such as PatchCore's radius.
    """
    for name, array in arrays.items():
        finite = array.dtype.kind != "f" or np.isfinite(array).all() or (array.size == 1 and not np.isnan(array).any())
        if not finite:
            raise no_number(f"{name} holds values that are no numbers")
    try:
        return json.dumps(described, allow_nan=False)
    except ValueError as error:
        raise no_number("what describes the model holds a value that is no number") from error


def read_model(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The manifest and the tensors; `OkngError` for a file not whole, not ours or from a later okng."""
    return parse_model(read_bytes(path, f"`okng train OK_IMAGES -o {path}` makes it"), shown(path))


def parse_model(content: bytes, name: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """As `read_model`, from the file's bytes; `name` is for messages."""
    length = int.from_bytes(content[:8], "little")  # of the JSON header, which follows
    if content[8:9] != b"{" and content[:2] in (b"PK", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"):
        raise OkngError(f"{name} is a pickle or PyTorch file, which can run code; give a file that okng wrote")
    if content[8:9] != b"{":
        raise OkngError(
            f"{name} is no okng model file but {what_it_is(content)}; give the file that `okng train` wrote"
        )
    if length > len(content) - 8:
        raise OkngError(f"{name} is not a whole okng model file: its end is missing; copy it again or fit again")
    at = content.find(_MARK, 8, 8 + length) + len(_MARK)
    if at < len(_MARK):
        raise OkngError(f"{name} is not an okng model file, or it is damaged; fit again")
    if content[at : at + 64] != digest(content, at):
        raise OkngError(f"{name} is damaged (its checksum does not match); copy it again or fit again")
    try:
        described = json.loads(json.loads(content[8 : 8 + length])["__metadata__"]["okng"])
        return manifest_of(described, name), safetensors.numpy.load(content)
    except (ValueError, KeyError, TypeError, RecursionError, safetensors.SafetensorError) as error:
        raise OkngError(f"{name} is not a file that okng writes; fit again") from error


def manifest_of(described: dict[str, Any], name: str) -> dict[str, Any]:
    """The manifest in what a header says; `OkngError` if a later okng wrote it, `ValueError` if none did."""
    version, manifest = described["format"], described["manifest"]
    if isinstance(version, int) and version > FORMAT:
        update = "in okng's clone run: git pull && pip install ."
        raise OkngError(f"{name} is of format {version}, made by a later okng; {update}")
    if version != FORMAT or not isinstance(manifest, dict):
        raise ValueError("never written")
    return manifest


def digest(content: bytes | bytearray, at: int) -> bytes:
    """SHA-256 of `content`, 64 hexadecimal digits; the 64 bytes from `at` on, where it stands, count as zeros."""
    running = hashlib.sha256(memoryview(content)[:at])
    running.update(BLANK.encode())
    running.update(memoryview(content)[at + 64 :])
    return running.hexdigest().encode()


def read_bytes(path: Path, remedy: str) -> bytes:
    """The whole file; the `OkngError` for one that is missing ends with `remedy`."""
    if (url := url_of(path)) is not None:
        from okng.inspection.storage.stored import read

        return read(url)
    try:
        return Path(path).read_bytes()
    except IsADirectoryError as error:
        raise OkngError(f"{path} is a folder; give the .okng file, or the .onnx one") from error
    except FileNotFoundError as error:
        raise OkngError(f"{path} does not exist; {remedy}") from error
    except OSError as error:
        raise OkngError(f"{path} can't be read: {error.strerror or error}") from error


def write_atomically(path: Path, content: bytes | bytearray | Iterable[bytes]) -> None:
    """Replace `path` by `content`, of which parts may come one by one, in one step.

    A link stays one, and what it leads to is replaced; who may read the file stays as it was. An `OkngError` leaves
    what was there.
    """
    parts = [content] if isinstance(content, bytes | bytearray) else content
    if (url := url_of(path)) is not None:
        from okng.inspection.storage.stored import put

        put(url, b"".join(parts))
        return
    temporary = None
    try:
        path = Path(os.path.realpath(path)) if Path(path).is_symlink() else Path(path)
        if path.exists() and not path.is_file():  # renaming onto /dev/null would replace it
            raise OkngError(f"{path} is a folder or a device; give the name of a file")
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{short_name(path.name, 240)}.{secrets.token_hex(4)}")  # `remove` knows such names
        with temporary.open("xb") as file:
            file.writelines(parts)
            file.flush()
            os.fsync(file.fileno())
        if path.exists():
            temporary.chmod(stat.S_IMODE(path.stat().st_mode))
        temporary.replace(path)
    except OSError as error:
        raise OkngError(f"{path} can't be written: {error.strerror or error}") from error
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)


KINDS = (
    (b"\x89PNG", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"GIF8", "a GIF image"),
    (b"BM", "a BMP image"),
    (b"II*\0", "a TIFF image"),
    (b"MM\0*", "a TIFF image"),
    (b"\x1f\x8b", "a gzip archive: unpack it"),
    (b"\x89HDF", "an HDF5 file"),
    (b"%PDF", "a PDF"),
    (b"version https://git-lfs", "a pointer of Git LFS: run `git lfs pull`"),
    (b"<", "a page of HTML or XML, as a failed download leaves"),
)
"""How files begin that are taken for models."""


def what_it_is(content: bytes) -> str:
    """A guess, by its first bytes, at what is no model file of the kind that was asked for."""
    if not content.strip(b"\0"):
        return "nothing but zeros, as a failed copy leaves" if content else "empty"
    if content[8:9] == b"{":
        return "an okng model, whose name ends in .okng"
    if content[:1] == b"\x08" or (content[:1] == b"r" and b"okng" in content[:32]):
        return "an ONNX model, whose name ends in .onnx"
    for start, kind in KINDS:
        if content.startswith(start):
            return kind
    head = content[:4096]
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)  # which may end within a letter
    except UnicodeDecodeError:
        return "of a kind that okng does not know"
    return "of a kind that okng does not know" if any(byte < 9 for byte in head) else "a text"


def remove(path: Path) -> None:
    """Remove `path`, if it is there, and what killed processes left of writing it."""
    path.unlink(missing_ok=True)
    for leftover in path.parent.glob(f".{glob.escape(short_name(path.name, 240))}.{'[0-9a-f]' * 8}"):
        leftover.unlink(missing_ok=True)


def short_name(name: str, length: int) -> str:
    """A file's `name` cut to `length` bytes, for what is put before or behind it: file systems allow 255 in all."""
    return os.fsencode(name)[:length].decode(errors="ignore") if len(os.fsencode(name)) > length else name
