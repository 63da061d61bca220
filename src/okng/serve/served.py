"""What every route needs: the parts of one server, and the errors that people are told."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from fastapi import Request

from okng.serve.jobs import Workshop
from okng.serve.metrics import Metrics
from okng.serve.models import Shelf
from okng.serve.pages.views import Recently
from okng.serve.queue import Queue
from okng.serve.schema import Problem
from okng.serve.settings import Settings
from okng.serve.watching import Watcher
from okng.store import Store

LIVE = 2.0  # seconds between two looks at the store for the live pages of all browsers


@dataclass(frozen=True)
class Served:
    """The parts of a server."""

    store: Store
    settings: Settings
    shelf: Shelf
    queue: Queue
    workshop: Workshop
    metrics: Metrics
    watcher: Watcher
    recently: Recently = field(default_factory=lambda: Recently(LIVE))  # what live pages show, by model


def of(request: Request) -> Served:
    """The parts of the server that was asked."""
    served: Served = request.app.state.okng
    return served


SAYS = {
    400: "The request makes no sense",
    401: "A token is needed",
    403: "Not with this role, or not from a page of this server",
    404: "There is no such thing",
    408: "The body came too slowly",
    409: "Not now, not in this order, or under a key that is another image's",
    413: "The body is too large",
    415: "A body of another type",
    422: "What was sent can't be used",
    501: "A package is missing on the server",
    503: "Too much at once, or the store can't be used; see Retry-After",
}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """For the OpenAPI page: how a route may refuse, besides what every one may."""
    return {
        status: {"model": Problem, "description": SAYS[status]}
        for status in sorted({400, 401, 403, 408, 413, 422, 503, *statuses})
    }
