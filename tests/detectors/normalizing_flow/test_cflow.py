"""What tells CFLOW from a toy: exact conditional likelihoods, by place, of one image alone."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from tests.detectors.scenes import in_colour
from tests.nn.flows.exactness import assert_flow, disturbed

from okng.detectors.base import Batch, Collect, Train
from okng.detectors.catalogue import create
from okng.detectors.normalizing_flow.cflow import CFLOW, positional_code
from okng.errors import OkngError
from okng.inspection.reading.images import Preprocess
from okng.nn.flows.coupling import Flow, surprise
from okng.training.images.data import TrainingImages
from okng.training.loop.phases import run_phases


def built(**arguments: object) -> CFLOW:
    torch.manual_seed(0)
    small = {"strides": (8, 16), "blocks": 4, "condition": 16, "epochs": 20, "learning_rate": 2e-3}
    detector = create("cflow", **{**small, **arguments})
    assert isinstance(detector, CFLOW)
    return detector


def halves(count: int, seed: int = 0) -> np.ndarray:
    """Uint8 (count, 64, 64, 3): stripes on the left, plain on the right, with noise."""
    rng = np.random.default_rng(seed)
    x = np.arange(64)
    row = np.where(x < 32, 110 + 80 * np.sin(x * 1.2), 60)
    return (row[:, None] + rng.normal(0, 6, (count, 64, 64, 3))).clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def fitted() -> CFLOW:
    detector = built()
    run_phases(detector, TrainingImages(list(halves(32)), Preprocess("RGB", (64, 64), 16)), device="cpu")
    return detector


def test_a_whole_flow_is_exact_under_every_condition() -> None:
    flow = built().flows[0]
    assert isinstance(flow, Flow)
    assert_flow(disturbed(flow, by=0.05), (40,), (16,))


def test_the_code_tells_every_place() -> None:
    code = positional_code(128, 5, 7)
    assert code.shape == (35, 128) and len(code.unique(dim=0)) == 35
    grid = code.view(5, 7, 128)
    assert torch.equal(grid[0, :, :64], grid[4, :, :64]) and torch.equal(grid[:, 0, 64:], grid[:, 6, 64:])
    for i, angle in ((0, 3.0), (10, 3 * 10_000 ** (-20 / 64))):  # the third column's i-th sine and cosine
        torch.testing.assert_close(grid[2, 3, 2 * i : 2 * i + 2], torch.tensor([math.sin(angle), math.cos(angle)]))
    torch.testing.assert_close(grid[2, 3, 64], torch.tensor(math.sin(2)))


def test_likelihoods_are_each_vectors_own() -> None:
    detector = built()
    with torch.no_grad():
        features = detector.backbone(in_colour(halves(2)))
        found = detector.log_likelihoods(features)
    assert [f.shape for f in found] == [(2, 1, 8, 8), (2, 1, 4, 4)]
    code = positional_code(16, 8, 8)[8 * 5 + 2]
    with torch.no_grad():
        alone = -surprise(*detector.flows[0](features[0][1, :, 5, 2][None], code[None])) / 40
    torch.testing.assert_close(found[0][1, 0, 5, 2], alone[0])


def test_the_loss_is_the_softplus_of_the_surprise_per_dimension() -> None:
    detector, images = built(), in_colour(halves(2))
    with torch.no_grad():
        prepared = tuple(detector.backbone(images))
        losses = detector.loss(Batch(images, torch.arange(2), prepared))
        found = detector.log_likelihoods(prepared)
    assert list(losses) == ["stride 8", "stride 16"]
    for value, likelihoods in zip(losses.values(), found, strict=True):
        torch.testing.assert_close(value, torch.logaddexp(torch.zeros(()), -likelihoods).mean())


def test_a_place_counts_after_training(fitted: CFLOW) -> None:
    """What is OK on the right is odd on the left: the same vectors, told apart by the condition alone."""
    with torch.no_grad():
        pyramid = fitted.backbone(in_colour(halves(8, seed=1)))
        here = fitted.log_likelihoods(pyramid)[0][..., 5:7]
        there = fitted.log_likelihoods([f.flip(3) for f in pyramid])[0][..., 1:3]  # the same columns, mirrored
    assert (here.mean((1, 2, 3)) > there.mean((1, 2, 3))).all()
    mirrored = in_colour(halves(8, seed=1)).flip(3)
    with torch.no_grad():
        assert fitted(mirrored).image.min() > fitted(in_colour(halves(8, seed=1))).image.max()


def test_the_constant_is_the_highest_likelihood_of_what_was_learnt(fitted: CFLOW) -> None:
    with torch.no_grad():
        found = fitted.log_likelihoods(fitted.backbone(in_colour(halves(32))))
    torch.testing.assert_close(fitted.likeliest, torch.stack([f.amax() for f in found]), rtol=1e-4, atol=1e-4)


def test_other_images_change_no_score(fitted: CFLOW) -> None:
    """A likelier image beside it does: the maximum over a batch, or over a test set, leaks."""
    images, flat = in_colour(halves(2, seed=2)), torch.full((2, 3, 64, 64), 0.3)
    with torch.no_grad():
        alone, beside = fitted(images), fitted(torch.cat([images, flat]))
    torch.testing.assert_close(beside.image[:2], alone.image, rtol=1e-4, atol=1e-5)
    assert alone.map is not None
    torch.testing.assert_close(beside.map[:2], alone.map, rtol=1e-4, atol=1e-4)


def test_the_map_has_the_order_of_the_summed_likelihoods(fitted: CFLOW) -> None:
    images = in_colour(halves(2, seed=2))
    with torch.no_grad():
        scores = fitted(images)
        fine, coarse = fitted.log_likelihoods(fitted.backbone(images))
        coarse = torch.nn.functional.interpolate(
            (coarse - fitted.likeliest[1]).exp(), (8, 8), mode="bilinear", align_corners=False
        )
        mean = ((fine - fitted.likeliest[0]).exp() + coarse)[:, 0] / 2
    assert scores.map is not None
    torch.testing.assert_close(scores.map, -mean.log())
    assert torch.equal(scores.image, scores.map.amax((1, 2)))


def test_paper_size() -> None:
    """The strides of wide_resnet50_2's last three stages, by a smaller network of the same strides."""
    detector = CFLOW(backbone="resnet18", weights="none").eval()
    train, collect = detector.phases()
    assert isinstance(train, Train) and isinstance(collect, Collect) and train.epochs == 200
    (update,) = train.updates
    assert update.optimizer.defaults["lr"] == 2e-4 and update.schedule is not None
    factors = [update.schedule(share) for share in (0.0, 0.08, 0.5, 0.999)]
    assert factors == pytest.approx([0.1, 0.984, 0.5, 0.0], abs=1e-3)
    assert [len(flow.flows) for flow in detector.flows] == [8, 8, 8]  # type: ignore[arg-type]
    first = detector.flows[2].flows[0].flows[0].network[0]  # type: ignore[union-attr,index]
    assert (first.in_features, first.out_features) == (256 + 128, 2 * (256 + 128))
    with torch.no_grad():
        scores = detector(torch.rand(1, 3, 256, 256))
    assert scores.map is not None and scores.map.shape == (1, 32, 32)


@pytest.mark.parametrize("arguments", [{"condition": 6}, {"condition": 0}, {"clamp": 0.0}])
def test_ranges(arguments: dict[str, object]) -> None:
    with pytest.raises(OkngError, match="cflow: "):
        create("cflow", weights="none", **arguments)
