"""Unasked nobody gets in: an attempt at every rule."""

from __future__ import annotations

import json
import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from fastapi.routing import APIRoute
from servers import Server, Shop, serving, wait_for

from okng.errors import OkngError
from okng.serve.queue import display_name
from okng.serve.security import OPEN, is_loopback, safe_host
from okng.store import Store
from okng.store.accounts import ROLES


@pytest.fixture(scope="module")
def guarded(shop: Shop, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, dict[str, str]]]:
    """A server with a token for each role, by role."""
    root = tmp_path_factory.mktemp("guarded")
    store = Store.open(root / "okng.sqlite")
    tokens = {role: store.accounts.add(f"{role}er", role, "test") for role in ROLES}
    with serving(store, {"parts": shop.onnx}, root / "models", keep="all", folders=(shop.images,)) as server:
        yield server, tokens
    store.close()


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def routes(server: Server) -> list[tuple[str, str]]:
    """(method, path) of everything there is, ids filled in."""
    found = []
    for path, methods in server.app.openapi()["paths"].items():
        filled = re.sub(r"\{name\}", "parts", re.sub(r"\{picture\}", "image", path))
        found += [(method.upper(), re.sub(r"\{\w+\}", "1", filled)) for method in methods]
    return found


LEAST = {
    "inspect": {"/api/inspect", "/api/batch", "/metrics", "/docs", "/api/whoami", "/api/logout"},
    "review": {"/api/results", "/api/reviews"},
    "admin": {"/api/jobs", "/api/audit", "/api/accounts", "/api/upload"},
}


def least(method: str, path: str) -> str:
    """The role that a route takes."""
    if path.startswith("/api/models"):
        return "admin" if method != "GET" or path.endswith("/file") else "inspect"
    return next(role for role, starts in LEAST.items() if any(path.startswith(start) for start in starts))


def test_every_route_takes_a_token_and_the_role_it_should(guarded: tuple[Server, dict[str, str]]) -> None:
    server, tokens = guarded
    with httpx.Client(base_url=server.url) as client:
        asked = [(method, path) for method, path in routes(server) if path not in OPEN]
        assert len(asked) > 20
        for method, path in asked:
            for wrong in ({}, bearer("okng_guess"), {"Cookie": "okng_session=guess"}, {"Authorization": "Basic YTpi"}):
                answer = client.request(method, path, headers=wrong)
                assert answer.status_code == 401, (method, path, wrong)
            needed = ROLES.index(least(method, path))
            for role in ROLES[:needed]:
                assert client.request(method, path, headers=bearer(tokens[role])).status_code == 403, (method, path)
            if method != "DELETE" and path != "/api/logout":
                answer = client.request(method, path, headers=bearer(tokens[ROLES[needed]]))
                assert answer.status_code not in (401, 403, 500), (method, path)
    assert server.count() == 0  # nothing of all that was inspected


def test_every_route_is_listed(guarded: tuple[Server, dict[str, str]]) -> None:
    """One that is left out of the OpenAPI page would be left out of the test above."""
    server, _ = guarded
    for route in server.app.routes:
        if isinstance(route, APIRoute):
            assert route.include_in_schema
    client = httpx.Client(base_url=server.url)
    assert client.get("/openapi.json").status_code == 401
    assert client.get("/nothing").status_code == 401  # not even what there isn't
    assert client.get("/results", headers={"Accept": "text/html"}).headers["location"] == "/login?next=/results"


def test_a_removed_account_is_out(guarded: tuple[Server, dict[str, str]]) -> None:
    server, _ = guarded
    token = server.store.accounts.add("guest", "inspect", "test")
    asks = {"headers": bearer(token)}
    assert server.client.get("/api/whoami", **asks).json()["name"] == "guest"  # type: ignore[arg-type]
    server.store.accounts.remove("guest", "test")
    wait_for(lambda: server.client.get("/api/whoami", **asks).status_code == 401, 5)  # type: ignore[arg-type]


