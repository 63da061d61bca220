"""What tells NF-OOD from a toy: an exact density of pixels, masks that see what they may, and the paper's failure."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from tests.nn.flows.exactness import assert_flow, disturbed
from torch import Tensor, nn

from okng.detectors.base import Batch, Train
from okng.detectors.catalogue import create
from okng.detectors.normalizing_flow.nf_ood import (
    NFOOD,
    MaskedCoupling,
    Narrow,
    RealNVP,
    WeightNormConv,
    board,
    halves,
    quarter,
)
from okng.errors import OkngError
from okng.inspection.reading.images import Preprocess
from okng.nn.flows.coupling import Sequence
from okng.training.images.data import TrainingImages
from okng.training.loop.phases import run_phases


def built(**arguments: object) -> NFOOD:
    torch.manual_seed(0)
    small = {"image_size": (16, 16), "width": 8, "depth": 1, "epochs": 8, "batch_size": 16, "learning_rate": 2e-3}
    detector = create("nf_ood", **{**small, **arguments})
    assert isinstance(detector, NFOOD)
    return detector


def images(count: int, seed: int = 0) -> np.ndarray:
    """Uint8 (count, 16, 16, 1): bars with a soft edge and much texture."""
    rng = np.random.default_rng(seed)
    edge = rng.uniform(4, 12, (count, 1))
    bars = 90 + 60 / (1 + np.exp(edge - np.arange(16)))  # (count, 16)
    return (bars[:, None, :, None] + rng.normal(0, 15, (count, 16, 16, 1))).clip(0, 255).astype(np.uint8)


def tensor(pixels: np.ndarray) -> Tensor:
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255


@pytest.mark.parametrize("bottleneck", [0, 5])
def test_the_multi_scale_flow_is_exact(bottleneck: int) -> None:
    """Two squeezes: 2 channels of 4 × 4 become 2 of 8, and 4 of 16 … of a single place."""
    torch.manual_seed(0)
    flow = disturbed(RealNVP(2, 4, 4, scales=3, width=4, depth=1, bottleneck=bottleneck), by=0.2)
    x = torch.randn(3, 2, 4, 4, dtype=torch.float64)
    flow = flow.double()
    with torch.no_grad():
        z, volume = flow(x)
        torch.testing.assert_close(flow.inverse(z), x, rtol=0, atol=1e-9)
        torch.testing.assert_close(flow.float().inverse(flow(x.float())[0]), x.float(), rtol=0, atol=1e-4)
    flow = flow.double()
    jacobian = torch.autograd.functional.jacobian(lambda one: flow(one.view(1, 2, 4, 4))[0][0], x[1].flatten())
    torch.testing.assert_close(torch.linalg.slogdet(jacobian)[1], volume[1], rtol=0, atol=1e-4)


@pytest.mark.parametrize("masks", ["checkerboard", "cycle"])
def test_whole_flows_are_exact(masks: str) -> None:
    detector = disturbed(built(image_size=(16, 16), masks=masks, bottleneck=3, scales=1), by=0.05)
    x = torch.randn(1, 1, 16, 16, dtype=torch.float64)
    flow = detector.flow.double()
    with torch.no_grad():
        z, volume = flow(x)
        torch.testing.assert_close(flow.inverse(z), x, rtol=0, atol=1e-9)
    jacobian = torch.autograd.functional.jacobian(lambda one: flow(one.view(1, 1, 16, 16))[0].flatten(), x.flatten())
    torch.testing.assert_close(torch.linalg.slogdet(jacobian)[1], volume[0], rtol=0, atol=1e-8)


@pytest.mark.parametrize(("seen", "changed"), [board(4, 4, 0), board(4, 4, 1), (quarter(4, 4, 0), quarter(4, 4, 1))])
def test_a_coupling_is_exact(seen: Tensor, changed: Tensor) -> None:
    torch.manual_seed(0)
    assert_flow(disturbed(MaskedCoupling(2, seen, changed, 4, 1, 0)), (2, 4, 4))


def test_masks() -> None:
    seen, changed = board(5, 4, 0)
    assert torch.equal(seen + changed, torch.ones(1, 1, 5, 4))
    assert torch.equal(seen[0, 0, :2, :2], torch.eye(2)) and not (seen[..., 1:, :] * seen[..., :-1, :]).any()
    assert torch.equal(torch.cat(board(5, 4, 1)), torch.cat([changed, seen]))
    seen, changed = halves(4, 2, 2, 0)
    assert seen[0, :2].all() and not seen[0, 2:].any() and torch.equal(halves(4, 2, 2, 1)[0], changed)
    places = torch.cat([quarter(5, 4, place) for place in range(4)])
    assert torch.equal(places.sum(0), torch.ones(1, 5, 4))
    assert places[0, 0, 0, 0] == places[1, 0, 0, 3] == places[2, 0, 4, 3] == places[3, 0, 4, 0] == 1


def test_in_a_cycle_a_quarter_moves_the_next_one_alone() -> None:
    """A change in one leaves what comes out elsewhere unchanged, coupling by coupling, twice round."""
    flow = disturbed(built(masks="cycle", bottleneck=4).flow, by=0.2)
    assert isinstance(flow, Sequence) and len(flow.flows) == 8
    x = torch.randn(1, 1, 16, 16)
    for i, coupling in enumerate(flow.flows):
        for place in range(4):
            other = x + quarter(16, 16, place)
            with torch.no_grad():
                moved = (coupling(x)[0] - coupling(other)[0]).abs()
            outside = quarter(16, 16, place)
            if place == i % 4:
                outside = outside + quarter(16, 16, (place + 1) % 4)
                assert (moved * quarter(16, 16, (place + 1) % 4)).max() > 1e-4
            assert not (moved * (1 - outside)).any()


def test_probabilities_of_all_images_sum_to_one() -> None:
    """Of a single pixel by all else: with the flow as it starts, 256 levels of it, each with its width of a level."""
    detector = built(scales=1)
    levels = (torch.arange(256) / 255).view(256, 1, 1, 1).expand(256, 1, 16, 16)
    within = torch.full((256, 1, 16, 16), 0.5)
    with torch.no_grad():
        nats = detector.surprise(levels, within) / 256  # the same pixel 256 times, independent
    assert float((-nats).exp().sum()) == pytest.approx(0.997, abs=0.01)  # the rest lies beyond the logits of 5 and 95 %


def test_the_score_is_the_bits_of_an_image() -> None:
    detector, batch = built(), tensor(images(3))
    with torch.no_grad():
        scores = detector(batch)
        nats = detector.surprise(batch, 0.5)
    assert scores.map is None
    torch.testing.assert_close(scores.image, nats / 256 / math.log(2))


def test_training_lowers_the_bits_of_unseen_images_and_flat_ones_are_likelier_still() -> None:
    """The paper's failure: what it never saw and is smooth has fewer bits than what it learnt."""
    detector = built()
    learnt, unseen = TrainingImages(list(images(128)), Preprocess("L", (16, 16))), tensor(images(32, seed=1))
    with torch.no_grad():
        before = detector(unseen).image.mean()
    run_phases(detector, learnt, device="cpu")
    with torch.no_grad():
        after = detector(unseen).image.mean()
        flat = detector(torch.full((1, 1, 16, 16), 0.45)).image
    assert float(after) < float(before) - 0.3
    assert float(flat) < float(after)


