"""`okng reproduce` on small data in the layouts of the real sets: run, stopped, resumed, and what stays blank."""

import csv
import gzip
import json
import struct
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tests.cli.test_cli import okng as command

from okng.benchmark import beside, classifier, reproduce
from okng.benchmark.code import present_code
from okng.benchmark.figures import in_short, measured
from okng.benchmark.rows import write_rows
from okng.benchmark.tables import CIFAR_10, TABLES, Run
from okng.datasets.idx import read_idx
from okng.detectors.cards import cards
from okng.errors import OkngError
from okng.inspection.model_file import write_model
from okng.inspection.storage.locks import alone
from okng.training.progress import Narrator

TINY = {"width": 4, "code": 4, "epochs": 1, "batch_size": 16}


def idx(values: np.ndarray) -> bytes:
    return gzip.compress(
        bytes((0, 0, 8, values.ndim)) + struct.pack(f">{values.ndim}I", *values.shape) + values.tobytes()
    )


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """mnist/ with 20 images a class to train, 6 to test: a bar whose place is the class; cifar10/ in class folders."""
    root = tmp_path / "data"
    (root / "mnist").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for split, count in (("train", 20), ("t10k", 6)):
        labels = np.tile(np.arange(10, dtype=np.uint8), count)
        images = rng.integers(0, 40, (len(labels), 28, 28), dtype=np.uint8)
        for image, label in zip(images, labels, strict=True):
            image[2 * label + 4] = 250
        (root / f"mnist/{split}-images-idx3-ubyte.gz").write_bytes(idx(images))
        (root / f"mnist/{split}-labels-idx1-ubyte.gz").write_bytes(idx(labels))
    for split, kind in ((split, kind) for split in ("train", "test") for kind in CIFAR_10):
        folder = root / "cifar10" / split / kind
        folder.mkdir(parents=True)
        for i in range(4):
            Image.fromarray(rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)).save(folder / f"{i}.png")
    return root


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setitem(cards()["autoencoder"].arguments, "cpu-small", TINY)
    monkeypatch.setitem(reproduce.CLASSIFIER, "cpu", {"width": 2, "epochs": 3})
    monkeypatch.setitem(TABLES["oe-sdn/table1"].runs, "AE", Run("autoencoder"))  # what runs fastest


@pytest.fixture
def fits(monkeypatch):
    """How often okng.fit was called, and with what."""
    calls, fit = [], reproduce.okng.fit

    def counted(images, detector, **arguments):
        calls.append((len(images), detector, arguments))
        return fit(images, detector, **arguments)

    monkeypatch.setattr("okng.fit", counted, raising=False)
    return calls


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def values(outcomes):
    return {(outcome.cell.method, outcome.cell.kind): outcome.value for outcome in outcomes}


def test_a_cell_is_measured_written_and_not_measured_again(data, tmp_path, fits):
    table, out = TABLES["oe-sdn/table1"], tmp_path / "results"
    first = reproduce.reproduce(table, data, methods=["AE"], classes=["3", "airplane"], out=out)
    assert [(n, d, a["holdout"], a["epochs"]) for n, d, a in fits] == [
        (20, "autoencoder", 0.1, 1), (4, "autoencoder", 0.1, 1)
    ]  # fmt: skip
    assert 0.5 < values(first)["AE", "3"] <= 1.0
    row = rows(out / "oe-sdn/table1.csv")[0]
    assert (row["detector"], row["dataset"], row["class"]) == ("autoencoder", "MNIST 3", "3")
    assert row["protocol"] == "one-vs-rest on the native split" and row["metric"] == "image_auroc"
    assert row["published"] == "0.950" and row["value"] == f"{values(first)['AE', '3']:.4f}"
    assert json.loads(row["arguments"]) == {"holdout": 0.1, **TINY}
    assert row["command"] == "okng reproduce oe-sdn/table1 DATA --budget cpu --methods AE --classes 3 --seed 0"
    assert float(row["seconds"]) > 0 and "torch" in row["versions"] and row["date"]
    assert [path.name for path in (out / "oe-sdn").iterdir()] == ["table1.csv"]
    again = reproduce.reproduce(table, data, methods=["autoencoder"], classes=["3"], out=out)
    assert len(fits) == 2
    assert values(again)["AE", "3"] == pytest.approx(values(first)["AE", "3"], abs=5e-5)
    reproduce.reproduce(table, data, methods=["AE"], classes=["3"], out=out, seed=1)
    assert len(fits) == 3 and [r["seed"] for r in rows(out / "oe-sdn/table1.csv") if r["class"] == "3"] == ["0", "1"]


