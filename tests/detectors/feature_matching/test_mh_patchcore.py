"""What tells MH-PatchCore from a toy: distances are Mahalanobis', all is streamed, and few patches are held."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from okng.detectors.base import Batch, Collect
from okng.detectors.catalogue import create
from okng.detectors.feature_matching.mh_patchcore import (
    MergeReduce,
    MHPatchCore,
    farthest_first,
    whitening_of_components,
)
from okng.detectors.feature_matching.patchcore import PatchCore
from okng.errors import OkngError
from okng.nn.images.blur import gaussian_blur
from okng.nn.vectors.coreset import covering_radius

D = 40  # channels at strides 2 and 4


def images(count: int, seed: int = 0) -> Tensor:
    return torch.rand(count, 3, 32, 48, generator=torch.Generator().manual_seed(seed))


def built(**arguments: object) -> MHPatchCore:
    torch.manual_seed(0)
    detector = create("mh_patchcore", **{"weights": "none", "strides": (2, 4), **arguments})
    assert isinstance(detector, MHPatchCore)
    return detector.double()


def learn(detector: MHPatchCore, batches: Sequence[Tensor]) -> MHPatchCore:
    with torch.no_grad():
        for phase in detector.phases():
            assert isinstance(phase, Collect) and phase.prepare is not None
            for batch in batches:
                prepared = tuple(phase.prepare(batch.to(detector.mean.dtype)))
                phase.visit(Batch(batch, torch.arange(len(batch)), prepared))
            phase.finish()
    return detector


def correlated(count: int, d: int = D, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(d, d, generator=generator, dtype=torch.float64)
    return torch.randn(count, d, generator=generator, dtype=torch.float64) @ mix + 3


def by_plain_algebra(vectors: np.ndarray, explained: float, shrinkage: float) -> tuple[np.ndarray, np.ndarray]:
    """The components (d, r), and the inverse (r, r) of the shrunk covariance of what they make of `vectors`."""
    _, values, axes = np.linalg.svd(vectors - vectors.mean(0), full_matrices=False)
    shares = np.cumsum(values**2) / np.sum(values**2)
    r = int(np.searchsorted(shares, explained)) + 1
    covariance = np.cov(vectors @ axes[:r].T, rowvar=False)
    shrunk = (1 - shrinkage) * covariance + shrinkage * np.trace(covariance) / r * np.eye(r)
    return axes[:r].T, np.linalg.inv(shrunk)


@pytest.mark.parametrize(("explained", "shrinkage"), [(0.9, 0.07), (0.99, 0.0), (0.5, 0.5)])
def test_the_plain_distance_of_whitened_vectors_is_mahalanobis(explained: float, shrinkage: float) -> None:
    vectors = correlated(300)
    components, inverse = by_plain_algebra(vectors.numpy(), explained, shrinkage)
    whitening = whitening_of_components(torch.cov(vectors.T), explained, shrinkage)
    assert whitening.shape == (D, components.shape[1]) and 1 < components.shape[1] < D
    differences = vectors[:50] - vectors[50:100]
    projected = differences.numpy() @ components  # (50, r)
    expected = np.sqrt(np.einsum("ni,ij,nj->n", projected, inverse, projected))
    np.testing.assert_allclose((differences @ whitening).norm(dim=1).numpy(), expected, rtol=1e-8)


def test_a_stream_gives_mean_and_whitening_of_all_patches_at_once() -> None:
    detector = learn(built(), images(7).split([1, 4, 2]))
    with torch.no_grad():
        patches = detector.described(detector.backbone(images(7).double())).flatten(0, 2)  # (7 * 16 * 24, D)
    torch.testing.assert_close(detector.mean, patches.mean(0), rtol=0, atol=1e-8)
    whole = whitening_of_components(torch.from_numpy(np.cov(patches.numpy(), rowvar=False)), 0.99, 0.07)
    differences = patches[::40] - patches[7::40][: len(patches[::40])]
    torch.testing.assert_close((differences @ detector.whitening).norm(dim=1), (differences @ whole).norm(dim=1))


def test_without_shrinkage_the_axes_and_units_of_features_do_not_matter() -> None:
    """Unlike PatchCore's, whose distances an invertible linear map changes."""
    vectors = correlated(400)
    mix = torch.diag(torch.linspace(1, 9, D, dtype=torch.float64)) @ torch.linalg.qr(correlated(D, seed=5)).Q  # (D, D)
    whitening = whitening_of_components(torch.cov(vectors.T), 1.0, 0.0)
    mixed = whitening_of_components(torch.cov((vectors @ mix).T), 1.0, 0.0)
    assert whitening.shape == mixed.shape == (D, D)
    plain, other = torch.cdist(vectors @ whitening, vectors @ whitening), vectors @ mix @ mixed
    torch.testing.assert_close(torch.cdist(other, other), plain, rtol=1e-5, atol=1e-5)
    ratios = torch.pdist(vectors @ mix) / torch.pdist(vectors)
    assert float(ratios.max() / ratios.min()) > 1.5


