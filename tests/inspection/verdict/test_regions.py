import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from okng.inspection.verdict.regions import find_regions, regions_above
from okng.inspection.verdict.result import upsample


def blocks(shape, *places, background=0.0):
    """A map with rectangles (top, bottom, left, right, value)."""
    scores = np.full(shape, background, np.float32)
    for top, bottom, left, right, value in places:
        scores[top:bottom, left:right] = value
    return scores


def smooth(shape, sigma, seed=0):
    from scipy.ndimage import gaussian_filter

    return gaussian_filter(np.random.default_rng(seed).normal(size=shape), sigma).astype(np.float32)


def test_a_rectangle_of_known_size():
    """At half height the interpolated edge lies halfway between the middles of two cells: on their border."""
    (region,) = regions_above(blocks((8, 10), (2, 5, 3, 8, 1.0)), 0.5, (8, 10))
    assert region.box == pytest.approx((3, 2, 8, 5))
    assert region.area == pytest.approx(3 * 5 - 4 * (0.5 * 0.5) / 2)  # the corners are cut off
    assert region.score == 1.0
    assert (int(region.peak[0]), int(region.peak[1])) == (3, 2)
    assert region.contour[0] == region.contour[-1]
    xs, ys = zip(*region.contour, strict=True)
    assert (min(xs), min(ys), max(xs), max(ys)) == region.box


def test_the_threshold_moves_the_edge_along_the_slope():
    scores = blocks((8, 10), (2, 5, 3, 8, 1.0))
    for threshold, shift in ((0.25, 0.25), (0.5, 0), (0.9, -0.4)):
        (region,) = regions_above(scores, threshold, (8, 10))
        assert region.box == pytest.approx((3 - shift, 2 - shift, 8 + shift, 5 + shift))


def test_original_pixels():
    """10 by 20 pixels to a cell, in height and width."""
    scores = blocks((8, 10), (2, 5, 3, 8, 1.0))
    scores[4, 6] = 2
    (region,) = regions_above(scores, 0.5, (80, 200))
    assert region.box == pytest.approx((60, 20, 160, 52.5))  # the 2 reaches further down
    assert region.peak == (6.5 * 20, 4.5 * 10)
    assert region.score == 2
    (small,) = regions_above(scores, 0.5, (8, 10))
    assert region.area == pytest.approx(small.area * 200)


def test_one_cell():
    (region,) = regions_above(blocks((5, 5), (2, 3, 2, 3, 1.0)), 0.5, (5, 5))
    assert region.area == pytest.approx(0.5)  # a diamond
    assert region.peak == (2.5, 2.5)
    assert region.box == pytest.approx((2, 2, 3, 3))


def test_a_map_of_one_cell():
    (region,) = regions_above(np.ones((1, 1)), 0.5, (30, 20))
    assert (region.box, region.area, region.peak) == ((0, 0, 20, 30), 600, (10, 15))


@pytest.mark.parametrize(
    ("place", "box"),
    [
        ((0, 3, 0, 4), (0, 0, 4, 3)),
        ((0, 3, 6, 10), (6, 0, 10, 3)),
        ((5, 8, 0, 4), (0, 5, 4, 8)),
        ((5, 8, 6, 10), (6, 5, 10, 8)),
        ((0, 8, 0, 10), (0, 0, 10, 8)),
        ((3, 5, 0, 10), (0, 3, 10, 5)),
    ],
)
def test_regions_are_cut_at_the_border(place, box):
    scores = blocks((8, 10), (*place, 1.0))
    (region,) = regions_above(scores, 0.5, (80, 100))
    assert region.box == pytest.approx(tuple(10 * side for side in box))
    inner_corners = sum(x in (box[0], box[2]) and 0 < x < 10 for x in (box[0], box[2])) * sum(
        0 < y < 8 for y in (box[1], box[3])
    )
    assert region.area == pytest.approx(((box[2] - box[0]) * (box[3] - box[1]) - inner_corners / 8) * 100)
    assert all(0 <= x <= 100 and 0 <= y <= 80 for x, y in region.contour)
    assert scores[int(region.peak[1] / 10), int(region.peak[0] / 10)] == 1
    assert len(set(region.contour)) == len(region.contour) - 1  # no point twice but the first


