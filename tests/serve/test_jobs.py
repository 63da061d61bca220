"""Learning in the background: a model that gets better on the job, compared before it is taken, and gone back from."""

from __future__ import annotations

import importlib.util
import io
import json
import os
import re
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from servers import Server, Shop, encoded, serving, wait_for
from tests.contract.conftest import pictures
from tests.detectors.scenes import crosses, rings

import okng
from okng.errors import OkngError
from okng.inspection.inspector import Inspector
from okng.serve.jobs import SILENT, Workshop
from okng.serve.learning import learn
from okng.serve.models import Shelf
from okng.serve.paths import folder_below
from okng.serve.settings import Settings
from okng.store import Store


def begin(server: Server, **work: Any) -> Any:
    return server.client.post("/api/models/parts/jobs", json=work)


def ended(server: Server, job: int) -> dict[str, Any]:
    told: dict[str, Any] = wait_for(
        lambda: (found := server.client.get(f"/api/jobs/{job}").json())["state"] != "running" and found, 120
    )
    return told


def test_false_alarms_are_learnt_compared_taken_and_gone_back_from(store: Store, shop: Shop, tmp_path: Path) -> None:
    with serving(store, {"parts": shop.okng}, tmp_path / "models", keep="all") as server:
        files = [("images", (file.name, file.read_bytes())) for file in shop.files]
        told = {one["path"]: one for one in server.client.post("/api/batch", files=files).json()["results"]}
        ng = [one["id"] for one in told.values() if one["verdict"] == "NG"]
        alarms, defects = ng[:2], ng[2:]
        assert begin(server, kind="update", records=alarms).status_code == 422  # nobody has said that they are OK
        server.client.post("/api/reviews", json={"records": alarms, "said": "OK"})
        server.client.post("/api/reviews", json={"records": defects, "said": "NG"})
        assert begin(server, kind="update", records=[]).status_code == 422
        job = begin(server, kind="update", records=alarms).json()["id"]
        assert begin(server, kind="update", records=alarms).status_code == 409  # one at a time
        done = ended(server, job)
        assert done["state"] == "done", done
        comparison = done["told"]["comparison"]
        assert (comparison["old"], comparison["new"], comparison["images"]) == (1, 2, len(ng))
        assert comparison["learnt"] == {"OK→OK": 0, "OK→NG": 0, "NG→OK": 2, "NG→NG": 0}
        assert sum(comparison["counts"]["NG"].values()) == len(defects) and not any(comparison["counts"]["OK"].values())
        assert {one["record"] for one in comparison["changed"] if one["learnt"]} == set(alarms)
        alarm = next(file for file in shop.files if told[file.name]["id"] == alarms[0]).read_bytes()
        assert server.inspect(alarm).json()["version"] == 1  # not before it is taken
        server.client.post("/api/models/parts/take", json={"version": 2})
        again = server.inspect(alarm).json()
        assert (again["version"], again["verdict"]) == (2, "OK")
        assert server.client.post("/api/models/parts/take", json={"version": 1}).status_code == 200
        assert server.inspect(alarm).json()["verdict"] == "NG"
        assert "2 false alarms learnt" in [
            one["why"] for one in server.client.get("/api/models/parts").json()["versions"]
        ]
    assert [path.name for path in (tmp_path / "models").iterdir()] == ["parts"]  # nothing is left lying


def test_a_new_fit_learns_from_nothing_outside(store: Store, shop: Shop, tmp_path: Path) -> None:
    inside, outside = tmp_path / "allowed", tmp_path / "secret"
    for folder in (inside / "ok", inside / "led", outside):
        folder.mkdir(parents=True)
        (folder / "0.png").write_bytes(encoded(pictures(1, seed=5)[0]))
    (inside / "list.txt").write_text(f"{outside / '0.png'}\nhttp://127.0.0.1:1/a.png")
    (inside / "led/1.png").symlink_to(outside / "0.png")
    settings = Settings(tmp_path / "models", folders=(inside,))
    assert folder_below(settings, "ok") == (inside / "ok").resolve()
    for name in ("list.txt", "ok/0.png", "led"):
        with pytest.raises(OkngError, match=name):
            folder_below(settings, name)
    with serving(store, {"parts": shop.okng}, tmp_path / "models", folders=(inside,)) as server:
        assert "is a file" in begin(server, kind="fit", folder="list.txt").text
        assert 'name="rate"' not in server.client.get("/learn").text
        server.client.post("/api/models/parts/threshold", json={"threshold": 3.0})
        assert "set by hand" in begin(server, kind="fit", folder="ok").json()["error"]
        held_out = okng.load(shop.okng).calibration.scores
        for above, shown in ((0, ""), (3, f"{300 / len(held_out):.4g}")):  # what the form asks for unless it is changed
            threshold = float(held_out[-1 - above])
            server.client.post("/api/models/parts/threshold", json={"threshold": threshold})
            assert re.findall('name="rate"[^>]* value="([^"]*)" required', server.client.get("/learn").text) == [shown]
        assert not store.jobs.all()


