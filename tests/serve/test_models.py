"""Models by name and version: changed, replaced, gone back to and shared, while they serve."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import threading
from pathlib import Path
from typing import Any, NoReturn

import httpx
import pytest
import torch
from servers import Server, Shop, serving, wait_for

import okng
from okng.errors import OkngError
from okng.serve.models import Shelf
from okng.store import Store, StoreError


def test_a_threshold_is_a_version_whose_file_gives_the_same_verdicts(
    server: Server, shop: Shop, tmp_path: Path
) -> None:
    told = server.inspect(shop.image(7)).json()
    threshold = told["score"] + 1
    asked = server.client.get("/api/models/parts/promise", params={"threshold": threshold}).json()
    assert server.client.get("/api/models/parts").json()["version"] == 1  # asking changes nothing
    model = server.client.post("/api/models/parts/threshold", json={"threshold": threshold}).json()
    assert model["version"] == 2 and model["promise"] == asked["promise"] and "by hand" in model["promise"]
    again = server.inspect(shop.image(7)).json()
    assert (told["verdict"], again["verdict"], again["version"]) == ("NG", "OK", 2)
    file = tmp_path / "version.onnx"
    file.write_bytes(server.client.get("/api/models/parts/versions/2/file").content)
    (seen,) = okng.load(file, threads=1).inspect(shop.images / "7.png")
    assert (seen.verdict, seen.p_value) == ("OK", again["p_value"])
    assert server.client.post("/api/models/parts/take", json={"version": 1}).json()["version"] == 1  # one click back
    assert server.inspect(shop.image(7)).json()["verdict"] == "NG"
    for wrong in ({}, {"threshold": 1, "false_alarm_rate": 0.1}, {"false_alarm_rate": 0}, {"false_alarm_rate": 1.5}):
        assert server.client.post("/api/models/parts/threshold", json=wrong).status_code == 422
    assert server.client.post("/api/models/none/threshold", json={"threshold": 1}).status_code == 404
    assert server.client.post("/api/models/parts/take", json={"version": 9}).status_code == 422


def test_rules_are_a_version_too(server: Server, shop: Shop) -> None:
    before = server.inspect(shop.image(7)).json()
    dust = {"name": "dust", "verdict": "OK", "max_area": 1e9}
    model = server.client.post("/api/models/parts/rules", json={"rules": [dust]}).json()
    assert model["version"] == 2 and model["rules"]["rules"][0]["name"] == "dust"
    told = server.inspect(shop.image(7)).json()
    assert (before["verdict"], told["verdict"]) == ("NG", "OK") and "dust" in told["reasons"][0]
    assert {region["rule"] for region in told["regions"]} == {"dust"}
    wrong = server.client.post("/api/models/parts/rules", json={"rules": [{"name": "x"}]})
    assert wrong.status_code == 422 and "the verdict of rule 'x'" in wrong.json()["error"]


def test_a_model_is_replaced_while_it_serves(store: Store, shop: Shop, tmp_path: Path) -> None:
    """Every answer is of one version or the other, whole; a broken file changes nothing and is told of."""
    given = tmp_path / "parts.onnx"
    given.write_bytes(shop.onnx.read_bytes())
    with serving(store, {"parts": given}, tmp_path / "models") as server:
        ending, answers = threading.Event(), []

        def ask() -> None:
            with httpx.Client(base_url=server.url, timeout=60) as client:
                while not ending.is_set():
                    answers.append(client.post("/api/inspect", content=shop.image(7)))

        asking = [threading.Thread(target=ask) for _ in range(3)]
        for thread in asking:
            thread.start()
        okng.load(shop.onnx).with_threshold(1e6).save(given)
        wait_for(lambda: server.parts.shelf.get("parts").version.version == 2)
        wait_for(lambda: answers and answers[-1].json()["version"] == 2)
        given.write_bytes(b"half a mod")
        line = wait_for(lambda: server.client.get("/ready").json()["problems"].get("parts"))
        assert "version 2 goes on" in line and server.client.get("/ready").status_code == 200
        given.unlink()
        given.write_bytes(shop.onnx.read_bytes())  # known: whoever wants it back takes it
        ending.set()
        for thread in asking:
            thread.join()
        assert {answer.status_code for answer in answers} == {200}
        of = {(a.json()["version"], a.json()["verdict"], a.json()["threshold"] == 1e6) for a in answers}
        assert of == {(1, "NG", False), (2, "OK", True)}


def test_a_replaced_file_waits_for_a_disk_or_store_that_is_full(
    store: Store, shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = tmp_path / "parts.onnx"
    given.write_bytes(shop.onnx.read_bytes())
    said: list[str] = []
    shelf = Shelf(store, tmp_path / "models", {}, said.append)
    shelf.give("parts", given)

    def full(*_: Any) -> NoReturn:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    okng.load(shop.onnx).with_threshold(1e6).save(given)
    with Store.open(store.name).writing():  # another program
        monkeypatch.setattr(store.models, "all_active", dict)  # which waits for the lock as well
        shelf.refresh()
    monkeypatch.undo()
    assert "was locked" in shelf.problems["parts"] and shelf.get("parts").version.version == 1
    with monkeypatch.context() as now:
        now.setattr(os, "fsync", full)
        shelf.refresh()
        assert "No space left" in shelf.problems["parts"] and "version 1 goes on" in shelf.problems["parts"]
        with pytest.raises(StoreError, match="No space left"):
            Shelf(store, tmp_path / "others", {}, said.append).give("new", given)
        with pytest.raises(StoreError, match="make room"):
            shelf.change("parts", lambda present: present.with_threshold(2.0), "test", "")
    shelf.refresh()
    assert shelf.get("parts").version.version == 2 and shelf.problems == {}
    given.write_bytes(b"half a mod")
    shelf.refresh()
    assert f"{given} is no ONNX file" in shelf.problems["parts"]
    monkeypatch.setattr(shelf, "_take_over", full)
    shelf.refresh()  # the file's own fault: it is not looked at again
    assert f"{given} is no ONNX file" in shelf.problems["parts"] and len(said) == len(set(said))


def test_a_file_waits_for_memory(
    server: Server, store: Store, shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A GPU that another program has filled: torch's error is none of the file, nor of the device."""
    given = tmp_path / "later.okng"
    given.write_bytes(shop.okng.read_bytes())
    shelf = Shelf(store, tmp_path / "models", {}, lambda _: None)
    shelf.give("later", given)
    okng.load(shop.okng).with_threshold(1e6).save(given)

    def full(*_: Any) -> NoReturn:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 MiB.\nGPU 0 has none free")

    with monkeypatch.context() as now:
        now.setattr(torch.nn.Module, "to", full)
        shelf.refresh()
        problem = shelf.problems["later"]
        assert problem.startswith(f"there is not enough memory to open {given} (CUDA out of memory.")
        uploaded = server.client.post("/api/upload/later", content=given.read_bytes())
        assert uploaded.status_code == 503 and "free some and try again" in uploaded.json()["error"]
    shelf.refresh()
    assert shelf.get("later").version.version == 2 and shelf.problems == {}


