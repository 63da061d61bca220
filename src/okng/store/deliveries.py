"""The outbox: what is still to be told to whom. A delivery is written with its record and stays until it is done."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import and_, delete, func, or_, select, update
from sqlalchemy.exc import SQLAlchemyError

from okng.inspection.storage.locks import locked
from okng.store.records import Record
from okng.store.tables import deliveries

if TYPE_CHECKING:
    from okng.store.store import Store

_ASIDE = and_(deliveries.c.done_at.is_not(None), deliveries.c.why.is_not(None))  # what was taken has no `why`


@dataclass(frozen=True)
class Delivery:
    """One record for one sink; `tries` of it have failed so far."""

    id: int
    sink: str
    record: Record
    tries: int


class Deliveries:
    """The deliveries of a store."""

    def __init__(self, store: Store):
        self.store = store

    def pending(self, sink: str, limit: int = 100) -> list[Delivery]:
        """What `sink` has not had yet, oldest first; nothing while its first one waits for its next try.

        A clock that was set back does not make it wait: a try is due, too, when the clock is before the last failure.
        """
        c = deliveries.c
        query = select(deliveries).where(c.sink == sink, c.done_at.is_(None)).order_by(c.id).limit(limit)
        with self.store.reading() as connection:
            rows = connection.execute(query).all()
        if not rows:
            return []
        first, now = rows[0], time.time()
        if first.again_at is not None and first.failed_at <= now < first.again_at:
            return []
        found = self.store.records.several([row.record for row in rows])
        return [Delivery(row.id, row.sink, found[row.record], row.tries) for row in rows if row.record in found]

    def done(self, *taken: int) -> None:
        """They were taken."""
        with self.store.writing() as connection:
            change = update(deliveries).where(deliveries.c.id.in_(taken))
            connection.execute(change.values(done_at=time.time(), why=None))

    def failed(self, delivery: int, why: str, again_at: float) -> None:
        """It was not taken; the next try is at `again_at`, in seconds since 1970, and what follows it waits, too."""
        with self.store.writing() as connection:
            tries = deliveries.c.tries + 1
            change = update(deliveries).where(deliveries.c.id == delivery)
            connection.execute(change.values(failed_at=time.time(), again_at=again_at, why=why, tries=tries))

    def set_aside(self, why: str, *refused: int) -> None:
        """They are not tried any more, and what follows them goes on; they stay in the store with `why`."""
        with self.store.writing() as connection:
            tries = deliveries.c.tries + 1
            change = update(deliveries).where(deliveries.c.id.in_(refused))
            connection.execute(change.values(done_at=time.time(), why=why, tries=tries))

    def send_again(self, sink: str) -> int:
        """What was set aside of a sink waits again, before what came later; how many."""
        with self.store.writing() as connection:
            change = update(deliveries).where(deliveries.c.sink == sink, _ASIDE)
            return connection.execute(change.values(done_at=None, again_at=None, tries=0)).rowcount

    def drop(self, sink: str) -> int:
        """Forget what waits for a sink and what was set aside of it; how many. The records stay."""
        with self.store.writing() as connection:
            unsent = or_(deliveries.c.done_at.is_(None), _ASIDE)
            return connection.execute(delete(deliveries).where(deliveries.c.sink == sink, unsent)).rowcount

    def aside(self) -> dict[str, tuple[int, str]]:
        """By sink: how many were set aside, and why the last of them was."""
        c = deliveries.c
        with self.store.reading() as connection:
            counted = connection.execute(select(c.sink, func.count(), func.max(c.id)).where(_ASIDE).group_by(c.sink))
            found = {sink: (count, last) for sink, count, last in counted}
            lasts = [last for _, last in found.values()]
            why = {row[0]: row[1] for row in connection.execute(select(c.id, c.why).where(c.id.in_(lasts)))}
        return {sink: (count, why[last]) for sink, (count, last) in found.items()}

    def waiting(self) -> dict[str, tuple[int, str | None]]:
        """By sink: how many it has not had yet, and why the last try of the first one failed."""
        c = deliveries.c
        with self.store.reading() as connection:
            counted = connection.execute(
                select(c.sink, func.count(), func.min(c.id)).where(c.done_at.is_(None)).group_by(c.sink)
            ).all()
            firsts = [first for _, _, first in counted]
            why = {row[0]: row[1] for row in connection.execute(select(c.id, c.why).where(c.id.in_(firsts)))}
        return {sink: (count, why.get(first)) for sink, count, first in counted}

    @contextmanager
    def turn(self, sink: str) -> Iterator[Callable[[], bool]]:
        """Ask for the turn to deliver to `sink`, which one process has at a time; what is given says whether it has it.

        The turn ends with the block, or with the process: the system's lock of a file beside a SQLite store, or a lock
        of the PostgreSQL session. So no clock is needed, and nobody waits for a process that was killed.
        """
        digest = hashlib.sha256(sink.encode()).digest()
        if self.store.is_sqlite:
            path = Path(f"{self.store.name}.{digest.hex()[:8]}.turn")
            with path.open("ab") as file:
                ours = _locked(file.fileno(), path)
                try:
                    yield lambda: ours
                finally:
                    if ours:
                        with suppress(OSError):  # Windows removes no file that is open
                            path.unlink(missing_ok=True)
            return
        number = int.from_bytes(digest[:8], "big", signed=True)
        with self.store.engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
            ours = bool(connection.execute(select(func.pg_try_advisory_lock(number))).scalar())
            try:
                yield lambda: ours and connection.execute(select(1)).scalar() == 1
            finally:
                with suppress(SQLAlchemyError):  # at once, for the server may see only later that the session has ended
                    connection.execute(select(func.pg_advisory_unlock_all()))
                connection.invalidate()  # its session ends, and the lock with it


def _locked(file: int, path: Path) -> bool:
    """As `locked`; nobody has the turn where there are no locks."""
    with suppress(OSError):
        return locked(file, path)
    return False
