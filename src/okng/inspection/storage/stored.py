"""What lies in storage, by fsspec's URLs: listed folder by folder, brought one by one, kept within a budget.

`s3://bucket/parts`, `gs://…`, `az://…`, `https://…`, and archives: `zip://part.png::images.zip`, also of an archive
that is itself in storage. fsspec is imported once such a URL is met.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
import secrets
import threading
import warnings
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from okng.errors import OkngError, OkngWarning, in_one_line
from okng.inspection.reading.formats import UnreadableImage
from okng.inspection.storage.cache import GB, Cache, bytes_in
from okng.inspection.storage.urls import PACKAGES, archive_scheme, name_in, names_image, shown, url_of, without_secrets

WRITABLE = ("s3", "gs", "gcs", "az", "abfs")
MARKS = (
    "ETag", "etag", "Content-MD5", "Digest", "Last-Modified", "LastModified", "last_modified", "updated", "CRC",
    "mtime", "state",
)  # fmt: skip
"""What changes with a file; a server that tells none of them may have another one each time."""
AT_ONCE = 16  # files on their way
AGAIN = 2.0  # seconds after which storage is asked again for a file: one reading opens it more than once
OF_AN_ARCHIVE = 600.0  # as AGAIN, for the files in an archive that was listed

_archives = threading.RLock()  # a file that is open once, and sought in


def find_stored(url: str) -> Iterator[str]:
    """The URLs of the images at or below `url`, in `find_images`' order; a folder is listed when it is its turn.

    Files of formats okng doesn't read are counted in an `OkngWarning`. Raises `OkngError` for what can't be listed, and
    where there are no images.
    """
    from okng.inspection.reading.files import other_suffix, warn_of_others

    if names_image(url):
        yield url
        return
    count, others = 0, Counter[str]()
    for path, _ in _below(url):
        if names_image(path):
            count += 1
            yield path
        elif suffix := other_suffix(name_in(path)):
            others[suffix] += 1
    warn_of_others(others, shown(url))
    if not count:
        raise OkngError(f"{shown(url)} holds no images")


def fetched(url: str, within: float = AGAIN) -> Path:
    """A copy of the file at `url`, which lasts until others need its room; `UnreadableImage` if there is none.

    Storage is asked whether it has changed, unless this process has asked in the last `within` seconds.
    """
    url = _FULL.get(url) or url
    if shown(url) != url and _FULL.setdefault(shown(url), url) != url:
        _FULL[shown(url)] = ""  # two go by this name
    kept = _CACHE.known(url, within)
    if kept is not None:
        return kept
    try:
        files, path = _opened(url, within and OF_AN_ARCHIVE)
        with _turn(files):
            if not within or _CACHE.known(url, math.inf):
                files.invalidate_cache(path)
            info = files.info(path)
        if info["type"] != "file":
            raise IsADirectoryError(0, "it is a folder")
        target = _CACHE.folder / f"{_digest(url, _marked(files, info))}{Path(name_in(url)).suffix}"
        if not target.exists():
            if info.get("size"):
                _CACHE.make_room(shown(url), info["size"])
            _bring(files, path, target)
            if not info.get("size"):  # nobody has told it before
                _room_for(url, target)
    except OkngError:
        raise
    except Exception as error:
        raise UnreadableImage(shown(url), f"can't be read ({_why(error)})") from error
    _CACHE.keep(url, target)
    return target


def _room_for(url: str, target: Path) -> None:
    try:
        _CACHE.make_room(shown(url), target.stat().st_size)
    except OkngError:
        target.unlink()
        raise


def brought(url: str) -> Path:
    """A folder with a copy of all that lies at or below `url`, for what needs every file of it, as training does.

    It goes on with what was brought before, and waits for another process that brings the same. The copy stays until
    this process ends. Raises `OkngError`; also where that is more than may be kept.
    """
    everything = dict(_below(url))
    if not everything:
        raise OkngError(f"{shown(url)} is empty, or there is nothing of this name")
    with _told(url):
        files, top = _opened(url)
        with ThreadPoolExecutor(AT_ONCE) as pool:
            asked = pool.map(lambda path: _asked(files, path, everything[path]), everything)
        everything = dict(zip(everything, asked, strict=True))
    top = top.rstrip("/")
    size = sum(info.get("size") or 0 for info in everything.values())
    key = hashlib.sha256("".join(_digest(path, info) for path, info in everything.items()).encode()).hexdigest()[:24]
    root = shown(url).partition("::")[0].rstrip("/")
    name = name_in(url.partition("::")[2]).partition(".")[0] if root.endswith(":") else root.rpartition("/")[2]
    whole, part = _CACHE.folder / key, _CACHE.folder / f"{key}.partial"

    def bring(given: str) -> None:
        path = _opened(given)[1]
        target = part / name / (path.removeprefix(top).lstrip("/") or name_in(path))
        if not target.resolve().is_relative_to(part.resolve()):
            raise OkngError(f"{shown(given)} would lie outside of its folder; take it out")
        if not target.exists():
            _bring(files, path, target)

    with _told(url), _CACHE.turn(key, shown(url)):
        if not whole.is_dir():
            _CACHE.make_room(shown(url), max(0, size - bytes_in(part)))
            warnings.warn(
                f"bringing {len(everything)} files, {size / GB:.2g} GB, from {shown(url)}", OkngWarning, stacklevel=2
            )
            with ThreadPoolExecutor(AT_ONCE) as pool:
                for done in [pool.submit(bring, path) for path in everything]:
                    done.result()
            part.rename(whole)
        with contextlib.suppress(OSError):
            os.utime(whole)  # it was used
    return whole / name


def read(url: str) -> bytes:
    """The bytes that are at `url` now; raises `OkngError`."""
    with _told(url):
        return fetched(url, 0).read_bytes()


def put(url: str, content: bytes | bytearray) -> None:
    """Make `content` what is at `url`, all or nothing; raises `OkngError`."""
    files, path = _to_write(url)
    with _told(url, "written"):
        files.pipe_file(path, bytes(content))
    _CACHE.forget(url)


def exists(url: str) -> bool:
    """Whether something is at `url`; raises `OkngError` where nobody may ask."""
    with _told(url):
        files, path = _opened(url)
        files.invalidate_cache(path)
        found: bool = files.exists(path)
        return found


def check_writable(url: str) -> None:
    """Find out by an empty file beside it, which is removed, that `url` can be written."""
    files, path = _to_write(url)
    probe = f"{path}.{secrets.token_hex(4)}"
    with _told(url, "written"):
        files.pipe_file(probe, b"")
    with contextlib.suppress(Exception):
        files.rm_file(probe)


_CACHE = Cache()
_FULL: dict[str, str] = {}
"""The URLs that this process was given, by what of them is shown: results are named so, and drawn later."""


def _below(url: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The URL of each file at or below `url`, not hidden, and what is known of it; files come before folders."""
    from okng.inspection.reading.files import natural_order

    with _told(url):
        files, top = _opened(url, 0)
    behind = "".join(url.partition("::")[1:])
    folders, links = [top], 0
    while folders:
        folder = folders.pop()
        with _told(url):
            with _turn(files):
                files.invalidate_cache(folder)
                entries = files.ls(folder, detail=True)
            visible = [entry for entry in entries if entry["name"] == "." or not name_in(entry["name"]).startswith(".")]
            visible.sort(key=lambda entry: natural_order(name_in(entry["name"])))
        for entry in visible:
            if entry.get("linkname"):
                links += 1
            elif entry["type"] == "file" and name_in(entry["name"]) and not entry["name"].endswith("/"):
                yield files.unstrip_protocol(entry["name"]) + behind, entry
        inside = [entry["name"] for entry in reversed(visible) if entry["type"] == "directory"]
        folders += [name for name in inside if name.rstrip("/") != folder]
    if links:
        warnings.warn(f"{links} link{'s'[: links != 1]} left out of {shown(url)}", OkngWarning, stacklevel=3)


