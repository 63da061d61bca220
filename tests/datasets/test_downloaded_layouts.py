"""Data sets in the layouts their authors give them, on small trees of the same names."""

import json
from collections import Counter

import pytest

import okng
from okng.benchmark.evaluation import evaluate_inspector
from okng.cli.list_ import DATASETS
from okng.datasets import NG, OK, describe, open_dataset
from okng.datasets.detect import LAYOUTS
from okng.datasets.masks import read_mask
from okng.datasets.protocols import MVTEC_LAYOUTS
from okng.errors import OkngError


def counts(samples):
    return dict(Counter((sample.kind, sample.label) for sample in samples))


def masks(dataset):
    """The masks' paths below the set, by image."""
    found = {}
    for sample in dataset.test:
        several = () if sample.mask is None else sample.mask if isinstance(sample.mask, tuple) else (sample.mask,)
        found["/".join(sample.image.parts[-3:])] = ["/".join(mask.parts[-2:]) for mask in several]
    return found


VISA = ("object,split,label,image,mask\n"
    "candle,train,normal,candle/Data/Images/Normal/0000.JPG,\n"
    "candle,train,normal,candle/Data/Images/Normal/0001.JPG,\n"
    "candle,test,normal,candle/Data/Images/Normal/0002.JPG,\n"
    "candle,test,anomaly,candle/Data/Images/Anomaly/000.JPG,candle/Data/Masks/Anomaly/000.png\n"
    "pcb1,train,normal,pcb1/Data/Images/Normal/0000.JPG,\n")  # fmt: skip


@pytest.fixture
def visa(put):
    root = put(
        *(f"candle/Data/Images/Normal/{i:04}.JPG" for i in range(3)), "candle/Data/Images/Anomaly/000.JPG",
        "+candle/Data/Masks/Anomaly/000.png", "pcb1/Data/Images/Normal/0000.JPG", "pcb1/Data/Images/Anomaly/000.JPG",
    )  # fmt: skip
    (root / "split_csv").mkdir()
    (root / "split_csv/1cls.csv").write_text(VISA)
    (root / "split_csv/2cls_fewshot.csv").write_text("object,split,label,image,mask\n")
    return root


def test_visa(visa):
    dataset = open_dataset(visa / "candle")
    assert dataset.layout == "visa" and "split_csv/1cls.csv" in dataset.protocol
    assert counts(dataset.train) == {("normal", OK): 2}
    assert counts(dataset.test) == {("normal", OK): 1, ("anomaly", NG): 1}
    assert masks(dataset) == {"Images/Normal/0002.JPG": [], "Images/Anomaly/000.JPG": ["Anomaly/000.png"]}
    with pytest.raises(OkngError, match="holds whole data sets; give one of them: candle, pcb1"):
        open_dataset(visa)


def test_visa_without_its_split_is_divided_by_seed_and_says_so(visa):
    (visa / "split_csv/1cls.csv").unlink()
    dataset = open_dataset(visa / "candle", seed=3)
    assert "80/20 by seed 3, for want of split_csv/1cls.csv" in dataset.protocol
    assert counts(dataset.train) == {("normal", OK): 2} and counts(dataset.test)[("anomaly", NG)] == 1
    assert ["Anomaly/000.png"] in masks(dataset).values()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("split,", "part,", "can't be read as VisA's split"),
        ("0001.JPG", "0009.JPG", "0009.JPG is missing but named in"),
        ("train,normal", "train,anomaly", "has 2 NG images for training"),
        ("candle,train", "capsules,train", "has no candle images for training"),
    ],
)
def test_visa_with_another_split_file_is_refused(visa, old, new, message):
    (visa / "split_csv/1cls.csv").write_text(VISA.replace(old, new))
    with pytest.raises(OkngError, match=message):
        open_dataset(visa / "candle")


def test_visa_in_mvtecs_form(put):
    root = put("train/good/0.JPG", "test/good/1.JPG", "test/bad/000.JPG", "+ground_truth/bad/000.png")
    dataset = open_dataset(root)
    assert (dataset.layout, counts(dataset.test)) == ("mvtec", {("good", OK): 1, ("bad", NG): 1})
    assert masks(dataset)["test/bad/000.JPG"] == ["bad/000.png"]


