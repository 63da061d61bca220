import errno
import hashlib
import io
import json
import os
import pickle
import re
import resource
import struct
import zipfile

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from okng.errors import OkngError
from okng.inspection.model_file import parse_model, read_model, write_atomically, write_model
from okng.inspection.onnx_file import parse_onnx, write_onnx

MANIFEST = {"detector": {"name": "patchcore", "arguments": {"coreset": 0.01}}, "note": 'é "sha256": "x'}
TENSORS = {"bank": np.arange(12, dtype=np.float32).reshape(3, 4), "count": np.array(7)}


@pytest.fixture(scope="module")
def valid(tmp_path_factory):
    """The bytes of a model file."""
    path = tmp_path_factory.mktemp("model") / "parts.okng"
    write_model(path, MANIFEST, TENSORS)
    return path.read_bytes()


def test_round_trip(tmp_path):
    tensors = {
        **TENSORS,
        "strided": np.arange(20).reshape(4, 5).T[::2],
        "empty": np.zeros((0, 3), np.float16),
        "flags": np.array([True, False]),
        "big-endian": np.arange(3, dtype=">f8"),
    }
    write_model(tmp_path / "new" / "parts.okng", MANIFEST, tensors)
    manifest, read = read_model(tmp_path / "new" / "parts.okng")
    assert manifest == MANIFEST
    assert read.keys() == tensors.keys()
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(read[name], tensor)
        assert read[name].shape == tensor.shape
        assert read[name].dtype == tensor.dtype.newbyteorder("=")
        assert read[name].flags.writeable


def test_the_same_content_is_the_same_file(tmp_path, valid):
    for i in range(5):
        write_model(tmp_path / f"{i}.okng", MANIFEST, TENSORS)
        assert (tmp_path / f"{i}.okng").read_bytes() == valid


def test_safetensors_can_read_it_too(valid):
    np.testing.assert_array_equal(safetensors.numpy.load(valid)["bank"], TENSORS["bank"])


def test_headers_of_every_length_are_read_back(tmp_path):
    """The file begins with the header's length, which can look like the start of a pickle or of a zip."""
    path = tmp_path / "parts.okng"
    first = set()
    for padding in range(0, 800, 8):
        write_model(path, {"padding": "x" * padding}, {})
        first.add(path.read_bytes()[:1])
        assert read_model(path)[0] == {"padding": "x" * padding}
    assert {b"\x80", b"P"} <= first


def test_every_flipped_byte_is_refused(valid):
    for at in range(len(valid)):
        for bits in (1, 128, 255):
            damaged = bytearray(valid)
            damaged[at] ^= bits
            with pytest.raises(OkngError):
                parse_model(bytes(damaged), "parts.okng")


def test_every_truncation_is_refused(valid):
    for length in range(len(valid)):
        with pytest.raises(OkngError, match=r"parts\.okng is (no|damaged)"):
            parse_model(valid[:length], "parts.okng")
    with pytest.raises(OkngError, match="damaged"):
        parse_model(valid + b"\0", "parts.okng")


def signed(described, tensors=TENSORS):
    """A file with a digest that is right, whatever it holds; `described` lies where okng keeps its JSON."""
    text = described if isinstance(described, str) else json.dumps({"sha256": "0" * 64, **described})
    content = safetensors.numpy.save(tensors, {"okng": text})
    return sign(content)


def sign(content):
    mark = b'\\"sha256\\": \\"'
    at = content.index(mark) + len(mark)
    blank = content[:at] + b"0" * 64 + content[at + 64 :]
    return content[:at] + hashlib.sha256(blank).hexdigest().encode() + content[at + 64 :]


def test_a_later_format_says_what_to_do():
    manifest, _ = parse_model(signed({"format": 1, "manifest": {"a": 1}}), "parts.okng")
    assert manifest == {"a": 1}
    with pytest.raises(OkngError, match="of format 2, made by a later okng; in okng's clone run: git pull"):
        parse_model(signed({"format": 2, "manifest": {}}), "parts.okng")


