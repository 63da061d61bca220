"""What was inspected: one row each, written once and never changed."""

from __future__ import annotations

import datetime
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from sqlalchemy import Column, ColumnElement, Connection, Row, Select, and_, bindparam, func, insert, or_, select

from okng.errors import OkngError
from okng.inspection.verdict.result import Inspection
from okng.store.reviews import SAID, standing
from okng.store.tables import deliveries, pictures, records, reviews

if TYPE_CHECKING:
    from okng.store.store import Store

ORDERS = ("newest", "oldest", "oddest", "borderline")
OF_ITS_OWN = 500  # bytes of a record without regions and pictures, its share of the indexes included
PAGE = 4096
CHUNK = 1000
_COLUMNS = {"path", "score", "p_value", "verdict", "height", "width"}  # of `Inspection.to_dict`


@dataclass(frozen=True)
class ModelUsed:
    """The model that judged: its `name`, the `digest` of its file, its `threshold`, and its `version`, if any."""

    name: str
    digest: str
    threshold: float
    version: int | None = None


@dataclass(frozen=True)
class NewRecord:
    """What `Store.record` takes, as one value."""

    inspection: Inspection
    model: ModelUsed
    source: str
    digest: str
    key: str | None = None
    thumbnail: bytes | None = field(default=None, repr=False)
    heat: bytes | None = field(default=None, repr=False)
    image: bytes | None = field(default=None, repr=False)
    sinks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Record:
    """One inspection as it was kept.

    `details` is the rest of what `Inspection.to_dict` says: "regions", "reasons", "timing_ms", and what later ones add.
    `review` is what a person says of it now: "OK", "NG", "unknown", or None.
    """

    id: int
    at: float
    key: str | None
    source: str
    path: str | None
    digest: str
    model: str
    version: int | None
    model_digest: str
    threshold: float
    height: int
    width: int
    score: float
    p_value: float
    verdict: str
    details: dict[str, Any]
    review: str | None
    has_image: bool

    def to_dict(self) -> dict[str, Any]:
        """As JSON values; "at" is ISO 8601 in UTC."""
        fields = {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "details"}
        return {**fields, "at": iso(self.at), **self.details}


@dataclass(frozen=True)
class Filter:
    """Which records: all that are given must hold.

    `judged_by` are digests of model files. `since` and `until` are seconds since 1970, `until` not included. `review`
    is "OK", "NG", "unknown", "any", or "none" for those nobody has reviewed. `after` and `before` are ids, not
    included. `text` is a part of the path.
    """

    model: str | None = None
    version: int | None = None
    judged_by: tuple[str, ...] | None = None
    verdict: str | None = None
    source: str | None = None
    text: str | None = None
    digest: str | None = None
    since: float | None = None
    until: float | None = None
    after: int | None = None
    before: int | None = None
    review: str | None = None
    largest_p: float | None = None
    with_image: bool = False


