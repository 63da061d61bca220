"""What was inspected: a list with filters, one record, and their pictures."""

from __future__ import annotations

import datetime
import io
from typing import Any
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, HTTPException, Response
from PIL import Image

from okng.errors import OkngError
from okng.inspection.reading.formats import Encoded, UnreadableImage
from okng.report.pictures import thumbnail
from okng.serve.pages.heat import drawn, encoded
from okng.serve.pages.views import SAID
from okng.serve.routes.pages.desk import Desk, at_desk
from okng.serve.schema import LARGEST_ID
from okng.store.records import Filter, Record

router = APIRouter(include_in_schema=False)
PAGE = 50
SIDE = 640  # pixels of the longer side of a picture that is drawn from a kept image
FOREVER = {"Cache-Control": "private, max-age=31536000, immutable"}
PEOPLE = {"ok": "OK", "ng": "NG", "unsure": "unknown", "none": "none"}


@router.get("/results")
def results(desk: Desk = Depends(at_desk)) -> Response:  # noqa: B008
    """A page of the list, newest first."""
    query = desk.request.query_params
    asked = {name: query.get(name, "") for name in ("verdict", "person", "since", "until", "source")}
    kept = {name: value for name, value in asked.items() if value}
    rows: list[Record] = []
    total, more, problem = 0, None, ""
    try:
        which = filter_of(desk, asked)
        rows, more = desk.store.records.page(which, limit=PAGE, cursor=query.get("cursor") or None)
        total = sum(desk.store.records.tally(which).values())
    except (OkngError, ValueError) as error:
        problem = str(error)
    return desk.page(
        "results.html", "results", status=400 if problem else 200, problem=problem, asked=asked, total=total,
        rows=desk.shown(rows), more=desk.link("results", **kept, cursor=more) if more else "",
        newest=desk.link("results", **kept) if query.get("cursor") else "",
        export="" if problem else f"/api/results/export?{urlencode(exported(which))}",
    )  # fmt: skip


def filter_of(desk: Desk, asked: dict[str, str]) -> Filter:
    """What the form's fields ask for; times are the server's."""
    return desk.which(
        verdict=asked["verdict"] if asked["verdict"] in ("OK", "NG") else None,
        review=PEOPLE.get(asked["person"]),
        since=_seconds(asked["since"]),
        until=_seconds(asked["until"]),
        text=asked["source"] or None,
    )


def exported(which: Filter) -> dict[str, Any]:
    """The same filter as the address of the export takes it."""
    names = ("model", "verdict", "review", "since", "until", "text")
    return {"format": "csv"} | {name: getattr(which, name) for name in names if getattr(which, name) is not None}


@router.get("/results/{number}")
def record(number: int, desk: Desk = Depends(at_desk)) -> Response:  # noqa: B008
    """One record."""
    found = _record(desk, number)
    said = [
        {
            "answer": "undo" if review.said is None else SAID[review.said],
            "who": review.who,
            "when": datetime.datetime.fromtimestamp(review.at).strftime("%Y-%m-%d %H:%M:%S"),
        }
        for review in desk.store.reviews.of(number)
    ]
    return desk.page("record.html", "results", image=desk.shown([found])[0], reviews=said, page="record")


@router.get("/pictures/{number}")
def picture(number: int, desk: Desk = Depends(at_desk)) -> Response:  # noqa: B008
    """The image as it is shown: what was kept of it, what the detector saw if it is new, or its thumbnail."""
    content, kind = encoded(_picture(desk, _record(desk, number)))
    return Response(content, media_type=kind, headers=FOREVER)


@router.get("/pictures/{number}/heat")
def heated(number: int, desk: Desk = Depends(at_desk)) -> Response:  # noqa: B008
    """The same with how odd each place is, and the regions."""
    found = _record(desk, number)
    heat = desk.store.records.heat(number)
    if heat is None:
        raise HTTPException(404, "this image has no map")
    whole = drawn(_picture(desk, found), heat, (found.height, found.width), found.details.get("regions", []))
    content, kind = encoded(whole)
    return Response(content, media_type=kind, headers=FOREVER)


def _record(desk: Desk, number: int) -> Record:
    """The record, and its own model on the desk, whatever the address says of one."""
    found = desk.store.records.get(number) if 0 < number <= LARGEST_ID else None
    if found is None:
        raise HTTPException(404, f"there is no record {number}; it may have been removed by its age")
    if found.model in desk.names:
        desk.loaded = desk.shelf.get(found.model)
    return found


def _picture(desk: Desk, record: Record) -> Image.Image:
    if record.has_image and (content := desk.store.records.image(record.id)):
        try:
            pixels = thumbnail(desk.loaded.inspector, Encoded(content), (record.height, record.width), SIDE)
            return Image.fromarray(pixels)
        except UnreadableImage:
            pass  # the thumbnail is there still
    seen = next((pixels for number, pixels in tuple(desk.latest) if number == record.id), None)  # (h, w, C)
    if seen is not None:
        scale = min(1.0, SIDE / max(record.height, record.width))
        image = Image.fromarray(seen[:, :, 0] if seen.shape[2] == 1 else seen)
        return image.resize((max(1, round(record.width * scale)), max(1, round(record.height * scale))))
    small = desk.store.records.thumbnail(record.id)
    if small is None:
        raise HTTPException(404, "no picture was kept of this image")
    with Image.open(io.BytesIO(small)) as image:
        return image.convert("RGB")


def _seconds(text: str) -> float | None:
    """A local time as browsers write it, in seconds since 1970."""
    if not text:
        return None
    try:
        return datetime.datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError) as error:
        raise OkngError(f"{text[:40]!r} is no time such as 2026-01-31T14:00") from error
