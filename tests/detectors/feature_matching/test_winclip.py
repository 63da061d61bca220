"""What tells WinCLIP from a toy: windows that are embedded by themselves, harmonic means, words and references."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from tests.detectors.scenes import discs, in_colour
from torch import Tensor

from okng.detectors.catalogue import create
from okng.detectors.feature_matching.winclip import NORMAL, ODD, ImageTower, WinCLIP, phrases, prompts, windows
from okng.errors import OkngError
from okng.inspection.reading.images import Preprocess
from okng.training.images.data import TrainingImages
from okng.training.loop.phases import run_phases


def built(**arguments: object) -> WinCLIP:
    torch.manual_seed(0)
    small = {"backbone": "vit_tiny_patch16_224", "weights": "none", "image_size": (64, 80)}
    detector = create("winclip", **{**small, **arguments})
    assert isinstance(detector, WinCLIP)
    return detector.eval()


def fitted(**arguments: object) -> WinCLIP:
    detector = built(image_size=(64, 64), **arguments)
    run_phases(detector, TrainingImages(list(discs(6)), Preprocess("RGB", (64, 64), 16)), device="cpu")
    return detector


def test_shapes_and_that_a_window_of_all_tokens_is_the_image() -> None:
    detector = built(image_size=(64, 64), scales=(2, 4))
    with torch.no_grad():
        whole, patches, twos, all_of_it = detector.embedded(torch.rand(2, 3, 64, 64))
    assert (whole.shape, patches.shape, twos.shape) == ((2, 1000), (2, 16, 192), (2, 9, 1000))
    torch.testing.assert_close(all_of_it[:, 0], whole, rtol=1e-4, atol=1e-5)
    for each in (whole, patches, twos):
        torch.testing.assert_close(each.norm(dim=-1), torch.ones(each.shape[:-1]))


def test_a_window_sees_nothing_outside_of_it() -> None:
    detector, images = built(scales=(2,)), torch.rand(1, 3, 64, 80)
    other = images.clone()
    other[:, :, 32:] = torch.rand(1, 3, 32, 80)
    with torch.no_grad():
        before, after = detector.embedded(images)[2], detector.embedded(other)[2]
    upper = windows(4, 5, 2).amax(1) < 10
    torch.testing.assert_close(before[:, upper], after[:, upper], rtol=1e-4, atol=1e-5)
    assert upper.sum() == 4 and bool((before - after)[:, ~upper].abs().amax(2).gt(1e-3).all())


def test_tokens_have_the_harmonic_mean_of_the_windows_that_cover_them() -> None:
    detector = built(image_size=(48, 48), scales=(2,))
    scores = torch.tensor([[0.1, 0.2, 0.3, 0.4]])
    found = detector.spread(scores, 2)[0].view(3, 3)
    assert (found[0, 0], found[2, 2]) == (pytest.approx(0.1), pytest.approx(0.4))
    assert float(found[0, 1]) == pytest.approx(2 / (1 / 0.1 + 1 / 0.2))
    assert float(found[1, 1]) == pytest.approx(4 / (1 / 0.1 + 1 / 0.2 + 1 / 0.3 + 1 / 0.4))
    covered = torch.bincount(windows(5, 5, 3).flatten()).view(5, 5)
    assert covered[0, 0] == 1 and covered[2, 2] == 9


def test_words_swapped_say_the_opposite_and_none_say_nothing() -> None:
    detector, embedded = built(), F.normalize(torch.randn(4, 1000), dim=1)
    assert torch.equal(detector.in_words(embedded), torch.full((4,), 0.5))
    detector.text = torch.randn(2, 1000)
    odd = detector.in_words(embedded)
    cosines = torch.cosine_similarity(embedded[:, None], detector.text[None], dim=2)
    torch.testing.assert_close(odd, ((cosines[:, 1] - cosines[:, 0]) / 0.07).sigmoid())
    detector.text = detector.text.flip(0)
    torch.testing.assert_close(detector.in_words(embedded), 1 - odd)


def test_references_are_near_themselves_and_what_is_odd_is_not() -> None:
    detector = fitted(shots=6)
    assert detector.get_buffer("references_1").shape == (6 * 16, 192)
    assert detector.get_buffer("references_3").shape == (6 * 4, 1000)
    images = discs(6)
    images[0, 24:40, 24:40] = [20, 20, 230]
    with torch.no_grad():
        scores = detector(in_colour(images))
    assert scores.map is not None and scores.map.shape == (6, 4, 4)
    torch.testing.assert_close(scores.image[1:], torch.full((5,), 0.25), rtol=0, atol=1e-4)  # words say 0.5
    assert scores.image[0] > 0.251
    torch.testing.assert_close(scores.map[1:], torch.full((5, 4, 4), 0.25), rtol=0, atol=1e-4)


def test_a_few_are_drawn_and_without_any_words_decide() -> None:
    few = fitted(shots=2)
    assert few.get_buffer("references_1").shape == (2 * 16, 192)
    none = fitted(shots=0)
    none.text = torch.randn(2, 1000)
    with torch.no_grad():
        images = in_colour(discs(2))
        scores = none(images)
        whole, _, *sized = none.embedded(images)
        said = [none.spread(none.in_words(each), k) for k, each in zip((2, 3), sized, strict=True)]
    torch.testing.assert_close(scores.image, none.in_words(whole))
    wanted = 3 / (1 / scores.image[:, None] + 1 / said[0] + 1 / said[1])
    assert scores.map is not None
    torch.testing.assert_close(scores.map.flatten(1), wanted)


def test_only_what_is_drawn_is_embedded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows are hundreds of passes of the network for each image."""
    seen: list[int] = []
    embedded = WinCLIP.embedded

    def counted(detector: WinCLIP, images: Tensor) -> tuple[Tensor, ...]:
        seen.append(len(images))
        return embedded(detector, images)

    monkeypatch.setattr(WinCLIP, "embedded", counted)
    detector = fitted(shots=2)
    assert seen == [1, 1]
    with torch.no_grad():
        _, patches, twos, _ = embedded(detector, in_colour(discs(6)))
    for k, each in ((1, patches), (2, twos)):
        found = detector.get_buffer(f"references_{k}").unflatten(0, (2, -1))  # (2, W, E)
        apart = (found[:, None] - each[None]).abs().amax((2, 3))  # (2, 6)
        assert float(apart.amin(1).max()) < 1e-4 and len(apart.argmin(1).unique()) == 2
    assert not list(built(shots=0).phases())


