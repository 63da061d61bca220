"""For whoever runs the server: whether it lives, whether it can work, figures, and the page of this interface."""

from __future__ import annotations

from html import escape
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from fastapi.responses import HTMLResponse, JSONResponse, Response

from okng.errors import OkngError
from okng.serve.schema import State
from okng.serve.security import Who, may
from okng.serve.served import of, problems

router = APIRouter(tags=["operation"])


@router.get("/health", response_model=State)
def health() -> Response:
    """Whether the process answers."""
    return JSONResponse({"status": "ok", "problems": {}})


@router.get("/ready", response_model=State, responses={503: {"model": State, "description": "It can't work now"}})
def ready(request: Request) -> Response:
    """Whether the store can be written; `problems` are of models whose new version can't be used, too."""
    served = of(request)
    problems = dict(served.shelf.problems)
    try:
        with served.store.writing():
            pass
    except OkngError as error:
        return JSONResponse({"status": "store", "problems": {**problems, "store": str(error)}}, 503)
    return JSONResponse({"status": "ok", "problems": problems})


@router.get("/metrics", response_class=Response, responses={
    200: {"content": {"text/plain": {}}, "description": "Figures"}, **problems(),
})  # fmt: skip
def metrics(request: Request, who: Annotated[Who, Depends(may("inspect"))]) -> Response:
    """Figures for Prometheus."""
    served = of(request)
    page = served.metrics.page(served.queue.inside, served.shelf, served.store)
    return Response(page, media_type="text/plain; version=0.0.4; charset=utf-8")


@router.get("/docs", response_class=HTMLResponse, responses=problems())
def docs(request: Request, who: Annotated[Who, Depends(may("inspect"))]) -> Response:
    """The interface as a page that loads nothing from elsewhere."""
    schema = request.app.openapi()
    parts = []
    for path, methods in schema["paths"].items():
        for method, about in methods.items():
            parts.append(_route(path, method, about))
    title = f"okng {escape(schema['info']['version'])}: the interface"
    return HTMLResponse(
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        '<meta name="viewport" content="width=device-width"></head><body>'
        f'<h1>{title}</h1><p>For programs: <a href="/openapi.json">openapi.json</a>.</p>{"".join(parts)}</body></html>'
    )


def _route(path: str, method: str, about: dict[str, Any]) -> str:
    given = [
        f"<li><code>{escape(one['name'])}</code> {escape(one['schema'].get('type', ''))} "
        f"{escape(one.get('description', ''))}</li>"
        for one in about.get("parameters", [])
    ]
    bodies = ", ".join(escape(kind) for kind in about.get("requestBody", {}).get("content", {}))
    said = "".join(f"<p>{escape(part)}</p>" for part in about.get("description", "").split("\n\n"))
    listed = f"<ul>{''.join(given)}</ul>" if given else ""
    body = f"<p>Body: {bodies}</p>" if bodies else ""
    return f"<h2><code>{method.upper()} {escape(path)}</code></h2>{said}{listed}{body}"
