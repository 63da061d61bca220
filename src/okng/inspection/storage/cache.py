"""Copies of what lies in storage, here: within a budget, shared by processes, none removed that is in use."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import threading
import time
import warnings
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from okng.errors import OkngError, OkngWarning
from okng.inspection.storage.locks import locked, turn

KNOWN = 1 << 12  # URLs of which it is remembered where they are kept
BUSY = 32  # files that were asked for last, and may not have been opened yet
GB = 1e9
HOUR = 3600.0  # after which a file that is half brought is nobody's any more

_OURS = re.compile(r"\.?[0-9a-f]{16,24}(\.[^.]*)?")  # files, folders (KEY, KEY.partial), and what is half written
_MARKS = (".lock", ".use")  # KEY.lock: who brings or removes a folder; KEY.….use: who uses it


class Cache:
    """What is in `storage/` of OKNG_CACHE, or of okng's folder in the user's cache: at most OKNG_CACHE_GB, 10.

    What was used least lately is removed first, never what another process uses, nor what okng hasn't put there.
    Processes may share it: each counts what it brings, and looks at all once that is too much.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: OrderedDict[str, tuple[Path, float]] = OrderedDict()
        self._total: float | None = None
        self._used: dict[str, IO[bytes]] = {}  # by key, open and locked as long as the process lives

    @property
    def folder(self) -> Path:
        """Where it is; made if need be."""
        given = os.environ.get("OKNG_CACHE")
        usual = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "okng"
        folder = (Path(given).expanduser() if given else usual) / "storage"
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

    def known(self, url: str, within: float) -> Path | None:
        """Where this process has put `url` in the last `within` seconds, if it is still there."""
        with self._lock:
            kept, at = self._known.get(url, (None, 0.0))
            if kept is None or time.monotonic() - at >= within or not kept.exists():
                return None
            self._known.move_to_end(url)
            return kept

    def keep(self, url: str, path: Path) -> None:
        """Remember where `url` is, and that it was used."""
        with self._lock:
            self._known[url] = path, time.monotonic()
            self._known.move_to_end(url)
            while len(self._known) > KNOWN:
                self._known.popitem(last=False)
        with contextlib.suppress(OSError):
            os.utime(path)

    def forget(self, url: str) -> None:
        """What is at `url` is another now."""
        with self._lock:
            self._known.pop(url, None)

    def check(self, url: str, size: float) -> None:
        """Raise `OkngError` for what has more bytes than may be kept in all."""
        budget = self.budget
        if size > budget:
            raise OkngError(
                f"{url} has {size / GB:.3g} GB, and {self.folder} keeps {budget / GB:.3g} GB: set OKNG_CACHE_GB to more"
            )

    def make_room(self, url: str, size: float) -> None:
        """Remove the oldest until `size` more bytes fit; `OkngError` where what is in use leaves no room for them."""
        self.check(url, size)
        budget, folder = self.budget, self.folder
        with self._lock:
            if self._total is None or self._total + size > budget:
                busy = {path for path, _ in list(self._known.values())[-BUSY:]}
                self._total, in_use = _shrunk(folder, budget, size, busy)
                if in_use + size > budget:
                    raise OkngError(
                        f"{url} needs {size / GB:.3g} GB, and of the {budget / GB:.3g} GB that {folder} keeps "
                        f"{in_use / GB:.3g} are in use: set OKNG_CACHE_GB to more"
                    )
            self._total += size

    @contextlib.contextmanager
    def turn(self, key: str, url: str) -> Iterator[None]:
        """One at a time brings what `key` is; from then on it is in use until the process ends, and not removed."""

        def wait() -> None:
            warnings.warn(f"another process brings {url}; waiting for it", OkngWarning, stacklevel=2)

        with turn(self.folder / f"{key}.lock", wait):
            if key not in self._used:
                path = self.folder / f"{key}.{secrets.token_hex(4)}.use"
                self._used[key] = path.open("ab")
                with contextlib.suppress(OSError):
                    locked(self._used[key].fileno(), path)
            try:
                yield
            except BaseException:
                self._used.pop(key).close()
                raise


def _shrunk(folder: Path, budget: float, size: float, busy: set[Path]) -> tuple[float, float]:
    """The bytes in `folder`, and those of them that are in use.

    If `size` more are beyond `budget`: after the oldest were removed, and some to spare.
    """
    each = []
    for entry in os.scandir(folder):
        if _OURS.fullmatch(entry.name) and not entry.name.endswith(_MARKS):
            with contextlib.suppress(OSError):  # another process removes, too
                state = entry.stat()
                size_of = bytes_in(Path(entry)) if entry.is_dir() else state.st_size
                each.append((state.st_mtime, Path(entry), size_of))
    total, in_use = float(sum(bytes_ for _, _, bytes_ in each)), 0.0
    room = budget if total + size <= budget else max(0.9 * budget, size)
    for at, path, bytes_ in sorted(each):
        if total + size <= room:
            break
        if path in busy or (path.name.startswith(".") and time.time() - at < HOUR):
            continue
        if _removed(path):
            total -= bytes_
        else:
            in_use += bytes_
    return total, in_use


def bytes_in(folder: Path) -> int:
    """The bytes of all files below a folder."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def _removed(path: Path) -> bool:
    """Remove a file, or a folder that nobody uses or brings; whether it is gone."""
    if not path.is_dir():
        path.unlink(missing_ok=True)
        return True
    key = path.name.partition(".")[0]
    with turn(path.with_name(f"{key}.lock")) as ours:
        if not ours or any(_is_used(mark) for mark in path.parent.glob(f"{key}.*.use")):
            return False
        gone = path.with_name(f".{secrets.token_hex(8)}")
        path.rename(gone)  # at once, so that nobody finds a part of it
    shutil.rmtree(gone, ignore_errors=True)
    return True


def _is_used(mark: Path) -> bool:
    """Whether the process that has made it still lives; if not, it is removed."""
    with contextlib.suppress(OSError), turn(mark) as ours:
        return not ours
    return True
