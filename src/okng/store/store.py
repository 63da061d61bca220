"""`Store`: opened by a path or a URL, read and written in transactions, with errors a person can put right."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, func, insert, inspect, select, update
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from okng.errors import OkngError, missing_extra
from okng.inspection.verdict.result import Inspection
from okng.store import tables
from okng.store.accounts import Accounts
from okng.store.audit import Audit
from okng.store.deliveries import Deliveries
from okng.store.jobs import Jobs
from okng.store.models import Models
from okng.store.records import ModelUsed, NewRecord, Record, Records
from okng.store.retention import Retention
from okng.store.reviews import Reviews
from okng.store.samples import Samples
from okng.store.watches import Watches

PATIENCE = 10.0  # seconds to wait for another writer
SPARE = 0.05  # of a SQLite file that may stay unused
WRITERS = 0x6F6B6E67  # the number of PostgreSQL's advisory lock that writers take, "okng"


class StoreError(OkngError):
    """The store can't be used now: full, locked, gone. Nothing of the transaction that met it was kept."""


class Store:
    """The store at a path or URL; make one with `Store.open`.

    `records`, `reviews`, `samples`, `accounts`, `audit`, `deliveries`, `models`, `jobs`, `watches` and `retention` are
    its parts. Any number of threads and processes may use one store. Writers take turns, so ids are in the order of
    commits: whoever reads upwards by id misses nothing, whatever the clocks say.
    """

    def __init__(self, engine: Engine, patience: float = PATIENCE):
        self.engine = engine
        self.patience = patience
        self._turn = threading.Lock()  # SQLite's own waiting polls; within a process nobody has to
        self.records = Records(self)
        self.reviews = Reviews(self)
        self.samples = Samples(self)
        self.watches = Watches(self)
        self.accounts = Accounts(self)
        self.audit = Audit(self)
        self.deliveries = Deliveries(self)
        self.models = Models(self)
        self.jobs = Jobs(self)
        self.retention = Retention(self)

    @classmethod
    def open(cls, url: str | Path, patience: float = PATIENCE) -> Store:
        """The store at `url`, made where there is none: a path of a SQLite file, or a URL, postgresql://USER@HOST/NAME.

        `patience`: seconds to wait for other writers before `StoreError`. `OkngError` for a database that can't be
        reached, that is something else's, or that a later okng wrote.
        """
        engine = _engine(_url(url), patience)
        store = cls(engine, patience)
        try:
            with store.writing() as connection:
                _prepare(connection, store.name)
        except BaseException:
            engine.dispose()
            raise
        return store

    def close(self) -> None:
        """Let go of all connections."""
        self.engine.dispose()

    @property
    def name(self) -> str:
        """Where it is, in words that hide a password."""
        return _named(self.engine.url)

    @property
    def is_sqlite(self) -> bool:
        """Whether it is a file of SQLite, not a PostgreSQL server's database."""
        return self.engine.dialect.name == "sqlite"

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A connection within a transaction that only reads."""
        with self._telling(), self.engine.connect() as connection, connection.begin():
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A connection within a transaction that writes; it is committed, and on disk, when the block ends well."""
        if not self._turn.acquire(timeout=self.patience):
            raise _locked(self.name, self.patience)
        try:
            with self._telling(), self.engine.connect() as connection, _writer(connection).begin():
                if not self.is_sqlite:
                    connection.exec_driver_sql(f"SET LOCAL lock_timeout = {int(self.patience * 1000)}")
                    connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({WRITERS})")
                yield connection
        finally:
            self._turn.release()

    def record(
        self,
        inspection: Inspection,
        *,
        model: ModelUsed,
        source: str,
        digest: str,
        key: str | None = None,
        thumbnail: bytes | None = None,
        heat: bytes | None = None,
        image: bytes | None = None,
        sinks: Sequence[str] = (),
    ) -> int:
        """Keep one inspection and a delivery of it to each of `sinks`, all or nothing; its id, once it is on disk.

        `key` says what was inspected: for one that is there already nothing is written, and the old id returned.
        `source`: where the image came from, such as "http" or "folder:/in". `digest`: of the image's bytes.
        `thumbnail` and `heat` are small pictures (`pictures.py` makes them), `image` the file's bytes, where they are
        to be kept.
        """
        new = NewRecord(inspection, model, source, digest, key, thumbnail, heat, image, tuple(sinks))
        return self.record_all([new])[0].id

    def record_all(self, new: Sequence[NewRecord]) -> list[Record]:
        """The same of several in one transaction, so that they share the wait for the disk; what is kept, in order."""
        with self.writing() as connection:
            kept, size = self.records.write_all(connection, new)
        self.records.written += size  # not before: who looks at the store's size on seeing it has to find it there
        return kept

    def give_back(self) -> None:
        """Give the disk back what was removed from a SQLite file; PostgreSQL does that by itself.

        Little stays for the next records, which would have to ask for it again.
        """
        if self.is_sqlite:
            with self._telling(), self.engine.connect() as connection:
                cursor = connection.connection.cursor()
                free, all_of_it = (
                    cursor.execute(f"PRAGMA {count}").fetchone()[0] for count in ("freelist_count", "page_count")
                )
                if free > SPARE * all_of_it:
                    cursor.executescript("PRAGMA incremental_vacuum")  # `execute` takes one step of it, a single page
                cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
                cursor.close()

    @contextmanager
    def _telling(self) -> Iterator[None]:
        """What the database says becomes one line that says what to do."""
        try:
            yield
        except DBAPIError as error:
            raise _told(error, self.name, self.patience) from error
        except PoolTimeout as error:
            raise StoreError(f"the store {self.name} is busy: no connection came free; try again") from error


