"""What a person may know of the images: which are OK, of several classes too, some that are NG, or nothing surely."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from tests.detectors.scenes import crosses, rings
from tests.detectors.self_supervised.upright import upright

import okng
from okng.datasets import NG, OK, Dataset, open_dataset

SIDE = (16, 16)
SVDD: dict[str, Any] = {
    "widths": (8, 4), "code": 32, "pretraining_epochs": 5, "epochs": 5, "batch_size": 16, "pretraining_rate": 3e-3,
    "learning_rate": 1e-3,
}  # fmt: skip
SSD: dict[str, Any] = {
    "blocks": (1, 1), "width": 8, "bottleneck": False, "epochs": 8, "batch_size": 16, "learning_rate": 0.1,
}  # fmt: skip
METHODS = {"kde": {}, "deep_svdd": SVDD, "ssd": SSD}
TOLD = {"deep_sad": SVDD, "ssdk": SSD}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of the classes ring, cross and letter in train/ and test/."""
    root = tmp_path_factory.mktemp("shapes")
    for seed, (part, count) in enumerate((("train", 40), ("test", 20))):
        letters = (255 * upright(count, seed)[:, 0].numpy()).round().astype("uint8")
        for kind, images in (("ring", rings(count, seed)), ("cross", crosses(count, seed)), ("letter", letters)):
            (root / part / kind).mkdir(parents=True)
            for i, image in enumerate(images):
                Image.fromarray(image).save(root / part / kind / f"{i}.png")
    return root


def auroc(data: Dataset, detector: str, arguments: dict[str, Any], ng: Any = None) -> float:
    """Of the test part, by a fit of the training part."""
    images = [sample.image for sample in data.train]
    inspector = okng.fit(images, detector, ng=ng, size=SIDE, holdout=0.2, device="cpu", **arguments)
    found = okng.evaluate(inspector, data)
    assert found["left_out"] == 0  # what was learnt, hidden NG images too, is no test image
    assert (found["n_ok"], found["n_ng"]) == tuple(sum(s.label == label for s in data.test) for label in (OK, NG))
    return float(found["image_auroc"])


@pytest.mark.parametrize("method", METHODS)
def test_ok_images_of_one_class_of_two_and_with_ng_images_hidden_among_them(folder: Path, method: str) -> None:
    one, two = open_dataset(folder, normal="ring"), open_dataset(folder, normal="ring,cross")
    hidden = open_dataset(folder, normal="ring", contamination=0.1)
    assert [len(data.train) for data in (one, two, hidden)] == [40, 80, 44]
    assert min(auroc(data, method, METHODS[method]) for data in (one, two)) > 0.8
    assert auroc(hidden, method, METHODS[method]) > 0.6  # a memory of OK images holds those, too, and their like


@pytest.mark.parametrize("method", TOLD)
def test_some_labelled_ng_images(folder: Path, method: str) -> None:
    data = open_dataset(folder, normal="ring")
    known = [sample.image for sample in data.ng if sample.kind == "cross"][:6]
    assert auroc(data, method, TOLD[method], known) > 0.8
    with pytest.raises(okng.OkngError, match="learns from some NG images too; give them with ng=IMAGES"):
        auroc(data, method, TOLD[method])