def _asked(files: Any, url: str, info: dict[str, Any]) -> dict[str, Any]:
    """`info`, which a listing has given, with the marks that it has left out."""
    info = _marked(files, info)
    return info if any(info.get(mark) for mark in MARKS) else {**info, **files.info(_opened(url)[1])}


def _marked(files: Any, info: dict[str, Any]) -> dict[str, Any]:
    """`info` with the state of the archive that the file is in."""
    return {**info, "state": files.storage_options.get("state")}


def _opened(url: str, within: float = OF_AN_ARCHIVE) -> tuple[Any, str]:
    """The file system of fsspec for `url` and the path in it; an archive is brought whole and is plain.

    Storage is asked whether the archive has changed, as `fetched` does.
    """
    scheme, inner = url.partition("://")[0], url.partition("::")[2]
    try:
        import fsspec

        state = {}
        if inner:
            plain = _plain(inner, within)
            url = f"{url.partition('::')[0]}::{plain}"
            kept = plain.parent == _CACHE.folder  # under a name of its own for each state
            state = {"state": plain.name if kept else _state(plain)}
        files, path = fsspec.core.url_to_fs(url, **state)
        if scheme == "tar" and path and not files.exists(path) and files.exists(f"./{path}"):
            path = f"./{path}"  # as `tar -C FOLDER .` calls them
    except ImportError as error:
        name = PACKAGES[scheme] if getattr(error, "name", None) != "fsspec" else "fsspec"
        raise _missing(name, scheme) from error
    return files, path


def _missing(package: str, scheme: str) -> OkngError:
    how = "'.[cloud]'" if package in ("fsspec", "s3fs", "aiohttp") else package
    return OkngError(f"{scheme}:// needs {package}, which is not installed; in okng's clone run: pip install {how}")


