"""The live page: the newest image, counters, the last hour's scores, the promise, drift."""

from __future__ import annotations

import datetime
import hashlib
from typing import Any

from fastapi import APIRouter, Depends, Request, Response

from okng.serve.pages.drifting import state
from okng.serve.pages.views import HOUR, Counts, counts, hour
from okng.serve.routes.pages.desk import Desk, at_desk

router = APIRouter(include_in_schema=False)
HOURLY = 20_000  # images of an hour that are looked through for the chart


@router.get("/live")
def live(desk: Desk = Depends(at_desk)) -> Response:  # noqa: B008
    """The whole page."""
    return desk.page("live.html", "live", **content(desk))


@router.get("/live/now")
def live_now(request: Request, desk: Desk = Depends(at_desk)) -> Response:  # noqa: B008
    """Its middle part, asked for every two seconds; 304 as long as nothing is new."""
    said = content(desk)
    html = desk.part("live_now.html", **said)
    plain = desk.part("live_now.html", **{**said, "clock": "", "hour": None if said["hour"] is None else said["hour"]})
    tag = f'"{hashlib.sha256(plain.encode()).hexdigest()[:20]}"'
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304)
    return Response(html, media_type="text/html", headers={"ETag": tag})


def content(desk: Desk) -> dict[str, Any]:
    """What the template shows."""
    newest, _ = desk.store.records.page(desk.which(), limit=1)
    lately, scores = desk.recently.get(desk.model, lambda: _lately(desk))
    shown = desk.shown(newest)
    return {
        "newest": shown[0] if shown else None,
        "counts": lately,
        "hour": hour(scores, desk.calibration, desk.now),
        "drift": state(desk.watcher.look(desk.model), desk.t),
        "promise": desk.promise(),
        "clock": datetime.datetime.fromtimestamp(desk.now).strftime("%H:%M:%S"),
    }


def _lately(desk: Desk) -> tuple[Counts, list[Any]]:
    """The counters, and the scores of the last hour."""
    scores = desk.store.records.scores(desk.which(since=desk.now - HOUR), HOURLY)
    return counts(desk.store, desk.which(), desk.now), scores
