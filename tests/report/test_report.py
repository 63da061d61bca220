"""The report as a reader meets it: what is on the page, what is not, and that nothing reaches outside."""

from __future__ import annotations

import base64
import csv
import errno
import gc
import io
import json
import re
import weakref
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from PIL import Image

from okng.errors import OkngError
from okng.inspection.inspector import Inspector
from okng.inspection.outputs import CsvFile
from okng.inspection.reading.images import Preprocess
from okng.inspection.verdict.calibration import Calibration
from okng.inspection.verdict.regions import find_regions
from okng.inspection.verdict.result import Inspection
from okng.report import Report
from okng.report.pictures import SMALL, THUMBNAIL
from okng.report.report import NAMED_UNREADABLE
from okng.report.table import Table
from okng.report.words import distance, how_far

MANIFEST = {
    "okng": "9.8.7",
    "detector": {"name": "patchcore", "arguments": {"coreset": 4000, "layers": [8, 16]}},
    "provenance": {"images": 213, "seed": 77, "date": "2026-01-02T03:04:05+00:00"},
}
VOID = {"meta", "link", "img", "br", "hr", "input"}


class Page(HTMLParser):
    """Tags with their attributes, section ids, visible text, and whether every tag is closed."""

    def __init__(self, html: str):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.texts: list[str] = []
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] not in ("style", "script"):
            self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())

    @property
    def sections(self) -> list[str]:
        return [str(attrs["id"]) for tag, attrs in self.tags if tag == "section" and "id" in attrs]

    def all(self, wanted: str) -> list[dict[str, str | None]]:
        return [attrs for tag, attrs in self.tags if tag == wanted]


def make_inspector(maps: bool = True, n: int = 99, rate: float = 0.05) -> Inspector:
    """Held-out scores 1, 2, …, n; at n = 99 and 5 % an image is NG above 95."""
    scores = np.arange(1, n + 1, dtype=float)
    calibration = Calibration.fit(scores, scores if maps else None, "split", rate)
    return Inspector(None, Preprocess("RGB", 256, 32), calibration, MANIFEST)  # type: ignore[arg-type]


def inspected(
    inspector: Inspector,
    score: float,
    path: Path | None = None,
    size: tuple[int, int] = (40, 60),
    **change: Any,
) -> Inspection:
    """An inspection of that score; its map, if any, has its peak, of the same height, in one corner."""
    calibration = inspector.calibration
    scores, regions = None, ()
    if calibration.pixel_threshold is not None:
        scores = np.zeros((4, 6), np.float32)
        scores[0, 0] = score
        regions = tuple(find_regions(scores, calibration.pixel_threshold, size))
    fields: dict[str, Any] = {
        "index": 2,
        "path": None if path is None else str(path),
        "score": score,
        "p_value": calibration.p_value(score),
        "verdict": "NG" if calibration.is_ng(score) else "OK",
        "size": size,
        "map": scores,
        "regions": regions,
        "timing": {"decode": 2.0, "score": 4.0},
    }
    return Inspection(**{**fields, **change})


def page_of(report: Report, folder: Path, metrics: dict[str, Any] | None = None) -> Page:
    return Page(report.write(folder / "report.html", metrics).read_text(encoding="utf-8"))


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "parts" / "one.png"
    path.parent.mkdir()
    Image.fromarray(np.full((40, 60, 3), (200, 30, 30), np.uint8)).save(path)
    return path


def test_labelled_run(tmp_path: Path, picture: Path) -> None:
    inspector = make_inspector()
    report = Report("Line 1", inspector)
    for score in range(1, 61):  # 60 OK, 3 of them above 95
        report.add(inspected(inspector, 100 + score if score <= 3 else score, picture), 0, "good")
    for score in (50, 200, 300, 400):  # 4 NG, one of them missed
        report.add(inspected(inspector, score, picture), 1, "crack")
    figures = {"image_auroc": 0.98765, "n_ok": 60, "caught_interval": (0.3, 0.95), "aupro": float("nan"), "notes": {}}
    page = page_of(report, tmp_path, figures)  # as an evaluation returns them, not floats alone
    assert page.sections == [
        "scores", "kinds", "missed", "false-alarms", "worst", "borderline", "all", "held-out",
        "settings", "reading",
    ]  # fmt: skip
    assert "64 inspected" in page.text
    assert "Asked false-alarm rate: 5%" in page.text
    assert "Measured: 5.0% (3 of 60 images labelled OK; 95% interval 1.7% to 13.7%)" in page.text
    assert "75.0% NG caught 3 of 4 labelled NG 95% interval 30.1% to 95.4%" in page.text
    assert "Image AUROC 0.9877 AUPRO (FPR ≤ 0.3) –" in page.text
    assert inspector.calibration.promise() in page.text
    assert "crack NG 4 3 (75.0%) 250" in page.text
    assert any("ROC" in str(svg.get("aria-label")) for svg in page.all("svg"))
    for setting in ("PatchCore", "Coreset 4000", "Layers 8, 16", "Seed 77", "9.8.7", "Decode 2.0 ms"):
        assert setting in page.text
    assert "parts/one.png" in page.text
    assert "1 region at x 0–" in page.text


