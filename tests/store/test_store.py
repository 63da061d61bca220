"""One store, two databases: what is acknowledged is there, once, in order, and what goes wrong is one clear line."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from sqlalchemy import event, text
from stores import MODEL, inspection, put

from okng.errors import OkngError
from okng.store import Store, StoreError
from okng.store.records import NewRecord
from okng.store.tables import VERSION


def test_a_record_comes_back_as_it_was(store: Store) -> None:
    seen = inspection(3.25, "lot 1/a.png", 0.125)
    kept = store.record(seen, model=MODEL, source="http", digest="d", key="k", thumbnail=b"small", image=b"large")
    found = store.records.get(kept)
    assert found is not None and store.records.get(kept + 1) is None
    assert (found.score, found.p_value, found.verdict, found.path) == (3.25, 0.125, "NG", "lot 1/a.png")
    assert (found.height, found.width, found.source, found.digest, found.key) == (20, 30, "http", "d", "k")
    assert (found.model, found.version, found.model_digest, found.threshold) == ("parts", 1, "a" * 64, 2.0)
    assert found.details["regions"][0]["contour"] == [[1.0, 2.0], [3.0, 4.0]]
    assert abs(found.at - time.time()) < 60 and found.has_image and found.review is None
    assert store.records.thumbnail(kept) == b"small" and store.records.image(kept) == b"large"
    assert found.to_dict()["at"].endswith("+00:00")


def test_a_key_is_recorded_once_and_delivered_once(store: Store) -> None:
    first = put(store, key="file 1", sinks=("a",))
    assert put(store, key="file 1", sinks=("a",)) == first != put(store, key="file 2", sinks=("a",))
    assert put(store) != put(store)  # without a key each is one of its own
    assert [delivery.record.key for delivery in store.deliveries.pending("a")] == ["file 1", "file 2"]


def test_what_is_told_of_a_new_record_is_what_is_kept(store: Store) -> None:
    """It is not read back, so it has to be the same to the last digit, the odd name and the old key included."""
    seen = inspection(1 / 3, "odd\udcff\0name.png", 0.1)
    new = [NewRecord(seen, MODEL, "test", "d", key, image=image) for key, image in (("a", b"x"), (None, None))]
    told = store.record_all([*new, new[0]])
    assert told == [store.records.get(record.id) for record in told]
    assert told[0] == told[2] and [record.has_image for record in told] == [True, False, True]


def test_what_was_written_counts_when_all_can_see_it(store: Store) -> None:
    """A server that saw the count before the records looked at a store that was small, and then not again."""
    counted = []
    event.listen(store.engine, "commit", lambda connection: counted.append(store.records.written))
    new = NewRecord(inspection(), MODEL, "test", "d", image=b"x" * 1000)
    store.record_all([new, new])
    assert counted and not any(counted) and store.records.written == store.retention.size() > 2000


def test_names_that_no_database_takes_are_kept_readable(store: Store) -> None:
    kept = put(store, path="odd\udcff\0name.png")
    found = store.records.get(kept)
    assert found is not None and found.path == "odd\\udcff\\x00name.png"


def test_a_transaction_that_fails_leaves_nothing(store: Store) -> None:
    good = NewRecord(inspection(), MODEL, "test", "d", sinks=("a",))
    bad = NewRecord(inspection(), MODEL, None, "d")  # type: ignore[arg-type]
    with pytest.raises(OkngError):
        store.record_all([good, bad])
    assert store.records.tally() == {"OK": 0, "NG": 0} and store.deliveries.pending("a") == []


def test_ids_are_in_order_whatever_the_clock_does(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Set back by ten years, then forth: order, paging, and a delivery that failed before do not care."""
    kept = [put(store, sinks=("a",))]
    now = time.time()
    store.deliveries.failed(store.deliveries.pending("a")[0].id, "down", now + 60)
    assert store.deliveries.pending("a") == []
    for jump in (-3e8, 3e8):
        monkeypatch.setattr(time, "time", lambda jump=jump: now + jump)
        kept.append(put(store, sinks=("a",)))
        assert [delivery.record.id for delivery in store.deliveries.pending("a")] == kept
    assert kept == sorted(kept)
    assert [record.id for record in store.records.each()] == kept
    assert [record.id for record in store.records.page(order="newest")[0]] == kept[::-1]


def test_an_id_is_never_given_twice(store: Store) -> None:
    last = [put(store) for _ in range(3)][-1]
    assert store.retention.keep(gigabytes=1e-9) == 3
    assert put(store) > last


def test_a_store_is_found_as_it_was_left(url: str) -> None:
    with_one = Store.open(url)
    kept = put(with_one)
    with_one.close()
    again = Store.open(url)
    assert again.records.get(kept) is not None
    again.close()