def test_noise_is_drawn_in_training_alone() -> None:
    detector, batch = built(), tensor(images(2))
    with torch.no_grad():
        assert torch.equal(detector(batch).image, detector(batch).image)
        whole = Batch(batch, torch.arange(2))
        assert not torch.equal(detector.loss(whole), detector.loss(whole))


def test_weight_norm() -> None:
    """The kernels' lengths are the gains, whatever the weights' are."""
    torch.manual_seed(0)
    convolution, x = WeightNormConv(2, 3, 3), torch.randn(1, 2, 4, 4)
    expected = nn.Conv2d.forward(convolution, x)
    with torch.no_grad():
        torch.testing.assert_close(convolution(x), expected)
        convolution.weight *= 5
        torch.testing.assert_close(convolution(x), expected)


def test_a_bottleneck_is_one() -> None:
    """The Jacobian of what a coupling says has no more rank than numbers pass."""
    torch.manual_seed(0)
    network = disturbed(Narrow(1, 4, 2, (8, 8), 3), by=0.3).double()
    x = torch.randn(1, 1, 8, 8, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(lambda one: network(one.view_as(x)).flatten(), x.flatten())
    assert int(torch.linalg.matrix_rank(jacobian)) == 3


def test_sides_that_do_not_divide() -> None:
    detector = built(image_size=(17, 22), channels=3, scales=3)
    with torch.no_grad():
        z, _ = detector.flow(torch.randn(1, 3, 20, 24))
        assert z.shape == (1, 3 * 20 * 24)
        assert detector(torch.rand(2, 3, 17, 22)).image.shape == (2,)


def test_paper_size() -> None:
    """28 px in grey, with the authors' networks."""
    detector = NFOOD().eval()
    (phase,) = detector.phases()
    assert isinstance(phase, Train) and (phase.epochs, phase.batch_size) == (81, 32)
    (update,) = phase.updates
    assert (update.optimizer.defaults["lr"], update.clip) == (5e-5, 100.0)
    flow = detector.flow
    assert isinstance(flow, RealNVP)
    parts = (*flow.before, *flow.after, flow.last)
    assert [len(part.flows) for part in parts] == [3, 3, 4]  # type: ignore[arg-type]
    assert [part.flows[-1].network.enter.out_channels for part in parts] == [64, 128, 128]  # type: ignore[index,union-attr]
    with torch.no_grad():
        assert torch.isfinite(detector(torch.rand(1, 1, 28, 28)).image).all()


@pytest.mark.parametrize(
    "arguments", [{"masks": "half"}, {"bottleneck": -1}, {"scales": 0}, {"scales": 6}, {"depth": 0}]
)
def test_ranges(arguments: dict[str, object]) -> None:
    with pytest.raises(OkngError, match="nf_ood: "):
        create("nf_ood", **arguments)


def test_as_many_scales_as_the_sides_bear() -> None:
    detector = create("nf_ood", image_size=(28, 40), scales=5, width=2, depth=1)
    assert torch.isfinite(detector(torch.rand(2, 1, 28, 40)).image).all()
