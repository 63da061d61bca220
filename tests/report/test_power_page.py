"""The page of what a model would find."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

from tests.planted.test_measure import images, model
from tests.report.test_report import Page

import okng
from okng.planted.defects import KINDS
from okng.report.charts import power
from okng.report.language import words
from okng.report.sensitivity import write_sensitivity


def test_every_kind_has_words() -> None:
    said = {key.removeprefix("kind.said_") for key in words("en") if key.startswith("kind.said_")}
    assert said == {*KINDS, "all"} == {key for key in said if f"kind.{key}" in words("en")}


def test_the_page_shows_each_kind_with_examples_and_is_whole(tmp_path: Path) -> None:
    inspector = model()
    result = okng.sensitivity(inspector, images(8), kinds=["scratch", "spot"], plants=4)
    path = write_sensitivity(tmp_path / "new" / "page.html", "What it would find", inspector, result)
    page = Page(path.read_text())
    tags = [tag for tag, _ in page.tags]
    assert sum(tag == "figure" and attributes.get("class") == "power" for tag, attributes in page.tags) == 3
    assert tags.count("circle") == 3 * len(result.overall.points)
    shown = sum(len(result.examples(kind)) for kind in result.curves)
    assert tags.count("article") == shown > 2 and tags.count("img") == 2 * shown
    text = " ".join(page.texts)
    assert result.curves["spot"].words() in text and "no real ones" in text
    for tag, attributes in page.tags:
        if tag == "img":
            assert (attributes["src"] or "").startswith("data:image/")


def test_the_chart_rises_with_size_and_holds_what_was_measured() -> None:
    result = okng.sensitivity(model(), images(8), kinds="spot", sizes=[2, 4, 8, 16, 32], plants=4)
    curve = result.curves["spot"]
    chart = power(curve, curve.points[0].size, curve.points[-1].size)
    xs = [x for x, *_ in chart.points]
    assert xs == sorted(xs) and xs[0] == 3 and xs[-1] == 97
    gaps = [b - a for a, b in pairwise(xs)]
    assert max(gaps) - min(gaps) < 0.1  # sizes double, so they lie evenly on a logarithmic axis
    for point, (_, y, low, high, hint) in zip(curve.points, chart.points, strict=True):
        assert abs(y - 100 * (1 - point.share)) < 0.01 and high <= y <= low and f"{point.found} of 4" in hint
    assert [y for _, y in chart.line] == sorted((y for _, y in chart.line), reverse=True)
    assert len(chart.band) == 2 * len(chart.line)
    assert chart.asked is not None and xs[0] < chart.asked < xs[-1]