def test_two_regions_highest_first():
    first, second = regions_above(blocks((9, 9), (1, 3, 1, 3, 1.0), (6, 8, 5, 8, 2.0)), 0.5, (9, 9))
    assert (first.score, second.score) == (2, 1)
    assert first.box[:2] > second.box[:2]


def test_a_hole_is_not_counted_and_an_island_in_it_is_its_own_region():
    scores = blocks((15, 15), (1, 14, 1, 14, 1.0), (3, 12, 3, 12, 0.0), (6, 9, 6, 9, 5.0))
    scores[13, 13] = 2.0
    island, ring = regions_above(scores, 0.5, (15, 15))
    assert (island.score, island.peak) == (5, (6.5, 6.5))
    assert (ring.score, ring.peak) == (2, (13.5, 13.5))  # not the island's, though it lies inside the outline
    assert ring.area == pytest.approx(13 * 13 - 9 * 9, rel=0.02)
    assert ring.box == pytest.approx((1, 1, 14.5, 14.5), abs=0.4)


def test_nothing_above():
    assert regions_above(np.zeros((4, 4)), 0.5, (40, 40)) == []
    assert regions_above(np.full((4, 4), 0.5), 0.5, (40, 40)) == []  # equal is not above
    exactly = blocks((6, 6), (2, 4, 2, 4, 0.5))
    assert regions_above(exactly, 0.5, (6, 6)) == []
    barely = exactly.astype(np.float64)
    barely[2, 2] = np.nextafter(0.5, 1)
    assert sum(region.area for region in regions_above(barely, 0.5, (6, 6))) < 1e-6


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_maps_are_finite(value):
    with pytest.raises(ValueError, match="NaN or infinite"):
        regions_above(blocks((4, 4), (1, 2, 1, 2, value)), 0.5, (4, 4))


@pytest.mark.parametrize("scale", [1e-20, 1e-3, 1e6, 1e20])
def test_scores_of_any_magnitude_and_sign(scale):
    scores = blocks((8, 10), (2, 5, 3, 8, -1.0), background=-2.0).astype(np.float64) * scale
    (region,) = regions_above(scores, -1.5 * scale, (8, 10))
    assert region.box == pytest.approx((3, 2, 8, 5))


@pytest.mark.parametrize("size", [(640, 480), (64, 48), (97, 1003)])
@pytest.mark.parametrize("share", [0.5, 0.1, 0.01])
def test_total_area_is_that_of_the_upsampled_map(size, share):
    scores = smooth((64, 48), 3)
    threshold = float(np.quantile(scores, 1 - share))
    area = sum(region.area for region in regions_above(scores, threshold, size))
    fine = upsample(scores, (64 * 16, 48 * 16)) > threshold
    assert area / (size[0] * size[1]) == pytest.approx(fine.mean(), rel=0.02)


@pytest.mark.parametrize("seed", range(3))
def test_as_many_regions_as_connected_components(seed):
    """Where connectivity over corners or over edges makes no difference, and so none is a matter of taste."""
    from scipy.ndimage import label, maximum

    scores = smooth((96, 80), 4, seed)
    threshold = float(np.quantile(scores, 0.85))
    labels, count = label(scores > threshold)
    assert label(scores > threshold, np.ones((3, 3)))[1] == count
    regions = regions_above(scores, threshold, (96, 80))
    assert [r.score for r in regions] == sorted(maximum(scores, labels, range(1, count + 1)), reverse=True)
    assert len({labels[int(r.peak[1]), int(r.peak[0])] for r in regions}) == count


@settings(derandomize=True, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 24), st.integers(1, 24), st.floats(0.01, 0.99))
def test_the_regions_of_noise_are_consistent(seed, h, w, quantile):
    """Noise has holes, corners that touch and slivers: every cell above belongs to one region at most."""
    from scipy.ndimage import label

    scores = np.random.default_rng(seed).normal(size=(h, w)).astype(np.float32)
    threshold = float(np.quantile(scores, quantile))
    regions = regions_above(scores, threshold, (h, w))
    apart, joined = label(scores > threshold)[1], label(scores > threshold, np.ones((3, 3)))[1]
    assert joined <= len(regions) <= apart
    peaks = [region.peak for region in regions]
    assert len(set(peaks)) == len(peaks)
    for region in regions:
        x, y = int(region.peak[0]), int(region.peak[1])
        assert scores[y, x] == region.score > threshold
        left, top, right, bottom = region.box
        assert 0 <= left <= region.peak[0] <= right <= w
        assert 0 <= top <= region.peak[1] <= bottom <= h
        assert 0 <= region.area <= (right - left) * (bottom - top) + 1e-9
    if regions:
        assert regions[0].score == scores.max()


