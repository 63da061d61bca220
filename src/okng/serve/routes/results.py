"""What was inspected: looked up, page by page, and exported."""

from __future__ import annotations

import csv
import datetime
import io
import tempfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.background import BackgroundTask

from okng.errors import missing_extra
from okng.serve.schema import LARGEST_ID, Result, Results
from okng.serve.security import Refused, Who, may
from okng.serve.served import of, problems
from okng.store.records import Filter, Record

router = APIRouter(prefix="/api/results", tags=["results"])
Reviewer = Annotated[Who, Depends(may("review"))]
COLUMNS = (
    "id", "at", "path", "source", "model", "version", "model_digest", "digest", "height", "width", "score", "p_value",
    "threshold", "verdict", "regions", "review",
)  # fmt: skip
PICTURES = {"thumbnail": "image/jpeg", "heat": "image/png", "image": "application/octet-stream"}


def asked(
    model: str | None = None,
    version: Annotated[int | None, Query(ge=1, le=2**31 - 1)] = None,
    verdict: Literal["OK", "NG"] | None = None,
    review: Annotated[
        Literal["OK", "NG", "unknown", "any", "none"] | None, Query(description="What a person says of it.")
    ] = None,
    source: str | None = None,
    text: Annotated[str | None, Query(max_length=200, description="A part of the path.")] = None,
    digest: Annotated[str | None, Query(max_length=64)] = None,
    since: datetime.datetime | None = None,
    until: datetime.datetime | None = None,
    largest_p: Annotated[float | None, Query(ge=0, le=1)] = None,
    with_image: bool = False,
) -> Filter:
    """The filter that the query says; times without a zone are UTC."""
    return Filter(
        model=_clean(model),
        version=version,
        verdict=verdict,
        source=_clean(source),
        text=_clean(text),
        digest=_clean(digest),
        since=_seconds(since),
        until=_seconds(until),
        review=review,
        largest_p=largest_p,
        with_image=with_image,
    )


Asked = Annotated[Filter, Depends(asked)]


@router.get("", response_model=Results, responses=problems())
def page(
    request: Request,
    who: Reviewer,
    which: Asked,
    order: Literal["newest", "oldest", "oddest", "borderline"] = "newest",
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
    cursor: Annotated[str | None, Query(max_length=100)] = None,
) -> Response:
    """Results, a page at a time; `cursor` of one page is handed over for the next."""
    found, more = of(request).store.records.page(which, order, limit, cursor)
    return JSONResponse({"results": [record.to_dict() for record in found], "cursor": more})


@router.get("/tally", response_model=dict[str, int], responses=problems())
def tally(request: Request, who: Reviewer, which: Asked) -> Response:
    """How many are OK and NG."""
    return JSONResponse(of(request).store.records.tally(which))


@router.get("/export", response_class=Response, responses={
    200: {"content": {"text/csv": {}, "application/vnd.apache.parquet": {}}, "description": "The table"},
    **problems(501),
})  # fmt: skip
def export(request: Request, who: Reviewer, which: Asked, format: Literal["csv", "parquet"] = "csv") -> Response:
    """All results that the filter lets through, oldest first, as a table."""
    records = of(request).store.records.each(which)
    named = {"Content-Disposition": f'attachment; filename="okng.{format}"'}
    if format == "csv":
        return StreamingResponse(_csv(records), media_type="text/csv; charset=utf-8", headers=named)
    path = _parquet(records)
    removed = BackgroundTask(path.unlink, missing_ok=True)
    return FileResponse(path, media_type="application/vnd.apache.parquet", headers=named, background=removed)


@router.get("/{record}", response_model=Result, responses=problems(404))
def one(request: Request, who: Reviewer, record: int) -> Response:
    """One result."""
    found = of(request).store.records.get(record) if abs(record) <= LARGEST_ID else None
    if found is None:
        raise Refused(404, f"there is no record {record}")
    return JSONResponse(found.to_dict())


@router.get("/{record}/{picture}", response_class=Response, responses={
    200: {"content": {kind: {} for kind in PICTURES.values()}, "description": "The picture"}, **problems(404),
})  # fmt: skip
def picture(request: Request, who: Reviewer, record: int, picture: Literal["thumbnail", "heat", "image"]) -> Response:
    """The thumbnail (JPEG), how odd each place is (grey PNG), or the image's file as it came, if it was kept."""
    records = of(request).store.records
    content = getattr(records, picture)(record) if abs(record) <= LARGEST_ID else None
    if content is None:
        raise Refused(404, f"there is no {picture} of record {record}")
    headers = {"Content-Security-Policy": "sandbox; default-src 'none'"}
    if picture == "image":
        headers["Content-Disposition"] = f'attachment; filename="okng-{record}"'
    return Response(content, media_type=PICTURES[picture], headers=headers)


def _seconds(time: datetime.datetime | None) -> float | None:
    try:
        return None if time is None else (time if time.tzinfo else time.replace(tzinfo=datetime.UTC)).timestamp()
    except (OverflowError, ValueError) as error:
        raise Refused(422, f"{time} is no time that can be used") from error


def _clean(word: str | None) -> str | None:
    """A word to look for; PostgreSQL takes no zero bytes, and nothing kept has any."""
    return None if word is None else word.replace("\0", "")


def _row(record: Record) -> list[Any]:
    fields = {**record.to_dict(), "regions": len(record.details.get("regions", []))}
    return [fields[name] for name in COLUMNS]


def _csv(records: Iterator[Record]) -> Iterator[str]:
    """Lines; what a client called its image can't be a formula of a spreadsheet."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(COLUMNS)
    for record in records:
        row = _row(record)
        writer.writerow(
            [f"'{cell}" if isinstance(cell, str) and cell[:1] in tuple("=+-@\t\r") else cell for cell in row]
        )
        if text.tell() > 65_536:
            yield text.getvalue()
            text.seek(0)
            text.truncate()
    yield text.getvalue()


def _parquet(records: Iterator[Record]) -> Path:
    try:
        import pyarrow as arrow
        from pyarrow import parquet
    except ModuleNotFoundError as error:
        raise missing_extra("pyarrow", "serve,parquet") from error
    kinds = {"id": arrow.int64(), "at": arrow.timestamp("us", "UTC"), "version": arrow.int32()}
    kinds |= dict.fromkeys(("height", "width", "regions"), arrow.int32())
    kinds |= dict.fromkeys(("score", "p_value", "threshold"), arrow.float64())
    schema = arrow.schema([(name, kinds.get(name, arrow.string())) for name in COLUMNS])
    with tempfile.NamedTemporaryFile(suffix=".parquet", delete=False) as file:
        path = Path(file.name)
    try:
        with parquet.ParquetWriter(path, schema) as writer:
            while chunk := list(islice(records, 10_000)):
                rows = [dict(zip(COLUMNS, _row(record), strict=True)) for record in chunk]
                rows = [{**row, "at": datetime.datetime.fromisoformat(row["at"])} for row in rows]
                writer.write_table(arrow.Table.from_pylist(rows, schema))
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    return path
