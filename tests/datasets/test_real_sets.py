"""The counts of real data sets, as a check of the layouts as they are found in the wild."""

from importlib.util import find_spec
from pathlib import Path

import pytest

from okng.datasets import describe, open_dataset
from okng.errors import OkngError

pytestmark = pytest.mark.real_data


def totals(dataset):
    """Training images; test images that are OK, that are NG, and that have a mask."""
    test = [row for row in describe(dataset) if row["split"] == "test"]
    return (len(dataset.train), *(sum(row[column] for row in test) for column in ("ok", "ng", "masks")))


def real(folder: Path) -> Path:
    if not folder.is_dir():
        pytest.skip(f"{folder} is missing")
    return folder


def test_magnetic_tile(okng_data):
    dataset = open_dataset(real(okng_data / "magnetic_tile"))
    assert totals(dataset) == (761, 191, 392, 392)
    ng = {row["kind"]: row["ng"] for row in describe(dataset) if row["ng"]}
    assert ng == {"blowhole": 115, "break": 85, "crack": 57, "fray": 32, "uneven": 103}
    assert "…" in describe(dataset)[0]["sizes"]


def test_mvtec_transistor(okng_data):
    root = real(okng_data / "mvtec_ad/transistor")
    dataset = open_dataset(root)
    assert totals(dataset) == (213, 60, 40, 40)
    assert {row["sizes"] for row in describe(dataset)} == {"320×320"}
    with pytest.raises(OkngError, match="give one of them: transistor"):
        open_dataset(root.parent)


def test_mnist(okng_data):
    dataset = open_dataset(real(okng_data / "mnist"), normal="3")
    assert totals(dataset) == (6131, 1010, 8990, 0)


def test_mnist_by_the_other_protocols(okng_data):
    folder = real(okng_data / "mnist")
    assert totals(open_dataset(folder, normal="3", protocol="80/20")) == (5712, 1429, 1429, 0)
    assert totals(open_dataset(folder, abnormal="3")) == (50287, 12572, 7141, 0)
    assert totals(open_dataset(folder, normal="3,5")) == (6131 + 5421, 1010 + 892, 8098, 0)
    assert totals(open_dataset(folder, normal="3", contamination=0.1)) == (6131 + 681, 1010, 8990 - 681, 0)


def test_fashion_mnist():
    dataset = open_dataset(real(Path("/usr/share/datasets/fashion-mnist")), normal="0")
    assert dataset.name == "fashion-mnist"
    assert totals(dataset) == (6000, 1000, 9000, 0)


def test_cifar10(okng_data):
    dataset = open_dataset(real(okng_data / "cifar10"), normal="cat")
    assert len(dataset.train) > 0 and {sample.kind for sample in dataset.train} == {"cat"}
    assert {sample.kind for sample in dataset.test if sample.label == 0} == {"cat"}
    assert len({sample.kind for sample in dataset.test if sample.label == 1}) == 9


def test_coil20(okng_data):
    dataset = open_dataset(real(okng_data / "coil20"), normal="obj01")
    assert totals(dataset) == (57, 15, 19 * 72, 0)
    assert totals(open_dataset(okng_data / "coil20", normal="obj01", protocol="80/20")) == (57, 15, 15, 0)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("elpv", (1206, 302, 715, 0)), ("elpv/mono", (470, 118, 313, 0)), ("elpv/poly", (736, 184, 402, 0))],
)
def test_elpv(name, expected):
    if find_spec("elpv_dataset") is None:
        pytest.skip("the package elpv-dataset is not installed")
    dataset = open_dataset(name)
    assert totals(dataset) == expected
    assert {(row["unreadable"], row["sizes"]) for row in describe(dataset)} == {(0, "300×300")}
