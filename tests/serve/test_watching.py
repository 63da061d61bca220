"""Drift on the server: every record once, in order, over restarts, and what a page says of it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from okng.inspection.inspector import Inspector
from okng.inspection.reading.images import Preprocess
from okng.inspection.verdict.calibration import Calibration
from okng.inspection.verdict.likeness import Traits
from okng.inspection.verdict.result import Inspection
from okng.serve.models import Loaded
from okng.serve.pages.drifting import state, whole
from okng.serve.pages.words import translator
from okng.serve.watching import KEPT_EVERY, POINTS, Watcher
from okng.store import Store
from okng.store.models import Version
from okng.store.records import NewRecord

T = translator("en")
OK = np.random.default_rng(4).normal(size=300)
SAMPLES = {"brightness": (100 + 5 * OK).tolist(), "sharpness": (1 + 0.1 * OK).tolist()}


class Shelf:
    """One version of one model, that was calibrated on `OK`; what a `Watcher` asks of the real one."""

    def __init__(self) -> None:
        calibration = Calibration.fit(OK, None, "split", 0.05)
        manifest = {"learnt_images": {"samples": SAMPLES}}
        inspector = Inspector(None, Preprocess("RGB", 64), calibration, manifest)  # type: ignore[arg-type]
        self.loaded = Loaded(Version(1, "parts", 1, "a shelf's", "f", 0.0, "test", ""), inspector)

    def names(self) -> list[str]:
        return ["parts"]

    def get(self, name: str) -> Loaded:
        return self.loaded


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store.open(tmp_path / "okng.sqlite")
    yield opened
    opened.close()


def fill(store: Store, count: int, seed: int, brighter: float = 0.0) -> None:
    """Records of a stable line, or one whose lamp has changed."""
    rng = np.random.default_rng(seed)
    loaded = Shelf().loaded
    new = []
    for score, light, detail in rng.normal(size=(count, 3)).tolist():
        traits = Traits((8, 8), False, 255, "PNG", 100 + 5 * light + brighter, 1 + 0.1 * detail)
        inspection = Inspection(0, "a.png", score, 0.5, "OK", (8, 8), None, (), {}, (), traits)
        new.append(NewRecord(inspection, loaded.used, "test", "d"))
    store.record_all(new)


def watcher(store: Store, said: list[str] | None = None) -> Watcher:
    return Watcher(store, Shelf(), (said if said is not None else []).append)  # type: ignore[arg-type]


def test_each_record_counts_once_also_after_a_restart(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(store, 300, seed=1)
    first = watcher(store)
    first.look("parts")
    fill(store, 40, seed=2)
    expected = first.look("parts").state  # what was kept is of 300, as if it had been killed now
    assert expected.count == 340
    again = watcher(store)
    assert again.look("parts").state == expected and again.look("parts").state == expected


def test_what_retention_left_is_no_line(store: Store) -> None:
    """Of a time of which unreviewed records are gone, those left were reviewed for being odd."""
    fill(store, 300, seed=1)
    oddest, _ = store.records.page(order="oddest", limit=60)
    store.reviews.add([record.id for record in oddest], "OK", "kim")
    assert store.retention.keep(days=1e-9) == 240
    there = watcher(store)
    assert there.look("parts").state.count == 0
    fill(store, 40, seed=2)
    watch = there.look("parts")
    assert watch.state.count == 40 and not watch.state.drifted


def test_a_darker_lamp_raises_an_alarm_that_says_so_and_is_begun_anew(store: Store) -> None:
    said: list[str] = []
    there = watcher(store, said)
    fill(store, 10, seed=1)
    assert state(there.look("parts"), T)["state"] == "unknown"
    fill(store, 390, seed=3)
    shown = whole(there.look("parts"), T)
    assert shown["state"] == "steady" and shown["advice"] == [] and said == []
    fill(store, 150, seed=4, brighter=-10)
    there.look_at_all()
    shown = whole(there.look("parts"), T)
    assert shown["state"] == "alarm" and len(said) == 1 and "darker" in said[0]
    assert shown["advice"] == [T("drift.look_light")]
    charts = {chart["name"]: chart for chart in shown["charts"]}
    assert {name: chart["state"] for name, chart in charts.items()} == {
        "score": "in_range", "brightness": "below", "sharpness": "in_range",
    }  # fmt: skip
    light = charts["brightness"]
    assert light["text"] == T("drift.brightness_less")
    assert (
        light["curve"][-1][1] < light["line"] < charts["sharpness"]["curve"][-1][1]
    )  # above the alarm's line, from the top
    other = watcher(store)
    other.look("parts")
    there.restart("parts", "kim")
    assert there.look("parts").state.count == 0 and not there.look("parts").state.drifted
    other._watches["parts", next(iter(other._watches))[1]].kept = time.monotonic() - 2 * KEPT_EVERY
    assert other.look("parts").state.count == 0  # another server on the same store begins anew, too
    assert store.audit.entries()[0].what == "drift begun anew" and store.audit.entries()[0].who == "kim"
    fill(store, 30, seed=5)
    assert there.look("parts").state.count == 30


def test_the_curve_stays_small_and_even(store: Store) -> None:
    fill(store, 900, seed=6)
    watch = watcher(store).look("parts")
    assert watch.state.count == 900
    assert POINTS <= len(watch.curve) < 2 * POINTS
    assert {b[0] - a[0] for a, b in zip(watch.curve, watch.curve[1:], strict=False)} == {watch.every}
