"""What tells AnomalyDINO from a toy: directions alone count, turned views and masks, and more references never hurt."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from okng.detectors.base import Batch, Collect
from okng.detectors.catalogue import create
from okng.detectors.feature_matching import anomalydino
from okng.detectors.feature_matching.anomalydino import AnomalyDINO, first_component, foreground, turned
from okng.errors import OkngError
from okng.nn.features.vit import is_transformer


def images(count: int, seed: int = 0, width: int = 48) -> Tensor:
    """Of 32 px height, smooth enough that turning them loses little."""
    small = torch.rand(count, 3, 4, width // 8, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(small, (32, width), mode="bilinear")


def built(**arguments: object) -> AnomalyDINO:
    torch.manual_seed(0)
    detector = create("anomalydino", **{"weights": "none", "strides": (2, 4), "rotations": 1, **arguments})
    assert isinstance(detector, AnomalyDINO)
    return detector


def learn(detector: AnomalyDINO, batches: Sequence[Tensor], update: bool = False) -> AnomalyDINO:
    (phase,) = detector.update_phases() if update else detector.phases()
    assert isinstance(phase, Collect) and phase.prepare is not None
    with torch.no_grad():
        for batch in batches:
            prepared = phase.prepare(batch)
            assert isinstance(prepared, Tensor)
            phase.visit(Batch(batch, torch.arange(len(batch)), (prepared,)))
        list(phase.finish() or ())
    return detector


def scored(detector: AnomalyDINO, batch: Tensor) -> tuple[Tensor, Tensor]:
    """Of each image, and of each of its patches before any smoothing."""
    with torch.no_grad():
        return detector(batch).image, detector.distances(detector.directions(detector.tokens(batch)))


def test_a_reference_scores_nothing_and_another_image_something() -> None:
    detector = learn(built(), [images(3)])
    image, patches = scored(detector, images(3))
    assert float(image.max()) < 1e-5 and float(patches.max()) < 1e-5
    assert float(scored(detector, images(2, seed=9))[0].min()) > 1e-3


def test_the_distance_is_one_minus_the_cosine_whatever_the_lengths() -> None:
    detector = built()
    bank, queries = torch.randn(50, 60), torch.randn(1, 2, 3, 60)
    detector.bank = torch.nn.functional.normalize(bank, dim=1)
    found = detector.distances(detector.directions(queries))
    cosines = torch.nn.functional.cosine_similarity(queries[..., None, :], bank, dim=4)  # (1, 2, 3, 50)
    torch.testing.assert_close(found, 1 - cosines.amax(3), rtol=1e-4, atol=1e-5)
    lengths = torch.rand(1, 2, 3, 1) * 9 + 0.1
    torch.testing.assert_close(detector.distances(detector.directions(queries * lengths)), found)


def test_a_bank_in_blocks_is_the_whole_bank(monkeypatch: pytest.MonkeyPatch) -> None:
    detector = learn(built(), [images(2)])
    _, whole = scored(detector, images(2, seed=1))
    monkeypatch.setattr(anomalydino, "BLOCK", 100)
    torch.testing.assert_close(scored(detector, images(2, seed=1))[1], whole)


def test_more_references_never_raise_a_distance_and_an_update_is_a_fit_on_all() -> None:
    few = learn(built(), [images(2)])
    _, before = scored(few, images(3, seed=1))
    updated = learn(few, [images(5)[2:]], update=True)
    _, after = scored(updated, images(3, seed=1))
    assert bool((after <= before + 1e-6).all()) and float((before - after).max()) > 1e-4
    whole = learn(built(), [images(5)[:3], images(5)[3:]])
    torch.testing.assert_close(after, scored(whole, images(3, seed=1))[1])
    assert int(updated.seen) == len(whole.bank) == 5 * 16 * 24


def test_a_turned_part_is_ok_only_where_turned_views_were_learnt() -> None:
    square = images(1, width=32)
    plain, turning = learn(built(), [square]), learn(built(rotations=4), [square])
    assert len(turning.bank) == 4 * len(plain.bank)
    upside_down = square.rot90(1, (2, 3))
    assert float(scored(turning, upside_down)[0]) < 1e-4 < 10 * 1e-4 < float(scored(plain, upside_down)[0])


def test_turned_images_are_mirrored_beyond_their_borders_and_keep_their_shape() -> None:
    tall = torch.rand(2, 3, 40, 24)
    torch.testing.assert_close(turned(tall, math.pi), tall.flip(2, 3), rtol=0, atol=1e-4)
    square = torch.rand(2, 3, 24, 24)
    torch.testing.assert_close(turned(square, math.pi / 2), square.rot90(1, (2, 3)), rtol=0, atol=1e-4)
    bright = turned(torch.full((1, 1, 20, 50), 0.7), math.pi / 4)  # a border of black would darken it
    torch.testing.assert_close(bright, torch.full((1, 1, 20, 50), 0.7))
    line = torch.zeros(1, 1, 21, 41)
    line[:, :, 10] = 1.0  # a horizontal line through the middle, of an image twice as wide as high
    diagonal = turned(line, math.pi / 4)[0, 0]
    assert all(float(diagonal[10 - k, 20 + k] + diagonal[10 + k, 20 + k]) > 0.6 for k in range(9))


def test_a_coreset_covers_what_it_drops() -> None:
    whole, thinned = learn(built(), [images(4)]), learn(built(coreset=0.1), [images(4)])
    assert len(thinned.bank) == round(0.1 * len(whole.bank)) and int(thinned.seen) == len(whole.bank)
    known = torch.nn.functional.normalize(torch.cat([whole.bank[::50]]), dim=1)
    assert bool((torch.cdist(known, thinned.bank).amin(1) <= torch.cdist(known, whole.bank[:38]).amin(1).amax()).all())
    assert bool((scored(thinned, images(2, seed=1))[1] >= scored(whole, images(2, seed=1))[1] - 1e-6).all())


def test_the_first_component_is_that_of_the_svd() -> None:
    vectors = torch.randn(3, 200, 12) * torch.linspace(2, 1, 12) + 5
    found = first_component(vectors)
    for one, many in zip(found, vectors, strict=True):
        wanted = torch.pca_lowrank(many, q=6, niter=20)[0][:, 0]
        cosine = torch.nn.functional.cosine_similarity(one, wanted, dim=0)
        assert abs(float(cosine)) > 0.999


def test_the_foreground_is_the_object_whichever_way_the_component_points() -> None:
    """An object in the middle of a dull ground: of both signs of its tokens the same patches stay."""
    away = torch.randn(8)
    tokens = 0.1 * torch.randn(1, 12, 12, 8, generator=torch.Generator().manual_seed(0))
    tokens[:, 3:9, 3:9] += 30 * away / away.norm()
    for found in (foreground(tokens, 10.0), foreground(-tokens, 10.0)):
        assert bool(found[0, 2:10, 2:10].all()) and not bool(found[0, :2].any()) and not bool(found[0, :, 10:].any())


def test_background_scores_nothing_and_if_all_is_background_the_score_is_zero() -> None:
    detector = learn(built(), [images(3)])
    plain, _ = scored(detector, images(2, seed=1))
    detector.foreground = 1e9
    assert torch.equal(scored(detector, images(2, seed=1))[0], torch.zeros(2))
    detector.foreground = -1e9
    torch.testing.assert_close(scored(detector, images(2, seed=1))[0], plain)


def test_the_image_is_the_mean_of_its_highest_hundredth_and_of_few_patches_the_highest() -> None:
    detector = learn(built(), [images(2)])
    image, patches = scored(detector, images(3, seed=1))  # 384 patches
    np.testing.assert_allclose(image, np.sort(patches.flatten(1).numpy())[:, -3:].mean(1), rtol=1e-5)
    small = images(2, seed=1)[..., :8, :8]  # 16 patches
    image, patches = scored(detector, small)
    torch.testing.assert_close(image, patches.flatten(1).amax(1))


def test_a_vision_transformer_of_any_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    timm = pytest.importorskip("timm")
    create_model = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda name, **more: create_model(
        name, **{"depth": 2, "embed_dim": 48, "num_heads": 4, **more}
    ))  # fmt: skip
    is_transformer.cache_clear()
    detector = built(backbone="vit_small_patch14_dinov2", rotations=2)
    assert detector.multiple == 14
    learn(detector, [torch.rand(1, 3, 42, 56)])
    with torch.no_grad():
        found = detector(torch.rand(2, 3, 28, 70))
    assert found.map is not None and found.map.shape == (2, 2, 5) and detector.bank.shape == (2 * 3 * 4, 48)
    is_transformer.cache_clear()


@pytest.mark.parametrize(
    "arguments", [{"rotations": 0}, {"coreset": 0.0}, {"coreset": 1.5}, {"sigma": 0.0}, {"memory": 0.01}]
)
def test_ranges(arguments: dict[str, object]) -> None:
    with pytest.raises(OkngError, match="anomalydino: "):
        built(**arguments)
