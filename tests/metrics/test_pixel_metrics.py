import math
from itertools import pairwise

import numpy as np
import pytest
from scipy import ndimage
from scipy.integrate import trapezoid
from sklearn.metrics import roc_auc_score

from okng.errors import OkngError
from okng.metrics import StreamingPixelMetrics, aupro, pixel_auroc, pixel_metrics


def brute_force_aupro(masks, maps, limit):
    """Straight from the definition: one point per distinct score, each found by looking at all pixels."""
    normals = sum(int((~mask).sum()) for mask in masks)
    points = [(0.0, 0.0)]
    for t in sorted(set(np.concatenate([scores.ravel() for scores in maps])), reverse=True):
        overlaps, false = [], 0
        for mask, scores in zip(masks, maps, strict=True):
            labels, count = ndimage.label(mask, np.ones((3, 3)))
            overlaps += [np.mean(scores[labels == k] >= t) for k in range(1, count + 1)]
            false += int((scores[~mask] >= t).sum())
        points.append((false / normals, float(np.mean(overlaps))))
    area = 0.0
    for (x0, y0), (x1, y1) in pairwise(points):
        if x1 <= limit:
            area += (x1 - x0) * (y0 + y1) / 2
        elif x0 < limit:
            y_cut = y0 + (y1 - y0) * (limit - x0) / (x1 - x0)
            area += (limit - x0) * (y0 + y_cut) / 2
    return area / limit


def tiny_set(seed, levels):
    """Images of several sizes, one of them good; scores on few levels have many ties."""
    rng = np.random.default_rng(seed)
    shapes = [(8, 8), (5, 9), (8, 6)]
    masks = [rng.random(shape) < 0.15 for shape in shapes]
    masks[2][:] = False
    maps = [np.round((rng.random(m.shape) + 0.4 * m) * levels) / levels - 0.5 for m in masks]
    return masks, maps


@pytest.mark.parametrize("levels", [3, 20, 10**9])
@pytest.mark.parametrize("limit", [0.05, 0.3, 1.0])
@pytest.mark.parametrize("seed", range(4))
def test_exact_aupro_is_the_loop_over_all_thresholds(seed, limit, levels):
    masks, maps = tiny_set(seed, levels)
    assert aupro(masks, maps, limit) == pytest.approx(brute_force_aupro(masks, maps, limit), abs=1e-12)


@pytest.mark.parametrize("levels", [3, 20, 10**9])
def test_exact_pixel_auroc_is_that_of_scikit_learn(levels):
    masks, maps = tiny_set(7, levels)
    labels, scores = (np.concatenate([x.ravel() for x in xs]) for xs in (masks, maps))
    assert pixel_auroc(masks, maps) == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)


def streaming_metrics(masks, maps, limit=0.3):
    streaming = StreamingPixelMetrics(limit)
    for mask, scores in zip(masks, maps, strict=True):
        streaming.update(mask, scores)
    return streaming.compute()


both = pytest.mark.parametrize("metrics", [pixel_metrics, streaming_metrics])


@both
def test_constant_map(metrics):
    masks, maps = tiny_set(0, 3)
    assert metrics(masks, [np.full_like(m, 0.7) for m in maps]) == (pytest.approx(0.5), pytest.approx(0.15))


@both
def test_perfect_map(metrics):
    masks, _ = tiny_set(0, 3)
    assert metrics(masks, [mask * 40.0 - 20 for mask in masks]) == (1.0, pytest.approx(1.0, abs=1e-12))


@both
def test_small_regions_count_as_much_as_large_ones(metrics):
    mask = np.zeros((40, 40), dtype=bool)
    mask[0, 0] = True
    mask[20:30, 20:30] = True
    scores = np.where(mask, 1.0, 0.0)
    scores[0, 0] = -1.0  # missed: below every normal pixel
    result = metrics([mask], [scores])
    assert result.pixel_auroc == pytest.approx(100 / 101)
    # PRO is 1/2 from FPR 0 on and stays so until the normal pixels come in, all at once, at FPR 1.
    assert result.aupro == pytest.approx(0.5)


@both
def test_diagonal_neighbours_are_one_region(metrics):
    mask = np.zeros((20, 20), dtype=bool)
    mask[0, 0] = mask[1, 1] = mask[2, 2] = True  # one region of three
    mask[10, 10] = True  # one of one
    scores = np.zeros((20, 20))
    scores[10, 10] = 1.0
    scores[mask & (scores == 0)] = -1.0
    assert metrics([mask], [scores]).aupro == pytest.approx(0.5)


def test_only_the_order_of_scores_counts():
    masks, maps = tiny_set(3, 50)
    assert pixel_metrics(masks, [np.exp(5 * m) - 1e3 for m in maps]) == pixel_metrics(masks, maps)


def smooth_noise(seed=0, count=20, size=128):
    """Maps as detectors make them: blurred, positive, a little higher on defects."""
    rng = np.random.default_rng(seed)
    masks = [ndimage.gaussian_filter(rng.normal(size=(size, size)), 6) > 0.09 for _ in range(count)]
    noise = [ndimage.gaussian_filter(rng.normal(size=(size, size)), 4) for _ in range(count)]
    return masks, [(20 + 60 * n + 3 * m).astype(np.float32) for n, m in zip(noise, masks, strict=True)]


