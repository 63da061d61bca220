"""The loop of `okng watch`: what a source brings is judged, recorded with its deliveries, and then put aside."""

from __future__ import annotations

import re
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from okng.errors import OkngError, OkngWarning
from okng.inspection.formats import UnreadableImage
from okng.inspection.inspector import Inspector
from okng.inspection.result import Inspection
from okng.line.outbox import Outbox
from okng.line.pictures import file_of, is_kept, thumbnail
from okng.line.sources import Arrival, Source
from okng.store import ModelUsed, Store, StoreError

AGAIN = 3600.0  # seconds after which the same warning is said again
RETRY = 1.0  # seconds between tries to write a store that is full or locked


class Watch:
    """Inspects what `source` brings until that ends, or the program does, in whichever way.

    Each image goes through three steps: it is judged; the record and its deliveries are written in one transaction;
    the source puts it aside. Killed before the second, it is met again and judged; before the third, it is met again
    and known by its key, and only put aside. `keep`: which images themselves are stored, of `pictures.KEEP`.

    `counts`: what was recorded, by verdict; `known`: what was met again; `unread`: what could not be read; `last`.
    """

    def __init__(
        self,
        inspector: Inspector,
        model: ModelUsed,
        source: Source,
        store: Store,
        outbox: Outbox,
        say: Callable[[str], None],
        keep: str = "ng",
    ):
        self.inspector, self.model, self.source, self.store, self.outbox = inspector, model, source, store, outbox
        self.say, self.keep = say, keep
        self.counts = {"OK": 0, "NG": 0}
        self.known = self.unread = 0
        self.last: Inspection | None = None
        self._once = Once(say)

    def run(self, tick: Callable[[], None]) -> None:
        """Go on until the source ends; `tick` is called after every image, and several times a second without any."""
        try:
            for arrivals in self.source:
                known = self.store.records.verdicts([key for arrival in arrivals if (key := self._key(arrival))])
                for arrival in arrivals:
                    if verdict := known.get(self._key(arrival) or ""):
                        self.known += 1
                        self.source.done(arrival, verdict)
                new = [arrival for arrival in arrivals if self._key(arrival) not in known]
                for arrival, found in self._inspected(new):
                    if isinstance(found, str):
                        self.unread += self.source.failed(arrival, found)
                    else:
                        self._keep(arrival, found)
                    tick()
                tick()
        finally:
            self.source.close()

    def _key(self, arrival: Arrival) -> str | None:
        """By which the store knows an image: judged by one model, it may be judged by another."""
        return None if arrival.key is None else f"{self.model.name} {arrival.key}"

    def _inspected(self, arrivals: Sequence[Arrival]) -> Iterator[tuple[Arrival, Inspection | str]]:
        """Each of them with its inspection, or why there is none."""
        errors: list[UnreadableImage] = []  # in the order of the images
        left = dict(enumerate(arrivals))
        try:
            with self._once.hears():
                images = [arrival.image for arrival in arrivals]
                for inspection in self.inspector.inspect(images, unreadable=errors.append) if images else ():
                    yield left.pop(inspection.index), inspection
        except OkngError as error:  # one of them can't be judged; that must not stop the others
            if len(arrivals) == 1:
                yield arrivals[0], str(error)
            else:
                for arrival in left.values():
                    yield from self._inspected([arrival])
        else:
            for arrival, unreadable in zip(left.values(), errors, strict=True):
                yield arrival, unreadable.reason

    def _keep(self, arrival: Arrival, inspection: Inspection) -> None:
        inspection = replace(inspection, path=arrival.name)
        kept = is_kept(self.keep, inspection, self.inspector.calibration)
        small = thumbnail(arrival.image, self.inspector.preprocess)
        image = file_of(arrival.image) if kept else None
        told = False
        while True:
            try:
                self.store.record(
                    inspection,
                    model=self.model,
                    source=self.source.name,
                    digest=arrival.digest,
                    key=self._key(arrival),
                    thumbnail=small,
                    image=image,
                    sinks=self.outbox.names,
                )
                break
            except StoreError as error:  # full, locked or gone: nothing else can be done than wait
                if not told:
                    self.say(f"{error}; waiting")
                told = True
                time.sleep(RETRY)
        self.counts[inspection.verdict] += 1
        self.last = inspection
        self.outbox.wake()
        self.source.done(arrival, inspection.verdict)


class Once:
    """Has a warning that comes with image after image, each time with other numbers, said once an hour."""

    def __init__(self, say: Callable[[str], None]):
        self.say = say
        self._said: dict[str, float] = {}

    @contextmanager
    def hears(self) -> Iterator[None]:
        """Take the warnings of what is done in the block."""
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", OkngWarning)
            yield
        now = time.monotonic()
        for warning in caught:
            text = str(warning.message)
            kind = re.sub(r"[\d.]+", "", text)
            if issubclass(warning.category, OkngWarning) and now - self._said.get(kind, -AGAIN) >= AGAIN:
                self._said[kind] = now
                self.say(text)
