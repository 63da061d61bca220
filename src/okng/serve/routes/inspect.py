"""Images in, verdicts out."""

from __future__ import annotations

import asyncio
import io
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, TypeVar

import anyio.to_thread
from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import JSONResponse, Response
from pydantic import ValidationError
from starlette.datastructures import UploadFile
from starlette.requests import ClientDisconnect

from okng.errors import OkngError
from okng.inspection.overlay import heat_range, overlay
from okng.inspection.reading.decoding import digest
from okng.inspection.reading.files import find_images
from okng.inspection.reading.formats import Encoded
from okng.inspection.verdict.result import Inspection
from okng.serve.models import Loaded
from okng.serve.paths import allowed, below, read, size_of
from okng.serve.queue import display_name, meant, sources
from okng.serve.schema import BatchResults, Result, Where, Wheres
from okng.serve.security import BATCH, Refused, Who, may
from okng.serve.served import Served, of, problems
from okng.serve.settings import MB
from okng.store.records import Record

router = APIRouter(tags=["inspect"])
Named = TypeVar("Named", Where, Wheres)
AT_ONCE = 16  # images of a batch that are worked on at once
MOST = 1000  # images of a batch
JSON = "application/json"
IMAGE = {"schema": {"type": "string", "format": "binary"}}
FILE = {"type": "string", "format": "binary"}
Model = Annotated[str | None, Query(description="The model's name; may be left out where there is one alone.")]


def _body(json_schema: type[Where] | type[Wheres], form: dict[str, Any], raw: bool) -> dict[str, Any]:
    content: dict[str, Any] = {
        "multipart/form-data": {"schema": {"type": "object", "properties": form, "required": list(form)}},
        JSON: {"schema": json_schema.model_json_schema()},
    }
    if raw:
        content = {"application/octet-stream": IMAGE, **content}
    return {"requestBody": {"required": True, "content": content}}


@router.post(
    "/api/inspect",
    response_model=Result,
    responses={
        200: {"content": {"image/png": IMAGE}, "description": "The result, or with `overlay` a PNG"},
        **problems(404, 409),
    },
    openapi_extra=_body(Where, {"image": FILE}, raw=True),
)
async def inspect(
    request: Request,
    who: Annotated[Who, Depends(may("inspect"))],
    model: Model = None,
    key: Annotated[
        str | None,
        Query(max_length=200, description="What is inspected: sent again to the same model, nothing is done twice."),
    ] = None,
    page: Annotated[int | None, Query(ge=0, le=10**6, description="Of a file with several images, from 0 on.")] = None,
    overlay: Annotated[bool, Query(description="Answer with the image and its heatmap, as PNG.")] = False,
) -> Response:
    """Inspect one image: its bytes as the body, a form with the file `image`, or JSON with a `path`.

    The result is in the store before it is answered. With `overlay` the answer is a picture, and the headers Okng-Id,
    Okng-Verdict, Okng-Score and Okng-P-Value say the rest.
    """
    served, start = of(request), time.perf_counter()
    loaded = served.shelf.only(model)
    if overlay and (key is not None or loaded.inspector.calibration.peaks is None):
        raise Refused(422, "an overlay has no key: what was inspected before is not drawn again" if key is not None
                      else "this model does not say where, so there is no overlay")  # fmt: skip
    kept_key = None if key is None else f"http:{loaded.version.name} {key}"
    named = served.settings.max_mb * MB if _kind(request) == JSON else 0
    with served.queue.place(_body_size(request, 1, served) + int(named)):
        content, path = await _image(request, served)
        if kept_key is not None:
            before = await anyio.to_thread.run_sync(served.store.records.with_key, kept_key)
            if before is not None:
                await anyio.to_thread.run_sync(lambda: _check_same(before, meant(Encoded(content), path, page)[0], key))
                return JSONResponse(before.to_dict())
        ticket = served.queue.submit(loaded, Encoded(content), path, "http", kept_key, page)
        record, inspection = await asyncio.wrap_future(ticket.answer)
        if key is not None:  # others may have sent it meanwhile
            await anyio.to_thread.run_sync(_check_same, record, ticket.source, key)
        if not overlay:
            answer: Response = JSONResponse(record.to_dict())
        else:
            picture = await anyio.to_thread.run_sync(_drawn, loaded, ticket.source, inspection)
            answer = Response(picture, media_type="image/png", headers=_in_headers(record))
    served.metrics.request.observe(time.perf_counter() - start)
    return answer