def test_a_browser_logs_in_and_its_changes_bring_the_pages_token(guarded: tuple[Server, dict[str, str]]) -> None:
    server, tokens = guarded
    with httpx.Client(base_url=server.url) as browser:
        assert browser.post("/api/login", json={"token": "okng_guess"}).status_code == 401
        answer = browser.post("/api/login", json={"token": tokens["admin"]})
        cookie = answer.headers["set-cookie"].lower()
        assert "httponly" in cookie and "samesite=strict" in cookie and tokens["admin"] not in cookie
        csrf = answer.json()["csrf"]
        assert browser.get("/api/whoami").json() == {"name": "adminer", "role": "admin", "csrf": csrf}
        change = {"json": {"name": "eve", "role": "admin"}}
        for headers in (
            {},
            {"X-CSRF-Token": "guess"},
            {"X-CSRF-Token": ""},
            {"X-CSRF-Token": csrf, "Origin": "http://evil"},
        ):
            assert browser.post("/api/accounts", headers=headers, **change).status_code == 403  # type: ignore[arg-type]
        own = {"X-CSRF-Token": csrf, "Origin": server.url}
        assert browser.post("/api/accounts", headers=own, **change).status_code == 200  # type: ignore[arg-type]
        server.store.accounts.remove("eve", "test")
        secret = browser.cookies["okng_session"]
        assert browser.post("/api/logout", headers=own).status_code == 204
        again = {"Cookie": f"okng_session={secret}"}
        wait_for(lambda: httpx.get(f"{server.url}/api/whoami", headers=again).status_code == 401, 5)


