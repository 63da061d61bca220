"""What blocks were reduced to gives, merged in any tree and order, what all vectors at once give."""

from __future__ import annotations

import pytest
import torch
from tests.nn.vectors.test_coreset import clustered
from torch import Tensor

from okng.errors import OkngError
from okng.nn.vectors.coreset import covering_radius, greedy_coreset
from okng.nn.vectors.covariance import ledoit_wolf
from okng.nn.vectors.merging import Covered, ShrunkCovariance, merged_gaussians
from okng.nn.vectors.running_gaussians import RunningGaussians

SIZES = (1, 40, 7, 152)  # of the blocks


def drifting(d: int) -> Tensor:
    """Vectors (200, d) with a large mean, and each block another one, as shifts of a factory have."""
    torch.manual_seed(3)
    places = torch.repeat_interleave(torch.arange(4.0), torch.tensor(SIZES))
    return 50 + 5 * places[:, None] + torch.randn(200, d) @ torch.randn(d, d)


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 1, 0, 2)])
def test_gaussians_are_those_of_one_machine(order: tuple[int, ...]) -> None:
    """To 1e-5 of the largest entry, in float32."""
    vectors = drifting(6).expand(3, -1, -1) * torch.tensor([1.0, 2.0, 3.0])[:, None, None]  # (P, n, d)
    alone, parts = RunningGaussians(), [RunningGaussians() for _ in SIZES]
    for batch in vectors.split(16, dim=1):
        alone.update(batch)
    for part, block in zip(parts, vectors.split(SIZES, dim=1), strict=True):
        for batch in block.split(16, dim=1):
            part.update(batch)
    first = parts[order[0]].mean.clone()
    whole = merged_gaussians(parts[i] for i in order)
    assert whole.count == alone.count == 200 and torch.equal(parts[order[0]].mean, first)
    exact = vectors.double() - vectors.double().mean(1, keepdim=True)
    scatter = exact.mT @ exact
    for found in (whole, alone):
        torch.testing.assert_close(found.mean[:, 0].double(), vectors.double().mean(1), rtol=1e-6, atol=0)
        assert float((found.scatter - scatter).abs().max() / scatter.abs().max()) < 1e-5


@pytest.mark.parametrize("tree", [[[0], [1], [2], [3]], [[3, 1], [0, 2]], [[2, 0, 1], [3]]])
def test_a_shrunk_covariance_is_that_of_all_vectors(tree: list[list[int]]) -> None:
    """To 1e-10, in float64: the shrinkage too, which needs the fourth moments."""
    vectors = drifting(30)
    parts = [ShrunkCovariance.of(block) for block in vectors.split(SIZES)]
    whole = ShrunkCovariance.merged([ShrunkCovariance.merged([parts[i] for i in some]) for some in tree])
    assert whole.count == 200
    torch.testing.assert_close(whole.mean, vectors.double().mean(0), rtol=1e-12, atol=0)
    alone = ledoit_wolf(vectors)
    assert float((whole.covariance() - alone).abs().max() / alone.abs().max()) < 1e-10
    plain = torch.cov(vectors.double().T, correction=0)
    assert float((alone - plain).abs().max() / alone.abs().max()) > 1e-3  # so it was shrunk


def test_one_vector_has_no_covariance() -> None:
    assert not ShrunkCovariance.of(torch.ones(1, 3)).covariance().any()


def test_no_vectors_are_refused() -> None:
    with pytest.raises(OkngError, match="of no vectors there is no covariance"):
        ShrunkCovariance.of(torch.ones(0, 3)).covariance()


def test_an_empty_block_changes_nothing() -> None:
    """A machine may get no image, or none that can be read."""
    vectors = drifting(5)
    seen, empty = RunningGaussians(), RunningGaussians()
    seen.update(vectors[None])
    for parts in ([seen, empty], [empty, seen]):
        assert torch.equal(merged_gaussians(parts).scatter, seen.scatter)
    sums, nothing = ShrunkCovariance.of(vectors), ShrunkCovariance.of(vectors[:0])
    alone = ShrunkCovariance.merged([sums]).covariance()
    assert torch.equal(ShrunkCovariance.merged([nothing, sums, nothing]).covariance(), alone)
    covered = Covered.merged([Covered.of(vectors[:0]), Covered.of(vectors)], 20)
    assert covered.radius == Covered.merged([Covered.of(vectors)], 20).radius and covered.seen == 200
    for merge in (
        lambda: merged_gaussians([empty]),
        lambda: ShrunkCovariance.merged([nothing]),
        lambda: Covered.merged([Covered.of(vectors[:0])], 20),
    ):
        with pytest.raises(OkngError, match="nothing to merge"):
            merge()


def test_the_known_radius_is_the_true_one_far_from_zero() -> None:
    """Of one block that is reduced once. Images are far from 0: all values have a mean, and deviate little from it."""
    torch.manual_seed(0)
    points = torch.randn(1500, 8) + 1e4
    whole = Covered.merged([Covered.of(points)], 1000)
    true = float(torch.cdist(points.double(), whole.points.double()).amin(1).max())
    assert true > 0.5 and whole.radius == pytest.approx(true, rel=1e-5)


def test_no_known_radius_is_too_small() -> None:
    """About two far places no mean that is subtracted helps: the radius may be larger than it is, not smaller."""
    torch.manual_seed(0)
    points = torch.cat([torch.randn(750, 8) - 1e4, torch.randn(750, 8) + 1e4])
    whole = Covered.merged([Covered.of(points)], 1000)
    true = float(torch.cdist(points.double(), whole.points.double()).amin(1).max())
    assert 0.5 < true <= whole.radius * (1 + 1e-6)


def test_a_coreset_of_blocks_covers_all_points_within_its_radius() -> None:
    """And within four times the one-shot radius, whatever the blocks: here each block is of groups of its own."""
    for seed in range(3):
        points = clustered(4000, seed)
        points = points[points[:, 0].argsort()]
        alone = covering_radius(points, points[greedy_coreset(points, 100)])
        blocks = [Covered.merged([Covered.of(block)], 100) for block in points.split(700)]
        for levels in ([blocks], [blocks[:3], blocks[3:]]):
            reduced = [Covered.merged(level, 100) for level in levels]
            whole = reduced[0] if len(reduced) == 1 else Covered.merged(reduced, 100)
            assert (whole.seen, len(whole.points)) == (4000, 100)
            assert bool((whole.points[:, None] == points).all(2).any(1).all())  # points, not mixtures
            true = covering_radius(points, whole.points)
            assert true <= whole.radius * (1 + 1e-4)
            assert true <= 4 * alone and whole.radius <= 2 * (len(levels) + 1) * alone


def test_what_need_not_be_reduced_is_kept_whole() -> None:
    points = clustered(60, 1)
    whole = Covered.merged([Covered.of(block) for block in points.split(25)], 60)
    assert whole.radius == 0 and whole.seen == 60
    assert torch.equal(whole.points.sort(0).values, points.sort(0).values)