def test_the_cost_does_not_depend_on_the_image():
    scores = smooth((64, 64), 3)
    small, large = (regions_above(scores, 0.05, size) for size in ((64, 64), (64_000, 64_000)))
    assert [len(region.contour) for region in small] == [len(region.contour) for region in large]


def blurred(*squares, sigma=2.5):
    """A map (64, 64) with squares (top, left, side, height) seen through a lens that blurs."""
    from scipy.ndimage import gaussian_filter

    places = ((y, y + side, x, x + side, height) for y, x, side, height in squares)
    return gaussian_filter(blocks((64, 64), *places).astype(np.float64), sigma)


def test_an_outline_does_not_grow_with_the_defects_strength():
    """At the threshold a strong one fills more than twice its area; at half its height it only loses its corners."""
    for height in (4, 8, 32, 250):
        (region,) = find_regions(blurred((20, 30, 16, height)), 1.0, (64, 64))
        assert region.area == pytest.approx(16 * 16 - 21.5, abs=1), height
        assert region.box == pytest.approx((30, 20, 46, 36), abs=0.3)
    (flooding,) = regions_above(blurred((20, 30, 16, 250)), 1.0, (64, 64))
    assert flooding.area > 2 * 16 * 16


def test_a_weak_defect_beside_a_strong_one_keeps_a_region():
    scores = blurred((10, 10, 10, 40.0), (30, 10, 10, 8.0))
    assert len(regions_above(scores, 0.5, (64, 64))) == 1  # what lies between them is above the threshold too
    strong, weak = find_regions(scores, 0.5, (64, 64))
    assert strong.box == pytest.approx((10, 10, 20, 20), abs=1)
    assert weak.box == pytest.approx((10, 30, 20, 40), abs=1.5)


def test_a_ripple_on_a_defect_is_no_region_of_its_own():
    scores = blurred((10, 10, 30, 10.0))
    scores[15:35, 15:35] += np.random.default_rng(0).normal(0, 0.5, (20, 20))
    assert len(find_regions(scores, 0.5, (64, 64))) == 1


def test_a_defect_near_the_threshold_is_outlined_there():
    scores = blurred((20, 30, 16, 1.0))
    assert find_regions(scores, 0.6, (64, 64)) == regions_above(scores, 0.6, (64, 64))


def test_what_fills_the_picture_stays_one_region():
    scores = np.full((16, 16), 9.0)
    scores[:8] += 0.5
    assert [region.area for region in find_regions(scores, 1.0, (16, 16))] == [256]


@settings(derandomize=True, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 24), st.integers(1, 24), st.floats(0.01, 0.99), st.floats(0.5, 4))
def test_outlines_lie_within_what_is_above_the_threshold(seed, h, w, quantile, sharpness):
    scores = np.exp(sharpness * np.random.default_rng(seed).normal(size=(h, w)))
    threshold = float(np.quantile(scores, quantile))
    parts, outlined = regions_above(scores, threshold, (h, w)), find_regions(scores, threshold, (h, w))
    assert {part.peak for part in parts} <= {region.peak for region in outlined}  # each part has its region
    assert len({region.peak for region in outlined}) == len(outlined)
    assert sum(region.area for region in outlined) <= sum(part.area for part in parts) + 1e-9
    assert [region.score for region in outlined] == sorted((region.score for region in outlined), reverse=True)
    moved = find_regions(3 * scores - 7, 3 * threshold - 7, (h, w))  # the unit of a score is the detector's own
    assert sorted(region.peak for region in moved) == sorted(region.peak for region in outlined)


def test_a_noisy_map_costs_few_passes(monkeypatch):
    from okng.inspection.verdict import regions

    passes = []
    monkeypatch.setattr(regions, "regions_above", lambda *a: passes.append(a) or regions_above(*a))
    find_regions(np.exp(3 * smooth((96, 96), 1)), 1.0, (96, 96))
    assert 1 < len(passes) <= 1 + regions.LEVELS