def test_nothing_is_loaded_from_elsewhere(tmp_path: Path, picture: Path) -> None:
    inspector = make_inspector()
    report = Report("Line 1", inspector)
    report.add(inspected(inspector, 200, picture), 1)
    page = page_of(report, tmp_path)
    for tag, attrs in page.tags:
        for name in ("src", "href", "data", "srcset", "poster", "action", "xlink:href"):
            if attrs.get(name) is not None:
                assert re.match(r"data:image/(png|jpeg);base64,|#", str(attrs[name])), (tag, attrs)
        assert tag not in ("link", "iframe", "object", "embed")
    html = (tmp_path / "report.html").read_text()
    assert not re.search(r"@import|url\((?!#)", html)
    assert "default-src 'none'" in html
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    assert {str(a["href"])[1:] for a in page.all("a")} <= set(map(str, ids))


def test_accessible_structure(tmp_path: Path, picture: Path) -> None:
    inspector = make_inspector()
    report = Report("Line 1", inspector)
    report.add(inspected(inspector, 200, picture), 1)
    page = page_of(report, tmp_path)
    assert page.all("html")[0]["lang"] == "en"
    assert all(image["alt"] for image in page.all("img"))
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert all(cell.get("scope") for cell in page.all("th"))


def test_without_labels_there_is_nothing_that_needs_them(tmp_path: Path, picture: Path) -> None:
    inspector = make_inspector()
    report = Report("Line 1", inspector)
    report.add(inspected(inspector, 200, picture))
    report.add(inspected(inspector, 20, picture))
    page = page_of(report, tmp_path, {"image_auroc": float("nan")})
    assert page.sections == ["scores", "worst", "borderline", "all", "held-out", "settings", "reading"]
    for word in ("ROC", "Measured", "caught", "Labelled"):
        assert word not in page.text


def test_only_ok_labels(tmp_path: Path, picture: Path) -> None:
    inspector = make_inspector()
    report = Report("Line 1", inspector)
    report.add(inspected(inspector, 20, picture), 0)
    page = page_of(report, tmp_path)
    assert "missed" not in page.sections
    assert "None: 1 of 1 images labelled OK were called OK." in page.text
    assert "ROC" not in page.text


def test_only_unreadable_images(tmp_path: Path) -> None:
    report = Report("Line 1", make_inspector())
    for i in range(NAMED_UNREADABLE + 5):
        report.skip(tmp_path / f"{i}.png", "truncated")
    page = page_of(report, tmp_path)
    assert page.sections == ["held-out", "unreadable", "settings", "reading"]
    assert "0 inspected" in page.text
    assert f"{NAMED_UNREADABLE + 5} unreadable" in page.text
    assert page.text.count("truncated") == NAMED_UNREADABLE


def test_a_detector_without_maps(tmp_path: Path, picture: Path) -> None:
    inspector = make_inspector(maps=False)
    report = Report("Line 1", inspector)
    report.add(inspected(inspector, 200, picture), 1)
    page = page_of(report, tmp_path)
    assert len(page.all("img")) == 1
    assert "Heatmap" not in page.text


def test_pixels_given_directly_and_files_that_went_away(tmp_path: Path, picture: Path) -> None:
    inspector = make_inspector()
    report = Report("Line 1", inspector)
    report.add(inspected(inspector, 10), image=np.full((40, 60), 7, np.uint16))
    report.add(inspected(inspector, 20))
    report.add(inspected(inspector, 30, picture))
    picture.unlink()
    page = page_of(report, tmp_path)
    assert len(page.all("img")) == 2
    assert "No picture: the file could not be read again." in page.text
    assert "No picture: its pixels were not kept." in page.text
    assert "image 2" in page.text


