import shutil
from collections import Counter

import numpy as np
import pytest

from okng.datasets import NG, OK, open_dataset
from okng.errors import OkngError


def counts(samples):
    """How many samples of each kind and label."""
    return dict(Counter((sample.kind, sample.label) for sample in samples))


def test_plain_folder_is_all_ok_and_all_for_training(tmp_path, save_images):
    folder = save_images(tmp_path / "parts", ["10.png", "2.png"])
    save_images(folder / "monday", ["1.png"])
    (folder / "notes.txt").touch()
    dataset = open_dataset(folder)
    assert (dataset.name, dataset.layout, dataset.test) == ("parts", "folder", ())
    assert [sample.image.name for sample in dataset.train] == ["2.png", "10.png", "1.png"]
    assert counts(dataset.train) == {("parts", OK): 2, ("monday", OK): 1}
    assert "taken as OK" in dataset.protocol


def test_name_of_the_folder_one_stands_in(tmp_path, monkeypatch, save_images):
    monkeypatch.chdir(save_images(tmp_path / "parts", ["1.png"]))
    assert open_dataset(".").name == "parts"


def test_mvtec_layout_with_its_masks(mvtec):
    dataset = open_dataset(str(mvtec))
    assert (dataset.name, dataset.layout) == ("bolt", "mvtec")
    assert counts(dataset.train) == {("good", OK): 2}
    assert counts(dataset.test) == {("good", OK): 1, ("crack", NG): 3}
    masks = {sample.image.name: sample.mask for sample in dataset.test if sample.label == NG}
    truth = mvtec / "ground_truth/crack"
    assert masks == {"000.png": truth / "000_mask.png", "001.jpg": truth / "001.png", "002.png": None}
    assert open_dataset(mvtec, normal="good") == dataset


@pytest.mark.parametrize("good", ["ok", "Normal", "GOOD"])
def test_mvtec_layout_with_other_words_for_good(tmp_path, good, save_images):
    save_images(tmp_path / "train" / good, ["0.png"])
    save_images(tmp_path / "test/oK", ["0.png"])
    save_images(tmp_path / "test/ko", ["0.png"])
    dataset = open_dataset(tmp_path)
    assert dataset.layout == "mvtec"
    assert counts(dataset.test) == {("oK", OK): 1, ("ko", NG): 1}


def test_mvtec_layout_without_test_images_yet(tmp_path, save_images):
    save_images(tmp_path / "train/good", ["0.png"])
    save_images(tmp_path / "test", [])
    dataset = open_dataset(tmp_path)
    assert len(dataset.train) == 1 and dataset.test == ()


def test_classes_on_their_native_split(split_classes):
    dataset = open_dataset(split_classes, normal="cat")
    assert dataset.layout == "classes"
    assert counts(dataset.train) == {("cat", OK): 3}
    assert counts(dataset.test) == {("cat", OK): 2, ("dog", NG): 2}
    assert "native split" in dataset.protocol and "cat" in dataset.protocol


def test_good_beside_bad_in_train_is_a_class_tree(tmp_path, save_images):
    # Not MVTec AD: its train/ holds good images only, and nobody may learn from bad/ by mistake.
    for folder in ("train/good", "train/bad", "test/good", "test/bad"):
        save_images(tmp_path / folder, ["0.png"])
    with pytest.raises(OkngError, match="which one is normal: bad, good"):
        open_dataset(tmp_path)
    assert counts(open_dataset(tmp_path, normal="good").train) == {("good", OK): 1}


def test_photographs_of_labels_beside_good_are_a_class_and_masks_there_are_not(put):
    """What a folder called labels/ holds is looked at wherever it lies."""
    folder = put(
        *(f"{part}/{kind}/{i}.png" for part in ("train", "test") for kind in ("good", "bad") for i in range(2))
    )
    shutil.rmtree(folder / "train/bad")
    put("+train/labels/0.png", "-train/labels/1.png")
    assert open_dataset(folder).layout == "mvtec"
    put("train/labels/0.png", "train/labels/1.png")
    with pytest.raises(OkngError, match="which one is normal: good, labels"):
        open_dataset(folder)


