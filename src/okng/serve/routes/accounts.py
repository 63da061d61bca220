"""Tokens, logins, and the audit log."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import JSONResponse, Response

from okng.serve.schema import LARGEST_ID, AccountTold, Asking, AuditEntry, NewAccount, NewToken, Token
from okng.serve.security import COOKIE, Refused, Who, csrf_token, may
from okng.serve.served import of, problems
from okng.store.accounts import SESSION
from okng.store.records import iso

router = APIRouter(tags=["accounts"])
Admin = Annotated[Who, Depends(may("admin"))]


@router.get("/api/accounts", response_model=list[AccountTold], responses=problems())
def all_accounts(request: Request, who: Admin) -> Response:
    """Who has a token, and what they may."""
    accounts = of(request).store.accounts.all()
    return JSONResponse([{"name": account.name, "role": account.role} for account in accounts])


@router.post("/api/accounts", response_model=NewToken, responses=problems())
def add(request: Request, who: Admin, new: NewAccount) -> Response:
    """A new account; its token is shown this once. With the first one, this machine's user needs a token, too."""
    token = of(request).store.accounts.add(new.name, new.role, who.name)
    return JSONResponse({"name": new.name, "role": new.role, "token": token})


@router.delete("/api/accounts/{name}", status_code=204, response_class=Response, responses=problems())
def remove(request: Request, who: Admin, name: str) -> Response:
    """End an account: its token and sessions are worth nothing within a second."""
    of(request).store.accounts.remove(name.replace("\0", ""), who.name)
    return Response(status_code=204)


@router.get("/api/whoami", response_model=Asking, responses=problems())
def whoami(request: Request, who: Annotated[Who, Depends(may("inspect"))]) -> Response:
    """Who asks, what they may, and for a browser what its changes have to bring."""
    return JSONResponse({"name": who.name, "role": who.role, "csrf": who.csrf})


@router.post("/api/login", response_model=Asking, responses=problems())
def log_in(request: Request, given: Token) -> Response:
    """A cookie for a browser in exchange for a token."""
    store = of(request).store
    secret = store.accounts.log_in(given.token)
    account = None if secret is None else store.accounts.of_session(secret)
    if secret is None or account is None:
        raise Refused(401, "this token is nobody's")
    answer = JSONResponse({"name": account.name, "role": account.role, "csrf": csrf_token(secret)})
    set_cookie(request, answer, secret)
    return answer


@router.post("/api/logout", status_code=204, response_class=Response, responses=problems())
def log_out(request: Request, who: Annotated[Who, Depends(may("inspect"))]) -> Response:
    """End the session of a browser."""
    if secret := request.cookies.get(COOKIE):
        of(request).store.accounts.log_out(secret)
    answer = Response(status_code=204)
    answer.delete_cookie(COOKIE, httponly=True, samesite="strict")
    return answer


@router.get("/api/audit", response_model=list[AuditEntry], responses=problems())
def audit(
    request: Request,
    who: Admin,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    before: Annotated[int | None, Query(ge=1, le=LARGEST_ID)] = None,
) -> Response:
    """Who changed what, the newest first."""
    entries = of(request).store.audit.entries(limit, before)
    return JSONResponse(
        [{"id": e.id, "at": iso(e.at), "who": e.who, "what": e.what, "about": e.about} for e in entries]
    )


def set_cookie(request: Request, answer: Response, secret: str) -> None:
    """A cookie that no script reads and no other site sends."""
    secure = request.url.scheme == "https"
    answer.set_cookie(COOKIE, secret, max_age=int(SESSION), httponly=True, samesite="strict", secure=secure)
