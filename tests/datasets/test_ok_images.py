"""What of a folder is learnt as OK, on folders as people have them."""

import json

import pytest

import okng
from okng.datasets import open_dataset
from okng.datasets.ok_images import ok_images, part_images
from okng.errors import OkngError, OkngWarning


def learnt(folder):
    return {path.relative_to(folder).as_posix() for path in ok_images(folder)[0]}


def test_visa_as_one_folder(put):
    root = put(
        "candle/Data/Images/Normal/0000.JPG", "candle/Data/Images/Normal/0001.JPG",
        "candle/Data/Images/Anomaly/000.JPG", "+candle/Data/Masks/Anomaly/000.png",
    )  # fmt: skip
    images, said = ok_images(root)
    assert [image.name for image in images] == ["0000.JPG", "0001.JPG"]
    assert said == "Left out: 1 image in candle/Data/Images/Anomaly/, 1 mask in candle/Data/Masks/."


def test_folders_by_their_names_at_every_depth(put):
    root = put("normal_dir/a.png", "abnormal_dir/b.png", "+mask_dir/b.png", "normal_dir/x/NG/c.png", "test/good/d.png")
    assert learnt(root) == {"normal_dir/a.png"}
    assert "1 image in normal_dir/x/NG/" in ok_images(root)[1] and "1 image in test/" in ok_images(root)[1]


def test_masks_beside_images_and_the_images_they_mark(put):
    root = put(
        "a.jpg", "-a.png", "b.jpg", "+b.png", "c.png", "-c_mask.png", "d.png", "+d_label.bmp", "e.png", "-e_GT.png",
        "f.png",
    )  # fmt: skip
    images, said = ok_images(root)
    assert [image.name for image in images] == ["a.jpg", "c.png", "e.png", "f.png"]
    assert said == "Left out: 5 masks beside images (a.png), 2 images whose mask marks something (b.jpg)."


def test_magnetic_tiles_of_one_kind(put):
    assert learnt(put("MT_Free/Imgs/x.jpg", "-MT_Free/Imgs/x.png")) == {"MT_Free/Imgs/x.jpg"}
    root = put("MT_Crack/Imgs/x.jpg", "+MT_Crack/Imgs/x.png") / "MT_Crack"
    with pytest.raises(OkngError, match=r"no image that is surely OK: it has 1 mask .* 1 image whose mask marks"):
        ok_images(root)


def test_labelme_files(put):
    root = put("a.jpg", "b.jpg", "a_json/img.png", "+a_json/label.png", "a_json/label_viz.png")
    (root / "a.json").write_text(json.dumps({"shapes": [{"label": "scratch"}]}))
    (root / "b.json").write_text(json.dumps({"shapes": []}))
    images, said = ok_images(root)
    assert {image.name for image in images} == {"a.jpg", "b.jpg"}
    assert "Learnt as OK all the same: 1 image with labelme's outlines (a.jpg)." in said


def test_files_called_ng_among_others(put):
    assert learnt(put("ok_1.png", "ok_2.png", "ng_1.png", "screw_NG_3.png")) == {"ok_1.png", "ok_2.png"}


def test_files_not_called_ok_among_others_that_are_are_said(put):
    images, said = ok_images(put("ok_1.png", "ok_2.png", "scratch_1.png"))
    assert len(images) == 3
    assert said == "Learnt as OK all the same: 1 image not called OK as others are (scratch_1.png)."


def test_a_mask_named_with_the_whole_name_of_its_image_tells_that_it_is_ng(put):
    assert learnt(put("a.png", "-a.png.mask.png", "b.png", "+b.png.mask.png")) == {"a.png"}


def test_a_word_that_all_files_have_tells_nothing_apart_but_is_said(put):
    images, said = ok_images(put("defect_detector_1.png", "defect_detector_2.png"))
    assert len(images) == 2
    assert said == "Learnt as OK all the same: 2 images called NG (defect_detector_1.png)."


