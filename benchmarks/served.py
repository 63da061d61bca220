"""What the measurements of `okng serve` share: a server as a process of its own, and clients that cost little."""

from __future__ import annotations

import asyncio
import datetime
import io
import json
import os
import platform
import socket
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import okng
from okng.benchmark.rows import read_rows, write_rows
from okng.exporting import export_onnx

RESULTS = Path(__file__).parents[1] / "results" / "serve.csv"
COLUMNS = ("figure", "value", "unit", "arguments", "seed", "command", "versions", "machine", "date")


def pictures(count: int, side: int, seed: int = 0) -> np.ndarray:
    """uint8 (count, side, side): stripes, each image with another phase and noise of its own."""
    rng = np.random.default_rng(seed)
    phase = rng.uniform(0, 6, (count, 1, 1))
    stripes = 120 + 60 * np.sin(np.arange(side) / 3 + phase)  # (count, 1, side)
    return (stripes + rng.uniform(-40, 40, (count, side, side))).astype(np.uint8)


def files(images: np.ndarray) -> list[bytes]:
    """PNG files of images."""
    made = []
    for image in images:
        content = io.BytesIO()
        Image.fromarray(image).save(content, "PNG")
        made.append(content.getvalue())
    return made


def model(path: Path, side: int, detector: str, **arguments: Any) -> Path:
    """An exported model of made-up images."""
    inspector = okng.fit(pictures(60, side), detector, holdout=0.4, device="cpu", **arguments)
    export_onnx(inspector, path)
    return path


class Server:
    """`okng serve` as a process of its own."""

    def __init__(self, model: Path, store: str, folder: Path, *options: object):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        command = [sys.executable, "-m", "okng", "serve", model, "--store", store, "--port", self.port]
        command += ["--versions", folder / "models", *options]
        log = (folder / "server.log").open("ab")
        self.process = subprocess.Popen([str(word) for word in command], stdout=log, stderr=log)
        until = time.monotonic() + 120
        while not self.answers():
            if time.monotonic() > until or self.process.poll() is not None:
                raise SystemExit(f"the server did not start; see {folder / 'server.log'}")
            time.sleep(0.05)

    def answers(self) -> bool:
        """Whether it listens."""
        try:
            socket.create_connection(("127.0.0.1", self.port), 1).close()
            return True
        except OSError:
            return False

    def memory(self) -> float:
        """MB that it holds."""
        words = Path(f"/proc/{self.process.pid}/statm").read_text().split()
        return int(words[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6

    def busy(self) -> float:
        """Seconds of the processor that it has taken."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def end(self) -> None:
        """As Ctrl-C."""
        self.process.terminate()
        self.process.wait(60)


class Client:
    """One connection, kept alive."""

    def __init__(self, port: int):
        self.port = port
        self.streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, content: bytes, query: str = "") -> tuple[int, dict[str, Any]]:
        """Inspect one image; the status and the answer. Raises `OSError` or `EOFError` where the server is gone."""
        if self.streams is None:
            self.streams = await asyncio.open_connection("127.0.0.1", self.port)
        reader, writer = self.streams
        head = f"POST /api/inspect{query} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(content)}\r\n\r\n"
        try:
            writer.write(head.encode() + content)
            status = int((await reader.readuntil(b"\r\n")).split()[1])
            length = 0
            while (line := await reader.readuntil(b"\r\n")) != b"\r\n":
                if line.lower().startswith(b"content-length:"):
                    length = int(line.split(b":")[1])
            return status, json.loads(await reader.readexactly(length))
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Leave."""
        if self.streams is not None:
            self.streams[1].close()
            self.streams = None


def of_all(command: str) -> dict[str, Any]:
    """What all rows that `command` measures have in common."""
    names = ("okng", "fastapi", "uvicorn", "sqlalchemy", "onnxruntime", "openvino")
    return {
        "seed": 0,
        "command": command,
        "versions": ", ".join(f"{name} {version(name)}" for name in names),
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, no GPU",
        "date": datetime.date.today().isoformat(),
    }


def write(figures: list[dict[str, Any]], script: str, options: str, same: str = "") -> None:
    """Put what a script measured in the place of what it measured before, with the option `same` if given."""
    common = of_all(f"python benchmarks/{script} {options}")
    others = [row for row in read_rows(RESULTS) if script not in row["command"] or same not in row["command"]]
    write_rows(RESULTS, COLUMNS, [*others, *({**row, **common} for row in figures)])
