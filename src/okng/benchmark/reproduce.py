"""Run a table of published figures cell by cell, and stand what was measured beside what was printed."""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import platform
import shlex
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import okng
from okng.benchmark.code import is_older, present_code
from okng.benchmark.figures import identity
from okng.benchmark.figures import standing as standing_rows
from okng.benchmark.rows import read_rows, write_rows
from okng.benchmark.tables import Cell, Run, Table
from okng.datasets import Dataset, open_dataset
from okng.datasets.protocols import take_ng
from okng.detectors.budgets import BUDGETS, arguments_for
from okng.detectors.cards import cards
from okng.errors import OkngError, nearest_names
from okng.inspection.storage.locks import alone
from okng.training.progress import Narrator

FIELDS = (
    "detector", "dataset", "protocol", "metric", "value", "published", "method", "class", "arguments", "budget", "seed",
    "seconds", "note", "command", "code", "versions", "machine", "date",
)  # fmt: skip
REQUIRED = {*FIELDS} - {"code"}  # of which earlier files had none


NO_TIME = "no time left"
HOLDOUT = 0.1  # of the OK images: they calibrate, which no AUROC uses
CLASSIFIER: dict[str, dict[str, Any]] = {"cpu": {"width": 16, "epochs": 40}, "paper": {}}  # of `OTHERS`, which is one


@dataclass(frozen=True)
class Source:
    """Where a data set lies in the folder a person gives: the names it may have, and what a class of it is.

    "class" is one named by `normal`, "folder" a folder of its own, "whole" the set itself. `small`: images of 28 to
    32 px.
    """

    names: tuple[str, ...]
    classes: str
    small: bool = False


SOURCES = {
    "MNIST": Source(("mnist", "MNIST", "MNIST/raw"), "class", small=True),
    "Fashion-MNIST": Source(("fashion-mnist", "fashion_mnist", "FashionMNIST/raw"), "class", small=True),
    "CIFAR-10": Source(("cifar10", "cifar-10", "cifar-10-batches-py"), "class", small=True),
    "MVTec AD": Source(("mvtec_ad", "mvtec", "mvtec_anomaly_detection"), "folder"),
    "magnetic tile": Source(("magnetic_tile",), "whole"),
    "ShanghaiTech Campus": Source(("shanghaitech", "ShanghaiTech"), "whole"),
    "COCO crops": Source(("coco", "COCO"), "whole", small=True),
}


@dataclass
class Outcome:
    """A cell with its figure, or with the reason why there is none; `row` is its line of the results file."""

    cell: Cell
    value: float | None
    reason: str
    row: dict[str, str]


def reproduce(
    table: Table,
    data: Path,
    budget: str = "cpu",
    methods: Sequence[str] = (),
    classes: Sequence[str] = (),
    out: Path = Path("results"),
    seed: int = 0,
    minutes: float | None = None,
    tell: Narrator | None = None,
    ray: str | None = None,
) -> list[Outcome]:
    """Measure the cells of `table` that `methods` and `classes` select, all of them by default.

    `methods` are named as printed or by detector. Each fit learns from the protocol's OK images, a tenth held out for
    calibration, and fills every cell that it can. The figures are written to `out`/<table>.csv after each fit; a cell
    that stands there, or in another table's file, with the same arguments, budget and seed, by the detector's present
    code, is not run again, and a fit that was stopped goes on where it was. No fit is begun after `minutes`; its cells
    get no row. A cell that can't be run gets one without a figure, which says why. `ray`: the address of a Ray cluster
    that makes the fits, one on each of its cores or GPUs; all its machines have to see `data` and `out`.
    """
    tell = tell or Narrator(quiet=True)
    started = time.monotonic()
    if budget not in BUDGETS:
        raise OkngError(f"a budget is {' or '.join(BUDGETS)}, not {budget!r}")
    if not data.is_dir():
        raise OkngError(f"{data} is not a folder; give the one that holds mnist/, cifar10/, mvtec_ad/ and so on")
    if ray is not None:
        data, out = data.absolute(), out.absolute()  # the workers are elsewhere
    cells = select(table, methods, classes)
    path = results_file(table.name, out)
    busy = f"another okng reproduce writes to {path}; wait for it, or choose another --out"
    with alone(path.with_name(f".{path.stem}.lock"), busy):
        known = _Known(out)
        outcomes: dict[Cell, Outcome] = {}
        groups: dict[tuple[str, ...], list[Job]] = {}
        for cell in cells:
            job = Job(cell, table.runs[cell.method], table.name, budget, seed)
            reason = job.obstacle(data)
            row = known.find(job)
            if row is not None:
                outcomes[cell] = Outcome(cell, float(row["value"]), "", job.adopt(row))
            elif reason:
                outcomes[cell] = Outcome(cell, None, reason, job.row(note=reason))
            else:
                groups.setdefault(job.fit_key, []).append(job)
        _write(path, outcomes.values())

        def waiting() -> Iterator[list[Job]]:
            """The cells of each fit, as long as there is time."""
            for number, jobs in enumerate(groups.values()):
                if minutes is not None and time.monotonic() - started > 60 * minutes:
                    outcomes.update((job.cell, Outcome(job.cell, None, NO_TIME, job.row(note=NO_TIME))) for job in jobs)
                    continue
                cell, detector = jobs[0].cell, jobs[0].run.detector
                tell.say(f"fit {number + 1} of {len(groups)}: {cell.dataset} {cell.kind}, {detector}")
                if budget == "paper" and detector in cards():
                    tell.say(f"not as in the paper: {cards()[detector].left_out}")
                yield jobs

        for done in _measured(waiting(), data, path, ray, tell):
            _write(path, done)
            outcomes |= {outcome.cell: outcome for outcome in done}
        return [outcomes[cell] for cell in cells]


