"""Layouts that are not on every machine, on small files made exactly as their authors' are."""

import json
import os
import pickle
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from okng.datasets import NG, OK, describe, open_dataset
from okng.datasets.coco import _crop
from okng.errors import OkngError


def counts(samples):
    return dict(Counter((sample.kind, sample.label) for sample in samples))


def old_string(content: bytes) -> bytes:
    """A text as Python 2 pickles it."""
    short = len(content) < 256
    return (b"U" + bytes([len(content)]) if short else b"T" + len(content).to_bytes(4, "little")) + content


def old_pickle(content: dict) -> bytes:
    """A dictionary of lists, texts and one uint8 array, opcode by opcode as Python 2 and its NumPy wrote CIFAR's."""

    def number(value: int) -> bytes:
        return b"K" + bytes([value]) if value < 256 else b"M" + value.to_bytes(2, "little")

    def item(value: object) -> bytes:
        if isinstance(value, bytes):
            return old_string(value)
        if isinstance(value, int):
            return number(value)
        if isinstance(value, list):
            return b"](" + b"".join(item(one) for one in value) + b"e"
        assert isinstance(value, np.ndarray)
        kind = b"cnumpy\ndtype\n" + old_string(b"u1") + b"K\x00K\x01\x87R"
        kind += b"(K\x03" + old_string(b"|") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        shape = b"".join(number(side) for side in value.shape) + b"\x86"
        made = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + old_string(b"b") + b"\x87R"
        return made + b"(K\x01" + shape + kind + b"\x89" + old_string(value.tobytes()) + b"tb"

    pairs = b"".join(old_string(key) + item(value) for key, value in content.items())
    return b"\x80\x02}(" + pairs + b"u."


NAMES = [b"airplane", b"automobile", b"bird"]


def cifar_batch(first: int, write=old_pickle) -> bytes:
    """Four images of classes 2, 0, 1, 0: red is the image's number, green its row, blue its column."""
    y, x = np.mgrid[:32, :32].astype(np.uint8)
    data = np.stack([np.concatenate([np.full(1024, first + i, np.uint8), y.ravel(), x.ravel()]) for i in range(4)])
    labels = [2, 0, 1, 0]
    names = [b"a_s_%06d.png" % i for i in range(4)]
    return write({b"batch_label": b"one", b"labels": labels, b"data": data, b"filenames": names})


@pytest.fixture
def cifar10(tmp_path):
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    for i in range(1, 6):
        (folder / f"data_batch_{i}").write_bytes(cifar_batch(10 * i))
    (folder / "test_batch").write_bytes(cifar_batch(100))
    meta = {b"num_cases_per_batch": 4, b"label_names": NAMES, b"num_vis": 3072}
    (folder / "batches.meta").write_bytes(old_pickle(meta))
    return folder


def test_the_maker_of_old_pickles_writes_what_pickle_reads():
    content = pickle.loads(cifar_batch(7), encoding="bytes")
    assert content[b"labels"] == [2, 0, 1, 0]
    assert content[b"data"].shape == (4, 3072) and content[b"data"][3, 0] == 10


def test_cifar10_batches(cifar10):
    dataset = open_dataset(cifar10, normal="airplane")
    assert (dataset.name, dataset.layout) == ("cifar-10-batches-py", "cifar")
    assert [int(s.image[0, 0, 0]) for s in dataset.train] == [11, 13, 21, 23, 31, 33, 41, 43, 51, 53]
    image = dataset.train[0].image
    assert image.shape == (32, 32, 3) and image.dtype == np.uint8
    assert (image[:, :, 1] == np.arange(32)[:, None]).all() and (image[:, :, 2] == np.arange(32)).all()
    assert [(s.kind, s.label) for s in dataset.test] == [
        ("bird", NG), ("airplane", OK), ("automobile", NG), ("airplane", OK)
    ]  # fmt: skip
    assert counts(dataset.ng) == {("automobile", NG): 5, ("bird", NG): 5}
    with pytest.raises(OkngError, match="which one is normal: airplane, automobile, bird"):
        open_dataset(cifar10)


def test_cifar10_batches_written_again_by_python_3(cifar10):
    for path in cifar10.glob("*_batch*"):
        again = pickle.loads(path.read_bytes(), encoding="bytes")
        path.write_bytes(pickle.dumps({key.decode(): value for key, value in again.items()}, protocol=4))
    assert len(open_dataset(cifar10, normal="bird").train) == 5


def test_cifar100(tmp_path):
    for name in ("train", "test"):
        content = pickle.loads(cifar_batch(0), encoding="bytes")
        content[b"fine_labels"], content[b"coarse_labels"] = content.pop(b"labels"), [0, 0, 0, 0]
        (tmp_path / name).write_bytes(old_pickle(content))
    meta = {b"fine_label_names": [b"apple", b"bee", b"cup"], b"coarse_label_names": [b"things"]}
    (tmp_path / "meta").write_bytes(old_pickle(meta))
    assert counts(open_dataset(tmp_path, normal="apple").test) == {("apple", OK): 2, ("bee", NG): 1, ("cup", NG): 1}