def test_phrases_are_composed() -> None:
    normal, odd = prompts(NORMAL, "printed circuit board"), prompts(ODD, "printed circuit board")
    assert (len({*normal}), len({*odd})) == (7 * 22, 4 * 22)
    assert "a blurry photo of the flawless printed circuit board." in normal
    assert "a photo of a small printed circuit board with damage." in odd


def test_without_the_extra_an_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "open_clip", None)
    with pytest.raises(OkngError, match=r"open_clip_torch is not installed.*clip"):
        phrases("ViT-B-32", "none.pth", "object")


@pytest.mark.skipif(importlib.util.find_spec("open_clip") is None, reason="needs the extra clip")
def test_one_file_fills_both_towers_and_the_image_tower_is_open_clips(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Random weights of a small CLIP: the same embeddings of images and of words as open_clip has."""
    import open_clip

    torch.manual_seed(0)
    vision = {"image_size": 64, "patch_size": 16, "head_width": 64, "width": 256, "layers": 10}

    def clip(name: str) -> Any:
        return open_clip.CLIP(512, vision, {"width": 64, "heads": 2, "layers": 1})

    towers = clip("small").eval()
    path = tmp_path / "clip.pth"
    torch.save(towers.state_dict(), path)
    monkeypatch.setattr(open_clip, "create_model", clip)
    monkeypatch.setattr(open_clip, "get_tokenizer", lambda name: open_clip.SimpleTokenizer())
    tower = ImageTower("vit_xsmall_patch16_clip_224", (64, 64), str(path)).eval()
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        ours, theirs = tower.encoded(tower.tokens(images))[0], towers.encode_image((images - tower.mean) / tower.std)
        wanted = towers.encode_text(open_clip.SimpleTokenizer()(prompts(ODD, "nut"))).mean(0)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(phrases("small", str(path), "nut")[1], wanted, rtol=1e-4, atol=1e-5)
    with pytest.raises(OkngError, match="lack"):
        ImageTower("vit_tiny_patch16_224", (64, 64), str(path))


@pytest.mark.parametrize(
    "arguments",
    [
        {"backbone": "efficientnet_lite0"},
        {"weights": "imagenet"},
        {"weights": "x.pth"},
        {"scales": (9,)},
        {"scales": ()},
    ],
)
def test_ranges(arguments: dict[str, object]) -> None:
    with pytest.raises(OkngError, match="winclip: "):
        built(**arguments)
