"""Tables that grow: one CSV file, or a folder of Parquet files."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from okng.errors import OkngError
from okng.inspection.model_file import write_atomically
from okng.inspection.outputs import csv_line, is_stream
from okng.line.sinks import Message

COLUMNS = (
    "id", "at", "source", "path", "digest", "model", "version", "verdict", "score", "p_value", "threshold", "regions",
    "left", "top", "right", "bottom", "message",
)  # fmt: skip
TEXTS = ("at", "source", "path", "digest", "model", "verdict", "message")
WHOLE = ("id", "version", "regions")
TAIL = 1 << 22  # bytes, more than the lines of a batch have


def row(body: dict[str, Any]) -> dict[str, Any]:
    """One message as the values of `COLUMNS`: how many regions there are, and the box of the strongest."""
    regions = body["regions"]
    box = dict(zip(("left", "top", "right", "bottom"), regions[0]["box"] if regions else [None] * 4, strict=True))
    return {name: body.get(name) for name in COLUMNS} | {"regions": len(regions), **box}


class Csv:
    """One line for each message at the end of a file, on disk before it counts as delivered.

    What came twice, since the outbox was stopped in between, is written once: the last lines say by their `message`
    what is there, of whichever store; ids begin at 1 in each. A line that was half written then is cut off.
    """

    batch, patience = 100, 0.0

    def __init__(self, kind: str, where: str):
        if not where:
            raise OkngError("csv takes a file: csv:results.csv")
        self.path = Path(where).expanduser().absolute()
        self.name = f"{kind}:{self.path}"
        if self.path.is_dir() or is_stream(self.path):
            raise OkngError(f"{self.path} is a folder or a device; give csv:FILE the name of a file")
        self.there: set[str] = set()  # messages at the file's end when it was opened

    def open(self) -> None:
        """Begin the file, or see how far it is."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        header = csv_line(COLUMNS)
        with self.path.open("a+b") as file:
            file.seek(0)
            begins = file.read(len(header))
            if begins != header and not header.startswith(begins):
                raise OkngError(f"{self.path} is another table; give csv:FILE another name, or move it away")
            size = file.seek(0, io.SEEK_END)
            start = file.seek(max(0, size - TAIL))
            tail = file.read()
            whole = tail.rfind(b"\n") + 1
            file.truncate(start + whole)
            if size < len(header):
                file.truncate(0)
                file.write(header)
            self.there = {line.rpartition(b",")[2].decode(errors="replace") for line in tail[:whole].splitlines()}

    def send(self, messages: Sequence[Message]) -> None:
        """Append those that are not there yet."""
        fresh = [message.body for message in messages if message.id not in self.there]
        with self.path.open("ab") as file:
            size = file.seek(0, io.SEEK_END)
            if not size:  # somebody moved it away, to begin a new one
                file.write(csv_line(COLUMNS))
            try:
                file.write(b"".join(csv_line(_printed(row(body)).values()) for body in fresh))
                file.flush()
                os.fsync(file.fileno())
            except OSError:
                os.truncate(self.path, size)
                raise

    def close(self) -> None:
        """It is closed after each message."""


class Parquet:
    """A folder of Parquet files, of a thousand messages each or of those of a minute; readers take it for one table.

    A file is called after its first record, by the id and eight digits of the message, as other stores have that id,
    too; it is written whole or not at all, and what comes twice replaces itself.
    """

    batch, patience = 1000, 60.0

    def __init__(self, kind: str, where: str):
        import pyarrow.parquet  # said now, if it is missing

        if not where:
            raise OkngError("parquet takes a folder: parquet:results")
        self.folder = Path(where).expanduser().absolute()
        self.name = f"{kind}:{self.folder}"
        if self.folder.exists() and not self.folder.is_dir():
            raise OkngError(
                f"{self.folder} is a file; give parquet:FOLDER a folder, for the files in it grow in number"
            )
        self.writer = pyarrow.parquet

    def open(self) -> None:
        """Make the folder."""
        self.folder.mkdir(parents=True, exist_ok=True)

    def send(self, messages: Sequence[Message]) -> None:
        """Write them as one file."""
        import pyarrow

        kinds = {**dict.fromkeys(TEXTS, pyarrow.string()), **dict.fromkeys(WHOLE, pyarrow.int64())}
        schema = pyarrow.schema([(name, kinds.get(name, pyarrow.float64())) for name in COLUMNS])
        table = pyarrow.Table.from_pylist([row(message.body) for message in messages], schema)
        content = io.BytesIO()
        self.writer.write_table(table, content)
        first = messages[0]
        target = self.folder / f"{first.body['id']:012}-{first.id[:8]}.parquet"
        older = self.folder / f"{first.body['id']:012}.parquet"  # as it was called before there were digits
        if older.exists() and self.writer.read_table(older, columns=["message"])["message"][0].as_py() == first.id:
            target = older
        write_atomically(target, content.getvalue())

    def close(self) -> None:
        """Each file is closed."""


def _printed(values: dict[str, Any]) -> dict[str, Any]:
    """Numbers as `okng inspect --csv` prints them; nothing for None."""
    told: dict[str, Any] = {name: "" if value is None else value for name, value in values.items()}
    boxes = {name: round(told[name], 1) for name in ("left", "top", "right", "bottom") if told[name] != ""}
    return told | boxes | {"score": repr(values["score"]), "p_value": f"{values['p_value']:.6f}"}
