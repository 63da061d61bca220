"""How long and how much is kept. What waits for a sink is never removed; what a person reviewed goes last.

What a sink refused and was set aside goes with its record.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from sqlalchemy import ColumnElement, Connection, bindparam, delete, func, select, update

from okng.checks import positive
from okng.store.tables import deliveries, records, reviews, store

if TYPE_CHECKING:
    from okng.store.store import Store

CHUNK = 500  # records removed in one transaction: inspections wait for it
# One by one: SQLite would keep a statement for each length of a list of ids, and each is some 50 kB.
_DELETE = delete(records).where(records.c.id == bindparam("number"))


def check_limits(keep_days: float | None, keep_gb: float | None) -> None:
    """`OkngError` for an age or a size that is not above 0; None is no limit."""
    limits = {"keep_days": keep_days, "keep_gb": keep_gb}
    positive(**{name: limit for name, limit in limits.items() if limit is not None})


class Retention:
    """The retention of a store."""

    def __init__(self, store: Store):
        self.store = store

    def size(self) -> int:
        """Bytes that records and their pictures take, about; of SQLite the file is that large, up to a few per cent."""
        with self.store.reading() as connection:
            return int(connection.execute(select(func.coalesce(func.sum(records.c.bytes), 0))).scalar_one())

    def keep(self, days: float | None = None, gigabytes: float | None = None) -> int:
        """Remove records older than `days` that nobody reviewed, then the oldest until `gigabytes` are kept.

        By size the unreviewed go first. Returns how many were removed; `OkngError` for a limit that is not above 0.
        """
        check_limits(days, gigabytes)
        unreviewed = ~select(reviews.c.id).where(reviews.c.record == records.c.id).exists()
        removed = 0
        if days is not None:
            old = records.c.at < time.time() - days * 86_400
            while count := self._remove([unreviewed, old])[0]:
                removed += count
        if gigabytes is not None:
            over = self.size() - gigabytes * 1e9  # summed once: of millions of records that takes seconds
            for among in ([unreviewed], []):
                while over > 0:
                    count, size = self._remove(among, over)
                    if not count:
                        break
                    removed, over = removed + count, over - size
        if removed:
            self.store.give_back()
        return removed

    def removed(self) -> int:
        """The id of the newest record that was removed, 0 if none was.

        Up to it more is left of what people reviewed, because it was odd, than of the rest; after it all is there.
        """
        with self.store.reading() as connection:
            return last_removed(connection)

    def _remove(self, among: list[ColumnElement[bool]], at_least: float | None = None) -> tuple[int, int]:
        """Remove the oldest of `among`, at most `CHUNK`, or fewer if they hold `at_least` bytes; how many, how much."""
        waiting = select(deliveries.c.id).where(deliveries.c.record == records.c.id, deliveries.c.done_at.is_(None))
        query = select(records.c.id, records.c.bytes).where(*among, ~waiting.exists()).order_by(records.c.id)
        with self.store.writing() as connection:
            chosen, size = [], 0
            for number, held in connection.execute(query.limit(CHUNK)):
                chosen.append(number)
                size += held
                if at_least is not None and size >= at_least:
                    break
            if chosen:
                connection.execute(_DELETE, [{"number": number} for number in chosen])
                last = chosen[-1]
                connection.execute(update(store).where(store.c.removed < last).values(removed=last))
        return len(chosen), size


def last_removed(connection: Connection) -> int:
    """As `Retention.removed`, inside a transaction."""
    return int(connection.execute(select(store.c.removed)).scalar_one())
