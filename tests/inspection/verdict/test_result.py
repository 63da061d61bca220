import json

import numpy as np
import pytest

from okng.errors import OkngError
from okng.inspection.verdict.regions import find_regions
from okng.inspection.verdict.result import Inspection, upsample


def inspection_of(scores, size=(40, 60), threshold=0.5):
    regions = () if scores is None else tuple(find_regions(scores, threshold, size))
    return Inspection(0, "part.png", 1.5, 0.02, "NG", size, scores, regions, {"decode": 1.0, "score": 2.0})


@pytest.fixture
def scores():
    scores = np.zeros((8, 12), np.float32)
    scores[2:4, 3:6] = 1
    return scores


def test_heatmap_is_the_map_at_the_images_size(scores):
    heatmap = inspection_of(scores).heatmap()
    assert (heatmap.shape, heatmap.dtype) == ((40, 60), np.float32)
    np.testing.assert_allclose(heatmap[2::5, 2::5], scores)  # pixel centres coincide at an odd factor
    assert inspection_of(scores).heatmap((80, 10)).shape == (80, 10)


def test_upsampling_is_bilinear_between_centres():
    np.testing.assert_allclose(upsample(np.array([[0.0, 4.0]]), (1, 8))[0], [0, 0, 0.5, 1.5, 2.5, 3.5, 4, 4])


def test_heatmap_and_regions_agree(scores):
    inspection = inspection_of(scores, size=(400, 600))
    above = inspection.heatmap() > 0.5
    rows, columns = np.nonzero(above)
    left, top, right, bottom = inspection.regions[0].box
    assert (left, top) == pytest.approx((columns.min(), rows.min()), abs=1)
    assert (right, bottom) == pytest.approx((columns.max() + 1, rows.max() + 1), abs=1)
    assert inspection.regions[0].area == pytest.approx(above.sum(), rel=0.03)


def test_no_map():
    inspection = inspection_of(None)
    assert inspection.is_ng
    assert inspection.to_dict()["regions"] == []
    with pytest.raises(OkngError, match="gives no map; `okng list` shows which ones localise"):
        inspection.heatmap()


def test_json(scores):
    fields = json.loads(json.dumps(inspection_of(scores).to_dict()))
    assert {"path", "score", "p_value", "verdict", "regions", "height", "width", "timing_ms"} <= fields.keys()
    assert (fields["height"], fields["width"], fields["verdict"]) == (40, 60, "NG")
    assert fields["regions"][0].keys() == {"box", "area", "peak", "score", "contour", "rule"}
    assert "map" not in fields
