"""The learn page: false alarms into the model, the new version beside the old one, and back."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, Depends, HTTPException, Response
from fastapi.responses import JSONResponse
from starlette.datastructures import FormData

from okng.errors import OkngError
from okng.serve.models import ending
from okng.serve.pages.learning import SHOWN, comparison, versions, work
from okng.serve.pages.words import Translate
from okng.serve.paths import folder_below
from okng.serve.routes.pages.desk import Desk, at_desk, changing, fields
from okng.serve.schema import LARGEST_ID

router = APIRouter(include_in_schema=False)


@router.get("/learn")
def learn(desk: Desk = Depends(at_desk)) -> Response:  # noqa: B008
    """The page."""
    return show(desk)


def show(desk: Desk, problem: str = "") -> Response:
    """The page, with what stood in the way of the last step."""
    store, t = desk.store, desk.t
    active = desk.loaded.version.version
    jobs = store.jobs.all(desk.model, limit=20)
    chosen = {choice.version for choice in store.models.choices(desk.model)}
    learnt = {record for job in jobs if job.state == "done" for record in job.asked.get("records", ())}
    told = [job.told["comparison"] for job in jobs if job.told.get("comparison")]
    compared = {one["new"] for one in told if one["old"] == active}
    found, _ = store.records.page(desk.which(verdict="NG", review="OK"), limit=SHOWN)
    images = [{**vars(one), "learnt": one.id in learnt} for one in desk.shown(found)]
    return desk.page(
        "learn.html", "learn", status=400 if problem else 200, problem=problem, may=desk.may("admin"), images=images,
        job=work(jobs[0], t, desk.language) if jobs and jobs[0].state != "done" else None,
        comparison=_compared(desk, active, chosen, jobs), promise=desk.promise(),
        cant_update=_cant_update(desk, t),
        by_hand=desk.calibration.basis == "manual", rate=_rate(desk),
        folders=[str(folder) for folder in desk.settings.folders],
        versions=versions(store.models.versions(desk.model), active, chosen, compared, t),
    )  # fmt: skip


def _rate(desk: Desk) -> str:
    """The model's rate in percent: by hand the share of held-out images above the threshold; "" for none or all."""
    rate = desk.calibration.false_alarm_rate
    return f"{100 * rate:.4g}" if 0 < rate < 1 else ""


def _cant_update(desk: Desk, t: Translate) -> str:
    """Why the model can't learn here, in a line; "" where it can."""
    if desk.loaded.inspector.products:
        return t("learn.several_products")
    return t("learn.exported") if ending(desk.loaded.version.file) == ".onnx" else ""


def _compared(desk: Desk, active: int, chosen: set[int], jobs: list[Any]) -> dict[str, Any] | None:
    """The comparison that was asked for, or that of the newest version if nobody has taken it yet."""
    asked = desk.request.query_params.get("version")
    if asked is not None:
        number = int(asked) if asked.isdecimal() else 0
    else:
        last = next((job.told["comparison"]["new"] for job in jobs if job.told.get("comparison")), 0)
        number = 0 if last in chosen else last
    told = desk.workshop.comparison(desk.model, number, active) if number and number != active else None
    if told is None:
        return None
    records = desk.store.records.several([change["record"] for change in told["changed"][:12]])
    shown = {one.id: one for one in desk.shown(records.values())}
    return {
        **asdict(comparison(told)),
        "promise": desk.promise(desk.shelf.load(desk.model, number).inspector),
        "changes": len(told["changed"]),
        "changed": [
            {"image": shown[change["record"]], "old": change["old"], "new": change["new"], "learnt": change["learnt"]}
            for change in told["changed"]
            if change["record"] in shown
        ],
    }


@router.get("/learn/job/{number}")
def job(number: int, desk: Desk = Depends(at_desk)) -> Response:  # noqa: B008
    """How far a job is."""
    found = desk.store.jobs.get(number) if 0 < number <= LARGEST_ID else None
    if found is None:
        raise HTTPException(404, f"there is no job {number}")
    return JSONResponse(asdict(work(found, desk.t, desk.language)))


@router.post("/learn/{what}")
def change(what: str, desk: Desk = Depends(changing), form: FormData = Depends(fields)) -> Response:  # noqa: B008
    """Begin to learn, to fit or to compare, stop that, or take a version."""
    assert desk.who is not None
    who = desk.who.name
    try:
        if what == "update":
            desk.workshop.update(desk.model, [int(str(image)) for image in form.getlist("image")], who)
        elif what == "fit":
            folder = str(form.get("folder") or "")
            rate = form.get("rate")
            desk.workshop.fit(
                desk.model,
                folder_below(desk.settings, folder) if folder else None,
                who,
                None if rate is None else float(str(rate)) / 100,
            )
        elif what == "compare":
            desk.workshop.compare(desk.model, int(str(form.get("version"))), who)
        elif what == "stop":
            desk.workshop.stop(int(str(form.get("job"))), who)
        elif what == "take":
            version = int(str(form.get("version")))
            desk.workshop.take(desk.model, version, who, "")
            return desk.back("learn", "learn.taken", {"n": version})
        else:
            raise HTTPException(404, "there is no such step")
    except (OkngError, ValueError) as error:
        return show(desk, desk.why(error))
    return desk.back("learn")