def select(table: Table, methods: Sequence[str] = (), classes: Sequence[str] = ()) -> list[Cell]:
    """The cells of the named methods and classes; `OkngError` for a name that is none of the table's.

    A text may name several, with commas between them; a method's own commas are no such.
    """
    kinds = {cell.kind for cell in table.cells}
    named = [name for text in classes for name in _parts(text)]
    for kind in named:
        if kind not in kinds:
            raise OkngError(f"{table.name} has no class {kind!r}; {nearest_names(kind, kinds)}")
    wanted: set[str] = set()
    for text in methods:
        for name in [text] if _called(table, text) else _parts(text):
            found = _called(table, name)
            if not found:
                known = [*table.runs, *(run.detector for run in table.runs.values())]
                raise OkngError(f"{table.name} has no method {name!r}; {nearest_names(name, set(known))}")
            wanted |= found
    return [cell for cell in table.cells if (not wanted or cell.method in wanted) and (not named or cell.kind in named)]


def results_file(table: str, out: Path) -> Path:
    """Where the figures of a table are kept."""
    return out / f"{table}.csv"


def standing(table: Table, out: Path, budget: str = "cpu", seed: int = 0) -> list[Outcome]:
    """The cells that the table's file has a figure for, at this budget and seed, in the table's order."""
    rows = {
        (row["dataset"], row["metric"], row["method"]): row
        for row in _rows_of_a_table(results_file(table.name, out))
        if row["value"] and (row["budget"], row["seed"]) == (budget, str(seed))
    }
    found = []
    for cell in table.cells:
        dataset, _, metric = row_name(cell)
        row = rows.get((dataset, metric, cell.method))
        if row is not None:
            found.append(Outcome(cell, float(row["value"]), "", row))
    return found


def _called(table: Table, name: str) -> set[str]:
    """The methods that a person may call so: as printed, without the reference behind it, or by the detector."""
    return {
        printed
        for printed, run in table.runs.items()
        if name.lower() in (printed.lower(), printed.partition(" [")[0].lower(), run.detector)
    }


