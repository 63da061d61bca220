"""What lies in storage, by fsspec's URLs: listed folder by folder, brought one by one, kept within a budget.

`s3://bucket/parts`, `gs://…`, `az://…`, `https://…`, and archives: `zip://part.png::images.zip`, also of an archive
that is itself in storage. fsspec is imported once such a URL is met.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import shutil
import threading
import warnings
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from okng.errors import OkngError, OkngWarning, in_one_line
from okng.inspection.formats import UnreadableImage
from okng.inspection.urls import PACKAGES, archive_scheme, name_in, names_image, url_of

WRITABLE = ("s3", "gs", "gcs", "az", "abfs")
MARKS = ("ETag", "etag", "LastModified", "last_modified", "updated", "CRC", "mtime", "size")  # what changes with a file
AT_ONCE = 16  # files on their way
KNOWN = 1 << 12  # URLs of which it is remembered where they are kept
GB = 1e9

_archives = threading.RLock()  # a file that is open once, and sought in


def find_stored(url: str) -> Iterator[str]:
    """The URLs of the images at or below `url`, in `find_images`' order; a folder is listed when it is its turn.

    Raises `OkngError` for what can't be listed, and where there are none.
    """
    if names_image(url):
        yield url
        return
    count = 0
    for path, _ in _below(url):
        if names_image(path):
            count += 1
            yield path
    if not count:
        raise OkngError(f"{url} holds no images")


def fetched(url: str) -> Path:
    """A copy of the file at `url`, which lasts until others need its room; `UnreadableImage` if there is none."""
    kept = _CACHE.known(url)
    if kept is not None:
        return kept
    try:
        files, path = _opened(url)
        with _turn(files):
            info = files.info(path)
        if info["type"] != "file":
            raise IsADirectoryError(0, "it is a folder")
        target = _CACHE.folder / f"{_digest(url, info)}{Path(name_in(url)).suffix}"
        if not target.exists():
            _CACHE.make_room(url, info.get("size") or 0)
            _bring(files, path, target)
    except OkngError:
        raise
    except Exception as error:
        raise UnreadableImage(url, f"can't be read ({_why(error, url)})") from error
    _CACHE.keep(url, target)
    return target


def brought(url: str) -> Path:
    """A folder with a copy of all that lies at or below `url`, for what needs every file of it, as training does.

    It goes on with what was brought before. Raises `OkngError`; also where that is more than may be kept.
    """
    everything = dict(_below(url))
    if not everything:
        raise OkngError(f"{url} is empty, or there is nothing of this name")
    size = sum(info.get("size") or 0 for info in everything.values())
    key = hashlib.sha256("".join(_digest(path, info) for path, info in everything.items()).encode()).hexdigest()[:24]
    root = url.partition("::")[0].rstrip("/")
    name = name_in(url.partition("::")[2]).partition(".")[0] if root.endswith(":") else root.rpartition("/")[2]
    whole, part = _CACHE.folder / key, _CACHE.folder / f"{key}.partial"
    if whole.is_dir():
        _CACHE.keep(url, whole)
        return whole / name
    _CACHE.make_room(url, size)
    warnings.warn(f"bringing {len(everything)} files, {size / GB:.2g} GB, from {url}", OkngWarning, stacklevel=2)
    files, top = _opened(url)
    top = top.rstrip("/")

    def bring(given: str) -> None:
        path = _opened(given)[1]
        target = part / name / (path.removeprefix(top).lstrip("/") or name_in(path))
        if not target.resolve().is_relative_to(part.resolve()):
            raise OkngError(f"{given} would lie outside of its folder; take it out")
        if not target.exists():
            _bring(files, path, target)

    with _told(url), ThreadPoolExecutor(AT_ONCE) as pool:
        for done in [pool.submit(bring, path) for path in everything]:
            done.result()
    part.rename(whole)
    _CACHE.keep(url, whole)
    return whole / name


def read(url: str) -> bytes:
    """The bytes at `url`; raises `OkngError`."""
    with _told(url):
        return fetched(url).read_bytes()


def put(url: str, content: bytes | bytearray) -> None:
    """Make `content` what is at `url`, all or nothing; raises `OkngError`."""
    files, path = _to_write(url)
    with _told(url, "written"):
        files.pipe_file(path, bytes(content))


def exists(url: str) -> bool:
    """Whether something is at `url`; raises `OkngError` where nobody may ask."""
    with _told(url):
        files, path = _opened(url)
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


class _Cache:
    """Files in OKNG_CACHE, or okng's folder in the user's cache, of at most OKNG_CACHE_GB, 10, in all.

    What was used least lately is removed first. Processes may share it: each counts what it brings, and looks at all
    once that is too much.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: OrderedDict[str, Path] = OrderedDict()
        self._total: float | None = None

    @property
    def folder(self) -> Path:
        """Where it is; made if need be."""
        given = os.environ.get("OKNG_CACHE")
        usual = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "okng"
        folder = Path(given).expanduser() if given else usual
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OkngError(f"{folder} can't be made ({error.strerror}); set OKNG_CACHE to another folder") from error
        return folder

    @property
    def budget(self) -> float:
        """How many bytes it may hold."""
        text = os.environ.get("OKNG_CACHE_GB", "10")
        with contextlib.suppress(ValueError):
            if float(text) > 0:
                return float(text) * GB
        raise OkngError(f"OKNG_CACHE_GB is a number of GB such as 50, not {text!r}")

    def known(self, url: str) -> Path | None:
        """Where this process has put `url`, if it is still there."""
        with self._lock:
            kept = self._known.get(url)
            if kept is None or not kept.exists():
                return None
            self._known.move_to_end(url)
            return kept

    def keep(self, url: str, path: Path) -> None:
        """Remember where `url` is, and that it was used."""
        with self._lock:
            self._known[url] = path
            while len(self._known) > KNOWN:
                self._known.popitem(last=False)
        with contextlib.suppress(OSError):
            os.utime(path)

    def make_room(self, url: str, size: float) -> None:
        """Remove the oldest until `size` more bytes fit; what was asked for last stays."""
        budget, folder = self.budget, self.folder
        if size > budget:
            raise OkngError(
                f"{url} has {size / GB:.3g} GB, and {folder} keeps {budget / GB:.3g} GB: set OKNG_CACHE_GB to more"
            )
        with self._lock:
            if self._total is None or self._total + size > budget:
                self._total = _shrunk(folder, budget, size, set(list(self._known.values())[-2 * AT_ONCE :]))
            self._total += size