def test_other_arguments_are_measured_anew_and_replace_the_row(data, tmp_path, fits, monkeypatch):
    table, out = TABLES["oe-sdn/table1"], tmp_path / "results"
    reproduce.reproduce(table, data, methods=["AE"], classes=["3"], out=out)
    monkeypatch.setitem(cards()["autoencoder"].arguments, "cpu-small", {**TINY, "code": 5})
    reproduce.reproduce(table, data, methods=["AE"], classes=["3"], out=out)
    assert len(fits) == 2
    (row,) = rows(out / "oe-sdn/table1.csv")
    assert json.loads(row["arguments"])["code"] == 5


def test_a_figure_of_older_code_is_measured_anew_and_stays_until_then(data, tmp_path, fits, monkeypatch):
    """A cell whose row has no digest, too; the file of an earlier okng has no such column at all."""
    table, out = TABLES["ocgan/mnist"], tmp_path / "results"
    monkeypatch.setitem(cards()["denoising_autoencoder"].arguments, "cpu-small", TINY)
    path = out / "ocgan/mnist.csv"

    def again(folder=data):
        (outcome,) = reproduce.reproduce(table, folder, methods=["DAE"], classes=["3"], out=out)
        return outcome.value, rows(path)[0].get("code")

    measured_value, code = again()
    assert code == present_code("denoising_autoencoder") and len(fits) == 1
    for code in ("0123456789ab", ""):
        write_rows(path, reproduce.FIELDS, [{**rows(path)[0], "code": code, "value": "0.1234"}])
        (tmp_path / "nothing").mkdir(exist_ok=True)
        assert again(tmp_path / "nothing") == (None, code) and rows(path)[0]["value"] == "0.1234"
        assert again() == (measured_value, present_code("denoising_autoencoder"))
    assert len(fits) == 3
    without = [{key: value for key, value in row.items() if key != "code"} for row in rows(path)]
    write_rows(path, without[0], without)
    assert again() == (measured_value, present_code("denoising_autoencoder")) and len(fits) == 4


def test_what_a_paper_budget_leaves_out_is_said(data, tmp_path, monkeypatch):
    said = []
    tell = Narrator(quiet=True)
    monkeypatch.setattr(tell, "say", said.append)
    monkeypatch.setitem(cards()["autoencoder"].arguments, "paper", TINY)
    table = TABLES["cavga/comparison"]
    reproduce.reproduce(table, data, "paper", methods=["AE L2"], classes=["3"], out=tmp_path / "results", tell=tell)
    assert any("not as in the paper: the paper's random crops" in line for line in said)


def test_a_figure_stays_where_nothing_can_take_its_place(data, tmp_path, monkeypatch):
    """Though it be of earlier arguments; without data, or with a fit that fails, there is nothing better."""
    table, out = TABLES["oe-sdn/table1"], tmp_path / "results"
    reproduce.reproduce(table, data, methods=["AE"], classes=["3"], out=out)
    monkeypatch.setitem(cards()["autoencoder"].arguments, "cpu-small", {**TINY, "learning_rate": 1e9})
    (tmp_path / "nothing").mkdir()
    for folder, reason in ((tmp_path / "nothing", "no data"), (data, "diverged")):
        (outcome,) = reproduce.reproduce(table, folder, methods=["AE"], classes=["3"], out=out)
        assert outcome.value is None and reason in outcome.reason
        (row,) = rows(out / "oe-sdn/table1.csv")
        assert row["value"] and json.loads(row["arguments"]) == {"holdout": 0.1, **TINY}


