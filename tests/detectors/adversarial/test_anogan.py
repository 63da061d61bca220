"""AnoGAN's search: it goes downhill, finds what the generator can make, and each image is searched for alone."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from tests.detectors.scenes import SIDE, crosses, rings, source, tensor

from okng.detectors.adversarial.anogan import AnoGAN
from okng.detectors.base import Train
from okng.detectors.catalogue import create
from okng.errors import OkngError
from okng.metrics.ranking import auroc
from okng.training.loop.phases import run_phases

SEARCH = {"steps": 100, "search_rate": 0.05}


def built(**arguments: object) -> AnoGAN:
    torch.manual_seed(0)
    detector = create("anogan", **arguments)
    assert isinstance(detector, AnoGAN)
    return detector


def awake(**arguments: object) -> AnoGAN:
    """Untrained, with weights at which codes make a difference."""
    detector = built(**{"image_size": (28, 28), "channels": 1, "width": 8, "latent": 8, "steps": 10, **arguments})
    with torch.no_grad():
        for layer in detector.gan.generator.modules():
            if isinstance(layer, torch.nn.ConvTranspose2d):
                torch.nn.init.kaiming_normal_(layer.weight, mode="fan_out")
    return detector


@pytest.fixture(scope="module")
def fitted() -> AnoGAN:
    """It has learnt rings."""
    settings = {"width": 8, "latent": 8, "epochs": 8, "batch_size": 16, "learning_rate": 2e-3}
    detector = built(image_size=(SIDE, SIDE), channels=1, **settings, **SEARCH)
    run_phases(detector, source(rings(320)), device="cpu")
    return detector


def test_the_search_goes_downhill(fitted: AnoGAN) -> None:
    """On unseen rings it ends far lower than it began, and lower than on crosses, of which no code is found."""
    images = tensor(np.concatenate([rings(60, seed=1), crosses(60)]))  # (120, 1, SIDE, SIDE)
    begun_here = copy.deepcopy(fitted)
    begun_here.steps = 0
    with torch.no_grad():
        found, begun = fitted(images).image, begun_here(images).image
    assert (found < begun).float().mean() > 0.95
    assert found[:60].mean() < 0.6 * begun[:60].mean()
    assert auroc([0] * 60 + [1] * 60, found.numpy()) > 0.85


def test_what_the_generator_made_is_found_again(fitted: AnoGAN) -> None:
    with torch.no_grad():
        made = (fitted.gan.generate(torch.zeros(40, 1, SIDE, SIDE)) + 1) / 2
        codes = fitted.search(made * 2 - 1)
        again = (fitted.gan.generator(codes) + 1) / 2
        begun = (fitted.gan.generator(fitted.starts) + 1) / 2
    before, after = (made - begun).abs().flatten(1).sum(1), (made - again).abs().flatten(1).sum(1)
    assert after.mean() < 0.3 * before.mean()


def test_the_generator_has_not_collapsed(fitted: AnoGAN) -> None:
    """What it makes differs about as much as rings do: a collapsed one finds only what it always makes."""
    with torch.no_grad():
        made = (fitted.gan.generate(torch.zeros(100, 1, SIDE, SIDE)) + 1) / 2
    among_made, among_rings = (torch.pdist(one.flatten(1)).mean() for one in (made, tensor(rings(100, seed=1))))
    assert 0.6 * among_rings < among_made < 1.5 * among_rings


def test_an_image_is_searched_for_alone(fitted: AnoGAN) -> None:
    images = tensor(rings(5, seed=1))  # (5, 1, SIDE, SIDE)
    with torch.no_grad():
        together = fitted(images)
        alone = [fitted(image[None]) for image in images]
    assert together.map is not None and together.map.shape == (5, SIDE, SIDE)
    torch.testing.assert_close(together.image, torch.cat([s.image for s in alone]), rtol=1e-5, atol=0)


def test_images_do_not_meet_in_the_search() -> None:
    detector = awake(restarts=2)
    images = torch.rand(5, 1, 28, 28)
    with torch.no_grad():
        together = detector(images)
        alone = [detector(image[None]) for image in images]
    torch.testing.assert_close(together.image, torch.cat([s.image for s in alone]), rtol=1e-3, atol=1e-3)


def test_scoring_changes_nothing_and_repeats_itself() -> None:
    detector = awake(search_rate=0.05)
    before = copy.deepcopy(detector.state_dict())
    images = torch.rand(3, 1, 28, 28)
    first, second = detector(images).image, detector(images).image
    assert torch.equal(first, second) and not first.requires_grad
    assert all(torch.equal(tensor, before[name]) for name, tensor in detector.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in detector.parameters())


def test_the_best_start_counts_and_codes_stay_inside() -> None:
    images = torch.rand(4, 1, 28, 28)
    detector = awake(restarts=3, search_rate=0.5)
    with torch.no_grad():
        best = detector(images)
        every = []
        for i in range(3):
            single = copy.deepcopy(detector)
            single.starts = detector.starts[i : i + 1]
            every.append(single(images).image)
        assert detector.search(images * 2 - 1).abs().max() <= 1
    torch.testing.assert_close(best.image, torch.stack(every).amin(0), rtol=1e-3, atol=1e-3)


def test_weight_divides_the_score_between_residual_and_features() -> None:
    images = torch.rand(3, 1, 28, 28)
    detector = awake(weight=0.0, steps=3)
    with torch.no_grad():
        scores = detector(images)
    assert scores.map is not None
    torch.testing.assert_close(scores.image, scores.map.sum((1, 2)))
    detector.weight = 1.0
    with torch.no_grad():
        generated = detector.gan.generator(detector.search(images * 2 - 1))
        look = detector.gan.discriminator.look
        expected = (look(images * 2 - 1) - look(generated)).abs().flatten(1).sum(1)
        torch.testing.assert_close(detector(images).image, expected)


def test_paper_size() -> None:
    detector = AnoGAN()
    (phase,) = detector.phases()
    assert isinstance(phase, Train)
    assert (detector.steps, detector.weight, detector.starts.shape) == (500, 0.1, (1, 100))


@pytest.mark.parametrize(
    "arguments",
    [{"restarts": 0}, {"weight": 1.1}],
)
def test_ranges(arguments: dict[str, object]) -> None:
    with pytest.raises(OkngError, match="anogan: "):
        create("anogan", **arguments)
