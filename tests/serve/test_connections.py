"""Clients that dawdle hold no place for ever: with the head of a request, its body, or reading the answer."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest
import uvicorn
from servers import Server, Shop, wait_for

from okng.serve.connections import Patient

HEAD = b"POST /api/inspect HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n"


@contextmanager
def connected(server: Server) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", urlsplit(server.url).port or 0), 20) as connection:
        yield connection


def dripped(connection: socket.socket, content: bytes, seconds: float = 20) -> bytes:
    """What is answered while `content` is sent byte by byte, until the server hangs up."""
    until, told, at = time.monotonic() + seconds, b"", 0
    connection.settimeout(0.05)
    while time.monotonic() < until:
        try:
            connection.sendall(content[at % len(content) :][:1])
            at += 1
            if not (more := connection.recv(65536)):
                return told
            told += more
        except TimeoutError:
            continue
        except OSError:
            return told
    raise AssertionError(f"still connected after {seconds} s: {told!r}")


@pytest.mark.parametrize("before", [False, True])
def test_a_head_that_drips_in_is_given_up(server: Server, monkeypatch: pytest.MonkeyPatch, before: bool) -> None:
    """Also of a further request on a connection that was used before."""
    monkeypatch.setattr("okng.serve.connections.HEAD_TIME", 0.3)
    with connected(server) as connection:
        if before:
            connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert connection.recv(65536).startswith(b"HTTP/1.1 200")
            time.sleep(0.5)  # between two requests there is more time
        assert b"HTTP/1.1 408" in dripped(connection, b"GET /health HTTP/1.1\r\nX: " + 1000 * b"x")


def test_a_body_that_drips_in_gives_its_place_back(server: Server, shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("okng.serve.security.BODY_TIME", 0.5)
    monkeypatch.setattr("okng.serve.connections.HEAD_TIME", 0.5)
    with connected(server) as connection:
        connection.sendall(HEAD)
        wait_for(lambda: server.parts.queue.inside == 1)
        told = dripped(connection, b"\x00")
        assert told.startswith(b"HTTP/1.1 408") and b"too slowly" in told
    assert server.parts.queue.inside == 0
    with connected(server) as connection:
        connection.sendall(HEAD.replace(b"/api/inspect", b"/api/login"))
        assert dripped(connection, b"\x00").startswith(b"HTTP/1.1 408")
    with connected(server) as connection:  # what is answered before it is whole
        connection.sendall(HEAD.replace(b"/api/inspect", b"/nowhere"))
        told = dripped(connection, b"\x00")
        assert told.startswith(b"HTTP/1.1 404") and told.count(b"HTTP/1.1") == 1
    with connected(server) as connection:  # it takes longer than that, but what comes is enough
        content = shop.image(0)
        monkeypatch.setattr("okng.serve.security.BODY_RATE", len(content) / 4)
        connection.sendall(HEAD.replace(b"1000", str(len(content)).encode()))
        for part in (content[: len(content) // 2], content[len(content) // 2 :]):
            time.sleep(0.4)
            connection.sendall(part)
        assert connection.recv(65536).startswith(b"HTTP/1.1 200")


def test_an_answer_that_nobody_reads_is_given_up(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("okng.serve.connections.READ_TIME", 0.5)
    with connected(server) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(1)
        connection.sendall(300 * b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n")
        wait_for(lambda: not still_open(connection), 20)


@pytest.mark.slow
def test_who_reads_slowly_but_steadily_gets_all_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """It was cut where one wait for room took longer than the time in which nothing is read."""
    monkeypatch.setattr("okng.serve.connections.READ_TIME", 1.0)
    length = 8_000_000

    async def app(scope: Any, receive: Any, send: Any) -> None:
        headers = [(b"content-length", str(length).encode()), (b"connection", b"close")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": bytes(length)})

    server = uvicorn.Server(uvicorn.Config(app, port=0, http=Patient, log_level="error", lifespan="off"))
    thread = threading.Thread(target=server.run)
    thread.start()
    wait_for(lambda: server.started, 20)
    try:
        with socket.socket() as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
            connection.connect(server.servers[0].sockets[0].getsockname())
            connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            read = 0
            while more := connection.recv(30_000):
                read += len(more)
                time.sleep(0.04)
            assert read > length
    finally:
        server.should_exit = True
        thread.join(20)


def still_open(connection: socket.socket) -> bool:
    """Whether the other side has not hung up: what there is to read is not read."""
    try:
        connection.send(b"G")
    except TimeoutError:
        return True
    except OSError:
        return False
    return True
