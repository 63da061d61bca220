"""Threads that decode ahead, and that nobody has to wait for."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from types import TracebackType
from typing import Any, TypeVar

T = TypeVar("T")


class Workers:
    """A few daemon threads: reading from a share that no longer answers holds up neither Ctrl-C nor the exit.

    The standard library's pool waits for its threads, at its end and at the program's.
    """

    def __init__(self, count: int = 2):
        self._waiting: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = SimpleQueue()
        self._stopped = threading.Event()
        self._count = count
        for _ in range(count):
            threading.Thread(target=self._work, name="okng-decode", daemon=True).start()

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stopped.set()  # what has not begun is left
        for _ in range(self._count):
            self._waiting.put(None)

    def submit(self, work: Callable[..., T], *arguments: Any) -> Future[T]:
        """Have `work(*arguments)` done; its result, or what it raised, is the future's."""
        future: Future[T] = Future()
        self._waiting.put((future, lambda: work(*arguments)))
        return future

    def _work(self) -> None:
        while (item := self._waiting.get()) is not None:
            future, work = item
            if self._stopped.is_set():
                future.cancel()
                continue
            try:
                future.set_result(work())
            except BaseException as error:
                future.set_exception(error)
