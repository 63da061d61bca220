"""Tokens of vision transformers are timm's, at any size, in PyTorch, ONNX Runtime and OpenVINO."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor

from okng.detectors.base import Batch, Collect
from okng.detectors.catalogue import create
from okng.errors import OkngError
from okng.nn.features import vit
from okng.nn.features.vit import Tokens, VisionTransformer, backbone_of, is_transformer, resampling
from okng.nn.graph import onnx_graph

timm = pytest.importorskip("timm")
NAMES = [
    "vit_small_patch14_dinov2",
    "vit_small_patch14_reg4_dinov2",
    "vit_small_patch16_dinov3",
    "deit3_small_patch16_224",
]
SMALL = {"depth": 3, "embed_dim": 48, "num_heads": 4, "num_classes": 0}


@pytest.fixture(autouse=True)
def small_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the same kinds, with three narrow blocks, so that a test takes no second."""
    create: Any = timm.create_model

    def shrunk(name: str, **arguments: Any) -> torch.nn.Module:
        return create(name, **{**(SMALL if name in NAMES else {}), **arguments})  # type: ignore[no-any-return]

    monkeypatch.setattr(timm, "create_model", shrunk)
    is_transformer.cache_clear()


def built(name: str, blocks: tuple[int, ...] = (1, 3), **more: bool) -> VisionTransformer:
    torch.manual_seed(0)
    return VisionTransformer(name, blocks, "none", **more).eval()


def sizes(patch: int) -> list[tuple[int, int]]:
    """Smaller and larger than the pre-trained size along either axis, and a single patch."""
    return [(3 * patch, 45 * patch), (5 * patch, 4 * patch), (patch, patch)]


