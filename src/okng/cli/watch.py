"""`okng watch`: images come, verdicts go out, until somebody ends it."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from okng.cli.common import DEVICE, PRODUCT, open_model, say
from okng.errors import OkngError

if TYPE_CHECKING:
    from okng.line.watch import Watch

TO = (
    "Where verdicts go, any number of times: jsonl, csv:FILE, parquet:FOLDER, copy:FOLDER, link:FOLDER, webhook:URL, "
    "mqtt://BROKER/TOPIC, opcua://IP:PORT."
)
SETTLE = "Seconds without a change after which a file is whole; 0 where it is renamed into place."
HOUR = 3600.0


def watch(
    model: Annotated[Path, typer.Argument(help="The model file of `okng train` or `okng export`.")],
    source: Annotated[str, typer.Argument(help="A folder, video.mp4, camera:0 or rtsp://….")],
    to: Annotated[list[str] | None, typer.Option(help=TO)] = None,
    store: Annotated[str, typer.Option(help="A SQLite file, or postgresql://USER@HOST/NAME.")] = "okng.sqlite",
    then: Annotated[str, typer.Option(help="What becomes of a folder's files: leave, move or tag.")] = "leave",
    settle: Annotated[float, typer.Option(help=SETTLE)] = 0.5,
    every: Annotated[int, typer.Option(help="Of a video or a camera each n-th frame.")] = 1,
    keep_images: Annotated[str, typer.Option(help="all, odd (NG and borderline) or none.")] = "odd",
    keep_days: Annotated[float | None, typer.Option(help="Remove records after that. Default: never.")] = None,
    keep_gb: Annotated[float | None, typer.Option(help="Remove the oldest beyond that. Default: never.")] = None,
    product: Annotated[str | None, typer.Option(help=PRODUCT)] = None,
    false_alarm_rate: Annotated[float | None, typer.Option(help="Another rate than the model's.")] = None,
    threshold: Annotated[float | None, typer.Option(help="A score threshold chosen by hand.")] = None,
    device: Annotated[str, typer.Option(help=DEVICE)] = "cpu",
    engine: Annotated[str, typer.Option(help="auto, torch, onnxruntime or openvino.")] = "auto",
    threads: Annotated[int | None, typer.Option(help="CPU cores to use. Default: all.")] = None,
) -> None:
    """Inspect images as they come into a folder or from a camera, record each, and tell others of it."""
    import hashlib

    from okng.inspection.model_file import read_bytes
    from okng.inspection.storage.urls import shown
    from okng.line.outbox import Outbox
    from okng.line.sinks import open_sink
    from okng.line.sinks.folders import check_folders
    from okng.line.sources import open_source
    from okng.line.watch import Watch
    from okng.store import ModelUsed, Store
    from okng.store.pictures import KEEP
    from okng.store.retention import check_limits

    if keep_images not in KEEP:
        raise OkngError(f"--keep-images is {', '.join(KEEP[:-1])} or {KEEP[-1]}, not {keep_images!r}")
    check_limits(keep_days, keep_gb)
    line = Line()
    sinks = [open_sink(text) for text in to or []]
    came = open_source(source, line.say, every, then, settle)
    check_folders(sinks, came.name, there=then == "leave" and Path(source).is_dir(), kept=keep_images == "all")
    inspector = open_model(
        model, false_alarm_rate, threshold, product=product, device=device, engine=engine, threads=threads
    )
    inspector.warm_up()
    called = Path(shown(model))
    name = called.stem if product is None else f"{called.stem}.{product}"
    used = ModelUsed(name, hashlib.sha256(read_bytes(model, "")).hexdigest(), inspector.calibration.threshold)
    records = Store.open(store)
    try:
        with Outbox(records, sinks, line.say) as outbox:
            loop = Watch(inspector, used, came, records, outbox, line.say, keep_images)
            next_clearing = 0.0

            def tick() -> None:
                nonlocal next_clearing
                line.show(loop)
                if (keep_days or keep_gb) and time.monotonic() > next_clearing:
                    loop.patiently(lambda: records.retention.keep(keep_days, keep_gb))
                    next_clearing = time.monotonic() + HOUR

            line.say(f"watching {came.name} with {called.name}; {inspector.promise()}")
            try:
                loop.run(tick)
            finally:
                line.say(in_short(loop))
    finally:
        records.close()


def in_short(loop: Watch) -> str:
    """How far it is."""
    found = f"{loop.counts['OK']} OK, {loop.counts['NG']} NG"
    found += f", {loop.known} known from before" if loop.known else ""
    return found + (f", {loop.unread} unreadable" if loop.unread else "")


class Line:
    """The line that shows how far it is: on a terminal one that changes, elsewhere one a minute if there is news."""

    def __init__(self) -> None:
        self._alive = sys.stderr.isatty()
        self._every = 0.2 if self._alive else 60.0
        self._shown, self._next = "", 0.0

    def say(self, text: str) -> None:
        """A line of its own."""
        say(f"\r\x1b[K{text}" if self._alive else text)

    def show(self, loop: Watch) -> None:
        """How far `loop` is, if it is time for it."""
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + self._every
        last = loop.last
        text = in_short(loop)
        if last is not None:
            text += f"; last {last.verdict} p {last.p_value:.2g} {Path(last.path or '').name[:60]}"
        if text != self._shown and (self._alive or last is not None):
            self._shown = text
            print(
                f"\r\x1b[K{text}" if self._alive else text, end="" if self._alive else "\n", file=sys.stderr, flush=True
            )
