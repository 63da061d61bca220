from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from servers import Server, Shop, encoded, serving
from tests.contract.conftest import pictures

import okng
from okng.exporting import export_onnx
from okng.store import Store


@pytest.fixture(scope="session")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    root = tmp_path_factory.mktemp("shop")
    arguments = {"weights": "none", "coreset": 0.1}
    inspector = okng.fit(pictures(24, seed=1), "patchcore", size=32, holdout=0.4, device="cpu", **arguments)
    inspector.save(root / "parts.okng")
    export_onnx(inspector, root / "parts.onnx")
    (root / "images").mkdir()
    for i, pixels in enumerate([*pictures(6, seed=2), *pictures(6, seed=3, defect=True)]):
        (root / "images" / f"{i}.png").write_bytes(encoded(np.asarray(pixels)))
    return Shop(root / "parts.okng", root / "parts.onnx", root / "images")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store.open(tmp_path / "okng.sqlite", patience=0.5)
    yield opened
    opened.close()


@pytest.fixture
def server(store: Store, shop: Shop, tmp_path: Path) -> Iterator[Server]:
    """One that keeps all images and takes paths below the shop's."""
    with serving(store, {"parts": shop.onnx}, tmp_path / "models", keep="all", folders=(shop.images,)) as running:
        yield running
