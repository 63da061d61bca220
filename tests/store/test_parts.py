"""Records by filter and page, reviews, deliveries, accounts, audit, models, retention."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event
from stores import MODEL, inspection, put

from okng.errors import OkngError
from okng.store import Store
from okng.store.records import ORDERS, Filter, NewRecord


@pytest.mark.parametrize("order", ORDERS)
def test_pages_hold_each_record_once_in_order(store: Store, order: str) -> None:
    for number in range(23):
        put(store, score=[0.5, 1.5, 2.0, 2.5, 4.0][number % 5])
    found, cursor = [], None
    while True:
        page, cursor = store.records.page(order=order, limit=5, cursor=cursor)
        found += page
        if cursor is None:
            break
    assert len({record.id for record in found}) == 23 == len(found)
    key = {
        "newest": lambda r: -r.id,
        "oldest": lambda r: r.id,
        "oddest": lambda r: (-r.score, -r.id),
        "borderline": lambda r: (abs(r.score - 2.0), r.id),
    }[order]
    assert found == sorted(found, key=key)


def test_a_senseless_cursor_is_one_line(store: Store) -> None:
    for wrong in ("x", "1:x", "", "a:3"):
        with pytest.raises(OkngError, match="no cursor"):
            store.records.page(order="oddest", cursor=wrong)
    with pytest.raises(OkngError, match="an order is"):
        store.records.page(order="random")


def test_filters(store: Store) -> None:
    ok, ng = put(store, 1.0, path="lot_1/a.png", image=b"i"), put(store, 3.0, path="lot%2/b.png", source="folder:in")
    store.reviews.add([ng], "OK", "eve")

    def ids(**how: object) -> list[int]:
        return [record.id for record in store.records.page(Filter(**how), "oldest")[0]]  # type: ignore[arg-type]

    assert ids() == [ok, ng] == ids(model="parts", version=1) and ids(model="other") == []
    assert ids(verdict="NG") == [ng] == ids(source="folder:in") == ids(review="OK") == ids(review="any")
    assert ids(review="none") == [ok] == ids(with_image=True) == ids(text="lot_1") == ids(before=ng)
    assert ids(text="lot%2") == [ng] == ids(after=ok) and ids(text="lot_2") == []
    assert ids(since=time.time() - 60) == [ok, ng] and ids(until=time.time() - 60) == []
    assert store.records.tally(Filter(review="OK")) == {"OK": 0, "NG": 1}
    assert [row[0] for row in store.records.scores(limit=1)] == [ng]


def test_a_review_is_never_edited_and_an_undo_brings_back_what_was(store: Store) -> None:
    a, b = put(store), put(store)
    store.reviews.add([a], "unknown", "eve")
    both = store.reviews.add([a, b], "NG", "bob", note="scratch")

    def said() -> list[str | None]:
        return [record.review for record in store.records.page(order="oldest")[0]]

    assert said() == ["NG", "NG"]
    store.reviews.undo(both, "eve")
    assert said() == ["unknown", None]
    assert [(row.who, row.said, row.undoes) for row in store.reviews.of(a)] == [
        ("eve", "unknown", None),
        ("bob", "NG", None),
        ("eve", None, both[0]),
    ]
    with pytest.raises(OkngError, match="could be undone"):
        store.reviews.undo(both, "eve")  # not twice
    with pytest.raises(OkngError, match="no record"):
        store.reviews.add([a, 99], "OK", "eve")  # and none of them is kept
    with pytest.raises(OkngError, match="a review says"):
        store.reviews.add([a], "maybe", "eve")
    assert said() == ["unknown", None]


def test_one_has_the_turn_of_a_sink_until_the_end_of_its_block(store: Store, url: str) -> None:
    other = Store.open(url)
    with store.deliveries.turn("a") as ours:
        assert ours() and ours()
        with other.deliveries.turn("a") as theirs, other.deliveries.turn("b") as another:
            assert not theirs() and another() and ours()
    with other.deliveries.turn("a") as theirs:
        assert theirs()
    other.close()


def test_deliveries_are_in_order_and_a_failed_one_holds_the_others(store: Store) -> None:
    for _ in range(3):
        put(store, sinks=("a", "b"))
    first, second, third = store.deliveries.pending("a")
    assert [d.record.id for d in store.deliveries.pending("b", 2)] == [first.record.id, second.record.id]
    store.deliveries.failed(first.id, "down", time.time() + 60)
    assert store.deliveries.pending("a") == [] and len(store.deliveries.pending("b")) == 3
    assert store.deliveries.waiting() == {"a": (3, "down"), "b": (3, None)}
    store.deliveries.failed(first.id, "down", time.time() - 1)
    assert [d.tries for d in store.deliveries.pending("a")] == [2, 0, 0]
    store.deliveries.done(first.id)
    assert [d.id for d in store.deliveries.pending("a")] == [second.id, third.id]


def test_only_hashes_of_tokens_are_kept_and_a_removed_account_is_out_at_once(store: Store) -> None:
    token = store.accounts.add("eve", "review", "admin")
    account = store.accounts.of_token(token)
    assert account is not None and (account.name, account.role) == ("eve", "review")
    assert store.accounts.of_token("okng_guess") is None and store.accounts.log_in("okng_guess") is None
    session = store.accounts.log_in(token)
    assert session is not None and store.accounts.of_session(session) == account
    with store.reading() as connection:
        for table in ("okng_accounts", "okng_sessions", "okng_audit"):
            rows = str(connection.exec_driver_sql(f"SELECT * FROM {table}").all())
            assert token not in rows and session not in rows
    with pytest.raises(OkngError, match="already"):
        store.accounts.add("eve", "admin", "admin")
    with pytest.raises(OkngError, match="a role is"):
        store.accounts.add("bob", "root", "admin")
    store.accounts.remove("eve", "admin")
    assert store.accounts.of_session(session) is None and store.accounts.of_token(token) is None
    with pytest.raises(OkngError, match="no account 'eve'"):
        store.accounts.remove("eve", "admin")
    assert [entry.what for entry in store.audit.entries()] == ["account removed", "account added"]


def test_a_session_ends(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    session = store.accounts.log_in(store.accounts.add("eve", "review", "admin"))
    assert session is not None
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 13 * 3600)
    assert store.accounts.of_session(session) is None
    monkeypatch.undo()
    store.accounts.log_out(session)
    assert store.accounts.of_session(session) is None


def test_versions_and_choices(store: Store) -> None:
    one = store.models.add("parts", "aa", "parts/aa.okng", "eve", "given")
    two = store.models.add("parts", "bb", "parts/bb.okng", "eve", "3 false alarms learnt")
    assert (one.version, two.version) == (1, 2) and store.models.add("parts", "aa", "x", "bob", "again") == one
    assert store.models.add("other", "aa", "other/aa.okng", "eve", "given").version == 1
    assert store.models.active("parts") is None
    for version in (1, 2, 1):
        store.models.choose("parts", version, "eve", "so")
    assert store.models.active("parts") == 1 and [c.version for c in store.models.choices("parts")] == [1, 2, 1]
    with pytest.raises(OkngError, match="no version 7"):
        store.models.choose("parts", 7, "eve", "so")
    assert store.audit.entries(1)[0].about == {"model": "parts", "version": 1, "before": 2, "why": "so"}


def test_what_is_set_aside_is_kept_counted_and_sent_again_in_its_old_place(store: Store) -> None:
    for _ in range(3):
        put(store, sinks=("a", "b"))
    held = store.deliveries
    first, second, third = held.pending("a")
    held.done(first.id)
    held.set_aside("it answers 422", second.id)
    assert [delivery.id for delivery in held.pending("a")] == [third.id]
    assert held.aside() == {"a": (1, "it answers 422")} and held.waiting()["a"] == (1, None)
    assert held.send_again("a") == 1 and held.aside() == {}
    assert [delivery.id for delivery in held.pending("a")] == [second.id, third.id]
    held.set_aside("it answers 422", second.id)
    assert held.drop("a") == 2 and held.drop("a") == 0 and held.waiting() == {"b": (3, None)}


def test_retention_by_age_leaves_what_is_reviewed_or_waits(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now - 10 * 86_400)
    plain, reviewed, waiting = put(store), put(store), put(store, sinks=("a",))
    store.reviews.add([reviewed], "OK", "eve")
    monkeypatch.undo()
    new = put(store)
    assert store.retention.keep(days=7) == 1 and store.records.get(plain) is None
    assert [record.id for record in store.records.each()] == [reviewed, waiting, new]
    store.deliveries.done(store.deliveries.pending("a")[0].id)
    assert store.retention.keep(days=7) == 1 and store.records.get(waiting) is None


@pytest.mark.parametrize("limit", [{"days": -1}, {"days": 0}, {"gigabytes": -1}, {"gigabytes": 0}])
def test_retention_takes_no_limit_by_which_all_would_go(store: Store, limit: dict[str, float]) -> None:
    put(store)
    with pytest.raises(OkngError, match="is above 0, not"):
        store.retention.keep(**limit)
    assert len(list(store.records.each())) == 1


def test_what_was_set_aside_goes_with_its_record(store: Store) -> None:
    put(store, sinks=("a",))
    (refused,) = store.deliveries.pending("a")
    assert store.retention.keep(gigabytes=1e-9) == 0  # it waits
    store.deliveries.set_aside("it answers 422", refused.id)
    assert store.retention.keep(gigabytes=1e-9) == 1 and store.deliveries.aside() == {}


def test_retention_by_size_removes_the_oldest_and_reviewed_ones_last(store: Store) -> None:
    kept = [put(store, image=b"x" * 10_000) for _ in range(10)]
    store.reviews.add(kept[:2], "OK", "eve")
    assert store.retention.keep(gigabytes=55e-6) == 5
    assert [record.id for record in store.records.each()] == [*kept[:2], *kept[7:]]
    assert store.retention.size() <= 55_000
    store.retention.keep(gigabytes=25e-6)
    assert [record.id for record in store.records.each()] == kept[:2]
    store.retention.keep(gigabytes=15e-6)
    assert [record.id for record in store.records.each()] == kept[1:2]


def test_to_make_room_the_size_is_summed_once(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of millions of records that takes seconds, and inspections wait for each piece that is removed."""
    for _ in range(9):
        put(store, image=b"x" * 10_000)
    monkeypatch.setattr("okng.store.retention.CHUNK", 2)
    summed, size = [], store.retention.size
    monkeypatch.setattr(store.retention, "size", lambda: summed.append(1) or size())
    assert store.retention.keep(gigabytes=35e-6) == 6 and len(summed) == 1