_CACHE = _Cache()


def _shrunk(folder: Path, budget: float, size: float, busy: set[Path]) -> float:
    """The bytes in `folder`; if `size` more are beyond `budget`, after the oldest were removed, and some to spare."""
    each = []
    for entry in os.scandir(folder):
        with contextlib.suppress(OSError):  # another process removes, too
            state = entry.stat()
            inside = Path(entry).rglob("*") if entry.is_dir() else ()
            each.append((state.st_mtime, Path(entry), state.st_size + sum(file.stat().st_size for file in inside)))
    total = sum(bytes_ for _, _, bytes_ in each)
    room = budget if total + size <= budget else max(0.9 * budget, size)
    for _, path, bytes_ in sorted(each):
        if total + size <= room:
            break
        if path in busy:
            continue
        shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
        total -= bytes_
    return total


def _below(url: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The URL of each file at or below `url`, not hidden, and what is known of it; files come before folders."""
    from okng.inspection.files import natural_order

    with _told(url):
        files, top = _opened(url)
    behind = "".join(url.partition("::")[1:])
    folders = [top]
    while folders:
        folder = folders.pop()
        with _told(url):
            with _turn(files):
                entries = files.ls(folder, detail=True)
            shown = [entry for entry in entries if entry["name"] == "." or not name_in(entry["name"]).startswith(".")]
            shown.sort(key=lambda entry: natural_order(name_in(entry["name"])))
        for entry in shown:
            if entry["type"] == "file" and name_in(entry["name"]) and not entry["name"].endswith("/"):
                yield files.unstrip_protocol(entry["name"]) + behind, entry
        folders += [e["name"] for e in reversed(shown) if e["type"] == "directory" and e["name"].rstrip("/") != folder]


def _opened(url: str) -> tuple[Any, str]:
    """The file system of fsspec for `url` and the path in it; an archive is brought whole and is plain."""
    scheme, inner = url.partition("://")[0], url.partition("::")[2]
    try:
        import fsspec

        if inner:
            url = f"{url.partition('::')[0]}::{_plain(inner)}"
        files, path = fsspec.core.url_to_fs(url)
        if scheme == "tar" and path and not files.exists(path) and files.exists(f"./{path}"):
            path = f"./{path}"  # as `tar -C FOLDER .` calls them
    except ImportError as error:
        name = PACKAGES[scheme] if getattr(error, "name", None) != "fsspec" else "fsspec"
        raise _missing(name, scheme) from error
    return files, path


def _missing(package: str, scheme: str) -> OkngError:
    how = "'.[cloud]'" if package in ("fsspec", "s3fs", "aiohttp") else package
    return OkngError(f"{scheme}:// needs {package}, which is not installed; in okng's clone run: pip install {how}")


def _plain(archive: str) -> Path:
    """Where an archive lies on this machine; one that is compressed as a whole is unpacked, to be sought in."""
    url = url_of(archive)
    path = fetched(url) if url else Path(archive).expanduser()
    called = (archive.partition("?")[0] if url else archive).lower()
    if archive_scheme(called) != "tar" or called.endswith(".tar"):
        return path
    import fsspec

    state = path.stat()
    plain = _CACHE.folder / f"{_digest(str(path.resolve()), {'mtime': state.st_mtime_ns, 'size': state.st_size})}.tar"
    with _archives:
        if not plain.exists():
            kind = "gzip" if called.endswith("gz") else {".bz2": "bz2", ".xz": "xz"}[Path(called).suffix]
            temporary = plain.with_suffix(f".{secrets.token_hex(4)}")
            with fsspec.open(str(path), "rb", compression=kind) as packed, temporary.open("wb") as unpacked:
                shutil.copyfileobj(packed, unpacked, 1 << 20)
            _CACHE.make_room(archive, temporary.stat().st_size)
            temporary.replace(plain)
    os.utime(plain)
    return plain


def _to_write(url: str) -> tuple[Any, str]:
    if url.partition("://")[0] not in WRITABLE or "::" in url:
        raise OkngError(f"{url} can't be written; give a file, or {'://, '.join(WRITABLE)}://")
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
    """What only this state of the file at `url` has."""
    return hashlib.sha256(repr([url, *(str(info.get(mark)) for mark in MARKS)]).encode()).hexdigest()[:24]


@contextlib.contextmanager
def _told(url: str, done: str = "read") -> Iterator[None]:
    """Whatever storage raises is one line."""
    try:
        yield
    except (OkngError, GeneratorExit, KeyboardInterrupt):
        raise
    except Exception as error:
        raise OkngError(f"{url} can't be {done}: {_why(error, url)}") from error


def _why(error: Exception, url: str) -> str:
    """A few words for what went wrong, whichever of a dozen libraries says it."""
    names: Iterable[str] = (kind.__name__ for kind in type(error).__mro__)
    match next((name for name in names if name in _WORDS), ""):
        case "":
            return in_one_line(error)
        case name:
            return _WORDS[name]


_NO_RIGHT = "no right to it; check the credentials of this machine"
_WORDS = {
    "FileNotFoundError": "there is nothing of this name; check the bucket and the path",
    "PermissionError": _NO_RIGHT, "ForbiddenError": _NO_RIGHT, "ClientAuthenticationError": _NO_RIGHT,
    "NoCredentialsError": "no credentials are set; for S3 see AWS_ACCESS_KEY_ID, or give AWS_PROFILE",
    "EndpointConnectionError": "its server can't be reached", "ClientConnectorError": "its server can't be reached",
    "BadZipFile": "it is no whole zip archive", "ReadError": "it is no whole tar archive",
}  # fmt: skip
