import sys
from collections import Counter

import numpy.random  # noqa: F401 -- NumPy imports it late, which fails while `package` hides sys.path
import pytest

from okng.datasets import NG, OK, open_dataset
from okng.errors import OkngError


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A stand-in for elpv-dataset that cannot be imported, only found: 10 OK, 4 NG and 2 doubtful cells."""
    data = tmp_path / "elpv_dataset/data"
    data.mkdir(parents=True)
    (data.parent / "__init__.py").write_text("raise AssertionError('must not be imported')")
    rows = ["0.0 mono"] * 5 + ["0.0 poly"] * 5 + ["1.0 mono"] * 3 + ["1.0 poly"]
    rows += ["0.3333333333333333 mono", "0.6666666666666666 poly"]
    lines = [f"images/cell{i:04}.png  {row.replace(' ', ' ' * 9)}" for i, row in enumerate(rows)]
    (data / "labels.csv").write_text("\n".join(lines) + "\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.delitem(sys.modules, "elpv_dataset", raising=False)
    return data


@pytest.mark.parametrize(
    ("name", "train", "ok", "ng", "left_out"),
    [("elpv", 8, 2, 4, 2), ("elpv/mono", 4, 1, 3, 1), ("elpv/poly", 4, 1, 1, 1)],
)
def test_certain_cells_are_divided_and_doubtful_ones_left_out(package, name, train, ok, ng, left_out):
    dataset = open_dataset(name, seed=3)
    assert (dataset.name, dataset.layout) == (name, "elpv")
    assert Counter(sample.label for sample in dataset.train) == {OK: train}
    assert Counter(sample.label for sample in dataset.test) == {OK: ok, NG: ng}
    images = {sample.image for sample in dataset.train + dataset.test}
    assert len(images) == train + ok + ng
    assert all(image.parent == package / "images" for image in images)
    assert "by seed 3" in dataset.protocol and f"{left_out} doubtful cells" in dataset.protocol


def test_the_split_depends_on_the_seed_alone(package):
    assert open_dataset("elpv", seed=1) == open_dataset("elpv", seed=1)
    assert len({open_dataset("elpv", seed=seed).train for seed in range(5)}) > 1


def test_no_class_is_to_be_named(package):
    with pytest.raises(OkngError, match="leave normal='mono' out"):
        open_dataset("elpv", normal="mono")


def test_a_damaged_package_and_a_missing_one(package, monkeypatch):
    (package / "labels.csv").write_text("images/cell0001.png 1.0")
    with pytest.raises(OkngError, match="missing or damaged; run: pip install"):
        open_dataset("elpv")
    monkeypatch.setattr(sys, "path", [])
    with pytest.raises(OkngError, match=r"elpv-dataset is not installed; in okng's clone run: pip install '.\[demo\]'"):
        open_dataset("elpv")
