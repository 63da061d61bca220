"""What tells R-KDE from a toy: boxes of things, one network's features of each, kernels at those of OK images."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tests.detectors.scenes import discs, in_colour
from torch import Tensor

from okng.detectors.catalogue import create
from okng.detectors.feature_matching import rkde
from okng.detectors.feature_matching.rkde import RKDE, drawn
from okng.errors import OkngError
from okng.inspection.images import Preprocess
from okng.training.data import TrainingImages
from okng.training.phases import run_phases


def built(**arguments: object) -> RKDE:
    torch.manual_seed(0)
    small = {"weights": "none", "depth": 18, "proposals": 15, "smallest": 8}
    detector = create("rkde", **{**small, **arguments})
    assert isinstance(detector, RKDE)
    return detector.eval()


def learn(detector: RKDE, count: int = 6) -> RKDE:
    run_phases(detector, TrainingImages(list(discs(count)), Preprocess("RGB", 64, 32)), device="cpu")
    return detector


@pytest.fixture(scope="module")
def fitted() -> RKDE:
    return learn(built())


def overlaps(boxes: Tensor) -> Tensor:
    """Intersection over union of each two of `boxes` (R, 4)."""
    least, most = torch.maximum(boxes[:, None, :2], boxes[:, :2]), torch.minimum(boxes[:, None, 2:], boxes[:, 2:])
    both = (most - least).clamp_min(0).prod(2)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    return both / (areas[:, None] + areas - both)


def test_boxes_are_large_enough_apart_and_within_the_image(fitted: RKDE) -> None:
    image = in_colour(discs(1, seed=3))[0]
    with torch.no_grad():
        boxes, features = fitted.regions(image)
    assert len(boxes) > 3 and features.shape == (len(boxes), 1024)
    assert float(boxes.min()) >= 0 and float(boxes.max()) <= 64
    assert float((boxes[:, 2:] - boxes[:, :2]).min()) >= 8
    assert float(overlaps(boxes).fill_diagonal_(0).max()) <= 0.3 + 1e-6


def test_each_class_may_have_a_box_and_the_networks_own_choice_is_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """Boxes of all classes contend with each other, in one call of ours; the network's own is by class."""
    from torchvision import ops

    detector, image = built(), in_colour(discs(1))[0]
    asked: list[Tensor] = []
    own = ops.nms

    def watched(boxes: Tensor, likely: Tensor, overlap: float) -> Tensor:
        asked.append(likely)
        return own(boxes, likely, overlap)

    monkeypatch.setattr(ops, "nms", watched)
    monkeypatch.setattr(detector.net.roi_heads, "postprocess_detections", None)  # which has the other one
    with torch.no_grad():
        detector.regions(image)
    assert len(asked) == 1 and len(asked[0]) > 15  # more than it proposes, for each is several classes' box
    assert float(asked[0].min()) > 1e-3


def test_the_score_is_that_of_the_oddest_region_whatever_their_order(
    fitted: RKDE, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = in_colour(discs(1, seed=3))
    with torch.no_grad():
        boxes, features = fitted.regions(image[0])
        scores, whole = fitted.density(features), fitted(image)
        assert float(whole.image[0]) == pytest.approx(float(scores.max()), rel=1e-5)
        order = torch.randperm(len(boxes), generator=torch.Generator().manual_seed(1))
        monkeypatch.setattr(fitted, "regions", lambda _: (boxes[order], features[order]))
        shuffled = fitted(image)
    torch.testing.assert_close(shuffled.image, whole.image)
    torch.testing.assert_close(shuffled.map, whole.map)


def test_a_cell_has_the_highest_score_of_the_boxes_that_cover_it() -> None:
    boxes = torch.tensor([[0.0, 0, 16, 16], [8, 8, 32, 20], [40, 0, 47, 3]])
    found = drawn(boxes, torch.tensor([2.0, 5.0, 7.0]), (32, 48))
    assert found.shape == (8, 12)
    expected = torch.zeros(8, 12)
    expected[:4, :4] = 2
    expected[2:5, 2:8] = 5
    expected[0, 10:12] = 7
    assert torch.equal(found, expected)
    assert torch.equal(drawn(boxes[:0], torch.zeros(0), (32, 48)), torch.zeros(8, 12))


def test_an_image_without_a_box_gives_no_evidence_which_is_the_lowest_score(fitted: RKDE) -> None:
    images = in_colour(discs(2, seed=3))
    fitted.smallest = 65  # more than there is
    try:
        with torch.no_grad():
            scores = fitted(images)
            features, there = fitted.features(images)
    finally:
        fitted.smallest = 8
    assert torch.equal(scores.image, torch.zeros(2)) and scores.map is not None and not scores.map.any()
    assert not there.any() and not features.any()
    with torch.no_grad():
        assert bool((fitted(images).image > 0).all())


def test_where_no_ok_image_has_a_box_it_says_so() -> None:
    with pytest.raises(OkngError, match="no region of 65 px or more on any OK image"):
        learn(built(smallest=65), 2)


def test_kernels_are_at_the_regions_of_all_ok_images(fitted: RKDE) -> None:
    images = in_colour(discs(6))
    with torch.no_grad():
        each = [fitted.regions(image)[1] for image in images]
        told = [fitted.density(features) for features in each]
    assert len(fitted.density.references) == sum(map(len, each))
    highest = torch.log(torch.tensor(float(len(fitted.density.references))))  # of a place that has one kernel
    assert float(torch.cat(told).max()) <= float(highest) + 1e-3


def test_weights_by_file_are_taken_whole_or_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    detector = built()
    path = tmp_path / "w.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in detector.net.state_dict().items()}, path)
    other = create("rkde", weights=str(path), depth=18)
    for name, tensor in detector.net.state_dict().items():
        assert torch.equal(other.net.state_dict()[name], tensor)
    with pytest.raises(OkngError, match="rkde: weights: they are not of torchvision's Faster R-CNN with a ResNet-34"):
        create("rkde", weights=str(path), depth=34)
    monkeypatch.setattr(rkde, "source", lambda: ("https://127.0.0.1:9/w-0.pth", tmp_path / "hub" / "w-0.pth"))
    with pytest.raises(OkngError, match=r"rkde: weights: .* can't be downloaded; give weights=FILE"):
        create("rkde")


@pytest.mark.parametrize("arguments", [{"depth": 20}, {"proposals": 0}, {"smallest": 0}, {"components": 0}])
def test_ranges(arguments: dict[str, object]) -> None:
    with pytest.raises(OkngError, match=f"rkde: {next(iter(arguments))}"):
        create("rkde", **arguments)
