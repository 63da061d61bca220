"""What tells GEOM from a toy: 72 answers, each judged by the Dirichlet distribution of OK images' answers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.detectors.self_supervised.upright import learn, upright
from torch import Tensor

from okng.detectors.base import Collect, Train
from okng.detectors.catalogue import create
from okng.detectors.self_supervised.geom import GEOM, dirichlet
from okng.errors import OkngError


def built(**arguments: object) -> GEOM:
    torch.manual_seed(0)
    small = {"image_size": (16, 16), "channels": 1, "width": 4, "learning_rate": 2e-2}
    detector = create("geom", **{**small, **arguments})
    assert isinstance(detector, GEOM)
    return detector


@pytest.mark.parametrize("scale", [0.05, 1.0, 20.0])
def test_the_fit_recovers_a_known_dirichlet(scale: float) -> None:
    truth = scale * torch.tensor([[0.2, 1.0, 3.0, 0.5], [1.0, 1.0, 1.0, 1.0]], dtype=torch.float64)
    torch.manual_seed(0)
    drawn = torch.distributions.Dirichlet(truth).sample((20_000,)).clamp_min(1e-300)  # (N, 2, 4)
    found = dirichlet(drawn.mean(0), drawn.log().mean(0))
    torch.testing.assert_close(found, truth, rtol=0.05, atol=0)
    slope = found.sum(1, keepdim=True).digamma() - found.digamma() + drawn.log().mean(0)  # of the likelihood
    assert float(slope.abs().max()) < 1e-6 * float(drawn.log().mean(0).abs().max())


def test_answers_that_do_not_differ_have_a_finite_fit() -> None:
    same = torch.full((1, 3), 1 / 3, dtype=torch.float64)
    assert torch.isfinite(dirichlet(same, same.log())).all()


@pytest.fixture(scope="module")
def trained() -> GEOM:
    return learn(built(epochs=150, batch_size=16), upright(24, seed=1))


def test_it_names_transformations_of_images_that_it_never_saw(trained: GEOM) -> None:
    with torch.no_grad():
        told = trained.told(upright(20, seed=2))  # (20, 72, 72)
    assert (told.argmax(2) == torch.arange(72)).float().mean() > 0.25  # one in 72 by chance
    torch.testing.assert_close(told.exp().sum(2), torch.ones(20, 72))


def test_what_is_turned_is_odd(trained: GEOM) -> None:
    with torch.no_grad():
        ok, odd = (trained(upright(20, seed=3, turned=turned)).image for turned in (False, True))
    assert (odd[:, None] > ok).float().mean() > 0.95


def test_the_score_is_the_mean_negative_log_likelihood_of_all_answers(trained: GEOM) -> None:
    images = upright(3, seed=4)
    with torch.no_grad():
        scores, told = trained(images).image, trained.told(images).double()
    alpha = trained.concentration.double()
    likelihoods = [torch.distributions.Dirichlet(a).log_prob(told[:, t].exp()) for t, a in enumerate(alpha)]
    constants = [torch.lgamma(a.sum()) - torch.lgamma(a).sum() for a in alpha]
    expected = -torch.stack([lk - c for lk, c in zip(likelihoods, constants, strict=True)], 1).mean(1)
    torch.testing.assert_close(scores.double(), expected, rtol=1e-3, atol=1e-3)


def test_the_distributions_are_those_of_the_images_it_learnt(trained: GEOM) -> None:
    with torch.no_grad():
        told = trained.told(upright(24, seed=1)).double()
    expected = dirichlet(told.exp().mean(0), told.mean(0))
    torch.testing.assert_close(trained.concentration.double(), expected, rtol=1e-2, atol=1e-4)


def test_paper_size() -> None:
    """WRN-10-4, 72 classes, Adam at 0.001, batches of 128, three times 72 passes."""
    detector = GEOM()
    widths = [layer.out_channels for layer in detector.network.modules() if isinstance(layer, torch.nn.Conv2d)]
    assert widths[0] == 16 and sorted({*widths[1:]}) == [64, 128, 256] and detector.head.out_features == 72
    naming, distributions = detector.phases()
    assert isinstance(naming, Train) and isinstance(distributions, Collect)
    assert (naming.epochs, naming.batch_size) == (216, 128)
    (group,) = naming.updates[0].optimizer.param_groups
    assert (group["lr"], group["betas"], group["weight_decay"]) == (1e-3, (0.9, 0.999), 5e-4)


def test_each_image_goes_through_each_transformation() -> None:
    detector, image = built(), torch.zeros(1, 16, 16)
    drawn = [int(detector.augment(image, torch.Generator().manual_seed(seed))) for seed in range(1000)]
    assert np.bincount(drawn, minlength=72).min() > 2 and max(drawn) == 71


def test_the_loss_is_of_the_image_that_went_through_it() -> None:
    from okng.detectors.base import Batch

    detector = built()
    images, which = torch.rand(4, 1, 16, 16), torch.tensor([0, 5, 40, 71])
    seen: list[Tensor] = []
    detector.network.register_forward_hook(lambda module, given, output: seen.append(given[0]))
    loss = float(detector.loss(Batch(images, torch.arange(4), views=(which,))).detach())
    moved = detector.transformations(images)[torch.arange(4), which] * 2 - 1
    torch.testing.assert_close(seen[0], moved)
    logits = detector.head(detector.network(moved)).detach()
    assert loss == pytest.approx(float(torch.nn.functional.cross_entropy(logits, which)), rel=1e-4)


@pytest.mark.parametrize("arguments", [{"depth": 12}, {"width": 0}, {"image_size": (8, 8)}])
def test_ranges(arguments: dict[str, object]) -> None:
    with pytest.raises(OkngError, match=f"geom: .*{next(iter(arguments))}"):
        create("geom", **arguments)