def test_mvtec_loco(put):
    root = put(
        "train/good/000.png", "train/good/001.png", "validation/good/000.png", "test/good/000.png",
        "test/logical_anomalies/000.png", "test/structural_anomalies/000.png", "test/structural_anomalies/001.png",
        "+ground_truth/logical_anomalies/000/000.png", "+ground_truth/logical_anomalies/000/001.png",
        "+ground_truth/structural_anomalies/000/000.png", "+ground_truth/structural_anomalies/001/000.png",
    )  # fmt: skip
    config = [
        {"defect_name": "missing_bolt", "pixel_value": 255, "saturation_threshold": 0.5, "relative_saturation": True}
    ]
    (root / "defects_config.json").write_text(json.dumps(config))
    dataset = open_dataset(root)
    assert dataset.layout == "mvtec-loco"
    assert counts(dataset.train) == {("good", OK): 2}
    assert counts(dataset.test) == {("good", OK): 1, ("logical_anomalies", NG): 1, ("structural_anomalies", NG): 2}
    assert masks(dataset)["test/logical_anomalies/000.png"] == ["000/000.png", "000/001.png"]
    assert masks(dataset)["test/structural_anomalies/001.png"] == ["001/000.png"]
    assert dataset.protocol.endswith("of sPRO, is not used. Left out: 1 image in validation/.")


def test_mvtec_ad_2(put):
    root = put(
        "train/good/000_regular.png", "validation/good/000_regular.png", "test_public/good/000_regular.png",
        "test_public/bad/000_regular.png", "+test_public/ground_truth/bad/000_regular_mask.png",
        "test_private/000_regular.png", "test_private_mixed/000_mixed.png",
    )  # fmt: skip
    dataset = open_dataset(root)
    assert dataset.layout == "mvtec-ad-2"
    assert counts(dataset.train) == {("good", OK): 1}
    assert counts(dataset.test) == {("good", OK): 1, ("bad", NG): 1}
    assert masks(dataset)["test_public/bad/000_regular.png"] == ["bad/000_regular_mask.png"]
    for part in ("test_private", "test_private_mixed", "validation"):
        assert f"1 image in {part}/" in dataset.protocol
    with pytest.raises(OkngError, match="give one of them: can"):
        root.rename(root.with_name("can"))
        open_dataset(root.parent)


def test_mvtec_3d(put):
    root = put(
        "calibration/camera.png", "train/good/rgb/000.png", "train/good/xyz/000.tiff", "validation/good/rgb/000.png",
        "validation/good/xyz/000.tiff", "-validation/good/gt/000.png", "test/good/rgb/000.png",
        "test/good/xyz/000.tiff", "-test/good/gt/000.png", "test/hole/rgb/000.png", "test/hole/xyz/000.tiff",
        "+test/hole/gt/000.png",
    )  # fmt: skip
    dataset = open_dataset(root)
    assert dataset.layout == "mvtec-3d" and "rgb/ alone" in dataset.protocol
    assert [sample.image.parent.name for sample in dataset.train] == ["rgb"]
    assert counts(dataset.test) == {("good", OK): 1, ("hole", NG): 1}
    assert masks(dataset) == {"good/rgb/000.png": [], "hole/rgb/000.png": ["gt/000.png"]}


def test_btad_and_mpdd(put):
    root = put(
        "01/train/ok/0000.bmp", "01/test/ok/0001.bmp", "01/test/ko/0002.bmp", "+01/ground_truth/ko/0002.png",
        "metal_plate/train/good/000.png", "metal_plate/test/good/001.png", "metal_plate/test/scratches/000.png",
        "+metal_plate/ground_truth/scratches/000_mask.png",
    )  # fmt: skip
    btad, mpdd = open_dataset(root / "01"), open_dataset(root / "metal_plate")
    assert (btad.layout, mpdd.layout) == ("mvtec", "mvtec")
    assert counts(btad.train) == {("ok", OK): 1} and counts(btad.test) == {("ko", NG): 1, ("ok", OK): 1}
    assert masks(btad)["test/ko/0002.bmp"] == ["ko/0002.png"]
    assert masks(mpdd)["test/scratches/000.png"] == ["scratches/000_mask.png"]


def test_bmad(put):
    root = put(
        "train/good/1.png", "valid/good/img/2.png", "-valid/good/label/2.png", "valid/Ungood/img/3.png",
        "+valid/Ungood/label/3.png", "test/good/img/4.png", "-test/good/label/4.png", "test/Ungood/img/5.png",
        "+test/Ungood/label/5.png",
    )  # fmt: skip
    dataset = open_dataset(root)
    assert dataset.layout == "bmad"
    assert counts(dataset.train) == {("good", OK): 1}
    assert counts(dataset.test) == {("good", OK): 1, ("Ungood", NG): 1}  # no mask is a part
    assert masks(dataset) == {"good/img/4.png": [], "Ungood/img/5.png": ["label/5.png"]}
    assert "Left out: 2 images in valid/." in dataset.protocol