def _parts(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


@dataclass(frozen=True)
class Job:
    """A cell and what is to be run for it."""

    cell: Cell
    run: Run
    table: str
    budget: str
    seed: int

    @property
    def arguments(self) -> dict[str, Any] | None:
        """What is handed to `okng.fit`; None where the budget has nothing for the detector."""
        if self.run.detector in OTHERS:
            return {**CLASSIFIER[self.budget], **self.run.arguments}
        chosen = arguments_for(self.budget, self.run.detector, SOURCES[self.cell.dataset].small)
        return None if chosen is None else {"holdout": HOLDOUT, **chosen, **self.run.arguments}

    @property
    def settings(self) -> str:
        """All that decides the figure but the data, the budget's name and the seed, as text."""
        given = {**(self.arguments or {}), **self.run.after}
        if self.run.labelled_ng:
            given["labelled_ng"] = self.run.labelled_ng
        if self.run.boundary is not None:
            given["boundary"] = self.run.boundary
        return json.dumps(given, sort_keys=True)

    @property
    def fit_key(self) -> tuple[str, ...]:
        """Cells that agree in this are figures of one fit."""
        cell, fitted = self.cell, replace(self.run, after={}, boundary=None)
        return cell.dataset, cell.protocol, cell.kind, repr(fitted)

    @property
    def identity(self) -> tuple[str, ...]:
        """Two rows that agree in this are the same measurement."""
        return identity(self.row())

    def obstacle(self, data: Path) -> str:
        """Why it can't be run, or nothing."""
        detector = self.run.detector
        if detector not in cards() and detector not in OTHERS:
            return f"okng has no detector {detector}"
        if self.arguments is None:
            return f"{detector} has no arguments for the budget {self.budget} on such images"
        try:
            self.folder(data)
        except OkngError as error:
            return str(error)
        return ""

    def folder(self, data: Path) -> Path:
        """The folder of the cell's data."""
        source = SOURCES[self.cell.dataset]
        found = next((data / name for name in source.names if (data / name).is_dir()), None)
        if found is None:
            raise OkngError(f"no data: {source.names[0]}/ is not in the folder of data sets")
        if source.classes != "folder":
            return found
        if not (found / self.cell.kind).is_dir():
            raise OkngError(f"no data: {self.cell.kind}/ is not in {found.name}/")
        return found / self.cell.kind

    def open(self, data: Path) -> Dataset:
        """The data set, with the labelled NG images the run asks for."""
        by_class = SOURCES[self.cell.dataset].classes == "class"
        dataset = open_dataset(self.folder(data), self.cell.kind if by_class else None, self.seed)
        share = self.run.labelled_ng
        if not 0 < share < 1:
            return dataset if share else replace(dataset, ng=())
        count = max(1, round(share / (1 - share) * len(dataset.train)))
        if dataset.ng:
            return replace(dataset, ng=take_ng(dataset.ng, count, self.seed)[0])
        drawn, rest = take_ng(dataset.test, count, self.seed)
        return replace(dataset, ng=drawn, test=rest)

    def row(self, value: float | None = None, seconds: float | None = None, note: str = "") -> dict[str, str]:
        """The line of the results file."""
        words = ["okng", "reproduce", self.table, "DATA", "--budget", self.budget, "--methods", self.cell.method]
        dataset, protocol, metric = row_name(self.cell)
        if self.run.labelled_ng:
            share = "all" if self.run.labelled_ng == 1 else f"{self.run.labelled_ng:.0%}"
            protocol += f", labelled NG in training: {share}"
        return {
            "detector": self.run.detector, "dataset": dataset, "protocol": protocol, "metric": metric,
            "value": "" if value is None else f"{value:.4f}",
            "published": self.cell.printed,
            "method": self.cell.method, "class": self.cell.kind, "arguments": self.settings, "budget": self.budget,
            "seed": str(self.seed), "seconds": "" if seconds is None else f"{seconds:.1f}", "note": note,
            "command": shlex.join([*words, "--classes", self.cell.kind, "--seed", str(self.seed)]),
            "code": present_code(self.run.detector),
            "versions": versions(), "machine": machine(),
            "date": datetime.date.today().isoformat(),
        }  # fmt: skip

    def adopt(self, row: dict[str, str]) -> dict[str, str]:
        """A measurement made for this table before, or for another one, as a line of this one's file."""
        return {**row, "method": self.cell.method, "class": self.cell.kind, "published": self.cell.printed}


def machine(device: str = "auto") -> str:
    """What a fit on `device` runs on here."""
    import torch

    on_gpu = device == "cuda" or (device == "auto" and torch.cuda.is_available())
    gpu = torch.cuda.get_device_name() if on_gpu else "no GPU"
    return f"{os.cpu_count()} cores, {platform.machine()}, {gpu}"


def versions() -> str:
    """What computed a figure, for its row."""
    python = platform.python_version()
    return f"okng {okng.__version__}, torch {version('torch')}, timm {version('timm')}, Python {python}"


def row_name(cell: Cell) -> tuple[str, str, str]:
    """The columns dataset, protocol and metric of a cell; a class is a part of the data set's name, as on cards."""
    dataset = cell.dataset if cell.kind == "all" else f"{cell.dataset} {cell.kind}"
    return dataset, cell.protocol, cell.metric


class _Known:
    """What stands in the results files, measured by the code that is there now."""

    def __init__(self, out: Path):
        found: list[dict[str, str]] = []
        for path in sorted(out.rglob("*.csv")):
            try:
                rows = read_rows(path)
            except OkngError:
                continue  # a person's file
            found += [row for row in rows if row.get("value") and row.keys() >= REQUIRED]
        self.rows = standing_rows(found)

    def find(self, job: Job) -> dict[str, str] | None:
        row = self.rows.get(job.identity)
        return None if row is None or is_older(row) else row


def _rows_of_a_table(path: Path) -> list[dict[str, str]]:
    rows = read_rows(path)
    if rows and not rows[0].keys() >= REQUIRED:
        raise OkngError(f"{path} is not a file of `okng reproduce`; choose another --out")
    return rows


def _write(path: Path, outcomes: Iterable[Outcome]) -> None:
    """Put the rows into the file, each in place of the one of its cell, budget and seed; atomically.

    A row without a figure never takes the place of one that has it, though that be of earlier arguments.
    """

    def place(row: dict[str, str]) -> tuple[str, ...]:
        return tuple(row[key] for key in ("dataset", "metric", "method", "budget", "seed"))

    rows = {place(row): row for row in _rows_of_a_table(path)}
    for outcome in outcomes:
        key = place(outcome.row)
        if outcome.value is not None or not rows.get(key, {}).get("value"):
            rows[key] = outcome.row
    if rows:
        write_rows(path, FIELDS, rows.values())


def _measured(
    waiting: Iterable[list[Job]], data: Path, path: Path, ray: str | None, tell: Narrator
) -> Iterator[list[Outcome]]:
    """The cells of fit after fit: here one after the other, or on the cluster `ray` as they end."""
    if ray is None:
        for jobs in waiting:
            yield _measure(jobs, data, path, tell)
        return
    from okng.cluster.fits import spread

    for jobs, done, reason in spread(_elsewhere, ((jobs, (jobs, data, path)) for jobs in waiting), ray, tell=tell):
        yield done or _blank(jobs, reason, tell)


def _elsewhere(task: tuple[list[Job], Path, Path]) -> list[Outcome]:
    return _measure(*task, Narrator(quiet=True))


def _blank(jobs: list[Job], reason: str, tell: Narrator, seconds: float | None = None) -> list[Outcome]:
    tell.say(f"left blank: {reason}")
    return [Outcome(job.cell, None, reason, job.row(seconds=seconds, note=reason)) for job in jobs]


def _measure(jobs: list[Job], data: Path, path: Path, tell: Narrator) -> list[Outcome]:
    """One fit, and the figures of all the cells that it serves."""
    start = time.monotonic()
    first = jobs[0]
    try:
        if first.run.detector in OTHERS:
            figures = OTHERS[first.run.detector](first, data, tell)
            values = [figures[job.cell.metric] for job in jobs]
        else:
            values = _fit(jobs, data, path, tell)
    except OkngError as error:
        return _blank(jobs, str(error), tell, time.monotonic() - start)
    seconds = time.monotonic() - start
    done = []
    for job, value in zip(jobs, values, strict=True):
        reason = "" if value == value else "undefined on these test images"
        figure = value if value == value else None
        done.append(Outcome(job.cell, figure, reason, job.row(figure, seconds, reason)))
    return done


def _fit(jobs: list[Job], data: Path, path: Path, tell: Narrator) -> list[float]:
    from okng.benchmark.evaluation import evaluate_inspector
    from okng.training.fit import discard
    from okng.training.loop.checkpoint import StaleCheckpoint

    first = jobs[0]
    dataset = first.open(data)
    given: dict[str, Any] = dict(first.arguments or {})
    if first.run.labelled_ng:
        given["ng"] = [sample.image for sample in dataset.ng]
    # Named by what is fitted and by which code, so that what another fit left behind is never gone on with.
    fitted = (first.identity, present_code(first.run.detector), given.keys())
    mark = hashlib.sha256(repr(fitted).encode()).hexdigest()[:12]
    checkpoint = path.with_name(f".{path.stem}.{mark}.partial")
    path.parent.mkdir(parents=True, exist_ok=True)
    images = [sample.image for sample in dataset.train]
    how: dict[str, Any] = {"seed": first.seed, "checkpoint": checkpoint, "tell": tell, **given}
    try:
        inspector = okng.fit(images, first.run.detector, resume=True, **how)
    except StaleCheckpoint:
        tell.say("what a stopped fit left is of other images; this one begins anew")
        inspector = okng.fit(images, first.run.detector, **how)
    scored: dict[str, dict[str, Any]] = {}
    values = []
    for job in jobs:
        key = repr((job.run.after, job.run.boundary))
        if key not in scored:
            for name, value in job.run.after.items():
                detector = inspector.engine.detector  # type: ignore[attr-defined]
                if not hasattr(detector, name):
                    raise OkngError(f"{job.run.detector} has no {name} to set")
                setattr(detector, name, value)
            judged = inspector if job.run.boundary is None else inspector.with_threshold(job.run.boundary)
            scored[key] = _figures(evaluate_inspector(judged, dataset, tell=tell))
        values.append(float(scored[key][job.cell.metric]))
    discard(checkpoint)
    return values


def _figures(figures: dict[str, Any]) -> dict[str, Any]:
    """With the shares of all and of the OK test images that the threshold judges rightly."""
    ok, ng = figures["n_ok"], figures["n_ng"]
    right_ok, right_ng = 1 - figures["measured_false_alarm_rate"], figures["caught"]
    return {**figures, "accuracy": (ok * right_ok + ng * right_ng) / (ok + ng), "accuracy_ok": right_ok}


def _classifier(job: Job, data: Path, tell: Narrator) -> dict[str, float]:
    from okng.benchmark.classifier import coco_masks

    return coco_masks(job.folder(data), seed=job.seed, tell=tell, **(job.arguments or {}))


# What tables have and is no detector.
OTHERS: dict[str, Callable[[Job, Path, Narrator], dict[str, float]]] = {"vgg11_classifier": _classifier}
