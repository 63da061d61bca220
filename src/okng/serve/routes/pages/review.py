"""The review page: what each image really is, one at a time or in groups, and what that says of the verdict."""

from __future__ import annotations

from fastapi import APIRouter, Depends, Response
from starlette.datastructures import FormData

from okng.errors import OkngError
from okng.serve.pages.reviewing import GROUP, queue, sample_shown, table
from okng.serve.pages.same import same_scores
from okng.serve.routes.pages.desk import Desk, at_desk, fields

router = APIRouter(include_in_schema=False)
SAYS = {"ok": "OK", "ng": "NG", "unsure": "unknown"}
ORDERS, VIEWS = ("odd", "border", "sample"), ("one", "group")
DAY = 86_400


@router.get("/review")
def review(desk: Desk = Depends(at_desk)) -> Response:  # noqa: B008
    """The next images, and the rates so far."""
    return show(desk)


def show(desk: Desk, problem: str = "") -> Response:
    """The page, with what stood in the way of the last step."""
    query = desk.request.query_params
    order = query.get("order") if query.get("order") in ORDERS else "odd"
    view = query.get("view") if query.get("view") in VIEWS else "one"
    assert order is not None and view is not None
    sample = desk.store.samples.last(desk.model, desk.loaded.version.version)
    which = desk.which(judged_by=same_scores(desk.shelf, desk.model))
    found, left = queue(desk.store, which, order, sample, GROUP if view == "group" else 1)
    return desk.page(
        "review.html", "review", status=400 if problem else 200, problem=problem, order=order, view=view,
        images=desk.shown(found), left=left, promise=desk.promise(),
        undo=bool(desk.who and desk.store.reviews.last(desk.who.name)),
        sample=None if sample is None else sample_shown(desk.store, sample, desk.t),
        table=table(desk.store, desk.which()),
    )  # fmt: skip


@router.post("/review")
def answer(desk: Desk = Depends(at_desk), form: FormData = Depends(fields)) -> Response:  # noqa: B008
    """Keep an answer, those of a group, or take the last one back."""
    assert desk.who is not None
    query = {key: value for key, value in desk.request.query_params.items() if key in ("order", "view")}
    said, rest = str(form.get("answer") or ""), form.get("rest")
    try:
        images = [int(str(image)) for image in form.getlist("image")]
        if "undo" in (said, rest):
            last = desk.store.reviews.last(desk.who.name)
            desk.store.reviews.undo(last, desk.who.name)
            return desk.back("review", "review.undone", {"n": len(last)}, **query)
        if rest is not None:
            answers = [(image, str(form.get(f"answer-{image}") or rest)) for image in images]
            kept = [(image, SAYS[one]) for image, one in answers if one in SAYS]
            desk.store.reviews.add_all(kept, desk.who.name)
            return desk.back("review", "review.saved_group", {"n": len(kept)}, **query)
        if said not in SAYS or len(images) != 1:
            raise OkngError("say of one image whether it is ok, ng or unsure")
        desk.store.reviews.add(images, SAYS[said], desk.who.name)
    except (OkngError, ValueError) as error:
        return show(desk, desk.why(error))
    figures = {"id": images[0], "answer": said}
    if form.get("back") == "record":
        return desk.back(f"results/{images[0]}", "review.saved", figures)
    return desk.back("review", "review.saved", figures, **query)


@router.post("/review/sample")
def draw(desk: Desk = Depends(at_desk), form: FormData = Depends(fields)) -> Response:  # noqa: B008
    """Draw a random sample of what the active version inspected in the last days."""
    assert desk.who is not None
    try:
        size, days = int(str(form.get("size"))), float(str(form.get("days")))
        if not (2 <= size <= 2000 and 0 < days <= 3650):
            raise OkngError("a sample has 2 to 2000 images, from 1 to 3650 days")
        version = desk.loaded.version
        which = desk.which(judged_by=(version.digest,), since=desk.now - days * DAY)
        desk.store.samples.draw(which, version.version, size, desk.who.name)
    except (OkngError, ValueError) as error:
        return show(desk, desk.why(error))
    return desk.back("review", order="sample")