def test_classes_without_a_split_are_divided_by_seed_and_say_so(classes):
    dataset = open_dataset(classes, normal="obj2", seed=1)
    assert counts(dataset.train) == {("obj2", OK): 8}
    assert counts(dataset.test) == {("obj2", OK): 2, ("obj1", NG): 10, ("obj10", NG): 10}
    assert len({sample.image for sample in dataset.train + dataset.test}) == 30
    assert [s.image for s in dataset.train] == sorted(s.image for s in dataset.train)
    assert "80/20 by seed 1" in dataset.protocol
    assert open_dataset(classes, normal="obj2", seed=1) == dataset
    assert {open_dataset(classes, normal="obj2", seed=s).train for s in range(5)} > {dataset.train}


def test_classes_called_by_numbers_may_be_given_as_numbers(tmp_path, save_images):
    for kind in ("3", "5", "7"):
        save_images(tmp_path / kind, [f"{i}.png" for i in range(4)])
    three = open_dataset(tmp_path, normal="3")
    assert open_dataset(tmp_path, normal=3) == open_dataset(tmp_path, normal=np.int64(3)) == three
    assert open_dataset(tmp_path, normal=[3, 5]) == open_dataset(tmp_path, normal="3,5") != three
    assert open_dataset(tmp_path, abnormal=3) == open_dataset(tmp_path, abnormal="3")
    with pytest.raises(OkngError, match=r"has no class '3\.0'"):
        open_dataset(tmp_path, normal=3.0)
    for seed in (None, -1, 1.5):  # None would have drawn anew each time, and been called "seed None" in rows
        with pytest.raises(OkngError, match="a seed is from 0"):
            open_dataset(tmp_path, normal=3, seed=seed)


def test_class_folders_are_a_plain_folder_when_nobody_names_a_class(classes):
    dataset = open_dataset(classes)
    assert dataset.layout == "folder"
    assert list(counts(dataset.train)) == [("obj1", OK), ("obj2", OK), ("obj10", OK)]
    assert len(dataset.train) == 30 and dataset.test == ()


def test_a_local_folder_wins_over_a_builtin_name(tmp_path, monkeypatch, save_images):
    save_images(tmp_path / "elpv/mono", ["0.png"])
    monkeypatch.chdir(tmp_path)
    assert open_dataset("elpv/mono").layout == "folder"


def test_several_categories_are_named_not_mixed(mvtec):
    with pytest.raises(OkngError, match="give one of them: bolt"):
        open_dataset(mvtec.parent)


@pytest.mark.parametrize(
    ("files", "normal", "message"),
    [
        ([], None, "is empty; put images"),
        (["notes.txt"], None, "holds no images; give"),
        (["train/good/notes.txt", "test/good/0.png"], None, "train holds no images"),
        (["train/good/0.png", "test/0.png"], None, "test has images outside its class folders"),
        (["train/0.png", "test/0.png"], None, "train has images outside its class folders"),
        (["train/good/0.png", "test/good/0.png"], "cat", "leave normal='cat' out"),
        (["train/cat/0.png", "train/dog/0.png", "test/cat/0.png"], None, "which one is normal: cat, dog"),
        (["train/cat/0.png", "train/dog/0.png", "test/cat/0.png"], "dgo", "did you mean dog"),
        (["cat/0.png", "dog/0.png"], "cow", "no class 'cow'"),
        (["cat/0.png", "dog/0.png"], "cat", "one image; an 80/20 split takes two"),
        (["0.png", "1.png"], "cat", r"outside its class folders \(2\)"),
        (["test/good/0.png", "test/crack/0.png"], None, "no image that is surely OK: it has 2 images in test/; give a"),
        (["images/0.png", "ground_truth/0.png"], None, "has masks such as ground_truth/0.png, so not all"),
        (["0.png", "Label/0_label.png"], None, "has masks such as Label/0_label.png.* lay all out as MVTec AD"),
        (["good/0.png", "crack/0.png"], None, "other folders beside good/; give .*good to learn"),
    ],
)
def test_what_cannot_be_read_or_is_ambiguous_is_one_clear_line(tmp_path, files, normal, message):
    for file in files:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    with pytest.raises(OkngError, match=message) as caught:
        open_dataset(tmp_path, normal=normal)
    assert "\n" not in str(caught.value)


def test_a_path_that_is_missing_or_a_file(tmp_path, save_images):
    with pytest.raises(OkngError, match="nowhere does not exist; give a folder of images or one of elpv"):
        open_dataset(tmp_path / "nowhere")
    image = save_images(tmp_path, ["0.png"]) / "0.png"
    with pytest.raises(OkngError, match="is a file; give the folder"):
        open_dataset(image)
