"""What people said of records. Nothing is ever edited: a change of mind is another row, and so is an undo."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import ScalarSelect, insert, select

from okng.errors import OkngError
from okng.store.tables import records, reviews

if TYPE_CHECKING:
    from okng.store.store import Store

SAID = ("OK", "NG", "unknown")


@dataclass(frozen=True)
class Review:
    """One row: `who` said `said` of `record`, or (None) undid the review `undoes`."""

    id: int
    record: int
    at: float
    who: str
    said: str | None
    undoes: int | None
    note: str


class Reviews:
    """The reviews of a store."""

    def __init__(self, store: Store):
        self.store = store

    def add(self, ids: Sequence[int], said: str, who: str, note: str = "") -> list[int]:
        """`who` says `said` ("OK", "NG" or "unknown") of all records `ids`; the ids of the reviews, for `undo`."""
        return self.add_all([(record, said) for record in ids], who, note)

    def add_all(self, answers: Sequence[tuple[int, str]], who: str, note: str = "") -> list[int]:
        """The same of (record, what is said of it), each its own, at once."""
        for _, said in answers:
            if said not in SAID:
                raise OkngError(f"a review says {', '.join(SAID)}, not {said!r}")
        ids = [record for record, _ in answers]
        with self.store.writing() as connection:
            there = set(connection.scalars(select(records.c.id).where(records.c.id.in_(ids))))
            if missing := [record for record in ids if record not in there]:
                raise OkngError(f"there is no record {missing[0]}; it may have been removed by its age")
            row = {"at": time.time(), "who": who, "note": note}
            one = insert(reviews).returning(reviews.c.id)
            return [
                connection.execute(one.values(record=record, said=said, **row)).scalar_one() for record, said in answers
            ]

    def undo(self, ids: Sequence[int], who: str) -> list[int]:
        """Take the reviews `ids` back: what was said of their records before them stands again."""
        with self.store.writing() as connection:
            found = connection.execute(select(reviews).where(reviews.c.id.in_(ids), reviews.c.said.is_not(None)))
            of = {row.id: row.record for row in found}
            undone = set(connection.scalars(select(reviews.c.undoes).where(reviews.c.undoes.in_(ids))))
            if wrong := [review for review in ids if review not in of or review in undone]:
                raise OkngError(f"there is no review {wrong[0]} that could be undone")
            row = {"at": time.time(), "who": who, "said": None, "note": ""}
            one = insert(reviews).returning(reviews.c.id)
            return [
                connection.execute(one.values(record=of[review], undoes=review, **row)).scalar_one() for review in ids
            ]

    def last(self, who: str) -> list[int]:
        """The reviews that `who` gave last and that stand, those given at once together: what an undo takes back."""
        undone = select(reviews.c.undoes).where(reviews.c.undoes.is_not(None))
        standing = select(reviews.c.id, reviews.c.at).where(
            reviews.c.who == who, reviews.c.said.is_not(None), reviews.c.id.not_in(undone)
        )
        with self.store.reading() as connection:
            newest = connection.execute(standing.order_by(reviews.c.id.desc()).limit(1)).first()
            if newest is None:
                return []
            return list(connection.scalars(standing.with_only_columns(reviews.c.id).where(reviews.c.at == newest.at)))

    def of(self, record: int) -> list[Review]:
        """All that was said of a record, oldest first."""
        with self.store.reading() as connection:
            rows = connection.execute(select(reviews).where(reviews.c.record == record).order_by(reviews.c.id))
            return [Review(**row._mapping) for row in rows]


def standing(record: Any) -> ScalarSelect[str | None]:
    """SQL for what is said of `record` now: by its last review that was not undone."""
    said, undo = reviews.alias(), reviews.alias()
    undone = select(undo.c.id).where(undo.c.undoes == said.c.id).exists()
    query = select(said.c.said).where(said.c.record == record, said.c.said.is_not(None), ~undone)
    return query.order_by(said.c.id.desc()).limit(1).scalar_subquery()
