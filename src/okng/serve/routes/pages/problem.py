"""An error as a page, for whom a browser shows it to."""

from __future__ import annotations

from fastapi import Request, Response

from okng.serve.routes.pages.desk import Desk


def wanted(request: Request) -> bool:
    """Whether a person looks at the answer: a browser that asked for a page, not for the REST interface."""
    return "text/html" in request.headers.get("accept", "") and not request.url.path.startswith("/api/")


def problem(request: Request, status: int, line: str, headers: dict[str, str]) -> Response:
    """The page of an error in one line."""
    desk = Desk(request, getattr(request.state, "who", None), anywhere=True)
    answer = desk.page("problem.html", "problem", status=status, line=line)
    answer.headers.update(headers)
    return answer
