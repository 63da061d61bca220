"""What all classical methods share: the way from images to vectors, and that a handful of images is enough."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from tests.contract.conftest import other_pictures, pictures
from tests.detectors.classical.vectors import drawn, learnt
from tests.nn.devices import WithoutFloat64

import okng
from okng.detectors.base import Batch, Collect
from okng.detectors.cards import cards
from okng.detectors.catalogue import create, detector_class
from okng.detectors.classical import vectors as module
from okng.detectors.classical.vectors import ImageVectors, VectorDetector, enlarged, leading, principal_axes
from okng.nn.images.contrast import contrast_normalised

METHODS = [name for name in cards() if issubclass(detector_class(name), VectorDetector)]


@pytest.mark.parametrize(("count", "values"), [(100, 8), (8, 100)])
def test_components_are_scikit_learns(count: int, values: int) -> None:
    vectors = drawn(count, values=values)
    reference = PCA(0.9, svd_solver="full").fit(vectors.double().numpy())
    variances, directions = principal_axes(vectors)
    needed = leading(variances, 0.9)
    assert needed == len(reference.components_) and len(variances) == min(values, count - 1)
    overlap = np.abs((directions[:needed].numpy() * reference.components_).sum(1))
    np.testing.assert_allclose(overlap, 1, atol=1e-9)
    np.testing.assert_allclose(variances[:needed], reference.explained_variance_ * (count - 1) / count, rtol=1e-9)


@pytest.mark.parametrize("contrast", [False, True])
@pytest.mark.parametrize("components", [None, 0.8])
def test_pixels_are_brought_into_the_learnt_range_and_reduced(contrast: bool, components: float | None) -> None:
    images = torch.rand(30, 1, 6, 5, generator=torch.Generator().manual_seed(0))
    vectors = ImageVectors("pixels", "none", contrast, components)
    vectors.learn(vectors.raw(images))
    pixels = (contrast_normalised(images) if contrast else images).flatten(1).double()
    scaled = ((pixels - pixels.min()) / (pixels.max() - pixels.min())).numpy()
    found = vectors(images).numpy()
    expected = scaled - scaled.mean(0)
    if components is not None:
        expected = PCA(components, svd_solver="full").fit_transform(scaled)
        found *= np.sign((found * expected).sum(0))
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_backbone_sees_colours_and_images_of_a_useful_size() -> None:
    torch.manual_seed(0)
    vectors = ImageVectors("efficientnet_lite0", "none", False, None)
    grey = torch.rand(2, 1, 28, 20)
    assert vectors.raw(grey).shape == (2, 320) and enlarged(grey).shape[2:] == (320, 224)
    torch.testing.assert_close(vectors.raw(grey.expand(-1, 3, -1, -1)), vectors.raw(grey))
    assert enlarged(torch.rand(1, 3, 256, 300)).shape[2:] == (256, 300)
    assert not any(parameter.requires_grad for parameter in vectors.parameters())


def test_by_a_backbones_features_from_fit_to_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SMALLEST", 64)
    inspector = okng.fit(pictures(20, seed=1), "knn", features="efficientnet_lite0", size=64, device="cpu")
    inspector.save(tmp_path / "parts.okng")
    ok, odd = inspector.score_samples(pictures(3, seed=2)), inspector.score_samples(other_pictures(3, seed=2))
    assert odd.min() > ok.max()
    np.testing.assert_array_equal(okng.load(tmp_path / "parts.okng").score_samples(pictures(3, seed=2)), ok)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("components", [None, 0.9])
def test_hardly_any_images(name: str, count: int, components: float | None) -> None:
    images = torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    detector = create(name, components=components)
    (phase,) = detector.phases()
    assert isinstance(phase, Collect) and phase.prepare is not None
    with torch.no_grad():
        phase.visit(Batch(images, torch.arange(count), (phase.prepare(images),)))  # type: ignore[arg-type]
        phase.finish()
        others = torch.rand(4, 3, 8, 8)
        scores = detector(others).image
        loaded = create(name, components=components)
        loaded.load_tensors(detector.state_dict())
        assert scores.isfinite().all() and torch.equal(loaded(others).image, scores)


@pytest.mark.parametrize("name", METHODS)
def test_a_gpu_without_float64_is_no_hindrance(name: str) -> None:
    vectors = drawn(30)
    plain, there = learnt(name, vectors), learnt(name, vectors.as_subclass(WithoutFloat64))
    for key, tensor in plain.state_dict().items():
        assert torch.equal(tensor, there.state_dict()[key].cpu()), key
