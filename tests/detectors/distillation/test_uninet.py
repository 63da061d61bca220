"""What tells UniNet from a toy: two teachers of which one moves, compared crosswise, position against position."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from tests.detectors.scenes import discs
from torch import Tensor

from okng.detectors.base import Train
from okng.detectors.catalogue import create
from okng.detectors.distillation.uninet import UniNet, mean_of_top, own_position, selected
from okng.errors import OkngError
from okng.inspection.reading.images import Preprocess
from okng.training.images.data import TrainingImages
from okng.training.loop.phases import run_phases


def built(**arguments: object) -> UniNet:
    torch.manual_seed(0)
    detector = create("uninet", **{"weights": "none", "strides": (8, 16), **arguments})
    assert isinstance(detector, UniNet)
    return detector.eval()


def images(count: int = 2, seed: int = 0) -> Tensor:
    return torch.rand(count, 3, 64, 96, generator=torch.Generator().manual_seed(seed))


def features(seed: int) -> Tensor:
    return torch.randn(2, 5, 3, 4, generator=torch.Generator().manual_seed(seed))


def test_own_position_is_the_cross_entropy_with_it_as_the_target() -> None:
    wanted, restored = features(0), features(1)
    own = own_position(wanted, restored, 0.5)
    assert own.shape == (2, 12) and float(own.exp().max()) < 1
    taught, made = (F.normalize(f.flatten(2), dim=1) for f in (wanted, restored))
    logits = torch.einsum("bci,bcj->bij", made, taught) / 0.5
    expected = F.cross_entropy(logits.flatten(0, 1), torch.arange(12).repeat(2), reduction="none").view(2, 12)
    torch.testing.assert_close(-own, expected)


def test_features_at_other_positions_are_not_as_good() -> None:
    """Though all of the image's statistics stay."""
    wanted = features(0)
    shuffled = wanted.flatten(2)[:, :, torch.randperm(12, generator=torch.Generator().manual_seed(3))].view_as(wanted)
    assert own_position(wanted, wanted, 0.1).mean() > own_position(wanted, shuffled, 0.1).mean() + 1


def test_what_was_restored_of_one_teacher_is_compared_with_the_other() -> None:
    detector = built()
    with torch.no_grad():
        for parameter in detector.target.parameters():  # so that the teachers differ
            parameter.mul_(1.1)
        source, target = detector.source(images()), detector.target(images())
        pairs = detector.pairs(source, images())
        alone = {}
        for name, taught in (("source", source), ("target", target)):
            entering, made = detector.embedding(taught), []
            for stage in detector.decoder:
                made.append(stage(entering))
                entering = made[-1].relu()
            alone[name] = made[::-1]
    assert len(pairs) == 4
    for level in (0, 1):
        for (wanted, restored), teacher, of in zip(
            pairs[2 * level : 2 * level + 2], (source, target), ("target", "source"), strict=True
        ):
            torch.testing.assert_close(wanted, teacher[level])
            torch.testing.assert_close(restored, alone[of][level], rtol=1e-3, atol=1e-4)
    assert not torch.allclose(alone["source"][0], alone["target"][0])


def test_selection_weighs_by_the_teachers_softmax_over_positions() -> None:
    wanted, restored = features(0), features(1)
    chosen = torch.tensor([-30.0, -1.0, 0.0, 1.0, 30.0])
    found = selected(wanted, restored, chosen)
    threshold = torch.tensor([0.5, 0.5 + 1 / (1 + 2.718281828), 1, 1, 1])
    for channel in range(5):
        weights = wanted[:, channel].flatten(1).softmax(1).view(2, 3, 4)
        scale = threshold[channel] + wanted[:, channel].mean((1, 2))
        expected = restored[:, channel] * weights * scale[:, None, None]
        torch.testing.assert_close(found[:, channel], expected)


def test_the_surer_the_peaks_the_larger_the_share_of_the_map() -> None:
    maps = torch.arange(100_000.0).view(1, 250, 400).expand(2, 250, 400)
    peaks = torch.tensor([[0.9, 0.1, 0.8, 0.0], [0.0, 0.0, 0.0, 0.0]])
    found = mean_of_top(maps, peaks)
    k = int(0.01 * (0.9 + 0.8) / 2 * 100_000)  # 850
    expected = [99_999 - (k - 1) / 2, 99_999 - 1.0]  # the least share is 3 of 100,000
    torch.testing.assert_close(found, torch.tensor(expected), rtol=1e-5, atol=0)


def test_one_teacher_stays_and_the_other_learns_slowly() -> None:
    detector = built(weights="imagenet", selection=False, epochs=2, batch_size=4, target_learning_rate=1e-5)
    source = {name: tensor.clone() for name, tensor in detector.source.state_dict().items()}
    for name, tensor in detector.target.state_dict().items():
        assert torch.equal(tensor, source[name])
    ok = discs(8)
    run_phases(detector, TrainingImages(list(ok), Preprocess("RGB", (64, 64), detector.multiple)), device="cpu")
    for name, tensor in detector.source.state_dict().items():
        assert torch.equal(tensor, source[name]), name
    moved = {n: float((t.float() - source[n].float()).abs().max()) for n, t in detector.target.state_dict().items()}
    weights = [by for name, by in moved.items() if "weight" in name]
    assert max(weights) < 4 * 1.1e-5 and sum(by > 0 for by in weights) > 0.5 * len(
        weights
    )  # deeper layers are not asked
    assert all(by == 0 for name, by in moved.items() if "running" in name)  # its batch normalization stays


def test_the_authors_rates() -> None:
    (phase,) = built(training_steps=7).phases()
    assert isinstance(phase, Train) and (phase.batch_size, phase.steps, phase.drop_last) == (8, 7, True)
    (update,) = phase.updates
    assert [group["lr"] for group in update.optimizer.param_groups] == [5e-3, 1e-6]
    assert update.optimizer.defaults["weight_decay"] == 1e-5


@pytest.mark.parametrize("arguments", [{"temperature": 0.0}, {"batch_size": 1}, {"strides": (8, 24)}])
def test_ranges(arguments: dict[str, object]) -> None:
    with pytest.raises(OkngError, match="uninet: "):
        built(**arguments)
