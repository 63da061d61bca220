"""A real server in a thread of the test's process, on a free port."""

from __future__ import annotations

import io
import socket
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import uvicorn
from fastapi import FastAPI
from PIL import Image

from okng.line.sinks import Sink
from okng.serve import Settings, create_app
from okng.serve.connections import Patient
from okng.serve.served import Served
from okng.store import Store


@dataclass(frozen=True)
class Shop:
    """A model that can learn, the same exported, and the files of six OK and six NG images."""

    okng: Path
    onnx: Path
    images: Path

    @property
    def files(self) -> list[Path]:
        return sorted(self.images.glob("*.png"))

    def image(self, number: int) -> bytes:
        return (self.images / f"{number}.png").read_bytes()


@dataclass
class Server:
    """A running server, and a client of it."""

    url: str
    app: FastAPI
    store: Store
    client: httpx.Client
    said: list[str] = field(default_factory=list)
    stop: Any = None

    @property
    def parts(self) -> Served:
        served: Served = self.app.state.okng
        return served

    def inspect(self, content: bytes, **query: Any) -> httpx.Response:
        return self.client.post("/api/inspect", content=content, params=query)

    def count(self) -> int:
        return sum(self.store.records.tally().values())


@contextmanager
def serving(
    store: Store, models: Mapping[str, Path], folder: Path, sinks: Sequence[Sink] = (), **how: Any
) -> Iterator[Server]:
    """A server of `models`, whose versions lie in `folder`; `how` are further `Settings`."""
    said: list[str] = []
    settings = Settings(models=folder, **{"engine": {"threads": 1}, **how})
    app = create_app(store, models, settings, said.append, sinks)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    config = uvicorn.Config(app, "127.0.0.1", port, log_level="critical", timeout_graceful_shutdown=20, http=Patient)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    until = time.monotonic() + 30
    while not server.started:
        assert time.monotonic() < until and thread.is_alive(), said
        time.sleep(0.01)

    def stop() -> None:
        server.should_exit = True
        thread.join()

    url = f"http://127.0.0.1:{port}"
    try:
        with httpx.Client(base_url=url, timeout=60) as client:
            yield Server(url, app, store, client, said, stop)
    finally:
        stop()


def encoded(pixels: np.ndarray, format: str = "PNG", **how: Any) -> bytes:
    """An image file of pixels."""
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, format, **how)
    return content.getvalue()


def wait_for(true: Any, seconds: float = 30) -> Any:
    """What `true()` says as soon as it is true."""
    until = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < until, "it never became true"
        time.sleep(0.05)
    return found
