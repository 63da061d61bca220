import numpy as np

from okng.datasets import Dataset, Sample, describe, open_dataset


def test_one_row_per_split_and_kind(mvtec):
    assert describe(open_dataset(mvtec)) == [
        {"split": "train", "kind": "good", "ok": 2, "ng": 0, "masks": 0, "unreadable": 0, "sizes": "8×6"},
        {"split": "test", "kind": "crack", "ok": 0, "ng": 3, "masks": 2, "unreadable": 0, "sizes": "8×6"},
        {"split": "test", "kind": "good", "ok": 1, "ng": 0, "masks": 0, "unreadable": 0, "sizes": "8×6"},
    ]


def test_sizes_are_the_smallest_and_the_largest_by_area(tmp_path, save_images):
    for number, size in enumerate([(20, 30), (500, 2), (3, 90), (40, 30)]):
        save_images(tmp_path, [f"{number}.png"], size)
    (row,) = describe(open_dataset(tmp_path))
    assert row["sizes"] == "3×90 … 40×30"


def test_unreadable_files_are_counted_not_fatal(tmp_path, save_images):
    save_images(tmp_path, ["0.png"])
    (tmp_path / "1.png").touch()
    (tmp_path / "2.png").write_text("not an image")
    (tmp_path / "3.png").write_bytes((tmp_path / "0.png").read_bytes()[:20])
    (row,) = describe(open_dataset(tmp_path))
    assert (row["ok"], row["unreadable"], row["sizes"]) == (4, 3, "8×6")
    (tmp_path / "0.png").unlink()
    assert describe(open_dataset(tmp_path))[0]["sizes"] == ""


def test_pixels_in_memory():
    samples = (Sample(np.zeros((6, 8), np.uint8)), Sample(np.zeros((6, 9, 3), np.uint8)))
    (row,) = describe(Dataset("x", "idx", "", train=(), test=samples))
    assert (row["ok"], row["ng"], row["sizes"]) == (0, 0, "8×6 … 9×6")


def test_classes_are_listed_in_natural_order_however_they_come():
    samples = tuple(Sample(np.zeros((28, 28), np.uint8), 1, kind) for kind in ("10", "7", "2", "7"))
    rows = describe(Dataset("x", "idx", "", train=(), test=samples))
    assert [(row["kind"], row["ng"]) for row in rows] == [("2", 1), ("7", 2), ("10", 1)]
