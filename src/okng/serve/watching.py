"""Watches for drift: every record is taken in once, in the order of the store, by each model's `Drift`.

All is computed from the records: what was not kept when a server was killed is computed again, with the same result.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from okng.errors import OkngError
from okng.inspection.drift import Drift, DriftState
from okng.inspection.verdict.likeness import Traits
from okng.inspection.verdict.result import Inspection
from okng.serve.models import Loaded, Shelf
from okng.store import Store
from okng.store.records import Filter, Record

AT_ONCE = 2_000  # records that one look takes in
KEPT_EVERY = 10.0  # seconds between two notes in the store
POINTS = 400  # of the curve, at least; from twice as many on every other one goes


@dataclass
class Watch:
    """A `drift` that has taken in the records up to the id `after`; `curve` has (image, time, evidence by name)."""

    drift: Drift
    after: int
    begun: float
    curve: list[tuple[int, float, dict[str, float]]] = field(default_factory=list)
    every: int = 1  # images from one point of the curve to the next
    kept: float = 0.0

    @property
    def state(self) -> DriftState:
        """What is known so far."""
        return self.drift.state

    def add(self, records: list[Record]) -> None:
        """Take in records, oldest first: as many at once as there are to the next point of the curve."""
        while records:
            some = records[: self.every - self.drift.count % self.every]
            self.drift.take([as_inspection(record) for record in some])
            self.after = some[-1].id
            if self.drift.count % self.every == 0:
                self.curve.append((self.drift.count, some[-1].at, self.state.evidence))
                if len(self.curve) >= 2 * POINTS:
                    self.every *= 2
                    self.curve = [point for point in self.curve if point[0] % self.every == 0]
            records = records[len(some) :]


class Watcher:
    """Watches the models of `shelf`; `say` is told of an alarm. Any number of threads may use it."""

    def __init__(self, store: Store, shelf: Shelf, say: Callable[[str], None]):
        self.store, self.shelf, self.say = store, shelf, say
        self._watches: dict[tuple[str, str], Watch] = {}
        self._lock = threading.Lock()

    def look_at_all(self) -> None:
        """Take in what is new of every model."""
        for name in self.shelf.names():
            self.look(name)

    def look(self, name: str) -> Watch:
        """Take in what is new of a model's active version, and how it stands."""
        loaded = self.shelf.get(name)
        with self._lock:
            watch = self._watch(loaded)
            before = watch.state.drifted
            after = max(watch.after, self.store.retention.removed())  # what is left before it is no line any more
            which = Filter(model=name, judged_by=(loaded.version.digest,), after=after)
            new, _ = self.store.records.page(which, "oldest", AT_ONCE)
            watch.add(new)
            if new and time.monotonic() - watch.kept > KEPT_EVERY:
                self._keep(loaded, watch)
        if watch.state.drifted and not before:
            self.say(f"{name}: {watch.state.words}")
        return watch

    def restart(self, name: str, who: str) -> None:
        """Begin anew with the next record, as after an alarm that was looked into."""
        loaded = self.shelf.get(name)
        with self._lock:
            watch = self._watch(loaded)
            self.store.audit.add(who, "drift begun anew", model=name, count=watch.state.count, words=watch.state.words)
            newest, _ = self.store.records.page(limit=1)
            fresh = Watch(Drift(loaded.inspector), newest[0].id if newest else 0, time.time())
            self._watches[name, loaded.mark] = fresh
            self._keep(loaded, fresh)

    def _watch(self, loaded: Loaded) -> Watch:
        """The watch of a version: what was kept of it, if anything was and no other server began anew since."""
        name, mark = loaded.version.name, loaded.mark
        known = self._watches.get((name, mark))
        if known is not None and time.monotonic() - known.kept <= KEPT_EVERY:
            return known
        kept = self.store.watches.get(name, mark)
        if kept is not None and (known is None or kept["begun"] > known.begun):
            try:
                drift = Drift.from_json(loaded.inspector, kept["drift"])
                curve = [(int(number), float(at), dict(evidence)) for number, at, evidence in kept["curve"]]
                known = Watch(drift, int(kept["after"]), float(kept["begun"]), curve, int(kept["every"]))
            except (OkngError, KeyError, TypeError, ValueError):  # of an older okng: it begins with the version again
                known = None
        if known is None:
            known = Watch(Drift(loaded.inspector), 0, time.time())
        self._watches[name, mark] = known
        return known

    def _keep(self, loaded: Loaded, watch: Watch) -> None:
        told: dict[str, Any] = {
            "drift": watch.drift.to_json(), "after": watch.after, "begun": watch.begun, "curve": watch.curve,
            "every": watch.every,
        }  # fmt: skip
        self.store.watches.keep(loaded.version.name, loaded.mark, told)
        watch.kept = time.monotonic()


def as_inspection(record: Record) -> Inspection:
    """What drift looks at of an inspection, from its record."""
    size, seen = (record.height, record.width), record.details.get("traits")
    traits = None if seen is None else Traits(size, False, 255, None, seen["brightness"], seen["sharpness"])
    return Inspection(
        0, record.path, record.score, record.p_value, record.verdict, size, None, (), {}, (), traits
    )  # fmt: skip