def test_a_stopped_fit_of_other_images_is_begun_anew(data, tmp_path, monkeypatch):
    table, out = TABLES["oe-sdn/table1"], tmp_path / "results"

    def write_then_ctrl_c(*arguments):
        write_model(*arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as stop:
        stop.setattr("okng.training.loop.checkpoint.write_model", write_then_ctrl_c)
        with pytest.raises(KeyboardInterrupt):
            reproduce.reproduce(table, data, methods=["AE"], classes=["3"], out=out)
    assert list((out / "oe-sdn").glob(".*.partial"))
    pixels = np.random.default_rng(1).integers(0, 255, (200, 28, 28), dtype=np.uint8)
    (data / "mnist/train-images-idx3-ubyte.gz").write_bytes(idx(pixels))
    (outcome,) = reproduce.reproduce(table, data, methods=["AE"], classes=["3"], out=out)
    assert outcome.value is not None and not list((out / "oe-sdn").glob(".*.partial"))


def test_a_persons_tables_in_the_folder_do_not_matter(data, tmp_path):
    table, out = TABLES["oe-sdn/table1"], tmp_path / "results"
    out.mkdir()
    (out / "prices.csv").write_bytes("Größe;Preis\n".encode("latin-1"))
    (outcome,) = reproduce.reproduce(table, data, methods=["AE"], classes=["3"], out=out)
    assert outcome.value is not None
    (out / "oe-sdn/table1.csv").write_text("a,b\n1,2\n")
    with pytest.raises(OkngError, match="choose another --out"):
        reproduce.reproduce(table, data, methods=["AE"], classes=["3"], out=out)


def test_another_table_takes_over_the_same_measurement(data, tmp_path, fits):
    out = tmp_path / "results"
    first = reproduce.reproduce(TABLES["oe-sdn/table1"], data, methods=["AE"], classes=["3"], out=out)
    other = reproduce.reproduce(TABLES["cavga/comparison"], data, methods=["AE L2"], classes=["3"], out=out)
    assert len(fits) == 1
    taken = {outcome.cell.dataset: outcome for outcome in other}
    assert taken["MNIST"].value == pytest.approx(first[0].value, abs=5e-5)
    assert taken["MNIST"].row["method"] == "AE L2" and "oe-sdn/table1" in taken["MNIST"].row["command"]
    assert taken["Fashion-MNIST"].reason == "no data: fashion-mnist/ is not in the folder of data sets"


def test_what_cannot_be_run_is_blank_with_the_reason(data, tmp_path, monkeypatch):
    out = tmp_path / "results"
    table = TABLES["oe-sdn/table2"]
    monkeypatch.setitem(table.runs, "CNN Feature Similarity [28]", Run("not_yet_written"))
    outcomes = reproduce.reproduce(table, data, methods=["AE (ours)", "CNN Feature Similarity"], out=out)
    assert all(outcome.value is None for outcome in outcomes)
    reasons = {outcome.reason for outcome in outcomes}
    assert reasons == {
        "no data: mvtec_ad/ is not in the folder of data sets", "okng has no detector not_yet_written"
    }  # fmt: skip
    assert {row["value"] for row in rows(out / "oe-sdn/table2.csv")} == {""}
    monkeypatch.delitem(cards()["autoencoder"].arguments, "cpu-small")
    (cell,) = reproduce.reproduce(TABLES["oe-sdn/table1"], data, methods=["AE"], classes=["3"], out=out)
    assert cell.reason == "autoencoder has no arguments for the budget cpu on such images"
    monkeypatch.setitem(cards()["autoencoder"].arguments, "cpu-small", {"cod": 3})
    (cell,) = reproduce.reproduce(TABLES["oe-sdn/table1"], data, methods=["AE"], classes=["3"], out=out)
    assert cell.value is None and "did you mean code" in cell.reason


def test_two_commands_do_not_write_to_one_table(data, tmp_path, fits):
    """Or each leaves out the rows that the other has added since it read the file."""
    out = tmp_path / "out"
    with alone(out / "oe-sdn" / ".table1.lock", ""), pytest.raises(OkngError, match="another okng reproduce writes to"):
        reproduce.reproduce(TABLES["oe-sdn/table1"], data, methods=["AE"], classes=["1"], out=out)
    assert not fits


def test_the_time_limit_stops_between_fits(data, tmp_path, monkeypatch):
    out = tmp_path / "results"
    table = TABLES["oe-sdn/table1"]
    clock = iter(range(0, 10_000, 40))  # every look at it, 40 s have gone by
    monkeypatch.setattr(reproduce.time, "monotonic", lambda: float(next(clock)))
    outcomes = reproduce.reproduce(table, data, methods=["AE"], classes=["3", "5", "7"], out=out, minutes=2)
    done = [outcome.value is not None for outcome in outcomes]
    assert done[0] and not done[-1]
    assert {outcome.reason for outcome in outcomes if outcome.value is None} == {"no time left"}
    kept = rows(out / "oe-sdn" / "table1.csv")
    assert len(kept) == sum(done) and all(row["value"] for row in kept)  # what is still to be done has none
    monkeypatch.undo()
    monkeypatch.setitem(cards()["autoencoder"].arguments, "cpu-small", TINY)
    monkeypatch.setitem(table.runs, "AE", Run("autoencoder"))
    later = reproduce.reproduce(table, data, methods=["AE"], classes=["3", "5", "7"], out=out)
    assert all(outcome.value is not None for outcome in later)
    assert later[0].value == pytest.approx(outcomes[0].value, abs=5e-5)
    assert len(rows(out / "oe-sdn/table1.csv")) == 3


@pytest.mark.parametrize("where", ["between fits", "within a fit"])
def test_a_killed_run_goes_on_to_the_same_figures(data, tmp_path, monkeypatch, where):
    monkeypatch.setitem(cards()["autoencoder"].arguments, "cpu-small", {**TINY, "epochs": 3})
    table, classes = TABLES["oe-sdn/table1"], ["2", "4"]
    whole = reproduce.reproduce(table, data, methods=["AE"], classes=classes, out=tmp_path / "whole")
    out = tmp_path / "results"
    with monkeypatch.context() as stopped:
        from okng.training.loop import checkpoint

        write, calls = checkpoint.write_model, []

        def write_then_stop(*arguments):
            write(*arguments)
            calls.append(arguments)
            if len(calls) == (6 if where == "within a fit" else 4):  # each fit writes 3 epochs and its end
                raise KeyboardInterrupt

        stopped.setattr(checkpoint, "write_model", write_then_stop)
        with pytest.raises(KeyboardInterrupt):
            reproduce.reproduce(table, data, methods=["AE"], classes=classes, out=out)
    left = list((out / "oe-sdn").glob(".table1.*.partial"))
    assert len(left) == 1
    written = rows(out / "oe-sdn/table1.csv") if (out / "oe-sdn/table1.csv").exists() else []
    assert [row["class"] for row in written if row["value"]] == (["2"] if where == "within a fit" else [])
    resumed = reproduce.reproduce(table, data, methods=["AE"], classes=classes, out=out)
    assert [f"{o.value:.4f}" for o in resumed] == [f"{o.value:.4f}" for o in whole]
    assert not list((out / "oe-sdn").glob(".*"))


def test_a_fit_that_fails_is_blank_and_the_next_one_runs(data, tmp_path, monkeypatch):
    fit = reproduce.okng.fit

    def fails_once(images, detector, **arguments):
        if np.asarray(images[0])[4 + 2 * 3].mean() > 200:  # a 3
            raise OkngError("the loss is no number; lower learning_rate")
        return fit(images, detector, **arguments)

    monkeypatch.setattr("okng.fit", fails_once, raising=False)
    outcomes = reproduce.reproduce(
        TABLES["oe-sdn/table1"], data, methods=["AE"], classes=["3", "5"], out=tmp_path / "results"
    )
    assert outcomes[0].value is None and outcomes[0].reason == "the loss is no number; lower learning_rate"
    assert outcomes[1].value is not None
    table = rows(tmp_path / "results/oe-sdn/table1.csv")
    assert [(row["value"] != "", row["note"]) for row in table] == [(False, outcomes[0].reason), (True, "")]


@pytest.fixture
def bolts(data):
    """mvtec_ad/transistor with masks, and magnetic_tile: the same pictures."""
    for root in (data / "mvtec_ad/transistor", data / "magnetic_tile"):
        rng = np.random.default_rng(1)
        for folder, count in (("train/good", 12), ("test/good", 4), ("test/crack", 4), ("ground_truth/crack", 4)):
            (root / folder).mkdir(parents=True)
            for i in range(count):
                image = rng.integers(90, 110, (32, 32), dtype=np.uint8)
                if folder == "ground_truth/crack":
                    image = np.zeros((32, 32), np.uint8)
                    image[8:16, 8:16] = 255
                elif folder == "test/crack":
                    image[8:16, 8:16] = 250
                Image.fromarray(image).save(root / folder / f"{i}.png")
    return data


def test_one_fit_serves_several_scores_and_metrics(bolts, tmp_path, fits, monkeypatch):
    monkeypatch.setitem(cards()["autoencoder"].arguments, "cpu-large", TINY)
    table = TABLES["aesc/corruptions"]
    stand_in = {
        name: Run("autoencoder", after={"batch_size": 1 if "residual" in name else 2})
        for name in ("AE, none, residual", "AE, none, uncertainty")
    }
    monkeypatch.setattr("okng.benchmark.tables.TABLES", {})
    changed = type(table)(table.name, table.title, table.blocks, {**table.runs, **stand_in})
    outcomes = reproduce.reproduce(
        changed, bolts, methods=list(stand_in), classes=["transistor", "all"], out=tmp_path / "results"
    )
    assert len(fits) == 2 and len(outcomes) == 8
    assert all(outcome.value is not None and outcome.value > 0.9 for outcome in outcomes)
    assert {outcome.row["dataset"] for outcome in outcomes} == {"MVTec AD transistor", "magnetic tile"}
    assert {json.loads(outcome.row["arguments"])["batch_size"] for outcome in outcomes} == {1, 2}
    again = reproduce.reproduce(
        changed, bolts, methods=list(stand_in), classes=["transistor", "all"], out=tmp_path / "results"
    )
    assert len(fits) == 2 and [f"{o.value:.4f}" for o in again] == [f"{o.value:.4f}" for o in outcomes]


@pytest.mark.parametrize(("share", "kind", "test_ng"), [(1.0, "airplane", 36), (0.25, "airplane", 36), (0.1, "t", 3)])
def test_labelled_ng_images_are_never_tested_on(bolts, share, kind, test_ng):
    dataset = "MVTec AD" if kind == "t" else "CIFAR-10"
    cell = next(
        cell
        for table in ("cavga/comparison", "oe-sdn/table1")
        for cell in TABLES[table].cells
        if cell.dataset == dataset and cell.kind == ("transistor" if kind == "t" else kind)
    )
    job = reproduce.Job(cell, Run("cavga_w", labelled_ng=share), "t", "cpu", 0)
    opened = job.open(bolts)
    assert sum(sample.label == 1 for sample in opened.test) == test_ng
    assert not {sample.image for sample in opened.ng} & {sample.image for sample in opened.test}
    assert len(opened.ng) == {1.0: 36, 0.25: 1, 0.1: 1}[share]
    assert "labelled NG in training" in job.row()["protocol"]


def test_accuracy_is_by_the_classifiers_boundary():
    figures = {"n_ok": 10, "n_ng": 90, "measured_false_alarm_rate": 0.4, "caught": 0.95}
    told = reproduce._figures(figures)
    assert told["accuracy_ok"] == pytest.approx(0.6)
    assert told["accuracy"] == pytest.approx((6 + 85.5) / 100)


def test_published_stands_beside_measured_with_recomputed_means(data, tmp_path):
    table = TABLES["ocgan/mnist"]
    cells = reproduce.select(table, ["DAE", "OCGAN"])
    given = {
        cell: reproduce.Outcome(cell, 0.9 if cell.method == "OCGAN" else None, "no time left", {}) for cell in cells
    }
    columns = beside.columns(table, table.blocks[0], list(given.values()))
    assert list(columns) == ["DAE [4]", "OCGAN"]
    means = {line.name: (line.printed, line.measured) for line in columns["OCGAN"] if line.mean}
    assert means["mean, as printed"] == ("0.9750", None)
    assert means["mean, recomputed"] == ("0.9749", pytest.approx(0.9))
    assert [line.measured for line in columns["DAE [4]"]] == [None] * 12
    text = "\n".join(beside.as_text(table, list(given.values())))
    assert "0.998 | 0.900" in text and "10 cells: no time left" in text
    assert "OCGAN: the printed mean 0.9750 is not that of the printed figures, 0.97490" in text
    some = [outcome for outcome in given.values() if outcome.cell.kind in "38"]
    part = beside.columns(table, table.blocks[0], some)["OCGAN"]
    assert part[-1].name == "mean of the 2 measured" and part[-1].printed == "0.9510"
    assert part[-2].measured is None  # two classes are no mean of ten


def test_a_name_that_is_cut_says_so() -> None:
    table = TABLES["okng/one-vs-rest"]
    cells = [cell for cell in table.cells if cell.method == "OCGAN with attention"][:1]
    text = "\n".join(beside.as_text(table, [reproduce.Outcome(cell, None, reproduce.NO_TIME, {}) for cell in cells]))
    assert "  OCGAN with attenti…\n" in text


def test_the_drawing_is_a_whole_svg_file(data, tmp_path):
    table = TABLES["oe-sdn/table1"]
    outcomes = reproduce.reproduce(table, data, methods=["AE"], classes=["3", "airplane"], out=tmp_path / "r")
    drawing = beside.as_svg(table, outcomes)
    root = ElementTree.fromstring(drawing)
    titles = [element.text for element in root.iter("{http://www.w3.org/2000/svg}title")]
    assert any(title and title.startswith("3: published 0.950, measured") for title in titles)
    assert "nothing has been measured yet" in beside.as_svg(table, [])


def test_the_command(data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = command("reproduce", "oe-sdn/table1", data, "--methods", "AE,SDN", "--classes", "3", "-o", "results")
    assert done.returncode == 0, done.stderr
    assert "0.950 | " in done.stdout and "nor what AE is scored by" in done.stdout
    assert "3: published 0.950, measured" in (tmp_path / "results/oe-sdn/table1.svg").read_text()
    told = json.loads(command("reproduce", "oe-sdn/table1", data, "--methods", "AE", "--classes", "3", "--json").stdout)
    (cell,) = told["cells"]
    assert cell["published"] == "0.950" and 0 < cell["value"] <= 1 and cell["reason"] == ""
    stopped = command("reproduce", "oe-sdn/table1", data, "--methods", "AE", "--time-limit", "0m", "-o", "results")
    assert "19 cells are left, the same command goes on" in stopped.stderr
    command("reproduce", "oe-sdn/table1", data, "--methods", "AE", "--classes", "8", "-o", "results")
    drawing = (tmp_path / "results/oe-sdn/table1.svg").read_text()
    assert "3: published 0.950, measured" in drawing and "8: published 0.912, measured" in drawing


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["oe-sdn/table4"], "did you mean oe-sdn/table"),
        (["oe-sdn/table1", "--methods", "OESDN"], "did you mean OE-SDN"),
        (["oe-sdn/table1", "--classes", "plane"], "did you mean airplane"),
        (["oe-sdn/table1", "--budget", "gpu"], "a budget is cpu or paper"),
    ],
)
def test_mistakes_are_one_line(data, tmp_path, arguments, message):
    table, *options = arguments
    done = command("reproduce", table, data, *options, "-o", tmp_path / "results")
    assert done.returncode == 1 and message in done.stderr.strip().splitlines()[-1]
    missing = command("reproduce", "oe-sdn/table1", tmp_path / "nowhere", "-o", tmp_path / "results")
    assert "give the one that holds mnist/" in missing.stderr


