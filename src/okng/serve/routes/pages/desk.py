"""What every page starts from: who asks, in which language, of which model."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any
from urllib.parse import urlencode

from fastapi import Depends, Request
from fastapi.responses import HTMLResponse, RedirectResponse
from markupsafe import Markup
from starlette.datastructures import FormData

from okng.errors import OkngError
from okng.inspection.inspector import Inspector
from okng.inspection.verdict.calibration import Calibration
from okng.report.promise import promise
from okng.serve.models import Loaded
from okng.serve.pages import render
from okng.serve.pages.views import Shown, shown
from okng.serve.pages.words import LANGUAGES, language_of, refused, translator, words
from okng.serve.security import Who, may
from okng.serve.served import of
from okng.store.records import Filter, Record

LANGUAGE = "okng_language"  # the cookie of a person's choice
YEAR = 365 * 86_400


class Desk:
    """One request for a page; `loaded` is the model that it is about, as the address says or the first by name.

    `anywhere`: an address that is of no page, so that what it says of a model is not looked at.
    """

    def __init__(self, request: Request, who: Who | None, anywhere: bool = False):
        self.request, self.who = request, who
        served = of(request)
        self.store, self.shelf, self.settings = served.store, served.shelf, served.settings
        self.workshop, self.watcher, self.latest = served.workshop, served.watcher, served.queue.latest
        self.recently = served.recently
        self.chosen = request.query_params.get("lang")
        accepted = request.headers.get("accept-language", "")
        self.language = language_of(self.chosen or request.cookies.get(LANGUAGE), accepted)
        self.t = translator(self.language)
        self.names: list[str] = self.shelf.names()
        name = None if anywhere else request.query_params.get("model")
        self.loaded: Loaded = self.shelf.get(name or self.names[0])
        self.now = time.time()

    @property
    def model(self) -> str:
        """The model's name."""
        return self.loaded.version.name

    @property
    def calibration(self) -> Calibration:
        """Of the active version."""
        return self.loaded.inspector.calibration

    def which(self, **more: Any) -> Filter:
        """The records of the model."""
        return Filter(model=self.model, **more)

    def may(self, role: str) -> bool:
        """Whether who asks may do what `role` may."""
        return self.who is not None and self.who.may(role)

    def link(self, page: str, **query: Any) -> str:
        """The address of a page, about the same model."""
        if len(self.names) > 1:
            query["model"] = self.model
        return f"/{page}" + (f"?{urlencode(query)}" if query else "")

    def why(self, error: OkngError | ValueError) -> str:
        """What stands in the way of a form, in the reader's language as far as the words know it."""
        return refused(str(error) if isinstance(error, OkngError) else words("en")["refused.number"], self.language)

    def shown(self, records: Iterable[Record]) -> list[Shown]:
        """Records as templates show them."""
        records = list(records)
        pictures = self.store.records.with_pictures([record.id for record in records])
        return [
            shown(record, self.t, self.calibration, (record.id in pictures, pictures.get(record.id, False)))
            for record in records
        ]

    def promise(self, inspector: Inspector | None = None) -> str:
        """What the active threshold promises, or that of another inspector."""
        return promise(inspector or self.loaded.inspector, self.t)

    def page(self, template: str, here: str, status: int = 200, **content: Any) -> HTMLResponse:
        """The page made of a template; `here` is its name among the pages."""
        query = {key: value for key, value in self.request.query_params.items() if key not in ("lang", "said")}
        path = self.request.url.path
        html = self.part(
            template,
            **{
                "page": here, "here": here, "scripts": [render.SCRIPTS[here]] if here in render.SCRIPTS else [],
                "models": self.names, "version": self.loaded.version.version,
                "may_leave": bool(self.who and self.who.csrf), "notice": self._notice(), "problem": "",
                "other": [(code, f"{path}?{urlencode({**query, 'lang': code})}") for code in LANGUAGES],
                **content,
            },
        )  # fmt: skip
        answer = HTMLResponse(html, status)
        if self.chosen == self.language:
            answer.set_cookie(LANGUAGE, self.language, max_age=YEAR, httponly=True, samesite="lax")
        return answer

    def part(self, template: str, **content: Any) -> str:
        """A piece of a page."""
        csrf = Markup('<input type="hidden" name="csrf" value="{}">').format(self.who.csrf if self.who else "")
        common = {"link": self.link, "who": self.who.name if self.who else "", "csrf": csrf, "model": self.model}
        return render.render(template, self.language, **{**common, **content})

    def back(self, page: str, said: str = "", figures: dict[str, Any] | None = None, **query: Any) -> RedirectResponse:
        """To a page that begins with a notice: the words' key `said`, with its figures."""
        if said:
            query |= {"said": said, **(figures or {})}
        return RedirectResponse(self.link(page, **query), 303)

    def _notice(self) -> str:
        """What the step before did; only words of ours, filled in with what is a number or a name."""
        query = self.request.query_params
        key = query.get("said", "")
        if key not in words(self.language) or not key.endswith(tuple(NOTICES)):
            return ""
        figures = {name: value for name, value in query.items() if value.replace(".", "").replace(",", "").isalnum()}
        if (answer := figures.get("answer", "")) in ("ok", "ng", "unsure"):
            figures["answer"] = self.t(f"frame.{answer}")
        try:
            return self.t(key, **figures)
        except KeyError:
            return ""


NOTICES = (".saved", ".saved_group", ".undone", ".restarted", ".taken")


def at_desk(request: Request, who: Who = Depends(may("review"))) -> Desk:  # noqa: B008
    """A dependency: the desk of somebody who may look and review; an account that may only inspect is a program's."""
    return Desk(request, who)


def changing(request: Request, who: Who = Depends(may("admin"))) -> Desk:  # noqa: B008
    """A dependency: the desk of somebody who may change models."""
    return Desk(request, who)


async def fields(request: Request) -> FormData:
    """A dependency: the fields of a form."""
    return await request.form()
