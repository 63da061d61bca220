"""Who may do what: tokens for programs and people, of which the store knows hashes alone, and browsers' sessions.

A token is 256 random bits, so nobody can find it from its SHA-256; a slow hash is for passwords that people think of.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import delete, func, insert, select

from okng.errors import OkngError, nearest_names
from okng.store.tables import accounts, sessions

if TYPE_CHECKING:
    from okng.store.store import Store

ROLES = ("inspect", "review", "admin")  # each may do what those before it may
SESSION = 12 * 3600.0  # seconds that a browser stays logged in


@dataclass(frozen=True)
class Account:
    """A name and what it may do."""

    id: int
    name: str
    role: str


class Accounts:
    """The accounts of a store."""

    def __init__(self, store: Store):
        self.store = store

    def add(self, name: str, role: str, who: str) -> str:
        """A new account; its token, which is shown this once."""
        if role not in ROLES:
            raise OkngError(f"a role is {', '.join(ROLES)}, not {role!r}")
        if not name.strip() or not name.isprintable():
            raise OkngError("an account needs a name")
        token = f"okng_{secrets.token_urlsafe(32)}"
        with self.store.writing() as connection:
            if connection.execute(select(accounts.c.id).where(accounts.c.name == name)).first():
                raise OkngError(f"there is an account {name!r} already; remove it first, or take another name")
            row = {"name": name, "role": role, "token": _hash(token), "at": time.time()}
            connection.execute(insert(accounts).values(row))
            self.store.audit.add(who, "account added", connection, name=name, role=role)
        return token

    def remove(self, name: str, who: str) -> None:
        """Its token and its sessions end at once."""
        known = [account.name for account in self.all()]
        with self.store.writing() as connection:
            if connection.execute(delete(accounts).where(accounts.c.name == name)).rowcount == 0:
                raise OkngError(f"there is no account {name!r}; {nearest_names(name, known)}")
            self.store.audit.add(who, "account removed", connection, name=name)

    def all(self) -> list[Account]:
        """All accounts by name."""
        with self.store.reading() as connection:
            rows = connection.execute(select(accounts.c.id, accounts.c.name, accounts.c.role).order_by(accounts.c.name))
            return [Account(*row) for row in rows]

    def any(self) -> bool:
        """Whether there is one."""
        with self.store.reading() as connection:
            return bool(connection.execute(select(func.count()).select_from(accounts)).scalar_one())

    def of_token(self, token: str) -> Account | None:
        """Whose token it is."""
        query = select(accounts.c.id, accounts.c.name, accounts.c.role).where(accounts.c.token == _hash(token))
        with self.store.reading() as connection:
            row = connection.execute(query).first()
        return None if row is None else Account(*row)

    def log_in(self, token: str) -> str | None:
        """A secret for a browser's cookie in exchange for a token; None for a token that is nobody's."""
        account = self.of_token(token)
        if account is None:
            return None
        secret = secrets.token_urlsafe(32)
        with self.store.writing() as connection:
            connection.execute(delete(sessions).where(sessions.c.until < time.time()))
            row = {"secret": _hash(secret), "account": account.id, "until": time.time() + SESSION}
            connection.execute(insert(sessions).values(row))
        return secret

    def of_session(self, secret: str) -> Account | None:
        """Whose session it is, while it lasts."""
        query = select(accounts.c.id, accounts.c.name, accounts.c.role).join(
            sessions, sessions.c.account == accounts.c.id
        )
        with self.store.reading() as connection:
            row = connection.execute(
                query.where(sessions.c.secret == _hash(secret), sessions.c.until > time.time())
            ).first()
        return None if row is None else Account(*row)

    def log_out(self, secret: str) -> None:
        """End a session."""
        with self.store.writing() as connection:
            connection.execute(delete(sessions).where(sessions.c.secret == _hash(secret)))


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode(errors="surrogatepass")).hexdigest()
