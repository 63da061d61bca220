"""Regions and rules: zones drawn over an image, and which regions decide; tried on kept images, then a new version."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from fastapi import APIRouter, Depends, Response
from fastapi.responses import HTMLResponse
from starlette.datastructures import FormData

from okng.errors import OkngError
from okng.inspection.inspector import Inspector
from okng.inspection.reading.formats import Encoded, UnreadableImage
from okng.inspection.verdict.rules import Rules
from okng.serve.pages.words import words
from okng.serve.routes.pages.desk import Desk, at_desk, changing, fields

router = APIRouter(include_in_schema=False)
TRIED = 40  # of the newest kept images


@router.get("/rules")
def rules(desk: Desk = Depends(at_desk)) -> Response:  # noqa: B008
    """The page."""
    return show(desk, desk.loaded.inspector.rules.to_json())


def show(desk: Desk, present: Any, problem: str = "") -> Response:
    """The page with the rules `present`, as JSON values, and what stood in the way of the last step."""
    newest, _ = desk.store.records.page(desk.which(with_image=True), limit=1)
    newest = newest or desk.store.records.page(desk.which(), limit=1)[0]
    shown = desk.shown(newest)
    said = {key.removeprefix("rules."): text for key, text in words(desk.language).items() if key.startswith("rules.")}
    return desk.page(
        "rules.html", "rules", status=400 if problem else 200, problem=problem, may=desk.may("admin"), rules=present,
        no_map=desk.calibration.pixel_threshold is None, promise=desk.promise(), words=said,
        picture=shown[0].original if shown else None,
    )  # fmt: skip


@router.post("/rules")
def keep(desk: Desk = Depends(changing), form: FormData = Depends(fields)) -> Response:  # noqa: B008
    """A new version with these zones and rules."""
    assert desk.who is not None
    present: Any = desk.loaded.inspector.rules.to_json()
    try:
        present = _given(form)
        version = desk.shelf.change(desk.model, _with(present), desk.who.name, "regions and rules")
    except OkngError as error:
        return show(desk, present, desk.why(error))
    return desk.back("rules", "rules.saved", {"version": version.version})


@router.post("/rules/preview")
def preview(desk: Desk = Depends(changing), form: FormData = Depends(fields)) -> Response:  # noqa: B008
    """Which of the newest kept images would be judged differently."""
    try:
        changed = _with(_given(form))(desk.loaded.inspector)
    except OkngError as error:
        html = desk.part("rules_preview.html", problem=desk.why(error), n=0, changes=[], promise="")
        return HTMLResponse(html, 400)
    found, _ = desk.store.records.page(desk.which(with_image=True), limit=TRIED)
    shown = {one.id: one for one in desk.shown(found)}
    tried, changes = 0, []
    for record in found:
        content = desk.store.records.image(record.id)
        if content is None:  # removed meanwhile
            continue
        try:
            present, new = (_judged(one, content) for one in (desk.loaded.inspector, changed))
        except UnreadableImage:
            continue
        tried += 1
        if present.verdict != new.verdict:
            change = {"image": shown[record.id], "old": present.verdict, "new": new.verdict}
            changes.append({**change, "reasons": new.reasons})
    html = desk.part("rules_preview.html", problem="", n=tried, changes=changes, promise=desk.promise(changed))
    return HTMLResponse(html)


def _judged(inspector: Inspector, content: bytes) -> Any:
    return next(iter(inspector.judge([inspector.decode(Encoded(content))])))


def _given(form: FormData) -> Any:
    """The zones and rules that the page sends, as JSON values."""
    try:
        return json.loads(str(form.get("rules") or "{}"))
    except (ValueError, RecursionError) as error:
        raise OkngError("the page sent no rules; load it again") from error


def _with(present: Any) -> Callable[[Inspector], Inspector]:
    given = Rules.from_json(present)  # never `of`, which reads a file where it is given a text
    return lambda inspector: inspector.with_rules(given)
