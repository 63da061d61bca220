"""The batched greedy is the plain greedy, and worth its time."""

from __future__ import annotations

import torch
from torch import Tensor

from okng.nn.coreset import covering_radius, greedy_coreset, greedy_rounds


def plain_greedy(points: Tensor, count: int, start: int) -> list[int]:
    """Farthest-point selection one centre at a time, in float64."""
    points = points.double()
    picked = [start]
    distances = torch.full((len(points),), torch.inf, dtype=torch.float64)
    while len(picked) < count:
        distances = torch.minimum(distances, (points - points[picked[-1]]).square().sum(1))
        picked.append(int(distances.argmax()))
    return picked


def clustered(n: int, seed: int) -> Tensor:
    """Points of a few dense groups and a few loners, as patches are; no two distances tie."""
    generator = torch.Generator().manual_seed(seed)
    centres = 3 * torch.randn(7, 12, generator=generator)
    points = centres[torch.randint(7, (n,), generator=generator)] + torch.randn(n, 12, generator=generator)
    points[:5] *= 4
    return points


def test_equals_the_plain_greedy_without_ties() -> None:
    for seed, n, count in [(0, 3000, 700), (1, 300, 300), (2, 200, 50), (3, 257, 256)]:
        points = clustered(n, seed)
        assert greedy_coreset(points, count, start=seed).tolist() == plain_greedy(points, count, seed)


def test_covers_better_than_random_subsets() -> None:
    points = clustered(4000, 5)
    radius = covering_radius(points, points[greedy_coreset(points, 200)])
    for seed in range(5):
        random = points[torch.randperm(4000, generator=torch.Generator().manual_seed(seed))[:200]]
        assert radius < 0.8 * covering_radius(points, random)


def test_is_within_twice_the_best_possible_radius() -> None:
    """Gonzalez's bound: the radius of k centres is at most the smallest distance among k + 1 mutually far points."""
    points = clustered(1000, 6)
    picks = points[greedy_coreset(points, 21)]
    gaps = torch.cdist(picks, picks) + 1e9 * torch.eye(21)
    assert covering_radius(points, picks[:20]) <= float(gaps.min()) * (1 + 1e-5)


def test_duplicates_are_picked_once() -> None:
    points = torch.arange(5.0).repeat(40)[:, None] * torch.ones(1, 3)
    picks = greedy_coreset(points, 50)
    assert len(picks) == 5 and sorted(points[picks][:, 0].tolist()) == [0, 1, 2, 3, 4]


def test_asking_for_more_than_there_is_takes_all() -> None:
    assert sorted(greedy_coreset(clustered(20, 7), 99).tolist()) == list(range(20))


def test_rounds_are_few() -> None:
    points = torch.randn(5000, 8, generator=torch.Generator().manual_seed(0))
    assert sum(1 for _ in greedy_rounds(points, 1000)) < 100
