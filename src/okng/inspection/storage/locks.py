"""Files that one process at a time has, by the system's lock: it ends with the process, in whichever way."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from okng.errors import OkngError

PAUSE = 0.1  # seconds between tries


def locked(file: int, path: Path) -> bool:
    """Lock the open file at `path` as long as it is open; False where another has it, or has just removed it.

    Raises `OSError` where the file system knows no locks.
    """
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.fstat(file).st_ino == path.stat().st_ino
    except (BlockingIOError, PermissionError, FileNotFoundError):
        return False


@contextlib.contextmanager
def turn(path: Path, wait: Callable[[], None] | None = None) -> Iterator[bool]:
    """Have the lock of `path`, a file made for it and removed afterwards; what is given says whether it is had.

    With `wait` it is had once all others are through; `wait` is called when there are some.
    """
    told = False
    while True:
        with path.open("ab") as file:
            try:
                ours = locked(file.fileno(), path)
            except OSError:  # without locks all go on as if they were alone
                ours = True
            if ours or wait is None:
                try:
                    yield ours
                finally:
                    if ours:
                        with contextlib.suppress(OSError):  # Windows removes no file that is open
                            path.unlink(missing_ok=True)
                return
        if not told:
            wait()
        told = True
        time.sleep(PAUSE)


@contextlib.contextmanager
def alone(path: Path, otherwise: str) -> Iterator[None]:
    """No other process has the lock of `path`, a file made for it; if one has, an `OkngError` says `otherwise`."""
    with contextlib.ExitStack() as held:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            ours = held.enter_context(turn(path))
        except OSError as error:
            raise OkngError(f"{path.parent} can't be written: {error.strerror or error}") from error
        if not ours:
            raise OkngError(otherwise)
        yield