def _prepare(connection: Connection, name: str) -> None:
    """Make the tables, or bring older ones up to `tables.VERSION`; refuse newer ones and somebody else's."""
    there = set(inspect(connection).get_table_names())
    if tables.store.name not in there:
        if connection.dialect.name == "sqlite" and there:
            raise OkngError(f"{name} is a database of something else; give --store a file of its own")
        tables.metadata.create_all(connection)
        connection.execute(insert(tables.store).values(version=tables.VERSION))
        return
    version = connection.execute(select(tables.store.c.version)).scalar_one()
    if version > tables.VERSION:
        raise OkngError(
            f"the store {name} is of version {version}, made by a later okng; this one knows up to {tables.VERSION}: "
            "in okng's clone run: git pull && pip install ."
        )
    if version < 2:
        connection.exec_driver_sql("ALTER TABLE okng_store ADD COLUMN removed BIGINT NOT NULL DEFAULT 0")
        newest, there_are = connection.execute(select(func.max(tables.records.c.id), func.count())).one()
        if there_are < (newest or 0):  # some were removed, nobody knows up to which
            connection.execute(update(tables.store).values(removed=newest))
        connection.execute(update(tables.store).values(version=2))


def _url(given: str | Path) -> URL:
    """The URL of a path, or of a text that is one already."""
    text = str(given)
    if "://" not in text:
        path = Path(text).expanduser()
        if path.is_dir():
            raise OkngError(f"{path} is a folder; give --store a file such as {path / 'okng.sqlite'}")
        return URL.create("sqlite+pysqlite", database=str(path.absolute()))
    try:
        url = make_url(text)
    except (ArgumentError, ValueError) as error:
        raise OkngError("--store is a file, or a URL such as postgresql://USER@HOST/NAME") from error
    kind = url.drivername.partition("+")[0]
    if kind == "sqlite":
        if not url.database or url.database == ":memory:":
            raise OkngError("--store needs a file: a store in memory would be lost")
        return url.set(drivername="sqlite+pysqlite", database=str(Path(url.database).expanduser().absolute()))
    if kind in ("postgresql", "postgres"):
        return url.set(drivername="postgresql+psycopg")
    raise OkngError(f"a store is SQLite or PostgreSQL, not {kind!r}; give a file, or postgresql://USER@HOST/NAME")


def _engine(url: URL, patience: float) -> Engine:
    if url.get_backend_name() == "sqlite":
        folder = Path(str(url.database)).parent
        if not folder.is_dir():
            raise OkngError(f"there is no folder {folder} for the store; make it, or give another --store")
        engine = create_engine(url, connect_args={"timeout": patience, "check_same_thread": False})
        event.listen(engine, "connect", _set_up_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
        return engine
    try:
        return create_engine(
            url, pool_pre_ping=True, pool_size=8, connect_args={"connect_timeout": max(2, int(patience))}
        )
    except (ModuleNotFoundError, NoSuchModuleError) as error:
        raise missing_extra("psycopg", "serve,postgres") from error


def _set_up_sqlite(connection: Any, _: Any) -> None:
    connection.isolation_level = None  # transactions begin where `_begin_sqlite` says so
    cursor = connection.cursor()
    cursor.execute("PRAGMA auto_vacuum = INCREMENTAL")  # of a new file: what is removed is given back to the disk
    cursor.execute("PRAGMA journal_mode = WAL")
    cursor.execute("PRAGMA synchronous = FULL")  # a commit is on disk, not on its way
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.execute("PRAGMA wal_autocheckpoint = 1000")
    cursor.close()


def _writer(connection: Connection) -> Connection:
    """The same, whose transactions begin as a writer's."""
    return connection.execution_options(okng_writes=True)


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get("okng_writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _named(url: URL) -> str:
    return str(url.database) if url.get_backend_name() == "sqlite" else url.render_as_string(hide_password=True)


def _locked(name: str, patience: float) -> StoreError:
    return StoreError(
        f"the store {name} was locked by another program for {patience:g} s; try again, and end what holds it"
    )


def _told(error: DBAPIError, name: str, patience: float) -> OkngError:
    """What a database's error means, in one line."""
    said = str(error.orig).strip()
    line, code = (said.splitlines() or ["no reason given"])[0], getattr(error.orig, "sqlstate", None)
    if code == "53100" or "disk is full" in said or "disk I/O error" in said:
        return StoreError(
            f"the store {name} is full ({line}); nothing was kept of this: make room, or keep less "
            "(--keep-images none, --keep-days)"
        )
    if code in ("55P03", "40P01", "40001") or "is locked" in said or "is busy" in said:
        return _locked(name, patience)
    if "not a database" in said or "malformed" in said:
        return OkngError(f"{name} is no store of okng's, or is damaged ({line}); give --store another file")
    if "readonly" in said or "unable to open" in said or code in ("25006", "42501"):
        return OkngError(f"the store {name} can't be written ({line}); see to its permissions, or give another --store")
    if error.connection_invalidated or code is None or code.startswith(("08", "28", "3D", "57P", "53")):
        return StoreError(f"there is no database at {name} ({line}); start it, or give another --store")
    return OkngError(f"the store {name} answered: {line}")