def test_methods_are_named_alone_or_with_commas_between_them():
    def methods(*texts):
        return {cell.method for cell in reproduce.select(TABLES["aesc/corruptions"], texts, ["all"])}

    assert methods("AESc, stain, residual") == {"AESc, stain, residual"}
    assert methods("ae, none, residual", "AESc, drops, uncertainty") == {
        "AE, none, residual",
        "AESc, drops, uncertainty",
    }
    assert methods("aesc") == methods() and len(methods()) == 20
    assert {cell.method for cell in reproduce.select(TABLES["oe-sdn/table1"], ["sdn, AE"], ["3,5", "8"])} == {
        "SDN",
        "AE",
    }


def test_list_tables():
    found = json.loads(command("list", "tables", "--json").stdout)
    assert found["oe-sdn/table1"]["cells"] == 140 and found["oe-sdn/table1"]["printed"] == 154
    assert "okng reproduce TABLE DATA_DIR" in command("list", "tables").stdout


def test_cards_read_what_was_reproduced(data, tmp_path, monkeypatch):
    out = tmp_path / "results"
    for name, method in (("oe-sdn/table1", "AE"), ("cavga/comparison", "AE L2")):
        reproduce.reproduce(TABLES[name], data, methods=[method], classes=["3"], out=out)
    monkeypatch.setattr("okng.benchmark.figures._results", lambda: out)
    (row,) = measured("autoencoder")  # once, though two tables have it; Fashion-MNIST's blank cell is not shown
    assert row["dataset"] == "MNIST 3" and row["source"].startswith("okng reproduce")
    reproduce.reproduce(TABLES["oe-sdn/table1"], data, methods=["AE"], classes=["5", "airplane"], out=out)
    rows = measured("autoencoder")
    digits, airplane = in_short(rows)
    mean = sum(float(row["value"]) for row in rows if "MNIST" in row["dataset"]) / 2
    assert (digits["dataset"], digits["value"]) == ("MNIST mean of 2", f"{mean:.4f}")
    assert "--classes 3,5 " in digits["source"] or "--classes 5,3 " in digits["source"]
    assert airplane["dataset"] == "CIFAR-10 airplane"