def test_manual_and_unreachable_thresholds(tmp_path: Path, picture: Path) -> None:
    few = make_inspector(n=5, rate=0.01)
    report = Report("Line 1", few)
    report.add(inspected(few, 20, picture), 0)
    assert few.calibration.promise() in page_of(report, tmp_path).text
    by_hand = few.with_threshold(3)
    report = Report("Line 1", by_hand)
    report.add(inspected(by_hand, 20, picture), 0)
    page = page_of(report, tmp_path)
    assert by_hand.calibration.promise() in page.text
    assert "Asked false-alarm rate:" not in page.text
    assert "ordinary" not in page.text


def test_more_false_alarms_than_chance_explains_are_said_so(tmp_path: Path) -> None:
    inspector = make_inspector()
    report = Report("Line 1", inspector, worst=0, borderline=0)
    for score in [10] * 30 + [99] * 20:
        report.add(inspected(inspector, score), 0)
    assert "more than chance explains" in page_of(report, tmp_path).text


def test_hostile_text_is_escaped(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>\"'&{{ 7777 * 7777 }}"
    inspector = make_inspector()
    inspector.manifest = {"detector": {"name": evil}, "provenance": {evil: evil}}
    report = Report(evil, inspector)
    report.add(inspected(inspector, 200, Path(f"/data/{evil}/{evil}.png")), 1, evil)
    report.skip(f"/{evil}", evil)
    page = page_of(report, tmp_path, {evil: 1.0})
    assert len(page.all("script")) == 1
    assert page.text.count("<script>alert(1)") >= 8
    assert "60481729" not in page.text


def test_a_file_name_that_is_not_unicode(tmp_path: Path) -> None:
    report = Report("Line 1", make_inspector())
    report.skip("/data/caf\udce9.png", "truncated")
    assert "/data/caf?.png" in page_of(report, tmp_path).text


def test_lists_hold_the_right_images_in_order(tmp_path: Path) -> None:
    inspector = make_inspector()
    report = Report("Line 1", inspector, worst=3, borderline=4)
    for score in np.random.default_rng(0).permutation(np.arange(80, 110)):  # NG above 95
        report.add(inspected(inspector, float(score)), int(score % 2))
    sections = {section["name"]: section for section in report._content({})["sections"]}

    def scores(name: str) -> list[float]:
        return [card["kept"].inspection.score for card in sections[name]["cards"]]

    assert scores("worst") == [109, 108, 107]
    assert scores("borderline") == [97, 96, 95, 94]
    assert scores("false-alarms") == [108, 106, 104]
    assert scores("missed") == [81, 83, 85]
    assert sections["false-alarms"]["total"] == 7
    assert sections["missed"]["total"] == 8
    assert "the lowest score first. 3 of 8 are shown." in page_of(report, tmp_path).text
    assert [card["pictures"] is None for card in sections["worst"]["cards"]] == [False, True, False]


def test_memory_is_bounded_by_the_lists(tmp_path: Path) -> None:
    inspector = make_inspector()
    report = Report("Line 1", inspector, worst=4, borderline=2)
    batches, kept_pixels = [], []
    for batch in range(50):
        maps = np.full((8, 4, 6), batch, np.float32)
        batches.append(weakref.ref(maps))
        for i in range(8):
            image = np.zeros((60, 600, 3), np.uint8)
            kept_pixels.append(weakref.ref(image))
            item = inspected(inspector, batch * 8.0 + i, size=(60, 600), map=maps[i], regions=())
            report.add(item, label=i % 2, image=image)
    del maps, image, item
    gc.collect()
    assert not any(reference() is not None for reference in batches)  # not even through a view
    assert not any(reference() is not None for reference in kept_pixels)
    lists = (report.worst, report.just_ng, report.just_ok, report.missed, report.false_alarms)
    kept = [entry for shortlist in lists for entry in shortlist.ranked()]
    assert len(kept) == 4 + 1 + 1 + 4 + 4
    assert all(entry.pixels is not None and max(entry.pixels.shape) <= THUMBNAIL for entry in kept)
    assert report.inspected == 400


def test_thumbnails_are_bounded_and_small_images_lossless(tmp_path: Path) -> None:
    inspector = make_inspector(maps=False)
    noise = np.random.default_rng(0).integers(0, 256, (28, 28, 3), np.uint8)
    report = Report("Line 1", inspector)
    report.add(inspected(inspector, 1, size=(2000, 50)), image=np.zeros((2000, 50, 3), np.uint8))
    report.add(inspected(inspector, 2, size=(28, 28)), image=noise)
    uris = [str(attrs["src"]) for attrs in page_of(report, tmp_path).all("img")]
    small, tall = (Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1]))) for uri in uris)
    assert tall.size == (12, THUMBNAIL)
    assert tall.format == "JPEG"
    assert max(small.size) <= SMALL
    assert np.array_equal(np.asarray(small), noise)


