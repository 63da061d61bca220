"""What tells PaDiM from a toy: exact Gaussians, each position's own, from a stream of batches."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from okng.detectors.base import Batch, Collect
from okng.detectors.catalogue import create
from okng.detectors.feature_matching.padim import PaDiM, unwhiten, whiten_
from okng.errors import OkngError
from okng.nn.images.blur import gaussian_blur
from okng.nn.vectors.running_gaussians import RunningGaussians


def images(count: int, seed: int = 0) -> Tensor:
    """Dark on the left, bright on the right, with noise: (count, 3, 64, 64)."""
    noise = torch.rand(count, 3, 64, 64, generator=torch.Generator().manual_seed(seed))
    return 0.1 * noise + 0.8 * (torch.arange(64) >= 32)


def learn(detector: PaDiM, batches: Sequence[Tensor]) -> PaDiM:
    (phase,) = detector.phases()
    assert isinstance(phase, Collect) and phase.prepare is not None
    with torch.no_grad():
        for batch in batches:
            phase.visit(Batch(batch, torch.arange(len(batch)), tuple(phase.prepare(batch))))
        phase.finish()
    return detector


def built(dimensions: int = 8, epsilon: float = 0.01, seed: int = 0) -> PaDiM:
    torch.manual_seed(seed)
    detector = create("padim", dimensions=dimensions, epsilon=epsilon)
    assert isinstance(detector, PaDiM)
    return detector


def test_training_images_lie_at_their_expected_distance() -> None:
    """Σ (x - mean)ᵀ S⁻¹ (x - mean) over the n images S was computed from is d(n - 1), whatever they are."""
    d, n = 8, 30
    detector = learn(built(d, epsilon=1e-12).double(), images(n).double().split(7))
    with torch.no_grad():
        squared = detector.distances(images(n).double()).square().mean(0)  # (16, 16)
    torch.testing.assert_close(squared, torch.full_like(squared, d * (n - 1) / n), rtol=1e-4, atol=0)


def test_distances_are_those_of_the_textbook() -> None:
    detector = learn(built(), [images(30)])
    new = images(2, seed=1)
    with torch.no_grad():
        known, unknown = detector.embed(images(30)).double(), detector.embed(new).double()  # (16 * 16, B, d)
        distances = detector.distances(new)
    for y, x in [(0, 0), (5, 8), (15, 3)]:
        vectors = known[16 * y + x].numpy()
        covariance = np.cov(vectors, rowvar=False) + 0.01 * np.eye(8)
        offset = unknown[16 * y + x].numpy() - vectors.mean(0)
        expected = np.sqrt(np.einsum("bi,ij,bj->b", offset, np.linalg.inv(covariance), offset))
        np.testing.assert_allclose(distances[:, y, x], expected, rtol=1e-4)


def test_vectors_are_the_chosen_channels_enlarged_by_repetition() -> None:
    """Written out with the library's nearest-neighbour enlargement, for sides that are not square."""
    detector, wide = built(), torch.rand(2, 3, 32, 96)
    with torch.no_grad():
        pyramid = detector.backbone(wide)
        fine = torch.cat([F.interpolate(f, (8, 24), mode="nearest") for f in pyramid], dim=1)[:, detector.subset]
        found = detector.embed(wide)  # (8 * 24, 2, d)
    torch.testing.assert_close(found, fine.flatten(2).permute(2, 0, 1), rtol=0, atol=0)


def test_a_stream_gives_what_one_batch_gives() -> None:
    whole, streamed = learn(built(), [images(30)]), learn(built(), images(30).split([1, 16, 11, 2]))
    with torch.no_grad():
        new = images(2, seed=1)
        torch.testing.assert_close(streamed.distances(new), whole.distances(new), rtol=1e-4, atol=1e-4)


