from __future__ import annotations

import socketserver
import threading
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from okng.errors import OkngError
from okng.nn.features import backbones
from okng.nn.features.backbones import BROUGHT, Backbone, brought_weights


@pytest.mark.parametrize(("name", "channels"), [("efficientnet_lite0", (40, 112)), ("efficientnet_lite2", (48, 120))])
def test_the_installed_weights_fit_timm_exactly(name: str, channels: tuple[int, int]) -> None:
    timm = pytest.importorskip("timm")
    classifier = timm.create_model(f"tf_{name}")
    classifier.load_state_dict(brought_weights(BROUGHT[name]), strict=True)
    backbone = Backbone(name, (8, 16)).eval()
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        whole = classifier.eval().forward_intermediates((images * 255 - 127) / 128, intermediates_only=True)
        fine, coarse = backbone(images)
    assert fine.shape == (1, channels[0], 8, 8) and coarse.shape == (1, channels[1], 4, 4)
    torch.testing.assert_close(fine, whole[2], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(coarse, whole[3], rtol=1e-4, atol=1e-4)


def test_weights_from_a_file(tmp_path) -> None:
    import safetensors.torch

    weights = brought_weights(BROUGHT["efficientnet_lite0"])
    contiguous = {name: tensor.contiguous() for name, tensor in weights.items()}
    safetensors.torch.save_file(contiguous, tmp_path / "w.safetensors")
    torch.save(weights, tmp_path / "w.pth")
    wanted = Backbone("efficientnet_lite0", (8,)).state_dict()
    for file in ("w.safetensors", "w.pth"):
        loaded = Backbone("efficientnet_lite0", (8,), str(tmp_path / file)).state_dict()
        assert all(torch.equal(loaded[name], tensor) for name, tensor in wanted.items())


def test_random_weights_differ_from_trained_ones() -> None:
    one = Backbone("resnet18", (8,), "none")
    assert one.channels == [128] and one.strides == (8,)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("efficentnet_lite0", (8,)), "did you mean"),
        (("efficientnet_lite0", (7,)), "no features at stride 7"),
        (("efficientnet_lite0", (8,), "/no/such/file"), "does not exist"),
    ],
)
def test_mistakes_are_one_line(arguments: tuple, message: str) -> None:
    with pytest.raises(OkngError, match=message) as caught:
        Backbone(*arguments)
    assert "\n" not in str(caught.value)


def test_weights_of_another_network_or_of_none(tmp_path) -> None:
    torch.save({"a": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(OkngError, match="weights lack"):
        Backbone("efficientnet_lite0", (8,), str(tmp_path / "other.pth"))
    (tmp_path / "junk.pth").write_bytes(b"junk")
    with pytest.raises(OkngError, match="can't be read"):
        Backbone("efficientnet_lite0", (8,), str(tmp_path / "junk.pth"))


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "swin_tiny_patch4_window7_224"])
def test_a_transformer_is_refused_in_one_line(name: str) -> None:
    """The first takes one size only; the second's features have their channels last."""
    with pytest.raises(OkngError, match=rf"{name} gives no map of features.*resnet18") as caught:
        Backbone(name, (16,), "none")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["resnet18", "mobilenetv3_small_050"])
def test_convolutional_backbones_of_timm_keep_what_is_promised(name: str) -> None:
    backbone = Backbone(name, (8, 16), "none").eval()
    with torch.no_grad():
        shapes = [tuple(features.shape) for features in backbone(torch.rand(1, 3, 48, 80))]
    assert shapes == [(1, backbone.channels[0], 6, 10), (1, backbone.channels[1], 3, 5)]


class Silent(socketserver.BaseRequestHandler):
    """Takes a connection and says nothing."""

    def handle(self) -> None:
        self.request.recv(1000)
        self.server.asked.append(1)  # type: ignore[attr-defined]
        self.server.released.wait(30)  # type: ignore[attr-defined]


def test_a_hub_that_does_not_answer_is_asked_once_and_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither by the client's five retries for each file nor its long timeouts."""
    from huggingface_hub import constants

    monkeypatch.setattr(backbones, "PATIENCE", 0.3)
    for proxy in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(proxy, raising=False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Silent) as server:
        server.daemon_threads, server.asked, server.released = True, [], threading.Event()  # type: ignore[attr-defined]
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_address[1]}")
        with pytest.raises(OkngError, match=r"weights=FILE.*efficientnet_lite0"):
            Backbone("resnet18.tv_in1k", (8,))
        server.released.set()  # type: ignore[attr-defined]
        server.shutdown()
    assert len(server.asked) <= 1  # type: ignore[attr-defined]


def test_weights_that_were_downloaded_before_are_taken_and_nobody_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hub's own cache; the client's global switch to offline stays as it is, for other threads."""
    timm = pytest.importorskip("timm")
    from huggingface_hub import constants

    repository = tmp_path / "models--timm--resnet18.tv_in1k"
    (repository / "snapshots" / "abc").mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc")
    torch.manual_seed(3)
    net = timm.create_model("resnet18", pretrained=False)
    save_file(net.state_dict(), repository / "snapshots" / "abc" / "model.safetensors")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(backbones, "_answers", lambda url: pytest.fail("asked"))
    backbone = Backbone("resnet18.tv_in1k", (8,))
    torch.testing.assert_close(backbone.net.state_dict()["layer2.0.conv1.weight"], net.layer2[0].conv1.weight.detach())


def test_weights_that_need_no_hub_do_not_ask_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backbones, "_answers", lambda url: pytest.fail("asked"))
    Backbone("resnet18", (8,), "none")
    Backbone("efficientnet_lite0", (8,))


def test_a_hub_out_of_reach_names_both_ways_out(monkeypatch: pytest.MonkeyPatch) -> None:
    timm = pytest.importorskip("timm")
    original = timm.create_model

    def offline(name: str, *args: object, pretrained: bool = False, **kwargs: object) -> torch.nn.Module:
        if pretrained:
            raise OSError("We couldn't connect to the hub")
        return original(name, *args, **kwargs)

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(OkngError, match=r"weights=FILE.*efficientnet_lite0"):
        Backbone("resnet18", (8,))
