"""Connections of clients that dawdle are closed: uvicorn itself waits for ever for a head, and for a reader.

How slowly a body may come says `security.Gate`, which hands it on.
"""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, Any

from uvicorn.protocols.http.auto import AutoHTTPProtocol

HEAD_TIME = 15.0  # seconds for the first request of a connection, and for the head of one that has begun
READ_TIME = 60.0  # seconds in which a client reads nothing of an answer that waits for it
IN_KERNEL = 1 << 18  # bytes of an answer that the system holds: of more a slow reader would seem to read in jumps
TOO_SLOW = b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"

if TYPE_CHECKING:
    from uvicorn.protocols.http.h11_impl import H11Protocol as Protocol
else:
    Protocol = AutoHTTPProtocol


class Patient(Protocol):
    """uvicorn's connection, whose patience ends."""

    _head: asyncio.TimerHandle | None = None
    _read: asyncio.TimerHandle | None = None

    @property
    def _asked(self) -> bool:
        """Whether a request is worked on."""
        return self.cycle is not None and not self.cycle.response_complete

    def connection_made(self, transport: Any) -> None:
        """The time for the first request begins."""
        super().connection_made(transport)
        self._head = self.loop.call_later(HEAD_TIME, self._give_up)
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, IN_KERNEL)

    def data_received(self, data: bytes) -> None:
        """Of a further request the time begins with its first byte."""
        super().data_received(data)
        if self._asked:
            self._head = _ended(self._head)
        elif self._head is None:
            self._head = self.loop.call_later(HEAD_TIME, self._give_up)

    def pause_writing(self) -> None:
        """The client does not read as fast as it is answered."""
        super().pause_writing()
        self._look_after_reader(last=None)

    def _look_after_reader(self, last: int | None) -> None:
        """Give up a client that has left as much unread as `last` time; look again at another."""
        _ended(self._read)
        unread = self.transport.get_write_buffer_size()  # type: ignore[attr-defined]
        if last is not None and unread >= last:
            self.transport.abort()
        else:
            self._read = self.loop.call_later(READ_TIME, self._look_after_reader, unread)

    def resume_writing(self) -> None:
        """It has read some of it."""
        super().resume_writing()
        self._read = _ended(self._read)

    def connection_lost(self, exc: Exception | None) -> None:
        """It has left."""
        self._head, self._read = _ended(self._head), _ended(self._read)
        super().connection_lost(exc)

    def _give_up(self) -> None:
        """No whole head has come."""
        self._head = None
        if not self._asked and not self.transport.is_closing():
            if self.cycle is None or not self.cycle.more_body:  # else what drips is the rest of what is answered
                self.transport.write(TOO_SLOW)
            self.transport.close()


def _ended(timer: asyncio.TimerHandle | None) -> asyncio.TimerHandle | None:
    """None, for a timer that is not needed any more."""
    if timer is not None:
        timer.cancel()
    return None
