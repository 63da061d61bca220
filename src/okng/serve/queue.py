"""From an image's bytes to a record: decoded, judged and kept, by threads in a row with bounded room before them.

Decoders work on as many images at once as there are cores; the engine takes what has gathered meanwhile, as a batch
where batches pay; what was judged meanwhile is kept in one transaction, so that all of it waits for the disk once. An
image is answered when its record is on disk. Where others are on their way a transaction waits for them a little.
"""

from __future__ import annotations

import math
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from queue import Empty, SimpleQueue
from typing import NoReturn

import numpy as np

from okng.errors import OkngError
from okng.inspection.engines import OnnxEngine
from okng.inspection.inspector import Decoded, Inspector
from okng.inspection.reading.decoding import digest, each_page, header
from okng.inspection.reading.formats import Encoded, UnreadableImage, printable
from okng.inspection.verdict.result import Inspection
from okng.line.outbox import Outbox
from okng.serve.metrics import Metrics
from okng.serve.models import Loaded
from okng.serve.settings import Settings
from okng.store import Store, StoreError
from okng.store.pictures import heat, kept, thumbnail
from okng.store.records import NewRecord, Record

ROOM = 512_000_000  # bytes of files that may be in memory at once
TOGETHER = 64  # records of one transaction
GATHER = 0.02  # seconds that it waits for more of them
LATEST = 8  # images that are shown larger than their thumbnails, though they aren't kept
SHOWN = 640  # pixels of their longer side, about


class Busy(OkngError):
    """There is no room for another image now; `after` seconds there will be."""

    def __init__(self, after: int):
        super().__init__(f"too many images at once; try again in {after} s")
        self.after = after


@dataclass
class Ticket:
    """One image on its way."""

    loaded: Loaded
    source: Encoded
    path: str | None
    origin: str
    key: str | None
    page: int | None = None
    answer: Future[tuple[Record, Inspection]] = field(default_factory=Future)
    decoded: Decoded | None = None
    inspection: Inspection | None = None

    @property
    def shape(self) -> tuple[int, tuple[int, ...]]:
        """What images that the engine takes together have in common."""
        assert self.decoded is not None
        return id(self.loaded), self.decoded.pixels.shape


