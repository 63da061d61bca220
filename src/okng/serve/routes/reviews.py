"""What people say of what was inspected."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse, Response

from okng.serve.schema import LARGEST_ID, NewReviews, Reviewed, ReviewIds, UndoneReviews
from okng.serve.security import Refused, Who, may
from okng.serve.served import of, problems
from okng.store.records import iso

router = APIRouter(prefix="/api/reviews", tags=["reviews"])
Reviewer = Annotated[Who, Depends(may("review"))]


@router.post("", response_model=ReviewIds, responses=problems(404))
def add(request: Request, who: Reviewer, said: NewReviews) -> Response:
    """Say of records that they are OK, NG or unknown. Nothing is replaced: what was said before stays readable."""
    store = of(request).store
    there = store.records.several(_ids(said.records))
    if missing := [record for record in said.records if record not in there]:
        raise Refused(404, f"there is no record {missing[0]}")
    return JSONResponse({"reviews": store.reviews.add(said.records, said.said, who.name, said.note)})


@router.post("/undo", response_model=ReviewIds, responses=problems())
def undo(request: Request, who: Reviewer, undone: UndoneReviews) -> Response:
    """Take reviews back, by the ids that they were answered with."""
    return JSONResponse({"reviews": of(request).store.reviews.undo(_ids(undone.reviews), who.name)})


@router.get("/{record}", response_model=list[Reviewed], responses=problems())
def history(request: Request, who: Reviewer, record: int) -> Response:
    """All that was said of a record, oldest first."""
    rows = of(request).store.reviews.of(record) if abs(record) <= LARGEST_ID else []
    told = [
        {"id": row.id, "at": iso(row.at), "who": row.who, "said": row.said, "undoes": row.undoes, "note": row.note}
        for row in rows
    ]
    return JSONResponse(told)


def _ids(ids: list[int]) -> list[int]:
    if any(abs(number) > LARGEST_ID for number in ids):
        raise Refused(422, "that is no id")
    return ids
