"""The loop of `okng watch`: what a source brings is judged, recorded with its deliveries, and then put aside."""

from __future__ import annotations

import io
import re
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np
from PIL import Image

from okng.errors import OkngError, OkngWarning, in_one_line
from okng.inspection.inspector import Decoded, Inspector
from okng.inspection.overlay import heat_range_if_any
from okng.inspection.reading.formats import Encoded
from okng.inspection.reading.images import UnreadableImage
from okng.inspection.reading.workers import Workers
from okng.inspection.verdict.likeness import Likeness
from okng.inspection.verdict.result import Inspection
from okng.line.outbox import Outbox
from okng.line.sources import Arrival, Source
from okng.store import ModelUsed, Store, StoreError
from okng.store.pictures import heat, kept, thumbnail

WINDOW = 20  # images that are looked at together, whether they are like those learnt from
AGAIN = 3600.0  # seconds after which the same warning is said again
BROKEN = 3  # images one after another at which an engine fails, until the watch ends
RETRY = 1.0  # seconds between tries to use a store that is full or locked

Result = TypeVar("Result")


class Watch:
    """Inspects what `source` brings until that ends, or the program does, in whichever way.

    Each image goes through three steps: it is judged; the record and its deliveries are written in one transaction;
    the source puts it aside. Killed before the second, it is met again and judged; before the third, it is met again
    and known by its key, and only put aside. `keep`: which images themselves are stored, of `store.pictures.KEEP`.

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
        keep: str = "odd",
    ):
        self.inspector, self.model, self.source, self.store, self.outbox = inspector, model, source, store, outbox
        self.say, self.keep = say, keep
        self.counts = {"OK": 0, "NG": 0}
        self._broken: set[str] = set()  # names of images at which the engine failed, none well judged since
        self.known = self.unread = 0
        self.last: Inspection | None = None
        self._shown = heat_range_if_any(inspector.calibration)
        self._likeness = self._new_likeness()
        self._said: dict[str, float] = {}  # warnings, and when each was said

    def run(self, tick: Callable[[], None]) -> None:
        """Go on until the source ends; `tick` is called after every image, and several times a second without any."""
        try:
            with Workers() as workers:
                for arrivals in self.source:
                    new = [arrival for arrival in arrivals if not self._met(arrival)]
                    for arrival, found in self._inspected(workers, new):
                        if isinstance(found, str):
                            self.unread += self.source.failed(arrival, found)
                        else:
                            self._keep(arrival, *found)
                        tick()
                    tick()
        finally:
            self.source.close()

    def patiently(self, what: Callable[[], Result]) -> Result:
        """What `what` gives, once the store can be used: while it is full, locked or gone, one can only wait."""
        told = False
        while True:
            try:
                return what()
            except StoreError as error:
                if not told:
                    self.say(f"{error}; waiting")
                told = True
                time.sleep(RETRY)

    def _key(self, arrival: Arrival) -> str | None:
        """By which the store knows an image: judged by one model, it may be judged by another."""
        return None if arrival.key is None else f"{self.model.name} {arrival.key}"

    def _met(self, arrival: Arrival) -> bool:
        """Whether it was recorded before; then it is only put aside."""
        key = self._key(arrival)
        known = None if key is None else self.patiently(lambda: self.store.records.with_key(key))
        if known is None:
            return False
        self.known += 1
        self.source.done(arrival, known.verdict)
        return True

    def _inspected(
        self, workers: Workers, arrivals: Sequence[Arrival]
    ) -> Iterator[tuple[Arrival, tuple[Inspection, Decoded] | str]]:
        """Each of them with its inspection, or why there is none; they are decoded in threads while others are judged.

        They are judged one by one, so that the first need not wait for the last, and one that the detector fails at
        stops no other; where it fails at `BROKEN` in a row the watch ends.
        """
        decoding = [workers.submit(self.inspector.decode, arrival.image) for arrival in arrivals]
        for arrival, decoded in zip(arrivals, decoding, strict=True):
            try:
                ready = decoded.result()
                (found,) = self.inspector.judge([ready])
            except UnreadableImage as error:
                yield arrival, error.reason
            except OkngError as error:
                yield arrival, str(error)
            except Exception as error:  # an engine may raise anything
                self._broken.add(arrival.name)  # the same one may come again
                if len(self._broken) == BROKEN:  # it is not the image: what was not judged stays where it is
                    why = in_one_line(error)
                    raise OkngError(f"the engine fails at image after image ({why}); start okng watch again") from error
                yield arrival, in_one_line(error)
            else:
                self._broken.clear()
                yield arrival, (replace(found, path=arrival.name), ready)

    def _keep(self, arrival: Arrival, inspection: Inspection, decoded: Decoded) -> None:
        calibration = self.inspector.calibration
        small = thumbnail(decoded.pixels, inspection.size, decoded.traits.grey)
        heated = heat(inspection, self._shown)
        image = file_of(arrival.image) if kept(self.keep, inspection, calibration) else None
        self.patiently(
            lambda: self.store.record(
                inspection,
                model=self.model,
                source=self.source.name,
                digest=arrival.digest,
                key=self._key(arrival),
                thumbnail=small,
                heat=heated,
                image=image,
                sinks=self.outbox.names,
            )
        )
        self.counts[inspection.verdict] += 1
        self.last = inspection
        self.outbox.wake()
        self.source.done(arrival, inspection.verdict)
        self._likeness.add(decoded.traits, inspection.is_ng)
        if self._likeness.total == WINDOW:
            self._warn()

    def _new_likeness(self) -> Likeness:
        return Likeness(self.inspector.learnt_images)

    def _warn(self) -> None:
        """Say how the last images were unlike those learnt from, the same with other numbers in it once an hour."""
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", OkngWarning)
            self._likeness.warn()
        self._likeness, now = self._new_likeness(), time.monotonic()
        for warning in caught:
            text = str(warning.message)
            kind = re.sub(r"[\d.]+", "", text)
            if now - self._said.get(kind, -AGAIN) >= AGAIN:
                self._said[kind] = now
                self.say(text)


def file_of(image: object) -> bytes:
    """The image as a file's bytes: as it came, a frame as PNG."""
    if isinstance(image, Encoded):
        return image.content
    assert isinstance(image, np.ndarray)
    content = io.BytesIO()
    Image.fromarray(image).save(content, "PNG", compress_level=1)
    return content.getvalue()