class Queue:
    """Inspects what is handed to it, from `start` to `stop`."""

    def __init__(self, store: Store, settings: Settings, metrics: Metrics, outbox: Outbox):
        self.store, self.settings, self.metrics, self.outbox = store, settings, metrics, outbox
        cores = os.cpu_count() or 1
        threads = settings.engine.get("threads")
        self._decoders = ThreadPoolExecutor(cores, "okng-decode")
        self._waiting: deque[Ticket] = deque()
        self._news = threading.Condition()
        self._judged: SimpleQueue[Ticket | None] = SimpleQueue()
        self._room = threading.Lock()
        self._inside = self._bytes = 0
        self._coming = 0  # tickets that are not judged yet
        self._pace = 0.1  # seconds that an image took lately, of the whole
        self._last = 0.0
        self.latest: deque[tuple[int, np.ndarray]] = deque(maxlen=LATEST)  # of records: what the detector saw
        self._stopping = False
        lanes = max(1, cores // threads) if threads else 1  # as many as the engine itself has
        self._judges = [threading.Thread(target=self._judge, name="okng-judge", daemon=True) for _ in range(lanes)]
        self._recorder = threading.Thread(target=self._record, name="okng-record", daemon=True)
        for thread in (*self._judges, self._recorder):
            thread.start()

    @property
    def inside(self) -> int:
        """How many requests are worked on."""
        return self._inside

    @contextmanager
    def place(self, size: int) -> Iterator[Callable[[int], None]]:
        """Room for a request that may bring `size` bytes, for as long as the block lasts; `Busy` if there is none.

        What is given takes how many they are once that is known, and raises `Busy` if there is no room for so many.
        """
        held = 0

        def hold(size: int, others: int) -> None:
            nonlocal held
            if others and self._bytes - held + size > ROOM:  # alone a request may have more
                self._refuse()
            self._bytes += size - held
            held = size

        with self._room:
            if self._inside >= self.settings.queue or self._stopping:
                self._refuse()
            hold(size, self._inside)
            self._inside += 1

        def is_of(size: int) -> None:
            with self._room:
                hold(size, self._inside - 1)

        try:
            yield is_of
        finally:
            with self._room:
                self._inside -= 1
                self._bytes -= held

    def _refuse(self) -> NoReturn:
        self.metrics.refused.inc()
        raise Busy(max(1, math.ceil(self._inside * self._pace)))

    def submit(
        self,
        loaded: Loaded,
        source: Encoded,
        path: str | None,
        origin: str,
        key: str | None = None,
        page: int | None = None,
    ) -> Ticket:
        """Inspect one image; the ticket's `answer` is the record as it was kept, and the inspection with its map.

        Of a file with several images it is the one of the `page`. The answer raises `UnreadableImage`, `OkngError` for
        a page that is not there or has to be said, or `StoreError` where nothing was kept.
        """
        ticket = Ticket(loaded, source, path, origin, key, page)
        ticket.answer.set_running_or_notify_cancel()  # who leaves takes nothing back: it is kept all the same
        self._come(1)
        self._decoders.submit(self._decode, ticket)
        return ticket

    def stop(self) -> None:
        """Finish what has begun, and end."""
        self._stopping = True
        self._decoders.shutdown(wait=True)
        with self._news:
            self._news.notify_all()
        for thread in self._judges:
            thread.join()
        self._judged.put(None)
        self._recorder.join()

    def _decode(self, ticket: Ticket) -> None:
        try:
            if ticket.source.page is None:
                ticket.source, ticket.path = meant(ticket.source, ticket.path, ticket.page)
            small_enough(ticket.source, self.settings)
            ticket.decoded = ticket.loaded.inspector.decode(ticket.source)
        except BaseException as error:
            self._come(-1)
            self.metrics.unreadable.inc()
            ticket.answer.set_exception(_named(error, ticket.path))
            return
        with self._news:
            self._waiting.append(ticket)
            self._news.notify()

    def _come(self, tickets: int) -> None:
        with self._room:
            self._coming += tickets

    def _judge(self) -> None:
        while batch := self._next():
            try:
                decoded = [ticket.decoded for ticket in batch if ticket.decoded is not None]
                for ticket, inspection in zip(batch, batch[0].loaded.inspector.judge(decoded), strict=True):
                    ticket.inspection = replace(inspection, path=ticket.path)
                    self._come(-1)
                    self._judged.put(ticket)
            except BaseException as error:
                for ticket in batch:
                    if ticket.inspection is None:
                        self._come(-1)
                        ticket.answer.set_exception(error)

    def _next(self) -> list[Ticket]:
        """What the engine is to take now; nothing when all is done."""
        with self._news:
            while not self._waiting:
                if self._stopping:
                    return []
                self._news.wait(1.0)
            first = self._waiting.popleft()
            most, batch = batch_size(first.loaded.inspector), [first]
            for other in list(self._waiting):
                if len(batch) == most:
                    break
                if other.shape == first.shape:
                    self._waiting.remove(other)
                    batch.append(other)
            return batch

    def _record(self) -> None:
        while (ticket := self._judged.get()) is not None:
            tickets, until = [ticket], time.monotonic() + GATHER
            with suppress(Empty):
                while len(tickets) < TOGETHER:
                    rest = until - time.monotonic() if self._coming else 0.0
                    more = self._judged.get(timeout=max(0.0, rest))
                    if more is None:
                        self._judged.put(None)
                        break
                    tickets.append(more)
            self._keep(tickets)

    def _keep(self, tickets: list[Ticket]) -> None:
        """Keep what was judged, and answer it."""
        try:
            records = self.store.record_all([self._new(ticket) for ticket in tickets])
            self.outbox.wake()
        except BaseException as error:
            if len(tickets) > 1 and not isinstance(error, StoreError):  # one of them can't be kept: which?
                for ticket in tickets:
                    self._keep([ticket])
                return
            for ticket in tickets:
                ticket.answer.set_exception(error)
            return
        now = time.monotonic()
        if self._last and now - self._last < 10:
            self._pace += 0.2 * ((now - self._last) / len(tickets) - self._pace)
        self._last = now
        for record, ticket in zip(records, tickets, strict=True):
            assert ticket.inspection is not None
            self.metrics.inspected(ticket.loaded.version.name, ticket.inspection)
            if ticket.decoded is not None:
                step = max(1, max(ticket.decoded.pixels.shape) // SHOWN)
                self.latest.append((record.id, ticket.decoded.pixels[::step, ::step].copy()))
            ticket.answer.set_result((record, ticket.inspection))

    def _new(self, ticket: Ticket) -> NewRecord:
        inspection, decoded, loaded = ticket.inspection, ticket.decoded, ticket.loaded
        assert inspection is not None and decoded is not None
        calibration = loaded.inspector.calibration
        whole = ticket.source.page is None and kept(self.settings.keep, inspection, calibration)
        return NewRecord(
            inspection,
            loaded.used,
            ticket.origin,
            digest(ticket.source),
            ticket.key,
            thumbnail(decoded.pixels, inspection.size, decoded.traits.grey),
            heat(inspection, loaded.heat),
            ticket.source.content if whole else None,
            self.outbox.names,
        )


def batch_size(inspector: Inspector) -> int:
    """How many images the engine takes at once: on a CPU an exported graph runs them one by one anyway."""
    return 1 if isinstance(inspector.engine, OnnxEngine) else inspector.usual_batch()


def small_enough(source: Encoded, settings: Settings) -> None:
    """Raise `UnreadableImage` for an image that would take too much memory, by what its header says."""
    height, width = header(source).size
    if height * width > settings.max_megapixels * 1e6:
        most = f"{settings.max_megapixels:g} megapixels"
        raise UnreadableImage("image", f"has {width} x {height} pixels, more than {most}; crop or tile it")


def display_name(name: str | None) -> str | None:
    """A file's name as a client said it, fit to be shown and stored, and for nothing else."""
    if not name:
        return None
    return printable(name.replace("\\", "/").rpartition("/")[2][:200].encode(errors="replace").decode()) or None


def _named(error: BaseException, path: str | None) -> BaseException:
    """An unreadable image's error with the name that the client gave in the place of "bytes"."""
    if isinstance(error, UnreadableImage):
        return UnreadableImage(path or "image", error.reason)
    return error


def sources(source: Encoded, name: str | None) -> Sequence[tuple[Encoded, str | None]]:
    """The images in a file, one for each page, each with its name."""
    pages = [page for page in each_page(source) if isinstance(page, Encoded)]
    return [(page, name if page.page is None else f"{name or 'image'}[{page.page}]") for page in pages]


def meant(source: Encoded, name: str | None, page: int | None) -> tuple[Encoded, str | None]:
    """The image that is meant among those in a file, and its name."""
    found = sources(source, name)
    if page is None and len(found) == 1:
        return found[0]
    if page is None:
        raise OkngError(f"{name or 'the file'} holds {len(found)} images; say which with page=0, or send it as a batch")
    if page >= len(found):
        raise OkngError(f"{name or 'the file'} has no page {page}, but {len(found)}, counted from 0")
    return found[page]