@pytest.mark.parametrize(
    "described",
    [
        {"format": 0, "manifest": {}},
        {"format": "1", "manifest": {}},
        {"format": None, "manifest": {}},
        {"format": 1, "manifest": []},
        {"format": 1},
        {"manifest": {}},
        '["sha256": "' + "0" * 64 + '"]',
        '{"sha256": "' + "0" * 64 + '", "a": ' + "[" * 100_000,
    ],
)
def test_a_right_digest_over_nonsense(described):
    with pytest.raises(OkngError, match="not a file that okng writes"):
        parse_model(signed(described), "parts.okng")


def torch_zip():
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({}))
    return file.getvalue()


@pytest.mark.parametrize("content", [*(pickle.dumps([1], protocol) for protocol in (2, 3, 4, 5)), torch_zip()])
def test_pickles_are_refused_by_name(content):
    with pytest.raises(OkngError, match="a pickle or PyTorch file, which can run code"):
        parse_model(content, "parts.okng")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x00" * 8,
        b"\xff" * 40,
        b"parts are fine\n" * 9,
        pickle.dumps([1], 0),
        safetensors.numpy.save(TENSORS),
        safetensors.numpy.save(TENSORS, {"format": "pt"}),
        struct.pack("<Q", 2) + b"{}",
    ],
)
def test_other_files_are_refused(content):
    with pytest.raises(OkngError, match="okng model file"):
        parse_model(content, "parts.okng")


def saved(kind):
    file = io.BytesIO()
    Image.new("RGB", (9, 9)).save(file, kind)
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (saved("PNG"), "but a PNG image; give the file that `okng train` wrote"),
        (saved("JPEG"), "but a JPEG image"),
        (saved("BMP"), "but a BMP image"),
        (saved("TIFF"), "but a TIFF image"),
        ("Teile: sehr schön\n".encode() * 999, "but a text"),
        (b"<!DOCTYPE html><html>", "but a page of HTML"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "but a pointer of Git LFS: run `git lfs pull`"),
        (b"\x08\x08\x12\x07pytorch", "but an ONNX model, whose name ends in .onnx"),
        (b"\0" * 5000, "but nothing but zeros"),
        (b"", "but empty"),
        (bytes(range(1, 250)), "but of a kind that okng does not know"),
    ],
)
def test_what_a_file_really_is(content, what):
    with pytest.raises(OkngError, match=re.escape(f"parts.okng is no okng model file {what}")):
        parse_model(content, "parts.okng")
    with pytest.raises(OkngError, match=r"parts\.onnx is no"):
        parse_onnx(content, "parts.onnx")


def test_one_model_by_the_others_name(valid, tmp_path):
    with pytest.raises(OkngError, match=r"is no ONNX file but an okng model, whose name ends in \.okng"):
        parse_onnx(valid, "parts.onnx")
    write_onnx(tmp_path / "a.onnx", b"", MANIFEST, {})
    with pytest.raises(OkngError, match=r"is no okng model file but an ONNX model, whose name ends in \.onnx"):
        parse_model((tmp_path / "a.onnx").read_bytes(), "parts.okng")
    with pytest.raises(OkngError, match="its end is missing"):
        parse_model(valid[:40], "parts.okng")


def test_a_folder_and_a_missing_file(tmp_path):
    with pytest.raises(OkngError, match=r"is a folder; give the \.okng file"):
        read_model(tmp_path)
    with pytest.raises(OkngError, match=r"none\.okng does not exist; `okng train OK_IMAGES -o "):
        read_model(tmp_path / "none.okng")
    with pytest.raises(OkngError, match=r"can't be read: Not a directory"):
        (tmp_path / "file").touch()
        read_model(tmp_path / "file" / "parts.okng")


@settings(derandomize=True, deadline=None, max_examples=300)
@given(st.binary(max_size=200) | st.binary(max_size=100).map(lambda b: struct.pack("<Q", len(b) + 1) + b"{" + b))
def test_arbitrary_bytes_raise_nothing_else(content):
    with pytest.raises(OkngError) as raised:
        parse_model(content, "parts.okng")
    assert "\n" not in str(raised.value)


