"""Whose scores compare, and what is shown of an image that wasn't kept."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image
from servers import serving

from okng.serve.pages.same import same_scores
from okng.store import Store

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
