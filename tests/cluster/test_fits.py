"""Fits on a cluster: begun as there is room, tried again where a worker died, and in the end one machine's table."""

from __future__ import annotations

import csv
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.benchmark.test_reproduce import data, small  # noqa: F401 which are fixtures
from tests.cli.test_cli import okng as command_line
from tests.cluster.test_cluster import is_ours
from tests.comparing.methods import Colour, Killed, Mean
from tests.comparing.test_compare import parts, table

import okng
from okng.benchmark import reproduce
from okng.benchmark.tables import TABLES
from okng.cluster import fits
from okng.cluster.joined import room_of
from okng.comparing.runs import Result, Run
from okng.errors import OkngError
from okng.training.progress import Narrator

AE = TABLES["oe-sdn/table1"]


class TaskError(ArithmeticError):
    """As Ray says that a task raised: `cause`."""

    def __init__(self, cause: Exception):
        super().__init__(f"Traceback:\n{cause}")
        self.cause = cause


class Here:
    """Ray's few words, done in this process: the task begun last ends first. A LookupError is a worker that died."""

    exceptions = SimpleNamespace(RayTaskError=TaskError, RayError=(ArithmeticError, LookupError))

    def __init__(self, gpus: int = 0) -> None:
        self.has, self.asked, self.most = {"CPU": 2.0, "GPU": float(gpus)}, {}, 0
        self.rooms: list[float] = []  # cores, each time that somebody looks; what it has, when that is over

    def cluster_resources(self) -> dict[str, float]:
        return self.has

    def nodes(self) -> list[dict[str, Any]]:
        return [{"Alive": True, "Resources": {**self.has, "CPU": self.rooms.pop(0)} if self.rooms else self.has}]

    def remote(self, work: Callable[[Any], Any]) -> Any:
        def options(**how: Any) -> Any:
            self.asked = how
            return SimpleNamespace(remote=lambda task: lambda: work(task))

        return SimpleNamespace(options=options)

    def wait(self, references: list[Any], timeout: float) -> tuple[list[Any], list[Any]]:
        self.most = max(self.most, len(references))
        if self.rooms and not self.rooms[0]:  # without a machine nothing ends
            return [], references
        return references[-1:], references[:-1]

    def get(self, reference: Callable[[], Any]) -> Any:
        try:
            return reference()
        except LookupError:
            raise
        except Exception as error:
            raise TaskError(error) from error


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> Here:
    made = Here()
    monkeypatch.setattr(fits, "joined", lambda address: nullcontext(made))
    return made


def test_tasks_are_taken_as_there_is_room_for_them(here: Here) -> None:
    taken: list[int] = []

    def tasks() -> Iterator[tuple[str, int]]:
        for i in range(6):
            taken.append(i)
            yield f"task {i}", i

    found = fits.spread(lambda task: task * task, tasks(), "local")
    assert next(found) == ("task 1", 1, "") and taken == [0, 1]
    assert sorted(found) == [(f"task {i}", i * i, "") for i in (0, 2, 3, 4, 5)] and here.most == 2
    assert here.asked["num_gpus"] == 0


def test_no_cluster_is_begun_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fits, "joined", None)
    assert not list(fits.spread(abs, [], "local"))


@pytest.mark.parametrize(("device", "gpus", "asked"), [("auto", 1, 1), ("cuda", 1, 1), ("cpu", 1, 0), ("auto", 0, 0)])
def test_a_fit_takes_a_gpu_where_there_are_some(here: Here, device: str, gpus: int, asked: int) -> None:
    here.has["GPU"] = float(gpus)
    assert [done for _, done, _ in fits.spread(abs, [("a", -3)], "local", device)] == [3]
    assert here.asked["num_gpus"] == asked
    if not gpus:
        with pytest.raises(OkngError, match="no GPU"):
            list(fits.spread(abs, [("a", -3)], "local", "cuda"))


def test_a_worker_that_dies_costs_one_try(here: Here) -> None:
    died = {"weak": fits.RETRIES, "dead": fits.RETRIES + 1}

    def work(name: str) -> str:
        if died.get(name, 0):
            died[name] -= 1
            raise LookupError("the worker\nwas killed")
        if name == "wrong":
            raise ZeroDivisionError("of two\nlines")
        return name.upper()

    found = {
        name: (done, why) for name, done, why in fits.spread(work, [(n, n) for n in ["weak", "dead", "wrong", "a"]], "")
    }
    assert found["weak"] == ("WEAK", "") and found["a"] == ("A", "")
    assert found["dead"][0] is None and "died 4 times" in found["dead"][1] and "\n" not in found["dead"][1]
    assert found["wrong"] == (None, "ZeroDivisionError: of two")