class Records:
    """The records of a store."""

    def __init__(self, store: Store):
        self.store = store
        self.written = 0  # bytes that records take which were written here and are there for all to see, about

    def write_all(self, connection: Connection, new: Sequence[NewRecord]) -> tuple[list[Record], int]:
        """Keep them with their pictures and deliveries, inside a transaction; for a key that is there, its record.

        Returns them and how many bytes the new ones take. One statement for each table: of one for each record
        SQLAlchemy's part would take longer than the database's.
        """
        keys = [one.key for one in new if one.key is not None]
        known = {row.key: read(row) for row in connection.execute(_WITH_KEYS, {"keys": keys})} if keys else {}
        places: dict[Any, int] = {}  # of what is new, by its key if it has one
        for number, one in enumerate(new):
            if one.key not in known:
                places.setdefault(number if one.key is None else one.key, number)
        fresh = [new[number] for number in places.values()]
        rows = [_row(one) for one in fresh]
        ids = connection.scalars(_INSERT, rows).all() if rows else []
        shown = [
            {"record": kept, "thumbnail": one.thumbnail, "heat": one.heat, "image": one.image}
            for kept, one in zip(ids, fresh, strict=True)
            if one.thumbnail or one.heat or one.image
        ]
        if shown:
            connection.execute(_INSERT_PICTURES, shown)
        told = [{"record": kept, "sink": sink} for kept, one in zip(ids, fresh, strict=True) for sink in one.sinks]
        if told:
            connection.execute(_INSERT_DELIVERIES, told)
        written = {
            place: _record(kept, row, one) for place, kept, row, one in zip(places, ids, rows, fresh, strict=True)
        }
        kept = [
            known[one.key] if one.key in known else written[number if one.key is None else one.key]
            for number, one in enumerate(new)
        ]
        return kept, sum(row["bytes"] for row in rows)

    def get(self, record: int) -> Record | None:
        """The record with this id, if it is there."""
        with self.store.reading() as connection:
            row = connection.execute(_SELECTED.where(records.c.id == record)).first()
        return None if row is None else read(row)

    def with_key(self, key: str) -> Record | None:
        """The record with this key, if it is there."""
        with self.store.reading() as connection:
            row = connection.execute(_WITH_KEY, {"key": key}).first()
        return None if row is None else read(row)

    def several(self, ids: list[int]) -> dict[int, Record]:
        """Those of `ids` that are there."""
        with self.store.reading() as connection:
            rows = connection.execute(_SEVERAL, {"ids": ids}).all()
        return {row.id: read(row) for row in rows}

    def page(
        self, which: Filter | None = None, order: str = "newest", limit: int = 50, cursor: str | None = None
    ) -> tuple[list[Record], str | None]:
        """At most `limit` records in an order of `ORDERS`, and the `cursor` with which the next ones are had, if any.

        "oddest" is by the score, "borderline" by how near the score is to the threshold that judged it.
        """
        if order not in ORDERS:
            raise OkngError(f"an order is {', '.join(ORDERS)}, not {order!r}")
        query = _SELECTED.where(*conditions(which or Filter()))
        key, rising = {
            "newest": (None, False),
            "oldest": (None, True),
            "oddest": (records.c.score, False),
            "borderline": (func.abs(records.c.score - records.c.threshold), True),
        }[order]
        if cursor is not None:
            query = query.where(_beyond(key, rising, cursor))
        ordered = [] if key is None else [key.asc() if rising else key.desc()]
        query = query.order_by(*ordered, records.c.id.asc() if rising else records.c.id.desc()).limit(limit + 1)
        with self.store.reading() as connection:
            found = [read(row) for row in connection.execute(query)]
        if len(found) <= limit:
            return found, None
        last = found[limit - 1]
        value = {"oddest": last.score, "borderline": abs(last.score - last.threshold)}.get(order)
        return found[:limit], str(last.id) if value is None else f"{value!r}:{last.id}"

    def each(self, which: Filter | None = None) -> Iterator[Record]:
        """All of them, oldest first, in memory that does not grow, without holding a transaction open between."""
        which = which or Filter()
        while True:
            found, more = self.page(which, "oldest", CHUNK)
            yield from found
            if more is None:
                return
            which = replace(which, after=found[-1].id)

    def tally(self, which: Filter | None = None) -> dict[str, int]:
        """How many are "OK" and "NG"."""
        query = select(records.c.verdict, func.count()).where(*conditions(which or Filter()))
        with self.store.reading() as connection:
            rows = connection.execute(query.group_by(records.c.verdict)).all()
        return {"OK": 0, "NG": 0} | {row[0]: row[1] for row in rows}

    def scores(self, which: Filter | None = None, limit: int = 10_000) -> list[tuple[int, float, float, float, str]]:
        """(id, at, score, p-value, verdict) of the newest `limit`, oldest first: what charts are drawn of."""
        c = records.c
        query = select(c.id, c.at, c.score, c.p_value, c.verdict).where(*conditions(which or Filter()))
        with self.store.reading() as connection:
            rows = connection.execute(query.order_by(c.id.desc()).limit(limit)).all()
        return [(row[0], row[1], row[2], row[3], row[4]) for row in reversed(rows)]

    def thumbnail(self, record: int) -> bytes | None:
        """The small JPEG of a record, see `pictures.thumbnail`."""
        return self._picture(record, pictures.c.thumbnail)

    def heat(self, record: int) -> bytes | None:
        """The small map of a record, see `pictures.heat`."""
        return self._picture(record, pictures.c.heat)

    def image(self, record: int) -> bytes | None:
        """The image file's bytes, if they were kept."""
        return self._picture(record, pictures.c.image)

    def with_pictures(self, ids: list[int]) -> dict[int, bool]:
        """Those of `ids` that have a thumbnail, and whether they have heat as well."""
        query = select(pictures.c.record, pictures.c.heat.is_not(None)).where(
            pictures.c.record.in_(ids), pictures.c.thumbnail.is_not(None)
        )
        with self.store.reading() as connection:
            return {record: bool(heat) for record, heat in connection.execute(query)}

    def _picture(self, record: int, column: Column[bytes | None]) -> bytes | None:
        with self.store.reading() as connection:
            return connection.execute(select(column).where(pictures.c.record == record)).scalar()


def read(row: Row[Any]) -> Record:
    """A `Record` of a row of `_SELECTED`."""
    fields = dict(row._mapping)
    return Record(**{**fields, "details": json.loads(fields["details"]), "has_image": bool(fields["has_image"])})


