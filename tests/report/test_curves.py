"""The losses of a training as a table and as curves."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import numpy as np
import pytest
from tests.contract.conftest import pictures

import okng
from okng.inspection.inspector import Inspector
from okng.report.charts import learning
from okng.report.curves import by_phase, write_curves


@pytest.fixture(scope="module")
def inspector() -> Inspector:
    """Fitted in one phase of three epochs, to which another is added that validates."""
    found = okng.fit(pictures(8, seed=1), "autoencoder", width=2, code=2, epochs=3, size=16, device="cpu", holdout=0.3)
    more = zip((2, 4, 6), (9.0, 3.0, 5.0), strict=True)
    rows = [{"phase": "more", "epoch": e, "losses": {"a <b>": 10.0**-e}, "validation": v} for e, v in more]
    found.manifest["history"] = [*found.manifest["history"], *rows]
    return found


def test_the_table_has_every_mean(inspector: Inspector, tmp_path: Path) -> None:
    with write_curves(tmp_path / "c.csv", "Losses", inspector).open(newline="") as file:
        rows = list(csv.DictReader(file))
    history = inspector.manifest["history"]
    assert [(row["loss"], float(row["mean"])) for row in rows[:3]] == [
        ("loss", row["losses"]["loss"]) for row in history[:3]
    ]
    assert {row["phase"] for row in rows[:3]} == {"1"} and [row["epoch"] for row in rows[:3]] == ["1", "2", "3"]
    assert [tuple(row.values()) for row in rows[6:]] == [
        ("2", "more", "2", "validation", "9.0"), ("2", "more", "4", "validation", "3.0"),
        ("2", "more", "6", "validation", "5.0"),
    ]  # fmt: skip


def test_the_page_has_a_curve_for_each_loss(inspector: Inspector, tmp_path: Path) -> None:
    page = write_curves(tmp_path / "c.html", "Losses of <parts>", inspector).read_text()
    assert re.findall(r"<h3>(.*?)</h3>\s*<p class", page) == ["loss", "a &lt;b&gt;", "validation"]
    assert page.count("<polyline") == 3 and page.count('class="measured"') == 9
    assert page.count('class="threshold"') == 1 and "epoch 4: 3" in page and "&lt;parts&gt;" in page


def test_validation_is_explained_where_there_is_some(inspector: Inspector, tmp_path: Path) -> None:
    assert "dashed, the epoch that stayed" in write_curves(tmp_path / "c.html", "Losses", inspector).read_text()
    manifest = {**inspector.manifest, "history": inspector.manifest["history"][:3]}
    plain = Inspector(inspector.engine, inspector.preprocess, inspector.calibration, manifest)
    page = write_curves(tmp_path / "c.html", "Losses", plain).read_text()
    assert "Validation" not in page and "dashed" not in page and "while the networks changed" in page


def test_phases_of_one_name_that_follow_each_other_are_told_apart() -> None:
    history = [{"phase": "a", "epoch": epoch, "losses": {"loss": 1.0}} for epoch in (1, 2, 1, 2)]
    assert [losses["loss"] for _, losses in by_phase(history)] == [[(1, 1.0), (2, 1.0)]] * 2


def test_a_curve_lies_within_its_plot() -> None:
    chart = learning([(1, 100.0), (2, 10.0), (3, 1.0)])
    assert chart.logarithmic and [round(y) for _, y, _ in chart.points] == [4, 50, 96]
    assert chart.levels == [(96, "1"), (50, "10"), (4, "100")] and chart.lowest is None
    chart = learning([(10, -2.0), (20, 2.0), (40, 0.0)], lowest=True)
    assert not chart.logarithmic and [y for _, y, _ in chart.points] == [96, 4, 50]
    assert chart.lowest == chart.points[0][0] and [text for _, text in chart.ticks] == ["10", "20", "40"]
    for means in ([(1, 0.5)], [(1, 0.5), (2, 0.5)], [(1, 0.0), (2, 1e9)], [(7, -1.0)]):
        chart = learning(means, lowest=True)
        assert np.all([(0 <= x <= 100, 0 <= y <= 100) for x, y, _ in chart.points])
