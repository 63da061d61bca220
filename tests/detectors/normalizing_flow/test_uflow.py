"""What tells U-Flow from a toy: one exact flow of all scales, and a threshold that needs no image."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from scipy.stats import binom, chi2
from tests.detectors.scenes import in_colour, textures
from tests.nn.flows.exactness import disturbed
from torch import Tensor

from okng.detectors.base import Batch, Train
from okng.detectors.catalogue import create
from okng.detectors.normalizing_flow.uflow import BEYOND, SHARE, UFlow, UShapedFlow, binomial_tails
from okng.errors import OkngError
from okng.inspection.reading.images import Preprocess
from okng.nn.flows.convolutional_flow import subnet
from okng.nn.flows.coupling import Flow, Permutation, all_in_one, surprise
from okng.training.images.data import TrainingImages
from okng.training.loop.phases import run_phases


def built(**arguments: object) -> UFlow:
    torch.manual_seed(0)
    small = {"image_size": (64, 64), "strides": (8, 16), "epochs": 10, "learning_rate": 5e-3}
    detector = create("uflow", **{**small, **arguments})
    assert isinstance(detector, UFlow)
    return detector


@pytest.fixture(scope="module")
def fitted() -> UFlow:
    detector = built(flow_steps=2)
    run_phases(detector, TrainingImages(list(textures(24)), Preprocess("RGB", (64, 64), 16)), device="cpu")
    return detector


def step(channels: int, number: int) -> Flow:
    return all_in_one(
        channels, lambda seen, given: subnet(seen, given, 1.0, 3 if number % 2 == 0 else 1), 2.0, Permutation
    )


SHAPES = [(3, 8, 4), (7, 4, 2), (9, 2, 1)]  # finest first


def u_shaped() -> UShapedFlow:
    torch.manual_seed(0)
    return disturbed(UShapedFlow(SHAPES, 3, step))


def features(count: int, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(count, *shape, generator=generator, dtype=dtype) for shape in SHAPES]


def test_the_whole_u_leads_back() -> None:
    for dtype, tolerance in ((torch.float32, 1e-4), (torch.float64, 1e-9)):
        flow, x = copy.deepcopy(u_shaped()).to(dtype), features(3, dtype)
        with torch.no_grad():
            latents, _ = flow(x)
            back = flow.inverse(latents)
        for found, given in zip(back, x, strict=True):
            torch.testing.assert_close(found, given, rtol=0, atol=tolerance)


def test_its_volume_is_that_of_the_jacobian_and_no_value_is_lost() -> None:
    flow, x = u_shaped().double(), features(2)
    with torch.no_grad():
        latents, log_determinant = flow(x)
    assert sum(z[0].numel() for z in latents) == sum(values[0].numel() for values in x)
    assert [z.shape[1] for z in latents] == flow.latent == [4, 4, 5]  # 4 of 9 rise and are one more of 8, 4 of 8 too
    sizes = [values[0].numel() for values in x]

    def alone(flat: Tensor) -> Tensor:
        parts = [part.view(1, *shape) for part, shape in zip(flat.split(sizes), SHAPES, strict=True)]
        return torch.cat([z.flatten() for z in flow(parts)[0]])

    for row in range(2):
        jacobian = torch.autograd.functional.jacobian(alone, torch.cat([values[row].flatten() for values in x]))
        torch.testing.assert_close(log_determinant[row], torch.linalg.slogdet(jacobian)[1], rtol=1e-6, atol=1e-6)


def test_coarse_features_go_into_finer_latents_and_not_the_other_way() -> None:
    flow, x = u_shaped().double(), features(1)
    with torch.no_grad():
        before, _ = flow(x)
        coarse, _ = flow([x[0], x[1], x[2] + 1])
        fine, _ = flow([x[0] + 1, x[1], x[2]])
    assert not torch.equal(before[2], coarse[2]) and not torch.equal(before[0], coarse[0])
    assert not torch.equal(before[0], fine[0])
    assert torch.equal(before[1], fine[1]) and torch.equal(before[2], fine[2])


def test_the_loss_is_the_surprise_of_all_values_whatever_the_batch(fitted: UFlow) -> None:
    images = in_colour(textures(3, seed=1))
    with torch.no_grad():
        prepared = tuple(fitted.normalised(images))
        loss = fitted.loss(Batch(images, torch.arange(3), prepared))
        latents, log_determinant = fitted.flow(prepared)
        apart = sum(surprise(z, torch.zeros(3)).mean() for z in latents) - log_determinant.mean()
        torch.testing.assert_close(loss, torch.as_tensor(apart), rtol=1e-4, atol=1e-2)
        twice = tuple(torch.cat([values, values]) for values in prepared)
        torch.testing.assert_close(fitted.loss(Batch(images, torch.arange(6), twice)), loss)


@pytest.mark.parametrize("count", [1, 27, 750])
def test_tails_are_those_of_the_binomial_law(count: int) -> None:
    expected = binom.logsf(np.arange(count + 1) - 1, count, SHARE) / np.log(10)
    told = expected > -300  # beyond it scipy says 0
    np.testing.assert_allclose(binomial_tails(count, SHARE).numpy()[told], expected[told], rtol=1e-6, atol=1e-9)
    assert binomial_tails(count, SHARE)[-1] == pytest.approx(count * np.log10(SHARE))
    assert chi2.ppf(1 - SHARE, 1) == pytest.approx(BEYOND, rel=1e-9)


def test_on_standard_normal_latents_an_image_has_one_false_alarm_on_average_at_most() -> None:
    """And one image in ten has one at a tenth, as the number of false alarms says of itself."""
    detector = built(image_size=(128, 128))
    generator = torch.Generator().manual_seed(3)
    latents = [
        torch.randn(300, channels, side, side, generator=generator)
        for channels, side in zip(detector.flow.latent, (16, 8), strict=True)
    ]
    fine = detector.significance([latents[0], torch.zeros_like(latents[1])])  # (300, 16, 16)
    coarse = detector.significance([torch.zeros_like(latents[0]), latents[1]])[:, ::2, ::2]  # a cell of it is four here
    alarms = (fine > 0).flatten(1).sum(1) + (coarse > 0).flatten(1).sum(1)
    assert 0.1 < float(alarms.float().mean()) <= 1
    assert float((detector.significance(latents).amax((1, 2)) > 1).float().mean()) <= 0.1


def test_odd_values_in_a_window_are_told_by_their_exact_tail() -> None:
    detector = built(image_size=(128, 128))
    fine, coarse = detector.flow.latent
    latents = [torch.zeros(1, fine, 16, 16), torch.zeros(1, coarse, 8, 8)]
    latents[0][0, :4, 8, 8] = 3.0
    latents[1][0, :2, 1, 1] = -2.0
    told = detector.significance(latents)[0]
    tests = np.log10(16 * 16 + 8 * 8)
    expected = -(binom.logsf(3, 25 * fine, SHARE) / np.log(10) + tests)
    assert float(told[8, 8]) == pytest.approx(expected, rel=1e-4)
    assert float(told[6, 10]) == pytest.approx(expected, rel=1e-4) and float(told[8, 11]) < expected
    told = detector.significance([torch.zeros(1, fine, 16, 16), latents[1] + 5])[0]
    assert float(told[8, 8]) == pytest.approx(-(9 * coarse * np.log10(SHARE) + tests), rel=1e-4)


def test_the_map_has_the_order_of_the_mean_probability(fitted: UFlow) -> None:
    images = in_colour(textures(2, seed=2))
    with torch.no_grad():
        scores = fitted(images)
        latents, _ = fitted.flow(fitted.normalised(images))
        mean = torch.zeros(2, 8, 8)
        for z in latents:
            probability = (-0.5 * z.square().mean(1, keepdim=True)).exp()
            mean += torch.nn.functional.interpolate(probability, (8, 8), mode="bilinear", align_corners=False)[:, 0] / 2
    assert scores.map is not None
    torch.testing.assert_close(scores.map, -mean.log())
    assert torch.equal(scores.image, scores.map.amax((1, 2)))


@pytest.mark.parametrize("score", ["likelihood", "nfa"])
def test_it_finds_what_is_odd_and_where(fitted: UFlow, score: str) -> None:
    detector = copy.deepcopy(fitted)
    detector.score = score  # type: ignore[assignment]
    images = textures(4, seed=3)
    spoilt = images.copy()
    spoilt[:, 24:40, 32:48] = spoilt[:, 24:40, 32:48].transpose(0, 2, 1, 3)  # stripes that lie
    with torch.no_grad():
        normal, odd = detector(in_colour(images)), detector(in_colour(spoilt))
    assert odd.image.min() > normal.image.max() and odd.map is not None
    for drawn in odd.map:
        y, x = divmod(int(drawn.argmax()), 8)
        assert 1 <= y <= 6 and 2 <= x <= 7


def test_the_authors_training() -> None:
    detector = UFlow(backbone="resnet18", weights="none").eval()
    (phase,) = detector.phases()
    assert isinstance(phase, Train) and (phase.epochs, phase.batch_size) == (200, 8)
    (update,) = phase.updates
    assert (update.optimizer.defaults["lr"], update.optimizer.defaults["weight_decay"]) == (1e-4, 1e-5)
    assert update.schedule is not None and (update.schedule(0), update.schedule(1)) == (1, pytest.approx(0.4))
    assert detector.flow.latent == [84, 80, 128]  # of 64 + 20, 128 + 32 and 256
    assert all(len(stage.flows) == 4 for stage in detector.flow.stages)  # type: ignore[arg-type]


@pytest.mark.parametrize("arguments", [{"strides": (8, 32)}, {"kernels": (2,)}, {"ratio": 0.0}, {"flow_steps": 0}])
def test_ranges(arguments: dict[str, object]) -> None:
    with pytest.raises(OkngError, match="uflow: "):
        create("uflow", weights="none", **arguments)
