"""Learning in the background, and comparing versions."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import JSONResponse, Response

from okng.serve.paths import folder_below
from okng.serve.schema import LARGEST_ID, JobTold, Work
from okng.serve.security import Refused, Who, may
from okng.serve.served import of, problems
from okng.store.jobs import Job
from okng.store.records import iso

router = APIRouter(tags=["jobs"])
Admin = Annotated[Who, Depends(may("admin"))]


@router.post("/api/models/{name}/jobs", response_model=JobTold, responses=problems(404, 409, 501))
def begin(request: Request, who: Admin, name: str, work: Work) -> Response:
    """Begin to learn or to compare; how far it is says GET /api/jobs/ID."""
    served = of(request)
    served.shelf.get(name)
    if work.kind == "update":
        if any(abs(record) > LARGEST_ID for record in work.records):
            raise Refused(422, "that is no record")
        job = served.workshop.update(name, work.records, who.name)
    elif work.kind == "fit":
        folder = None if work.folder is None else folder_below(served.settings, work.folder)
        job = served.workshop.fit(name, folder, who.name, work.false_alarm_rate)
    elif work.version is None:
        raise Refused(422, "say which version is to be compared")
    else:
        job = served.workshop.compare(name, work.version, who.name)
    found = served.store.jobs.get(job)
    assert found is not None
    return JSONResponse(told(found))


@router.get("/api/jobs", response_model=list[JobTold], responses=problems())
def newest(
    request: Request, who: Admin, model: str | None = None, limit: Annotated[int, Query(ge=1, le=500)] = 50
) -> Response:
    """The newest jobs first."""
    wanted = None if model is None else model.replace("\0", "")
    return JSONResponse([told(job) for job in of(request).store.jobs.all(wanted, limit=limit)])


@router.get("/api/jobs/{job}", response_model=JobTold, responses=problems(404))
def one(request: Request, who: Admin, job: int) -> Response:
    """A job: how far it is, or what came of it; `comparison` has the table for a new version."""
    found = of(request).store.jobs.get(job) if abs(job) <= LARGEST_ID else None
    if found is None:
        raise Refused(404, f"there is no job {job}")
    return JSONResponse(told(found))


@router.delete("/api/jobs/{job}", status_code=204, response_class=Response, responses=problems())
def stop(request: Request, who: Admin, job: int) -> Response:
    """Stop a running job."""
    of(request).workshop.stop(job, who.name)
    return Response(status_code=204)


def told(job: Job) -> dict[str, Any]:
    """A job as JSON values."""
    return {
        "id": job.id, "at": iso(job.at), "who": job.who, "kind": job.kind, "model": job.model, "asked": job.asked,
        "state": job.state, "told": job.told,
    }  # fmt: skip