@pytest.mark.parametrize(
    "rescale", [lambda s: s, lambda s: s - 20, np.exp, lambda s: -(s**3), lambda s: 1e-6 * s], ids=range(5)
)
def test_streaming_is_close_to_exact(rescale):
    masks, maps = smooth_noise()
    maps = [rescale(m.astype(np.float64)) for m in maps]
    exact = pixel_metrics(masks, maps)
    assert 0.05 < exact.aupro < 0.99
    assert streaming_metrics(masks, maps) == pytest.approx(exact, abs=2e-5)


@pytest.mark.parametrize("offset", [0, 30, 1000])
def test_the_bound_of_streaming_holds(offset):
    masks, maps = smooth_noise(1)
    maps = [m + np.float32(offset) for m in maps]
    streaming = StreamingPixelMetrics()
    for mask, scores in zip(masks, maps, strict=True):
        streaming.update(mask, scores)
    off = np.abs(np.subtract(streaming.compute(), pixel_metrics(masks, maps)))
    assert (off <= streaming.bound()).all()
    assert max(streaming.bound()) < 0.03  # and says something


def test_the_bound_is_reached_where_the_order_within_a_bin_is_all_there_is():
    mask = np.array([[True, False]])
    streaming = StreamingPixelMetrics(limit=1)
    streaming.update(mask, np.array([[1 + 1e-5, 1]]))
    assert streaming.compute() == (0.5, 0.5) and streaming.bound() == (0.5, 0.5)


def test_a_large_set_in_blocks_is_a_curve_with_straight_lines():
    """Beside a reckoning of the whole curve, from its points; more defect pixels than are taken at once."""
    rng = np.random.default_rng(0)
    masks = [np.zeros((420, 300), bool) for _ in range(2)]
    masks[0][5:400, 3:290] = masks[1][7, 11] = True
    maps = [np.round(rng.normal(size=m.shape) + m, 3).astype(np.float32) for m in masks]
    truth, scores = (np.concatenate([x.ravel() for x in xs]) for xs in (masks, maps))
    weight = np.where(truth, 1 / masks[0].sum(), 0)  # of the pixels of either region
    weight[masks[0].size :] *= masks[0].sum()
    levels = np.unique(scores)[::-1]
    level = np.searchsorted(-levels, -scores)
    fpr, pro = (np.append(0, np.cumsum(np.bincount(level, w, len(levels)))) for w in (~truth, weight / 2))
    fpr /= fpr[-1]
    inside = np.searchsorted(fpr, 0.2)
    x, y = np.append(fpr[:inside], 0.2), np.append(pro[:inside], np.interp(0.2, fpr, pro))
    expected = trapezoid(y, x) / 0.2
    assert pixel_metrics(masks, maps, 0.2) == pytest.approx((roc_auc_score(truth, scores), expected), abs=1e-10)


def test_streaming_is_exact_where_scores_fit_the_bins():
    masks, maps = tiny_set(1, 16)
    assert {-0.0, 0.0} <= set(np.concatenate([m.ravel() for m in maps])) and min(map(np.min, maps)) < 0
    maps[0][maps[0] == 0] = -0.0  # one score, two bit patterns
    exact = pixel_metrics(masks, maps, 0.2)
    assert streaming_metrics(masks, maps, 0.2) == pytest.approx(exact, abs=1e-12)


def test_streaming_counts_more_pairs_of_pixels_than_an_integer_holds():
    """Five thousand images of 12 million pixels have 4e19 pairs of a defect pixel and a normal one."""
    masks, maps = tiny_set(1, 16)
    streaming = StreamingPixelMetrics()
    for mask, scores in zip(masks, maps, strict=True):
        streaming.update(mask, scores)
    few, bound = streaming.compute(), streaming.bound()
    streaming._normal *= 500_000_000
    streaming._defect *= 30_000_000
    assert int(streaming._normal.sum()) * int(streaming._defect.sum()) > 2**64
    assert streaming.compute() == pytest.approx(few, abs=1e-12) and streaming.bound() == pytest.approx(bound, abs=1e-12)


@both
@pytest.mark.parametrize("value", [False, True])
def test_a_missing_class_is_nan(metrics, value):
    assert all(math.isnan(v) for v in metrics([np.full((4, 4), value)], [np.zeros((4, 4))]))


@both
def test_maps_may_share_their_memory(metrics):
    masks, maps = tiny_set(3, 5)
    one = np.zeros((9, 9))

    def in_turn():
        for scores in maps:
            view = one[: scores.shape[0], : scores.shape[1]]
            view[...] = scores
            yield view

    assert metrics(masks, in_turn()) == metrics(masks, maps)


@both
def test_no_image_is_nan(metrics):
    assert all(math.isnan(v) for v in metrics([], []))


@both
def test_bad_maps_are_refused(metrics):
    mask = np.eye(4, dtype=bool)
    with pytest.raises(OkngError, match="one size"):
        metrics([mask], [np.zeros((4, 5))])
    with pytest.raises(OkngError, match="not finite"):
        metrics([mask], [np.full((4, 4), np.nan)])
    with pytest.raises(ValueError, match="limit"):
        metrics([mask], [np.zeros((4, 4))], limit=0)
    with pytest.raises(ValueError):
        pixel_metrics([mask, mask], [np.zeros((4, 4))])
