import unicodedata

import pytest

from okng.datasets.names import key, mask_keys, says_good, says_masks, says_ng, says_test


@pytest.mark.parametrize(
    "name",
    [
        "NG", "ng_2024", "Anomaly", "abnormal_dir", "bad", "bad_parts", "KO", "scratch_defects", "logical_anomalies",
        "Ungood", "not_ok", "NotOK", "no-good", "불량", "不良品", "part_ng_03",
        "niO", "n.i.O.", "NIO_2024", "n.i.o", "schlecht", "Ausschuß", "nicht_gut", "défauts",
        "defauts_ng", "scarti", "defectuosos", "брак", "不合格",
    ],
)  # fmt: skip
def test_names_that_say_ng(name):
    assert says_ng(name) and not says_good(name)


@pytest.mark.parametrize(
    "name",
    [
        "badge", "badge_01", "bad_light", "defect_free", "no_defects", "non-defective", "normal", "OK", "kong",
        "english", "i.O.", "iO", "io_board", "audio", "union",
        "ohne_defekte", "sans_défauts", "fail_safe_relay", "crack", "monday", "000", "nothing",
    ],
)  # fmt: skip
def test_names_that_do_not(name):
    assert not says_ng(name)


def test_words_of_masks_tests_and_good():
    for name in ("ground_truth", "Ground_Truth", "GroundTruth", "Label", "masks", "mask_dir", "gt", "anomaly_masks"):
        assert says_masks(name), name
    assert says_masks("SegmentationClassPNG") and says_masks("SegmentationClassVisualization")
    for name in ("label_printer", "gtx", "masked_parts", "ground_floor_camera", "parts"):
        assert not says_masks(name), name
    for name in ("test", "test_public", "test_private_mixed", "validation", "normal_test_dir", "val2"):
        assert says_test(name), name
    for name in ("test_rig", "contest", "latest", "values", "tested_ok_lot"):
        assert not says_test(name), name
    for name in ("good", "OK", "normal_dir", "ok_parts_2", "train_good", "정상", "i.O.", "iO", "gut", "годные"):
        assert says_good(name), name
    for name in ("not_ok", "good_or_bad", "goods", "normals_of_surface"):
        assert not says_good(name), name


def test_keys_of_images_and_masks():
    assert key("x.png.png") == "x" and key("a.b.JPG") == "a.b"
    assert key(unicodedata.normalize("NFD", "prüfling.png")) == "prüfling"
    for name in (
        "x_mask.png",
        "x_GT.png",
        "x_label.bmp",
        "x-MASK.tif",
        "x_ground_truth.png",
        "x_mask2.png",
        "x.mask.png",
    ):
        assert mask_keys(name) == ["x"], name
    assert mask_keys("x.png.mask.png") == mask_keys("x_truth.png") == mask_keys("x_annotation.png") == ["x"]
    assert mask_keys("0001GT.png") == ["0001"] and mask_keys("mask_x.png") == ["x"]
    for name in ("damask.png", "budget.png", "x.png", "label.png", "masked_1.png"):
        assert mask_keys(name) == [], name