def test_shrunk_wholly_distances_are_patchcores_up_to_scale() -> None:
    detector = learn(built(explained=1.0, shrinkage=1.0, bank=50), [images(4)])
    patchcore = PatchCore(weights="none", strides=(2, 4)).double()
    patchcore.backbone = detector.backbone
    with torch.no_grad():
        back = torch.linalg.lstsq(detector.whitening.T, detector.memories.T).solution.T  # (50, D), as they were
        patchcore.bank = back
        patchcore.centre = detector.mean
        new = images(2, seed=1).double()
        ours = detector.whitened(detector.described(detector.backbone(new)))
        squared = torch.cdist(ours.flatten(0, 2), detector.memories).amin(1).square()
        theirs = patchcore.nearest((patchcore.patches(new) - patchcore.centre).flatten(0, 2))[0]
    ratios = squared / theirs
    assert float(ratios.min()) > 0
    torch.testing.assert_close(ratios, ratios.mean().expand_as(ratios), rtol=1e-4, atol=0)


def test_few_vectors_are_held_however_many_come() -> None:
    stream, sizes = MergeReduce(8), []
    for number in range(1, 40):
        stream.add(correlated(30, d=3, seed=number))
        levels = number.bit_length()
        assert len(stream.held) == 8 * number.bit_count() <= 8 * levels
        sizes.append(len(stream.chunks))
    assert sizes[-1] == 6  # 39 batches are 100111 in binary


def test_the_memory_is_of_real_patches_and_covers_those_of_all_batches() -> None:
    stream, batches = MergeReduce(32), [correlated(200, d=3, seed=number) for number in range(9)]
    for batch in batches:
        stream.add(batch)
    everything, kept = torch.cat(batches), farthest_first(stream.held, 32)
    exact = torch.cdist(kept, everything, compute_mode="donot_use_mm_for_euclid_dist")
    assert len(kept) == 32 and float(exact.amin(1).max()) == 0
    at_once, first = farthest_first(everything, 32), everything[:32]
    assert covering_radius(everything, kept) < 0.8 * covering_radius(everything, first)
    # A vector that is dropped lies within a reduction's radius of one that is kept; here five follow on one another.
    assert covering_radius(everything, kept) < 2 * covering_radius(everything, at_once)


def test_farthest_first_begins_far_from_the_mean() -> None:
    line = torch.tensor([[0.0], [1.0], [2.0], [3.0], [10.0]])
    assert farthest_first(line, 3).flatten().tolist() == [10, 0, 3]
    assert torch.equal(farthest_first(line, 5), line)


def test_scores_follow_the_papers_formulas() -> None:
    detector, new = learn(built(bank=60, neighbours=4), [images(4)]), images(3, seed=1).double()
    with torch.no_grad():
        scores = detector(new)
        vectors = detector.whitened(detector.described(detector.backbone(new))).flatten(1, 2)  # (3, P, r)
        squared = torch.cdist(vectors, detector.memories[None]).square()  # (3, P, M)
    plain = squared.amin(2)
    assert scores.map is not None and scores.map.shape == (3, 16, 24)
    torch.testing.assert_close(scores.map, gaussian_blur(plain.view(3, 16, 24), 2.0))
    for i in range(3):
        worst = int(plain[i].argmax())
        star = int(squared[i, worst].argmin())
        around = torch.cdist(detector.memories[star][None], detector.memories)[0].topk(4, largest=False).indices
        exponents = squared[i, worst].exp()
        expected = (1 - exponents[star] / exponents[around].sum()) * plain[i, worst]
        torch.testing.assert_close(scores.image[i], expected)


def test_far_away_no_exponential_overflows() -> None:
    detector = learn(built(), [images(4)]).float()
    far = detector.memories[:3] + 1e4
    assert float(far.square().sum(1).min()) > 1e9 and detector.weight(far).isfinite().all()
    assert float(detector.weight(far).min()) >= 8 / 9 - 1e-6


@pytest.mark.parametrize("arguments", [{"bank": 1}, {"neighbours": 1}])
def test_where_there_is_nothing_to_weigh_by_the_score_is_the_distance(arguments: dict[str, int]) -> None:
    detector = learn(built(**arguments), [images(2)])
    assert torch.equal(detector.weight(detector.memories[:1] + 1), torch.ones(1, dtype=torch.float64))


def test_images_of_one_colour_leave_finite_scores() -> None:
    detector = learn(built(), [torch.zeros(2, 3, 32, 48)]).float()
    with torch.no_grad():
        assert detector(images(1)).image.isfinite().all()


@pytest.mark.parametrize(
    "arguments",
    [{"explained": 0.0}, {"shrinkage": 1.1}, {"neighbourhood": 2}, {"bank": 0}, {"chunk": 0}, {"sigma": 0.0}],
)
def test_ranges(arguments: dict[str, object]) -> None:
    with pytest.raises(OkngError, match="mh_patchcore: "):
        built(**arguments)


def test_a_pass_at_half_precision_holds_full_ones() -> None:
    detector = built(chunk=8, bank=16).float()
    covariance, memory = detector.phases()
    for phase in (covariance, memory):
        assert isinstance(phase, Collect) and phase.prepare is not None
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            for seed in range(2):
                batch = images(2, seed)
                prepared = tuple(f.bfloat16() for f in phase.prepare(batch))
                phase.visit(Batch(batch, torch.arange(2), prepared))
            phase.finish()
    assert detector.memories.dtype == torch.float32
