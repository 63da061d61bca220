"""What tells FastFlow from a toy: exact likelihoods of whole maps, whose layout is kept."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.detectors.scenes import in_colour, textures
from tests.nn.flows.exactness import assert_flow, disturbed

from okng.detectors.base import Batch, Train
from okng.detectors.catalogue import create
from okng.detectors.normalizing_flow.fastflow import FastFlow
from okng.errors import OkngError
from okng.inspection.reading.images import Preprocess
from okng.nn.flows.convolutional_flow import PositionAffine
from okng.nn.flows.coupling import Sequence, surprise
from okng.training.images.data import TrainingImages
from okng.training.loop.phases import run_phases


def built(**arguments: object) -> FastFlow:
    torch.manual_seed(0)
    small = {"image_size": (64, 64), "strides": (8, 16), "flow_steps": 4, "batch_size": 8, "epochs": 30}
    detector = create("fastflow", **{**small, **arguments})
    assert isinstance(detector, FastFlow)
    return detector


@pytest.fixture(scope="module")
def fitted() -> FastFlow:
    detector = built()
    run_phases(detector, TrainingImages(list(textures(32)), Preprocess("RGB", (64, 64), 16)), device="cpu")
    return detector


@pytest.mark.parametrize("kernels", [(3, 1), (3,), (1, 5)])
def test_a_whole_flow_is_exact(kernels: tuple[int, ...]) -> None:
    """Of the smallest maps: 24 channels at stride 4, here 2 · 1 places."""
    detector = built(strides=(4,), image_size=(64, 64), flow_steps=3, kernels=kernels)
    (flow,) = detector.flows
    assert isinstance(flow, Sequence)
    flow.flows[0] = PositionAffine(24, 2, 1)
    assert_flow(disturbed(flow, by=0.1), (24, 2, 1))


def test_convolutions_alternate() -> None:
    (flow, _) = built(flow_steps=4).flows
    assert isinstance(flow, Sequence)
    sides = [step.flows[0].network[0].kernel_size for step in list(flow.flows)[1:]]  # type: ignore[union-attr,index,arg-type]
    assert sides == [(3, 3), (1, 1), (3, 3), (1, 1)]


def test_every_image_is_normalised_as_a_whole() -> None:
    detector = built()
    with torch.no_grad():
        for features in detector.normalised(in_colour(textures(3))):
            flat = features.flatten(1)
            torch.testing.assert_close(flat.mean(1), torch.zeros(3), rtol=0, atol=1e-4)
            torch.testing.assert_close(flat.var(1, correction=0), torch.ones(3), rtol=1e-2, atol=0)


def test_the_loss_is_the_surprise_of_all_values(fitted: FastFlow) -> None:
    """With the logarithm of the normalisation's own scale: half of it is log 2 more surprising for each value."""
    images = in_colour(textures(2, seed=1))
    with torch.no_grad():
        prepared = tuple(fitted.normalised(images))
        losses = fitted.loss(Batch(images, torch.arange(2), prepared))
        assert list(losses) == ["stride 8", "stride 16"]
        for value, flow, features in zip(losses.values(), fitted.flows, prepared, strict=True):
            torch.testing.assert_close(value, surprise(*flow(features)).mean())


def test_a_fitted_flow_makes_unseen_ok_images_standard_normal(fitted: FastFlow) -> None:
    with torch.no_grad():
        for flow, features in zip(fitted.flows, fitted.normalised(in_colour(textures(16, seed=1))), strict=True):
            assert 0.7 < float(flow(features)[0].square().mean()) < 1.6


def test_the_map_follows_a_defect_by_a_stride() -> None:
    """Before training, when no position is special: a spot moved by 16 pixels moves the peak by two cells of 8."""
    detector = built(image_size=(128, 128))
    plain = np.full((1, 128, 128, 3), 120, np.uint8)
    peaks = []
    for x in (48, 64):
        spotted = plain.copy()
        spotted[:, 64:72, x : x + 8] = [250, 10, 10]
        with torch.no_grad():
            odd, normal = detector(in_colour(spotted)).map, detector(in_colour(plain)).map
        peaks.append(divmod(int((odd - normal).abs()[0].argmax()), 16))
    assert peaks[1][1] - peaks[0][1] == 2 and peaks[1][0] == peaks[0][0]


def test_the_map_has_the_order_of_the_mean_probability(fitted: FastFlow) -> None:
    images = in_colour(textures(2, seed=2))
    with torch.no_grad():
        scores = fitted(images)
        mean = torch.zeros(2, 8, 8)
        for flow, features in zip(fitted.flows, fitted.normalised(images), strict=True):
            probability = (-0.5 * flow(features)[0].square().mean(1, keepdim=True)).exp()
            mean += torch.nn.functional.interpolate(probability, (8, 8), mode="bilinear", align_corners=False)[:, 0] / 2
    assert scores.map is not None
    torch.testing.assert_close(scores.map, -mean.log())
    assert torch.equal(scores.image, scores.map.amax((1, 2)))


def test_it_finds_what_is_odd_and_where(fitted: FastFlow) -> None:
    images = textures(4, seed=3)
    spoilt = images.copy()
    spoilt[:, 24:40, 32:48] = spoilt[:, 24:40, 32:48].transpose(0, 2, 1, 3)  # stripes that lie
    with torch.no_grad():
        normal, odd = fitted(in_colour(images)), fitted(in_colour(spoilt))
    assert odd.image.min() > normal.image.max()
    for drawn in odd.map:
        y, x = divmod(int(drawn.argmax()), 8)
        assert 2 <= y <= 5 and 3 <= x <= 6


def test_paper_size() -> None:
    """ResNet-18 at 256 px, 3 × 3 alone, and the optimiser of the public implementations."""
    detector = FastFlow(backbone="resnet18", weights="none", kernels=(3,)).eval()
    (phase,) = detector.phases()
    assert isinstance(phase, Train) and (phase.epochs, phase.batch_size) == (500, 32)
    defaults = phase.updates[0].optimizer.defaults
    assert (defaults["lr"], defaults["weight_decay"]) == (1e-3, 1e-5)
    assert [flow.flows[0].weight.shape for flow in detector.flows] == [(64, 64, 64), (128, 32, 32), (256, 16, 16)]  # type: ignore[union-attr,index]
    assert all(len(flow.flows) == 1 + 8 for flow in detector.flows)  # type: ignore[arg-type]
    with torch.no_grad():
        scores = detector(torch.rand(1, 3, 256, 256))
    assert scores.map is not None and scores.map.shape == (1, 64, 64)


@pytest.mark.parametrize("arguments", [{"kernels": (2,)}, {"kernels": ()}, {"ratio": 0.0}, {"clamp": 0.0}])
def test_ranges(arguments: dict[str, object]) -> None:
    with pytest.raises(OkngError, match="fastflow: "):
        create("fastflow", weights="none", **arguments)