@router.post(
    "/api/batch",
    response_model=BatchResults,
    responses=problems(404),
    openapi_extra=_body(Wheres, {"images": {"type": "array", "items": FILE}}, raw=False),
)
async def batch(request: Request, who: Annotated[Who, Depends(may("inspect"))], model: Model = None) -> Response:
    """Inspect many images: a form with several files `images`, or JSON with `paths` of images and folders.

    Each page of a file is an image of its own. What can't be read has an `error` in the place of a result.
    """
    served = of(request)
    loaded = served.shelf.only(model)
    results: list[dict[str, Any]] = []
    with served.queue.place(_body_size(request, BATCH, served)) as is_of:
        window = asyncio.Semaphore(AT_ONCE)

        async def one(load: Any, name: str | None) -> list[dict[str, Any]]:
            async with window:
                try:
                    content = await load()
                    found = await anyio.to_thread.run_sync(sources, Encoded(content), name)
                except OkngError as error:
                    return [{"path": name, "error": str(error)}]
                if len(found) > MOST:
                    return [{"path": name, "error": f"it holds {len(found)} images; a batch has {MOST} at most"}]
                told = []
                for source, path in found:
                    try:
                        ticket = served.queue.submit(loaded, source, path, "http")
                        record, _ = await asyncio.wrap_future(ticket.answer)
                        told.append(record.to_dict())
                    except OkngError as error:
                        told.append({"path": path, "error": str(error)})
                return told

        images, size = await _images(request, served)
        is_of(size)
        if len(images) > MOST:
            raise Refused(422, f"a batch has {MOST} images at most, not {len(images)}")
        for told in await asyncio.gather(*(one(load, name) for load, name in images)):
            results += told
    verdicts = [result.get("verdict", "unreadable") for result in results]
    counts = {name: verdicts.count(name) for name in ("OK", "NG", "unreadable")}
    return JSONResponse({"results": results, "counts": counts})


def _check_same(record: Record, source: Encoded, key: str | None) -> None:
    """409 for an image under the key of another one, which `record` is of."""
    if digest(source) != record.digest:
        raise Refused(409, f"the key {key!r} is that of record {record.id}, another image; give each a key of its own")


def _kind(request: Request) -> str:
    """What the body is said to be."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def _body_size(request: Request, images: int, served: Served) -> int:
    """Bytes of the body; where it comes in chunks without saying how many, as many as so many `images` may have."""
    length = request.headers.get("content-length")
    return int(length) if length else int(images * served.settings.max_mb * MB)


async def _image(request: Request, served: Served) -> tuple[bytes, str | None]:
    """The bytes of the one image that was sent or named, and its name."""
    kind = _kind(request)
    try:
        if kind == JSON:
            named = _parsed(Where, await request.body())
            return await anyio.to_thread.run_sync(read, served.settings, named.path)
        if kind == "multipart/form-data":
            async with request.form(max_files=1, max_fields=10) as form:
                file = form.get("image")
                if not isinstance(file, UploadFile):
                    raise Refused(422, "the form has no file called image")
                return await file.read(), display_name(file.filename)
        return await request.body(), None
    except ClientDisconnect as error:
        raise Refused(400, "the image did not arrive whole") from error


async def _images(request: Request, served: Served) -> tuple[list[tuple[Any, str | None]], int]:
    """What gives the bytes of each image that was sent or named, and its name; how many are in memory at most."""
    kind, most = _kind(request), int(served.settings.max_mb * MB)
    if kind == JSON:
        body = await request.body()
        named = _parsed(Wheres, body)

        def list_them() -> tuple[list[tuple[Path, str]], int]:
            found: list[tuple[Path, str]] = []
            for name in named.paths:
                path = below(served.settings, name)
                if path.is_dir():
                    inside = [one for one in find_images(path) if allowed(served.settings, one)]  # links may lead out
                    found += [(one, str(Path(name) / one.relative_to(path))) for one in inside]
                else:
                    found.append((path, name))
            largest = sorted(min(most, size_of(path)) for path, _ in found)[-AT_ONCE:]
            return found, len(body) + sum(largest)

        def loader(path: Path) -> Any:
            async def load() -> bytes:
                return (await anyio.to_thread.run_sync(read, served.settings, str(path)))[0]

            return load

        found, size = await anyio.to_thread.run_sync(list_them)
        return [(loader(path), name) for path, name in found], size
    if kind != "multipart/form-data":
        raise Refused(415, "a batch is a form with files called images, or JSON with paths")
    form = await request.form(max_files=MOST, max_fields=10)
    files = [file for file in form.getlist("images") if isinstance(file, UploadFile)]
    if not files:
        raise Refused(422, "the form has no files called images")

    def uploaded(file: UploadFile) -> Any:
        async def load() -> bytes:
            if (file.size or 0) > most:
                raise OkngError(f"{display_name(file.filename)} is larger than {served.settings.max_mb:g} MB")
            return await file.read()

        return load

    size = sum(file.size or 0 for file in files)
    return [(uploaded(file), display_name(file.filename)) for file in files], size


def _parsed(kind: type[Named], body: bytes) -> Named:
    try:
        return kind.model_validate(json.loads(body))
    except (ValueError, RecursionError) as error:
        first = error.errors()[0]["msg"] if isinstance(error, ValidationError) else "it is no JSON"
        wanted = '{"path": "lot/1.png"}' if kind is Where else '{"paths": ["lot"]}'
        raise Refused(422, f"the body names images like {wanted}: {first}") from error


def _drawn(loaded: Loaded, source: Encoded, inspection: Inspection) -> bytes:
    inspector = loaded.inspector
    picture = replace(inspector.preprocess, mode="RGB").decode(source)
    content = io.BytesIO()
    overlay(picture, inspection, *heat_range(inspector.calibration), inspector.rules).save(content, "PNG")
    return content.getvalue()


def _in_headers(record: Record) -> dict[str, str]:
    return {
        "Okng-Id": str(record.id),
        "Okng-Verdict": record.verdict,
        "Okng-Score": repr(record.score),
        "Okng-P-Value": repr(record.p_value),
    }
