from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from okng.detectors.base import Batch, Collect
from okng.detectors.catalogue import create
from okng.detectors.feature_matching import spade
from okng.detectors.feature_matching.spade import SPADE
from okng.errors import OkngError
from okng.nn.features.patches import on_finest_grid
from okng.nn.images.blur import gaussian_blur


def images(count: int, seed: int = 0) -> Tensor:
    return torch.rand(count, 3, 32, 64, generator=torch.Generator().manual_seed(seed))


def built(**arguments: object) -> SPADE:
    torch.manual_seed(0)
    detector = create("spade", **{"strides": (4, 8), "deepest": 16, "neighbours": 3, **arguments})
    assert isinstance(detector, SPADE)
    return detector


def learn(detector: SPADE, batches: Sequence[Tensor], update: bool = False) -> SPADE:
    (phase,) = detector.update_phases() if update else detector.phases()
    assert isinstance(phase, Collect) and phase.prepare is not None
    with torch.no_grad():
        for batch in batches:
            phase.visit(Batch(batch, torch.arange(len(batch)), tuple(phase.prepare(batch))))
        phase.finish()
    return detector


def maps(detector: SPADE, queries: Tensor) -> Tensor:
    """Before smoothing."""
    with torch.no_grad():
        pooled, *pyramid = detector.described(queries)
        return detector.distances(pyramid, detector.retrieved(pooled)[1])


@pytest.mark.parametrize("correspondences", [1, 4])
def test_every_position_of_every_retrieved_image_counts(correspondences: int) -> None:
    """Written out: all pairs of positions, none left out, in float64."""
    detector = learn(built(correspondences=correspondences), images(9).split(4))
    queries = images(2, seed=1)
    with torch.no_grad():
        pooled, *pyramid = detector.described(queries)
        known_pooled, *known = detector.described(images(9))
        found = detector(queries)
    scores, smooth = found.image, found.map
    features = on_finest_grid(pyramid).double().flatten(2).transpose(1, 2)  # (2, h*w, D)
    gallery = on_finest_grid(known).double().flatten(2).transpose(1, 2)  # (9, h*w, D)
    found = maps(detector, queries).flatten(1)
    torch.testing.assert_close(smooth, gaussian_blur(found.view(2, 8, 16), 4.0 / 4))  # 4 px are a cell
    for i in range(2):
        squared = (pooled[i].double() - known_pooled.double()).square().sum(1)
        nearest = squared.argsort()[:3]
        torch.testing.assert_close(scores[i].double(), squared[nearest].mean(), rtol=1e-4, atol=0)
        pairs = torch.cdist(features[i], gallery[nearest].flatten(0, 1)).square()  # (h*w, 3*h*w)
        expected = pairs.sort(1).values[:, :correspondences].mean(1)
        torch.testing.assert_close(found[i].double(), expected, rtol=1e-3, atol=1e-4)


def test_an_ok_image_it_has_learnt_is_at_no_distance() -> None:
    detector = learn(built(), [images(9)])
    with torch.no_grad():
        known = detector.pooled[4:5], [level[4:5] for level in detector.galleries]
    squared, nearest = detector.retrieved(known[0])
    assert int(nearest[0, 0]) == 4 and float(squared[0, 0]) == 0 and float(squared[0, 1]) > 0
    assert torch.equal(detector.distances(known[1], nearest), torch.zeros(1, 8, 16))


def test_more_neighbours_raise_no_distance_and_more_correspondences_lower_none() -> None:
    queries = images(3, seed=1)
    few, many = maps(learn(built(neighbours=2), [images(9)]), queries), maps(learn(built(), [images(9)]), queries)
    assert (many <= few).all() and (many < few).any()
    assert (maps(learn(built(correspondences=3), [images(9)]), queries) >= many).all()


def test_the_order_of_the_images_changes_nothing() -> None:
    one, other = learn(built(), [images(9)]), learn(built(), [images(9).flip(0)])
    with torch.no_grad():
        scores, turned = one(images(3, seed=1)), other(images(3, seed=1))
    assert scores.map is not None and turned.map is not None
    torch.testing.assert_close(turned.image, scores.image, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(turned.map, scores.map, rtol=1e-4, atol=1e-5)


def test_what_lies_elsewhere_is_found() -> None:
    """A position is compared with all of the others': what only moved is no defect, to PaDiM it would be one."""
    plain = torch.full((5, 3, 32, 64), 0.5)
    spots = plain.clone()
    for i in range(5):
        spots[i, :, 8:16, 8 * i + 8 : 8 * i + 16] = 1.0
    detector, blank = learn(built(), [spots]), learn(built(), [plain])
    moved = plain[:1].clone()
    moved[:, :, 8:16, 28:36] = 1.0
    assert float(maps(detector, moved).max()) < 0.5 * float(maps(blank, moved).max())


def test_an_update_is_a_fit_on_all_and_fewer_images_than_neighbours_are_all_retrieved() -> None:
    updated = learn(learn(built(neighbours=50), [images(9)[:4]]), [images(9)[4:5], images(9)[5:]], update=True)
    whole = learn(built(neighbours=50), [images(9)])
    torch.testing.assert_close(updated.pooled, whole.pooled, rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        nearest = whole.retrieved(whole.pooled[:2])[1]
        torch.testing.assert_close(updated(images(2, 1)).image, whole(images(2, 1)).image, rtol=1e-4, atol=1e-6)
    assert nearest.shape == (2, 9) and sorted(nearest[0].tolist()) == list(range(9))


def test_images_are_looked_up_in_blocks_which_bounds_the_space(monkeypatch: pytest.MonkeyPatch) -> None:
    largest = 0

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            nonlocal largest
            made = function(*args, **(kwargs or {}))
            largest = max(largest, *(t.numel() for t in tree_leaves(made) if isinstance(t, Tensor)), 0)
            return made

    detector = learn(built(), [images(9)])
    at_once = detector.retrieved(detector.pooled[:2] + 0.1)
    monkeypatch.setattr(spade, "BLOCK", 4)
    with Watch():
        in_blocks = detector.retrieved(detector.pooled[:2] + 0.1)
    assert all(torch.equal(*pair) for pair in zip(at_once, in_blocks, strict=True))
    assert largest == 2 * 4 * detector.pooled.shape[1]


def test_the_paper_s_network() -> None:
    """Wide ResNet-50-2: 56², 28² and 14² of 224 px, and 2,048 global features; 7.3 MB an image at 256 px."""
    detector = SPADE(backbone="wide_resnet50_2", weights="none")
    assert detector.pooled.shape[1] == 2048
    assert [gallery.shape[1] for gallery in detector.galleries] == [256, 512, 1024]
    values = 2048 + sum(g.shape[1] * (256 // s) ** 2 for g, s in zip(detector.galleries, detector.strides, strict=True))
    assert round(4e-6 * values, 1) == 7.3
    assert detector.neighbours == 50 and detector.correspondences == 1


@pytest.mark.parametrize(
    "arguments", [{"deepest": 7}, {"strides": (4, 4)}, {"neighbours": 0}, {"correspondences": 0}, {"sigma": 0.0}]
)
def test_ranges(arguments: dict[str, object]) -> None:
    with pytest.raises(OkngError, match="spade: "):
        built(**arguments)