def test_writing_is_all_or_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    report = Report("Line 1", make_inspector())
    target = tmp_path / "new" / "report.html"
    assert report.write(target) == target
    before = target.read_bytes()
    monkeypatch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OkngError, match="No space left"):
        report.write(target)
    assert target.read_bytes() == before
    assert sorted(path.name for path in target.parent.iterdir()) == ["report.csv", "report.html"]


def test_a_report_of_a_part_says_so_and_leaves_the_older_one(tmp_path: Path) -> None:
    inspector = make_inspector()
    target = tmp_path / "report.html"
    target.write_text("the older one")
    report = Report("Line 1", inspector, total=4)
    report.add(inspected(inspector, 10))
    report.skip("b.png", "truncated")
    assert report.write(target) == tmp_path / "report.partial.html"
    assert target.read_text() == "the older one"
    assert len((tmp_path / "report.partial.csv").read_text().splitlines()) == 2
    assert "A part only: stopped after 2 of 4 images" in Page((tmp_path / "report.partial.html").read_text()).text
    report.add(inspected(inspector, 20))
    report.add(inspected(inspector, 30))
    assert report.write(target) == target
    assert "A part only" not in Page(target.read_text()).text
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.csv", "report.html"]


def embedded(folder: Path) -> dict[str, Any]:
    """What the page's script is given for the table."""
    (found,) = re.findall(r"^const data = (.*);$", (folder / "report.html").read_text(), re.MULTILINE)
    data: dict[str, Any] = json.loads(found)
    return data


