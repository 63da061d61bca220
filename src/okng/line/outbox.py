"""Delivers what the store holds for each sink: all of it, in order, again and again until it is taken.

A delivery is written in the transaction of its record and marked when its sink has taken it. So what is lost with a
process is at most the mark: the message then comes twice, with the same id. A sink that is down holds up no other. A
message that its receiver refuses again and again is set aside: it stays as long as its record, and the next one's turn
comes.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from okng.errors import OkngError, in_one_line
from okng.line.sinks import Refused, Sink, Undeliverable, message
from okng.store.deliveries import Delivery
from okng.store.store import Store, StoreError

FIRST, LONGEST = 0.2, 30.0  # seconds between tries
POLL = 0.5  # seconds between looks at what other processes have recorded
AT_ONCE = 50  # deliveries read at once
REFUSALS = 10  # tries after which a message that is refused is set aside, in somewhat less than two minutes
MARK = 1.0  # seconds after which what was taken is marked; so much may come twice after a kill


class Outbox:
    """Delivers to `sinks`, each in a thread of its own, from `start` to `stop`; `say` takes lines for the person.

    >>> with Outbox(store, [open_sink("mqtt://broker/line1")], print) as outbox:  # doctest: +SKIP
    ...     store.record(inspection, sinks=outbox.names, **more)
    ...     outbox.wake()

    Of several processes with the same sink and store one delivers, and another one takes over when it ends, even by
    kill -9.
    """

    def __init__(self, store: Store, sinks: Sequence[Sink], say: Callable[[str], None]):
        self.store, self.sinks, self.say = store, list(sinks), say
        self.names = tuple(sink.name for sink in sinks)
        if twice := {name for name in self.names if self.names.count(name) > 1}:
            raise OkngError(f"{min(twice)} is given twice; what is sent there would come twice")
        self._until = float("inf")  # monotonic time at which what is not delivered stays in the store
        self._stopping = threading.Event()
        self._news = {name: threading.Event() for name in self.names}
        self._threads = [
            threading.Thread(target=self._serve, args=(sink,), name=f"okng-{sink.name}", daemon=True)
            for sink in self.sinks
        ]

    def __enter__(self) -> Outbox:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def start(self) -> None:
        """Begin with what is waiting from before."""
        others = {name: count for name, (count, _) in self.store.deliveries.waiting().items() if name not in self.names}
        for name, count in others.items():
            self.say(
                f"{count} messages wait in the store for {name}, which is not among the sinks now; "
                "okng outbox shows and drops them"
            )
        for name, (count, why) in self.store.deliveries.aside().items():
            if name in self.names:
                self.say(f"{count} messages for {name} were set aside ({why}); okng outbox --again sends them")
        for thread in self._threads:
            thread.start()

    def wake(self) -> None:
        """There is something new in the store."""
        for news in self._news.values():
            news.set()

    def stop(self, seconds: float = 5.0) -> None:
        """Deliver what is waiting, for `seconds` at most and only where it works, and end."""
        self._until = time.monotonic() + seconds
        self._stopping.set()
        self.wake()
        for thread in self._threads:
            thread.join(max(0.0, self._until - time.monotonic()) + 1)
        try:
            left = {name: count for name, (count, _) in self.store.deliveries.waiting().items() if name in self.names}
        except StoreError as error:  # whoever ends the program is not to be told that it failed
            self.say(str(error))
            return
        for name, count in left.items():
            self.say(f"{count} messages for {name} stay in the store, for the next start")

    # One sink

    def _serve(self, sink: Sink) -> None:
        """Deliver to one sink as long as this process has the turn, which it waits for."""
        trouble = Trouble(sink.name, self.say)
        waited = False
        while True:
            try:
                if self._over(trouble):
                    return
                with self.store.deliveries.turn(sink.name) as ours:
                    if ours():
                        self._deliver(sink, trouble, ours)
                    elif self._stopping.is_set():
                        return
                    elif not waited:
                        waited = True
                        self.say(f"another program delivers to {sink.name}; this one stands by")
            except Exception as error:  # of the store; and opening a sink may raise anything
                trouble.begins(in_one_line(error))
            self._stopping.wait(trouble.pause or POLL)

    def _deliver(self, sink: Sink, trouble: Trouble, ours: Callable[[], bool]) -> None:
        """Open it and deliver until this ends."""
        sink.open()
        try:
            while ours() and not self._over(trouble):
                if not self._some(sink, trouble):
                    news = self._news[sink.name]
                    news.wait(0 if self._stopping.is_set() else min(POLL, trouble.pause or POLL))
                    news.clear()
        finally:
            sink.close()

    def _some(self, sink: Sink, trouble: Trouble) -> bool:
        """Deliver what is waiting, up to a second's worth; whether there was anything."""
        ending = self._stopping.is_set()  # asked before the store: whoever stops has recorded all by then
        found = self.store.deliveries.pending(sink.name, max(AT_ONCE, sink.batch))
        taken: list[int] = []
        begun = time.monotonic()
        try:
            for some in _chunks(found, sink.batch):
                if len(some) < sink.batch and not ending and _early(sink, some[0]):
                    break
                try:
                    sink.send([message(one, partial(self.store.records.image, one.record.id)) for one in some])
                except Undeliverable as error:
                    self.say(f"{sink.name}: {error}")
                except Exception as error:
                    trouble.begins(in_one_line(error), isinstance(error, Refused))
                    if trouble.refusals >= REFUSALS:
                        self.store.deliveries.set_aside(trouble.why, *(one.id for one in some))
                        trouble.sets_aside(len(some))
                        return True
                    self.store.deliveries.failed(some[0].id, trouble.why, time.time() + trouble.pause)
                    return False
                taken += [one.id for one in some]
                trouble.ends()
                if time.monotonic() - begun > MARK or time.monotonic() > self._until:
                    break
        finally:
            if taken:
                self.store.deliveries.done(*taken)
        return bool(taken)

    def _over(self, trouble: Trouble) -> bool:
        """Whether to end: at once where it does not work, else when all is delivered or the time is up."""
        if not self._stopping.is_set():
            return False
        if trouble.since or time.monotonic() > self._until:
            return True
        return not self.store.deliveries.waiting().get(trouble.name)


