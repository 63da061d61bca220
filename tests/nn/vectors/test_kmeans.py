from __future__ import annotations

import torch
from sklearn.cluster import KMeans
from tests.nn.devices import WithoutFloat64

from okng.nn.vectors.kmeans import assigned, kmeans


def blobs(n: int, count: int, spread: float) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    middles = 10 * torch.randn(count, 4, generator=generator)
    return middles[torch.arange(n) % count] + spread * torch.randn(n, 4, generator=generator) + 100


def test_separate_groups_each_get_their_mean() -> None:
    torch.manual_seed(0)
    points = blobs(300, 5, spread=0.1)
    centres = kmeans(points, 5)
    squared, index = assigned(points, centres)
    assert len(index.unique()) == 5 and float(squared.max()) < 1
    for k in range(5):
        torch.testing.assert_close(centres[k], points[index == k].mean(0), rtol=1e-4, atol=1e-4)


def test_it_is_as_close_as_scikit_learn_s() -> None:
    torch.manual_seed(0)
    points = blobs(500, 20, spread=4.0)
    ours = float(assigned(points, kmeans(points, 8))[0].sum())
    theirs = KMeans(8, n_init=4, random_state=0).fit(points.double().numpy()).inertia_
    assert ours < 1.1 * theirs


def test_a_seed_decides() -> None:
    points = blobs(200, 10, spread=3.0)
    found = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        found.append(kmeans(points, 6))
    assert torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])


def test_a_gpu_without_float64_is_no_hindrance() -> None:
    points = blobs(40, 4, spread=0.1)
    found = []
    for given in (points, points.as_subclass(WithoutFloat64)):
        torch.manual_seed(0)
        found.append(kmeans(given, 4))
    assert torch.equal(found[0], found[1].cpu())


def test_points_that_coincide_are_one_centre() -> None:
    assert torch.equal(kmeans(torch.ones(9, 3), 4), torch.ones(1, 3))


def test_centres_and_who_belongs_to_them_are_the_same_in_a_fit_of_mixed_precision() -> None:
    points = torch.randn(400, 8, generator=torch.Generator().manual_seed(0))
    found = []
    for enabled in (False, True):
        torch.manual_seed(0)
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            centres = kmeans(points, 12)
            found.append((centres, *assigned(points, centres)))
    for plain, mixed in zip(*found, strict=True):
        assert torch.equal(plain, mixed)