def test_a_large_mean_does_not_drown_the_variance() -> None:
    """At 1,000 ± 1, sums of xxᵀ in float32 are off by more than the covariance itself."""
    vectors = torch.randn(3, 200, 5, generator=torch.Generator().manual_seed(0)) + 1000  # (P, n, d)
    gaussians = RunningGaussians()
    for batch in vectors.split(16, dim=1):
        gaussians.update(batch)
    for position in range(3):
        expected = torch.cov(vectors[position].double().T)
        torch.testing.assert_close(gaussians.scatter[position].double() / 199, expected, rtol=1e-3, atol=1e-4)


def test_whitening_undoes_the_covariance_in_every_block() -> None:
    roots = torch.randn(5, 6, 6, generator=torch.Generator().manual_seed(0))
    scatter = roots @ roots.mT * 9
    whitening = whiten_(scatter.clone(), count=10, epsilon=0.01, rows=2)
    covariance = scatter / 9 + 0.01 * torch.eye(6)
    torch.testing.assert_close(whitening @ covariance @ whitening.mT, torch.eye(6).expand(5, 6, 6), rtol=0, atol=1e-3)


def test_the_scatter_comes_back_out_of_the_whitening() -> None:
    roots = torch.randn(5, 6, 6, generator=torch.Generator().manual_seed(0))
    scatter = roots @ roots.mT * 9
    back = unwhiten(whiten_(scatter.clone(), count=10, epsilon=0.01), count=10, epsilon=0.01, rows=2)
    torch.testing.assert_close(back, scatter, rtol=1e-4, atol=1e-4)


def test_fewer_images_than_dimensions_and_even_one() -> None:
    for count in (1, 2, 5):
        detector = learn(built(dimensions=20), [images(count)])
        with torch.no_grad():
            assert torch.isfinite(detector(images(2, seed=1)).image).all()
    alone = learn(built(dimensions=20), [images(1)])
    with torch.no_grad():  # covariance 0.01 · I: ten times the Euclidean distance
        offset = alone.embed(images(1, seed=1)) - alone.embed(images(1))
        torch.testing.assert_close(
            alone.distances(images(1, seed=1)), 10 * offset.norm(dim=2).view(1, 16, 16), rtol=1e-4, atol=1e-3
        )


def test_place_matters() -> None:
    """The mirrored image has the same patches elsewhere; to PatchCore it would look alike."""
    detector = learn(built(), [images(30)])
    new = images(4, seed=1)
    with torch.no_grad():
        assert detector(new.flip(3)).image.min() > 2 * detector(new).image.max()


def test_the_map_is_smoothed_and_the_image_its_maximum() -> None:
    detector = learn(built(), [images(30)])
    with torch.no_grad():
        new = images(3, seed=1)
        scores, plain = detector(new), detector.distances(new)
    assert scores.map is not None
    torch.testing.assert_close(scores.map, gaussian_blur(plain, 1.0))  # 4 pixels are one cell of stride 4
    assert torch.equal(scores.image, scores.map.amax((1, 2)))
    assert (scores.image < plain.amax((1, 2))).all()


def test_the_stored_state_brings_its_channels_along() -> None:
    fitted, other = learn(built(), [images(9)]), built(seed=1)
    assert len(set(fitted.subset.tolist())) == 8 and not torch.equal(fitted.subset, other.subset)
    other.load_tensors(fitted.state_dict())
    with torch.no_grad():
        assert torch.equal(other(images(2, seed=1)).map, fitted(images(2, seed=1)).map)


def test_paper_size() -> None:
    """ResNet-18 at 224 px with 100 of its 448 channels on a grid of 56 × 56."""
    detector = PaDiM(backbone="resnet18", weights="none").eval()
    large = torch.rand(2, 3, 224, 224)
    learn(detector, [large])
    with torch.no_grad():
        scores = detector(large)
    assert detector.whitening.shape == (56 * 56, 100, 100)
    assert scores.map is not None and scores.map.shape == (2, 56, 56)


@pytest.mark.parametrize("arguments", [{"dimensions": 0}, {"dimensions": 177}, {"epsilon": 0.0}, {"sigma": 0.0}])
def test_ranges(arguments: dict[str, object]) -> None:
    with pytest.raises(OkngError, match="padim: "):
        create("padim", weights="none", **arguments)