def _plain(archive: str, within: float) -> Path:
    """Where an archive lies on this machine; one that is compressed as a whole is unpacked, to be sought in."""
    url = url_of(archive)
    path = fetched(url, within) if url else Path(archive).expanduser()
    called = (archive.partition("?")[0] if url else archive).lower()
    if archive_scheme(called) != "tar" or called.endswith(".tar"):
        return path
    kind = "gzip" if called.endswith("gz") else {".bz2": "bz2", ".xz": "xz"}[Path(called).suffix]
    plain = _CACHE.folder / f"{_digest(path.name if url else str(path.resolve()), {'state': url or _state(path)})}.tar"
    with _archives:
        if not plain.exists():
            _unpack(archive, path, kind, plain)
    os.utime(plain)
    return plain


def _unpack(archive: str, path: Path, kind: str, plain: Path) -> None:
    """Make `plain` of a compressed archive, all or nothing; how large it becomes is found out on the way."""
    import fsspec

    temporary = plain.with_name(f".{secrets.token_hex(8)}")
    size = 0
    try:
        with fsspec.open(str(path), "rb", compression=kind) as packed, temporary.open("wb") as unpacked:
            while block := packed.read(1 << 20):
                size += len(block)
                _CACHE.check(f"{shown(archive)}, unpacked,", size)
                _CACHE.make_room(shown(archive), len(block))
                unpacked.write(block)
        temporary.replace(plain)
    finally:
        temporary.unlink(missing_ok=True)


def _state(path: Path) -> str:
    state = path.stat()
    return f"{state.st_mtime_ns} {state.st_size}"


def _to_write(url: str) -> tuple[Any, str]:
    if url.partition("://")[0] not in WRITABLE or "::" in url:
        raise OkngError(f"{shown(url)} can't be written; give a file, or {'://, '.join(WRITABLE)}://")
    return _opened(url)


def _bring(files: Any, path: str, target: Path) -> None:
    """Copy a file, all or nothing."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{secrets.token_hex(8)}")
    try:
        with _turn(files):
            files.get_file(path, str(temporary))
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def _turn(files: Any) -> contextlib.AbstractContextManager[Any]:
    """One thread at a time in what is an archive."""
    return (
        _archives if PACKAGES.get(files.protocol if isinstance(files.protocol, str) else "") == "fsspec" else _no_turn
    )


_no_turn = contextlib.nullcontext()


def _digest(url: str, info: dict[str, Any]) -> str:
    """What only this state of the file at `url` has; each time another where nothing tells its states apart."""
    if not any(info.get(mark) for mark in MARKS):
        return secrets.token_hex(12)
    marks = [str(info.get(mark)) for mark in (*MARKS, "size")]
    return hashlib.sha256(repr([url, *marks]).encode()).hexdigest()[:24]


@contextlib.contextmanager
def _told(url: str, done: str = "read") -> Iterator[None]:
    """Whatever storage raises is one line."""
    try:
        yield
    except (OkngError, GeneratorExit, KeyboardInterrupt):
        raise
    except Exception as error:
        raise OkngError(f"{shown(url)} can't be {done}: {_why(error)}") from error


def _why(error: Exception) -> str:
    """A few words for what went wrong, whichever of a dozen libraries says it.

    fsspec calls much "not found" that isn't: what lies behind an error is looked at first.
    """
    chain: list[BaseException] = []
    behind: BaseException | None = error
    while behind is not None and behind not in chain:
        chain.append(behind)
        behind = behind.__cause__ or behind.__context__
    found = [_words_for(each) for each in chain]
    return next((words for words in found if words not in ("", _NOTHING)), _NOTHING if _NOTHING in found else "") or (
        without_secrets(in_one_line(error))
    )


def _words_for(error: BaseException) -> str:
    status = getattr(error, "status", None)  # of HTTP
    if status in (401, 403):
        return _NO_RIGHT
    if isinstance(status, int) and status >= 500:
        return f"its server is out of order (HTTP {status})"
    return next((_WORDS[kind.__name__] for kind in type(error).__mro__ if kind.__name__ in _WORDS), "")


_NO_RIGHT = "no right to it; check the credentials of this machine"
_NOTHING = "there is nothing of this name; check the bucket and the path"
_WORDS = {
    "FileNotFoundError": _NOTHING,
    "PermissionError": _NO_RIGHT, "ForbiddenError": _NO_RIGHT, "ClientAuthenticationError": _NO_RIGHT,
    "NoCredentialsError": "no credentials are set; for S3 see AWS_ACCESS_KEY_ID, or give AWS_PROFILE",
    "TimeoutError": "its server doesn't answer in time",
    "EndpointConnectionError": "its server can't be reached", "ClientConnectorError": "its server can't be reached",
    "BadZipFile": "it is no whole zip archive", "ReadError": "it is no whole tar archive",
}  # fmt: skip
