"""What tells CSI from a toy: an image's own turns are negatives, and both scores, weighed, over several views."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from tests.detectors.self_supervised.upright import learn, upright
from torch import Tensor

from okng.detectors.base import Batch, Collect, Train
from okng.detectors.catalogue import create
from okng.detectors.self_supervised.csi import CSI, LARS
from okng.errors import OkngError
from okng.nn.images.augmentation import DRAWN

PLAIN = torch.tensor([0.0, 0, 0, 1, 1, 1, 1, 1, 0, 0, 0])  # a view that changes nothing


def built(**arguments: object) -> CSI:
    torch.manual_seed(0)
    small = {"image_size": (16, 16), "channels": 1, "blocks": (1, 1), "width": 8, "views": 3, "batch_size": 8}
    detector = create("csi", **{**small, **arguments})
    assert isinstance(detector, CSI)
    return detector


def plain(count: int) -> tuple[Tensor, Tensor]:
    """Two views of each of `count` images that are the images."""
    return torch.zeros(count, 2), PLAIN.expand(count, 2, 4, -1)


def test_the_other_turns_of_a_single_image_are_its_negatives() -> None:
    """Of a network for which all images are alike, each of 8 views is any of 7 others: not the one partner alone."""
    detector = built()
    detector.network.forward = lambda images: torch.ones(len(images), 16) + 0 * images.mean((1, 2, 3))[:, None]  # type: ignore
    loss = detector.loss(Batch(torch.rand(1, 1, 16, 16), torch.arange(1), views=plain(1)))
    assert float(loss["contrast"].detach()) == pytest.approx(math.log(7), rel=1e-4)
    two = detector.loss(Batch(torch.rand(2, 1, 16, 16), torch.arange(2), views=plain(2)))
    assert float(two["contrast"].detach()) == pytest.approx(math.log(15), rel=1e-4)


def test_a_positive_is_the_same_turn_of_the_same_image_and_each_turn_has_its_label() -> None:
    detector, images = built(), torch.rand(2, 1, 16, 16)
    seen: list[Tensor] = []
    detector.network.register_forward_hook(lambda module, given, output: seen.append((given[0] + 1) / 2))
    with torch.no_grad():
        losses = detector.loss(Batch(images, torch.arange(2), views=plain(2)))
        features = detector.network(seen[0] * 2 - 1)
    first, second = seen[0].chunk(2)  # rows i are partners in NT-Xent
    torch.testing.assert_close(first, second)
    for row, view in enumerate(first):
        torch.testing.assert_close(view, images[row // 4].rot90(row % 4, (1, 2)), atol=1e-5, rtol=0)
    expected = F.cross_entropy(detector.head(features), torch.arange(4).repeat(4))
    assert float(losses["turn"]) == pytest.approx(float(expected.detach()), rel=1e-3)


def test_a_mirrored_view_is_mirrored_before_it_is_turned() -> None:
    image = torch.rand(1, 1, 16, 16)
    made = built().shifted(image, torch.ones(1), PLAIN.expand(1, 4, -1))
    for turn in range(4):
        torch.testing.assert_close(made[turn], image[0].flip(2).rot90(turn, (1, 2)), atol=1e-5, rtol=0)


def test_draws_of_a_view() -> None:
    detector = built()
    drawn = [detector.augment(torch.zeros(1, 16, 16), torch.Generator().manual_seed(seed)) for seed in range(100)]
    mirror, rest = (torch.stack(parts) for parts in zip(*drawn, strict=True))  # (100, 2), (100, 2, 4, _)
    assert 0.4 < float(mirror.mean()) < 0.6 and float(rest[..., 0].max()) == 0  # mirrored once, before the turns
    area = rest[..., DRAWN.index("width")] * rest[..., DRAWN.index("height")]
    assert float(area.min()) < 0.12 and float(area.max()) > 0.9
    assert len(rest.flatten(0, 2).unique(dim=0)) > 790  # each turn of each view is drawn anew


@pytest.fixture(scope="module")
def trained() -> CSI:
    return learn(built(epochs=70, learning_rate=10.0), upright(24, seed=1))


def test_what_is_turned_is_odd(trained: CSI) -> None:
    with torch.no_grad():
        ok, odd = (trained(upright(20, seed=3, turned=turned)).image for turned in (False, True))
    assert (odd[:, None] > ok).float().mean() > 0.85


def test_the_score_is_both_parts_of_each_turn_over_their_means(trained: CSI) -> None:
    learnt, images = upright(24, seed=1), upright(3, seed=4)
    with torch.no_grad():
        scores, (z, logits) = trained(images).image, trained.ensemble(images)
        z_train, logits_train = trained.ensemble(learnt)
        for i in range(3):
            expected = 0.0
            for k in range(4):
                cosine = F.cosine_similarity(z[i, k][None], z_train[:, k]).max()
                expected += float(cosine * z[i, k].norm() / z_train[:, k].norm(dim=1).mean()) / 4
                expected += float(logits[i, k] / logits_train[:, k].abs().mean()) / 4
            assert float(scores[i]) == pytest.approx(-expected, rel=1e-3)


def test_a_head_that_tells_no_turns_does_not_turn_the_score_around() -> None:
    """Its mean logit of the right turn may be below 0: a higher logit still makes an image less odd."""
    detector = built(epochs=1)
    torch.nn.init.constant_(detector.head.bias, -1.0)
    learn(detector, upright(8, seed=1))
    images = upright(4, seed=2)
    with torch.no_grad():
        before = detector(images).image
        assert float(detector.ensemble(images)[1].mean()) < -0.5
        detector.head.bias.add_(0.5)
        assert bool((detector(images).image < before - 0.1).all())


def test_an_image_that_was_learnt_is_as_alike_as_it_is_long(trained: CSI) -> None:
    with torch.no_grad():
        z, _ = trained.ensemble(upright(24, seed=1))
    torch.testing.assert_close(
        torch.einsum("nkd,knd->nk", F.normalize(z, dim=2), trained.memory), torch.ones(24, 4), rtol=1e-3, atol=1e-3
    )


def test_scores_are_the_same_when_all_that_is_projected_is_longer(trained: CSI) -> None:
    images = upright(3, seed=4)
    with torch.no_grad():
        before = trained(images).image
        trained.projection[2].weight.mul_(5), trained.projection[2].bias.mul_(5), trained.norms.mul_(5)
        after = trained(images).image
        trained.projection[2].weight.div_(5), trained.projection[2].bias.div_(5), trained.norms.div_(5)
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-5)


def test_a_score_is_of_several_views_with_one_crop_share(trained: CSI) -> None:
    area = trained.drawn[..., DRAWN.index("width")] * trained.drawn[..., DRAWN.index("height")]
    torch.testing.assert_close(area, torch.full((3, 4), 0.54), rtol=1e-5, atol=0)
    assert len(trained.drawn.flatten(0, 1).unique(dim=0)) == 12 and {*trained.mirror.tolist()} <= {0.0, 1.0}
    image = upright(1, seed=5)
    with torch.no_grad():
        together, _ = trained.ensemble(image)
        single = []
        for v in range(3):
            views = trained.shifted(image, trained.mirror[v : v + 1], trained.drawn[v : v + 1])
            single.append(trained.projection(trained.network(views * 2 - 1)))
    torch.testing.assert_close(together[0], torch.stack(single).mean(0), rtol=1e-4, atol=1e-5)


def test_lars_makes_a_step_as_long_as_a_thousandth_of_the_tensor() -> None:
    weight = torch.nn.Parameter(torch.tensor([3.0, 4.0]))
    zero = torch.nn.Parameter(torch.zeros(2))
    optimizer = LARS([weight, zero], lr=2.0, momentum=0.9, weight_decay=0.5)
    for scale in (1.0, 1e4):
        before = weight.detach().clone()
        optimizer.state.clear()
        weight.grad, zero.grad = scale * torch.tensor([1.0, -2.0]) - 0.5 * before, torch.tensor([1.0, 0.0])
        optimizer.step()
        step = before - weight.detach()
        assert float(step.norm()) == pytest.approx(2 * 1e-3 * float(before.norm()), rel=1e-3)
        torch.testing.assert_close(step / step.norm(), torch.tensor([1.0, -2.0]) / 5**0.5, rtol=1e-3, atol=1e-4)
    assert zero[0] < -1.9  # a tensor of length 0 takes the plain step
    assert optimizer.param_groups[0]["weight_decay"] == 0.5


def test_paper_size() -> None:
    """ResNet-18, ten views; LARS at 1 after ten epochs, half a cosine over 1000, batches of 128 images."""
    detector = CSI()
    assert detector.network.features == 512 and detector.drawn.shape == (10, 4, len(DRAWN))
    phases = detector.phases()
    contrasting, collect = next(phases), next(phases)
    assert isinstance(contrasting, Train) and isinstance(collect, Collect)
    assert (contrasting.epochs, contrasting.batch_size) == (1000, 128)
    (update,) = contrasting.updates
    (group,) = update.optimizer.param_groups
    assert isinstance(update.optimizer, LARS) and (group["lr"], group["momentum"]) == (1.0, 0.9)
    assert update.schedule is not None
    assert [round(update.schedule(share), 3) for share in (0.0, 0.01, 1)] == [0.1, 1, 0]


@pytest.mark.parametrize("arguments", [{"blocks": (2, 0)}, {"views": 0}])
def test_ranges(arguments: dict[str, object]) -> None:
    with pytest.raises(OkngError, match=f"csi: {next(iter(arguments))}"):
        create("csi", **arguments)
