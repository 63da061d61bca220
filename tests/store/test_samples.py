from __future__ import annotations

import dataclasses

import pytest
from stores import MODEL, put

from okng.errors import OkngError
from okng.store import Store
from okng.store.records import Filter


def test_a_sample_is_half_of_each_verdict_and_each_image_at_most_once(store: Store) -> None:
    ng = [put(store, 3.0) for _ in range(5)]
    ok = [put(store, 1.0) for _ in range(40)]
    put(store, 1.0, model=dataclasses.replace(MODEL, digest="b" * 64, version=2))
    sample = store.samples.draw(Filter(model="parts", judged_by=(MODEL.digest,)), 1, 20, "kim")
    assert sample.totals == {"NG": 5, "OK": 40}
    assert sorted(sample.drawn["NG"]) == ng  # all five, and so more of the others
    assert len(set(sample.drawn["OK"])) == 15 and set(sample.drawn["OK"]) <= set(ok)
    assert store.samples.last("parts", 1) == sample and store.samples.last("parts", 2) is None
    assert sample.since == pytest.approx(sample.at, abs=60)
    with pytest.raises(OkngError, match="take more days"):
        store.samples.draw(Filter(model="other"), 1, 20, "kim")


def test_nothing_is_drawn_from_what_retention_left(store: Store) -> None:
    """Of a time of which unreviewed images are gone, the rest was reviewed for being odd."""
    odd = [put(store, 1.0) for _ in range(3)]
    store.reviews.add(odd, "NG", "kim")
    removed = [put(store, 1.0) for _ in range(20)][-1]
    put(store, 1.0, sinks=("webhook:there",))  # waits, and stays
    assert store.retention.removed() == 0 and store.retention.keep(days=1e-9) == 20
    assert store.retention.removed() == removed
    newer = [put(store, 1.0) for _ in range(9)]
    sample = store.samples.draw(Filter(model="parts"), 1, 100, "kim")
    assert sample.totals == {"NG": 0, "OK": 10} and set(sample.drawn["OK"]) == {removed + 1, *newer}
    store.deliveries.drop("webhook:there")
    store.retention.keep(days=1e-9)
    with pytest.raises(OkngError, match="take more days"):
        store.samples.draw(Filter(model="parts"), 1, 100, "kim")


def test_every_image_is_as_likely_and_at_any_place(store: Store) -> None:
    ids = [put(store, 1.0) for _ in range(8)]
    first = [store.samples.draw(Filter(model="parts"), None, 2, "kim").drawn["OK"][0] for _ in range(120)]
    assert set(first) == set(ids)  # one is missing in one of a million such tests


def test_the_last_answers_are_taken_back_one_step_after_another(store: Store) -> None:
    a, b, c = (put(store) for _ in range(3))
    store.reviews.add([c], "NG", "kim")
    store.reviews.add_all([(a, "OK"), (b, "unknown")], "kim")
    store.reviews.add([a], "NG", "lee")
    standing = lambda: [store.records.get(number).review for number in (a, b, c)]  # noqa: E731
    assert standing() == ["NG", "unknown", "NG"]
    store.reviews.undo(store.reviews.last("kim"), "kim")
    assert standing() == ["NG", None, "NG"]
    store.reviews.undo(store.reviews.last("kim"), "kim")
    assert standing() == ["NG", None, None]  # what lee said stands
    assert store.reviews.last("kim") == []


def test_heat_is_kept_beside_the_thumbnail(store: Store) -> None:
    bare, both = put(store), put(store, thumbnail=b"jpeg", heat=b"png")
    plain = put(store, thumbnail=b"jpeg")
    assert store.records.heat(both) == b"png" and store.records.heat(bare) is None
    assert store.records.with_pictures([bare, both, plain]) == {both: True, plain: False}
