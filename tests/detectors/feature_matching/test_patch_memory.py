"""What tells the patch memory from a toy: coarse products are the plain distances, context counts, it covers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import okng
from okng.detectors.catalogue import create
from okng.detectors.feature_matching import patch_memory
from okng.detectors.feature_matching.patch_memory import PatchMemory, compressed, joined
from okng.errors import OkngError
from okng.inspection.reading.images import Preprocess
from okng.nn.vectors.coreset import covering_radius
from okng.training.images.data import TrainingImages
from okng.training.loop.phases import run_phases


def pixels(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (count, 96, 64, 3), np.uint8)


def images(count: int, seed: int = 0) -> TrainingImages:
    return TrainingImages(list(pixels(count, seed)), Preprocess("RGB", (96, 64), 32))


def batch(source: TrainingImages) -> torch.Tensor:
    return torch.stack([source[i] for i in range(len(source))]).float() / 255


def fitted(count: int = 6, **arguments: object) -> PatchMemory:
    torch.manual_seed(0)
    detector = create("patch_memory", **{"coreset": 0.25, **arguments})
    assert isinstance(detector, PatchMemory)
    run_phases(detector, images(count), device="cpu")
    return detector


def test_products_on_each_strides_own_grid_are_the_plain_distances(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patch_memory, "BLOCK", 50)  # of 144 memories
    detector, new = fitted(), batch(images(3, seed=5))
    with torch.no_grad():
        patches = detector.patches(new) - detector.centre  # (3, 12, 8, D)
        plain = torch.cdist(patches.flatten(0, 2).double(), detector.bank.double()).amin(1).view(3, 12, 8)
        torch.testing.assert_close(detector.distances(new), plain.float(), rtol=1e-4, atol=1e-4)


def test_a_coarse_stride_goes_through_the_next_finer_one() -> None:
    coarse, fine = torch.zeros(1, 1, 2, 2), torch.ones(1, 2, 4, 4)
    coarse[0, 0, 1, 1] = 1.0
    whole = joined([fine, coarse])
    assert whole.shape == (1, 3, 4, 4) and torch.equal(whole[:, :2], fine)
    corner = torch.tensor([[0.0625, 0.1875], [0.1875, 0.5625]])  # bilinear, between the middles of four cells
    torch.testing.assert_close(whole[0, 2, 1:3, 1:3], corner)


def test_context_counts_less_than_details() -> None:
    """Each stride's part of a patch is as long as the root of its length, the coarsest shortened before."""
    quiet, loud, new = fitted(context=0.25), fitted(context=1.0), batch(images(1, seed=5))
    fine, coarse = slice(0, 152), slice(152, None)
    with torch.no_grad():
        one, other = quiet.patches(new), loud.patches(new)
    torch.testing.assert_close(one[..., fine], other[..., fine])
    torch.testing.assert_close(one[..., coarse], other[..., coarse] / 2, rtol=1e-4, atol=1e-5)  # √0.25
    vectors = torch.randn(2, 7, 3, 3)
    lengths = vectors.square().sum(1).sqrt()
    torch.testing.assert_close(compressed(vectors).square().sum(1), lengths)
    torch.testing.assert_close(torch.cosine_similarity(compressed(vectors), vectors), torch.ones(2, 3, 3))
    assert torch.equal(compressed(torch.zeros(1, 2, 1, 1)), torch.zeros(1, 2, 1, 1))


def test_every_memory_is_a_real_patch_and_the_memory_covers_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where each image offers only some of its patches."""
    monkeypatch.setattr(patch_memory, "CANDIDATES", 48)  # of 96
    detector = fitted(coreset=0.2)
    with torch.no_grad():
        patches = detector.patches(batch(images(6))).flatten(0, 2) - detector.centre  # (576, D)
    assert int(detector.seen) == len(patches) and len(detector.bank) == round(0.2 * len(patches))
    assert float(torch.cdist(detector.bank, patches, compute_mode="donot_use_mm_for_euclid_dist").amin(1).max()) < 1e-3
    random = patches[torch.randperm(len(patches), generator=torch.Generator().manual_seed(1))[: len(detector.bank)]]
    assert covering_radius(patches, detector.bank) < covering_radius(patches, random)


def test_an_image_offers_what_is_rare_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patch_memory, "CANDIDATES", 6)
    detector = create("patch_memory", weights="none")
    patches = torch.zeros(2, 10, 10, 472)
    patches[0, 3, 7] = 1.0  # one odd patch of a flat image; the other is flat throughout
    monkeypatch.setattr(detector, "patches", lambda images: patches)
    offered = detector.candidates(torch.zeros(2, 3, 80, 80))  # type: ignore[operator]
    assert offered.shape == (2, 6, 472)
    assert float(offered[0].amax()) == 1.0 and float(offered[1].amax()) == 0.0


def test_the_memory_has_a_limit_and_an_update_learns_beyond_it() -> None:
    detector = fitted(coreset_limit=20)
    assert len(detector.bank) == 20
    new, bank = images(2, seed=9), detector.bank + detector.centre
    with torch.no_grad():
        before = detector(batch(new)).image
    radius = float(detector.radius)
    run_phases(detector, new, device="cpu", update=True)
    with torch.no_grad():
        after = detector(batch(new))
    assert torch.allclose(detector.bank[:20] + detector.centre, bank, atol=1e-5) and int(detector.seen) == 8 * 96
    assert (after.image <= before + 1e-4).all() and float(detector.distances(batch(new)).max()) <= radius * (1 + 1e-4)


def test_a_rehearsal_takes_the_memory_of_a_fit() -> None:
    learnt, rehearsed = fitted(), create("patch_memory", coreset=0.25)
    rehearsed.rehearse(6, (96, 64))
    assert rehearsed.bank.shape == learnt.bank.shape


@pytest.mark.parametrize(
    "arguments", [{"coreset": 0}, {"coreset_limit": 0}, {"context": 0}, {"sigma": 0}, {"memory": 0.1}]
)
def test_ranges(arguments: dict[str, object]) -> None:
    with pytest.raises(OkngError, match="patch_memory: "):
        create("patch_memory", weights="none", **arguments)


def test_it_is_the_default() -> None:
    inspector = okng.fit(pixels(6), weights="none", size=64, holdout=0.4, device="cpu")
    assert inspector.manifest["detector"]["name"] == "patch_memory"
