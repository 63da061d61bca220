"""What tells RAD from a toy: what is OK elsewhere is odd here, other products are not looked up, windows are exact."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from okng.detectors.base import Batch, Collect
from okng.detectors.catalogue import create
from okng.detectors.feature_matching import rad
from okng.detectors.feature_matching.rad import RAD
from okng.errors import OkngError
from okng.inspection.reading.images import Preprocess
from okng.nn.features.vit import is_transformer
from okng.training.images.data import TrainingImages
from okng.training.loop.phases import run_phases


def images(count: int, seed: int = 0) -> Tensor:
    return torch.rand(count, 3, 32, 48, generator=torch.Generator().manual_seed(seed))


def built(**arguments: object) -> RAD:
    torch.manual_seed(0)
    detector = create("rad", **{"weights": "none", "strides": (2, 4), **arguments})
    assert isinstance(detector, RAD)
    return detector


def learn(detector: RAD, batches: Sequence[Tensor], update: bool = False) -> RAD:
    (phase,) = detector.update_phases() if update else detector.phases()
    assert isinstance(phase, Collect) and phase.prepare is not None
    with torch.no_grad():
        for batch in batches:
            phase.visit(Batch(batch, torch.arange(len(batch)), tuple(phase.prepare(batch))))
        phase.finish()
    return detector


def directions(*shape: int) -> Tensor:
    return F.normalize(torch.randn(*shape), dim=-1)


def scored(detector: RAD, batch: Tensor) -> Tensor:
    with torch.no_grad():
        found = detector(batch).map
    assert found is not None
    return found


@pytest.mark.parametrize("radius", [0, 1, 2, 9])
def test_a_window_is_that_of_a_loop_over_all_patches(radius: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rad, "BLOCK", 2)
    torch.manual_seed(1)
    patches, bank, nearest = directions(2, 4, 5, 6), directions(7, 4, 5, 6), torch.tensor([[0, 3, 6], [5, 2, 1]])
    found = built(radius=radius).distances(patches, bank, nearest)
    for b in range(2):
        for y in range(4):
            for x in range(5):
                rows, columns = slice(max(0, y - radius), y + radius + 1), slice(max(0, x - radius), x + radius + 1)
                window = bank[nearest[b], rows, columns].flatten(0, 2)  # (n, 6)
                assert float(found[b, y, x]) == pytest.approx(1 - float((window @ patches[b, y, x]).max()), abs=1e-5)


def test_without_a_radius_all_places_are_compared() -> None:
    torch.manual_seed(1)
    patches, bank, nearest = directions(2, 4, 5, 6), directions(7, 4, 5, 6), torch.tensor([[0, 3], [5, 2]])
    everywhere = built(radius=None).distances(patches, bank, nearest)
    torch.testing.assert_close(everywhere, built(radius=9).distances(patches, bank, nearest))


def test_what_is_ok_elsewhere_in_the_image_is_odd_here() -> None:
    bank = directions(1, 6, 6, 64)
    patches = bank.clone()
    patches[0, 0, 0] = bank[0, 5, 5]
    nearest = torch.tensor([[0]])
    for radius in (0, 1):
        assert float(built(radius=radius).distances(patches, bank, nearest)[0, 0, 0]) > 0.5
    assert float(built(radius=None).distances(patches, bank, nearest)[0, 0, 0]) < 1e-5


def test_another_product_in_the_bank_changes_nothing() -> None:
    """Flat dark and flat bright pictures, a little different each: the class tokens tell the products apart."""
    dark, bright = 0.1 * images(4), 1 - 0.1 * images(4, seed=1)
    alone, both = learn(built(neighbours=4), [dark]), learn(built(neighbours=4), [bright, dark])
    new = 0.1 * images(2, seed=2)
    with torch.no_grad():
        assert both.retrieved(both.directions(new)[0]).min() >= 4  # of the dark ones alone
    torch.testing.assert_close(scored(both, new), scored(alone, new))


def test_a_learnt_image_scores_nothing_and_another_one_something() -> None:
    detector = learn(built(), [images(3)])
    assert float(scored(detector, images(3)).max()) < 1e-5
    assert float(scored(detector, images(2, seed=9)).mean()) > 1e-3


def test_scores_fall_as_more_images_are_looked_up_or_windows_grow() -> None:
    new = images(2, seed=1)
    for name, values in (("neighbours", (1, 3, 99)), ("radius", (0, 1, 3))):
        maps = [scored(learn(built(**{"neighbours": 3, name: value}), [images(5)]), new) for value in values]
        for larger, smaller in pairwise(maps):
            assert bool((smaller <= larger + 1e-6).all()) and float((larger - smaller).max()) > 1e-6


def test_the_map_is_the_mean_of_the_levels() -> None:
    both = learn(built(strides=(2, 4)), [images(4)])
    new = images(2, seed=1)
    fine, coarse = (scored(learn(built(strides=(stride,)), [images(4)]), new) for stride in (2, 4))
    coarse = F.interpolate(coarse[:, None], fine.shape[1:], mode="bilinear")[:, 0]
    torch.testing.assert_close(scored(both, new), (fine + coarse) / 2, rtol=1e-4, atol=1e-5)


def test_an_update_is_a_fit_on_all() -> None:
    whole = learn(built(), [images(5)])
    updated = learn(learn(built(), [images(5)[:2]]), [images(5)[2:]], update=True)
    assert all(torch.equal(one, other) for one, other in zip(updated.banks, whole.banks, strict=True))
    assert torch.equal(updated.classes, whole.classes) and whole.banks[0].dtype == torch.float16
    other = built()
    other.load_tensors(updated.state_dict())
    assert torch.equal(scored(other, images(2, seed=1)), scored(whole, images(2, seed=1)))


@pytest.mark.parametrize("precision", ["f32", "bf16"])
def test_a_fit_keeps_half_precision_and_ends_at_no_other(precision: str) -> None:
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 255, (64, 64, 3), np.uint8) for _ in range(4)]
    detector = built()
    run_phases(detector, TrainingImages(pictures, Preprocess("RGB", (64, 64))), device="cpu", precision=precision)
    assert {bank.dtype for bank in detector.banks} == {torch.float16} and detector.classes.dtype == torch.float32


def test_a_vision_transformer_at_the_papers_depths(monkeypatch: pytest.MonkeyPatch) -> None:
    timm = pytest.importorskip("timm")
    create_model = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda name, **more: create_model(
        name, **{"embed_dim": 48, "num_heads": 4, **more}
    ))  # fmt: skip
    is_transformer.cache_clear()
    detector = learn(built(backbone="vit_base_patch16_dinov3"), [images(3)])
    assert [tuple(bank.shape) for bank in detector.banks] == [(3, 2, 3, 48)] * 4 and detector.classes.shape == (3, 48)
    assert scored(detector, images(2, seed=1)).shape == (2, 2, 3)
    is_transformer.cache_clear()


@pytest.mark.parametrize("arguments", [{"neighbours": 0}, {"radius": -1}, {"blocks": 3}])
def test_ranges(arguments: dict[str, object]) -> None:
    with pytest.raises(OkngError, match="rad: "):
        built(**arguments)
