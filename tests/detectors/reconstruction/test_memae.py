"""What tells MemAE from an autoencoder: only a few learnt items reach the decoder, and odd codes are far from them."""

from __future__ import annotations

import pytest
import torch
from tests.detectors.scenes import SIDE, crosses, rings, source, tensor
from torch import Tensor

from okng.detectors.catalogue import create
from okng.detectors.reconstruction.memae import MemAE, Memory
from okng.training.loop.phases import run_phases

SMALL = {"widths": (8, 16), "items": 40, "epochs": 12, "batch_size": 16, "learning_rate": 5e-3}


def built(**arguments: object) -> MemAE:
    torch.manual_seed(0)
    detector = create("memae", **{"image_size": (SIDE, SIDE), "channels": 1, **SMALL, **arguments})
    assert isinstance(detector, MemAE)
    return detector


@pytest.fixture(scope="module")
def learnt() -> MemAE:
    detector = built()
    run_phases(detector, source(rings(256)), device="cpu")
    return detector


def asked(detector: MemAE, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Queries (B, size), what the memory says, and the weights (B, items)."""
    with torch.no_grad():
        queries = detector.encoder(images).flatten(1)
        return queries, *detector.memory(queries)


@pytest.mark.parametrize("query", ["image", "position"])
@pytest.mark.parametrize(("size", "channels"), [((28, 28), 1), ((32, 32), 3), ((33, 47), 3)])
def test_every_size(query: str, size: tuple[int, int], channels: int) -> None:
    detector = built(image_size=size, channels=channels, query=query)
    images = torch.rand(2, channels, *size)
    with torch.no_grad():
        copies, weights = detector.recall(images)
        scores = detector(images)
    assert copies.shape == images.shape and scores.map is not None and scores.map.shape == (2, *size)
    h, w = detector.grid[1:]
    assert weights.shape == (2 if query == "image" else 2 * h * w, 40)
    torch.testing.assert_close(weights.sum(1), torch.ones(len(weights)))


def test_positions_ask_for_themselves() -> None:
    """Each place of the code is answered by its own query, and put back where it stood."""
    detector = built(query="position", image_size=(20, 28))
    images = torch.rand(2, 1, 20, 28)
    given: list[Tensor] = []
    detector.decoder[0].register_forward_pre_hook(lambda _, inputs: given.append(inputs[0]))
    with torch.no_grad():
        detector(images)
        codes = detector.encoder(images)  # (2, 16, 5, 7)
        answer, _ = detector.memory(codes[1, :, 3, 2][None])
    torch.testing.assert_close(given[0][1, :, 3, 2], answer[0])


def test_shrinkage_as_published() -> None:
    """Weights under the threshold are 0, the others keep their proportions and have a gradient."""
    memory = Memory(3, 2, threshold=0.2)
    memory.items.data = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, -1.0]])
    query = torch.tensor([[1.0, 1.5]], requires_grad=True)
    soft = torch.tensor([1.0, 1.5, -2.5]).softmax(0)
    assert soft[2] < 0.2 < soft[0]
    answer, weights = memory(query)
    torch.testing.assert_close(weights[0], torch.stack([soft[0], soft[1], 0 * soft[2]]) / (soft[0] + soft[1]))
    torch.testing.assert_close(answer, weights @ memory.items)
    answer[0, 0].backward()
    assert query.grad is not None and query.grad.any() and memory.items.grad is not None
    assert (memory.items.grad[:2].abs() > 1e-3).all() and (memory.items.grad[2].abs() < 1e-6).all()


def test_most_weights_are_exactly_zero(learnt: MemAE) -> None:
    """And without shrinkage and entropy none is: a sum of all items, from which any code can be made."""
    images = tensor(rings(100, seed=1))
    assert float((asked(learnt, images)[2] == 0).float().mean()) > 0.5
    dense = built(shrinkage=0.0, entropy_weight=0.0, epochs=2)
    run_phases(dense, source(rings(256)), device="cpu")
    weights = asked(dense, images)[2]
    assert (weights > 0).float().mean() > 0.99


def test_the_entropy_loss_makes_fewer_items_speak() -> None:
    images, counts = tensor(rings(100, seed=1)), []
    for weight in (0.0, 0.1):
        detector = built(entropy_weight=weight, shrinkage=0.0, epochs=6)
        run_phases(detector, source(rings(256)), device="cpu")
        weights = asked(detector, images)[2].clamp_min(1e-12)
        counts.append(float((-(weights * weights.log()).sum(1)).exp().mean()))  # items that speak, in effect
    assert counts[1] < 0.7 * counts[0]


def test_the_memory_learns_and_stays_when_it_scores(learnt: MemAE) -> None:
    assert not torch.equal(built().memory.items, learnt.memory.items)
    before = learnt.memory.items.clone()
    with torch.no_grad():
        learnt(tensor(crosses(10)))
    assert torch.equal(before, learnt.memory.items)


def test_codes_of_odd_images_are_farther_from_what_the_memory_says(learnt: MemAE) -> None:
    apart = []
    for images in (rings(100, seed=1), crosses(100, seed=1)):
        queries, answers, _ = asked(learnt, tensor(images))
        apart.append((queries - answers).norm(dim=1) / queries.norm(dim=1))
    ok, odd = apart
    assert (odd[:, None] > ok).float().mean() > 0.9


def test_only_the_memory_reaches_the_decoder(learnt: MemAE) -> None:
    """An item's copy is what is decoded of any code that asks for it alone."""
    images = tensor(rings(2, seed=2))
    with torch.no_grad():
        learnt.memory.threshold, kept = 1.0, learnt.memory.threshold  # no weight is over it: the memory says nothing
        copies, _ = learnt.recall(torch.cat([images, tensor(crosses(2))]))
        learnt.memory.threshold = kept
    torch.testing.assert_close(copies, copies[:1].expand_as(copies))
