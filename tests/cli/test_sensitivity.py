"""`okng sensitivity` as a person meets it."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path

import pytest
from PIL import Image
from tests.cli.test_cli import okng, one_line, shop  # noqa: F401
from tests.contract.conftest import pictures


@pytest.fixture
def unseen(tmp_path: Path) -> Path:
    """OK images that the shop's model was never given."""
    folder = tmp_path / "unseen"
    folder.mkdir()
    for i, image in enumerate(pictures(8, seed=77)):
        Image.fromarray(image).save(folder / f"{i}.png")
    return folder


def test_a_table_a_page_a_csv_and_json_say_what_would_be_found(shop: Path, unseen: Path, tmp_path: Path) -> None:  # noqa: F811
    files = ["--report", tmp_path / "page", "--csv", tmp_path / "r.csv"]
    words = ["sensitivity", shop / "parts.okng", unseen, "--kinds", "spot, Doubled", "--plants", 3]
    done = okng(*words, *files, "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert list(result["curves"]) == ["spot", "doubled"] and result["images"] == 8 and result["calibrating"] == 0
    with (tmp_path / "r.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["kind"] == "spot"]
    assert [int(row["found"]) for row in rows] == [point["found"] for point in result["curves"]["spot"]["points"]]
    told = done.stderr.splitlines()
    assert any(line.startswith("spot ") for line in told) and "no real ones" in done.stderr
    html = (tmp_path / "page/sensitivity.html").read_text()
    assert html.count('<figure class="power">') == 3 and "http" not in html.replace("http-equiv", "")
    printed = okng(*words, "--csv", "-")
    assert printed.stdout == (tmp_path / "r.csv").read_text()


def test_learnt_images_are_left_out_and_said(shop: Path) -> None:  # noqa: F811
    done = okng("sensitivity", shop / "parts.okng", shop / "parts/train/good", "--kinds", "spot", "--plants", 1)
    assert done.returncode == 0 and "14 of 24 images are left out, because the model has learnt them" in done.stderr
    assert "10 of the 10 images set the threshold, too; none was learnt by what judged it" in done.stderr
    crossed = shop / "crossed.okng"
    words = ["-d", "patchcore", "--holdout", 0, "-p", "weights=none", "--size", 64, "--device", "cpu"]
    assert okng("train", shop / "parts", "-o", crossed, *words).returncode == 0
    said = one_line(okng("sensitivity", crossed, shop / "parts/train/good"))
    assert "of the 24 that were given; give 5 or more OK images that it has not learnt" in said


def test_mistakes_are_one_line(shop: Path, unseen: Path, tmp_path: Path) -> None:  # noqa: F811
    model = shop / "parts.okng"
    for words, message in (
        ([unseen, "--kinds", "scrach"], "did you mean scratch"),
        ([tmp_path / "nowhere"], "does not exist"),
        ([unseen, "--plants", "0"], "plants is a whole number, 1 or more"),
        ([unseen, "--csv", "-", "--json"], "standard output"),
        ([unseen, "--csv", tmp_path], "is a folder"),
        ([unseen, "--report", os.devnull], "--report"),
    ):
        assert message in one_line(okng("sensitivity", model, *words)), words
