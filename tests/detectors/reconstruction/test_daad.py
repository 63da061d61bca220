"""What tells DAAD from an autoencoder: all that is copied is assembled of blocks in memory, and their size counts."""

from __future__ import annotations

import pytest
import torch
from tests.detectors.scenes import SIDE, crosses, rings, source, tensor
from torch import Tensor

from okng.detectors.base import Batch, Train
from okng.detectors.catalogue import create
from okng.detectors.reconstruction.daad import DAAD, BlockMemory
from okng.errors import OkngError
from okng.training.loop.phases import run_phases


def built(**arguments: object) -> DAAD:
    torch.manual_seed(0)
    detector = create("daad", **arguments)
    assert isinstance(detector, DAAD)
    return detector


@pytest.mark.parametrize(
    ("size", "channels", "levels"), [((28, 28), 1, 2), ((32, 32), 3, 3), ((64, 64), 1, 4), ((31, 90), 3, 2)]
)
def test_nothing_leads_from_image_to_copy_around_the_memories(
    size: tuple[int, int], channels: int, levels: int
) -> None:
    """With one item in each, all images have the same copy; with two they haven't."""
    copies = []
    for items in (1, 2):
        detector = built(image_size=size, channels=channels, width=4, items=items, divisions=(4, 4, 2))
        network = detector.autoencoder.eval()
        assert len(network.down) == len(network.memories) == len(network.up) == levels
        with torch.no_grad():
            copies.append(network(torch.rand(2, channels, *size) * 2 - 1))
        assert copies[-1].shape == (2, channels, *size)
    torch.testing.assert_close(copies[0][0], copies[0][1])
    assert not torch.allclose(copies[1][0], copies[1][1], atol=1e-6)


@pytest.mark.parametrize("divisions", [(1, 1, 1), (2, 3, 1), (4, 4, 2), (99, 99, 99)])
def test_blocks_are_parts_of_the_map(divisions: tuple[int, int, int]) -> None:
    """Put together they are what was divided, and each is replaced by what it alone resembles."""
    torch.manual_seed(0)
    memory = BlockMemory((6, 7, 9), divisions, 50, 0.1)
    features = torch.randn(3, 6, 7, 9)
    blocks = memory.divide(features)
    assert len(blocks) == 3 * torch.tensor(memory.grid).prod()
    assert all(n == min(rate, n) for rate, n in zip((divisions[2], *divisions[:2]), memory.grid, strict=True))
    torch.testing.assert_close(memory.assemble(blocks), features)
    other = features.clone()
    other[:, 0, 0, 0] += 9
    with torch.no_grad():
        changed = (memory(other) - memory(features)).abs() > 0  # (3, 6, 7, 9)
    deep, down, across = memory.block
    assert changed[:, :deep, :down, :across].any()
    changed[:, :deep, :down, :across] = False
    assert not changed.any()


def test_a_block_is_a_mean_of_a_few_items_whatever_their_order() -> None:
    torch.manual_seed(0)
    memory = BlockMemory((4, 8, 8), (2, 2, 1), 40, 0.1)
    features = torch.randn(5, 4, 8, 8)
    with torch.no_grad():
        weights = memory.weights(memory.divide(features))  # (20, 40)
        before = memory(features)
        memory.items.data = memory.items.data[torch.randperm(40)]
        torch.testing.assert_close(memory(features), before)
        same = memory.weights(3 * memory.items)  # an item finds itself, whatever its length
    assert float(weights.min()) == 0 and 0.3 < float((weights == 0).float().mean()) < 0.97
    torch.testing.assert_close(weights.sum(1), torch.ones(20))
    assert torch.equal(same.argmax(1), torch.arange(40)) and float(same.amax(1).min()) > 0.9
    assert torch.isfinite(memory.weights(torch.zeros(2, 64))).all()


