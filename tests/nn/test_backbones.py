from __future__ import annotations

import pytest
import torch

from okng.errors import OkngError
from okng.nn.backbones import Backbone, lite0_weights


def test_the_installed_weights_fit_timm_exactly() -> None:
    timm = pytest.importorskip("timm")
    classifier = timm.create_model("tf_efficientnet_lite0")
    classifier.load_state_dict(lite0_weights(), strict=True)
    backbone = Backbone("efficientnet_lite0", (8, 16)).eval()
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        whole = classifier.eval().forward_intermediates((images * 255 - 127) / 128, intermediates_only=True)
        fine, coarse = backbone(images)
    assert fine.shape == (1, 40, 8, 8) and coarse.shape == (1, 112, 4, 4)
    torch.testing.assert_close(fine, whole[2], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(coarse, whole[3], rtol=1e-4, atol=1e-4)


def test_weights_from_a_file(tmp_path) -> None:
    import safetensors.torch

    contiguous = {name: tensor.contiguous() for name, tensor in lite0_weights().items()}
    safetensors.torch.save_file(contiguous, tmp_path / "w.safetensors")
    torch.save(lite0_weights(), tmp_path / "w.pth")
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
