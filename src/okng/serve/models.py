"""Models by name: of each the versions that the store knows, and the active one in memory, ready to judge.

A version is a file FOLDER/NAME/DIGEST.okng that never changes; a new threshold is a new version, too. So a digest says
what gave a verdict, `okng inspect FILE` gives it again, and any version can be gone back to.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import okng
from okng.checks import NAME
from okng.errors import NoMemory, OkngError, in_one_line, nearest_names
from okng.inspection.inspector import Inspector
from okng.inspection.model_file import read_bytes, write_atomically
from okng.inspection.overlay import heat_range_if_any
from okng.store import ModelUsed, Store, StoreError
from okng.store.models import Version


class NoSuchModel(OkngError):
    """No model of that name is served."""


class Unfit(OkngError):
    """A file that can't be served, however often it is tried."""


@dataclass(frozen=True)
class Loaded:
    """A version of a model in memory."""

    version: Version
    inspector: Inspector

    @property
    def used(self) -> ModelUsed:
        """What a record says of it."""
        version, threshold = self.version, self.inspector.calibration.threshold
        return ModelUsed(version.name, version.digest, threshold, version.version)

    @cached_property
    def heat(self) -> tuple[float, float] | None:
        """The scores at which heat begins to show and at which it is full, where there is a map."""
        return heat_range_if_any(self.inspector.calibration)

    @cached_property
    def mark(self) -> str:
        """What decides the scores: how the detector was fitted and updated, what it is calibrated on, where it looks.

        Versions that differ in threshold or rules alone share it; products that share a file don't.
        """
        inspector, manifest = self.inspector, self.inspector.manifest
        fitted = [manifest.get(key) for key in ("detector", "provenance")]
        seen = [inspector.preprocess.to_json(), inspector.rules.area]
        mark = hashlib.sha256(json.dumps([fitted, seen], sort_keys=True, default=str).encode())
        mark.update(inspector.calibration.scores.tobytes())
        return mark.hexdigest()


