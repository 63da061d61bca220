"""Looking up, reviewing, exporting; figures."""

from __future__ import annotations

import csv
import io
import re
import time
from pathlib import Path
from typing import Any

import pytest
from servers import Server, Shop, serving, wait_for
from tests.store.stores import MODEL, inspection, postgres

from okng.serve.pages.views import Recently, how_far
from okng.serve.pages.words import translator
from okng.store import Store
from okng.store.records import NewRecord


def test_results_are_found_paged_and_reviewed(server: Server, shop: Shop) -> None:
    check_results(server, shop)


def test_the_same_on_postgresql(shop: Shop, tmp_path: Path) -> None:
    with postgres() as url:
        store = Store.open(url)
        with serving(store, {"parts": shop.onnx}, tmp_path / "models", keep="all") as server:
            check_results(server, shop)
        store.close()


def check_results(server: Server, shop: Shop) -> None:
    client = server.client
    files = [("images", (file.name, file.read_bytes())) for file in shop.files]
    told = client.post("/api/batch", files=files).json()["results"]
    ng = sorted(one["id"] for one in told if one["verdict"] == "NG")

    def get(**query: Any) -> list[int]:
        answer = client.get("/api/results", params=query)
        assert answer.status_code == 200, answer.text
        return [one["id"] for one in answer.json()["results"]]

    assert get(verdict="NG", order="oldest") == ng and get(model="none") == []
    assert get(text="7.png") == [next(one["id"] for one in told if one["path"] == "7.png")]
    page = client.get("/api/results", params={"order": "oddest", "limit": 5}).json()
    rest = client.get("/api/results", params={"order": "oddest", "limit": 500, "cursor": page["cursor"]}).json()
    scores = [one["score"] for one in [*page["results"], *rest["results"]]]
    assert scores == sorted((one["score"] for one in told), reverse=True) and rest["cursor"] is None
    assert client.get("/api/results/tally", params={"verdict": "NG"}).json() == {"OK": 0, "NG": len(ng)}

    reviews = client.post("/api/reviews", json={"records": ng[:3], "said": "OK"}).json()["reviews"]
    assert get(review="OK", order="oldest") == ng[:3] and len(get(review="none")) == len(told) - 3
    client.post("/api/reviews/undo", json={"reviews": reviews[:1]})
    assert get(review="any", order="oldest") == ng[1:3]
    assert [row["said"] for row in client.get(f"/api/reviews/{ng[0]}").json()] == ["OK", None]
    assert client.post("/api/reviews", json={"records": [10**9], "said": "OK"}).status_code == 404
    assert client.post("/api/reviews/undo", json={"reviews": reviews[:1]}).status_code == 422

    rows = list(csv.DictReader(io.StringIO(client.get("/api/results/export").text)))
    told.sort(key=lambda one: one["id"])  # a batch is answered in its order, and worked on as it comes
    assert [row["path"] for row in rows] == [one["path"] for one in told]
    assert [float(row["score"]) for row in rows] == [one["score"] for one in told]
    assert [row["review"] for row in rows].count("OK") == 2
    parquet = pytest.importorskip("pyarrow.parquet")
    table = parquet.read_table(io.BytesIO(client.get("/api/results/export", params={"format": "parquet"}).content))
    assert table["score"].to_pylist() == [one["score"] for one in told]
    assert table["verdict"].to_pylist() == [one["verdict"] for one in told]
    assert client.get("/api/results/0").status_code == client.get("/api/results/1/nothing").status_code - 18 == 404
    assert client.get("/api/result").json()["error"] == "there is nothing at /api/result; /docs lists all addresses"
    assert client.delete("/api/results").json()["error"] == "the address /api/results takes GET, not DELETE"
    refused = client.put("/api/accounts")  # which has two routes
    assert refused.json()["error"] == "the address /api/accounts takes GET, POST, not PUT"
    assert refused.headers["Allow"] == "GET, POST" and "GET" in client.put("/openapi.json").headers["Allow"]


def test_pictures_are_had(server: Server, shop: Shop) -> None:
    record = server.inspect(shop.image(7)).json()["id"]
    kinds = {"thumbnail": "image/jpeg", "heat": "image/png", "image": "application/octet-stream"}
    for picture, kind in kinds.items():
        answer = server.client.get(f"/api/results/{record}/{picture}")
        assert answer.status_code == 200 and answer.headers["content-type"] == kind
    assert answer.content == shop.image(7)


def test_what_is_too_old_goes_and_figures_are_told(server: Server, shop: Shop) -> None:
    for number in (1, 7):
        server.inspect(shop.image(number))
    server.inspect(b"garbage")
    lines = server.client.get("/metrics").text.splitlines()
    assert 'okng_inspections_total{model="parts",verdict="NG"} 1.0' in lines
    assert "okng_unreadable_total 1.0" in lines and "okng_requests_inside 0.0" in lines
    assert 'okng_model_version{model="parts"} 1.0' in lines
    assert server.client.get("/health").json() == server.client.get("/ready").json() == {"status": "ok", "problems": {}}


def test_what_takes_long_is_found_out_once_for_all_who_ask(
    server: Server, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counts of the live pages and the size in the metrics go through many records; the newest image is always new."""
    tallied, sized = [], []
    tally, size = server.store.records.tally, server.store.retention.size
    monkeypatch.setattr(server.store.records, "tally", lambda which: tallied.append(which) or tally(which))
    monkeypatch.setattr(server.store.retention, "size", lambda: sized.append(1) or size())
    object.__setattr__(server.parts, "recently", Recently(600))
    for number in range(3):
        record = server.inspect(shop.image(number)).json()
        kept = f"{record['id']}?of={record['digest'][:8]}"  # so that a browser shows none of another store's
        page = server.client.get("/live/now")
        assert page.status_code == 200 and f"/pictures/{kept}" in page.text
        server.client.get("/metrics")
    assert len(tallied) == 3 and len(sized) == 1  # three counters of one look
    again = Recently(0)
    assert [again.get("parts", iter([number]).__next__) for number in range(3)] == [0, 1, 2]


def test_the_store_is_cut_back_as_soon_as_it_may_be_too_large(
    store: Store, shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is looked at once in ten minutes, and whenever a fiftieth of --keep-gb was written."""
    monkeypatch.setattr("okng.serve.app.REFRESH", 0.05)
    with serving(store, {"parts": shop.onnx}, tmp_path / "models", keep_gb=1e-4) as server:
        time.sleep(0.3)  # the look with which it begins
        new = [NewRecord(inspection(), MODEL, "test", "d", image=b"x" * 10_000)] * 10
        for _ in range(3):
            store.record_all(new)
            wait_for(lambda: store.retention.size() <= 100_000, 10)
        assert 5 <= server.count() < 10 and any("removed by age or size" in line for line in server.said)


def test_a_records_page_measures_it_by_its_own_model(store: Store, shop: Shop, tmp_path: Path) -> None:
    """Not by the first one, where the address names none, nor by another that it names."""
    with serving(store, {"a": shop.onnx, "b": shop.onnx}, tmp_path / "models") as server:
        server.parts.shelf.change("b", lambda present: present.with_threshold(1e6), "test", "")
        number = server.inspect(shop.image(7), model="b").json()["id"]
        pages = [server.client.get(f"/results/{number}", params=asked).text for asked in ({}, {"model": "a"})]
        pages = [re.findall(r'<p class="muted">(.*?)</p>', page)[0] for page in pages]
        score = store.records.several([number])[number].score
        calibration = server.parts.shelf.get("b").inspector.calibration
        assert pages == [how_far(score, calibration, translator("en"))] * 2