def test_a_new_fit_keeps_tiles_zones_rules_and_promise_and_asks_for_a_rate(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "ok"
    folder.mkdir()
    for i, pixels in enumerate(pictures(8, seed=5)):
        (folder / f"{i}.png").write_bytes(encoded(pixels))
    rules = {
        "zones": [{"name": "label", "kind": "ignore", "points": [[0, 0], [0.5, 0], [0, 0.5]]}],
        "rules": [{"name": "large", "verdict": "NG", "min_area": 400}],
    }
    how: dict[str, Any] = {"size": 24, "tile": 32, "overlap": 8, "promise": "strict", "false_alarm_rate": 0.2}
    okng.fit(folder, "patchcore", weights="none", rules=rules, device="cpu", **how).save(tmp_path / "parts.okng")
    shelf = Shelf(store, tmp_path / "models", {}, print)
    shelf.give("parts", tmp_path / "parts.okng")
    workshop, tasks = Workshop(store, shelf, print), []
    monkeypatch.setattr(workshop, "_begin", lambda kind, name, asked, task, why, who: tasks.append(task))

    def fitted() -> Inspector:
        new = tmp_path / "new.okng"
        learn({**json.loads(json.dumps(tasks[-1])), "kind": "fit", "images": [], "new": str(new)}, io.StringIO())
        return okng.load(new)

    workshop.fit("parts", folder, "eve")
    old, new = shelf.get("parts").inspector, fitted()
    assert new.preprocess == old.preprocess and (new.preprocess.tile, new.preprocess.overlap) == (32, 8)
    assert new.rules == old.rules and new.rules.masks and new.manifest["detector"] == old.manifest["detector"]
    assert new.promise() == old.promise() and new.calibration.method == "split"
    shelf.change("parts", lambda present: present.with_threshold(1e9), "eve", "by hand")
    with pytest.raises(OkngError, match="set by hand; say which false-alarm rate"):
        workshop.fit("parts", folder, "eve")
    workshop.fit("parts", folder, "eve", 0.3)
    assert [task["false_alarm_rate"] for task in tasks] == [0.2, 0.3]


@pytest.mark.slow
def test_a_new_fit_and_jobs_that_are_killed_or_stopped(store: Store, shop: Shop, tmp_path: Path) -> None:
    folder = tmp_path / "ok"
    folder.mkdir()
    for i, pixels in enumerate(pictures(20, seed=5)):
        (folder / f"{i}.png").write_bytes(encoded(pixels))
    with serving(store, {"parts": shop.okng}, tmp_path / "models", folders=(tmp_path,)) as server:
        server.inspect(shop.image(7))
        server.client.post("/api/reviews", json={"records": [1], "said": "NG"})
        assert begin(server, kind="fit", folder="../").status_code == 422
        assert begin(server, kind="fit").status_code == 422  # nothing was reviewed as OK
        done = ended(server, begin(server, kind="fit", folder="ok").json()["id"])
        assert done["state"] == "done" and done["told"]["comparison"]["images"] == 1, done
        fitted = server.parts.shelf.load("parts", 2).inspector
        assert fitted.manifest["detector"] == server.parts.shelf.get("parts").inspector.manifest["detector"]
        job = begin(server, kind="compare", version=2).json()["id"]
        running = server.parts.workshop._running
        assert running is not None
        os.kill(running.process.pid, signal.SIGKILL)  # as when memory runs out
        assert ended(server, job)["state"] == "failed"
        job = begin(server, kind="compare", version=2).json()["id"]
        assert server.client.delete(f"/api/jobs/{job}").status_code == 204
        assert ended(server, job)["state"] == "stopped"
        assert server.client.delete(f"/api/jobs/{job}").status_code == 422
        job = begin(server, kind="compare", version=2).json()["id"]
    assert [(found.id, found.state) for found in store.jobs.all(limit=1)] == [(job, "stopped")]  # with the server
    assert [path.name for path in (tmp_path / "models").iterdir()] == ["parts"]  # nothing is left lying


def test_a_version_is_not_taken_uncompared(server: Server, shop: Shop, tmp_path: Path) -> None:
    other = tmp_path / "other.onnx"
    okng.load(shop.onnx).with_threshold(1e6).save(other)
    sent = server.client.post("/api/upload/parts", content=other.read_bytes(), params={"kind": "onnx"}).json()
    assert (sent["version"], sent["active"]) == (2, False)
    assert server.client.post("/api/models/parts/take", json={"version": 2}).status_code == 409
    for number in (1, 7):
        server.inspect(shop.image(number))
    server.client.post("/api/reviews", json={"records": [1, 2], "said": "OK"})
    done = ended(server, begin(server, kind="compare", version=2).json()["id"])
    assert done["told"]["comparison"]["counts"]["OK"] == {"OK→OK": 1, "OK→NG": 0, "NG→OK": 1, "NG→NG": 0}
    assert server.client.post("/api/models/parts/take", json={"version": 2}).json()["version"] == 2


def test_an_exported_model_does_not_learn_and_says_what_does(server: Server, shop: Shop) -> None:
    record = server.inspect(shop.image(7)).json()["id"]
    server.client.post("/api/reviews", json={"records": [record], "said": "OK"})
    answer = begin(server, kind="update", records=[record])
    assert answer.status_code == 422 and "serve the .okng file" in answer.json()["error"]


def test_one_of_several_products_is_compared_and_says_beforehand_what_it_can_not(store: Store, tmp_path: Path) -> None:
    file = tmp_path / "line.okng"
    both = {name: made(24, seed=1) for name, made in (("ring", rings), ("cross", crosses))}
    inspector = okng.fit(both, "knn", holdout=0.4, device="cpu")
    inspector.save(file)
    with serving(store, {"ring": file, "cross": file}, tmp_path / "models", keep="all") as server:

        def asked(**work: Any) -> Any:
            return server.client.post("/api/models/ring/jobs", json=work)

        record = server.inspect(encoded(rings(1, 3)[0]), model="ring").json()["id"]
        server.client.post("/api/reviews", json={"records": [record], "said": "OK"})
        for work in ({"kind": "update", "records": [record]}, {"kind": "fit"}):
            refused = asked(**work)
            assert refused.status_code == 422
            assert "ring is one of several products of a model, which does not learn here" in refused.json()["error"]
        page = server.client.get("/learn", params={"model": "ring"}).text
        assert "It is one of several products of a model" in page and "Fit a new model" not in page
        assert "Learn the chosen images" not in page
        server.parts.shelf.change("ring", lambda old: old.with_threshold(-1.0), "a test", "a test")
        server.parts.shelf.take("ring", 1, "a test", "back")
        done = ended(server, asked(kind="compare", version=2).json()["id"])
        assert done["state"] == "done", done
        told = done["told"]["comparison"]
        assert sum(count for verdicts, count in told["counts"]["OK"].items() if verdicts.endswith("→NG")) == 1
        assert told["old_promise"] == inspector.of("ring").promise()


def test_a_model_learns_images_of_its_own_alone(store: Store, shop: Shop, tmp_path: Path) -> None:
    with serving(store, {"left": shop.okng, "right": shop.okng}, tmp_path / "models", keep="all") as server:
        left, right = (server.inspect(shop.image(7), model=name).json()["id"] for name in ("left", "right"))
        server.client.post("/api/reviews", json={"records": [left, right], "said": "OK"})
        refused = server.client.post("/api/models/left/jobs", json={"kind": "update", "records": [left, right]})
        assert refused.status_code == 422 and not store.jobs.all()
        assert refused.json()["error"] == f"record {right} is of another model, right; choose images of this one"


def test_without_pytorch_learning_says_what_to_install(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "torch" else found(name, *a))
    answer = begin(server, kind="fit")
    assert answer.status_code == 501 and "pip install '.[train,serve]'" in answer.json()["error"]


def test_what_was_not_finished_is_found_stopped(store: Store, shop: Shop, tmp_path: Path) -> None:
    """Of this machine at once, of another one when it has been silent."""
    here = Workshop(store, None, print).server  # type: ignore[arg-type]
    host = here.rpartition("/")[0]
    alive = os.getppid()
    jobs = [
        store.jobs.add("fit", "parts", {}, "eve", server) for server in (here, f"{host}/999999999", f"{host}/{alive}")
    ]
    jobs += [store.jobs.add("fit", "parts", {}, "eve", "elsewhere/1") for _ in range(2)]
    store.jobs.tell(jobs[3], {"noted": 0.0})
    Workshop(store, None, print)  # type: ignore[arg-type]
    states = [job.state for job in (store.jobs.get(number) for number in jobs) if job is not None]
    assert states == ["stopped", "stopped", "running", "stopped", "running"] and SILENT > 10


def test_windows_is_not_asked_for_a_process_which_would_end_it(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(os, "kill", lambda *_: pytest.fail("os.kill ends a process on Windows"))
    here = Workshop(store, None, print).server  # type: ignore[arg-type]
    beside = f"{here.rpartition('/')[0]}/{os.getppid()}"
    own, silent, lively = (store.jobs.add("fit", "parts", {}, "eve", server) for server in (here, beside, beside))
    store.jobs.tell(silent, {"noted": 0.0})
    Workshop(store, None, print)  # type: ignore[arg-type]
    states = [job.state for job in (store.jobs.get(number) for number in (own, silent, lively)) if job is not None]
    assert states == ["stopped", "stopped", "running"]
