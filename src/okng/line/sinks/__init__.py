"""What takes verdicts away: each a class in a file of its own, or what another package brings.

On the command line a sink is KIND:WHERE, in Python `open_sink("KIND:WHERE")`. A sink only knows how to hand over
messages, or to fail at it; that nothing is lost is the work of `outbox.py`.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from okng.errors import OkngError, missing_package, nearest_names
from okng.store.deliveries import Delivery

ENTRY_POINTS = "okng.sinks"
KINDS = {
    "jsonl": "jsonl:Jsonl",
    "csv": "table:Csv",
    "parquet": "table:Parquet",
    "copy": "folders:Folders",
    "link": "folders:Folders",
    "webhook": "webhook:Webhook",
    "mqtt": "mqtt:Mqtt",
    "mqtts": "mqtt:Mqtt",
    "opcua": "opcua:OpcUa",
}
EXAMPLES = (
    "jsonl, csv:FILE, parquet:FOLDER, copy:FOLDER, link:FOLDER, webhook:URL, mqtt://BROKER/TOPIC, opcua://IP:PORT"
)


@dataclass(frozen=True)
class Message:
    """One record as sinks are given it.

    `id` is the same whenever the same record is told again, and of no other record in any store: a receiver that has
    seen it may drop it. `body`: what is told, JSON values. `image`: the image file's bytes, None where nobody has them.
    """

    id: str
    body: dict[str, Any]
    image: Callable[[], bytes | None] = field(repr=False)

    @property
    def path(self) -> str | None:
        """The file's path, or what stands for it."""
        path: str | None = self.body["path"]
        return path

    @property
    def verdict(self) -> str:
        """OK or NG."""
        return str(self.body["verdict"])


class Undeliverable(OkngError):
    """A message that no later try could deliver either; the outbox says so and goes on with the next."""


class Refused(OkngError):
    """The receiver is there and does not want this message; after some tries the outbox sets it aside."""


class Sink(Protocol):
    """What takes verdicts away; all its methods are called by one thread.

    `name`: by which the outbox knows it, the same after a restart, without any password. `batch`: how many messages it
    takes at once, and `patience`: for how many seconds the first of fewer may wait for more.
    """

    name: str
    batch: int
    patience: float

    def open(self) -> None:
        """Before the first message; what it raises is said, and it is called again."""

    def send(self, messages: Sequence[Message]) -> None:
        """Hand over all `messages`, in order, before returning; what it raises is said, and they come again."""

    def close(self) -> None:
        """After the last one."""


def open_sink(text: str) -> Sink:
    """The sink that KIND:WHERE names; `OkngError` for what can't be one."""
    kind, _, where = text.partition(":")
    points = {point.name: point for point in importlib.metadata.entry_points(group=ENTRY_POINTS)}
    try:
        if kind in KINDS:
            module, _, name = KINDS[kind].partition(":")
            made: Sink = getattr(importlib.import_module(f"okng.line.sinks.{module}"), name)(kind, where)
            return made
        if kind in points:
            outside: Sink = points[kind].load()(kind, where)
            return outside
    except OkngError:
        raise
    except ModuleNotFoundError as error:
        raise missing_package(error) or OkngError(f"{kind} can't be used: {error}; install it") from error
    except Exception as error:
        raise OkngError(f"{kind} can't be used: {error}") from error
    raise OkngError(f"there is no sink {kind!r}; {nearest_names(kind, [*KINDS, *points])}; they are typed {EXAMPLES}")


def message(delivery: Delivery, image: Callable[[], bytes | None]) -> Message:
    """What sinks are given of a delivery: its record as everywhere else, but for the outlines of its regions."""
    record = delivery.record
    body = record.to_dict()
    body["regions"] = [
        {name: value for name, value in region.items() if name != "contour"} for region in body["regions"]
    ]
    for name in ("key", "review", "has_image"):
        del body[name]
    named = f"{record.at!r} {record.id} {record.digest} {record.path}".encode(errors="backslashreplace")
    told = hashlib.sha256(named).hexdigest()[:32]
    return Message(told, {"message": told, **body}, image)
