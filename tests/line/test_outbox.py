"""Nothing that the store holds for a sink is lost, whatever the sink, the process or its neighbours do."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from parts import record, wait_for

from okng.errors import OkngError
from okng.line import outbox as outbox_module
from okng.line.outbox import Outbox
from okng.line.sinks import Message, Refused, Undeliverable
from okng.store import Store, StoreError


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox_module, "FIRST", 0.05)
    monkeypatch.setattr(outbox_module, "LONGEST", 0.1)
    monkeypatch.setattr(outbox_module, "POLL", 0.05)


class Got:
    """A sink that keeps what it gets, after `before` has had its say."""

    def __init__(self, name: str = "got", before: Callable[[Message], None] = lambda message: None, batch: int = 1):
        self.name, self.before, self.batch, self.patience = name, before, batch, 60.0 if batch > 1 else 0.0
        self.ids: list[int] = []
        self.opened = self.closed = 0

    def open(self) -> None:
        self.opened += 1

    def send(self, messages: Sequence[Message]) -> None:
        for message in messages:
            self.before(message)
        self.ids += [message.body["id"] for message in messages]

    def close(self) -> None:
        self.closed += 1


def test_a_sink_that_is_down_gets_all_in_order_and_holds_up_no_other(store: Store, said: list[str]) -> None:
    up = threading.Event()

    def refuse(message: Message) -> None:
        if not up.is_set():
            raise ConnectionError("nobody there")

    down, other = Got("down", refuse), Got("other")
    with Outbox(store, [down, other], said.append) as outbox:
        for number in range(5):
            record(store, number, outbox.names)
            outbox.wake()
        wait_for(lambda: other.ids == [1, 2, 3, 4, 5])
        wait_for(lambda: store.deliveries.waiting() == {"down": (5, "nobody there")})
        assert down.ids == []
        up.set()
        wait_for(lambda: down.ids == [1, 2, 3, 4, 5])
    assert said[0] == "down: nobody there; messages wait in the store" and "takes messages again" in said[1]
    assert len(said) == 2 and (down.closed, other.closed) == (down.opened, other.opened)


def test_what_waited_goes_out_after_a_restart(store: Store, said: list[str]) -> None:
    def refuse(message: Message) -> None:
        raise ConnectionError("nobody there")

    with Outbox(store, [Got("a", refuse)], said.append) as outbox:
        record(store, 0, outbox.names)
        wait_for(lambda: said)
    assert said[-1] == "1 messages for a stay in the store, for the next start"
    del said[:]
    with Outbox(store, [Got("b")], said.append):
        pass
    assert [line.partition(";")[0] for line in said] == [
        "1 messages wait in the store for a, which is not among the sinks now"
    ]
    again = Got("a")
    with Outbox(store, [again], said.append):
        wait_for(lambda: again.ids == [1])


def test_what_can_never_be_delivered_is_said_and_left(store: Store, said: list[str]) -> None:
    def refuse(message: Message) -> None:
        if message.body["id"] == 2:
            raise Undeliverable("it is gone")

    sink = Got("a", refuse)
    with Outbox(store, [sink], said.append) as outbox:
        for number in range(3):
            record(store, number, outbox.names)
        wait_for(lambda: sink.ids == [1, 3])
    assert said == ["a: it is gone"] and store.deliveries.waiting() == {}


def test_a_message_that_is_refused_holds_up_the_others_for_some_tries_alone(store: Store, said: list[str]) -> None:
    """Then it is set aside; sent again it comes with its old id. Who is merely down is waited for however long."""
    tries, mended = [], threading.Event()

    def refuse(message: Message) -> None:
        tries.append(message.body["id"])
        if len(tries) <= outbox_module.REFUSALS:
            raise ConnectionError("nobody there")
        if message.body["id"] == 2 and not mended.is_set():
            raise Refused("it answers 422")

    sink = Got("a", refuse)
    with Outbox(store, [sink], said.append) as outbox:
        for number in range(3):
            record(store, number, outbox.names)
        wait_for(lambda: sink.ids == [1, 3])
        assert tries.count(1) == outbox_module.REFUSALS + 1 and tries.count(2) == outbox_module.REFUSALS
        wait_for(lambda: store.deliveries.waiting() == {})
        assert store.deliveries.aside() == {"a": (1, "it answers 422")}
        mended.set()
        assert store.deliveries.send_again("a") == 1 and store.deliveries.send_again("a") == 0
        wait_for(lambda: sink.ids == [1, 3, 2])
    assert any("a: it answers 422, 10 times; set aside: 1" in line for line in said)
    assert store.deliveries.aside() == store.deliveries.waiting() == {}


def test_what_was_set_aside_is_said_at_the_next_start_and_can_be_dropped(store: Store, said: list[str]) -> None:
    for number in range(2):
        record(store, number, ("a", "b"))
    held = store.deliveries
    held.set_aside("it answers 404", held.pending("a")[0].id)
    with Outbox(store, [Got("a")], said.append):
        wait_for(lambda: "a" not in held.waiting())
    assert said[0].startswith("2 messages wait in the store for b, which is not among the sinks now; okng outbox")
    assert said[1] == "1 messages for a were set aside (it answers 404); okng outbox --again sends them"
    assert held.drop("b") == 2 and held.drop("a") == 1  # what was delivered is no longer there to be dropped
    assert held.waiting() == held.aside() == {} and sum(store.records.tally().values()) == 2


def test_the_end_delivers_what_waits_but_not_for_ever(store: Store, said: list[str]) -> None:
    slow = Got("slow", lambda message: time.sleep(0.2))
    outbox = Outbox(store, [slow], said.append)
    for number in range(20):
        record(store, number, outbox.names)
    outbox.start()
    begun = time.monotonic()
    outbox.stop(0.7)
    assert 0.5 < time.monotonic() - begun < 3
    assert slow.ids == list(range(1, len(slow.ids) + 1)) and 2 <= len(slow.ids) < 20
    assert said == [f"{20 - len(slow.ids)} messages for slow stay in the store, for the next start"]


def test_a_sink_of_many_waits_for_more_and_gets_the_rest_at_the_end(store: Store, said: list[str]) -> None:
    sizes: list[int] = []

    class Many(Got):
        def send(self, messages: Sequence[Message]) -> None:
            sizes.append(len(messages))

    with Outbox(store, [Many("many", batch=4)], said.append) as outbox:
        for number in range(10):
            record(store, number, outbox.names)
        outbox.wake()
        wait_for(lambda: sum(sizes) >= 8)
        assert sizes[:2] == [4, 4]
    assert sum(sizes) == 10 and said == []


def test_an_outbox_survives_a_store_that_is_locked(
    store: Store, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = Got()
    real, bad = store.deliveries.done, [True]

    def done(*taken: int) -> None:
        if bad:
            raise StoreError("the store is locked")
        real(*taken)

    monkeypatch.setattr(store.deliveries, "done", done)
    with Outbox(store, [sink], said.append) as outbox:
        record(store, 0, outbox.names)
        wait_for(lambda: said)
        bad.clear()
        wait_for(lambda: not store.deliveries.waiting())
    assert set(sink.ids) == {1} and said[0] == "got: the store is locked; messages wait in the store"


def test_the_end_is_no_failure_though_the_store_is_locked(
    store: Store, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    died: list[object] = []
    monkeypatch.setattr(threading, "excepthook", died.append)

    def waiting() -> None:
        raise StoreError("the store is locked")

    with store.deliveries.turn("got") as ours, Outbox(store, [Got()], said.append):
        assert ours()
        wait_for(lambda: said)  # it stands by
        monkeypatch.setattr(store.deliveries, "waiting", waiting)
    assert said[-1] == "the store is locked" and not died


def test_one_sink_is_not_given_twice(store: Store) -> None:
    with pytest.raises(OkngError, match="got is given twice"):
        Outbox(store, [Got(), Got()], print)


PROGRAM = """
import sys, time
sys.path[:0] = {path!r}
from test_outbox import Got
from okng.line.outbox import Outbox
from okng.store import Store
def told(message): print(message.body["id"], flush=True)
store = Store.open({store!r})
with Outbox(store, [Got("got", told)], lambda line: None):
    time.sleep(60)
"""


def test_of_two_programs_one_delivers_and_the_other_takes_over_when_it_is_killed(
    store: Store, said: list[str], tmp_path: Path
) -> None:
    code = PROGRAM.format(path=[str(Path(__file__).parent)], store=store.name)
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout is not None
        record(store, 0, ("got",))
        assert first.stdout.readline() == "1\n"
        second = Got("got")
        with Outbox(store, [second], said.append) as outbox:
            wait_for(lambda: said)
            assert said == ["another program delivers to got; this one stands by"]
            record(store, 1, outbox.names)
            outbox.wake()
            assert first.stdout.readline() == "2\n" and second.ids == []
            os.kill(first.pid, signal.SIGKILL)
            record(store, 2, outbox.names)
            wait_for(lambda: 3 in second.ids)
    assert not list(tmp_path.glob("*.turn"))
