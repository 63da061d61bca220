"""What tells DifferNet from a toy: an exact flow, features of several scales, every angle, a map by gradients."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from tests.detectors.scenes import in_colour
from tests.nn.flows.exactness import assert_flow, disturbed

from okng.detectors.base import Batch, Train
from okng.detectors.catalogue import create
from okng.detectors.normalizing_flow import differnet
from okng.detectors.normalizing_flow.differnet import DifferNet, rotated
from okng.errors import OkngError
from okng.inspection.reading.images import Preprocess
from okng.nn.flows.coupling import AffineCoupling, Sequence, surprise
from okng.nn.images.blur import gaussian_blur
from okng.training.images.data import TrainingImages
from okng.training.loop.phases import run_phases


def built(**arguments: object) -> DifferNet:
    torch.manual_seed(0)
    small = {
        "stride": 16, "scales": 2, "blocks": 2, "hidden": 32, "training_rotations": 2, "test_rotations": 4,
        "batch_size": 4, "epochs": 20, "learning_rate": 2e-3,
    }  # fmt: skip
    detector = create("differnet", **{**small, **arguments})
    assert isinstance(detector, DifferNet)
    return detector


def discs(count: int, seed: int = 0, spot: bool = False) -> np.ndarray:
    """Uint8 (count, 64, 64, 3): a bright disc with noise; with `spot` a dark red place in it."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:64, :64] - 31.5
    made = np.where(x**2 + y**2 < 24**2, 190.0, 40.0)[None, :, :, None] + rng.normal(0, 8, (count, 64, 64, 3))
    if spot:
        made[:, 36:46, 16:26] = [120, 10, 10]
    return made.clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def fitted() -> DifferNet:
    detector = built()
    run_phases(detector, TrainingImages(list(discs(24)), Preprocess("RGB", (64, 64), 16)), device="cpu")
    return detector


def test_a_whole_flow_is_exact() -> None:
    detector = built(stride=4, scales=1, blocks=3)
    assert_flow(disturbed(detector.flow, by=0.05), (24,))


