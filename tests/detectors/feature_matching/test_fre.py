"""What tells FRE from a toy: one matrix encodes and decodes, and its error nears that of the principal components."""

from __future__ import annotations

import pytest
import torch

from okng.detectors.base import Batch, Train
from okng.detectors.catalogue import create
from okng.detectors.feature_matching.fre import FRE, Tied
from okng.errors import OkngError


def built(**arguments: object) -> FRE:
    """Of 32 × 48 px a map of 24 channels, 4 × 6 cells: 576 numbers."""
    torch.manual_seed(0)
    small = {"image_size": (32, 48), "weights": "none", "stride": 4, "pool": 2, "latent": 3}
    detector = create("fre", **{**small, **arguments})
    assert isinstance(detector, FRE)
    return detector


def test_the_error_nears_that_of_the_principal_components_from_above() -> None:
    """Eckart, Young: no map of this rank has a smaller one."""
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(40, 5, generator=generator) @ torch.randn(5, 24 * 24, generator=generator)
    vectors = vectors + 0.1 * torch.randn(40, 24 * 24, generator=generator) + 1
    singular = torch.linalg.svdvals(vectors - vectors.mean(0))
    best = float(singular[3:].square().sum()) / vectors.numel()
    detector = built()
    (phase,) = detector.phases()
    assert isinstance(phase, Train)
    batch = Batch(torch.zeros(1), torch.arange(40), (vectors.view(40, 24, 4, 6),))
    first = float(detector.loss(batch).detach())
    optimizer = phase.updates[0].optimizer
    for _ in range(1000):
        optimizer.zero_grad()
        loss = detector.loss(batch)
        loss.backward()
        optimizer.step()
    last = float(detector.loss(batch).detach())
    assert best * 0.999 <= last < 1.15 * best and last < 0.6 * first


def test_one_matrix_encodes_and_decodes() -> None:
    tied = Tied(7, 2).double()
    assert sum(parameter.numel() for parameter in tied.parameters()) == 7 * 2 + 2 + 7
    x, y, none = torch.rand(1, 7).double(), torch.rand(1, 7).double(), torch.zeros(1, 7).double()
    with torch.no_grad():
        tied.inner += 1
        tied.outer += 2
        torch.testing.assert_close(tied(x + y) - tied(none), (tied(x) - tied(none)) + (tied(y) - tied(none)))
        torch.testing.assert_close(tied(x) - tied(none), x @ tied.weight.T @ tied.weight)


def test_the_map_sums_to_the_score_and_is_the_error_of_each_cell() -> None:
    detector = built().double()
    images = torch.rand(3, 3, 32, 48).double()
    with torch.no_grad():
        scores, features = detector(images), detector.pooled(images)
        rest = features - detector.autoencoder(features.flatten(1)).view_as(features)
    assert scores.map is not None and scores.map.shape == (3, 4, 6)
    torch.testing.assert_close(scores.map.sum((1, 2)), scores.image)
    torch.testing.assert_close(scores.map[1, 2, 3], rest[1, :, 2, 3].square().sum())


def test_resnet50_as_anomalib_has_it() -> None:
    """Its third layer, 1,024 channels, averaged to 8 × 8 cells of 256 px."""
    detector = FRE(backbone="resnet50", weights="none")
    assert detector.autoencoder.weight.shape == (220, 65_536) and detector.multiple == 32
    (phase,) = detector.phases()
    assert isinstance(phase, Train) and phase.updates[0].optimizer.param_groups[0]["lr"] == 1e-3


@pytest.mark.parametrize("arguments", [{"latent": 0}, {"pool": 0}, {"learning_rate": 0.0}])
def test_ranges(arguments: dict[str, object]) -> None:
    with pytest.raises(OkngError, match="fre: "):
        built(**arguments)
