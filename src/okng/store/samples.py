"""Random samples of what was inspected, drawn to estimate how often the verdict is wrong."""

from __future__ import annotations

import json
import random
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from sqlalchemy import insert, select

from okng.errors import OkngError
from okng.store.records import Filter, conditions
from okng.store.retention import last_removed
from okng.store.tables import records, samples

if TYPE_CHECKING:
    from okng.store.store import Store


@dataclass(frozen=True)
class Sample:
    """Images drawn from those of `model` and `version` between `since` and `at`.

    `drawn` holds the ids of records called "NG" and of those called "OK", each in the order of the draw, `totals` how
    many there were.
    """

    id: int
    at: float
    who: str
    model: str
    version: int | None
    since: float
    drawn: dict[str, list[int]]
    totals: dict[str, int]


class Samples:
    """The samples of a store."""

    def __init__(self, store: Store):
        self.store = store

    def draw(self, which: Filter, version: int | None, size: int, who: str) -> Sample:
        """Draw `size` records of `which`, half of them called NG and half called OK, or more of what there is more of.

        `version`: of the model, that judged them all.

        Each verdict's are a simple random sample without replacement, in random order, so that the first of them are
        one as well. Up to the newest record that retention removed none is drawn: of those left there too many were
        reviewed, for being odd. `OkngError` where there is no record.
        """
        at = time.time()
        which = replace(which, until=at, verdict=None)
        with self.store.writing() as connection:
            ids: dict[str, list[int]] = {"NG": [], "OK": []}
            oldest = at
            which = replace(which, after=last_removed(connection))
            query = select(records.c.verdict, records.c.id, records.c.at).where(*conditions(which))
            for verdict, record, taken in connection.execute(query.order_by(records.c.id)):
                ids[verdict].append(record)
                oldest = min(oldest, taken)
            totals = {verdict: len(found) for verdict, found in ids.items()}
            if not sum(totals.values()):
                raise OkngError("there is no image of this version in these days to draw from; take more days")
            ng = min(totals["NG"], max(size // 2, size - totals["OK"]))
            chance = random.SystemRandom()
            drawn = {
                "NG": chance.sample(ids["NG"], ng),
                "OK": chance.sample(ids["OK"], min(totals["OK"], size - ng)),
            }
            row = {"at": at, "who": who, "model": which.model or "", "version": version, "since": oldest}
            told = json.dumps({"drawn": drawn, "totals": totals})
            number = connection.execute(insert(samples).values(told=told, **row).returning(samples.c.id)).scalar_one()
            self.store.audit.add(who, "random sample drawn", connection, sample=number, size=size, model=which.model)
        return Sample(number, at, who, which.model or "", version, oldest, drawn, totals)

    def last(self, model: str, version: int | None) -> Sample | None:
        """The newest sample of a model's version."""
        query = select(samples).where(samples.c.model == model, samples.c.version == version)
        with self.store.reading() as connection:
            row = connection.execute(query.order_by(samples.c.id.desc()).limit(1)).first()
        if row is None:
            return None
        told = json.loads(row.told)
        return Sample(row.id, row.at, row.who, row.model, row.version, row.since, told["drawn"], told["totals"])
