"""What the OpenAPI page says is true: schemathesis asks what it allows, and more, and nothing breaks."""

from __future__ import annotations

import json
from pathlib import Path

import hypothesis
import pytest
from servers import Server, Shop, serving

from okng.store import Store

schemathesis = pytest.importorskip("schemathesis")


def ask(server: Server, examples: int) -> int:
    """Ask each route so many times; how many answers there were."""
    from schemathesis.checks import not_a_server_error
    from schemathesis.specs.openapi.checks import (
        content_type_conformance,
        response_schema_conformance,
        status_code_conformance,
    )

    schema = schemathesis.openapi.from_dict(server.app.openapi())
    answers = 0
    for found in schema.get_all_operations():
        operation = found.ok()

        @hypothesis.given(case=operation.as_strategy())
        @hypothesis.settings(
            max_examples=examples, deadline=None, derandomize=True, database=None,
            suppress_health_check=list(hypothesis.HealthCheck),
        )  # fmt: skip
        def each(case: object) -> None:
            nonlocal answers
            answers += 1
            checks = (
                not_a_server_error,
                status_code_conformance,
                content_type_conformance,
                response_schema_conformance,
            )
            case.call_and_validate(base_url=server.url, checks=checks)  # type: ignore[attr-defined]

        each()
        if operation.path == "/api/accounts":  # an account closes loopback
            for account in server.store.accounts.all():
                server.store.accounts.remove(account.name, "test")
    return answers


def test_every_route_answers_as_it_says(server: Server, shop: Shop) -> None:
    server.inspect(shop.image(7))
    assert ask(server, 1) > 20


@pytest.mark.slow
def test_every_route_answers_as_it_says_at_length(store: Store, shop: Shop, tmp_path: Path) -> None:
    with serving(store, {"parts": shop.onnx}, tmp_path / "models", folders=(shop.images,), keep="all") as server:
        for file in shop.files:
            server.inspect(file.read_bytes())
        assert ask(server, 60) > 1000


def test_the_page_can_be_read_by_programs(server: Server) -> None:
    page = server.client.get("/openapi.json").json()
    assert page["info"]["title"] == "okng" and "/api/inspect" in page["paths"] and len(json.dumps(page)) > 10_000
    assert "POST /api/inspect" in server.client.get("/docs").text