def test_the_classifier_learns_and_starts_alike(tmp_path, monkeypatch):
    torch.manual_seed(0)
    assert sum(isinstance(layer, torch.nn.Conv2d) for layer in classifier.vgg11(2)) == 8
    assert classifier.vgg11(4)(torch.zeros(3, 3, 32, 32)).shape == (3, 10)
    rng = np.random.default_rng(0)

    def crops(folder, version, seed):
        from okng.datasets.base import Sample
        from okng.datasets.protocols import Classes

        def some(count):
            return tuple(
                Sample((rng.integers(0, 60, (32, 32, 3)) + 18 * k).astype(np.uint8), kind=kind)
                for k, kind in enumerate("abcdefghij")
                for _ in range(count)
            )

        return Classes(folder, "coco", some(12), some(3))

    monkeypatch.setattr(classifier, "read_coco", crops)
    before = torch.get_rng_state()
    result = classifier.coco_masks(tmp_path, "masked", width=4, epochs=8, batch_size=16)
    assert torch.equal(torch.get_rng_state(), before)  # which is so of whatever takes turns with other fits
    assert result["accuracy"] > 0.4 and (
        result["epochs_to_80"] != result["epochs_to_80"] or result["epochs_to_80"] <= 8
    )


@pytest.mark.real_data
def test_one_real_digit(okng_data, tmp_path, monkeypatch):
    if not (okng_data / "mnist").is_dir():
        pytest.skip("mnist/ is missing")
    (tmp_path / "mnist").mkdir()
    real = read_idx(okng_data / "mnist")
    for part, some in (("train", real.train[::8]), ("t10k", real.test[::5])):
        images, labels = np.stack([one.image for one in some]), np.array([int(one.kind) for one in some], np.uint8)
        (tmp_path / f"mnist/{part}-images-idx3-ubyte.gz").write_bytes(idx(images))
        (tmp_path / f"mnist/{part}-labels-idx1-ubyte.gz").write_bytes(idx(labels))
    settings = {"code": 16, "width": 8, "epochs": 6, "batch_size": 64, "learning_rate": 2e-3}
    monkeypatch.setitem(cards()["autoencoder"].arguments, "cpu-small", settings)
    (outcome,) = reproduce.reproduce(TABLES["oe-sdn/table1"], tmp_path, methods=["AE"], classes=["1"], out=tmp_path)
    assert outcome.value is not None and outcome.value > 0.9
