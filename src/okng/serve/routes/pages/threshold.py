"""The threshold page: a line over the scores, what it would change, what it would promise."""

from __future__ import annotations

from fastapi import APIRouter, Depends, Response
from fastapi.responses import JSONResponse
from starlette.datastructures import FormData

from okng.errors import OkngError
from okng.report.settings import asked, number
from okng.serve.pages.same import same_scores
from okng.serve.pages.thresholds import thresholds
from okng.serve.routes.pages.desk import Desk, at_desk, changing, fields

router = APIRouter(include_in_schema=False)


@router.get("/threshold")
def threshold(desk: Desk = Depends(at_desk)) -> Response:  # noqa: B008
    """The page."""
    return show(desk)


def show(desk: Desk, problem: str = "") -> Response:
    """The page, with what stood in the way of the last step."""
    which = desk.which(judged_by=same_scores(desk.shelf, desk.model))
    return desk.page(
        "threshold.html", "threshold", status=400 if problem else 200, problem=problem, may=desk.may("admin"),
        promise=desk.promise(), **thresholds(desk.store, which, desk.calibration),
    )  # fmt: skip


@router.get("/threshold/promise")
def promised(threshold: float | None = None, desk: Desk = Depends(at_desk)) -> Response:  # noqa: B008
    """What another threshold would promise."""
    present = desk.loaded.inspector
    return JSONResponse({"promise": desk.promise(present if threshold is None else present.with_threshold(threshold))})


@router.post("/threshold")
def choose(desk: Desk = Depends(changing), form: FormData = Depends(fields)) -> Response:  # noqa: B008
    """A new version with another threshold, or with that of another false-alarm rate, in percent."""
    assert desk.who is not None
    try:
        if (rate := form.get("rate")) is not None:
            share = float(str(rate)) / 100
            why = f"false-alarm rate {asked(share)}"
            desk.shelf.change(desk.model, lambda present: present.at(share), desk.who.name, why)
        else:
            value = float(str(form.get("threshold")))
            why = f"threshold {number(value)}"
            desk.shelf.change(desk.model, lambda present: present.with_threshold(value), desk.who.name, why)
    except (OkngError, ValueError) as error:
        return show(desk, desk.why(error))
    now = desk.shelf.get(desk.model).inspector.calibration.threshold
    return desk.back("threshold", "threshold.saved", {"value": number(now)})