@settings(derandomize=True, deadline=None, max_examples=300)
@given(st.data())
def test_mutations_with_a_right_digest_raise_nothing_else(valid, data):
    """Past the digest, which anyone can compute, stand the JSON parsers and safetensors."""
    header = int.from_bytes(valid[:8], "little")
    content = bytearray(valid)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(8, 8 + header - 1))
        if data.draw(st.booleans()):
            content[at] = data.draw(st.integers(0, 255))
        else:
            content[at : at + data.draw(st.integers(0, 9))] = data.draw(
                st.sampled_from([b"9", b"-1", b"[", b"}", b'"', b"null", b"1e999", b"F64", b"BF16", b"\\u0000"])
            )
    content[:8] = struct.pack("<Q", header + len(content) - len(valid))
    try:
        parse_model(sign(bytes(content)), "parts.okng")
    except ValueError:  # the mark of the digest is gone
        assert b'\\"sha256\\": \\"' not in content
    except OkngError as error:
        assert "\n" not in str(error)


@pytest.fixture
def old_file(tmp_path):
    """A file that must outlive whatever goes wrong when it is to be replaced."""
    path = tmp_path / "parts.okng"
    path.write_bytes(b"old")
    yield path
    assert path.read_bytes() == b"old"
    assert [file.name for file in tmp_path.iterdir()] == ["parts.okng"]  # and nothing half-written beside it


@pytest.mark.parametrize("function", ["fsync", "replace"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EIO])
def test_a_failed_write_leaves_the_old_file(old_file, monkeypatch, function, code):
    def fail(*_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, function, fail)
    with pytest.raises(OkngError, match=rf"parts\.okng can't be written: {os.strerror(code)}"):
        write_model(old_file, MANIFEST, TENSORS)


def test_a_disk_that_is_full_leaves_the_old_file(old_file):
    """The real thing, as near as an unprivileged test can get: the kernel refuses to write past a limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(OkngError, match=r"parts\.okng can't be written: File too large"):
            write_model(old_file, MANIFEST, {"bank": np.zeros(1_000_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_an_interrupted_write_leaves_the_old_file(old_file, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_model(old_file, MANIFEST, TENSORS)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write to a read-only folder")
def test_a_read_only_folder_leaves_the_old_file(old_file):
    old_file.parent.chmod(0o555)
    try:
        with pytest.raises(OkngError, match=r"parts\.okng can't be written: Permission denied"):
            write_model(old_file, MANIFEST, TENSORS)
    finally:
        old_file.parent.chmod(0o755)


def test_targets_that_are_no_files(tmp_path, old_file):
    for path in (tmp_path, "/dev/null"):
        with pytest.raises(OkngError, match="is a folder or a device; give the name of a file"):
            write_atomically(path, b"new")
    with pytest.raises(OkngError, match=r"can't be written: (Not a directory|File exists)"):
        write_atomically(old_file / "parts.okng", b"new")


def test_the_umask_is_respected(tmp_path):
    old = os.umask(0o027)
    try:
        write_atomically(tmp_path / "parts.okng", b"new")
    finally:
        os.umask(old)
    assert (tmp_path / "parts.okng").stat().st_mode & 0o777 == 0o640


def test_a_link_stays_one_and_who_may_read_it_stays(tmp_path):
    model, link = tmp_path / "v7.okng", tmp_path / "current.okng"
    model.write_bytes(b"old")
    model.chmod(0o600)
    link.symlink_to("v7.okng")
    write_atomically(link, b"new")
    assert link.is_symlink() and model.read_bytes() == b"new" and model.stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in tmp_path.iterdir()) == ["current.okng", "v7.okng"]


@pytest.mark.parametrize(
    ("manifest", "tensors", "named"),
    [
        ({}, {"detector.bank": np.array([1, np.nan], np.float32)}, "detector.bank"),
        ({}, {"detector.bank": np.array([1, -np.inf], np.float32)}, "detector.bank"),
        ({}, {"detector.radius": np.array(np.nan)}, "detector.radius"),
        ({"calibration": {"threshold": float("nan")}}, {}, "what describes the model"),
        ({"calibration": {"threshold": float("inf")}}, {}, "what describes the model"),
    ],
)
def test_what_is_no_number_is_not_written(tmp_path, manifest, tensors, named):
    with pytest.raises(OkngError, match=f"{named} holds .* no number.*; fit again"):
        write_model(tmp_path / "parts.okng", manifest, tensors)
    assert list(tmp_path.iterdir()) == []


def test_a_bound_that_is_not_known_is_written(tmp_path):
    write_model(tmp_path / "parts.okng", {}, {"detector.radius": np.array(np.inf, np.float32)})
    assert np.isinf(read_model(tmp_path / "parts.okng")[1]["detector.radius"])
