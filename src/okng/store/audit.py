"""Who changed what, and when."""

from __future__ import annotations

import json
import time
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, insert, select

from okng.store.tables import audit

if TYPE_CHECKING:
    from okng.store.store import Store


@dataclass(frozen=True)
class Entry:
    """One change: `who` did `what`, and `about` as JSON values."""

    id: int
    at: float
    who: str
    what: str
    about: dict[str, Any]


class Audit:
    """The audit log of a store; entries are only ever added."""

    def __init__(self, store: Store):
        self.store = store

    def add(self, who: str, what: str, connection: Connection | None = None, /, **about: Any) -> None:
        """Add an entry, inside the transaction of the change it tells of, or in one of its own."""
        entry = insert(audit).values(at=time.time(), who=who, what=what, about=json.dumps(about))
        with self.store.writing() if connection is None else nullcontext(connection) as within:
            within.execute(entry)

    def entries(self, limit: int = 100, before: int | None = None) -> list[Entry]:
        """The newest entries first, those before the id `before`."""
        query = select(audit).order_by(audit.c.id.desc()).limit(limit)
        if before is not None:
            query = query.where(audit.c.id < before)
        with self.store.reading() as connection:
            rows = connection.execute(query).all()
        return [Entry(row.id, row.at, row.who, row.what, json.loads(row.about)) for row in rows]