def test_all_images_are_in_the_csv_and_in_the_table(tmp_path: Path) -> None:
    inspector = make_inspector()
    report = Report("Line 1", inspector, worst=1, borderline=0)
    paths = [tmp_path / "a" / f"{i}.png" for i in range(50)]
    for i, path in enumerate(paths):
        report.add(inspected(inspector, 60.0 + i, path), label=i % 2, kind="cut, deep" if i % 2 else "good")
    report.write(tmp_path / "report.html")
    with (tmp_path / "report.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [line["path"] for line in lines] == list(map(str, paths))
    assert {(line["label"], line["kind"]) for line in lines} == {("OK", "good"), ("NG", "cut, deep")}
    assert [float(line["score"]) for line in lines] == [60.0 + i for i in range(50)]
    data = embedded(tmp_path)
    assert data["root"] == f"{tmp_path}/a/" and data["kinds"] == ["cut, deep", "good"]
    assert data["rows"][40] == [41, "40.png", 100.0, 0.01, 1.11, 1, 1, "OK", "good"]
    assert [row[5] for row in data["rows"]] == [int(60 + i > 95) for i in range(50)]


def test_images_in_storage_keep_their_addresses(tmp_path: Path) -> None:
    """From them the page makes a command that learns false alarms."""
    inspector, table = make_inspector(), Table()
    for score, path in ((99.0, "s3://bucket/parts/0.png"), (98.0, tmp_path / "1.png")):
        table.add(inspected(inspector, score, path), None, "")
    data = table.for_page(inspector.calibration)
    paths = [data["root"] + row[1] for row in data["rows"]]
    assert paths == ["s3://bucket/parts/0.png", str(tmp_path / "1.png")]


def test_without_labels_the_csv_is_that_of_inspect(tmp_path: Path) -> None:
    inspector = make_inspector()
    report, alone = Report("Line 1", inspector), CsvFile(tmp_path / "alone.csv")
    for score, path in ((10, Path("/a,b/c.png")), (99, None)):
        report.add(inspected(inspector, score, path))
        alone.add(inspected(inspector, score, path))
    report.write(tmp_path / "report.html")
    alone.close(complete=True)
    assert (tmp_path / "report.csv").read_bytes() == (tmp_path / "alone.csv").read_bytes()


def test_lines_of_many_images_lie_in_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names with line breaks, commas and quotes too; and lines may come after the page was written once."""
    inspector, reports = make_inspector(), []
    for in_memory in (1 << 20, 200):
        monkeypatch.setattr("okng.report.table.IN_MEMORY", in_memory)
        report = Report("Line 1", inspector)
        for i in range(9):
            report.add(inspected(inspector, 60.0 + 5 * i, Path(f'/a/{i},,\r\n"x" .png')), kind="good" if i == 8 else "")
            if i == 5:
                report.write(tmp_path / "part.html")
        report.write(tmp_path / f"{in_memory}.html")
        reports.append(report)
    assert [report._table._lines._rolled for report in reports] == [False, True]
    whole, from_file = ((tmp_path / f"{size}.csv").read_bytes() for size in (1 << 20, 200))
    assert whole == from_file
    with (tmp_path / "200.csv").open(newline="") as file:
        assert [row["path"] for row in csv.DictReader(file)] == [f'/a/{i},,\r\n"x" .png' for i in range(9)]
    assert len((tmp_path / "part.csv").read_text().split('"/a/')) == 1 + 6


def test_a_disk_that_is_full_when_lines_are_read_is_one_line() -> None:
    """The last of them are only then written."""
    table = Table()
    with patch.object(table._lines, "seek", side_effect=OSError(errno.ENOSPC, "No space left on device")):
        for read in (lambda: list(table.as_csv()), lambda: table.for_page(make_inspector().calibration)):
            with pytest.raises(OkngError, match=r"no room for the lines of the report \(No space left.*set TMPDIR"):
                read()


def test_a_name_can_not_end_the_script(tmp_path: Path) -> None:
    inspector = make_inspector()
    report = Report("Line 1", inspector)
    report.add(inspected(inspector, 10, Path("/parts/</script><script>alert(1)</script>'\"\\.png")), kind="</script>")
    page = page_of(report, tmp_path)
    assert len(page.all("script")) == 1
    assert embedded(tmp_path)["rows"][0][1] == "script>'\"\\.png"


def test_the_table_is_bounded_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("okng.report.table.ROWS", 3)
    inspector = make_inspector()
    report = Report("Line 1", inspector)
    for score in (5, 9, 7, 8, 6):
        report.add(inspected(inspector, score))
    assert "the 3 oddest of 5" in page_of(report, tmp_path).text
    assert [row[:3] for row in embedded(tmp_path)["rows"]] == [[2, "", 9.0], [3, "", 7.0], [4, "", 8.0]]
    assert len((tmp_path / "report.csv").read_text().splitlines()) == 1 + 5


def test_truth_and_verdict_are_both_shown_where_they_differ(tmp_path: Path) -> None:
    inspector = make_inspector()
    report = Report("Line 1", inspector)
    for score, label in ((200, 1), (10, 0)):
        report.add(inspected(inspector, score), label)
    page = page_of(report, tmp_path)
    assert "missed" not in page.text.replace("Missed", "") and "a false alarm" not in page.text
    report.add(inspected(inspector, 20), 1)
    report.add(inspected(inspector, 300), 0)
    text = page_of(report, tmp_path).text
    assert "OK labelled NG: missed" in text and "NG labelled OK: a false alarm" in text


def test_a_region_in_an_ok_image_is_explained(tmp_path: Path) -> None:
    inspector = make_inspector()
    report = Report("Line 1", inspector)
    report.add(inspected(inspector, 96))
    assert "A small region" not in page_of(report, tmp_path).text
    still_ok = inspected(inspector, 96)
    report.add(replace(still_ok, score=90, verdict="OK"))
    assert "A small region stands out; the image as a whole is still OK." in page_of(report, tmp_path).text


def test_the_smallest_p_value_is_a_bound(tmp_path: Path) -> None:
    inspector = make_inspector()
    report = Report("Line 1", inspector)
    report.add(inspected(inspector, 99))
    assert "p-value 0.02 " in page_of(report, tmp_path).text
    report.add(inspected(inspector, 99.5))
    assert "p-value ≤ 0.01 " in page_of(report, tmp_path).text


def test_the_distance_to_the_threshold_in_words() -> None:
    calibration = make_inspector().calibration  # median 50, threshold 95
    assert how_far(95 + 2 * 45, calibration) == "3 times as far from the usual OK image as the threshold"
    assert how_far(95, calibration) == "100% of the way from the usual OK image to the threshold"
    assert how_far(94.9, calibration) == "99% of the way from the usual OK image to the threshold"  # never rounded up
    assert how_far(50, calibration) == "No odder than the usual OK image"
    assert how_far(60, calibration.with_threshold(20)) == ""
    moved = Calibration.fit(-3.0 + 0.001 * np.arange(1, 100), None, "split", 0.05)  # another detector's unit
    assert distance(-3.0 + 0.001 * 140, moved) == pytest.approx(distance(140, calibration))


def test_the_oddest_held_out_images_are_shown(tmp_path: Path) -> None:
    inspector = make_inspector()
    report = Report("Line 1", inspector)
    for score in (97.5, 200, 10):
        report.add(inspected(inspector, score))
    text = page_of(report, tmp_path).text
    inspector.manifest = {"provenance": {"stand_apart": [{"image": "ok/black.png", "score": 98.0}]}}
    assert "2 (above the threshold) ok/black.png 98 1.07 1 of 3" in page_of(report, tmp_path).text
    assert "1 (above the threshold) 99 1.09 1 of 3" in text and "3 (above the threshold) 97 1.04 2 of 3" in text
    assert "5 95 1.00 2 of 3" in text


def test_a_threshold_set_by_hand_is_not_said_to_come_of_the_held_out_images(tmp_path: Path) -> None:
    inspector = make_inspector()
    for calibration, theirs in ((inspector.calibration, True), (inspector.calibration.with_threshold(90), False)):
        inspector = inspector.calibrated(calibration)
        report = Report("Line 1", inspector)
        report.add(inspected(inspector, 50))
        text = page_of(report, tmp_path).text
        assert ("They set the threshold" in text) == ("99, they set the threshold" in text) == theirs
        assert ("by hand, not by them" in text) != theirs


def shown_heatmap(page: Page) -> np.ndarray:
    (uri,) = [str(a["src"]) for a in page.all("img") if str(a["alt"]).startswith("Heatmap")]
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1]))).convert("RGB")).astype(int)


def test_a_mask_is_outlined_over_the_heatmap(tmp_path: Path, picture: Path) -> None:
    inspector = make_inspector()
    mask = np.zeros((40, 60), np.uint8)
    mask[20:30, 40:50] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    report = Report("Line 1", inspector)
    report.add(inspected(inspector, 200, picture), 1, mask=tmp_path / "mask.png")
    page = page_of(report, tmp_path)
    pixels = shown_heatmap(page)
    scale = len(pixels) / 40
    ys, xs = np.nonzero((pixels[..., 0] < 110) & (pixels[..., 1] > 150) & (pixels[..., 2] > 180))  # cyan
    edges = (ys.min() / scale, ys.max() / scale, xs.min() / scale, xs.max() / scale)
    assert edges == pytest.approx((20, 30, 40, 50), abs=1)
    assert "with the labelled mask's outline" in str([image["alt"] for image in page.all("img")])
    (tmp_path / "mask.png").write_text("no image any more")
    assert "labelled mask's outline" not in str([image["alt"] for image in page_of(report, tmp_path).all("img")])


def test_false_alarms_can_be_ticked_where_the_model_can_learn_them(tmp_path: Path, picture: Path) -> None:
    inspector = make_inspector()
    for name in ("parts.okng", "alone.onnx"):
        (tmp_path / name).touch()

    def ticks(model: Path | None, **label: Any) -> int:
        report = Report("Line 1", inspector, model=model)
        report.add(inspected(inspector, 200, picture), **label)
        report.add(inspected(inspector, 20, picture))
        return sum(a.get("class") == "really-ok" for a in page_of(report, tmp_path).all("input"))

    assert ticks(tmp_path / "parts.okng") == 1  # of the NG image only
    assert (
        f'const learning = ["okng", "train", "--update", "{tmp_path}/parts.okng"];'
        in (tmp_path / "report.html").read_text()
    )
    assert ticks(tmp_path / "parts.okng", label=0) == 1
    assert ticks(tmp_path / "parts.okng", label=1) == 0  # a defect
    assert ticks(tmp_path / "parts.onnx") == 1  # exported from the file beside it
    assert ticks(tmp_path / "alone.onnx") == ticks(None) == 0
    inspector.manifest = {"detector": {"name": "stfpm"}}
    assert ticks(tmp_path / "parts.okng") == 0


def test_only_detectors_that_can_be_updated_are_offered_it() -> None:
    from okng.detectors.base import Detector
    from okng.detectors.cards import cards
    from okng.detectors.catalogue import detector_class

    able = {name for name in cards() if detector_class(name).update_phases is not Detector.update_phases}
    assert able == {name for name, card in cards().items() if card.updates}
