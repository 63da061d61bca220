"""Signing in and out, and the files that pages load."""

from __future__ import annotations

from fastapi import APIRouter, Depends, HTTPException, Request, Response
from fastapi.responses import RedirectResponse
from starlette.datastructures import FormData

from okng.serve.pages.render import TYPES, static
from okng.serve.routes.accounts import set_cookie
from okng.serve.routes.pages.desk import Desk, at_desk, fields
from okng.serve.security import COOKIE
from okng.serve.served import of

router = APIRouter(include_in_schema=False)
LONGEST = 200  # letters of a token
FOREVER = {"Cache-Control": "public, max-age=31536000, immutable"}


@router.get("/")
def home() -> Response:
    """The first page."""
    return RedirectResponse("/live", 303)


@router.get("/login")
def login(request: Request) -> Response:
    """The form for a token."""
    return _form(request, request.query_params.get("next", ""), wrong=False)


@router.post("/login")
def log_in(request: Request, form: FormData = Depends(fields)) -> Response:  # noqa: B008
    """A cookie for a token, and on to the page that was asked for."""
    back, token = str(form.get("next") or ""), str(form.get("token") or "").strip()
    secret = of(request).store.accounts.log_in(token) if token and len(token) <= LONGEST else None
    if secret is None:
        return _form(request, back, wrong=True)
    answer = RedirectResponse(_own(back), 303)
    set_cookie(request, answer, secret)
    return answer


@router.post("/logout")
def log_out(request: Request, desk: Desk = Depends(at_desk)) -> Response:  # noqa: B008
    """End the session."""
    if secret := request.cookies.get(COOKIE):
        desk.store.accounts.log_out(secret)
    answer = RedirectResponse("/login", 303)
    answer.delete_cookie(COOKIE, httponly=True, samesite="strict")
    return answer


@router.get("/static/{name}")
def loaded(name: str) -> Response:
    """A style, a script or a picture of the pages."""
    content = static(name)
    if content is None:
        raise HTTPException(404, "there is no such file")
    return Response(content, media_type=f"{TYPES[name.rpartition('.')[2]]}; charset=utf-8", headers=FOREVER)


def _form(request: Request, back: str, wrong: bool) -> Response:
    desk = Desk(request, None)
    return desk.page(
        "login.html", "login", status=401 if wrong else 200, next=_own(back), models=[], model="", version=None,
        wrong=desk.t("login.wrong") if wrong else "",
    )  # fmt: skip


def _own(back: str) -> str:
    """`back` if it is a page of this server, else the first one."""
    return back if back.startswith("/") and not back.startswith(("//", "/\\")) and back.isprintable() else "/live"
