"""`okng explain` and `okng train --ng` as a person meets them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tests.cli.test_cli import okng, one_line
from tests.contract.conftest import pictures

from okng import fit as okng_fit
from okng.cli.explain import explain
from okng.detectors import explanation
from okng.detectors.base import Collect, Detector, Phase, Scores
from okng.errors import OkngError


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of OK and NG images, and a VGG-11 taught with both."""
    root = tmp_path_factory.mktemp("explained")
    for folder, count, seed, defect in [("ok", 12, 1, False), ("ng", 6, 5, True), ("new", 2, 9, True)]:
        (root / folder).mkdir()
        for i, image in enumerate(pictures(count, seed, defect)):
            Image.fromarray(image).save(root / folder / f"{i:02}.png")
    settings = [word for pair in ("width=8", "epochs=12", "batch_size=4") for word in ("-p", pair)]
    fit = ["train", root / "ok", "-d", "vgg11", *settings, "--size", 64, "--device", "cpu", "--holdout", 0.3]
    done = okng(*fit, "--ng", root / "ng", "-o", root / "parts.okng", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)["provenance"]
    assert (told["learnt_from"], told["ng_images"], told["held_out"]) == (8, 6, 4)
    assert "and 6 NG images" in done.stderr
    return root


def test_pictures_are_written_and_their_heat_lies_on_the_defect(shop: Path, tmp_path: Path) -> None:
    done = okng("explain", shop / "parts.okng", shop / "new", "-o", tmp_path / "out", "--layer", "features.8", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["layer"] == "features.8" and len(told["images"]) == 2
    for one in told["images"]:
        before = np.asarray(Image.open(one["path"]).convert("RGB")).astype(int)
        after = np.asarray(Image.open(one["overlay"])).astype(int)
        assert after.shape == before.shape and one["verdict"] in one["overlay"]
        changed, blue = np.abs(after - before).sum(2), (before[..., 2] > 200) & (before[..., 0] < 60)
        assert changed.max() > 60 and changed[blue].mean() > changed[~blue].mean()


def test_the_layer_is_chosen(shop: Path, tmp_path: Path) -> None:
    """The last convolution whose output has places: at 64 px that is VGG-11's last, of 4 x 4."""
    done = okng("explain", shop / "parts.okng", shop / "new" / "00.png", "-o", tmp_path)
    assert done.returncode == 0 and "explained at features.25" in done.stderr, done.stderr
    assert "00.png" in done.stdout and len(list(tmp_path.rglob("*.png"))) == 1


def test_mistakes_are_one_line_each(shop: Path, tmp_path: Path) -> None:
    model, out, new = shop / "parts.okng", ["-o", tmp_path / "out"], ["-o", tmp_path / "new.okng"]
    (tmp_path / "empty").mkdir()
    for arguments, words in [
        (["explain", model, shop / "new", *out, "--layer", "feature.8"], "did you mean features.8"),
        (["explain", model, shop / "nothing", *out], "does not exist"),
        (["explain", model, tmp_path / "empty", *out], "no readable images"),
        (["train", shop / "ok", "-d", "vgg11", *new], "give them with ng=IMAGES, or --ng FOLDER"),
        (["train", shop / "ok", "--ng", shop / "ng", *new], "patch_memory learns from OK images only"),
        (["train", shop / "ok", "-d", "vgg11", "--ng", shop / "nothing", *new], "is a folder of NG images"),
        (["train", shop / "ok", "--update", model, "--ng", shop / "ng"], "takes in OK images only"),
    ]:
        assert words in one_line(okng(*arguments)), arguments


class Ungraded(Detector):
    """A score without a gradient: it counts."""

    name = "ungraded"

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Conv2d(3, 2, 3)

    def forward(self, images: torch.Tensor) -> Scores:
        return Scores((self.layer(images) > 0).flatten(1).float().mean(1))


class Copier(Detector):
    """The error of a copy made by an encoder and a decoder, which makes a row and a column too many."""

    name = "copier"

    def __init__(self) -> None:
        super().__init__()
        self.encoder = torch.nn.Conv2d(3, 4, 4, 4)
        self.decoder = torch.nn.ConvTranspose2d(4, 4, 2, 2)
        self.last = torch.nn.ConvTranspose2d(4, 3, 3, 2)

    def forward(self, images: torch.Tensor) -> Scores:
        copies = self.last(self.decoder(self.encoder(images)))[:, :, :64, :64]
        return Scores((copies - images).square().flatten(1).mean(1))


class Absence(Detector):
    """Odd is where little is seen: a positive feature everywhere, and a score that falls with it."""

    name = "absence"

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Conv2d(3, 1, 4, 4)
        torch.nn.init.constant_(self.layer.weight, 1.0)
        torch.nn.init.constant_(self.layer.bias, 0.1)

    def phases(self) -> Iterator[Phase]:
        yield Collect("nothing", lambda batch: None, lambda: None)

    def forward(self, images: torch.Tensor) -> Scores:
        return Scores(-self.layer(images).flatten(1).amin(1))


def test_an_empty_picture_is_said_to_be_empty_and_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    okng_fit(pictures(20, seed=1), Absence, size=64, device="cpu").save(tmp_path / "parts.okng")
    Image.fromarray(pictures(1, seed=2)[0]).save(tmp_path / "one.png")
    explain(tmp_path / "parts.okng", [tmp_path / "one.png"], tmp_path / "out", None, "cpu", False, False)
    told = capsys.readouterr()
    assert told.out.rstrip().endswith("nothing to show")
    assert "nothing to show on 1 of them, because whatever layer sees there lowers the score" in told.err
    assert told.err.rstrip().endswith("try another --layer")  # there is no map to look at
    explain(tmp_path / "parts.okng", [tmp_path / "one.png"], tmp_path / "out", None, "cpu", False, True)
    assert json.loads(capsys.readouterr().out)["images"][0]["nothing_to_show"] is True


def test_transposed_convolutions_count_and_larger_frames_than_the_image_do_not() -> None:
    engine = explanation.GradCAMEngine(Copier(), None)
    engine(pictures(1, seed=1))
    assert engine.layer == "decoder"


def test_a_score_without_a_gradient_is_refused_in_one_line() -> None:
    with pytest.raises(OkngError, match="ungraded's score has no gradient from a convolution"):
        explanation.GradCAMEngine(Ungraded(), None)(pictures(1, seed=1))
    with pytest.raises(OkngError, match="no gradient from layer"):
        explanation.GradCAMEngine(Ungraded(), "layer")(pictures(1, seed=1))
