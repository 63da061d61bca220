"""An error as a page, for whom a browser shows it to."""

from __future__ import annotations

from fastapi import Request, Response

from okng.serve.pages.words import refused
from okng.serve.routes.pages.desk import Desk

WHY = {401: "sign_in", 403: "not_allowed", 404: "not_there", 413: "too_large", 422: "no_sense", 503: "later"}
"""What statuses mean, in words; the line beside it is English, for whoever looks after the server."""


def wanted(request: Request) -> bool:
    """Whether a person looks at the answer: a browser that asked for a page, not for the REST interface."""
    return "text/html" in request.headers.get("accept", "") and not request.url.path.startswith("/api/")


def problem(request: Request, status: int, line: str, headers: dict[str, str]) -> Response:
    """The page of an error in one line."""
    desk = Desk(request, getattr(request.state, "who", None), anywhere=True)
    told = refused(line, desk.language)
    why = WHY.get(status, "") if told == line and desk.language != "en" else ""
    answer = desk.page("problem.html", "problem", status=status, line=told, why=why)
    answer.headers.update(headers)
    return answer
