"""What tells R-KDE from a toy: boxes of things, one network's features of each, kernels at those of OK images."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tests.detectors.scenes import discs, in_colour
from torch import Tensor, nn
from torchvision import ops
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.ops import FrozenBatchNorm2d

import okng
from okng.detectors.catalogue import create
from okng.detectors.feature_matching import rkde
from okng.detectors.feature_matching.rkde import RKDE, drawn
from okng.errors import OkngError
from okng.inspection.reading.images import Preprocess
from okng.training.images.data import TrainingImages
from okng.training.loop.phases import run_phases

SMALL = {"weights": "none", "depth": 18, "proposals": 15, "smallest": 8}


def built(**arguments: object) -> RKDE:
    torch.manual_seed(0)
    detector = create("rkde", **{**SMALL, **arguments})
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
    detector, image = built(), in_colour(discs(1))[0]
    asked = suppressed(monkeypatch)
    monkeypatch.setattr(detector.net.roi_heads, "postprocess_detections", None)  # which has the other one
    with torch.no_grad():
        detector.regions(image)
    ((_, likely),) = asked
    assert len(likely) > 15  # more than it proposes, for each is several classes' box
    assert float(likely.min()) > 1e-3


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


def test_what_comes_before_the_kernels_is_torchvisions_own() -> None:
    """Its model of the same weights, made by its own transform and asked to suppress nothing."""
    detector, image = built(), in_colour(discs(1, seed=3))[0]
    body = resnet_fpn_backbone(backbone_name="resnet18", weights=None)
    its = FasterRCNN(
        body, 91, min_size=64, max_size=64, rpn_post_nms_top_n_test=15,
        box_score_thresh=1e-3, box_nms_thresh=1.0, box_detections_per_img=10_000,
    ).eval()  # fmt: skip
    its.load_state_dict(detector.net.state_dict())
    steps = [watched(net) for net in (its, detector.net)]
    with torch.no_grad(), pytest.MonkeyPatch.context() as patched:
        (found,) = its([image])
        asked = suppressed(patched)
        detector.regions(image)
    for step, expected in steps[0].items():
        for one, other in zip(steps[1][step][0], expected[0], strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5, msg=lambda text, step=step: f"{step}: {text}")
    (boxes, likely), large = asked[0], (found["boxes"][:, 2:] - found["boxes"][:, :2]).amin(1) >= 8
    expected = torch.cat([found["boxes"], 1e3 * found["scores"][:, None]], 1)[large]  # (R, 5)
    ours = torch.cat([boxes, 1e3 * likely[:, None]], 1)
    assert len(ours) == len(expected) > 500 and float(ours.std(0).min()) > 0.1
    nearest = torch.cdist(ours, expected, compute_mode="donot_use_mm_for_euclid_dist")  # in whatever order
    assert float(nearest.amin(0).max()) < 1e-2 and float(nearest.amin(1).max()) < 1e-2


def watched(net: nn.Module) -> dict[str, list[list[Tensor]]]:
    """What a Faster R-CNN is going to make, each time: its normalised input, levels, proposals, and logits, offsets."""
    made: dict[str, list[list[Tensor]]] = {"normalised": [], "levels": [], "proposals": [], "predicted": []}
    net.backbone.register_forward_pre_hook(lambda _, given: made["normalised"].append([given[0]]))
    net.backbone.register_forward_hook(lambda _, __, levels: made["levels"].append(list(levels.values())))
    net.rpn.register_forward_hook(lambda _, __, found: made["proposals"].append(found[0]))
    net.roi_heads.box_predictor.register_forward_hook(lambda _, __, found: made["predicted"].append(list(found)))
    return made


def suppressed(patched: pytest.MonkeyPatch) -> list[tuple[Tensor, Tensor]]:
    """The boxes, and how likely each is, that are going to be handed to the suppression, each time."""
    asked: list[tuple[Tensor, Tensor]] = []
    own = ops.nms

    def noted(boxes: Tensor, likely: Tensor, overlap: float) -> Tensor:
        asked.append((boxes, likely))
        return own(boxes, likely, overlap)

    patched.setattr(ops, "nms", noted)
    return asked


def test_the_feature_of_a_box_is_its_own(fitted: RKDE) -> None:
    image = in_colour(discs(1, seed=3))[0]
    with torch.no_grad():
        boxes, features = fitted.regions(image)
        levels = fitted.net.backbone(((image - fitted.mean) / fitted.std)[None])
        order = torch.randperm(len(boxes), generator=torch.Generator().manual_seed(1))
        shuffled = fitted.described(levels, boxes[order], (64, 64))
        alone = torch.cat([fitted.described(levels, box[None], (64, 64)) for box in boxes])
    apart = torch.cdist(features, features).fill_diagonal_(torch.inf).min()
    for found in (shuffled - features[order], alone - features):
        assert float(found.norm(dim=1).max()) < 1e-2 * float(apart)


@pytest.fixture
def blind(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the dark the network finds nothing; random weights find something anywhere."""
    own = RKDE.regions

    def regions(self: RKDE, image: Tensor) -> tuple[Tensor, Tensor]:
        return own(self, image) if image.mean() > 0.1 else (image.new_zeros(0, 4), image.new_zeros(0, 1024))

    monkeypatch.setattr(RKDE, "regions", regions)


def dark(count: int, seed: int = 0) -> np.ndarray:
    """Images with nothing but noise, uint8 (count, 64, 64, 3)."""
    return np.random.default_rng(seed).integers(0, 20, (count, 64, 64, 3), np.uint8)


