"""What tells MKD from a toy: direction and magnitude at several levels, a narrow cloner, a map by the gradient."""

from __future__ import annotations

import pytest
import torch
from tests.detectors.scenes import discs
from torch import Tensor, nn

from okng.detectors.base import Batch, Train
from okng.detectors.catalogue import create
from okng.detectors.distillation.mkd import MKD, opened
from okng.inspection.reading.images import Preprocess
from okng.nn.images.blur import gaussian_blur
from okng.training.images.data import TrainingImages
from okng.training.loop.phases import run_phases


def built(**arguments: object) -> MKD:
    torch.manual_seed(0)
    detector = create("mkd", **arguments)
    assert isinstance(detector, MKD)
    return detector.eval()


def images(count: int = 2) -> Tensor:
    return torch.rand(count, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def test_the_cloner_of_the_papers_source_is_the_papers() -> None:
    """VGG-16's second to fifth pool, and the widths between; fewer than 15 % of its weights."""
    detector = built(backbone="vgg16", weights="none")
    widths = [[c.out_channels for c in block.modules() if isinstance(c, nn.Conv2d)] for block in detector.cloner]
    assert widths == [[16, 16], [16, 128], [16, 16, 256], [16, 16, 512], [16, 16, 512]]
    with torch.no_grad():
        wanted, found = detector.critical(images()), detector.clone(images())
    assert [tuple(w.shape) for w in wanted] == [(2, 128, 16, 16), (2, 256, 8, 8), (2, 512, 4, 4), (2, 512, 2, 2)]
    assert [f.shape for f in found] == [w.shape for w in wanted]
    assert all(float(f.min()) >= 0 for f in found)  # both end in a ReLU
    count = [
        sum(c.weight.numel() for c in network.modules() if isinstance(c, nn.Conv2d))
        for network in (detector.cloner, detector.source)
    ]
    assert count[0] < 0.15 * count[1]
    (phase,) = detector.phases()
    assert isinstance(phase, Train) and (phase.epochs, phase.batch_size) == (50, 64)
    assert phase.updates[0].optimizer.defaults["lr"] == 1e-3


@pytest.mark.parametrize("strides", [(2, 4, 8, 16), (4, 16), (8,)])
def test_levels_match_any_source(strides: tuple[int, ...]) -> None:
    detector = built(strides=strides, weights="none")
    with torch.no_grad():
        wanted, found = detector.critical(images()), detector.clone(images())
    assert [f.shape for f in found] == [w.shape for w in wanted]
    assert any(float(f.min()) < 0 for f in found)  # as EfficientNet's, which end in no ReLU


def test_a_cloner_like_its_source_finds_nothing() -> None:
    detector = built()
    detector.clone = detector.critical  # type: ignore[method-assign]
    with torch.no_grad():
        assert torch.equal(detector(images()).image.round(decimals=5), torch.zeros(2))


def test_the_directions_term_ignores_length_and_the_magnitudes_does_not() -> None:
    detector = built(magnitude_weight=0.5)
    wanted, found = torch.rand(2, 3, 4, 4), torch.rand(2, 3, 4, 4)
    (direction, magnitude), (same, other) = detector.differences(wanted, found), detector.differences(wanted, 3 * found)
    torch.testing.assert_close(direction, same)
    torch.testing.assert_close(magnitude, 0.5 * (wanted - found).square().flatten(1).mean(1))
    assert not torch.isclose(magnitude, other).any()
    cosine = (wanted * found).flatten(1).sum(1) / (wanted.flatten(1).norm(dim=1) * found.flatten(1).norm(dim=1))
    torch.testing.assert_close(direction, 1 - cosine)  # of whole maps


def test_the_finest_level_is_learnt_and_not_scored() -> None:
    detector = built()
    with torch.no_grad():
        wanted, found = detector.critical(images()), detector.clone(images())
        learnt = detector.loss(Batch(images(), torch.arange(2), tuple(wanted)))
        each = torch.stack([torch.stack(detector.differences(*pair)) for pair in zip(wanted, found, strict=True)])
        torch.testing.assert_close(detector(images()).image, each[1:].sum((0, 1)))
    torch.testing.assert_close(torch.stack(list(learnt.values())), each.sum(0).mean(1))
    assert list(learnt) == ["direction", "magnitude"]


def test_the_map_is_the_scores_gradient() -> None:
    """By differences: a step along the gradient raises the score as much as it says."""
    detector = built(sigma=2.0)
    asked = images().requires_grad_()
    (gradient,) = torch.autograd.grad(detector.oddness(asked).sum(), asked)
    with torch.no_grad():
        scores = detector(images())
        step = 1e-3 * gradient / gradient.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
        rise = detector.oddness(images() + step) - detector.oddness(images() - step)
    torch.testing.assert_close(rise / 2e-3, gradient.flatten(1).norm(dim=1), rtol=0.05, atol=1e-4)
    assert scores.map is not None and not scores.image.requires_grad
    torch.testing.assert_close(scores.map, opened(gaussian_blur(gradient.abs().sum(1), 2.0)), rtol=1e-4, atol=1e-7)


def test_opening_takes_out_what_is_narrow_and_leaves_the_rest() -> None:
    peaks = torch.zeros(1, 9, 9)
    peaks[0, 2, 2] = 5.0
    peaks[0, 4:8, 4:8] = 3.0
    expected = torch.zeros(1, 9, 9)
    expected[0, 4:8, 4:8] = 3.0
    assert torch.equal(opened(peaks), expected)


def test_training_moves_the_cloner_only_and_towards_the_source() -> None:
    detector = built(epochs=12, batch_size=4)
    source = TrainingImages(list(discs(8)), Preprocess("RGB", (64, 64), detector.multiple))
    ok = torch.stack([source[i] for i in range(8)]).float() / 255
    before = {name: tensor.clone() for name, tensor in detector.source.state_dict().items()}
    first = detector(ok).image.detach()
    run_phases(detector, source, device="cpu")
    assert float((detector(ok).image.detach() / first).max()) < 0.7
    for name, tensor in detector.source.state_dict().items():
        assert torch.equal(tensor, before[name]), name
