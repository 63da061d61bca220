"""The drift page: whether images still look like those learnt from."""

from __future__ import annotations

from fastapi import APIRouter, Depends, Response

from okng.serve.pages.drifting import whole
from okng.serve.routes.pages.desk import Desk, at_desk, changing

router = APIRouter(include_in_schema=False)


@router.get("/drift")
def drift(desk: Desk = Depends(at_desk)) -> Response:  # noqa: B008
    """The page."""
    watch = desk.watcher.look(desk.model)
    return desk.page("drift.html", "drift", drift=whole(watch, desk.t), may=desk.may("admin"))


@router.post("/drift/restart")
def restart(desk: Desk = Depends(changing)) -> Response:  # noqa: B008
    """Begin the watch anew."""
    assert desk.who is not None
    desk.watcher.restart(desk.model, desk.who.name)
    return desk.back("drift", "drift.restarted")
