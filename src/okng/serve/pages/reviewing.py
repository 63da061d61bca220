"""The review page: which images come next, and what those reviewed say of the verdict."""

from __future__ import annotations

import datetime
from dataclasses import dataclass, replace
from itertools import takewhile, zip_longest

from okng.serve.pages.estimates import Rates, Stratum, rates
from okng.serve.pages.words import Translate
from okng.store.records import Filter, Record
from okng.store.samples import Sample
from okng.store.store import Store

GROUP = 12  # images of a group
NEWEST = 50_000  # records among which the oddest are looked for


def queue(store: Store, which: Filter, order: str, sample: Sample | None, limit: int) -> tuple[list[Record], int]:
    """The next `limit` images to review in an order of "odd", "border" or "sample", and how many there are in all."""
    if order == "sample":
        if sample is None:
            return [], 0
        drawn = _drawn(store, sample)
        heads = [list(takewhile(lambda one: one is not None, drawn[verdict])) for verdict in ("NG", "OK")]
        turns = [record for both in zip_longest(*heads) for record in both if record is not None]
        waiting = [record for record in turns if record.review is None]
        return waiting[:limit], len(waiting)
    newest, _ = store.records.page(limit=1)
    after = newest[0].id - NEWEST if newest and newest[0].id > NEWEST else None
    open_ones = replace(which, review="none", after=after)
    found, _ = store.records.page(open_ones, {"odd": "oddest", "border": "borderline"}[order], limit)
    return found, sum(store.records.tally(open_ones).values())


@dataclass(frozen=True)
class Table:
    """How many reviewed images okng called OK or NG and a person called OK, NG or neither: `ok_ng` are missed."""

    ok_ok: int
    ok_ng: int
    ok_unsure: int
    ng_ok: int
    ng_ng: int
    ng_unsure: int


def table(store: Store, which: Filter) -> Table:
    """The counts of all reviewed images."""
    ok, ng, unsure = (store.records.tally(replace(which, review=said)) for said in ("OK", "NG", "unknown"))
    return Table(ok["OK"], ng["OK"], unsure["OK"], ok["NG"], ng["NG"], unsure["NG"])


@dataclass(frozen=True)
class SampleShown:
    """A random sample as the page shows it; `gone`: whether the next image was removed, so that no more can be told."""

    date: str
    done: int
    size: int
    total: int
    rates: Rates
    looked_ng: str
    looked_ok: str
    note: str
    gone: bool


def sample_shown(store: Store, sample: Sample, t: Translate) -> SampleShown:
    """What the sample says so far; an image that was removed is one without an answer."""
    drawn = _drawn(store, sample)
    strata, done, gone = {}, 0, False
    for verdict, records in drawn.items():
        said = [None if record is None else record.review for record in records]
        wrong = [None if one == "unknown" else one is not None and one != verdict for one in said]
        strata[verdict] = Stratum.of(sample.totals[verdict], wrong, [one is not None for one in said])
        done += sum(one is not None for one in said)
        behind = records[strata[verdict].looked_at :]
        gone |= behind[:1] == [None]
    return SampleShown(
        date=_day(sample.at),
        done=done,
        size=sum(map(len, drawn.values())),
        total=sum(sample.totals.values()),
        rates=rates(strata["NG"], strata["OK"]),
        looked_ng=_looked(strata["NG"], t),
        looked_ok=_looked(strata["OK"], t),
        note=_note(sample, strata, t),
        gone=gone,
    )


def _drawn(store: Store, sample: Sample) -> dict[str, list[Record | None]]:
    """The drawn images in their order, None for one that is not kept any more."""
    kept = store.records.several([*sample.drawn["NG"], *sample.drawn["OK"]])
    return {verdict: [kept.get(number) for number in sample.drawn[verdict]] for verdict in ("NG", "OK")}


def _note(sample: Sample, strata: dict[str, Stratum], t: Translate) -> str:
    """What the rates are of, and how they come about."""
    if not all(stratum.looked_at for stratum in strata.values() if stratum.total):
        return t("review.unknown_note")
    return t(
        "review.unbiased_note",
        since=_day(sample.since),
        until=_day(sample.at),
        total=f"{sum(sample.totals.values()):,}",
        ng_weight=_weight(strata["NG"]),
        ok_weight=_weight(strata["OK"]),
    )


def _looked(stratum: Stratum, t: Translate) -> str:
    key = "review.looked_unsure" if stratum.unsure else "review.looked"
    return t(key, wrong=stratum.wrong, n=stratum.looked_at, unsure=stratum.unsure)


def _weight(stratum: Stratum) -> str:
    """How many images of its verdict one that was looked at stands for."""
    return f"{stratum.total / stratum.looked_at:,.1f}" if stratum.looked_at else "–"


def _day(at: float) -> str:
    return datetime.datetime.fromtimestamp(at).strftime("%Y-%m-%d %H:%M")
