"""What tells CFA from a toy: memories that don't grow, one learnt radius, spheres that pull and push."""

from __future__ import annotations

import pytest
import torch
from tests.detectors.scenes import discs, in_colour

from okng.detectors.base import Batch, Collect, Train
from okng.detectors.catalogue import create
from okng.detectors.feature_matching.cfa import CFA, FIRST_RADIUS
from okng.errors import OkngError
from okng.inspection.reading.images import Preprocess
from okng.training.images.data import TrainingImages
from okng.training.loop.phases import run_phases


def built(**arguments: object) -> CFA:
    torch.manual_seed(0)
    small = {"image_size": (64, 64), "strides": (8, 16), "reduce": 4, "epochs": 30, "batch_size": 4}
    detector = create("cfa", **{**small, **arguments})
    assert isinstance(detector, CFA)
    return detector


@pytest.fixture(scope="module")
def fitted() -> CFA:
    detector = built()
    run_phases(detector, TrainingImages(list(discs(12)), Preprocess("RGB", (64, 64), 16)), device="cpu")
    return detector


def test_the_radius_is_learnt_and_ok_patches_come_closer_to_the_memories(fitted: CFA) -> None:
    assert abs(float(fitted.descriptor.radius.detach()) - FIRST_RADIUS) > 1e-4
    before = built()
    with torch.no_grad():
        patches = fitted.patches(in_colour(discs(6, seed=1)))
        before.memories = before.descriptor(patches).mean(0).flatten(0, 1)
        near, far = (float(one.loss(Batch(patches, torch.arange(6), (patches,)))["pulled"]) for one in (fitted, before))
    assert near < 0.8 * far


def test_it_finds_what_is_odd_and_where(fitted: CFA) -> None:
    images = discs(4, seed=2)
    spoilt = images.copy()
    spoilt[:, 24:36, 24:36] = [20, 20, 230]
    with torch.no_grad():
        normal, odd = fitted(in_colour(images)), fitted(in_colour(spoilt))
    assert odd.image.min() > normal.image.max() and odd.map is not None
    for drawn in odd.map:
        y, x = divmod(int(drawn.argmax()), 8)
        assert 2 <= y <= 5 and 2 <= x <= 5


@pytest.mark.parametrize(("count", "thin", "memories"), [(2, 1, 32), (5, 1, 32), (5, 4, 8)])
def test_there_are_as_many_memories_whatever_the_number_of_images(count: int, thin: int, memories: int) -> None:
    detector = built(weights="none", image_size=(64, 32), thin=thin)
    collect, _ = detector.phases()
    assert isinstance(collect, Collect) and collect.prepare is not None
    images = torch.rand(count, 3, 64, 32)
    with torch.no_grad():
        for part in images.split([1, count - 1]):
            collect.visit(Batch(part, torch.arange(len(part)), (collect.prepare(part),)))  # type: ignore[arg-type]
        collect.finish()
        means = detector.descriptor(detector.patches(images)).mean(0).flatten(0, 1)
    assert len(detector.memories) == memories
    if thin == 1:
        torch.testing.assert_close(detector.memories, means)


def test_a_patch_at_a_memory_has_no_score_and_ties_count_for_less() -> None:
    detector = built(weights="none")
    detector.memories = 10 * torch.eye(6, detector.memories.shape[1])
    exact = detector.memories[:4].view(1, 2, 2, -1)
    assert float(detector.distances(exact).abs().max()) == 0
    between = (detector.memories[0] + detector.memories[1]) / 2  # 7.07 from two, farther from all others
    told = float(detector.distances(between.view(1, 1, 1, -1)))
    d = torch.tensor([50.0, 50, 150]).sqrt()
    assert told == pytest.approx(float(torch.softmax(-d, 0)[0] * d[0]), rel=1e-4)


def test_no_loss_within_the_nearest_spheres_and_outside_of_the_next() -> None:
    detector = built(weights="none")
    detector.descriptor.radius = torch.nn.Parameter(torch.tensor(2.0), requires_grad=False)
    fine = torch.tensor([[1.0, 2, 3.9, 4.1, 5, 6]])
    assert {float(loss) for loss in detector.pulled_and_pushed(fine).values()} == {0.0}
    losses = detector.pulled_and_pushed(torch.tensor([[1.0, 2, 4.3, 3.3, 5, 6]]))
    assert float(losses["pulled"]) == pytest.approx(0.3 / 3 / 1e-3, rel=1e-4)
    assert float(losses["pushed"]) == pytest.approx((4 - 3.3 - 0.1) / 3 / 1e-3, rel=1e-4)


def test_the_papers_training() -> None:
    detector = CFA(weights="none")
    _, phase = detector.phases()
    assert isinstance(phase, Train) and (phase.epochs, phase.batch_size) == (30, 4)
    (group,) = phase.updates[0].optimizer.param_groups
    assert (group["lr"], group["weight_decay"], group["amsgrad"]) == (1e-3, 5e-4, True)
    assert any(parameter is detector.descriptor.radius for parameter in group["params"])
    assert detector.descriptor.layer.in_channels == sum(detector.backbone.channels) + 2


@pytest.mark.parametrize("arguments", [{"nearest": 0}, {"thin": 20}, {"reduce": 10_000}, {"sigma": 0.0}])
def test_ranges(arguments: dict[str, object]) -> None:
    with pytest.raises(OkngError, match="cfa: "):
        built(weights="none", **arguments)
