from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from okng.detectors.base import Batch, Collect
from okng.detectors.catalogue import create
from okng.detectors.feature_matching.feature_dictionary import Drawn, FeatureDictionary
from okng.errors import OkngError

DENSE: dict[str, object] = {"dense": True, "stride": 8}


def images(count: int, seed: int = 0) -> Tensor:
    return torch.rand(count, 3, 32, 48, generator=torch.Generator().manual_seed(seed))


def built(**arguments: object) -> FeatureDictionary:
    torch.manual_seed(0)
    small = {"window": 16, "step": 8, "input_size": 32, "stride": 8, "words": 20, "similar": 1}
    detector = create("feature_dictionary", **{**small, **arguments})
    assert isinstance(detector, FeatureDictionary)
    return detector


def learn(detector: FeatureDictionary, batches: Sequence[Tensor]) -> tuple[FeatureDictionary, Tensor]:
    """The fitted detector, and the vectors (n, C) of all windows it has learnt from."""
    (phase,) = detector.phases()
    assert isinstance(phase, Collect) and phase.prepare is not None
    seen = []
    with torch.no_grad():
        for batch in batches:
            prepared = phase.prepare(batch)
            assert isinstance(prepared, Tensor)
            phase.visit(Batch(batch, torch.arange(len(batch)), (prepared,)))
            seen.append(prepared.permute(0, 2, 3, 1).flatten(0, 2))
        phase.finish()
    return detector, torch.cat(seen)


@pytest.mark.parametrize("arguments", [{}, DENSE])
def test_every_word_is_a_window_of_an_ok_image_bit_for_bit(arguments: dict[str, object]) -> None:
    detector, vectors = learn(built(**arguments), [images(4), images(3, seed=1)])
    assert 10 < len(detector.words) <= 20
    for word in detector.words:
        assert (vectors == word).all(1).any()
    torch.testing.assert_close(vectors.abs().sum(1), torch.ones(len(vectors)))


def test_as_many_components_as_it_takes_are_kept() -> None:
    detector, vectors = learn(built(**DENSE), [images(20)])
    with torch.no_grad():
        kept = detector.reduced(vectors).double().var(0, correction=0)  # (d,)
    total = (vectors.double().var(0) > 0).sum()  # of standardised channels
    assert 1 < len(kept) < total
    assert float(kept.sum() / total) >= 0.95 - 1e-4 > float(kept[:-1].sum() / total)


def test_a_window_that_is_a_word_is_at_no_distance_and_more_words_raise_none() -> None:
    detector, vectors = learn(built(), [images(4)])
    words = detector.words
    with torch.no_grad():
        all_words = detector.distances(images(2, seed=1))
        detector.words = words[:5]
        few_words = detector.distances(images(2, seed=1))
        assert (all_words <= few_words + 1e-4).all() and (all_words < few_words - 0.1).any()
        detector.words = vectors
        found = detector.distances(images(4))
    assert float(found.max()) < 1e-3 * float(few_words.mean())


def test_the_distance_is_the_mean_to_the_most_similar_words() -> None:
    detector, _ = learn(built(similar=3), [images(4)])
    with torch.no_grad():
        features = detector.described(images(2, seed=1)).permute(0, 2, 3, 1).flatten(0, 2)  # (2*h*w, C)
        queries, words = detector.reduced(features).double(), detector.reduced(detector.words).double()
        expected = torch.cdist(queries, words).sort(1).values[:, :3].mean(1)
        found = detector.distances(images(2, seed=1)).flatten().double()
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)


def test_a_pixel_is_the_mean_of_the_windows_that_cover_it() -> None:
    """Written out pixel by pixel; windows are cut where they say they are."""
    detector, _ = learn(built(), [images(4)])
    new = images(1, seed=1)
    with torch.no_grad():
        distances, scores = detector.distances(new)[0], detector(new)  # (3, 5)
        assert distances.shape == (3, 5) and scores.map is not None and scores.map.shape == (1, 4, 6)
        alone = detector.pooled(new[:, :, 8:24, 24:40])[0]
        torch.testing.assert_close(detector.described(new)[0, :, 1, 3], alone / alone.abs().sum(), rtol=1e-3, atol=1e-5)
    total, count = torch.zeros(32, 48), torch.zeros(32, 48)
    for i in range(3):
        for j in range(5):
            total[8 * i : 8 * i + 16, 8 * j : 8 * j + 16] += distances[i, j]
            count[8 * i : 8 * i + 16, 8 * j : 8 * j + 16] += 1
    pixels = (total / count)[None]
    torch.testing.assert_close(scores.map.repeat_interleave(8, 1).repeat_interleave(8, 2), pixels)
    torch.testing.assert_close(scores.image[0], pixels.max())


def test_drawn_are_all_as_long_as_they_fit_then_a_fair_sample() -> None:
    torch.manual_seed(0)
    few = Drawn(100)
    few.add(torch.arange(60.0)[:, None])
    few.add(torch.arange(60.0, 90)[:, None])
    assert torch.equal(few.vectors[:, 0], torch.arange(90.0))
    many = Drawn(500)
    for block in torch.arange(10_000.0)[:, None].split(77):
        many.add(block)
    drawn = many.vectors[:, 0]
    assert len(drawn) == 500 == len(drawn.unique()) and abs(float(drawn.mean()) - 5000) < 500


def test_a_flat_image_alone() -> None:
    detector, _ = learn(built(), [torch.full((1, 3, 32, 48), 0.5)])
    with torch.no_grad():
        assert detector(images(2)).image.isfinite().all()


@pytest.mark.parametrize(
    "arguments",
    [{"step": 5}, {"retained": 1.0}, {"words": 0}, {"similar": 0}, {"similar": 21}, {"window": 2}, {"input_size": 8}],
)
def test_ranges(arguments: dict[str, object]) -> None:
    with pytest.raises(OkngError, match="feature_dictionary: "):
        built(**arguments)