@pytest.mark.parametrize("normed", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_tokens_are_those_of_timm_at_any_size(name: str, normed: bool) -> None:
    torch.manual_seed(0)
    theirs = timm.create_model(name, dynamic_img_size=True).eval()
    with torch.no_grad():
        for key, parameter in theirs.named_parameters():
            if "gamma" in key:
                parameter.fill_(1.0)
            elif "pos_embed" in key:
                parameter.normal_()
    ours = built(name, normed=normed, prefix=True)
    ours.net.net.load_state_dict({key: theirs.state_dict()[key] for key in ours.net.net.state_dict()})
    for h, w in sizes(ours.strides[0]):
        images = torch.rand(2, 3, h, w)
        with torch.no_grad():
            wanted = theirs.forward_intermediates(
                (images - ours.mean) / ours.std, [0, 2], return_prefix_tokens=True, norm=normed, intermediates_only=True
            )
            found = ours(images)
        for i, (grid, before) in enumerate(wanted):
            torch.testing.assert_close(found[i], grid, rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(found[2 + i], before, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("old", "new"), [(37, 37), (37, 5), (14, 45), (3, 1), (16, 24)])
def test_resampling_is_that_of_pytorch(old: int, new: int) -> None:
    cells = torch.eye(old)
    wanted = F.interpolate(cells[None, None], (new, old), mode="bicubic", antialias=True)[0, 0]
    torch.testing.assert_close(resampling(old, new, cells), wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NAMES[:3])
def test_one_graph_for_all_sizes(name: str) -> None:
    """What is computed of the sizes is computed anew in the graph, by both engines."""
    import onnxruntime

    from okng.training.loop.frozen import compiled

    backbone = built(name, prefix=True)
    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter.mul_(4.0)  # so that attention attends to something
    patch = backbone.strides[0]
    names = ["images", "a", "b", "c", "d"]
    dynamic = {key: {0: f"{key} batch"} for key in names}
    for key in names[:3]:
        dynamic[key] |= {2: f"{key} height", 3: f"{key} width"}
    graph = onnx_graph(backbone, torch.rand(1, 3, 2 * patch, 3 * patch), names, dynamic)
    session, openvino = onnxruntime.InferenceSession(graph), compiled(backbone)
    for h, w in sizes(patch):
        images = torch.rand(2, 3, h, w)
        with torch.no_grad():
            wanted = backbone(images)
        by_runtime = [torch.from_numpy(part) for part in session.run(None, {"images": images.numpy()})]
        for found in (by_runtime, openvino(images)):
            for one, other in zip(found, wanted, strict=True):
                scale = float(other.abs().max())
                torch.testing.assert_close(one / scale, other / scale, rtol=0, atol=1e-4)


def test_patches_lie_where_they_are_seen() -> None:
    """Of the first block a changed patch changes its own token most."""
    backbone, images = built(NAMES[0], (1,)), torch.full((1, 3, 5 * 14, 4 * 14), 0.5)
    changed = images.clone()
    changed[..., 3 * 14 : 4 * 14, 14 : 2 * 14] = torch.rand(3, 14, 14)
    with torch.no_grad():
        moved = (backbone(changed)[0] - backbone(images)[0]).square().sum(1)[0]  # (5, 4)
    assert int(moved.argmax()) == 3 * 4 + 1


def test_blocks_are_counted_from_one_or_from_the_end() -> None:
    images = torch.rand(1, 3, 28, 28)
    with torch.no_grad():
        last, both = built(NAMES[0], (-1,))(images), built(NAMES[0], (3, -3))(images)
        first = built(NAMES[0], (1,))(images)
    assert len(built(NAMES[0], (1,)).net.net.blocks) == 1
    torch.testing.assert_close(both[1], last[0])
    torch.testing.assert_close(both[0], first[0])


def test_a_network_of_either_kind_gives_grids_and_class_tokens() -> None:
    images = torch.rand(2, 3, 64, 96)
    cnn = Tokens("efficientnet_lite0", strides=(8, 16), weights="none").eval()
    with torch.no_grad():
        grids, before = cnn(images)
    assert [tuple(g.shape[1:]) for g in grids] == [(40, 8, 12), (112, 4, 6)] and cnn.multiple == 16
    torch.testing.assert_close(before[1], grids[1].mean((2, 3))[:, None])
    tokens = Tokens(NAMES[1], blocks=(2, 3), weights="none").eval()
    with torch.no_grad():
        grids, before = tokens(torch.rand(2, 3, 28, 42))
    assert [tuple(g.shape) for g in grids] == [(2, 48, 2, 3)] * 2 and tokens.multiple == 14
    assert [tuple(p.shape) for p in before] == [(2, 5, 48)] * 2  # the class token and four registers


def test_weights_from_a_file(tmp_path: Path) -> None:
    whole = timm.create_model(NAMES[1])
    safetensors.torch.save_file(whole.state_dict(), tmp_path / "w.safetensors")
    torch.save({**whole.state_dict(), "head.weight": torch.zeros(2, 2)}, tmp_path / "w.pth")
    for file in ("w.safetensors", "w.pth"):
        taken = VisionTransformer(NAMES[1], (2,), str(tmp_path / file)).net.net.state_dict()
        assert all(torch.equal(taken[key], whole.state_dict()[key]) for key in taken)
    with pytest.raises(OkngError, match="the weights"):
        VisionTransformer(NAMES[2], (2,), str(tmp_path / "w.pth"))
    with pytest.raises(OkngError, match="does not exist"):
        VisionTransformer(NAMES[2], (2,), str(tmp_path / "none.pth"))


def test_the_authors_names_of_tensors_are_taken_too(tmp_path: Path) -> None:
    """DINOv2's own file: a mask token more, and registers under another name; its positions have a class's."""
    whole = timm.create_model(NAMES[1])
    state: dict[str, Tensor] = dict(whole.state_dict())
    state["register_tokens"] = state.pop("reg_token")
    state["cls_token"] = state.pop("cls_token")
    state["mask_token"] = torch.zeros(1, 48)
    state["pos_embed"] = torch.cat([torch.zeros(1, 1, 48), state["pos_embed"]], 1)
    torch.save(state, tmp_path / "dinov2.pth")
    taken = VisionTransformer(NAMES[1], (1,), str(tmp_path / "dinov2.pth")).net.net.state_dict()
    for key in ("reg_token", "pos_embed", "blocks.0.attn.qkv.weight"):
        torch.testing.assert_close(taken[key], whole.state_dict()[key])


@pytest.mark.parametrize(
    ("name", "blocks", "message"),
    [
        (NAMES[0], (), "say which, such as blocks=3"),
        (NAMES[0], (4,), "blocks are 1 to 3"),
        (NAMES[0], (0,), "blocks are 1 to 3"),
        (NAMES[0], (-4,), "blocks are 1 to 3"),
        (NAMES[0], (3, -1), "twice"),
        ("vit_small_patch14_dinov9", (1,), "there is no backbone"),
        ("resnet18", (1,), "no vision transformer"),
        ("vit_small_r26_s32_224", (1,), "no vision transformer"),
    ],
)
def test_mistakes_are_one_line(name: str, blocks: tuple[int, ...], message: str) -> None:
    with pytest.raises(OkngError, match=message) as caught:
        VisionTransformer(name, blocks, "none")
    assert "\n" not in str(caught.value)


def test_blocks_of_a_cnn_are_refused() -> None:
    for build in (
        lambda: Tokens("efficientnet_lite0", blocks=(1,)),
        lambda: backbone_of("resnet18", (8,), (1,), "none"),
    ):
        with pytest.raises(OkngError, match="leave out blocks"):
            build()


def test_without_a_network_the_ways_out_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(name: str) -> dict[str, str]:
        raise OSError("does not answer")

    monkeypatch.setattr(vit, "_downloaded_before", unreachable)
    with pytest.raises(OkngError, match=r"weights=FILE.*okng weights"):
        backbone_of(NAMES[0], (8,), (1,), "imagenet")


def test_what_was_downloaded_before_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = timm.create_model(NAMES[0])
    safetensors.torch.save_file(whole.state_dict(), tmp_path / "model.safetensors")
    monkeypatch.setattr(vit, "_downloaded_before", lambda name: {"file": str(tmp_path / "model.safetensors")})
    taken = VisionTransformer(NAMES[0], (3,)).net.net.state_dict()
    np.testing.assert_array_equal(taken["pos_embed"], whole.state_dict()["pos_embed"])


@pytest.mark.parametrize("name", ["patchcore", "padim", "subspace_ad"])
def test_methods_of_patches_take_a_transformer_by_its_blocks(name: str) -> None:
    """The features of two blocks on one grid; SubspaceAD's are their mean, as in its paper."""
    images = torch.rand(2, 3, 28, 42)
    given: dict[str, Any] = {"backbone": NAMES[1], "blocks": (1, 3), "weights": "none"}
    detector = create(name, **given, **({"dimensions": 20} if name == "padim" else {}))
    (phase,) = detector.phases()
    assert isinstance(phase, Collect) and phase.prepare is not None and detector.multiple == 14
    with torch.no_grad():
        phase.visit(Batch(images, torch.arange(2), tuple(phase.prepare(images))))
        list(phase.finish() or ())
        scores = detector(torch.rand(3, 3, 28, 42))
    assert scores.map is not None and scores.map.shape == (3, 2, 3) and bool(scores.map.isfinite().all())
    if name != "padim":
        assert len(detector.get_buffer("mean" if name == "subspace_ad" else "centre")) == (
            48 if name == "subspace_ad" else 96
        )


def test_the_default_names_what_takes_a_transformer() -> None:
    with pytest.raises(OkngError, match=r"patch_memory: backbone is a CNN.*anomalydino"):
        create("patch_memory", backbone=NAMES[0])