def test_what_one_worker_can_not_do_ends_no_other(here: Here) -> None:
    """Such as a fit that another process is at, because Ray took its machine for dead."""

    def work(name: str) -> str:
        if name == "bad":
            raise OkngError("another comparison is at work")
        return name.upper()

    found = sorted(fits.spread(work, [(name, name) for name in ("good", "bad", "late")], "local"), key=str)
    assert found == [("bad", None, "another comparison is at work"), ("good", "GOOD", ""), ("late", "LATE", "")]


def test_machines_may_come_and_go(here: Here, capsys: pytest.CaptureFixture[str]) -> None:
    """While there is none, that is told once; when there are more, more is begun."""
    here.rooms = [1, 1, 0, 0, 0, 3, 3]  # when it begins, and each time that something ended, or nothing for a while
    found = fits.spread(lambda task: task * task, [(f"{i}", i) for i in range(6)], "", tell=Narrator())
    assert sorted(done or 0 for _, done, _ in found) == [0, 1, 4, 9, 16, 25] and here.most == 3
    assert capsys.readouterr().err == "no machine of the cluster is left: what was begun waits for one\n"


def test_machines_that_come_back_are_waited_for_anew(here: Here, capsys: pytest.CaptureFixture[str]) -> None:
    """How long there was none the last time is no part of the patience with the next."""
    here.rooms = [1, 0, 0, 1, 0, 0, 1, 1]
    found = list(fits.spread(abs, [("a", -1), ("b", -2)], "", tell=Narrator()))
    assert [done for _, done, _ in found] == [1, 2]
    assert capsys.readouterr().err == 2 * "no machine of the cluster is left: what was begun waits for one\n"


def test_room_is_counted_machine_by_machine() -> None:
    """A worker is on one machine: the third core of one and the fifth of the other are no worker of two."""
    has = [{"CPU": 5.0, "GPU": 1.0}, {"CPU": 3.0, "GPU": 4.0}, {"GPU": 1.0}, {"CPU": 1.0}]
    nodes = [*({"Alive": True, "Resources": each} for each in has), {"Alive": False, "Resources": has[0]}]
    ray = SimpleNamespace(nodes=lambda: nodes)
    assert room_of(ray, 2, gpu=False) == 3 and room_of(ray, 2, gpu=True) == 2
    assert room_of(ray, 1, gpu=False) == 9 and room_of(ray, 6, gpu=False) == 0


def test_a_cluster_without_machines_is_not_waited_for_for_ever(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fits, "PATIENCE", 0.0)
    here.rooms = [1, *[0] * 9]
    with pytest.raises(OkngError, match="no machine for"):
        list(fits.spread(abs, [("a", -3)], "local"))


def test_a_cluster_that_the_program_has_joined_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is worked on where "auto" is asked for, and never shut down; any other would have to be joined beside it."""
    ray = SimpleNamespace(is_initialized=lambda: True)  # nothing else is asked of it
    monkeypatch.setitem(sys.modules, "ray", ray)
    with fits.joined("auto") as found:
        assert found is ray
    with pytest.raises(OkngError, match=r"call ray\.shutdown\(\) first"), fits.joined("local"):
        pass


def test_a_task_finds_relative_names_where_the_program_does(
    here: Here, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker begins where its cluster was started; data sets of a comparison may have relative names."""
    (tmp_path / "cluster").mkdir()
    (tmp_path / "parts.txt").write_text("of the program")
    monkeypatch.chdir(tmp_path)
    remote = here.remote

    def elsewhere(work: Callable[[Any], Any]) -> Any:
        assert work.__name__ == "read"  # by which Ray calls its processes

        def begun(task: Any) -> Any:
            os.chdir(tmp_path / "cluster")
            return work(task)

        return remote(begun)

    def read(name: str) -> str:
        return Path(name).read_text()

    monkeypatch.setattr(here, "remote", elsewhere)
    assert list(fits.spread(read, [("a", "parts.txt")], "auto")) == [("a", "of the program", "")]