class Shelf:
    """The models that are served; `how` is handed to `okng.load`, `say` takes lines for the log.

    Any number of threads may use it. Several servers may share a store and the `folder`: what one takes the others
    have within a second, by `refresh`.
    """

    def __init__(self, store: Store, folder: Path, how: dict[str, Any], say: Callable[[str], None]):
        self.store, self.folder, self.how, self.say = store, folder, how, say
        self.problems: dict[str, str] = {}  # by name: why the active version is not what it should be
        self._active: dict[str, Loaded] = {}
        self._given: dict[str, tuple[Path, tuple[int, int]]] = {}  # files that a person may replace, as last seen
        self._begun: set[tuple[str, str]] = set()  # names and digests of those that are being taken over
        self._lock = threading.RLock()

    def names(self) -> list[str]:
        """The models that are served."""
        return sorted(self._active)

    def get(self, name: str) -> Loaded:
        """The active version of a model."""
        loaded = self._active.get(name)
        if loaded is None:
            raise NoSuchModel(f"there is no model {name!r}; {nearest_names(name, self._active)}")
        return loaded

    def only(self, name: str | None) -> Loaded:
        """The model called so; without a name the only one there is."""
        if name is None and len(self._active) == 1:
            return next(iter(self._active.values()))
        if name is None:
            raise OkngError(f"say which model is meant: model={' or '.join(self.names())}")
        return self.get(name)

    def give(self, name: str, path: Path) -> None:
        """Serve the file at `path`. If it is new it becomes the active version, now and whenever it is replaced.

        A file that the store knows already changes nothing: a version learnt since stays active over restarts.
        """
        checked(name)
        with self._lock:
            state = _state(path)
            self._take_over(name, path, "given when the server was started")
            self._given[name] = (path, state)
        if name not in self._active:
            self.refresh()
        if name not in self._active:
            raise OkngError(self.problems.get(name, f"{path} can't be served"))

    def refresh(self) -> None:
        """Take over files that were replaced, and what other servers made active."""
        with self._lock:
            for name, (path, seen) in self._given.items():
                state = _state(path)
                if state in (seen, (0, 0)):
                    continue
                try:
                    self._take_over(name, path, "its file was replaced")
                    self.problems.pop(name, None)
                except Exception as error:
                    self._trouble(name, f"{in_one_line(error)}; version {self.get(name).version.version} goes on")
                    if not isinstance(error, Unfit):
                        continue  # no fault of the file's: it is tried again
                self._given[name] = (path, state)
            for name, number in self.store.models.all_active().items():
                loaded = self._active.get(name)
                if loaded is None or loaded.version.version != number:
                    try:
                        self._put_in_place(self.load(name, number))
                    except OkngError as error:
                        self._trouble(name, f"version {number} of {name} can't be used: {error}")

    def load(self, name: str, number: int) -> Loaded:
        """Any version of a model, loaded."""
        version = self.store.models.get(name, number)
        active = self._active.get(name)
        if active is not None and active.version == version:
            return active
        return Loaded(version, self._open(name, self.folder / version.file))

    def file(self, version: Version) -> Path:
        """The file of a version."""
        return self.folder / version.file

    def add(self, name: str, file: Path, who: str, why: str) -> Version:
        """A new version from a model file, of which a copy is kept; it is not active, unless it is the first one.

        `Unfit` for a file that can't be served, `StoreError` where nothing can be kept now, `NoMemory` where nothing
        can be opened.
        """
        checked(name)
        try:
            self._open(name, file)  # whole, and of a kind that runs here
        except NoMemory:  # which is no fault of the file's
            raise
        except Exception as error:
            raise Unfit(in_one_line(error)) from error
        version = self._kept(name, file, who, why)
        if self.store.models.active(name) is None:
            self.take(name, version.version, who, why)
        return version

    def take(self, name: str, number: int, who: str, why: str) -> None:
        """Make a version the active one; whatever is being judged is judged by the old one."""
        with self._lock:
            loaded = self.load(name, number)
            self.store.models.choose(name, number, who, why)
            self._put_in_place(loaded)

    def change(self, name: str, changed: Callable[[Inspector], Inspector], who: str, why: str) -> Version:
        """What `changed` makes of the active version becomes a new one, and active: a threshold, rules."""
        with self._lock:
            present = self.get(name)
            inspector = changed(present.inspector)
            temporary = self.new_file(ending(present.version.file))
            try:
                with writing_versions():
                    inspector.save(temporary)
                version = self._kept(name, temporary, who, why)
            finally:
                temporary.unlink(missing_ok=True)
            self.store.models.choose(name, version.version, who, why)
            self._put_in_place(Loaded(version, inspector))
            return version

    def new_file(self, suffix: str) -> Path:
        """A name for a file that is to become a version."""
        with writing_versions():
            self.folder.mkdir(parents=True, exist_ok=True)
        return self.folder / f".new-{secrets.token_hex(8)}{suffix}"

    def _take_over(self, name: str, path: Path, why: str) -> None:
        """Make the file at `path` a version, and active if the store did not know it."""
        content = read_bytes(path, "give the file that `okng train` or `okng export` wrote")
        digest = hashlib.sha256(content).hexdigest()
        known = {version.digest: version.version for version in self.store.models.versions(name)}
        if digest in known:
            active = self.store.models.active(name)
            if (name, digest) in self._begun and active != known[digest]:
                self.take(name, known[digest], "command line", why)
            elif active is None:
                self.store.models.choose(name, known[digest], "command line", why)
            elif active != known[digest]:
                self.say(f"{name}: version {active} is active; {path} is version {known[digest]}")
            self._begun.discard((name, digest))
            return
        self._begun.add((name, digest))
        temporary = self.new_file(ending(path))
        try:
            with writing_versions():
                temporary.write_bytes(content)
            version = self.add(name, temporary, "command line", why)
        except (Unfit, NoMemory) as error:
            raise type(error)(str(error).replace(str(temporary), str(path))) from error
        finally:
            temporary.unlink(missing_ok=True)
        if self.store.models.active(name) != version.version:
            self.take(name, version.version, "command line", why)
        self._begun.discard((name, digest))

    def _open(self, name: str, path: Path) -> Inspector:
        return opened(name, path, self.how)

    def _put_in_place(self, loaded: Loaded) -> None:
        name = loaded.version.name
        loaded.inspector.warm_up()
        self._active[name] = loaded
        self.problems.pop(name, None)
        self.say(f"{name}: version {loaded.version.version} is active, {loaded.inspector.promise()}")

    def _kept(self, name: str, file: Path, who: str, why: str) -> Version:
        """A version with a copy of `file`, which is on disk before the store knows of it."""
        with writing_versions():
            content = file.read_bytes()
            digest = hashlib.sha256(content).hexdigest()
            kept = self.folder / name / f"{digest[:32]}{file.suffix}"
            write_atomically(kept, content)
        return self.store.models.add(name, digest, str(kept.relative_to(self.folder)), who, why)

    def _trouble(self, name: str, line: str) -> None:
        if self.problems.get(name) != line:
            self.problems[name] = line
            self.say(line)


def ending(file: str | Path) -> str:
    """What a version's `file` ends in: .onnx if it is an exported model, else .okng, whatever a person called it."""
    return ".onnx" if Path(file).suffix == ".onnx" else ".okng"


@contextmanager
def writing_versions() -> Iterator[None]:
    """A disk that is full or gone is said as the store's trouble, which passes, and not as the model file's."""
    try:
        yield
    except (OSError, OkngError) as error:
        reason = error if isinstance(error, OSError) else error.__cause__
        if not isinstance(reason, OSError):
            raise
        why = reason.strerror or reason
        raise StoreError(f"a version of the model can't be written ({why}); make room, or see to --versions") from error


def opened(name: str, path: Path, how: dict[str, Any]) -> Inspector:
    """The inspector in the file at `path`, as `how` says; of several products the one that the model's `name` means."""
    how = {key: value for key, value in how.items() if key != "engine" or path.suffix == ".onnx"}
    if path.suffix == ".onnx":
        how.pop("device", None)
    inspector = okng.load(path, **how)
    if not inspector.products:
        return inspector
    if name not in inspector.products:
        first = inspector.products[0]
        raise OkngError(f"{path} is of several products; serve each under its name, such as {first}={path}")
    return inspector.of(name)


def checked(name: str) -> str:
    """`name`, if a model may be called so: it is a folder's name and part of an address."""
    if not NAME.fullmatch(name):
        raise OkngError("a model's name has letters from A to Z, digits, - _ and . only, 64 at most; give NAME=FILE")
    return name


def _state(path: Path) -> tuple[int, int]:
    """When a file was changed and its size; zeros while it is not there, as in the middle of being replaced."""
    try:
        state = os.stat(path)  # noqa: PTH116
    except OSError:
        return 0, 0
    return state.st_mtime_ns, state.st_size