def test_two_servers_on_one_store(url: str) -> None:
    """Eight threads of two stores: every record there, none twice, and who reads upwards misses none."""
    stores = [Store.open(url), Store.open(url)]
    missed, done, seen = [], threading.Event(), [0]

    def watch() -> None:
        while not done.is_set():
            for delivery in stores[0].deliveries.pending("a", 1000):
                if delivery.record.id > seen[-1]:
                    seen.append(delivery.record.id)
        missed.extend(d.record.id for d in stores[0].deliveries.pending("a", 1000) if d.record.id not in seen)

    def write(worker: int) -> None:
        for number in range(12):  # two workers want each key
            put(stores[worker % 2], key=f"{worker // 2}/{number}", sinks=("a",))

    watcher = threading.Thread(target=watch)
    workers = [threading.Thread(target=write, args=(worker,)) for worker in range(8)]
    for thread in [watcher, *workers]:
        thread.start()
    for thread in workers:
        thread.join()
    done.set()
    watcher.join()
    assert sum(stores[0].records.tally().values()) == 48
    late = [record for record in missed if record < seen[-1]]
    assert late == []
    for store in stores:
        store.close()


def test_a_later_okngs_store_is_refused(url: str) -> None:
    store = Store.open(url)
    with store.writing() as connection:
        connection.execute(text("UPDATE okng_store SET version = 99"))
    store.close()
    with pytest.raises(OkngError, match=r"version 99, made by a later okng"):
        Store.open(url)


@pytest.mark.parametrize("removed", [0, 4])
def test_an_older_store_is_brought_along(url: str, removed: int) -> None:
    """Where records are missing, nobody knows up to which they were removed: up to the newest, then."""
    store = Store.open(url)
    ids = [put(store) for _ in range(6)]
    store.reviews.add(ids[removed:], "OK", "kim")
    assert store.retention.keep(days=1e-9) == removed
    with store.writing() as connection:
        connection.execute(text("ALTER TABLE okng_store DROP COLUMN removed"))
        connection.execute(text("UPDATE okng_store SET version = 1"))
    store.close()
    for _ in range(2):
        store = Store.open(url)
        assert store.retention.removed() == (ids[-1] if removed else 0)
        with store.reading() as connection:
            assert connection.execute(text("SELECT version FROM okng_store")).scalar() == VERSION
        store.close()


def test_a_locked_store_says_so_and_keeps_nothing(url: str) -> None:
    """Another program holds the writers' lock; afterwards all is well again."""
    holder, store = Store.open(url), Store.open(url, patience=0.2)
    with holder.writing():
        start = time.monotonic()
        with pytest.raises(StoreError, match=r"locked by another program"):
            put(store)
        assert time.monotonic() - start < 5
        assert store.records.tally() == {"OK": 0, "NG": 0}  # reading goes on
    put(store)
    holder.close()
    store.close()


def test_a_full_store_says_so_and_keeps_what_it_had(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "okng.sqlite")
    first = put(store)
    with store.engine.connect() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
        connection.exec_driver_sql(f"PRAGMA max_page_count = {pages + 4}")
    with pytest.raises(StoreError, match=r"is full .*make room"):
        put(store, image=b"x" * 100_000, sinks=("a",))
    assert [record.id for record in store.records.each()] == [first] and store.deliveries.pending("a") == []
    put(store)
    store.close()


@pytest.mark.parametrize("content", [b"no database, but a text that is long enough " * 100, b"\x89PNG" + b"\0" * 2000])
def test_a_file_of_something_else_is_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "notes.txt"
    path.write_bytes(content)
    with pytest.raises(OkngError, match=r"no store of okng's"):
        Store.open(path)
    assert path.read_bytes() == content


def test_somebody_elses_database_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "other.sqlite"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE customers (id INTEGER)")
    with pytest.raises(OkngError, match=r"database of something else"):
        Store.open(path)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("postgresql://okng:secret@127.0.0.1:1/none", r"no database at postgresql\+psycopg://okng:\*\*\*@127"),
        ("mysql://u@h/d", r"SQLite or PostgreSQL, not 'mysql'"),
        ("sqlite://", r"would be lost"),
        ("://", r"a file, or a URL"),
        ("/no/such/folder/okng.sqlite", r"no folder /no/such/folder"),
        ("/", r"is a folder"),
    ],
)
def test_a_place_that_can_not_hold_a_store_is_one_line(url: str, said: str) -> None:
    if url.startswith("postgresql"):
        pytest.importorskip("psycopg")
    with pytest.raises(OkngError, match=said) as error:
        Store.open(url, patience=0.2)
    assert "secret" not in str(error.value) and "\n" not in str(error.value)


WRITER = """
import sys
sys.path.insert(0, {tests!r})
from stores import put
from okng.store import Store
store = Store.open({url!r})
for number in range(100000):
    print(put(store, key=f"{{{turn}}}/{{number}}", sinks=("a",)), flush=True)
"""


@pytest.mark.parametrize("url", ["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)], indirect=True)
def test_kill_9_loses_nothing_that_was_acknowledged(url: str) -> None:
    """Two kills in the middle of writing; benchmarks/serve_kill.py has hundreds, of a server."""
    acknowledged: list[int] = []
    for turn in range(2):
        script = WRITER.format(tests=str(Path(__file__).parent), url=url, turn=turn)
        with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout is not None
            acknowledged += [int(writer.stdout.readline()) for _ in range(5 + 7 * turn)]
            writer.send_signal(signal.SIGKILL)
            acknowledged += [int(line) for line in writer.stdout.read().splitlines()]
    store = Store.open(url)
    kept = [record.id for record in store.records.each()]
    assert set(acknowledged) <= set(kept) and len(kept) == len(set(kept)) <= len(acknowledged) + 2
    assert [delivery.record.id for delivery in store.deliveries.pending("a", 1000)] == kept
    store.close()