def test_a_replaced_file_is_taken_though_the_store_failed_in_the_middle(
    store: Store, shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its version was kept, and not yet the active one."""
    given = tmp_path / "parts.onnx"
    given.write_bytes(shop.onnx.read_bytes())
    shelf = Shelf(store, tmp_path / "models", {}, lambda _: None)
    shelf.give("parts", given)
    okng.load(shop.onnx).with_threshold(1e6).save(given)

    def locked(*_: Any) -> NoReturn:
        raise StoreError("the store was locked")

    with monkeypatch.context() as now:
        now.setattr(store.models, "choose", locked)
        shelf.refresh()
    assert "was locked" in shelf.problems["parts"] and shelf.get("parts").version.version == 1
    assert len(store.models.versions("parts")) == 2
    shelf.refresh()
    assert shelf.get("parts").version.version == 2 and shelf.problems == {}


def test_a_version_is_on_disk_before_the_store_knows_of_it(
    store: Store, shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that was never synchronised may be empty after a power cut."""
    synchronised: set[int] = set()
    fsync, add = os.fsync, store.models.add

    def noted(number: int) -> None:
        fsync(number)
        synchronised.add(os.fstat(number).st_ino)

    def known(name: str, digest: str, file: str, *rest: str) -> Any:
        assert (tmp_path / "models" / file).stat().st_ino in synchronised, rest
        return add(name, digest, file, *rest)

    monkeypatch.setattr(os, "fsync", noted)
    monkeypatch.setattr(store.models, "add", known)
    with serving(store, {"parts": shop.onnx}, tmp_path / "models") as server:
        sent = server.client.post("/api/upload/parts", content=shop.okng.read_bytes())
        assert sent.json()["version"] == 2
        server.client.post("/api/models/parts/threshold", json={"threshold": 3.0})
        assert len(store.models.versions("parts")) == 3


def test_what_was_chosen_stays_over_a_restart(store: Store, shop: Shop, tmp_path: Path) -> None:
    with serving(store, {"parts": shop.onnx}, tmp_path / "models") as server:
        server.client.post("/api/models/parts/threshold", json={"false_alarm_rate": 0.2})
    with serving(store, {"parts": shop.onnx}, tmp_path / "models") as server:
        assert server.client.get("/api/models/parts").json()["version"] == 2
        assert any("version 2 is active" in line and "is version 1" in line for line in server.said)
    with serving(store, {}, tmp_path / "models") as server:  # without naming it, too
        assert server.inspect(shop.image(1)).json()["version"] == 2


def test_a_model_of_any_name_can_be_changed(store: Store, shop: Shop, tmp_path: Path) -> None:
    """Given so, and of a store whose versions still have the ending that a person gave."""
    given, kept = tmp_path / "given.model", tmp_path / "models" / "kept" / "1.model"
    kept.parent.mkdir(parents=True)
    for file in (given, kept):
        file.write_bytes(shop.okng.read_bytes())
    store.models.add("kept", hashlib.sha256(kept.read_bytes()).hexdigest(), "kept/1.model", "a person", "")
    store.models.choose("kept", 1, "a person", "")
    with serving(store, {"given": given}, tmp_path / "models") as server:
        for name in ("given", "kept"):
            told = server.client.post(f"/api/models/{name}/threshold", json={"false_alarm_rate": 0.2}).json()
            assert told["version"] == 2 and Path(store.models.get(name, 2).file).suffix == ".okng"


def test_two_servers_share_a_store(store: Store, shop: Shop, tmp_path: Path) -> None:
    other_store = Store.open(store.name)
    with (
        serving(store, {"parts": shop.onnx}, tmp_path / "models") as one,
        serving(other_store, {"parts": shop.onnx}, tmp_path / "models") as other,
    ):
        ids = [server.inspect(shop.image(i)).json()["id"] for i in range(3) for server in (one, other)]
        assert ids == sorted(set(ids))
        assert one.client.get(f"/api/results/{ids[1]}").json()["id"] == ids[1]
        one.client.post("/api/models/parts/threshold", json={"false_alarm_rate": 0.2})
        wait_for(lambda: other.inspect(shop.image(1)).json()["version"] == 2, 10)
        assert len(store.models.versions("parts")) == 2
    other_store.close()


def test_what_can_not_be_served_is_one_line(store: Store, shop: Shop, tmp_path: Path) -> None:
    for models, line in (
        ({}, "there is no model to serve"),
        ({"parts": tmp_path / "none.onnx"}, "does not exist"),
        ({"a/b": shop.onnx}, "a model's name has"),
        ({"parts": shop.images / "1.png"}, "is no okng model file"),
    ):
        with pytest.raises(OkngError, match=line), serving(store, models, tmp_path / "models"):
            pass


def test_what_stands_in_the_way_of_a_form_is_said_in_the_readers_language(server: Server, shop: Shop) -> None:
    inspected = server.inspect(shop.image(0)).json()["id"]
    zone = {"name": "a", "points": [[0, 0], [1, 1], [1, 0], [0, 1]]}
    forms: list[tuple[str, dict[str, str], str]] = [
        ("threshold", {"threshold": "much"}, "숫자가"),
        ("threshold", {"rate": "140"}, "1.4"),
        ("threshold", {"threshold": "inf"}, "유한한"),
        ("learn/update", {"image": str(inspected)}, "내보낸 모델"),
        ("learn/fit", {"folder": "/etc"}, "폴더 아래에"),
        ("learn/fit", {}, "폴더를 지정하세요"),
        ("learn/compare", {"version": "7"}, "버전 7"),
        ("learn/stop", {"job": "3"}, "작업 3"),
        ("review", {"image": str(inspected), "answer": "perhaps"}, "하나를 고르세요"),
        ("review", {"image": "99999", "answer": "ok"}, "99999"),
        ("review/sample", {"size": "1", "days": "7"}, "2~2000장"),
        ("rules", {"rules": json.dumps({"zones": [zone]})}, "엇갈립니다"),
        ("rules/preview", {"rules": "{"}, "다시 불러오세요"),
    ]
    for page, form, words in forms:
        answer = server.client.post(f"/{page}", data=form, headers={"Accept": "text/html", "Accept-Language": "ko"})
        problem = re.search(r'<p class="stopped"[^>]*>(.*?)</p>', answer.text, re.DOTALL)
        assert answer.status_code == 400 and problem is not None, (page, answer.status_code)
        assert words in problem[1], (page, problem[1])
        english = server.client.post(f"/{page}", data=form, headers={"Accept": "text/html", "Accept-Language": "en"})
        assert english.status_code == 400 and not re.search("[가-힣]", re.sub("한국어", "", english.text)), page
