from __future__ import annotations

import torch

from okng.nn.vectors.neighbours import nearest_squared


def test_distances_are_those_of_all_pairs() -> None:
    torch.manual_seed(0)
    queries, memories = torch.randn(2, 7, 5), torch.randn(2, 11, 5)
    expected = torch.cdist(queries.double(), memories.double()).square().sort(2).values  # (2, 7, 11)
    for count in (1, 3, 11):
        found = nearest_squared(queries, memories, count)
        torch.testing.assert_close(found, expected[:, :, :count].float(), rtol=1e-4, atol=1e-5)


def test_what_is_a_memory_is_at_no_distance_however_long_it_is() -> None:
    memories = torch.randn(1, 50, 8, generator=torch.Generator().manual_seed(0)) + 1000
    assert torch.equal(nearest_squared(memories[:, 3:9], memories), torch.zeros(1, 6, 1))


def test_what_all_have_in_common_hides_no_neighbour() -> None:
    """Two memories as far apart as one of them is from the query, both far from 0: products about 0 take either."""
    torch.manual_seed(0)
    memories = 100 + torch.randn(1, 500, 8) / 100
    queries = memories + torch.randn(1, 500, 8) / 1000
    expected = torch.cdist(queries.double(), memories.double()).square().amin(2, keepdim=True)
    torch.testing.assert_close(nearest_squared(queries, memories), expected.float(), rtol=1e-3, atol=0)