def test_kolektor_sdd(put):
    names = []
    for i in range(1, 6):
        names += [
            f"kos{i:02}/Part0.jpg",
            f"-kos{i:02}/Part0_label.bmp",
            f"kos{i:02}/Part1.jpg",
            f"+kos{i:02}/Part1_label.bmp",
        ]
    dataset = open_dataset(put(*names), seed=1)
    assert dataset.layout == "kolektorsdd" and "By seed 1" in dataset.protocol
    assert counts(dataset.train) == {("good", OK): 4}
    assert counts(dataset.test) == {("good", OK): 1, ("defect", NG): 5}
    ok = {sample.image.parent for sample in dataset.test if sample.label == OK}
    assert ok.isdisjoint(sample.image.parent for sample in dataset.train)  # a commutator's OK parts are on one side
    assert masks(dataset)[next(name for name in masks(dataset) if "kos03/Part1" in name)] == ["kos03/Part1_label.bmp"]


def test_kolektor_sdd2(put):
    dataset = open_dataset(
        put(
            "train/10000.png",
            "-train/10000_GT.png",
            "train/10001.png",
            "+train/10001_GT.png",
            "test/20000.png",
            "-test/20000_GT.png",
            "test/20001.png",
            "+test/20001_GT.png",
        )
    )
    assert dataset.layout == "kolektorsdd2"
    assert [sample.image.name for sample in dataset.train] == ["10000.png"]
    assert [sample.image.name for sample in dataset.ng] == ["10001.png"]
    assert counts(dataset.test) == {("good", OK): 1, ("defect", NG): 1}
    assert [sample.mask.name for sample in dataset.test if sample.mask] == ["20001_GT.png"]


def test_magnetic_tile_as_downloaded(put):
    names = ["MT_Blowhole/Imgs/exp1_num_9.jpg", "+MT_Blowhole/Imgs/exp1_num_9.png"]
    for i in range(5):
        names += [f"MT_Free/Imgs/exp1_num_{i}.jpg", f"-MT_Free/Imgs/exp1_num_{i}.png"]
    dataset = open_dataset(put(*names))
    assert dataset.layout == "magnetic-tile"
    assert counts(dataset.train) == {("good", OK): 4}
    assert counts(dataset.test) == {("good", OK): 1, ("blowhole", NG): 1}
    assert dataset.test[-1].mask.name == "exp1_num_9.png"


@pytest.fixture(params=["realiad_jsons", "realiad_jsons/realiad_jsons"])
def real_iad(put, request):
    ok, ng = "OK/S0001/audiojack_0001_OK_C1_20231021130716.jpg", "NG/BX/S0002/audiojack_0002_NG_BX_C1_20231021130716"
    other = "OK/S0003/audiojack_0003_OK_C1_20231021130716.jpg"
    root = put(*(f"realiad_256/audiojack/{name}" for name in (ok, f"{ng}.jpg", f"+{ng}_mask.png"[1:], other)))
    put(f"+realiad_256/audiojack/{ng}_mask.png")
    entry = {"category": "audiojack", "mask_path": None}
    content = {
        "meta": {"normal_class": "OK", "prefix": "audiojack/"},
        "train": [{**entry, "anomaly_class": "OK", "image_path": ok}],
        "test": [
            {**entry, "anomaly_class": "OK", "image_path": other},
            {**entry, "anomaly_class": "BX", "image_path": f"{ng}.jpg", "mask_path": f"{ng}_mask.png"},
        ],
    }
    (root / request.param).mkdir(parents=True)
    (root / request.param / "audiojack.json").write_text(json.dumps(content))
    return root


def test_real_iad(real_iad):
    dataset = open_dataset(real_iad / "realiad_256/audiojack")
    assert dataset.layout == "real-iad" and "realiad_jsons/audiojack.json" in dataset.protocol
    assert counts(dataset.train) == {("OK", OK): 1}
    assert counts(dataset.test) == {("OK", OK): 1, ("BX", NG): 1}
    assert dataset.test[1].mask.name == "audiojack_0002_NG_BX_C1_20231021130716_mask.png"
    with pytest.raises(OkngError, match="give one of them: realiad_256/audiojack"):
        open_dataset(real_iad)


def test_another_json_file_beside_ok_and_ng_is_not_real_iads(put):
    root = put("lot/OK/1.png", "lot/NG/2.png")
    (root / "lot.json").write_text("{}")
    dataset = open_dataset(root / "lot")
    assert dataset.layout == "folder" and len(dataset.train) == 1


def test_real_iad_damaged(real_iad):
    path = next(real_iad.rglob("audiojack.json"))
    content = path.read_text()
    for spoilt, message in (
        (content.replace("normal_class", "normal"), "can't be read as Real-IAD's"),
        (content[:50], "can't be read as Real-IAD's"),
        (content.replace("S0003/", "S0009/"), "is missing but named in the JSON file"),
        (content.replace('"anomaly_class": "OK"', '"anomaly_class": "AK"'), "no OK image for training"),
    ):
        path.write_text(spoilt)
        with pytest.raises(OkngError, match=message):
            open_dataset(real_iad / "realiad_256/audiojack")


