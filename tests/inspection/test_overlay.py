import numpy as np
import pytest
from PIL import Image

from okng.errors import OkngError
from okng.inspection.overlay import HEAT, OPACITY, heat_range, overlay
from okng.inspection.verdict.calibration import Calibration
from okng.inspection.verdict.regions import find_regions
from okng.inspection.verdict.result import Inspection

SIZE = (240, 320)
LOW, HIGH, THRESHOLD = 1.0, 3.0, 2.0


def inspection_of(scores, regions=True, size=SIZE):
    found = tuple(find_regions(scores, THRESHOLD, size)) if regions and scores is not None else ()
    return Inspection(0, None, 1.0, 0.1, "NG", size, scores, found, {})


@pytest.fixture
def scores():
    """(24, 32): 0.9 almost everywhere, a hot rectangle, and a warm one below the threshold."""
    scores = np.full((24, 32), 0.9, np.float32)
    scores[4:9, 5:12] = 4.0
    scores[16:20, 20:27] = 1.5
    return scores


@pytest.fixture(params=[0, 128, 255])
def image(request):
    return np.full((*SIZE, 3), request.param, np.uint8)


def grey_of(picture):
    return np.asarray(picture.convert("L")).astype(int)


def test_nothing_is_drawn_where_nothing_is_odd(image):
    shown = overlay(image, inspection_of(np.full((24, 32), LOW, np.float32)), LOW, HIGH)
    np.testing.assert_array_equal(np.asarray(shown), image)


def test_heat_rises_from_low_to_high(image, scores):
    inspection = inspection_of(scores, regions=False)
    shown = np.asarray(overlay(image, inspection, LOW, HIGH)).astype(int)
    np.testing.assert_array_equal(shown[200:, :100], image[200:, :100])
    full = np.array(HEAT[-1]) * OPACITY + image[0, 0] * (1 - OPACITY)
    np.testing.assert_allclose(shown[65, 85], full, atol=2)
    warm = np.abs(shown[180, 235] - image[0, 0]).sum()
    assert warm > 20
    cooler = np.asarray(overlay(image, inspection, LOW, HIGH + 5)).astype(int)
    assert np.abs(cooler[180, 235] - image[0, 0]).sum() < warm


def test_the_part_stays_visible_beneath_the_heat(scores):
    image = np.zeros((*SIZE, 3), np.uint8)
    image[:, ::2] = 255
    stripes = grey_of(overlay(image, inspection_of(scores, regions=False), LOW, HIGH))[65, 80:90]
    assert np.abs(np.diff(stripes)).min() > 40


def test_colours_get_lighter_all_the_way():
    """So that they can be put in order without telling hues apart, and in a grey print."""
    luminance = np.array(HEAT) @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(luminance) > 15).all()


def test_outlines_are_seen_on_any_image(image, scores):
    inspection = inspection_of(scores)
    bare = grey_of(overlay(image, inspection_of(scores, regions=False), LOW, HIGH))
    outlined = grey_of(overlay(image, inspection, LOW, HIGH))
    changed = outlined[outlined != bare]
    assert {0, 255} & set(changed)
    assert set(changed) <= {0, 255}  # white and black, side by side: one of them stands out anywhere
    left, top, right, bottom = (round(side) for side in inspection.regions[0].box)
    ys, xs = np.nonzero(outlined != bare)
    assert (xs.min(), xs.max(), ys.min(), ys.max()) == pytest.approx((left, right, top, bottom), abs=3)


def test_everything_is_drawn_to_the_scale_of_the_picture(scores):
    image = Image.new("RGB", SIZE[::-1])
    inspection = inspection_of(scores)
    normal = overlay(image, inspection, LOW, HIGH)
    small = overlay(image.resize((80, 60)), inspection, LOW, HIGH)
    large = overlay(image.resize((1600, 1200)), inspection, LOW, HIGH)
    assert (normal.size, small.size, large.size) == ((320, 240), (80, 60), (1600, 1200))
    widths = []
    for picture in (normal, large):
        white = grey_of(picture)[:, picture.width * 85 // 320] == 255  # a column through the hot rectangle
        assert np.nonzero(white)[0][0] / picture.height == pytest.approx(40 / 240, abs=0.02)
        widths.append(int(white[: picture.height // 4].sum()))
    assert widths[0] < widths[1]
    assert grey_of(small)[16, 21] > 50  # hot in the same place


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "1", "CMYK"])
def test_pictures_of_any_mode_are_left_as_they_are(mode, scores):
    image = Image.new(mode, SIZE[::-1])
    before = image.tobytes()
    shown = overlay(image, inspection_of(scores), LOW, HIGH)
    assert (shown.mode, shown.size) == ("RGB", image.size)
    assert image.tobytes() == before


def test_arrays_are_left_as_they_are(scores):
    image = np.zeros((*SIZE, 3), np.uint8)
    image.setflags(write=False)
    assert np.asarray(overlay(image, inspection_of(scores), LOW, HIGH)).max() > 200


@pytest.mark.filterwarnings("error")
def test_a_range_of_no_width_is_a_step(scores):
    shown = np.asarray(overlay(np.zeros((*SIZE, 3), np.uint8), inspection_of(scores, regions=False), 2.0, 2.0))
    assert set(np.unique(shown[:, :, 0])) == {0, int(HEAT[-1][0] * OPACITY)}


def test_a_line_of_pixels():
    scores = np.ones((1, 40), np.float32)
    scores[0, 10:20] = 5
    assert overlay(Image.new("L", (400, 1)), inspection_of(scores, size=(1, 400)), LOW, HIGH).size == (400, 1)


def test_no_map_no_overlay():
    with pytest.raises(OkngError, match="gives no map"):
        overlay(Image.new("L", (4, 4)), inspection_of(None), LOW, HIGH)
    with pytest.raises(OkngError, match="gives no map"):
        heat_range(Calibration.fit(np.arange(20.0), None, "split", 0.05))


@pytest.mark.parametrize("peaks", [np.arange(99.0), -1e5 - np.arange(99.0), 1e-6 * np.arange(99.0) ** 2])
def test_heat_begins_at_the_middle_of_ok_and_shows_the_threshold(peaks):
    calibration = Calibration.fit(peaks, peaks, "split", 0.05)
    low, high = heat_range(calibration)
    assert low == pytest.approx(np.median(peaks))
    assert (calibration.pixel_threshold - low) / (high - low) == pytest.approx(1 / 7)


def test_one_stray_image_that_counts_leaves_the_others_their_colours():
    """19 OK images and a black one: the threshold is the black one's peak, by right, but nothing else would show."""
    peaks = np.append(np.linspace(20, 24, 19), 65.7)
    calibration = Calibration.fit(peaks, peaks, "cross", 0.05)
    assert calibration.pixel_threshold == 65.7
    low, high = heat_range(calibration)
    middle = np.median(peaks)
    assert (low, high) == (pytest.approx(middle), pytest.approx(middle + 7 * (24 - middle)))


@pytest.mark.parametrize("peaks", [[5.0], [5.0] * 40, [0.0] * 40, [-5.0] * 40])
def test_heat_range_of_few_or_tied_peaks(peaks):
    calibration = Calibration.fit(np.array(peaks), np.array(peaks), "split", 0.05)
    low, high = heat_range(calibration)
    assert low < calibration.pixel_threshold < high
