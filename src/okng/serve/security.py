"""Unasked nobody gets in: what stands before every route.

- A name in `Host` must be one of the server's: a page on another site whose name is turned to this machine's address
  (DNS rebinding) is sent away. Addresses can't be turned.
- Who asks is told by a token, or by the cookie that a browser got for one. Only on loopback, and only as long as there
  is no account, is everybody on this machine admin; what a proxy hands on comes from elsewhere, and is nobody's.
- A change that a browser sends comes from a page of this server (`Origin`), and one with a cookie brings the token that
  only such a page knows, in the header X-CSRF-Token or, of a page's form, the field csrf.
- Bodies are counted as they come: what is too large is never held, nor written, and what comes too slowly is given up.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import ipaddress
import json
import socket
import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlsplit

import anyio.to_thread
from fastapi import Request
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import cookie_parser
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from okng.errors import OkngError
from okng.serve.settings import MB, Settings
from okng.store import Store, StoreError
from okng.store.accounts import ROLES

COOKIE = "okng_session"
HANDED_ON = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip", "via")  # headers that proxies add
OPEN = ("/health", "/ready", "/login", "/api/login", "/static/", "/favicon.ico")
SAFE = ("GET", "HEAD", "OPTIONS")
FRESH = 1.0  # seconds that an answer of the store about a token holds
ENVELOPE = 65_536  # bytes of a form around a file
SMALL = MB  # of any other body
BATCH = 16  # images' worth of a batch's body
MODEL = 4_000 * MB
BODY_TIME = 20.0  # seconds that a small body may take to arrive, and
BODY_RATE = 50_000  # bytes in a second that a larger one comes at, at least
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
    "font-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}


@dataclass(frozen=True)
class Who:
    """Who asks: a `name`, the `role`, and for a browser the `csrf` token that its changes have to bring."""

    name: str
    role: str
    csrf: str = ""

    def may(self, role: str) -> bool:
        """Whether `role` is among what they may."""
        return ROLES.index(self.role) >= ROLES.index(role)


LOCAL = Who("local user", "admin")


class Refused(HTTPException):
    """A request that is answered with a status and one line; `after`: seconds after which to try again."""

    def __init__(self, status: int, line: str, after: int | None = None):
        headers = {} if after is None else {"Retry-After": str(after)}
        if status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        if status in (408, 413):
            headers["Connection"] = "close"  # else the rest is read, and thrown away
        super().__init__(status, line, headers)


class Gate:
    """The middleware that does all of it."""

    def __init__(self, app: ASGIApp, store: Store, settings: Settings):
        self.app, self.store, self.settings = app, store, settings
        self.names = {"localhost", socket.gethostname().lower(), *map(str.lower, settings.names)}
        if settings.local:
            self.names = {"localhost", *map(str.lower, settings.names)}
        self._known: dict[tuple[str, str], tuple[float, Who | None]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or answer it here."""
        if scope["type"] != "http":
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1008})
                return
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)

        async def hardened(message: Message) -> None:
            if message["type"] == "http.response.start":
                changed = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    changed.setdefault(name, value)
                changed.setdefault("Cache-Control", "no-store")
            await send(message)

        try:
            self._check_host(headers.get("host", ""))
            try:
                who = self._who(headers, ask=False)
            except LookupError:
                who = await anyio.to_thread.run_sync(self._who, headers, True)
            path = scope["path"]
            is_open = path in OPEN or any(path.startswith(start) for start in OPEN if start.endswith("/"))
            if who is None and not is_open:
                if scope["method"] == "GET" and "text/html" in headers.get("accept", "") and path != "/openapi.json":
                    await _answer(hardened, 303, "log in", {"Location": f"/login?next={quote(path)}"})
                    return
                raise Refused(401, "a token is needed: Authorization: Bearer TOKEN")
            if scope["method"] not in SAFE:
                _check_origin(headers)
            limit = self._limit(path)
            if int(headers.get("content-length") or 0) > limit:
                raise Refused(413, f"the body is larger than {limit // MB} MB")
        except HTTPException as error:
            await _drained(receive, headers)
            await _answer(hardened, error.status_code, error.detail, dict(error.headers or {}))
            return
        except StoreError as error:
            await _answer(hardened, 503, str(error), {"Retry-After": "5"})
            return
        except ValueError:
            await _answer(hardened, 400, "the headers make no sense", {})
            return
        scope.setdefault("state", {})["who"] = who
        taken, whole, waited = 0, False, 0.0  # bytes, all of them, and seconds for the client alone

        async def counted() -> Message:
            nonlocal taken, whole, waited
            begun = time.monotonic()
            try:
                async with asyncio.timeout(None if whole else BODY_TIME + taken / BODY_RATE - waited):
                    message = await receive()
            except TimeoutError as error:
                raise Refused(408, "the body came too slowly; send it again") from error
            waited += time.monotonic() - begun
            taken += len(message.get("body", b""))
            whole = not message.get("more_body", False)
            if taken > limit:
                raise Refused(413, f"the body is larger than {limit // MB} MB")
            return message

        await self.app(scope, counted, hardened)

    def _check_host(self, host: str) -> None:
        name = urlsplit(f"//{host}").hostname or ""
        try:
            ipaddress.ip_address(name)
        except ValueError:
            if name.lower() not in self.names:
                line = "the server is not called so; ask it by its address, or start it with --name"
                raise Refused(421, line) from None

    def _who(self, headers: Headers, ask: bool) -> Who | None:
        """Who asks; None for nobody that is known. Raises `LookupError` if the store is to be asked and may not be."""
        scheme, _, token = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            return self._remembered("token", token.strip(), ask)
        secret = cookie_parser(headers.get("cookie", "")).get(COOKIE, "")
        if secret and (found := self._remembered("session", secret, ask)) is not None:
            return found
        return None if _handed_on(headers) else self._remembered("nobody", "", ask)

    def _remembered(self, kind: str, secret: str, ask: bool) -> Who | None:
        """What the store says, asked once a second at most."""
        mark = (kind, hashlib.sha256(secret.encode(errors="surrogatepass")).hexdigest())
        asked, who = self._known.get(mark, (-FRESH, None))
        now = time.monotonic()
        if now - asked < FRESH:
            return who
        if not ask:
            raise LookupError(kind)
        accounts = self.store.accounts
        if kind == "nobody":
            who = LOCAL if self.settings.local and not accounts.any() else None
        else:
            account = accounts.of_token(secret) if kind == "token" else accounts.of_session(secret)
            csrf = csrf_token(secret) if kind == "session" else ""
            who = None if account is None else Who(account.name, account.role, csrf)
        if len(self._known) > 1000:  # of guesses
            self._known.clear()
        self._known[mark] = (now, who)
        return who

    def _limit(self, path: str) -> int:
        """Bytes that a body may have."""
        image = int(self.settings.max_mb * MB) + ENVELOPE
        if path.startswith("/api/inspect"):
            return image
        if path.startswith("/api/batch"):
            return image * BATCH
        return MODEL if path.startswith("/api/upload/") else SMALL