class Attack:
    def __reduce__(self):
        return os.mkdir, ("attacked",)


class Eval:
    def __reduce__(self):
        return eval, ("__import__('os').mkdir('attacked')",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (pickle.dumps(Attack(), protocol=2), "asks for .*mkdir: don't trust it"),
        (pickle.dumps({b"data": Eval()}, protocol=4), "asks for builtins.eval"),
        (b"cnumpy\nload\n.", "asks for numpy.load"),
        (b"cnumpy\nndarray\n)R.", "cannot be read"),
        # An array of objects whose bytes would be taken as addresses, were NumPy to build it.
        (
            b"\x80\x02}(U\x04datacnumpy.core.multiarray\n_reconstruct\n)R(K\x01K\x01\x85cnumpy\ndtype\nU\x02O8\x85R\x89"
            b"U\x08AAAAAAAAtbU\x06labels](K\x00eu.",
            "no 32 × 32 images",
        ),
        (cifar_batch(0)[:-200], "cannot be read"),
        (b"", "cannot be read"),
        (old_pickle({b"labels": [1]}), "has no data"),
        (old_pickle({b"labels": [1], b"data": np.zeros((1, 3071), np.uint8)}), "no 32 × 32 images"),
        (old_pickle({b"labels": [1, 2], b"data": np.zeros((1, 3072), np.uint8)}), "no 32 × 32 images"),
        (old_pickle({b"labels": [3], b"data": np.zeros((1, 3072), np.uint8)}), "labels without a name"),
        (None, "lacks data_batch_3"),
    ],
)
def test_a_pickle_that_is_no_batch_is_one_clear_line_and_runs_nothing(cifar10, monkeypatch, content, message):
    monkeypatch.chdir(cifar10)
    (cifar10 / "data_batch_3").unlink()
    if content is not None:
        (cifar10 / "data_batch_3").write_bytes(content)
    with pytest.raises(OkngError, match=message) as caught:
        open_dataset(cifar10, normal="bird")
    assert "\n" not in str(caught.value)
    assert not (cifar10 / "attacked").exists()


def test_coil_as_downloaded(tmp_path, save_images):
    for number in (1, 2, 10):
        save_images(tmp_path, [f"obj{number}__{view}.png" for view in range(0, 50, 5)])
    dataset = open_dataset(tmp_path, normal="obj2")
    assert dataset.layout == "coil"
    assert counts(dataset.train) == {("obj2", OK): 8}
    assert counts(dataset.test) == {("obj2", OK): 2, ("obj1", NG): 10, ("obj10", NG): 10}
    assert len(open_dataset(tmp_path).train) == 30  # nobody named a class: a plain folder


@pytest.fixture
def dagm(tmp_path, save_images):
    root = tmp_path / "DAGM"
    for part, first in (("Train", 0), ("Test", 10)):
        save_images(root / "Class1" / part, [f"{first + i:04}.PNG" for i in range(4)])
        save_images(root / "Class1" / part / "Label", [f"{first + 1:04}_label.PNG"])
        (root / "Class1" / part / "Label" / "Labels.txt").write_text("1\n")
    save_images(root / "Class10/Test/Label", [])
    return root


def test_dagm(dagm):
    dataset = open_dataset(dagm / "Class1")
    assert (dataset.name, dataset.layout) == ("Class1", "dagm")
    assert counts(dataset.train) == {("good", OK): 3}
    assert counts(dataset.ng) == {("defect", NG): 1}
    assert counts(dataset.test) == {("good", OK): 3, ("defect", NG): 1}
    (odd,) = [sample for sample in dataset.test if sample.label == NG]
    assert odd.image.name == "0011.PNG" and odd.mask.name == "0011_label.PNG"
    with pytest.raises(OkngError, match="give one of them: Class1, Class10"):
        open_dataset(dagm)
    with pytest.raises(OkngError, match="lacks Train/"):
        open_dataset(dagm / "Class10")
    with pytest.raises(OkngError, match="leave normal='good' out"):
        open_dataset(dagm / "Class1", normal="good")


def test_nanotwice(tmp_path, save_images):
    save_images(tmp_path / "Normal", [f"N{i}.tif" for i in range(5)])
    save_images(tmp_path / "Anomalous/images", ["A1.tif", "A2.tif"])
    save_images(tmp_path / "Anomalous/gt", ["A1_gt.png"])
    dataset = open_dataset(tmp_path)
    assert dataset.layout == "nanotwice"
    assert counts(dataset.train) == {("normal", OK): 5}
    assert [(s.label, s.mask and s.mask.name) for s in dataset.test] == [(NG, "A1_gt.png"), (NG, None)]
    with pytest.raises(OkngError, match="its protocol is native; leave '80/20' out"):
        open_dataset(tmp_path, protocol="80/20")


