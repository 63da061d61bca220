"""The batched greedy is the plain greedy, and worth its time."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from okng.errors import OkngError
from okng.nn.vectors.coreset import StreamingCoreset, covering_radius, greedy_coreset, greedy_rounds, last_gap


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


@pytest.mark.parametrize(("n", "m"), [(0, 2), (2, 0), (0, 0)])
def test_no_radius_without_points_and_centres(n: int, m: int) -> None:
    with pytest.raises(OkngError, match=f"{n} points have no covering radius by {m} centres"):
        covering_radius(torch.ones(n, 3), torch.ones(m, 3))


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


def test_picks_are_the_same_in_a_mixed_precision_fit() -> None:
    points = clustered(2000, 14)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = greedy_coreset(points, 100)
    assert torch.equal(mixed, greedy_coreset(points, 100))


def test_goes_on_until_the_radius_is_reached() -> None:
    points = clustered(1000, 8)
    picked = [index for accepted in greedy_rounds(points, 5, radius=1.0) for index in accepted]
    assert covering_radius(points, points[picked]) <= 1.0 < covering_radius(points, points[picked[:-1]])
    assert picked == greedy_coreset(points, len(picked)).tolist()


def streamed(points: Tensor, coreset: float, capacity: int) -> tuple[StreamingCoreset, Tensor]:
    """The stream fed by uneven blocks, never above its capacity, and the coreset it selects."""
    torch.manual_seed(0)
    number = None if coreset <= 1 else int(coreset)
    stream = StreamingCoreset(0.01 if number else coreset, capacity, number=number)
    for block in points.split(170):
        stream.add(block)
        assert stream.points.untyped_storage().nbytes() <= 4 * points.shape[1] * (capacity - stream.count)
    return stream, stream.points[[index for accepted in stream.rounds() for index in accepted]]


@pytest.mark.parametrize("coreset", [0.05, 200])
def test_a_stream_that_fits_gives_the_one_shot_coreset(coreset: float) -> None:
    points = clustered(4000, 9)
    _, selected = streamed(points, coreset, capacity=5000)
    torch.manual_seed(0)
    assert torch.equal(selected, points[greedy_coreset(points, 200, start=int(torch.randint(4000, ())))])


@pytest.mark.parametrize("coreset", [0.01, 100])
def test_a_stream_that_does_not_fit_covers_nearly_as_well(coreset: float) -> None:
    points = clustered(10_000, 10)
    stream, selected = streamed(points, coreset, capacity=1000)
    assert stream.seen == 10_000 and len(selected) == len(selected.unique(dim=0)) == 100
    assert bool((selected[:, None] == points).all(2).any(1).all())  # points, not mixtures
    assert covering_radius(points, selected) <= 1.3 * covering_radius(points, points[greedy_coreset(points, 100)])


@pytest.mark.parametrize("coreset", [0.3, 300])
def test_a_coreset_too_large_for_the_memory_is_refused(coreset: float) -> None:
    with pytest.raises(OkngError, match="raise memory"):
        streamed(clustered(2000, 11), coreset, capacity=1000)


def test_going_on_keeps_the_old_picks_and_covers_the_new_points_as_well() -> None:
    old, new = clustered(2000, 12), clustered(100, 13) + 20
    kept = old[greedy_coreset(old, 40)]
    gap = last_gap(kept)
    stream = StreamingCoreset(0.02, 10_000, kept, seen=2000, radius=gap)
    stream.add(new)
    selected = stream.points[[index for accepted in stream.rounds() for index in accepted]]
    assert stream.count == 42 < len(selected) < 60 and torch.equal(selected[:40], kept)
    assert gap == pytest.approx(float(torch.cdist(kept, kept).fill_diagonal_(torch.inf).min()))
    assert covering_radius(old, kept) <= gap * (1 + 1e-5)
    assert covering_radius(new, selected) <= gap * (1 + 1e-5)