def test_however_many_are_removed_the_statement_is_one(store: Store) -> None:
    """SQLite keeps statements: one for each length of a list of ids took tens of MB in a day."""
    said: set[str] = set()
    event.listen(store.engine, "before_cursor_execute", lambda *told: said.add(told[2]))
    for count in (1, 2, 5, 3):
        for _ in range(count):
            put(store, image=b"x" * 10_000)
        assert store.retention.keep(gigabytes=1e-9) == count
    assert len({one for one in said if one.startswith("DELETE")}) == 1


def test_records_kept_together_are_in_order_and_a_key_is_one_record(store: Store) -> None:
    def new(score: float, key: str | None = None, **how: Any) -> NewRecord:
        return NewRecord(inspection(score), MODEL, "test", "d", key, **how)

    (before,) = store.record_all([new(0.5, "before", thumbnail=b"t")])
    given = [
        new(1.0),
        new(9.0, "before"),
        new(1.1, "a", heat=b"h"),
        new(1.2, image=b"i", sinks=("x", "y")),
        new(9.0, "a"),
    ]
    kept = store.record_all([*given, new(1.3)])
    assert [record.score for record in kept] == [1.0, 0.5, 1.1, 1.2, 1.1, 1.3]
    assert (
        kept[1] == before and kept[4] == kept[2] and [record.has_image for record in kept][3:] == [True, False, False]
    )
    assert list(store.records.each()) == [before, kept[0], kept[2], kept[3], kept[5]]
    assert kept[0].id < kept[2].id < kept[3].id < kept[5].id
    pictures = [(store.records.heat(record.id), store.records.image(record.id)) for record in kept]
    assert pictures == [(None, None), (None, None), (b"h", None), (None, b"i"), (b"h", None), (None, None)]
    assert store.records.thumbnail(before.id) == b"t"
    assert [one.record.id for sink in ("x", "y") for one in store.deliveries.pending(sink)] == [kept[3].id] * 2


@pytest.mark.parametrize("size", [600, 3000, 9000])
def test_the_size_is_the_files_and_room_is_given_back(tmp_path: Path, size: int) -> None:
    store = Store.open(tmp_path / "okng.sqlite")
    store.record_all([NewRecord(inspection(), MODEL, "test", "d", thumbnail=b"x" * size)] * 400)
    store.give_back()
    file = tmp_path / "okng.sqlite"
    assert 0.8 < store.retention.size() / file.stat().st_size < 1.2
    store.retention.keep(gigabytes=2e-4)
    assert file.stat().st_size < 350_000
    store.close()
