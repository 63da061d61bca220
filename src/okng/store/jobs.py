"""Long work in the background: what was asked, how far it is, what came of it."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import insert, select, update

from okng.store.tables import jobs

if TYPE_CHECKING:
    from okng.store.store import Store

STATES = ("running", "done", "failed", "stopped")


@dataclass(frozen=True)
class Job:
    """`who` asked for work of a `kind` on a `model`; `told` is how far it is or what came of it."""

    id: int
    at: float
    who: str
    kind: str
    model: str
    asked: dict[str, Any]
    state: str
    told: dict[str, Any]
    server: str


class Jobs:
    """The jobs of a store."""

    def __init__(self, store: Store):
        self.store = store

    def add(self, kind: str, model: str, asked: dict[str, Any], who: str, server: str) -> int:
        """A job that has begun; its id."""
        row = {
            "at": time.time(), "who": who, "kind": kind, "model": model, "asked": json.dumps(asked),
            "state": "running", "told": "{}", "server": server,
        }  # fmt: skip
        with self.store.writing() as connection:
            self.store.audit.add(who, f"job begun: {kind}", connection, model=model, **asked)
            return int(connection.execute(insert(jobs).values(row).returning(jobs.c.id)).scalar_one())

    def tell(self, job: int, told: dict[str, Any], state: str = "running") -> None:
        """How far a running job is, or, with another state of `STATES`, how it ended."""
        change = update(jobs).where(jobs.c.id == job, jobs.c.state == "running")
        with self.store.writing() as connection:
            connection.execute(change.values(told=json.dumps(told), state=state))

    def get(self, job: int) -> Job | None:
        """The job with this id, if it is there."""
        with self.store.reading() as connection:
            row = connection.execute(select(jobs).where(jobs.c.id == job)).first()
        return None if row is None else _read(row)

    def all(self, model: str | None = None, state: str | None = None, limit: int = 50) -> list[Job]:
        """The newest first, of one model or state if asked."""
        query = select(jobs).order_by(jobs.c.id.desc()).limit(limit)
        if model is not None:
            query = query.where(jobs.c.model == model)
        if state is not None:
            query = query.where(jobs.c.state == state)
        with self.store.reading() as connection:
            return [_read(row) for row in connection.execute(query)]


def _read(row: Any) -> Job:
    fields = dict(row._mapping)
    return Job(**fields | {"asked": json.loads(fields["asked"]), "told": json.loads(fields["told"])})
