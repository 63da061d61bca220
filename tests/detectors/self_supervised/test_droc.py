"""What tells DROC from a toy: turned copies are images of their own, and a classifier of what comes before the head."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tests.detectors.self_supervised.upright import learn, upright
from torch import Tensor

from okng.detectors.base import Batch, Collect, Train
from okng.detectors.catalogue import create
from okng.detectors.self_supervised.droc import DROC
from okng.errors import OkngError
from okng.nn.images.augmentation import DRAWN

PLAIN = torch.tensor([0.0, 0, 0, 1, 1, 1, 1, 1, 0, 0, 0])  # a view that changes nothing


def built(**arguments: object) -> DROC:
    torch.manual_seed(0)
    small = {"image_size": (16, 16), "channels": 1, "blocks": (1, 1), "width": 8, "head": (32,), "batch_size": 32}
    detector = create("droc", **{**small, **arguments})
    assert isinstance(detector, DROC)
    return detector


def rows_seen(detector: DROC, images: Tensor, instances: int) -> tuple[Tensor, float]:
    """The views that the network was given, and the loss, of two views that change nothing."""
    seen: list[Tensor] = []
    hook = detector.network.register_forward_hook(lambda module, given, output: seen.append((given[0] + 1) / 2))
    views = (PLAIN.expand(len(images), 2, instances, -1),)
    with torch.no_grad():
        loss = float(detector.loss(Batch(images, torch.arange(len(images)), views=views)))
    hook.remove()
    return seen[0], loss


def test_augmented_there_are_four_times_as_many_images_and_turns_are_never_a_positive_pair() -> None:
    detector, images = built(), torch.rand(3, 1, 16, 16)
    made, loss = rows_seen(detector, images, 4)
    first, second = made.chunk(2)
    assert len(first) == 4 * len(images)
    torch.testing.assert_close(first, second)  # the partner of each is the same turn of the same image
    for row, view in enumerate(first):
        torch.testing.assert_close(view, images[row // 4].rot90(row % 4, (1, 2)), atol=1e-5, rtol=0)
    with torch.no_grad():
        z = F.normalize(detector.head(detector.network(made * 2 - 1)), dim=1).chunk(2)
    assert loss == pytest.approx(float(F.cross_entropy(z[0] @ z[1].T / 0.2, torch.arange(12))), rel=1e-3)
    assert detector.images * 4 == 32  # a batch is of so many instances


def test_contrastive_there_are_no_turns_and_rotation_names_them() -> None:
    images = torch.rand(3, 1, 16, 16)
    made, _ = rows_seen(built(pretext="contrastive"), images, 1)
    torch.testing.assert_close(made, torch.cat([images, images]), atol=1e-5, rtol=0)
    detector = built(pretext="rotation")
    made, loss = rows_seen(detector, images, 1)
    assert len(made) == 12 and detector.head[-1].out_features == 4
    torch.testing.assert_close(made[5], images[1].rot90(1, (1, 2)), atol=1e-5, rtol=0)
    with torch.no_grad():
        logits = detector.head(detector.network(made * 2 - 1))
    assert loss == pytest.approx(float(F.cross_entropy(logits, torch.arange(4).repeat(3))), rel=1e-3)


def test_each_instance_draws_two_views_of_its_own() -> None:
    for pretext, instances in (("augmented", 4), ("contrastive", 1)):
        drawn = built(pretext=pretext).augment(torch.zeros(1, 16, 16), torch.Generator().manual_seed(0))
        assert drawn.shape == (2, instances, len(DRAWN)) and len(drawn.flatten(0, 1).unique(dim=0)) == 2 * instances


@pytest.fixture(scope="module")
def network() -> DROC:
    return learn(built(epochs=20, learning_rate=0.05), upright(48, seed=1))


@pytest.fixture(params=["ocsvm", "kde"])
def trained(request: pytest.FixtureRequest, network: DROC) -> DROC:
    """The same network with either classifier, as the last phase makes it."""
    network.density = request.param
    *_, classifier = network.phases()
    assert isinstance(classifier, Collect)
    with torch.no_grad():
        classifier.visit(Batch(upright(48, seed=1), torch.arange(48)))
        classifier.finish()
    return network


def test_the_score_is_the_classifiers_on_features_before_the_head(trained: DROC) -> None:
    from sklearn.neighbors import KernelDensity
    from sklearn.svm import OneClassSVM

    with torch.no_grad():
        features, images = trained.features(upright(48, seed=1)), upright(5, seed=4)
        told, scores = trained.features(images).double().numpy(), trained(images).image.double().numpy()
    assert features.shape == (48, 16)  # not what the head makes of them
    np.testing.assert_allclose(features.norm(dim=1), 1, rtol=1e-5)
    gamma = 10 / (16 * float(features.var()))
    assert float(trained.gamma) == pytest.approx(gamma, rel=1e-3)
    exact = features.double().numpy()
    if trained.density == "ocsvm":
        machine = OneClassSVM(nu=0.5, gamma=float(trained.gamma)).fit(exact)
        summed = (machine.decision_function(told) - machine.intercept_) / machine.dual_coef_.sum()
        np.testing.assert_allclose(scores, -np.log(summed) / gamma, rtol=1e-2, atol=1e-3)
        assert len(trained.memory) == len(machine.support_vectors_) >= 24  # nu of 48 at least
        return
    bandwidth = 1 / math.sqrt(2 * gamma)
    density = KernelDensity(bandwidth=bandwidth).fit(exact).score_samples(told)  # log p, with its constant
    constant = 16 / 2 * math.log(2 * math.pi * bandwidth**2)
    np.testing.assert_allclose(scores, -(density + constant) / gamma, rtol=1e-2, atol=1e-3)


def test_other_things_are_odd(trained: DROC) -> None:
    with torch.no_grad():
        ok, odd = (trained(upright(20, seed=3, turned=turned)).image for turned in (False, True))
    assert (odd[:, None] > ok).float().mean() > 0.85


def test_paper_size() -> None:
    """ResNet-18 and eight layers of 512; SGD at 0.01 and half a cosine over 2048 epochs, 32 instances a batch."""
    detector = DROC()
    widths = [layer.out_features for layer in detector.head if isinstance(layer, torch.nn.Linear)]
    assert widths == [512] * 8 + [128] and detector.network.features == 512
    learning, judging = detector.phases()
    assert isinstance(learning, Train) and isinstance(judging, Collect)
    assert (learning.epochs, learning.batch_size, learning.drop_last) == (2048, 8, True)
    (group,) = learning.updates[0].optimizer.param_groups
    assert (group["lr"], group["momentum"], group["weight_decay"]) == (0.01, 0.9, 3e-4)


@pytest.mark.parametrize("arguments", [{"head": (0,)}, {"pretext": "jigsaw"}, {"density": "gde"}])
def test_ranges(arguments: dict[str, object]) -> None:
    with pytest.raises(OkngError, match=f"droc: {next(iter(arguments))}"):
        create("droc", **arguments)
