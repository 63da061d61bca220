"""The application: its parts put together, what runs beside the requests, and errors as people are told them."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from http import HTTPStatus
from pathlib import Path

import anyio.to_thread
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.routing import Match

import okng
from okng.errors import NoMemory, OkngError, in_one_line
from okng.line.outbox import Outbox
from okng.line.sinks import Sink
from okng.serve.jobs import Occupied, Unasked, Workshop
from okng.serve.metrics import Metrics
from okng.serve.models import NoSuchModel, Shelf
from okng.serve.queue import Busy, Queue
from okng.serve.routes import ROUTERS
from okng.serve.routes.pages import problem
from okng.serve.security import Gate
from okng.serve.served import Served
from okng.serve.settings import Settings
from okng.serve.watching import Watcher
from okng.store import Store, StoreError

REFRESH = 1.0  # seconds between looks at what other servers and people did to the models
RETENTION = 600.0  # seconds between two removals of what is too old or too much
ROOM = 0.02  # of --keep-gb, left free by a removal; when so much is written again it is time for the next
LONGEST_PATH = 100  # characters of an address that is not there, as it is said
log = logging.getLogger("okng.serve")


def create_app(
    store: Store,
    models: Mapping[str, Path],
    settings: Settings,
    say: Callable[[str], None] = log.info,
    sinks: Sequence[Sink] = (),
) -> FastAPI:
    """The application that serves `models`, files by name, and those that the store knows besides.

    `say` takes lines for the log, `sinks` are told of each record. `OkngError` if a model can't be opened, or there is
    none. The store is the caller's, to close when the application has ended.
    """
    metrics = Metrics()
    shelf = Shelf(store, settings.models, settings.engine, say)
    for name, path in models.items():
        shelf.give(name, path)
    shelf.refresh()
    if not shelf.names():
        raise OkngError("there is no model to serve; give one: okng serve parts.okng")

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        outbox = Outbox(store, sinks, say)
        queue, workshop = Queue(store, settings, metrics, outbox), Workshop(store, shelf, say)
        served = Served(store, settings, shelf, queue, workshop, metrics, Watcher(store, shelf, say))
        app.state.okng = served
        ending = threading.Event()
        keeper = threading.Thread(target=_keep_house, args=(served, ending, say), name="okng-keeper", daemon=True)
        keeper.start()
        outbox.start()
        try:
            yield
        finally:
            ending.set()
            await anyio.to_thread.run_sync(served.queue.stop)
            await anyio.to_thread.run_sync(outbox.stop)
            await anyio.to_thread.run_sync(served.workshop.close)
            keeper.join(10)

    app = FastAPI(
        title="okng",
        version=okng.__version__,
        description="Verdicts on images, and what people say of them.",
        lifespan=life,
        docs_url=None,  # its page loads scripts from elsewhere; see routes/operation.py
        redoc_url=None,
    )
    for router in ROUTERS:
        app.include_router(router)
    app.add_middleware(Gate, store=store, settings=settings)
    app.add_exception_handler(HTTPException, _refused)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(OkngError, _told)
    return app


def _keep_house(served: Served, ending: threading.Event, say: Callable[[str], None]) -> None:
    """Look at the models each second, at the store's size as often as it may have become too large; until `ending`."""
    settings, since, written = served.settings, math.inf, 0
    most = None if settings.keep_gb is None else (1 - ROOM) * settings.keep_gb
    while not ending.wait(REFRESH):
        since += REFRESH
        try:
            served.shelf.refresh()
            served.watcher.look_at_all()
            more = served.store.records.written - written
            full = settings.keep_gb is not None and more > ROOM * settings.keep_gb * 1e9
            if full or (since > RETENTION and (settings.keep_days is not None or settings.keep_gb is not None)):
                found = served.store.records.written
                removed = served.store.retention.keep(settings.keep_days, most)
                since, written = 0.0, found
                if removed:
                    say(f"{removed} records removed by age or size")
        except Exception as error:  # the store may be away for a while; all this is tried again
            say(in_one_line(error))


async def _refused(request: Request, error: Exception) -> Response:
    """What a route says; where none took the request, which are there."""
    assert isinstance(error, HTTPException)
    headers, line, path = dict(error.headers or {}), str(error.detail), request.url.path[:LONGEST_PATH]
    if line == HTTPStatus(error.status_code).phrase:  # the framework's own
        if error.status_code == HTTPStatus.NOT_FOUND:
            line = f"there is nothing at {path}" + "; /docs lists all addresses" * path.startswith("/api/")
        elif error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
            headers["Allow"] = ", ".join(_taken(request)) or headers.get("Allow", "GET")
            line = f"the address {path} takes {headers['Allow']}, not {request.method}"
    return _problem(request, error.status_code, line, headers)


def _taken(request: Request) -> list[str]:
    """The methods that our routes at this address take; the framework names those of the first one alone."""
    each = [route for router in ROUTERS for route in router.routes]
    found = [route for route in each if route.matches(request.scope)[0] != Match.NONE]
    return sorted({method for route in found for method in getattr(route, "methods", None) or ()} - {"HEAD"})


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"][1:]) or "the body"
    return _problem(request, 422, f"{where}: {first['msg']}", {})


async def _told(request: Request, error: Exception) -> Response:
    """A mistake of a person, or a store or memory that can't be had now."""
    if isinstance(error, Busy):
        return _problem(request, 503, str(error), {"Retry-After": str(error.after)})
    if isinstance(error, StoreError | NoMemory):
        log.error("%s", error)
        return _problem(request, 503, str(error), {"Retry-After": "5"})
    if isinstance(error, NoSuchModel):
        return _problem(request, 404, str(error), {})
    if isinstance(error, Occupied | Unasked):
        return _problem(request, 409, str(error), {})
    return _problem(request, 501 if "is not installed" in str(error) else 422, str(error), {})


def _problem(request: Request, status: int, line: str, headers: dict[str, str]) -> Response:
    if problem.wanted(request):
        return problem.problem(request, status, line, headers)
    return JSONResponse({"error": line}, status, headers)
