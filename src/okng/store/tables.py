"""The schema, one for SQLite and PostgreSQL. A change of it is a new `VERSION` with a step in `store.py`."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
)

VERSION = 2

metadata = MetaData()
_Id = BigInteger().with_variant(Integer, "sqlite")  # SQLite numbers rows by itself for INTEGER alone


def _id() -> Column[int]:
    return Column("id", _Id, primary_key=True, autoincrement=True)


def _record(key: bool = False, index: bool = False) -> Column[int]:
    of = ForeignKey("okng_records.id", ondelete="CASCADE")
    return Column("record", _Id, of, nullable=False, primary_key=key, index=index)


store = Table(
    "okng_store",
    metadata,
    Column("version", Integer, nullable=False),
    Column("removed", BigInteger, nullable=False, server_default="0"),  # the newest record that retention removed
)

records = Table(
    "okng_records",
    metadata,
    _id(),  # the order of things; `at` is what the clock said, which may jump
    Column("at", Double, nullable=False),  # seconds since 1970, UTC
    Column("key", String, unique=True),  # what was inspected; a second time is none
    Column("source", String, nullable=False),
    Column("path", Text),  # or name, as it was told; None for bytes
    Column("digest", String, nullable=False),  # of the image
    Column("model", String, nullable=False),
    Column("version", Integer),  # of the model; None where there are none, as beside a watched folder
    Column("model_digest", String, nullable=False),
    Column("threshold", Double, nullable=False),
    Column("height", Integer, nullable=False),
    Column("width", Integer, nullable=False),
    Column("score", Double, nullable=False),
    Column("p_value", Double, nullable=False),
    Column("verdict", String(2), nullable=False),
    Column("details", Text, nullable=False),  # JSON: the rest of `Inspection.to_dict`, regions first
    Column("bytes", Integer, nullable=False),  # what the record takes in the store, about
    Index("okng_records_at", "at"),
    Index("okng_records_model", "model", "id"),
    Index("okng_records_verdict", "verdict", "id"),
    sqlite_autoincrement=True,  # an id is never given twice, not even after the newest rows were removed
)

pictures = Table(
    "okng_pictures",
    metadata,
    _record(key=True),
    Column("thumbnail", LargeBinary),  # JPEG
    Column("heat", LargeBinary),  # grey PNG of the map
    Column("image", LargeBinary),  # the file as it came
)

reviews = Table(
    "okng_reviews",
    metadata,
    _id(),
    _record(index=True),
    Column("at", Double, nullable=False),
    Column("who", String, nullable=False),
    Column("said", String),  # OK, NG or unknown; None in a row that undoes another
    Column("undoes", _Id, ForeignKey("okng_reviews.id", ondelete="CASCADE"), unique=True),
    Column("note", Text, nullable=False, default=""),
    sqlite_autoincrement=True,
)

samples = Table(
    "okng_samples",
    metadata,
    _id(),
    Column("at", Double, nullable=False),
    Column("who", String, nullable=False),
    Column("model", String, nullable=False, index=True),
    Column("version", Integer),
    Column("since", Double, nullable=False),
    Column("told", Text, nullable=False),  # JSON: the ids drawn, in order, and of how many
    sqlite_autoincrement=True,
)

watches = Table(
    "okng_watches",
    metadata,
    _id(),
    Column("at", Double, nullable=False),
    Column("model", String, nullable=False),
    Column("mark", String, nullable=False),  # of what the line is watched against
    Column("told", Text, nullable=False),  # JSON: how it stands
    Index("okng_watches_model", "model", "mark", unique=True),
    sqlite_autoincrement=True,
)

deliveries = Table(
    "okng_deliveries",
    metadata,
    _id(),
    _record(index=True),
    Column("sink", String, nullable=False),
    Column("done_at", Double),
    Column("tries", Integer, nullable=False, default=0),
    Column("failed_at", Double),
    Column("again_at", Double),
    Column("why", Text),  # it failed the last time; with a `done_at`, why it was set aside
    Index("okng_deliveries_pending", "sink", "done_at", "id"),
    sqlite_autoincrement=True,
)

accounts = Table(
    "okng_accounts",
    metadata,
    _id(),
    Column("name", String, nullable=False, unique=True),
    Column("role", String, nullable=False),
    Column("token", String, nullable=False, unique=True),  # its SHA-256
    Column("at", Double, nullable=False),
    sqlite_autoincrement=True,
)

sessions = Table(
    "okng_sessions",
    metadata,
    Column("secret", String, primary_key=True),  # its SHA-256
    Column("account", _Id, ForeignKey("okng_accounts.id", ondelete="CASCADE"), nullable=False),
    Column("until", Double, nullable=False),
)

audit = Table(
    "okng_audit",
    metadata,
    _id(),
    Column("at", Double, nullable=False),
    Column("who", String, nullable=False),
    Column("what", String, nullable=False),
    Column("about", Text, nullable=False),  # JSON
    sqlite_autoincrement=True,
)

models = Table(
    "okng_models",
    metadata,
    _id(),
    Column("name", String, nullable=False),
    Column("version", Integer, nullable=False),  # 1, 2, … of that name
    Column("digest", String, nullable=False),
    Column("file", Text, nullable=False),
    Column("at", Double, nullable=False),
    Column("who", String, nullable=False),
    Column("why", Text, nullable=False),
    Index("okng_models_version", "name", "version", unique=True),
    sqlite_autoincrement=True,
)

choices = Table(  # which version is active: the last row of its name
    "okng_choices",
    metadata,
    _id(),
    Column("name", String, nullable=False, index=True),
    Column("version", Integer, nullable=False),
    Column("at", Double, nullable=False),
    Column("who", String, nullable=False),
    Column("why", Text, nullable=False),
    sqlite_autoincrement=True,
)

jobs = Table(
    "okng_jobs",
    metadata,
    _id(),
    Column("at", Double, nullable=False),
    Column("who", String, nullable=False),
    Column("kind", String, nullable=False),  # update or fit
    Column("model", String, nullable=False),
    Column("asked", Text, nullable=False),  # JSON
    Column("state", String, nullable=False),  # running, done, failed or stopped
    Column("told", Text, nullable=False),  # JSON: phase, share, what came of it
    Column("server", String, nullable=False),  # which process works on it
    sqlite_autoincrement=True,
)
