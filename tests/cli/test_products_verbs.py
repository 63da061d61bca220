"""Several products on the command line: named when training, by folder or by name when inspecting."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest
from PIL import Image
from tests.cli.test_cli import okng, one_line
from tests.detectors.scenes import crosses, rings

import okng as library
from okng.serve.models import Shelf
from okng.store import Store


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two products with new images, and a model of both."""
    folder = tmp_path_factory.mktemp("line")
    for product, made in (("ring", rings), ("cross", crosses)):
        for part, count, seed in (("ok", 40, 1), ("new", 3, 2)):
            into = folder / part / product
            into.mkdir(parents=True)
            for i, pixels in enumerate(made(count, seed)):
                Image.fromarray(pixels).save(into / f"{i}.png")
    done = okng("train", *named(folder), "-d", "knn", "-o", folder / "both.okng", "--holdout", 0.5, "--json")
    assert done.returncode == 0, done.stderr
    assert "ring: threshold " in done.stderr and "cross: threshold " in done.stderr
    assert "--product ring --report report" in done.stderr
    told = json.loads(done.stdout)
    assert {name: of["calibration"]["n"] for name, of in told["products"].items()} == {"ring": 20, "cross": 20}
    return folder


def named(folder: Path) -> list[str]:
    return [f"{product}={folder / 'ok' / product}" for product in ("ring", "cross")]


def test_folders_without_names_are_asked_for_them(line: Path, tmp_path: Path) -> None:
    first, second = named(line)
    model = tmp_path / "x.okng"
    assert "has no name: several products" in one_line(okng("train", line / "ok/ring", second, "-o", model))
    assert "two products are called ring" in one_line(okng("train", first, first, "-o", model))
    for text, words in (("nut=", "nut= names no folder"), ("=nut", "not ''"), ("M6 screw=nut", "call it M6-screw")):
        assert words in one_line(okng("train", first, text, "-o", model))
        assert words in one_line(okng("train", text, first, "-o", model))
    assert "two or more" in one_line(okng("train", first, "-o", model))
    for verb in (("train", ""), ("inspect", line / "both.okng", "")):
        assert "an empty text names no images" in one_line(okng(*verb))
    assert "of one product" in one_line(okng("train", first, second, "-o", model, "--report", tmp_path))
    assert "can't be updated" in one_line(okng("train", line / "new", "--update", line / "both.okng", "-o", model))
    assert not model.exists()


def test_the_folder_or_a_name_says_which(line: Path, tmp_path: Path) -> None:
    table = tmp_path / "all.csv"
    done = okng("inspect", line / "both.okng", line / "new", "--csv", table, "--json")
    told = json.loads(done.stdout)
    assert [image["product"] for image in told["images"]] == ["cross"] * 3 + ["ring"] * 3
    assert set(told["calibration"]["products"]) == {"ring", "cross"}
    with table.open() as file:
        assert [row["product"] for row in csv.DictReader(file)] == ["cross"] * 3 + ["ring"] * 3
    flat = shutil.copytree(line / "new/ring", tmp_path / "flat")
    assert "say which: --product ring" in one_line(okng("inspect", line / "both.okng", flat))
    done = okng("inspect", line / "both.okng", flat, "--product", "ring", "--report", tmp_path / "report")
    assert done.returncode == 0 and done.stdout.count("  ring  ") == 3, done.stderr
    assert "Product" in (tmp_path / "report/report.html").read_text()
    asked = okng("inspect", line / "both.okng", line / "new", "--report", tmp_path / "other")
    assert "a report is of one product; add --product ring" in one_line(asked) and not (tmp_path / "other").exists()
    assert "did you mean ring" in one_line(okng("inspect", line / "both.okng", flat, "--product", "rin"))


def test_what_the_help_says_of_a_product_is_so(line: Path) -> None:
    """Only `inspect` does without a name: the others ask for one."""
    for verb in ("evaluate", "explain", "sensitivity", "watch"):
        asked = one_line(okng(verb, line / "both.okng", line / "new"))
        known = "knn has no convolution" if verb == "explain" else "say which is meant: --product ring"
        said = " ".join(okng(verb, "--help").stdout.replace("│", " ").split())
        assert known in asked and "it has to be said" in said, verb
    assert "Default: as a folder of what is given" in " ".join(
        okng("inspect", "--help").stdout.replace("│", " ").split()
    )


def test_one_products_threshold_is_changed_and_the_others_stay(line: Path, tmp_path: Path) -> None:
    model = shutil.copy(line / "both.okng", tmp_path / "both.okng")
    shown = json.loads(okng("threshold", model, "--json").stdout)["products"]
    done = okng("threshold", model, "--product", "ring", "--false-alarm-rate", 0.2, "--json")
    assert json.loads(done.stdout)["product"] == "ring"
    after = library.load(model)
    assert after.of("ring").calibration.false_alarm_rate == 0.2
    assert after.of("cross").calibration.to_json() == shown["cross"]
    assert "say which is meant" in one_line(okng("threshold", model, "--score", 3))


def test_a_server_knows_each_by_its_name(line: Path, tmp_path: Path) -> None:
    store = Store.open(str(tmp_path / "s.sqlite"))
    try:
        shelf = Shelf(store, tmp_path / "models", {}, lambda text: None)
        with pytest.raises(library.OkngError, match="several products; serve each under its name, such as ring="):
            shelf.give("both", line / "both.okng")
        for name in ("ring", "cross"):
            shelf.give(name, line / "both.okng")
        shelf.change("ring", lambda inspector: inspector.at(0.2), "a test", "a test")
        assert shelf.get("ring").inspector.product == "ring"
        assert shelf.load("ring", 2).inspector.calibration.false_alarm_rate == 0.2
        assert shelf.get("cross").inspector.calibration.false_alarm_rate == 0.05
    finally:
        store.close()
