"""`parts.onnx`: an ONNX model whose first field is okng's metadata, so that no ONNX package is needed to read it.

A protobuf message is a sequence of fields in any order. The first one here is a `metadata_props` entry "okng": the
manifest, the held-out calibration scores and a SHA-256 over every byte of the file, itself counted as zeros, as in a
.okng file. The graph follows. Changing the threshold replaces the first field and leaves the graph alone.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from okng.errors import OkngError
from okng.inspection.model_file import (
    BLANK,
    FORMAT,
    described_as_json,
    digest,
    manifest_of,
    read_bytes,
    what_it_is,
    write_atomically,
)
from okng.inspection.storage.urls import shown

LIMIT = 2**31 - 1  # bytes of a protobuf message
_METADATA, _KEY, _VALUE = 0x72, 0x0A, 0x12  # ModelProto.metadata_props; key and value of a StringStringEntryProto
_START = b'{"sha256": "'


def write_onnx(path: Path, graph: bytes, manifest: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
    """Write `graph`, a serialised ModelProto, atomically; float64 `arrays` come back bit for bit."""
    lists = {name: array.tolist() for name, array in arrays.items()}  # JSON writes floats so that they round-trip
    described = {"sha256": BLANK, "format": FORMAT, "manifest": manifest, "arrays": lists}
    text = described_as_json(described, arrays).encode()
    header = _field(_METADATA, _field(_KEY, b"okng") + _field(_VALUE, text))
    content = bytearray(header + graph)
    if len(content) > LIMIT:
        raise OkngError("this model is larger than the 2 GB an ONNX file can hold; fit again with a smaller one")
    at = len(header) - len(text) + len(_START)
    content[at : at + 64] = digest(content, at)
    write_atomically(path, content)


def read_onnx(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray], bytes]:
    """The manifest, the arrays and the graph; `OkngError` for a file not whole, not ours or from a later okng."""
    return parse_onnx(read_bytes(path, f"`okng export parts.okng -o {path}` makes it"), shown(path))


def parse_onnx(content: bytes, name: str) -> tuple[dict[str, Any], dict[str, np.ndarray], bytes]:
    """As `read_onnx`, from the file's bytes; `name` is for messages."""
    foreign = OkngError(f"{name} is not an ONNX file that `okng export` wrote, or it is damaged; export again")
    if content[:1] not in (b"\x08", bytes([_METADATA])):
        raise OkngError(f"{name} is no ONNX file but {what_it_is(content)}; give the file that `okng export` wrote")
    try:
        start, end = _enter(content, 0, _METADATA)
        key, key_end = _enter(content, start, _KEY)
        begin, stop = _enter(content, key_end, _VALUE)
    except (IndexError, ValueError) as error:
        raise foreign from error
    at = begin + len(_START)
    if content[key:key_end] != b"okng" or not content.startswith(_START, begin) or stop != end or at + 64 > stop:
        raise foreign
    if content[at : at + 64] != digest(content, at):
        raise OkngError(f"{name} is damaged (its checksum does not match); copy it again or export again")
    try:
        described = json.loads(content[begin:stop])
        arrays = {key: np.array(values, np.float64) for key, values in described["arrays"].items()}
        return manifest_of(described, name), arrays, content[end:]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise foreign from error


def _field(tag: int, content: bytes) -> bytes:
    """A protobuf field of bytes: tag, length in groups of seven bits, content."""
    length, groups = len(content), bytearray([tag])
    while length > 127:
        groups.append(length & 127 | 128)
        length >>= 7
    return bytes(groups + bytes([length])) + content


def _enter(content: bytes, at: int, tag: int) -> tuple[int, int]:
    """Where the content of the field at `at` begins and ends; `ValueError` if it is another field or cut off."""
    if content[at] != tag:
        raise ValueError("another field")
    length, shift, at = 0, 0, at + 1
    while content[at] > 127:
        length |= (content[at] & 127) << shift
        shift, at = shift + 7, at + 1
    length |= content[at] << shift
    if at + 1 + length > len(content):
        raise ValueError("cut off")
    return at + 1, at + 1 + length
