"""What tests of sinks send to: a web server that may fail, and Debian's mosquitto."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest


def free_port() -> int:
    """A port of loopback that nobody has."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


class Web:
    """Takes POSTs at `url`; `fails(n)` says how the n-th one fails: a status, "cut" (taken but not answered), or not.

    `got`: what was taken, headers and body, in order.
    """

    def __init__(self, fails: Callable[[int], str | None] = lambda count: None):
        self.got: list[tuple[dict[str, str], bytes]] = []
        self.count = 0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                outer.count += 1
                how = fails(outer.count)
                if how in (None, "cut"):
                    outer.got.append(({name.lower(): value for name, value in self.headers.items()}, body))
                if how == "cut":
                    self.close_connection = True
                    return
                self.send_response(int(how or 204))
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/verdicts"
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def bodies(self) -> list[dict[str, Any]]:
        """What was taken."""
        return [json.loads(body) for _, body in self.got]

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@contextmanager
def mosquitto(folder: Path, port: int, options: str = "") -> Iterator[subprocess.Popen[bytes]]:
    """A broker on `port`, up when the block begins."""
    program = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin")
    if program is None:
        pytest.skip("mosquitto is not installed: apt-get install mosquitto")
    config = folder / f"mosquitto{port}.conf"
    config.write_text(f"listener {port} 127.0.0.1\n{options or 'allow_anonymous true'}\n")
    with subprocess.Popen([program, "-c", str(config)], stderr=subprocess.DEVNULL) as broker:
        try:
            for _ in range(200):
                try:
                    socket.create_connection(("127.0.0.1", port), 1).close()
                    break
                except OSError:
                    time.sleep(0.02)
            yield broker
        finally:
            broker.terminate()


@contextmanager
def listening(port: int, topic: str) -> Iterator[list[dict[str, Any]]]:
    """What comes on a topic of the broker on `port`; the subscription outlives the broker."""
    from paho.mqtt.client import Client
    from paho.mqtt.enums import CallbackAPIVersion

    got: list[dict[str, Any]] = []
    client = Client(CallbackAPIVersion.VERSION2)
    ready = threading.Event()
    client.on_connect = lambda client, *_: client.subscribe(topic, qos=1)
    client.on_subscribe = lambda *_: ready.set()
    client.on_message = lambda client, data, message: got.append(json.loads(message.payload))
    client.reconnect_delay_set(min_delay=1, max_delay=1)
    client.connect("127.0.0.1", port)
    client.loop_start()
    assert ready.wait(5)
    try:
        yield got
    finally:
        client.disconnect()
        client.loop_stop()
