"""What a random sample says, and which of its images come next, while records are removed."""

from __future__ import annotations

from tests.store.stores import put

from okng.serve.pages.reviewing import queue, sample_shown
from okng.serve.pages.words import translator
from okng.store import Store
from okng.store.records import Filter
from okng.store.samples import Sample

T = translator("en")


def drawn(store: Store) -> Sample:
    """Twenty of sixty images that were all called OK, in their random order."""
    for _ in range(60):
        put(store, 1.0)
    return store.samples.draw(Filter(model="parts"), 1, 20, "kim")


def test_images_that_are_left_for_being_odd_are_no_random_sample(store: Store) -> None:
    """Removal takes what nobody reviewed: what closes up behind it was reviewed for being odd."""
    sample = drawn(store)
    order = sample.drawn["OK"]
    store.reviews.add(order[3:], "NG", "kim")  # the oddest; they are misses
    before = sample_shown(store, sample, T)
    assert before.rates.in_ok.share is None and not before.gone and (before.done, before.size) == (17, 20)
    assert [record.id for record in queue(store, Filter(), "sample", sample, 12)[0]] == order[:3]
    assert store.retention.keep(days=1e-9) == 43
    shown = sample_shown(store, sample, T)
    assert shown.rates == before.rates and (shown.done, shown.size) == (17, 20)
    assert shown.gone and queue(store, Filter(), "sample", sample, 12) == ([], 0)


def test_what_was_looked_at_before_the_removal_stands(store: Store) -> None:
    sample = drawn(store)
    order = sample.drawn["OK"]
    store.reviews.add(order[:10], "OK", "kim")
    store.reviews.add(order[2:3], "NG", "kim")
    store.reviews.add(order[12:], "NG", "kim")
    before = sample_shown(store, sample, T)
    assert before.rates.in_ok.share == 0.1 and len(queue(store, Filter(), "sample", sample, 12)[0]) == 2
    store.retention.keep(days=1e-9)
    assert sample_shown(store, sample, T).rates == before.rates
    assert sample_shown(store, sample, T).looked_ok == before.looked_ok