@pytest.mark.parametrize(("empty", "verdict"), [(0, "NG"), (6, "OK")])
def test_an_empty_image_is_ng_unless_ok_images_often_are(blind: None, empty: int, verdict: str) -> None:
    """And either way a foreign thing is NG, and what was learnt OK."""
    nothing = dark(1, seed=5)[0]
    images = [*discs(16), *dark(empty)]
    inspector = okng.fit(images, "rkde", size=64, false_alarm_rate=0.1, holdout=0.6, **SMALL)
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    found = list(inspector.inspect([nothing, noise, *discs(4, seed=5)]))
    assert [one.verdict for one in found[:2]] == [verdict, "NG"]
    assert sum(one.verdict == "OK" for one in found[2:]) >= 3
    assert found[0].map is not None and found[0].map.min() == found[0].map.max() == found[0].score
    assert bool(found[0].regions) == (verdict == "NG") and json.loads(json.dumps(found[0].to_dict()))["score"] > 0


def test_an_image_without_a_box_is_as_odd_as_it_is_rare(blind: None) -> None:
    """As many of the others are odder, each by the kernels of all but its own regions."""
    images = in_colour(np.concatenate([discs(2, seed=3), dark(1, seed=5)]))
    detector, scores = built(), []
    for empty in (1, 6, 0):  # the last after others: nothing stays of them
        run_phases(detector, TrainingImages([*discs(4), *dark(empty)], Preprocess("RGB", 64, 32)), device="cpu")
        with torch.no_grad():
            found = detector(images)
        assert found.map is not None and bool((found.map[2] == found.image[2]).all())
        scores.append(found.image)
    for each in scores:
        torch.testing.assert_close(each[:2], scores[0][:2])  # of what has boxes, nothing changes
    with torch.no_grad():
        features, there = detector.features(images)
        assert there.any(1).tolist() == [True, True, False] and not features[2].any()
        density = detector.density
        known = [(detector.regions(image)[1] - density.mean) @ density.whitening for image in in_colour(discs(4))]
    others = []
    for i, own in enumerate(known):
        there = torch.cat(known[:i] + known[i + 1 :])
        kernels = torch.exp(-torch.cdist(own.double(), there.double()).square() / 2)  # (R, N - R)
        others.append(float(-kernels.mean(1).log().min()))
    others.sort()
    assert [float(each[2]) for each in scores] == pytest.approx([others[3], others[2], 2 * others[3]], rel=1e-3)


def test_one_empty_image_among_the_held_out_blinds_nobody(blind: None) -> None:
    """Where one rank is all that the rate allows, the oddest OK image sets the threshold."""
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    for seed in range(3):
        images = [*discs(16), *dark(1)]
        inspector = okng.fit(images, "rkde", size=64, false_alarm_rate=0.1, holdout=0.6, seed=seed, **SMALL)
        (found,) = inspector.inspect([noise])
        assert found.verdict == "NG", seed


def test_how_rare_an_empty_image_is_does_not_hang_on_how_many_regions_have_a_kernel(
    blind: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of every image all regions are scored, those without a kernel too."""
    images = [*discs(12), *dark(3)]
    monkeypatch.setattr(rkde, "KEPT", 24)  # of some 150
    detector = built()
    run_phases(detector, TrainingImages(images, Preprocess("RGB", 64, 32)), device="cpu")
    with torch.no_grad():
        others = detector(in_colour(discs(40, seed=9))).image
    assert float((others > detector.bare).float().mean()) < 0.5  # a fifth are without


def test_a_score_is_finite(fitted: RKDE, monkeypatch: pytest.MonkeyPatch) -> None:
    """Far away the density is 0, and its logarithm infinite."""
    far = (torch.tensor([[0.0, 0, 64, 64]]), torch.full((1, 1024), 1e25))
    monkeypatch.setattr(fitted, "regions", lambda _: far)
    with torch.no_grad():
        assert float(fitted(in_colour(discs(1))).image) == rkde.HIGHEST


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


def norms(detector: RKDE) -> set[float]:
    """The epsilons of the frozen normalisations."""
    return {layer.eps for layer in detector.net.modules() if isinstance(layer, FrozenBatchNorm2d)}


def test_weights_by_file_are_taken_whole_or_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    detector = built()
    path = tmp_path / "w.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in detector.net.state_dict().items()}, path)
    other = create("rkde", weights=str(path), depth=18)
    for name, tensor in detector.net.state_dict().items():
        assert torch.equal(other.net.state_dict()[name], tensor)
    assert norms(other) == {0.0} and norms(detector) == {FrozenBatchNorm2d(1).eps}  # as torchvision has either
    with pytest.raises(OkngError, match="rkde: weights: they are not of torchvision's Faster R-CNN with a ResNet-34"):
        create("rkde", weights=str(path), depth=34)
    monkeypatch.setattr(rkde, "source", lambda: ("https://127.0.0.1:9/w-0.pth", tmp_path / "hub" / "w-0.pth"))
    with pytest.raises(OkngError, match=r"rkde: weights: .* can't be downloaded; give weights=FILE"):
        create("rkde")


@pytest.mark.parametrize("arguments", [{"depth": 20}, {"proposals": 0}, {"smallest": 0}, {"components": 0}])
def test_ranges(arguments: dict[str, object]) -> None:
    with pytest.raises(OkngError, match=f"rkde: {next(iter(arguments))}"):
        create("rkde", **arguments)
