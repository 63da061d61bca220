"""The versions of each model, and which of them is active. A version is a file that never changes."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import Connection, func, insert, select

from okng.errors import OkngError
from okng.store.tables import choices, models

if TYPE_CHECKING:
    from okng.store.store import Store


@dataclass(frozen=True)
class Version:
    """One version of the model `name`: its `file`, the `digest` of that, and `who` made it when and why."""

    id: int
    name: str
    version: int
    digest: str
    file: str
    at: float
    who: str
    why: str


@dataclass(frozen=True)
class Choice:
    """`who` made `version` the active one of the model `name`."""

    id: int
    name: str
    version: int
    at: float
    who: str
    why: str


class Models:
    """The models of a store."""

    def __init__(self, store: Store):
        self.store = store

    def add(self, name: str, digest: str, file: str, who: str, why: str) -> Version:
        """The version of `name` with this `digest`: a new one, or the one that is there already."""
        with self.store.writing() as connection:
            known = connection.execute(select(models).where(models.c.name == name, models.c.digest == digest)).first()
            if known is None:
                last = select(func.max(models.c.version)).where(models.c.name == name)
                number = (connection.execute(last).scalar() or 0) + 1
                row = {"name": name, "version": number, "digest": digest, "file": file}
                row |= {"at": time.time(), "who": who, "why": why}
                known = connection.execute(insert(models).values(row).returning(models)).one()
                self.store.audit.add(
                    who, "model version added", connection, model=name, version=number, digest=digest, why=why
                )
            return Version(**known._mapping)

    def choose(self, name: str, version: int, who: str, why: str) -> None:
        """Make `version` the active one."""
        with self.store.writing() as connection:
            there = select(models.c.id).where(models.c.name == name, models.c.version == version)
            if connection.execute(there).first() is None:
                raise OkngError(f"there is no version {version} of {name}")
            before = _active(connection, name)
            row = {"name": name, "version": version, "at": time.time(), "who": who, "why": why}
            connection.execute(insert(choices).values(row))
            self.store.audit.add(
                who, "model version taken", connection, model=name, version=version, before=before, why=why
            )

    def versions(self, name: str) -> list[Version]:
        """All versions of a model, oldest first."""
        with self.store.reading() as connection:
            rows = connection.execute(select(models).where(models.c.name == name).order_by(models.c.version))
            return [Version(**row._mapping) for row in rows]

    def active(self, name: str) -> int | None:
        """The active version, if one was ever chosen."""
        with self.store.reading() as connection:
            return _active(connection, name)

    def all_active(self) -> dict[str, int]:
        """The active version of every model."""
        last = select(func.max(choices.c.id)).group_by(choices.c.name)
        with self.store.reading() as connection:
            rows = connection.execute(select(choices.c.name, choices.c.version).where(choices.c.id.in_(last)))
            return {row.name: row.version for row in rows}

    def get(self, name: str, version: int) -> Version:
        """One version; `OkngError` if it is not there."""
        query = select(models).where(models.c.name == name, models.c.version == version)
        with self.store.reading() as connection:
            row = connection.execute(query).first()
        if row is None:
            raise OkngError(f"there is no version {version} of {name}")
        return Version(**row._mapping)

    def choices(self, name: str) -> list[Choice]:
        """Which version was active from when on, oldest first."""
        with self.store.reading() as connection:
            rows = connection.execute(select(choices).where(choices.c.name == name).order_by(choices.c.id))
            return [Choice(**row._mapping) for row in rows]


def _active(connection: Connection, name: str) -> int | None:
    query = select(choices.c.version).where(choices.c.name == name).order_by(choices.c.id.desc()).limit(1)
    return connection.execute(query).scalar()