@pytest.fixture
def shanghaitech(tmp_path, save_images):
    for clip, count in (("01_001", 3), ("02_001", 2)):
        save_images(tmp_path / "training/frames" / clip, [f"{i:03}.jpg" for i in range(count)])
    (tmp_path / "testing/test_frame_mask").mkdir(parents=True)
    for clip, labels in (("01_0014", [0, 1, 1, 0]), ("01_0015", [0, 0])):
        save_images(tmp_path / "testing/frames" / clip, [f"{i:03}.jpg" for i in range(len(labels))])
        np.save(tmp_path / "testing/test_frame_mask" / f"{clip}.npy", np.array(labels, np.int8))
    return tmp_path


def test_shanghaitech(shanghaitech):
    dataset = open_dataset(shanghaitech)
    assert (dataset.layout, len(dataset.train)) == ("shanghaitech", 5)
    assert [s.label for s in dataset.test] == [OK, NG, NG, OK, OK, OK]
    assert counts(dataset.test) == {("01_0014", OK): 2, ("01_0014", NG): 2, ("01_0015", OK): 2}


def test_shanghaitech_damaged(shanghaitech):
    labels = shanghaitech / "testing/test_frame_mask/01_0014.npy"
    np.save(labels, np.array([0, 1]))
    with pytest.raises(OkngError, match="labels 2 frames but the clip has 4"):
        open_dataset(shanghaitech)
    np.save(labels, np.array([{}, 1, 2, 3], object), allow_pickle=True)
    with pytest.raises(OkngError, match=r"01_0014\.npy cannot be read"):
        open_dataset(shanghaitech)
    labels.unlink()
    with pytest.raises(OkngError, match="is missing; it says which frames"):
        open_dataset(shanghaitech)
    (shanghaitech / "training/frames").rename(shanghaitech / "training/videos")
    with pytest.raises(OkngError, match="has no frames/; take them out of its videos"):
        open_dataset(shanghaitech)


@pytest.fixture
def coco(tmp_path):
    """24 cats and 3 dogs, each a white square on a red ground, and objects that do not fit."""
    root = tmp_path / "coco"
    (root / "val2017").mkdir(parents=True)
    (root / "annotations").mkdir()
    (root / "annotations/captions_val2017.json").write_text("{}")
    images, annotations = [], []

    def add(category, x, y, width, height, **more):
        corners = [x + 10, y + 10, x + width - 10, y + 10, x + width - 10, y + height - 10, x + 10, y + height - 10]
        annotations.append(
            {"id": 900 - len(annotations), "image_id": len(images) - 1, "category_id": category, "iscrowd": 0,
             "bbox": [x, y, width, height], "segmentation": [corners], **more}
        )  # fmt: skip

    for i in range(27):
        picture = np.full((120, 200, 3), (200, 10, 10), np.uint8)
        picture[30:80, 40:90] = 255 - i
        Image.fromarray(picture).save(root / f"val2017/{i:012}.jpg", quality=95)
        images.append({"id": i, "file_name": f"{i:012}.jpg", "width": 200, "height": 120})
        add(17 if i < 24 else 18, 30.2, 20.4, 70, 70)
    add(17, 0, 0, 49, 60)  # too small
    add(17, 0, 0, 120, 55)  # too long
    add(17, 0, 0, 60, 60, iscrowd=1, segmentation={"counts": [1, 2], "size": [120, 200]})
    add(17, 0, 0, 60, 60, segmentation={"counts": "abc", "size": [120, 200]})
    add(1, 0, 0, 60, 60)  # a person
    add(17, 0, 0, 60, 60, image_id=999)  # of no image
    add(17, 0, 0, 60, 60, segmentation=[[1, 1, 50, 1, 50]])  # half a point
    add(17, 0, 0, 60, 60, segmentation=[[5, 5]])  # no outline
    add(17, 0, 0, 60, 60, segmentation=[])  # none at all
    categories = [{"id": 1, "name": "person"}, {"id": 17, "name": "cat"}, {"id": 18, "name": "dog"}]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (root / "annotations/instances_val2017.json").write_text(json.dumps(content))
    (root / "annotations/instances_train2017.json").write_text("{}")  # without its images: not taken
    return root


