"""What tells PatchCore from a toy: the memory is real patches, chosen to cover; scores follow the paper's formulas."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import okng
from okng.detectors.base import Detector
from okng.detectors.catalogue import create
from okng.errors import OkngError
from okng.inspection.reading.images import Preprocess
from okng.nn.images.blur import gaussian_blur
from okng.nn.vectors.coreset import covering_radius
from okng.training.images.data import TrainingImages
from okng.training.loop.phases import run_phases


def pixels(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (count, 64, 64, 3), np.uint8)


def images(count: int, seed: int = 0) -> TrainingImages:
    return TrainingImages(list(pixels(count, seed)), Preprocess("RGB", 64, 16))


def fitted(**arguments: object) -> Detector:
    torch.manual_seed(0)
    detector = create("patchcore", **{"coreset": 0.25, **arguments})
    run_phases(detector, images(6), device="cpu")
    return detector


def batch(source: TrainingImages) -> torch.Tensor:
    return torch.stack([source[i] for i in range(len(source))]).float() / 255


def test_every_memory_is_a_real_patch_and_the_memory_covers_them() -> None:
    detector = fitted()
    with torch.no_grad():
        patches = detector.patches(batch(images(6))).flatten(0, 2) - detector.centre
    assert len(detector.bank) == round(0.25 * len(patches))
    exact = "donot_use_mm_for_euclid_dist"
    assert float(torch.cdist(detector.bank, patches, compute_mode=exact).amin(1).max()) < 1e-3
    random = patches[torch.randperm(len(patches), generator=torch.Generator().manual_seed(1))[: len(detector.bank)]]
    assert covering_radius(patches, detector.bank) < covering_radius(patches, random)


def test_with_the_whole_memory_training_images_score_nothing() -> None:
    detector = fitted(coreset=1.0, score="max")
    with torch.no_grad():
        known, new = detector(batch(images(6))), detector(batch(images(6, seed=5)))
    assert float(known.image.max()) < 0.02 * float(new.image.min())


def test_a_larger_memory_never_raises_a_distance() -> None:
    small, large = fitted(coreset_size=20), fitted(coreset_size=80)
    large.bank = torch.cat([large.bank, small.bank])
    with torch.no_grad():
        new = batch(images(2, seed=5))
        assert (large(new).map <= small(new).map + 1e-3).all()


def test_distances_equal_the_plain_formula() -> None:
    detector = fitted()
    queries = torch.randn(50, detector.bank.shape[1]) * 5
    squared, nearest = detector.nearest(queries)
    table = torch.cdist(queries.double(), detector.bank.double())
    torch.testing.assert_close(squared.sqrt(), table.amin(1).float(), rtol=1e-4, atol=1e-4)
    assert torch.equal(nearest, table.argmin(1))


def test_the_image_score_options() -> None:
    new = batch(images(3, seed=5))
    highest, top, weighted = fitted(score="max"), fitted(score="top1%"), fitted(neighbours=4)
    with torch.no_grad():
        assert torch.equal(highest(new).map, top(new).map)
        patches = highest.patches(new) - highest.centre
        distances = torch.cdist(patches.flatten(1, 2), highest.bank[None])  # (3, P, M)
        nearest = distances.amin(2)
        torch.testing.assert_close(highest(new).image, nearest.amax(1), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(top(new).image, nearest.amax(1), rtol=1e-4, atol=1e-4)  # 1 % of 64 is one patch
        for i in range(3):  # equation 7 word for word
            worst = int(nearest[i].argmax())
            star = int(distances[i, worst].argmin())
            around = torch.cdist(weighted.bank[star][None], weighted.bank)[0].topk(4, largest=False).indices
            exponents = distances[i, worst].double().exp()
            expected = (1 - exponents[star] / exponents[around].sum()) * nearest[i, worst]
            torch.testing.assert_close(weighted(new).image[i].double(), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("scale", [0.01, 1.0, 30.0, 1e4])
def test_equation_7_at_any_scale(scale: float) -> None:
    """The exponentials of distances as they are, not normalised, pass what float32 and float64 can hold."""
    torch.manual_seed(0)
    detector = create("patchcore", weights="none")
    detector.bank, oddest = torch.randn(2, 60, detector.bank.shape[1]) * scale
    bank, queries = detector.bank.double(), oddest.double()
    stars = torch.cdist(queries, bank).argmin(1)  # (60,)
    expected = []
    for query, star in zip(queries, bank[stars], strict=True):
        around = (bank - star).norm(dim=1).topk(9, largest=False).indices
        differences = (query - bank[around]).norm(dim=1) - (query - star).norm()  # >= 0
        expected.append(1 - 1 / differences.exp().sum())
    weights = detector.weight(oddest)  # type: ignore[operator]
    torch.testing.assert_close(weights.double(), torch.stack(expected), rtol=2e-3, atol=0)
    assert float(weights.min()) >= 8 / 9 - 1e-6 and float(weights.max()) <= 1


@pytest.mark.parametrize("arguments", [{"coreset_size": 1}, {"neighbours": 1}])
def test_where_there_is_nothing_to_weigh_by_the_score_is_the_distance(arguments: dict[str, int]) -> None:
    """By m* alone equation 7 gives every image a score of 0: all of them OK."""
    new = batch(images(2, seed=5))
    with torch.no_grad():
        scores = fitted(**arguments)(new).image
        assert torch.equal(scores, fitted(score="max", **arguments)(new).image) and float(scores.min()) > 0


def test_the_defaults_are_the_papers() -> None:
    arguments = create("patchcore", weights="none").arguments
    assert (arguments["score"], arguments["sigma"], arguments["neighbourhood"]) == ("reweighted", 4.0, 3)


def test_the_map_is_smoothed_by_pixels_of_the_image() -> None:
    """`sigma` counts pixels, whatever stride is the coarsest: 4 of them are half a cell of stride 8."""
    detector, new = fitted(sigma=4.0), batch(images(2, seed=5))
    with torch.no_grad():
        patches = detector.patches(new) - detector.centre  # (2, 8, 8, D)
        plain = torch.cdist(patches.flatten(1, 2), detector.bank[None]).amin(2).view(2, 8, 8)
        torch.testing.assert_close(detector(new).map, gaussian_blur(plain, 0.5), rtol=1e-3, atol=1e-3)


def test_place_does_not_matter() -> None:
    """Unlike PaDiM: the patch memory is shared by all positions."""
    detector = fitted()
    with torch.no_grad():
        flipped = [p.flip(1) for p in detector.patches(batch(images(1)))]
        moved = detector.nearest(flipped[0].flatten(0, 1) - detector.centre)[0]
        still = detector.nearest(detector.patches(batch(images(1)))[0].flatten(0, 1) - detector.centre)[0]
    torch.testing.assert_close(moved.sort().values, still.sort().values, rtol=1e-2, atol=1e-2)


def test_little_memory_changes_scores_little() -> None:
    whole = fitted(coreset=0.05)
    torch.manual_seed(0)
    streamed = create("patchcore", coreset=0.05)
    streamed.capacity = 160  # of 384 patches
    run_phases(streamed, images(6), device="cpu")
    assert streamed.bank.shape == whole.bank.shape and int(streamed.seen) == int(whole.seen) == 384
    with torch.no_grad():
        new = batch(images(4, seed=5))
        torch.testing.assert_close(streamed(new).image, whole(new).image, rtol=0.1, atol=0)


@pytest.mark.parametrize(
    "arguments",
    [
        {"coreset": 0},
        {"coreset": 2},
        {"coreset_size": 0},
        {"neighbourhood": 2},
        {"neighbours": 0},
        {"sigma": 0},
        {"memory": 0.1},
    ],
)
def test_ranges(arguments: dict[str, object]) -> None:
    with pytest.raises(OkngError, match="patchcore: "):
        create("patchcore", weights="none", **arguments)


def test_a_number_of_patches_has_a_name_of_its_own() -> None:
    """A share that was typed as 2 once ended in a memory of two patches."""
    with pytest.raises(OkngError, match=r"share of all patches .* not 2; .* coreset_size=2"):
        okng.fit(pixels(4), coreset=2, weights="none", size=64)
    assert len(fitted(coreset_size=20).bank) == 20


def test_a_file_of_the_time_when_coreset_could_be_a_number_opens(tmp_path: Path) -> None:
    """Its bank is as large as it was, and an update keeps it so."""
    inspector = okng.fit(pixels(6), "patchcore", coreset_size=20, weights="none", size=64, holdout=0.4, device="cpu")
    old = {key: value for key, value in inspector.manifest["detector"]["arguments"].items() if key != "coreset_size"}
    inspector.manifest["detector"]["arguments"] = {**old, "coreset": 20}
    inspector.save(tmp_path / "old.okng")
    loaded = okng.load(tmp_path / "old.okng")
    new = pixels(2, seed=5)
    assert np.array_equal(loaded.score_samples(new), inspector.score_samples(new))
    updated = okng.update(loaded, new, device="cpu")
    assert len(updated.engine.detector.bank) == 20