def csrf_token(secret: str) -> str:
    """What the pages of a session carry: known to nobody who doesn't know the cookie, and not the cookie."""
    return hashlib.sha256(f"csrf {secret}".encode()).hexdigest()


def may(role: str) -> Any:
    """A dependency: `Who` asks, if they may what `role` may, and if a change by a browser is one of its own pages'."""

    async def allowed(request: Request) -> Who:
        who: Who | None = getattr(request.state, "who", None)
        if who is None:
            raise Refused(401, "a token is needed: Authorization: Bearer TOKEN")
        if not who.may(role):
            raise Refused(403, f"{who.name} may {who.role}; this takes the role {role}")
        if who.csrf and request.method not in SAFE:
            brought = request.headers.get("x-csrf-token")
            is_page = not request.url.path.startswith("/api/")  # whose bodies may be large, and are not read for this
            if (
                brought is None
                and is_page
                and request.headers.get("content-type", "").startswith(
                    ("application/x-www-form-urlencoded", "multipart/form-data")
                )
            ):
                field = (await request.form()).get("csrf")
                brought = field if isinstance(field, str) else None
            if not hmac.compare_digest((brought or "").encode(), who.csrf.encode()):
                raise Refused(403, "this change does not come from a page of this server; load the page again")
        return who

    return allowed


def safe_host(host: str, store: Store) -> bool:
    """Whether a server that listens on `host` is on loopback; `OkngError` for another host while there is no token."""
    local = is_loopback(host)
    if not local and not store.accounts.any():
        raise OkngError(
            f"on {host} others can reach this server, so it needs a token first: "
            "okng serve --add-token NAME --role inspect|review|admin, with the same --store"
        )
    return local


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach what listens on `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _handed_on(headers: Headers) -> bool:
    """Whether a request to loopback came from elsewhere: through a proxy, or asking for another machine's address."""
    name = urlsplit(f"//{headers.get('host', '')}").hostname or ""
    return any(header in headers for header in HANDED_ON) or not is_loopback(name)


def _check_origin(headers: Headers) -> None:
    """Browsers say from which site a change comes; other programs say nothing."""
    origin, site = headers.get("origin"), headers.get("sec-fetch-site")
    if origin is not None:
        if urlsplit(origin).netloc.lower() != headers.get("host", "").lower() or origin == "null":
            raise Refused(403, "changes are taken from this server's own pages alone")
    elif site not in (None, "same-origin", "none"):
        raise Refused(403, "changes are taken from this server's own pages alone")


async def _drained(receive: Receive, headers: Headers) -> None:
    """Read a little of what is not wanted, so that a client that is still sending reads the answer."""
    taken = 0
    if headers.get("content-length") or headers.get("transfer-encoding"):
        with anyio.move_on_after(2):
            while taken < 4 * MB:
                message = await receive()
                taken += len(message.get("body", b""))
                if not message.get("more_body"):
                    return


async def _answer(send: Send, status: int, line: str, headers: dict[str, str]) -> None:
    body = json.dumps({"error": line}).encode()
    headers = {"Content-Type": "application/json", "Content-Length": str(len(body)), **headers}
    raw = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": raw})
    await send({"type": "http.response.body", "body": body})
