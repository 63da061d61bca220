"""Which of several rows of one measurement counts, and that results/ leave no doubt about it."""

from collections import defaultdict
from pathlib import Path

import pytest

from okng.benchmark import figures, reproduce
from okng.benchmark.code import present_code
from okng.benchmark.figures import identity, measured, standing
from okng.benchmark.rows import read_rows, write_rows
from okng.benchmark.tables import TABLES
from okng.detectors.catalogue import DEFAULT

ROOT = Path(__file__).parents[2]
NOW = present_code("autoencoder")
TABLE = TABLES["cavga/comparison"]
CELL = next(c for c in TABLE.cells if (c.method, c.kind, c.dataset) == ("AE L2", "3", "MNIST"))


def row(value: str, code: str = NOW, date: str = "2026-01-01") -> dict[str, str]:
    job = reproduce.Job(CELL, TABLE.runs[CELL.method], TABLE.name, "cpu", 0)
    return {**job.row(float(value), 1.0), "code": code, "date": date}


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize(
    ("rows", "wins"),
    [
        ([row("0.1"), row("0.2", code="older", date="2026-02-02")], "0.1000"),
        ([row("0.1"), row("0.2", code="", date="2026-02-02")], "0.1000"),
        ([row("0.1"), row("0.2", date="2026-02-02")], "0.2000"),
        ([row("0.1", code="older"), row("0.2", code="", date="2026-02-02")], "0.2000"),
    ],
)
def test_the_present_code_comes_first_then_the_newest(
    rows: list[dict[str, str]], wins: str, turned: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same row for cards and for `okng reproduce`, whatever the files are called."""
    for name, one in zip("ab", rows[::-1] if turned else rows, strict=True):
        write_rows(tmp_path / f"{name}.csv", reproduce.FIELDS, [one])
    monkeypatch.setattr(figures, "_results", lambda: tmp_path)
    (shown,) = measured("autoencoder")
    assert shown["value"] == wins
    known = reproduce._Known(tmp_path).find(reproduce.Job(CELL, TABLE.runs["AE L2"], TABLE.name, "cpu", 0))
    assert (known["value"] if known else None) == (wins if shown["code"] == NOW else None)


def test_the_list_of_all_detectors_goes_by_the_same_rule(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And of two settings of as many digits by the one that the present code was measured at."""
    write_rows(tmp_path / "a.csv", reproduce.FIELDS, [row("0.1"), row("0.2", code="older", date="2026-02-02")])
    monkeypatch.setattr(figures, "_results", lambda: tmp_path)
    assert figures.headlines()["autoencoder"]["image_auroc"] == 0.1
    at_other_settings = {**row("0.3", code="older", date="2026-02-02"), "arguments": "others"}
    write_rows(tmp_path / "0.csv", reproduce.FIELDS, [at_other_settings])
    assert figures.headlines()["autoencoder"]["image_auroc"] == 0.1
    write_rows(tmp_path / "0.csv", reproduce.FIELDS, [at_other_settings, {**at_other_settings, "dataset": "MNIST 4"}])
    assert figures.headlines()["autoencoder"]["image_auroc"] == 0.3


def test_the_list_has_the_mean_of_the_seeds_and_the_newest_arguments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of several seeds the last one written stood there, and of several arguments the oldest."""
    monkeypatch.setattr(figures, "_results", lambda: tmp_path)
    one = {**row("0.8", date="2026-03-03"), "experiment": "transistor-autoencoder", "dataset": "transistor"}
    seeds = [one, {**one, "seed": "1", "value": "0.6"}, {**one, "seed": "2", "value": "0.4"}]
    before = {**one, "arguments": "others", "value": "0.1", "date": "2026-01-01"}
    write_rows(tmp_path / "a.csv", [*reproduce.FIELDS, "experiment"], [*seeds, before])
    assert figures.headlines()["autoencoder"]["image_auroc"] == pytest.approx(0.6)


def test_the_list_says_of_how_many_digits_and_takes_no_time_of_a_gpu_for_a_processors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(figures, "_results", lambda: tmp_path)
    slow = {**row("0.1"), "seconds": "60", "machine": "2 cores, x86_64"}
    quick = {**row("0.3"), "dataset": "MNIST 4", "seconds": "2", "machine": "16 cores, x86_64, NVIDIA H100"}
    write_rows(tmp_path / "a.csv", reproduce.FIELDS, [slow, quick])
    assert figures.headlines()["autoencoder"] == {"dataset": "2 digits", "image_auroc": 0.2, "seconds": 60}
    write_rows(tmp_path / "a.csv", reproduce.FIELDS, [quick])
    assert figures.headlines()["autoencoder"]["seconds"] is None


def test_the_list_asks_for_no_digest_where_all_rows_are_of_one_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sixty of them take a second."""
    old = row("0.1", code="older")
    write_rows(tmp_path / "a.csv", reproduce.FIELDS, [old, {**old, "dataset": "MNIST 4"}, {**old, "arguments": "{}"}])
    monkeypatch.setattr(figures, "_results", lambda: tmp_path)
    monkeypatch.setattr(figures, "is_older", lambda row: pytest.fail("asked"))
    assert figures.headlines()["autoencoder"]["image_auroc"] == 0.1


def test_a_detector_is_not_listed_by_what_it_is_to_another_method() -> None:
    """The teacher of SDN alone is printed as AE, on all ten digits and later than SDN itself."""
    rows = [row for row in read_rows(ROOT / "results" / "oe-sdn" / "table1.csv") if row["method"] == "SDN"]
    digits = [float(row["value"]) for row in rows if row["dataset"].startswith("MNIST ")]
    assert len(digits) == 10
    assert figures.headlines()["sdn"]["image_auroc"] == pytest.approx(sum(digits) / 10)


def test_the_default_has_a_figure_in_the_list_of_all_detectors() -> None:
    """Its rows are written by another script than the others', and it stood there with none."""
    assert figures.headlines()[DEFAULT]["dataset"] == "transistor"


def test_no_two_rows_of_the_results_disagree() -> None:
    """The same detector, data, protocol, metric, arguments, budget and seed have one figure."""
    found = defaultdict(set)
    for path in (ROOT / "results").rglob("*.csv"):
        for one in read_rows(path):
            if one.get("value") and "metric" in one:
                found[identity(one)].add((one["value"], one["code"], one["date"]))
    assert found and {key: rows for key, rows in found.items() if len({value for value, _, _ in rows}) > 1} == {}


MEANS = {"10": "mean", "5 textures": "mean of textures", "10 objects": "mean of objects"}


def test_cards_say_what_the_documents_print() -> None:
    """A mean of fifteen categories is printed nowhere, nor one of okng's own rounding."""
    printed = {
        (run.detector, block.dataset, block.metric, mean, table.printed(block, method, mean))
        for table in TABLES.values()
        for method, run in table.runs.items()
        for block in table.blocks
        for mean in block.means
    }
    checked = 0
    for one in read_rows(figures.PUBLISHED):
        dataset, _, classes = one["dataset"].partition(" mean of ")
        if classes and ("slides" in one["source"] or "same table" in one["source"]):
            cell = (one["detector"], dataset, one["metric"], MEANS[classes], one["value"])
            assert cell in printed, cell
            checked += 1
    assert checked >= 20


def test_rows_without_a_figure_stand_for_nothing() -> None:
    assert [r["value"] for r in standing([row("0.3"), {**row("0.3"), "seed": "1"}]).values()] == ["0.3000"] * 2


def test_no_mean_and_no_headline_is_of_unlike_tests() -> None:
    """Deep SAD's figure without the class that it was told of is none of the whole test set."""
    from okng.benchmark.figures import _is_of_digits

    rows = [row for row in measured("deep_sad") if row.get("class")]
    assert {row["method"] for row in rows if row.get("budget") == "cpu"} <= {"deep_sad"}
    tests: dict[tuple[str, ...], set[str]] = {}
    for row in rows:
        place = (row["dataset"].rpartition(" ")[0], row["protocol"], row["arguments"], row["seed"])
        tests.setdefault(place, set()).add(row["method"])
    assert tests and all(len(methods) == 1 for methods in tests.values())
    assert all(row["method"] == "deep_sad" for row in rows if _is_of_digits(row))