def test_coco_crops(coco):
    dataset = open_dataset(coco, normal="cat", seed=2)
    assert dataset.layout == "coco"
    assert counts(dataset.train) == {("cat", OK): 22}
    assert counts(dataset.test) == {("cat", OK): 2}  # 24 // 11; three dogs are too few to test
    assert "val2017, original version, drawn by seed 2: cat 24, dog 3." in dataset.protocol
    image = dataset.train[0].image
    assert image.shape == (32, 32, 3) and image.dtype == np.uint8
    assert (abs(image[0, 0].astype(int) - (200, 10, 10)) < 8).all()  # the ground
    assert (image[8:24, 8:24] > 215).all()


def test_coco_crops_without_background(coco):
    original = open_dataset(coco, normal="cat")
    masked = open_dataset(coco / "masked", normal="cat")
    assert "masked version" in masked.protocol
    for plain, black in zip(original.train, masked.train, strict=True):  # the same objects in the same order
        assert (black.image[0] == 0).all() and (black.image[:, 0] == 0).all()
        assert (black.image[8:24, 8:24] == plain.image[8:24, 8:24]).all()
    assert len(open_dataset(coco / "original", normal="cat").train) == 22


def test_another_set_in_that_format_has_classes_of_its_own(coco):
    instances = coco / "annotations/instances_val2017.json"
    content = json.loads(instances.read_text())
    content["categories"] = [{"id": 1, "name": "bolt"}, {"id": 17, "name": "nut"}, {"id": 18, "name": "washer"}]
    instances.write_text(json.dumps(content))
    assert counts(open_dataset(coco, normal="nut").train) == {("nut", OK): 22}


def test_coco_crops_are_the_boxes(coco):
    """Rounded to pixels, of whatever aspect, and the outline at its place."""
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (140, 120, 3), np.uint8))
    one = {"bbox": [10.4, 20.6, 60, 90], "segmentation": [[10.4, 20.6, 70.4, 20.6, 70.4, 60.6, 10.4, 60.6]]}
    wanted = np.asarray(picture.crop((10, 21, 70, 111)).resize((32, 32), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(_crop(picture, one, "original"), wanted)
    masked = _crop(picture, one, "masked")
    np.testing.assert_array_equal(masked[:12], wanted[:12])  # four ninths of the box are the object's
    assert not masked[17:].any()


def test_coco_draws_the_same_objects_whatever_their_order_in_the_file(coco, monkeypatch):
    instances = coco / "annotations/instances_val2017.json"
    content = json.loads(instances.read_text())
    images = [sample.image for sample in open_dataset(coco, normal="cat", seed=1).train]
    instances.write_text(json.dumps({**content, "annotations": content["annotations"][::-1]}))
    again = [sample.image for sample in open_dataset(coco, normal="cat", seed=1).train]
    np.testing.assert_array_equal(images, again)
    of_cats = [one for one in content["annotations"] if one["category_id"] == 17]
    instances.write_text(json.dumps({**content, "annotations": of_cats[3:]}))  # 21 fit
    assert counts(open_dataset(coco, normal="cat").test) == {("cat", OK): 1}  # one in eleven
    instances.write_text(json.dumps(content))
    for name, value in (("TRAIN", 17), ("TEST", 5)):
        monkeypatch.setattr(f"okng.datasets.coco.{name}", value)
    dataset = open_dataset(coco, normal="cat")  # of 24 so many as are wanted
    assert counts(dataset.train) == {("cat", OK): 17} and counts(dataset.test) == {("cat", OK): 5}


def test_coco_without_outlines(coco):
    instances = coco / "annotations/instances_val2017.json"
    content = json.loads(instances.read_text())
    for one in content["annotations"]:
        one["segmentation"] = []
    instances.write_text(json.dumps(content))
    with pytest.raises(OkngError, match=r"has no object to crop; give single ones, outlined by polygons"):
        open_dataset(coco, normal="cat")


def test_coco_damaged(coco):
    instances = coco / "annotations/instances_val2017.json"
    content = instances.read_text()
    instances.write_text(content.replace("bbox", "box"))
    with pytest.raises(OkngError, match="not COCO's"):
        open_dataset(coco, normal="cat")
    for whole, torn in (('"images"', '"pictures"'), ('"file_name"', '"name"')):
        instances.write_text(content.replace(whole, torn))
        with pytest.raises(OkngError, match="not COCO's"):
            open_dataset(coco, normal="cat")
    instances.write_text(content[:100])
    with pytest.raises(OkngError, match="cannot be read"):
        open_dataset(coco, normal="cat")
    (coco / "val2017").rename(coco / "images")
    with pytest.raises(OkngError, match="put train2017/ or val2017/ beside annotations/"):
        open_dataset(coco, normal="cat")


def test_every_layout_can_be_described(cifar10, dagm):
    assert describe(open_dataset(cifar10, normal="bird"))[0]["sizes"] == "32×32"
    assert [row["masks"] for row in describe(open_dataset(dagm / "Class1"))] == [0, 1, 0]