def test_what_is_ok_is_not_refused_for_a_word(put):
    names = {
        "badge_01.png", "label_printer/1.png", "labels/a.png", "test_rig/1.png", "defect_free/1.png", "contest/1.png",
        "damask.png", "x.png", "x.jpg", "x_label.png", "monday/bad_light.png",
    }  # fmt: skip
    root = put(*names)
    images, said = ok_images(root)
    assert {image.relative_to(root).as_posix() for image in images} == names
    assert said == ""


def test_masks_elsewhere_say_that_some_images_are_ng(put):
    root = put("images/1.png", "images/2.png", "+masks/1.png")
    with pytest.raises(
        OkngError, match=r"masks such as masks/1.png, so not all its images are OK; give a plain folder"
    ):
        ok_images(root)
    put("-masks/1.png")
    assert learnt(root) == {"images/1.png", "images/2.png"}


def test_other_folders_beside_a_good_one_are_refused_at_every_depth(put):
    root = put("lot1/good/1.png", "lot1/crack/1.png")
    with pytest.raises(OkngError, match=r"lot1 has other folders beside good/; give .*lot1/good"):
        ok_images(root)


def test_a_folder_that_is_itself_called_ng_is_a_decision_that_is_said(put):
    folder = put("Anomaly/1.png") / "Anomaly"
    images, said = ok_images(folder)
    assert len(images) == 1 and said == "Learnt as OK all the same: a folder called Anomaly."


def test_a_folder_of_masks_is_refused(put):
    folder = put("+ground_truth/crack/000.png", "+ground_truth/crack/001.png") / "ground_truth"
    with pytest.raises(OkngError, match="holds masks, not images of parts; give a plain folder"):
        ok_images(folder)


def test_labelmes_drawings_over_photographs_count_as_masks(put):
    root = put("JPEGImages/1.jpg", "SegmentationClassVisualization/1.jpg")
    with pytest.raises(OkngError, match=r"has masks such as SegmentationClassVisualization/1\.jpg"):
        ok_images(root)


def test_depth_beside_colour_is_left_out(put):
    assert learnt(put("good/rgb/1.png", "good/xyz/1.png", "-good/gt/1.png")) == {"good/rgb/1.png"}


def test_an_ng_folder_is_left_out_on_the_line_and_in_python(put):
    root = put(*(f"parts/{i}.png" for i in range(4)), "NG/1.png", "parts/1_mask.jpg")
    put("-parts/1_mask.jpg")
    dataset = open_dataset(root)
    assert len(dataset.train) == 4
    assert dataset.protocol.endswith("Left out: 1 image in NG/, 1 mask beside images (1_mask.jpg).")
    common = {"detector": "autoencoder", "size": 32, "epochs": 1}
    with pytest.warns(OkngWarning, match=r"Left out: 1 image in NG/, 1 mask beside images"):
        fitted = okng.fit(root, **common)
    assert fitted.manifest["provenance"]["images"] == 4
    with pytest.warns(OkngWarning, match="Left out"):
        assert (
            okng.fit([root, root / "NG/1.png"], **common).manifest["provenance"]["images"] == 5
        )  # a list is a decision


def test_an_update_lists_folders_by_the_same_rule(put):
    root = put(*(f"parts/{i}.png" for i in range(4)), *(f"new/parts/{i}.png" for i in range(3)), "new/NG/1.png")
    fitted = okng.fit(root / "parts", "padim", dimensions=5, size=64)
    with pytest.warns(OkngWarning, match="Left out: 1 image in NG/"):
        updated = okng.update(fitted, root / "new")
    assert updated.manifest["provenance"]["updates"][-1]["images"] == 3


def test_parts_of_a_test_folder_whatever_their_label(put):
    root = put("good/img/1.png", "-good/label/1.png", "crack/NG_1.png", "+crack/NG_1_mask.png", "+crack/gt/2.png")
    images, beside, masks = part_images(root)
    assert [image.relative_to(root).as_posix() for image in images] == ["crack/NG_1.png", "good/img/1.png"]
    assert [mask.name for mask in beside] == ["NG_1_mask.png"] and len(masks) == 2