def test_masks_with_other_names_and_folders(put):
    root = put(
        "train/good/1.png",
        "test/good/1.png",
        "test/crack/1.png",
        "test/crack/2.png",
        "test/crack/3.png",
        "test/hole/1.png",
    )
    put("+Ground_Truth/Crack/1_gt.png", "+Ground_Truth/Crack/2_MASK.jpg", "+Ground_Truth/Crack/3.png.png")
    found = masks(open_dataset(root))
    assert [found[f"test/crack/{i}.png"] for i in (1, 2, 3)] == [
        ["Crack/1_gt.png"],
        ["Crack/2_MASK.jpg"],
        ["Crack/3.png.png"],
    ]
    put("+Ground_Truth/Hole/other_mask.png")
    assert "1 mask matches no image." in open_dataset(root).protocol


def test_masks_of_which_none_matches_are_refused_with_what_to_do(put):
    root = put(
        "train/good/1.png",
        "test/crack/1.png",
        "test/crack/2.png",
        *(f"+ground_truth/crack/m{i}.png" for i in range(12)),
    )
    with pytest.raises(OkngError, match=r"12 files in .*ground_truth/crack match no image; call them NAME_mask\.png"):
        open_dataset(root)


def test_masks_of_a_kind_that_is_called_otherwise_are_refused_too(put):
    root = put("train/good/1.png", "test/cracks/1.png", "test/holes/1.png", "+ground_truth/crack/1_mask.png")
    with pytest.raises(OkngError, match=r"1 file in .*ground_truth/crack match no image"):
        open_dataset(root)


def test_what_looks_like_ng_or_a_mask_in_train_good_is_not_learnt(put):
    root = put(
        "train/good/1.png", "train/good/2.png", "+train/good/2_mask.png", "train/good/NG/3.png", "test/good/1.png"
    )
    dataset = open_dataset(root)
    assert [sample.image.name for sample in dataset.train] == ["1.png"]
    assert "In train/good: Left out: 1 image in NG/, 1 mask beside images (2_mask.png), 1 image" in dataset.protocol


def test_a_mask_in_a_test_folder_is_no_part(put):
    root = put(
        "train/good/1.png", "test/good/img/1.png", "-test/good/label/1.png", "test/crack/1.png", "+test/crack/gt/1.png"
    )
    dataset = open_dataset(root)
    assert counts(dataset.test) == {("good", OK): 1, ("crack", NG): 1}
    assert masks(dataset)["test/crack/1.png"] == ["gt/1.png"]


def test_what_is_not_known_names_the_two_ways_out(put):
    root = put("trainset/1.png", "testset/1.png", "+annotations/1.png")
    with pytest.raises(
        OkngError, match="give a plain folder of OK images, or lay all out as MVTec AD: train/good, test/KIND"
    ):
        open_dataset(root)


def test_evaluation_on_masks_in_several_files_and_beside_their_images(put):
    root = put(
        *(f"loco/train/good/{i}.png" for i in range(4)), "loco/test/good/0.png", "loco/test/logical_anomalies/0.png",
        "+loco/ground_truth/logical_anomalies/0/000.png", "-loco/ground_truth/logical_anomalies/0/001.png",
        "ksdd2/train/1.png", "-ksdd2/train/1_GT.png", "ksdd2/test/2.png", "-ksdd2/test/2_GT.png", "ksdd2/test/3.png",
        "+ksdd2/test/3_GT.png",
    )  # fmt: skip
    loco, ksdd2 = open_dataset(root / "loco"), open_dataset(root / "ksdd2")
    inspector = okng.fit([sample.image for sample in loco.train], "autoencoder", size=32, epochs=1)
    for dataset in (loco, ksdd2):
        assert sum(row["masks"] for row in describe(dataset)) == 1
        figures = evaluate_inspector(inspector, dataset)
        assert (figures["n_ok"], figures["n_ng"]) == (1, 1)
        assert 0 <= figures["aupro"] <= 1 and 0 <= figures["pixel_auroc"] <= 1
    assert read_mask(loco.test[1].mask).sum() == 144


def test_every_layout_is_listed():
    listed = {name for names in DATASETS for name in names.split(", ")}
    assert {layout.name for layout in LAYOUTS} <= listed
    kin = {
        "mvtec": "MVTec AD layout",
        "mvtec-loco": "MVTec LOCO",
        "mvtec-ad-2": "AD 2",
        "mvtec-3d": "3D-AD",
        "bmad": "BMAD",
    }
    assert set(kin) == set(MVTEC_LAYOUTS) and set(kin.values()) <= listed