def test_each_block_transforms_both_halves() -> None:
    """The first half by the second, then the second by the new first: no dimension of 25 is left as it was."""
    flow = built(stride=4, scales=1, blocks=1).flow
    first, second = list(flow.flows)[1:]
    assert isinstance(first, AffineCoupling) and isinstance(second, AffineCoupling) and first.first and not second.first
    x = torch.randn(2, 24, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        z, _ = Sequence(first, second)(x)
    assert (z != x).all()


def test_features_of_every_scale_are_averaged_over_places() -> None:
    detector, images = built(), in_colour(discs(2))
    with torch.no_grad():
        found = detector.pooled(images)
        (whole,), (half,) = detector.backbone(images), detector.backbone(images[:, :, ::2, ::2])
    torch.testing.assert_close(found, torch.cat([whole.mean((2, 3)), half.mean((2, 3))], 1))


@pytest.mark.parametrize("shape", [(8, 8), (6, 10)])
def test_rotations(shape: tuple[int, int]) -> None:
    """By whole quarters where the sides are alike, by a half for any; a turn on the way is one of pixels, not of
    sides: what lies 2 px right of the middle comes to lie 2 px above or below.
    """
    images = torch.rand(1, 3, *shape, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(rotated(images, torch.tensor([0.0])), images)
    half = rotated(images, torch.tensor([math.pi]))
    torch.testing.assert_close(half, images.flip(2, 3), rtol=0, atol=1e-5)
    if shape[0] == shape[1]:
        quarter = rotated(images, torch.tensor([math.pi / 2]))
        torch.testing.assert_close(quarter, images.rot90(1, (2, 3)), rtol=0, atol=1e-5)
    dot = torch.zeros(1, 1, 21, 41)
    dot[0, 0, 10, 24] = 1  # 4 px right of the middle
    turned = rotated(dot, torch.tensor([math.pi / 2]))[0, 0]
    assert divmod(int(turned.argmax()), 41) in [(6, 20), (14, 20)] and float(turned.max()) > 0.99


def test_angles_are_drawn_from_the_generator_alone() -> None:
    detector, image = built(training_rotations=3), in_colour(discs(1))[0]
    one, same = (detector.turn(image, torch.Generator().manual_seed(1)) for _ in range(2))
    other = detector.turn(image, torch.Generator().manual_seed(2))
    assert one.shape == (3, 3, 64, 64) and torch.equal(one, same) and not torch.equal(one, other)
    assert not torch.equal(one[0], one[1])


def test_the_loss_is_the_surprise_per_dimension() -> None:
    detector, views = built(), torch.rand(2, 3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        loss = detector.loss(Batch(views[:, 0], torch.arange(2), views=(views,)))
        z, volume = detector.flow(detector.pooled(views.view(6, 3, 64, 64)))
    torch.testing.assert_close(loss, surprise(z, volume).mean() / z.shape[1])


def test_the_score_is_the_mean_square_over_angles(fitted: DifferNet, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the volume; however many are turned at once. Two angles are a quarter and three."""
    images = in_colour(discs(2, seed=2))
    with torch.no_grad():
        whole = fitted(images)
        for together in (1, 3):
            monkeypatch.setattr(differnet, "TOGETHER", together)
            torch.testing.assert_close(fitted(images).image, whole.image, rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(fitted(images).map, whole.map, rtol=1e-2, atol=1e-3 * float(whole.map.max()))
        monkeypatch.setattr(fitted, "test_rotations", 3)
        turned = torch.stack([rotated(images, torch.full((2,), math.pi * part / 3)) for part in (1, 3, 5)])
        each = [fitted.flow(fitted.pooled(one))[0].square().mean(1) for one in turned]
        torch.testing.assert_close(fitted(images).image, torch.stack(each).mean(0), rtol=1e-3, atol=1e-4)
        monkeypatch.setattr(fitted, "test_rotations", 2)
        each = [fitted.flow(fitted.pooled(images.rot90(turn, (2, 3))))[0].square().mean(1) for turn in (1, 3)]
        torch.testing.assert_close(fitted(images).image, torch.stack(each).mean(0), rtol=1e-3, atol=1e-4)


def test_a_fitted_flow_makes_unseen_ok_images_standard_normal(fitted: DifferNet) -> None:
    with torch.no_grad():
        assert 0.5 < float(fitted(in_colour(discs(16, seed=1))).image.mean()) < 2


def test_it_finds_what_is_odd(fitted: DifferNet) -> None:
    with torch.no_grad():
        normal, odd = fitted(in_colour(discs(4, seed=3))).image, fitted(in_colour(discs(4, seed=3, spot=True))).image
    assert odd.min() > normal.max()


def test_the_map_is_the_gradient_turned_back(fitted: DifferNet, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the loss of each turned image by itself, smoothed, without sign, so that colours do not cancel; the mean over
    colours and angles squared.
    """
    monkeypatch.setattr(fitted, "test_rotations", 2)  # a quarter and three
    images, total = in_colour(discs(2, seed=3, spot=True)), torch.zeros(2, 64, 64)
    for turn in (1, 3):
        leaf = images.rot90(turn, (2, 3)).requires_grad_()
        features = fitted.pooled(leaf)
        (gradient,) = torch.autograd.grad(surprise(*fitted.flow(features)).sum() / features.shape[1], leaf)
        colours = gradient.rot90(-turn, (2, 3)).unbind(1)
        total += torch.stack([gaussian_blur(colour, 3.0).abs() for colour in colours]).mean(0) / 2
    with torch.no_grad():
        found = fitted(images).map
    expected = total.square()
    assert found is not None and found.shape == (2, 64, 64)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-2 * float(expected.max()))


def test_scoring_leaves_no_gradients_behind(fitted: DifferNet) -> None:
    images = in_colour(discs(1))
    with torch.no_grad():
        scores = fitted(images)
    assert scores.map is not None and not scores.image.requires_grad and not scores.map.requires_grad
    assert not images.requires_grad and images.grad is None
    fitted.zero_grad()
    assert all(parameter.grad is None for parameter in fitted.parameters())


def test_paper_size() -> None:
    """The authors' flow, optimiser and angles; the contract runs it."""
    detector = DifferNet()
    assert (detector.training_rotations, detector.test_rotations, detector.scales) == (4, 64, 3)
    (phase,) = detector.phases()
    assert isinstance(phase, Train) and (phase.epochs, phase.batch_size) == (192, 24)
    defaults = phase.updates[0].optimizer.defaults
    assert (defaults["lr"], defaults["betas"], defaults["eps"], defaults["weight_decay"]) == (
        2e-4,
        (0.8, 0.8),
        1e-4,
        1e-5,
    )
    assert [type(flow).__name__ for flow in detector.flow.flows] == ["Permutation", *["AffineCoupling"] * 2] * 8
    network = detector.flow.flows[1].network  # type: ignore[union-attr]
    assert [m.weight.shape[0] for m in network.modules() if isinstance(m, torch.nn.Linear)] == [2048, 2048, 2048, 960]  # type: ignore[union-attr]


@pytest.mark.parametrize("arguments", [{"clamp": 0.0}, {"scales": 0}, {"test_rotations": 0}])
def test_ranges(arguments: dict[str, object]) -> None:
    with pytest.raises(OkngError, match="differnet: "):
        create("differnet", weights="none", **arguments)


def test_scales_that_leave_less_than_a_stride_are_refused() -> None:
    """By the longer side: an image that is long and narrow is seen."""
    detector = create("differnet", weights="none", scales=3, hidden=4, training_rotations=1, test_rotations=1)
    for shape in ((96, 96), (32, 120)):
        images = torch.rand(2, 1, 3, *shape)
        with pytest.raises(OkngError, match=f"scales: 3 are too many for images of {max(shape)} px"):
            detector.loss(Batch(images[:, 0], torch.arange(2), views=(images,)))
    images = torch.rand(2, 1, 3, 32, 128)
    assert torch.isfinite(detector.loss(Batch(images[:, 0], torch.arange(2), views=(images,))))
