"""A folder into which another program writes images.

A file is taken when its size and time have not changed for a while; what then doesn't decode is tried again as long as
it is young, for its writer may have paused. What was taken is known to the store by content and path, so that this
module need not remember anything over a restart.
"""

from __future__ import annotations

import heapq
import itertools
import os
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import NamedTuple

import watchfiles

from okng.errors import OkngError
from okng.inspection.reading.decoding import digest, each_page
from okng.inspection.reading.files import is_image, natural_order
from okng.inspection.reading.formats import Encoded, state_of
from okng.line.names import shown
from okng.line.sources import Arrival, Say

THEN = ("leave", "move", "tag")
FAILED = "failed"
ASIDE = ("OK", "NG", FAILED)  # folders for what was moved, marks of what was tagged
BATCH = 16  # files handed over at once: what is read of them is held in memory
LARGEST = 1 << 30  # bytes of a file
TICK = 0.1  # seconds between looks at what may have become whole
PATIENCE, AGAIN = 10.0, 1.0  # seconds for which what doesn't decode may still be being written, and between tries
RESCAN, POLL = 30.0, 1.0  # seconds between looks at the whole folder where changes are told, and where they are not
REMOTE = ("nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "vboxsf", "prl_fs", "ceph", "afs", "ncpfs", "drvfs", "virtiofs")


class State(NamedTuple):
    """By what a file is seen to have changed."""

    size: int
    changed: int  # ns

    @classmethod
    def of(cls, path: Path) -> State:
        """The state of a regular file; OSError where there is none."""
        found = state_of(path)
        return cls(found.st_size, found.st_mtime_ns)


@dataclass
class Waiting:
    """A file that is not yet known to be whole: how it was `since` when, and when it is looked at again."""

    path: Path
    state: State
    since: float
    due: float


@dataclass
class Taken:
    """A file whose pages are being judged."""

    path: Path
    waiting: Waiting
    digest: str
    left: int
    verdict: str = "OK"


class Folder:
    """The images that come into a folder, and those in it already, in the order in which they were written.

    `then`: what becomes of a file: "leave"; "move" to OK/, NG/ or failed/ in the folder; "tag", 1.png becomes 1.NG.png.
    `settle`: seconds for which it must not have changed. Folders below are watched too, hidden files and what is called
    like no image are left alone. Changes are told by the system; the whole folder is looked at besides now and then, on
    a network share, where nothing is told, each second. A folder that vanishes is waited for.
    """

    def __init__(self, folder: Path, say: Say, then: str = "leave", settle: float = 0.5):
        if then not in THEN:
            raise OkngError(f"--then is {', '.join(THEN[:-1])} or {THEN[-1]}, not {then!r}")
        if settle < 0:
            raise OkngError(f"--settle is 0 or more seconds, not {settle}")
        self.folder, self.say, self.then, self.settle = folder.resolve(), say, then, settle
        self.name = shown(self.folder)
        self._queue: list[tuple[float, int, Waiting]] = []  # a heap, by the time at which each is due
        self._number = itertools.count()  # of two that are due together the first comes first
        self._waiting: set[Path] = set()
        self._handled: dict[Path, State] = {}  # what is left in the folder
        self._taken: dict[str, Taken] = {}  # by the name of each page
        self._changes: SimpleQueue[Path | None] = SimpleQueue()
        self._stop = threading.Event()  # of the thread that is told of changes
        self._told = False
        self._closed = False

    def __iter__(self) -> Iterator[list[Arrival]]:
        seen: tuple[int, int] | None = None  # device and inode: another one when a share was mounted anew
        gone, fresh, next_scan = False, False, 0.0
        while not self._closed:
            try:
                there = self.folder.stat()
                if seen != (there.st_dev, there.st_ino):
                    seen, fresh, next_scan = (there.st_dev, there.st_ino), True, 0.0
                    self._listen()
                if time.monotonic() >= next_scan:
                    begun = time.monotonic()
                    self._scan()
                    took = time.monotonic() - begun
                    told = self._told and not fresh  # what came while the listening began was told to nobody
                    next_scan, fresh = begun + took + max(RESCAN if told else POLL, 10 * took), False
                if gone:
                    self.say(f"{self.name} is back")
                gone = False
            except OSError as error:
                if not gone:
                    self.say(f"{self.name} can't be read ({error.strerror or error}); waiting for it to come back")
                gone, seen = True, None
                yield []
                time.sleep(POLL)
                continue
            arrivals = self._ready()
            if not arrivals:
                self._hear(TICK)
            yield arrivals

    def done(self, arrival: Arrival, verdict: str) -> None:
        """Its file is moved, tagged or left once all its pages have a verdict; one NG page makes it NG."""
        taken = self._taken.pop(arrival.name, None)
        if taken is None:  # another page could not be read
            return
        taken.left -= 1
        if verdict == "NG":
            taken.verdict = "NG"
        if not taken.left:
            self._put_aside(taken, taken.verdict)

    def failed(self, arrival: Arrival, why: str) -> bool:
        """Its file is tried again while it is young, then it is told of and put aside, for all its pages at once."""
        taken = self._taken.pop(arrival.name, None)
        if taken is None:
            return False
        for name in [name for name, other in self._taken.items() if other is taken]:
            del self._taken[name]  # its other pages
        return self._give_up(taken, why)

    def close(self) -> None:
        """Stop being told of changes."""
        self._closed = True
        self._stop.set()

    # What there is

    def _scan(self) -> None:
        """Look at all files; what is new waits, oldest first."""
        os.scandir(self.folder).close()  # `os.walk` would say nothing
        found = list(self._below(self.folder))
        there = {path for _, path in found}
        self._handled = {path: state for path, state in self._handled.items() if path in there}
        self._notice(found)

    def _below(self, folder: Path) -> Iterator[tuple[State, Path]]:
        """The images in `folder` and in those below it."""
        for place, folders, files in os.walk(folder):
            folders[:] = [name for name in folders if self._looked_into(Path(place, name))]
            for name in files:
                path = Path(place, name)
                if self._wanted(path):
                    with suppress(OSError):
                        yield State.of(path), path

    def _looked_into(self, folder: Path) -> bool:
        moved = self.then == "move" and folder.parent == self.folder and folder.name in ASIDE
        return not folder.name.startswith(".") and not moved

    def _within(self, folder: Path) -> bool:
        """Whether the folder is the one watched, or one below it that is looked into."""
        if not folder.is_relative_to(self.folder):
            return False
        below = [folder, *folder.parents]
        return all(self._looked_into(each) for each in below[: below.index(self.folder)])

    def _wanted(self, path: Path) -> bool:
        """Whether a file of this name is an image to take."""
        tagged = self.then == "tag" and Path(path.stem).suffix.removeprefix(".") in ASIDE
        return is_image(path.name) and not tagged

    def _notice(self, found: list[tuple[State, Path]]) -> None:
        """Let files wait that are new, or have changed since they were handled, in the order of writing."""
        now = time.monotonic()
        for state, path in sorted(found, key=lambda item: (item[0].changed, natural_order(item[1].name))):
            if path not in self._waiting and self._handled.get(path) != state:
                self._wait(Waiting(path, state, now, now + self.settle))

    def _wait(self, file: Waiting) -> None:
        self._waiting.add(file.path)
        heapq.heappush(self._queue, (file.due, next(self._number), file))

    # What is told

    def _listen(self) -> None:
        """Have a thread tell of changes from now on, unless nobody would tell it."""
        self._stop.set()
        self._stop, self._told = threading.Event(), not is_remote(self.folder)
        if self._told:
            threading.Thread(target=self._tell, args=(self._stop,), name="okng-folder", daemon=True).start()

    def _tell(self, stop: threading.Event) -> None:
        try:
            # Not debounced for long: files that come at 20 a second would wait for each other.
            for changes in watchfiles.watch(self.folder, watch_filter=None, debounce=50, step=10, stop_event=stop):
                for kind, path in changes:
                    if kind != watchfiles.Change.deleted:
                        self._changes.put(Path(path))
        except Exception as error:  # the system's limit of watches is reached, or the folder is gone
            if not stop.is_set():
                self._told = False
                if self.folder.is_dir():
                    self.say(f"the system does not tell of changes in {self.name} ({error}); looking each second")

    def _hear(self, timeout: float) -> None:
        """Let wait what was told of, in the order of writing; return after `timeout` seconds at most."""
        told: set[Path] = set()
        with suppress(Empty):
            while path := self._changes.get(timeout=0 if told else timeout):
                told.add(path)
        found = []
        for path in told:
            with suppress(OSError):
                if path.is_dir() and self._within(path):  # moved in as a whole: its files are not told of
                    found += list(self._below(path))
                elif self._within(path.parent) and self._wanted(path):
                    found.append((State.of(path), path))
        self._notice(found)

    # What is whole

    def _ready(self) -> list[Arrival]:
        """Read the files that have not changed while they waited, up to `BATCH`."""
        arrivals: list[Arrival] = []
        self._hear(0)
        now = time.monotonic()
        while self._queue and self._queue[0][0] <= now and len(arrivals) < BATCH:
            file = heapq.heappop(self._queue)[2]
            self._waiting.discard(file.path)
            try:
                state = State.of(file.path)
            except OSError:
                continue  # gone again
            if state != file.state:
                self._wait(Waiting(file.path, state, now, now + max(self.settle, TICK)))
                continue
            arrivals += self._take(file)
        return arrivals

    def _take(self, file: Waiting) -> list[Arrival]:
        """The pages of a file that seems to be whole; none where it can't be read."""
        taken = Taken(file.path, file, "", 0)
        try:
            if file.state.size > LARGEST:
                raise OSError(0, f"larger than {LARGEST >> 30} GB")
            content = file.path.read_bytes()
            if State.of(file.path) != file.state:
                now = time.monotonic()
                self._wait(Waiting(file.path, State.of(file.path), now, now + max(self.settle, TICK)))
                return []
        except OSError as error:
            self._give_up(taken, f"can't be read ({error.strerror or error})")
            return []
        whole = Encoded(content)
        taken.digest = digest(whole)
        arrivals = []
        for page in each_page(whole):
            assert isinstance(page, Encoded)
            name = shown(file.path) + ("" if page.page is None else f"[{page.page}]")
            arrivals.append(Arrival(name, page, digest(page), f"{digest(page)} {name}"))
            self._taken[name] = taken
        taken.left = len(arrivals)
        return arrivals

    # What becomes of it

    def _give_up(self, taken: Taken, why: str) -> bool:
        """Put aside what can't be read, unless it is young and may still be written; whether that was done."""
        file, now = taken.waiting, time.monotonic()
        if now - file.since < PATIENCE:
            self._wait(Waiting(file.path, file.state, file.since, now + AGAIN))
            return False
        self.say(f"skipped: {shown(file.path)}: {why}")
        self._put_aside(taken, FAILED)
        return True

    def _put_aside(self, taken: Taken, mark: str) -> None:
        """Move or tag a file, unless it has changed since it was read; then it will be taken again."""
        path, state = taken.path, taken.waiting.state
        try:
            if State.of(path) != state:
                return
            target = path
            if self.then == "move":
                target = self.folder / mark / path.relative_to(self.folder)
            elif self.then == "tag":
                target = path.with_name(f"{path.stem}.{mark}{path.suffix}")
            if target != path:
                if target.exists():  # another image of that name
                    digits = taken.digest[:8] or str(state.changed)
                    mark_tagged = f".{mark}" if self.then == "tag" else ""
                    target = target.with_name(f"{path.stem}-{digits}{mark_tagged}{path.suffix}")
                target.parent.mkdir(parents=True, exist_ok=True)
                path.rename(target)
                return
        except FileNotFoundError:
            return  # whoever wrote it took it away
        except OSError as error:
            self.say(f"{shown(path)} can't be put aside ({error.strerror or error}); it stays where it is")
        self._handled[path] = state


def is_remote(folder: Path, mounts: Path = Path("/proc/self/mounts")) -> bool:
    """Whether a folder lies on a file system whose changes by other machines nobody tells of (Linux)."""
    kinds = {}
    with suppress(OSError):
        for line in mounts.read_text(errors="replace").splitlines():
            _, place, kind, *_ = line.split(" ")
            kinds[Path(place.replace("\\040", " "))] = kind
    kind = next((kinds[place] for place in (folder, *folder.parents) if place in kinds), "")
    return kind in REMOTE or kind.startswith("fuse.")
