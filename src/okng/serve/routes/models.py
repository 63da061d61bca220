"""Models, their promise and versions; thresholds; uploads."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import anyio.to_thread
from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import FileResponse, JSONResponse, Response

from okng.inspection.inspector import Inspector
from okng.inspection.verdict.rules import Rules
from okng.serve.models import Unfit, checked, writing_versions
from okng.serve.schema import Limit, ModelServed, NewRules, Promised, Taken, VersionOfModel
from okng.serve.security import Refused, Who, may
from okng.serve.served import Served, of, problems
from okng.store.records import iso

router = APIRouter(tags=["models"])
Inspecting = Annotated[Who, Depends(may("inspect"))]
Admin = Annotated[Who, Depends(may("admin"))]


@router.get("/api/models", response_model=list[ModelServed], responses=problems())
def all_models(request: Request, who: Inspecting) -> Response:
    """All models with their promises."""
    served = of(request)
    return JSONResponse([described(served, name) for name in served.shelf.names()])


@router.get("/api/models/{name}", response_model=ModelServed, responses=problems(404))
def one_model(request: Request, who: Inspecting, name: str) -> Response:
    """One model with its promise and its versions."""
    return JSONResponse(described(of(request), name))


@router.get("/api/models/{name}/promise", response_model=Promised, responses=problems(404))
def promise(
    request: Request,
    who: Inspecting,
    name: str,
    false_alarm_rate: Annotated[float | None, Query(gt=0, lt=1)] = None,
    threshold: Annotated[float | None, Query(ge=-1e300, le=1e300)] = None,
) -> Response:
    """What another rate or threshold would promise; nothing is changed."""
    inspector = at(of(request).shelf.get(name).inspector, Limit(false_alarm_rate=false_alarm_rate, threshold=threshold))
    return JSONResponse(promised(inspector))


@router.post("/api/models/{name}/threshold", response_model=ModelServed, responses=problems(404))
def threshold(request: Request, who: Admin, name: str, limit: Limit) -> Response:
    """Another false-alarm rate or threshold: a new version of the model, active at once."""
    served = of(request)
    if limit.false_alarm_rate is None and limit.threshold is None:
        raise Refused(422, "give a false_alarm_rate or a threshold")
    why = (
        f"false-alarm rate {limit.false_alarm_rate:g}"
        if limit.false_alarm_rate is not None
        else f"threshold {limit.threshold:.6g}"
    )
    served.shelf.get(name)
    served.shelf.change(name, lambda inspector: at(inspector, limit), who.name, why)
    return JSONResponse(described(served, name))


@router.post("/api/models/{name}/rules", response_model=ModelServed, responses=problems(404))
def rules(request: Request, who: Admin, name: str, given: NewRules) -> Response:
    """Other zones and rules, as `okng rules` takes them: a new version of the model, active at once."""
    served = of(request)
    served.shelf.get(name)
    made = Rules.from_json(given.model_dump())
    why = f"{len(made.zones)} zones, {len(made.rules)} rules"
    served.shelf.change(name, lambda inspector: inspector.with_rules(made), who.name, why)
    return JSONResponse(described(served, name))


@router.post("/api/models/{name}/take", response_model=ModelServed, responses=problems(404, 409))
def take(request: Request, who: Admin, name: str, taken: Taken) -> Response:
    """Make a version active: one that was active before, or one that was compared with the active one."""
    served = of(request)
    served.workshop.take(name, taken.version, who.name, taken.why)
    return JSONResponse(described(served, name))


@router.post("/api/upload/{name}", response_model=VersionOfModel, responses=problems(), openapi_extra={
    "requestBody": {"required": True, "content": {"application/octet-stream": {
        "schema": {"type": "string", "format": "binary"}}}},
})  # fmt: skip
async def upload(
    request: Request,
    who: Admin,
    name: str,
    kind: Annotated[Literal["okng", "onnx"], Query(description="What the file is.")] = "okng",
    why: Annotated[str, Query(max_length=500)] = "uploaded",
) -> Response:
    """A model file as a new version. The first of a name is active at once, a later one once compared and taken."""
    served = of(request)
    checked(name)
    temporary = served.shelf.new_file(f".{kind}")
    try:
        with writing_versions(), temporary.open("wb") as file:
            async for chunk in request.stream():
                await anyio.to_thread.run_sync(file.write, chunk)
        try:
            version = await anyio.to_thread.run_sync(served.shelf.add, name, temporary, who.name, why)
        except Unfit as error:
            raise Refused(422, str(error).replace(str(temporary), "the file")) from error
    finally:
        temporary.unlink(missing_ok=True)
    return JSONResponse(_version(version, served.store.models.active(name)))


@router.get("/api/models/{name}/versions/{version}/file", response_class=Response, responses={
    200: {"content": {"application/octet-stream": {}}, "description": "The model file"}, **problems(404),
})  # fmt: skip
def file(request: Request, who: Admin, name: str, version: int) -> Response:
    """The file of a version: `okng inspect` gives the same verdicts with it."""
    served = of(request)
    served.shelf.get(name)
    known = {one.version: one for one in served.store.models.versions(name)}
    if version not in known:
        raise Refused(404, f"there is no version {version} of {name}")
    path = served.shelf.file(known[version])
    return FileResponse(path, media_type="application/octet-stream", filename=f"{name}-{version}{path.suffix}")


def described(served: Served, name: str) -> dict[str, Any]:
    """A model as JSON values."""
    loaded = served.shelf.get(name)
    inspector, calibration = loaded.inspector, loaded.inspector.calibration
    return {
        "name": name,
        "version": loaded.version.version,
        "digest": loaded.version.digest,
        "detector": str(inspector.manifest.get("detector", {}).get("name", "")),
        **promised(inspector),
        "basis": calibration.basis,
        "held_out": len(calibration.scores),
        "rules": inspector.rules.to_json(),
        "localizes": calibration.peaks is not None,
        "problem": served.shelf.problems.get(name),
        "versions": [_version(one, loaded.version.version) for one in served.store.models.versions(name)],
    }


def promised(inspector: Inspector) -> dict[str, Any]:
    """A promise as JSON values."""
    calibration = inspector.calibration
    return {
        "promise": inspector.promise(),
        "threshold": calibration.threshold,
        "false_alarm_rate": calibration.false_alarm_rate,
    }


def at(inspector: Inspector, limit: Limit) -> Inspector:
    """The inspector at another rate or threshold, or as it is if neither is given."""
    if limit.false_alarm_rate is not None and limit.threshold is not None:
        raise Refused(422, "give a false_alarm_rate or a threshold, not both")
    if limit.false_alarm_rate is not None:
        return inspector.at(limit.false_alarm_rate)
    return inspector if limit.threshold is None else inspector.with_threshold(limit.threshold)


def _version(version: Any, active: int | None) -> dict[str, Any]:
    told = {"version": version.version, "digest": version.digest, "at": iso(version.at), "who": version.who}
    return {**told, "why": version.why, "active": version.version == active}