class Trouble:
    """What is wrong with a sink, said when it begins and when it ends, and how long to wait until the next try."""

    def __init__(self, name: str, say: Callable[[str], None]):
        self.name, self.say = name, say
        self.since, self.pause, self.why, self.refusals = 0.0, 0.0, "", 0

    def begins(self, why: str, refused: bool = False) -> None:
        """It failed, once more perhaps; or the message was `refused`."""
        self.refusals += refused
        if not self.since:
            self.since = time.monotonic()
        if why != self.why:
            self.say(f"{self.name}: {why}; messages wait in the store")
        self.why, self.pause = why, min(LONGEST, 2 * self.pause or FIRST)

    def sets_aside(self, messages: int) -> None:
        """What was refused is set aside, and the next message is tried at once."""
        self.say(f"{self.name}: {self.why}, {self.refusals} times; set aside: {messages}; okng outbox shows them")
        self.pause, self.refusals = 0.0, 0

    def ends(self) -> None:
        """It works."""
        if self.since:
            self.say(f"{self.name} takes messages again, after {time.monotonic() - self.since:.0f} s")
        self.since, self.pause, self.why, self.refusals = 0.0, 0.0, "", 0


def _early(sink: Sink, first: Delivery) -> bool:
    """Whether the first of a few messages may still wait for more."""
    return 0 <= time.time() - first.record.at < sink.patience


def _chunks(found: list[Delivery], size: int) -> Iterator[list[Delivery]]:
    for at in range(0, len(found), size):
        yield found[at : at + size]