def test_a_comparison_takes_results_in_any_order(here: Here, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each under its method and seed; failures are rows, time is asked for before each fit, paths are whole."""
    folders = set()

    def measure(run: Run, tell: Any) -> Result:
        folders.add(run.folder)
        return Result(run, {"failure": f"seed {run.seed} failed" if run.method.name == "Mean" else f"{run.seed}"}, {})

    monkeypatch.setattr(Run, "measure", measure)
    monkeypatch.chdir(tmp_path)
    found = okng.compare(parts(tmp_path / "parts"), [Mean, Colour], seeds=3, output="out", device="cpu", ray="local")
    assert [row.reason for row in found.sets[0].rows] == ["seed 2 failed", "2"]
    assert folders == {tmp_path / "out" / "runs"} and (tmp_path / "out" / "parts.csv").exists()
    left = okng.compare(tmp_path / "parts", Mean, output="out", device="cpu", ray="local", time_limit="0s").left
    assert left == ["parts: Mean, seed 0"]


@pytest.mark.usefixtures("data")
def test_a_table_is_the_same_from_a_cluster(here: Here, tmp_path: Path) -> None:
    what: dict[str, Any] = {"methods": ["AE"], "classes": ["3", "airplane"]}
    alone = reproduce.reproduce(AE, tmp_path / "data", out=tmp_path / "alone", **what)
    spread = reproduce.reproduce(AE, tmp_path / "data", out=tmp_path / "cluster", ray="local", **what)
    assert [(one.cell, one.value) for one in spread] == [(one.cell, one.value) for one in alone]
    assert figures(tmp_path / "cluster") == figures(tmp_path / "alone") and len(figures(tmp_path / "alone")) == 2
    assert here.most == 2


@pytest.mark.usefixtures("data")
def test_a_cell_whose_workers_die_is_blank(here: Here, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def die(*given: Any) -> None:
        raise LookupError("killed")

    monkeypatch.setattr(reproduce, "_measure", die)
    what: dict[str, Any] = {"methods": ["AE"], "classes": ["3"], "out": tmp_path / "out", "ray": "local"}
    (found,) = reproduce.reproduce(AE, tmp_path / "data", **what)
    assert found.value is None and "died 4 times" in found.reason and figures(tmp_path / "out")["MNIST 3"][0] == ""


def figures(out: Path) -> dict[str, tuple[str, str]]:
    """Value and reason of each data set in the table's file."""
    with (out / "oe-sdn" / "table1.csv").open(newline="") as file:
        return {row["dataset"]: (row["value"], row["note"]) for row in csv.DictReader(file)}


def task_of_ours() -> int | None:
    """A worker of a cluster of this process that fits."""
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if b"ray::_elsewhere" in (entry / "cmdline").read_bytes() and is_ours(entry):
                return int(entry.name)
        except OSError:
            continue
    return None


@pytest.mark.slow
def test_a_worker_killed_in_the_middle_of_a_fit_loses_nothing(tmp_path: Path) -> None:
    """The table of a real cluster is that of one machine, failures and all."""
    pytest.importorskip("ray", reason="Ray is not installed: pip install '.[ray]'")
    shop = parts(tmp_path / "parts")
    asked = [(Colour, {"epochs": 20, "pause": 0.05}), Mean, Killed]
    okng.compare(shop, asked, output=tmp_path / "alone", device="cpu")
    killed: list[int] = []

    def kill() -> None:
        while not list((tmp_path / "cluster" / "runs").glob("*.partial*")):
            time.sleep(0.05)
        if (pid := task_of_ours()) is not None:
            killed.append(pid)
            os.kill(pid, signal.SIGKILL)

    threading.Thread(target=kill, daemon=True).start()
    okng.compare(shop, asked, output=tmp_path / "cluster", device="cpu", ray="local")
    assert killed and table(tmp_path / "cluster" / "parts.csv") == table(tmp_path / "alone" / "parts.csv")
    left = [path.name for path in (tmp_path / "cluster" / "runs").iterdir() if path.suffix not in (".json", ".npz")]
    assert not left


@pytest.mark.slow
@pytest.mark.usefixtures("data")
def test_a_printed_table_by_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray", reason="Ray is not installed: pip install '.[ray]'")
    monkeypatch.undo()  # the workers know nothing of what is smaller here
    words = ["reproduce", "oe-sdn/table1", tmp_path / "data", "--methods", "AE", "--classes", "3,airplane"]
    for out, more in (("alone", []), ("cluster", ["--ray", "local"])):
        done = command_line(*words, "-o", tmp_path / out, *more)
        assert done.returncode == 0, done.stderr
    assert figures(tmp_path / "cluster") == figures(tmp_path / "alone")
    assert all(value for value, _ in figures(tmp_path / "cluster").values())
