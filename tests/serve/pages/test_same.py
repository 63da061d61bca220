"""Whose scores compare, and what is shown of an image that wasn't kept."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image
from servers import serving
from sqlalchemy import select
from tests.detectors.scenes import crosses, rings

import okng
from okng.serve.pages.same import same_scores
from okng.store import Store
from okng.store.tables import watches

if TYPE_CHECKING:
    from servers import Shop


def test_versions_that_differ_in_threshold_or_rules_share_scores_and_others_dont(
    store: Store, shop: Shop, tmp_path: Path
) -> None:
    with serving(store, {"parts": shop.onnx}, tmp_path / "models") as server:
        shelf = server.parts.shelf
        digests = [shelf.get("parts").version.digest]
        for change in (
            lambda present: present.with_threshold(3.0),
            lambda present: present.at(0.2),
            lambda present: present.with_rules({"rules": [{"name": "large", "verdict": "NG", "min_area": 9}]}),
        ):
            digests.append(shelf.change("parts", change, "test", "").digest)
            assert same_scores(shelf, "parts") == tuple(sorted(digests))
        zones = {"zones": [{"name": "label", "kind": "ignore", "points": [[0, 0], [1, 0], [0, 0.5]]}]}
        other = shelf.change("parts", lambda present: present.with_rules(zones), "test", "").digest
        assert same_scores(shelf, "parts") == (other,)  # its score is that of a part of the image


def test_products_that_share_a_file_are_told_apart(store: Store, tmp_path: Path) -> None:
    """Each has a calibration of its own: what one's versions are compared by says nothing of the other's."""
    file = tmp_path / "line.okng"
    okng.fit({"ring": rings(24, 1), "cross": crosses(24, 1)}, "knn", holdout=0.4, device="cpu").save(file)
    with serving(store, {"cross": file, "ring": file}, tmp_path / "models") as server:
        shelf = server.parts.shelf
        one = shelf.get("ring").version.digest
        assert one == shelf.get("cross").version.digest
        for name in ("cross", "ring"):
            assert same_scores(shelf, name) == (one,)
            server.parts.watcher.restart(name, "test")
        other = shelf.change("ring", lambda present: present.with_threshold(3.0), "test", "").digest
        assert same_scores(shelf, "ring") == tuple(sorted((one, other)))
        with store.reading() as connection:
            kept = connection.execute(select(watches.c.model, watches.c.mark)).all()
        assert {name for name, _ in kept} == {"cross", "ring"} and len({mark for _, mark in kept}) == 2


def test_the_newest_images_are_shown_as_the_detector_saw_them(store: Store, shop: Shop, tmp_path: Path) -> None:
    with serving(store, {"parts": shop.onnx}, tmp_path / "models", keep="none") as server:
        ids = [server.inspect(shop.image(i % 12)).json()["id"] for i in range(10)]
        sizes = []
        for number in (ids[0], ids[-1]):
            answer = server.client.get(f"/pictures/{number}")
            assert answer.status_code == 200 and "immutable" in answer.headers["cache-control"]
            sizes.append(np.asarray(Image.open(io.BytesIO(answer.content))).shape)
        assert len(server.parts.queue.latest) == 8 and ids[0] not in dict(server.parts.queue.latest)
        assert sizes[0] == sizes[1]
        assert server.client.get(f"/pictures/{ids[-1]}/heat").status_code == 200
        assert server.client.get("/pictures/99").status_code == 404