def test_each_network_learns_in_its_own_step() -> None:
    detector = built(image_size=(28, 28), channels=1, width=4, items=8, divisions=(2, 2, 1)).train()
    (phase,) = detector.phases()
    assert isinstance(phase, Train)
    batch = Batch(torch.rand(4, 1, 28, 28), torch.arange(4))
    for update, moving in zip(phase.updates, (detector.discriminator, detector.autoencoder), strict=True):
        detector.zero_grad()
        loss = update.loss(batch)
        assert isinstance(loss, dict)
        torch.stack([*loss.values()]).sum().backward()
        learning = {id(p) for p in moving.parameters()}
        assert {id(p) for group in update.optimizer.param_groups for p in group["params"]} == learning
        for parameter in detector.parameters():
            assert parameter.requires_grad and (parameter.grad is not None) == (id(parameter) in learning)
    assert all(memory.items.grad.any() for memory in detector.autoencoder.memories)  # type: ignore[union-attr, operator]
    assert all(module.training for module in detector.modules())


def test_losses_and_score_by_hand() -> None:
    """Copies 0.5 apart from images in [-1, 1], features 3 apart; 2 is said of an image and -2 of a copy."""
    weights = {"reconstruction_weight": 10.0, "adversarial_weight": 3.0, "latent_weight": 0.5, "latent_share": 0.25}
    detector = built(image_size=(28, 28), channels=1, width=4, items=8, divisions=(2, 2, 1), **weights)
    batch = Batch(torch.full((4, 1, 28, 28), 0.5), torch.arange(4))  # 0 in [-1, 1]

    class Copier(torch.nn.Linear):
        def forward(self, images: Tensor) -> Tensor:
            return images + 0.5

    class Judge(torch.nn.Linear):
        def look(self, images: Tensor) -> Tensor:
            return 6 * images

        def forward(self, images: Tensor) -> Tensor:
            return 2 - 8 * images.mean((1, 2, 3))

    detector.autoencoder, detector.discriminator = Copier(1, 1), Judge(1, 1)  # type: ignore[assignment]
    right, wrong = 0.126928, 2.126928  # log(1 + exp(-2)), log(1 + exp(2))
    told, made = detector.discriminator_loss(batch), detector.copying_loss(batch)
    assert {k: float(v) for k, v in told.items()} == pytest.approx({"real": right, "copied": right}, abs=1e-5)
    expected = {"copies": 10 * 0.5, "adversarial": 3 * wrong, "latent": 0.5 * 9}
    assert {k: float(v) for k, v in made.items()} == pytest.approx(expected, abs=1e-4)
    scores = detector(batch.images)
    torch.testing.assert_close(scores.image, torch.full((4,), 0.75 * 0.25 + 0.25 * 9))
    torch.testing.assert_close(scores.map, torch.full((4, 28, 28), 0.25))


def errors(detector: DAAD, images: Tensor) -> float:
    with torch.no_grad():
        found = detector(images).map
    assert found is not None
    return float(found.mean())


def test_coarser_blocks_copy_worse_and_keep_more_back() -> None:
    """The paper's curve, on rings: the errors of OK and NG images both rise with the size of the blocks."""
    ok, ng = [], []
    for count in (8, 2, 1):
        detector = built(
            image_size=(SIDE, SIDE), channels=1, width=8, items=32, divisions=(count, count, 1), epochs=6,
            batch_size=16, learning_rate=2e-3,
        )  # fmt: skip
        run_phases(detector, source(rings(128)), device="cpu")
        ok.append(errors(detector, tensor(rings(100, seed=1))))
        ng.append(errors(detector, tensor(crosses(100))))
    assert 1.2 * ok[0] < ok[1] and 1.2 * ok[1] < ok[2]
    assert 1.2 * ng[0] < ng[1] and 1.05 * ng[1] < ng[2]
    assert min(ng[1] - ok[1], ng[2] - ok[2]) > 1.2 * (ng[0] - ok[0])


@pytest.mark.parametrize(
    "arguments", [{"divisions": (2, 2)}, {"divisions": (0, 2, 1)}, {"items": 0}, {"temperature": 0.0}]
)
def test_ranges(arguments: dict[str, object]) -> None:
    with pytest.raises(OkngError, match=f"daad: {next(iter(arguments))}"):
        create("daad", **arguments)
