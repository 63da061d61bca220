"""What is known of the drift of a line, kept so that a restart goes on from it."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

from sqlalchemy import insert, select, update

from okng.store.tables import watches

if TYPE_CHECKING:
    from okng.store.store import Store


class Watches:
    """The watches of a store: for each model one for each `mark`, which says what it is watched against."""

    def __init__(self, store: Store):
        self.store = store

    def get(self, model: str, mark: str) -> dict[str, Any] | None:
        """What was kept last, as JSON values."""
        query = select(watches.c.told).where(watches.c.model == model, watches.c.mark == mark)
        with self.store.reading() as connection:
            told = connection.execute(query).scalar()
        return None if told is None else json.loads(told)

    def keep(self, model: str, mark: str, told: dict[str, Any]) -> None:
        """Replace what is kept."""
        row = {"at": time.time(), "told": json.dumps(told)}
        change = update(watches).where(watches.c.model == model, watches.c.mark == mark).values(row)
        with self.store.writing() as connection:
            if connection.execute(change).rowcount == 0:
                connection.execute(insert(watches).values(model=model, mark=mark, **row))
