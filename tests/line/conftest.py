from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("sqlalchemy", reason="the extra `serve` is not installed")
sys.path.insert(0, str(Path(__file__).parent))  # for `parts`, which the tests share

from parts import inspector

from okng.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store.open(tmp_path / "okng.sqlite")
    yield opened
    opened.close()


@pytest.fixture
def said() -> list[str]:
    """Lines for the person."""
    return []


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "parts.onnx"
    inspector().save(path)
    return path
