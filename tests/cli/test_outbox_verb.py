"""`okng outbox` as a person uses it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("sqlalchemy", reason="the extra `serve` is not installed")

from okng.cli import app
from okng.errors import OkngError
from okng.inspection.verdict.result import Inspection
from okng.line.sinks import KINDS
from okng.store import ModelUsed, Store

SEEN = Inspection(0, "a.png", 1.0, 0.5, "OK", (8, 8), None, (), {})


def test_what_the_store_holds_is_shown_sent_again_and_dropped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = tmp_path / "line.sqlite"

    def outbox(*words: str) -> str:
        app(["outbox", "--store", str(where), *words], standalone_mode=False)
        out, err = capsys.readouterr()
        return out + err

    with pytest.raises(OkngError, match="there is no store"):
        outbox()
    assert not where.exists()
    store = Store.open(where)
    for _ in range(3):
        store.record(SEEN, model=ModelUsed("parts", "d", 2.0), source="test", digest="d", sinks=("old", "web"))
    store.deliveries.set_aside("it answers 422", store.deliveries.pending("web")[0].id)
    assert outbox().splitlines()[:4] == [
        "old: 3 wait", "old: 0 set aside", "web: 2 wait", "web: 1 set aside (it answers 422)",
    ]  # fmt: skip
    assert json.loads(outbox("--json"))["web"]["set_aside"] == {"count": 1, "why": "it answers 422"}
    with pytest.raises(OkngError, match="holds nothing for 'wev'; did you mean web"):
        outbox("--drop", "wev")
    assert "1 messages wait for web again" in outbox("--again", "web")
    assert "3 messages for old are dropped" in outbox("--drop", "old")
    assert store.deliveries.waiting() == {"web": (3, "it answers 422")}
    assert [entry.what for entry in store.audit.entries(2)] == ["deliveries dropped", "deliveries sent again"]
    store.close()


def test_every_sink_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    app(["list", "sinks", "--json"], standalone_mode=False)
    listed = json.loads(capsys.readouterr().out)
    assert {name.partition(":")[0] for name in listed} == KINDS.keys() - {"mqtts"}
    assert "mqtts" in listed["mqtt://BROKER/TOPIC"]
