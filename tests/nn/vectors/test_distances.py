from __future__ import annotations

import torch

from okng.nn.vectors.distances import nearest_distances, squared_distances


def drawn(count: int, seed: int) -> torch.Tensor:
    return torch.randn(count, 7, generator=torch.Generator().manual_seed(seed))


def test_all_and_nearest_distances_are_those_of_the_differences() -> None:
    queries, memories = drawn(5, 0), drawn(20, 1)
    expected = (queries[:, None] - memories).norm(dim=2)  # (5, 20)
    torch.testing.assert_close(squared_distances(queries, memories), expected.square(), rtol=1e-4, atol=1e-5)
    distances, index = nearest_distances(queries, memories, 3)
    wanted = expected.sort(1)
    assert torch.equal(index, wanted.indices[:, :3])
    torch.testing.assert_close(distances, wanted.values[:, :3])


def test_of_a_memory_the_nearest_distance_is_0() -> None:
    memories = drawn(20, 1) + 100  # where |q|² + |m|² - 2qm has no digits left
    distances, index = nearest_distances(memories, memories, 1)
    assert torch.equal(distances[:, 0], torch.zeros(20)) and torch.equal(index[:, 0], torch.arange(20))
    assert (squared_distances(memories, memories) >= 0).all()


def test_a_fit_of_mixed_precision_has_all_digits() -> None:
    memories = drawn(200, 1)
    queries = memories[:50] + 0.01 * drawn(50, 2)
    with torch.autocast("cpu", torch.bfloat16):
        squared, (distances, index) = squared_distances(queries, memories), nearest_distances(queries, memories, 3)
    assert squared.dtype == torch.float32 and torch.equal(squared, squared_distances(queries, memories))
    wanted = nearest_distances(queries, memories, 3)
    assert torch.equal(distances, wanted[0]) and torch.equal(index, wanted[1])
    with torch.autocast("cpu", torch.bfloat16):  # features of a network come as halves
        assert squared_distances(queries.bfloat16(), memories).dtype == torch.float32
    assert squared_distances(queries.double(), memories.double()).dtype == torch.float64