def _selected() -> Select[Any]:
    shown = [column for column in records.c if column.name != "bytes"]
    kept = select(pictures.c.record).where(pictures.c.record == records.c.id, pictures.c.image.is_not(None)).exists()
    return select(*shown, standing(records.c.id).label("review"), kept.label("has_image"))


def _row(new: NewRecord) -> dict[str, Any]:
    """What is written of a new record."""
    said = new.inspection.to_dict()
    rest = {name: value for name, value in said.items() if name not in _COLUMNS}
    if (traits := new.inspection.traits) is not None:
        rest["traits"] = {"brightness": traits.brightness, "sharpness": traits.sharpness}
    details = json.dumps(rest)
    pictured = sum(len(picture or b"") for picture in (new.thumbnail, new.heat, new.image))
    return {name: said[name] for name in _COLUMNS} | {
        "at": time.time(), "key": new.key, "source": new.source, "digest": new.digest, "details": details,
        "model": new.model.name, "version": new.model.version, "model_digest": new.model.digest,
        "threshold": new.model.threshold, "bytes": OF_ITS_OWN + len(details) + taken(pictured),
        "path": None if said["path"] is None else storable(said["path"]),
    }  # fmt: skip


def _record(kept: int, row: dict[str, Any], new: NewRecord) -> Record:
    """What `read` would give of a row that was written."""
    fields = {name: value for name, value in row.items() if name != "bytes"}
    fields["details"] = json.loads(row["details"])
    return Record(id=int(kept), **fields, review=None, has_image=new.image is not None)


# Made once: to make a statement takes longer than to run it.
_SELECTED = _selected()
_SEVERAL = _SELECTED.where(records.c.id.in_(bindparam("ids", expanding=True)))
_WITH_KEY = _SELECTED.where(records.c.key == bindparam("key"))
_WITH_KEYS = _SELECTED.where(records.c.key.in_(bindparam("keys", expanding=True)))
_INSERT = insert(records).returning(records.c.id, sort_by_parameter_order=True)
_INSERT_PICTURES = insert(pictures)
_INSERT_DELIVERIES = insert(deliveries)


def conditions(which: Filter) -> list[ColumnElement[bool]]:
    """The filter as SQL."""
    c = records.c
    plain = ("model", "version", "verdict", "source", "digest")
    found = [c[name] == getattr(which, name) for name in plain if getattr(which, name) is not None]
    if which.judged_by is not None:
        found.append(c.model_digest.in_(which.judged_by))
    if which.text:
        found.append(c.path.contains(which.text, autoescape=True))
    if which.since is not None:
        found.append(c.at >= which.since)
    if which.until is not None:
        found.append(c.at < which.until)
    if which.after is not None:
        found.append(c.id > which.after)
    if which.before is not None:
        found.append(c.id < which.before)
    if which.largest_p is not None:
        found.append(c.p_value <= which.largest_p)
    if which.with_image:
        found.append(select(pictures.c.record).where(pictures.c.record == c.id, pictures.c.image.is_not(None)).exists())
    if which.review is not None:
        said = standing(c.id)
        if which.review not in (*SAID, "any", "none"):
            raise OkngError(f"review is {', '.join(SAID)}, any or none, not {which.review!r}")
        if which.review != "none":  # few are reviewed: they are looked up, not all records gone through
            found.append(c.id.in_(select(reviews.c.record)))
        found.append({"any": said.is_not(None), "none": said.is_(None)}.get(which.review, said == which.review))
    return found


def _beyond(key: Any, rising: bool, cursor: str) -> ColumnElement[bool]:
    """What lies behind the place that `cursor` names."""
    value, _, number = cursor.rpartition(":")
    try:
        after_id = int(number)
        beyond_id = records.c.id > after_id if rising else records.c.id < after_id
        if key is None:
            return beyond_id
        edge = float(value)
    except ValueError as error:
        raise OkngError(f"{cursor!r} is no cursor of this list; begin without one") from error
    beyond: ColumnElement[bool] = or_(key > edge if rising else key < edge, and_(key == edge, beyond_id))
    return beyond


def taken(size: int) -> int:
    """Bytes that a row of pictures of `size` bytes takes: small ones share a page, as many as fit."""
    return PAGE // (PAGE // size) if 0 < size <= PAGE else size


def iso(at: float) -> str:
    """Seconds since 1970 as ISO 8601 in UTC, to the millisecond."""
    return datetime.datetime.fromtimestamp(at, datetime.UTC).isoformat(timespec="milliseconds")


def storable(text: str) -> str:
    """A file's name as both databases take it: neither zero bytes nor bytes that are no Unicode."""
    return text.encode(errors="backslashreplace").decode().replace("\0", "\\x00")
