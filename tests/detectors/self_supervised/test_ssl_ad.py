"""What tells SSL-AD from a toy: three heads, right about unseen images, and all 36 transformations."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.detectors.self_supervised.upright import learn, upright
from torch import Tensor

from okng.detectors.base import Batch, Train
from okng.detectors.catalogue import create
from okng.detectors.self_supervised.ssl_ad import SSLAD
from okng.errors import OkngError


def built(**arguments: object) -> SSLAD:
    torch.manual_seed(0)
    small = {"image_size": (16, 16), "channels": 1, "depth": 10, "width": 4, "batch_size": 8}
    detector = create("ssl_ad", **{**small, **arguments})
    assert isinstance(detector, SSLAD)
    return detector


@pytest.fixture(scope="module")
def trained() -> SSLAD:
    return learn(built(epochs=80, width=8), upright(24, seed=1))


def test_the_score_is_the_sum_of_the_right_answers_over_all_36(trained: SSLAD) -> None:
    images = upright(3, seed=2)
    with torch.no_grad():
        scores = trained(images).image
        for image, score in zip(images, scores, strict=True):
            expected = 0.0
            for x, left in enumerate((0, -4, 4)):
                for y, up in enumerate((0, -4, 4)):
                    framed = torch.nn.functional.pad(image[None], (4, 4, 4, 4), mode="reflect")
                    shifted = framed[:, :, 4 - up : 20 - up, 4 - left : 20 - left]
                    for turn in range(4):
                        logits = trained.logits(shifted.rot90(turn, (2, 3)))[0]
                        right = (logits[:3].softmax(0)[x], logits[3:6].softmax(0)[y], logits[6:].softmax(0)[turn])
                        assert all(0 <= float(p) <= 1 for p in right) and len(logits) == 10
                        expected += float(sum(right))
            assert float(score) == pytest.approx(-expected, rel=1e-4)


def test_each_head_is_right_about_images_that_it_never_saw_and_turned_ones_are_odd(trained: SSLAD) -> None:
    with torch.no_grad():
        told = trained.logits(trained.transformations(upright(20, seed=3)).flatten(0, 1)).split((3, 3, 4), 1)
        ok, odd = (trained(upright(20, seed=4, turned=turned)).image for turned in (False, True))
    for logits, right in zip(told, trained.answers(), strict=True):
        assert (logits.argmax(1) == right.repeat(20)).float().mean() > 0.6  # a third or a quarter by chance
    assert (odd[:, None] > ok).float().mean() > 0.95


def test_the_loss_is_the_mean_of_three_cross_entropies_of_all_turns_of_a_mirrored_shifted_image() -> None:
    detector, images = built(), torch.rand(2, 1, 16, 16)
    seen: list[Tensor] = []
    detector.network.register_forward_hook(lambda module, given, output: seen.append(given[0]))
    drawn = torch.tensor([[0, 0], [1, 7]])  # the second mirrored, and 7 = 3 * 2 + 1: right by a quarter and up
    with torch.no_grad():
        losses = detector.loss(Batch(images, torch.arange(2), views=(drawn,)))
        logits = detector.heads(detector.network(seen[0]))
    moved = (seen[0].unflatten(0, (2, 4)) + 1) / 2
    mirrored = torch.nn.functional.pad(images[1:].flip(3), (4, 4, 4, 4), mode="reflect")[:, :, 8:24, 0:16]
    for turn in range(4):
        torch.testing.assert_close(moved[0, turn], images[0].rot90(turn, (1, 2)))
        torch.testing.assert_close(moved[1, turn], mirrored[0].rot90(turn, (1, 2)))
    truth = ([0] * 4 + [2] * 4, [0] * 4 + [1] * 4, [0, 1, 2, 3] * 2)
    for loss, head, right in zip(losses.values(), logits.split((3, 3, 4), 1), truth, strict=True):
        expected = torch.nn.functional.cross_entropy(head, torch.tensor(right)) / 3
        assert float(loss) == pytest.approx(float(expected), rel=1e-4)


def test_each_pass_draws_mirroring_and_one_of_nine_shifts() -> None:
    image = torch.zeros(1, 16, 16)
    detector = built()
    drawn = torch.stack([detector.augment(image, torch.Generator().manual_seed(seed)) for seed in range(200)])
    assert np.bincount(drawn[:, 0]).min() > 60 and len(np.bincount(drawn[:, 1])) == 9
    assert np.bincount(drawn[:, 1]).min() > 5


def test_paper_size() -> None:
    """WRN-16-4, SGD with Nesterov's momentum at 0.1 and half a cosine down to a millionth."""
    detector = SSLAD()
    assert sum(isinstance(layer, torch.nn.Conv2d) for layer in detector.network.modules()) == 1 + 12 + 3
    (naming,) = detector.phases()
    assert isinstance(naming, Train) and (naming.epochs, naming.batch_size) == (200, 64)
    (update,) = naming.updates
    (group,) = update.optimizer.param_groups
    assert (group["lr"], group["momentum"], group["weight_decay"], group["nesterov"]) == (0.1, 0.9, 5e-4, True)
    assert update.schedule is not None
    assert [0.1 * update.schedule(share) for share in (0.0, 0.5, 1)] == pytest.approx([0.1, 0.05, 1e-6], rel=1e-4)


@pytest.mark.parametrize("arguments", [{"depth": 9}, {"channels": 2}])
def test_ranges(arguments: dict[str, object]) -> None:
    with pytest.raises(OkngError, match=f"ssl_ad: .*{next(iter(arguments))}"):
        create("ssl_ad", **arguments)
