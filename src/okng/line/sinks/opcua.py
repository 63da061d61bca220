"""An OPC UA server, whose variables hold the last verdict and counters, for a controller to read."""

from __future__ import annotations

import asyncio
import datetime
import logging
import socket
import threading
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from asyncua import ua
from asyncua.server.server import Server

from okng.errors import OkngError
from okng.line.sinks import Message
from okng.line.sinks.opcua_keys import Keys
from okng.line.sinks.opcua_server import made

NAMESPACE = "urn:okng"
TIMEOUT, START = 10.0, 120.0  # seconds; a small computer takes long to build the standard address space
VARIABLES = {
    "verdict": ua.VariantType.String,
    "score": ua.VariantType.Double,
    "p_value": ua.VariantType.Double,
    "threshold": ua.VariantType.Double,
    "regions": ua.VariantType.Int32,
    "path": ua.VariantType.String,
    "model": ua.VariantType.String,
    "at": ua.VariantType.DateTime,
    "id": ua.VariantType.Int64,
    "inspected": ua.VariantType.Int64,
    "ok": ua.VariantType.Int64,
    "ng": ua.VariantType.Int64,
}
"""In the order in which they are written: who sees `inspected` change finds all others as they belong to it."""

logging.getLogger("asyncua").setLevel(logging.CRITICAL)  # clients that go away are no news


class OpcUa:
    """opcua://IP:PORT, an OPC UA server at this address; Objects/okng has the `VARIABLES`, for reading only.

    `inspected`, `ok` and `ng` count since the server started. opcua://IP:PORT?keys=FOLDER signs and encrypts, and
    clients are known by their certificates in FOLDER/trusted (`Keys`). Without it, who reaches the address can read.
    """

    batch, patience = 1, 0.0

    def __init__(self, kind: str, where: str):
        parts = urlsplit(f"{kind}:{where}")
        try:
            self.port = parts.port or 4840
        except ValueError as error:
            raise OkngError("opcua takes a port from 1 to 65535: opcua://127.0.0.1:4840") from error
        if not parts.hostname or parts.path.strip("/"):
            raise OkngError("opcua takes an address of this machine and a port: opcua://127.0.0.1:4840")
        asked = parse_qs(parts.query, keep_blank_values=True)
        if asked and (list(asked) != ["keys"] or not asked["keys"][0]):
            raise OkngError("opcua takes a folder of certificates: opcua://127.0.0.1:4840?keys=FOLDER")
        self.host = parts.hostname
        self.keys = Keys(Path(asked["keys"][0]).expanduser(), self.host) if asked else None
        self.name = f"{kind}://{self.host}:{self.port}"
        self.counts = {"inspected": 0, "ok": 0, "ng": 0}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._server: Server | None = None
        self._variables: dict[str, Any] = {}

    def open(self) -> None:
        """Start the server."""
        uri = "urn:okng:server" if self.keys is None else self.keys.prepare()
        with socket.create_server((self.host, self.port)):
            pass  # the address can be had, which the server would only say after seconds
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, name="okng-opcua", daemon=True).start()
        try:
            self._run(self._start(uri), START)
        except BaseException:
            self.close()
            raise

    def send(self, messages: Sequence[Message]) -> None:
        """Set the variables."""
        for message in messages:
            counts = {**self.counts, "inspected": self.counts["inspected"] + 1}
            counts[message.verdict.lower()] += 1
            body = message.body
            at = datetime.datetime.fromisoformat(body["at"]).replace(tzinfo=None)
            self._run(
                self._set({**body, "at": at, "path": body["path"] or "", "regions": len(body["regions"]), **counts})
            )
            self.counts = counts

    def close(self) -> None:
        """Stop the server."""
        if self._loop is None:
            return
        try:
            if self._server is not None:
                self._run(self._server.stop())
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._loop, self._server = None, None

    def _run(self, work: Coroutine[Any, Any, None], timeout: float = TIMEOUT) -> None:
        assert self._loop is not None
        asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout)

    async def _start(self, uri: str) -> None:
        server = await made(self.keys, uri, self.host, self.port)
        index = await server.register_namespace(NAMESPACE)
        named: Any = ua.NodeId  # of texts; its types ask for wrapped ones
        okng = await server.nodes.objects.add_object(named("okng", index), f"{index}:okng")
        for name, kind in VARIABLES.items():
            empty = {ua.VariantType.String: "", ua.VariantType.DateTime: datetime.datetime(1601, 1, 1)}.get(kind, 0)
            if kind == ua.VariantType.Double:
                empty = 0.0
            node = named(f"okng.{name}", index)
            self._variables[name] = await okng.add_variable(node, f"{index}:{name}", ua.Variant(empty, kind))
        await server.start()
        self._server = server

    async def _set(self, values: dict[str, Any]) -> None:
        for name, kind in VARIABLES.items():
            await self._variables[name].write_value(ua.DataValue(ua.Variant(values[name], kind)))