def test_without_a_token_only_this_machines_own_pages_change_anything(server: Server, shop: Shop) -> None:
    """Any site that the person visits can send a request to loopback; it must do nothing."""
    content = shop.image(1)
    host = server.url.removeprefix("http://")
    for headers in (
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": f"http://{host}.evil.example"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ):
        answer = server.client.post("/api/inspect", content=content, headers=headers)
        assert answer.status_code == 403 and server.count() == 0
    for headers in ({"Origin": server.url, "Sec-Fetch-Site": "same-origin"}, {}):
        assert server.client.post("/api/inspect", content=content, headers=headers).status_code == 200


def test_what_a_proxy_hands_on_is_nobodys(server: Server) -> None:
    """Who puts a proxy before a server without tokens has not let everybody in by that."""
    for header in ("X-Forwarded-For", "Forwarded", "Via", "X-Real-IP", "X-Forwarded-Host"):
        assert server.client.get("/api/models", headers={header: "10.0.0.9"}).status_code == 401, header
    assert server.client.get("/api/models", headers={"Host": "10.0.0.5:8000"}).status_code == 401
    assert server.client.get("/health", headers={"X-Forwarded-For": "10.0.0.9"}).status_code == 200
    assert server.client.get("/api/models").status_code == 200
    token = server.store.accounts.add("eve", "admin", "test")
    through = {"X-Forwarded-For": "10.0.0.9", "Host": "10.0.0.5", **bearer(token)}
    assert wait_for(lambda: server.client.get("/api/models", headers=through).status_code == 200, 5)


def test_the_rules_page_reads_no_file_of_the_servers(server: Server, tmp_path: Path) -> None:
    """Rules in Python may be the name of a file; what a browser sends is never one."""
    secret = tmp_path / "rules.json"
    secret.write_text(json.dumps({"zones": [], "rules": [{"name": "hush", "verdict": "OK", "max_area": 3}]}))
    for where in ("/rules", "/rules/preview"):
        answer = server.client.post(where, data={"rules": json.dumps(str(secret))}, follow_redirects=True)
        assert answer.status_code == 400 and "hush" not in answer.text, where
    assert server.parts.shelf.get("parts").version.version == 1


def test_a_large_body_is_not_read_to_look_for_a_browsers_token(guarded: tuple[Server, dict[str, str]]) -> None:
    server, tokens = guarded
    with httpx.Client(base_url=server.url) as browser:
        csrf = browser.post("/api/login", json={"token": tokens["admin"]}).json()["csrf"]
        form = {"data": {"csrf": csrf}, "files": {"image": ("a.png", b"x")}}
        for path in ("/api/inspect", "/api/upload/parts"):
            assert browser.post(path, **form).status_code == 403, path  # type: ignore[arg-type]


def test_a_name_that_was_turned_to_this_machine_is_sent_away(server: Server) -> None:
    port = server.url.rpartition(":")[2]
    for host in ("evil.example", f"evil.example:{port}", "localhost.evil.example", "127.0.0.1.evil.example", ""):
        assert server.client.get("/api/models", headers={"Host": host}).status_code in (400, 421), host
    for host in (f"localhost:{port}", "127.0.0.1", "[::1]:8000"):
        assert server.client.get("/api/models", headers={"Host": host}).status_code == 200, host


def test_the_first_account_closes_loopback(server: Server) -> None:
    assert server.client.get("/api/whoami").json()["role"] == "admin"
    made = server.client.post("/api/accounts", json={"name": "boss", "role": "admin"}).json()
    wait_for(lambda: server.client.get("/api/whoami").status_code == 401, 5)
    assert server.client.get("/api/whoami", headers=bearer(made["token"])).json()["name"] == "boss"


def test_another_address_needs_a_token_first(store: Store) -> None:
    for host in ("127.0.0.1", "localhost", "::1", "127.3.2.1"):
        assert is_loopback(host) and safe_host(host, store)
    for host in ("0.0.0.0", "::", "192.168.1.7", "line-1"):
        with pytest.raises(OkngError, match=r"needs a token first: okng serve --add-token"):
            safe_host(host, store)
    store.accounts.add("eve", "inspect", "test")
    assert not safe_host("0.0.0.0", store)


def test_on_another_address_loopback_is_no_exception(store: Store, shop: Shop, tmp_path: Path) -> None:
    token = store.accounts.add("eve", "inspect", "test")
    with serving(store, {"parts": shop.onnx}, tmp_path / "models", local=False, names=("line-1",)) as server:
        store.accounts.remove("eve", "test")  # even when the last one is gone
        assert server.client.get("/api/whoami").status_code == 401
        for host, expected in (("line-1:80", 401), (socket.gethostname(), 401), ("evil.example", 421)):
            answer = server.client.get("/api/whoami", headers={"Host": host, **bearer(token)})
            assert answer.status_code == expected


def test_no_path_leaves_the_allowed_folders(store: Store, shop: Shop, tmp_path: Path) -> None:
    inside, beside = tmp_path / "in", tmp_path / "in2"
    for folder in (inside, beside, inside / "sub"):
        folder.mkdir()
        (folder / "a.png").write_bytes(shop.image(1))
    (inside / "link.png").symlink_to(beside / "a.png")
    (inside / "up").symlink_to(tmp_path)
    (inside / "fine.png").symlink_to(inside / "a.png")
    os.mkfifo(inside / "pipe.png")
    with serving(store, {"parts": shop.onnx}, tmp_path / "models", folders=(inside,), max_mb=0.01) as server:

        def ask(path: str) -> tuple[int, str]:
            answer = server.client.post("/api/inspect", json={"path": path})
            return answer.status_code, answer.json().get("error", "")

        for fine in ("a.png", "sub/a.png", "fine.png", "sub/../a.png", str(inside / "a.png")):
            assert ask(fine)[0] == 200, fine
        out = {
            "../in2/a.png", str(beside / "a.png"), "link.png", "up/in2/a.png", "/etc/passwd", "none.png",
            "../../../../etc/passwd", "a.png\0.txt", "", "~/a.png",
        }  # fmt: skip
        told = {ask(path) for path in out - {""}}
        assert {status for status, _ in told} == {422}
        assert {line for _, line in told} == {"there is no such image below the folders that --folder allows"}
        assert ask("")[0] == ask("pipe.png")[0] == 422
        (inside / "big.png").write_bytes(b"\0" * 20_000)
        assert "larger than" in ask("big.png")[1]
        batch = server.client.post("/api/batch", json={"paths": ["up"]})
        assert batch.status_code == 422
        batch = server.client.post("/api/batch", json={"paths": ["."]}).json()
        assert sum(batch["counts"].values()) == len(batch["results"])
        assert not any(str(beside) in str(result) or "in2" in str(result) for result in batch["results"])
    with serving(store, {"parts": shop.onnx}, tmp_path / "models") as server:
        assert "takes no paths" in server.client.post("/api/inspect", json={"path": "a.png"}).json()["error"]


def test_a_files_name_is_only_ever_shown(server: Server, shop: Shop, tmp_path: Path) -> None:
    before = set(tmp_path.rglob("*"))
    for name in ("../../evil.png", "C:\\temp\\x.png", "<script>alert(1)</script>.png", "a" * 400, "=cmd()"):
        answer = server.client.post("/api/inspect", files={"image": (name, shop.image(1))})
        assert answer.status_code == 200, answer.text
        told = answer.json()
        assert told["path"] == display_name(name) and "/" not in told["path"]
        assert len(told["path"]) <= 250 and told["path"].isprintable()
    assert set(tmp_path.rglob("*")) - before == set()
    lines = server.client.get("/api/results/export").text
    assert "'=cmd()" in lines and ",=cmd()" not in lines


def test_a_model_is_uploaded_by_admin_alone_and_is_no_pickle(
    guarded: tuple[Server, dict[str, str]], shop: Shop
) -> None:
    server, tokens = guarded
    headers = bearer(tokens["admin"])

    def upload(name: str, content: bytes, **query: str) -> httpx.Response:
        return server.client.post(f"/api/upload/{name}", content=content, params=query, headers=headers)

    for content in (b"\x80\x04pickle", b"PK\x03\x04zip", b"", shop.onnx.read_bytes()[:-1], os.urandom(2000)):
        for kind in ("okng", "onnx"):
            answer = upload("parts", content, kind=kind)
            assert answer.status_code == 422 and str(server.parts.settings.models) not in answer.text
    for name in ("..", ".hidden", "a%2Fb", "a b", "x" * 65):
        assert upload(name, shop.onnx.read_bytes(), kind="onnx").status_code in (404, 413, 422)
    assert [version.version for version in server.store.models.versions("parts")] == [1]
    assert [path.name for path in server.parts.settings.models.iterdir()] == ["parts"]  # nothing is left lying
    assert upload("other", shop.onnx.read_bytes(), kind="onnx").json()["active"] is True
    ask = server.client.post("/api/inspect", content=shop.image(1), headers=headers)
    assert ask.status_code == 422 and "say which model is meant: model=other or parts" in ask.text


def test_every_answer_forbids_what_browsers_may_be_tricked_into(server: Server, shop: Shop) -> None:
    told = server.inspect(shop.image(7)).json()
    answers = [
        server.client.get(path, headers=headers)
        for path, headers in (
            ("/health", {}), ("/docs", {}), ("/none", {}), ("/api/models", {"Host": "evil"}),
            (f"/api/results/{told['id']}/image", {}), (f"/api/results/{told['id']}/thumbnail", {}),
        )
    ]  # fmt: skip
    for answer in answers:
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff" and answer.headers["cache-control"] == "no-store"
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"
    assert "attachment" in answers[-2].headers["content-disposition"]
    assert re.findall(r"(?:src|href)=.(?!/)", answers[1].text) == []  # the docs load nothing from elsewhere


def test_every_change_is_in_the_audit_log(server: Server, shop: Shop) -> None:
    client = server.client
    client.post("/api/models/parts/threshold", json={"false_alarm_rate": 0.2})
    client.post("/api/models/parts/take", json={"version": 1})
    client.post("/api/upload/other", content=shop.onnx.read_bytes(), params={"kind": "onnx"})
    client.post("/api/accounts", json={"name": "eve", "role": "admin"})
    entries = [(entry.who, entry.what, entry.about.get("model")) for entry in server.store.audit.entries()][::-1]
    assert entries[2:] == [
        ("local user", "model version added", "parts"),
        ("local user", "model version taken", "parts"),
        ("local user", "model version taken", "parts"),
        ("local user", "model version added", "other"),
        ("local user", "model version taken", "other"),
        ("local user", "account added", None),
    ]
