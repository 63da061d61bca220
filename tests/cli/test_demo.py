"""`okng demo` says how long it takes and has a first result before it learns everything."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from tests.cli.test_cli import okng, one_line
from tests.contract.conftest import EXAMPLE, pictures

from okng.cli import demo
from okng.datasets import NG, OK, Dataset, Sample
from okng.detectors.catalogue import name_of

pytest.importorskip("elpv_dataset")


def cells(name: str, seed: int) -> Dataset:
    def samples(count: int, start: int, label: int) -> tuple[Sample, ...]:
        return tuple(Sample(image, label, "mono") for image in pictures(count, start, label == NG))

    return Dataset(name, "elpv", "made up", samples(30, 1, OK), samples(8, 2, OK) + samples(9, 3, NG))


def test_a_first_look_comes_before_the_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("okng.datasets.open_dataset", cells)
    monkeypatch.setattr(demo, "FEW_OK", 12)
    monkeypatch.setattr(demo, "FEW_TESTED", 5)
    done = okng("demo", "-o", tmp_path / "out", "-d", name_of(EXAMPLE), "--json")
    assert done.returncode == 0, done.stderr
    told = done.stderr
    assert "learnt from 8 OK cells: 5 of 5 NG cells are called NG" in told
    assert told.index("as long as example_of") < told.index("first look, learnt") < told.index("elpv/mono: made up")
    figures = json.loads(done.stdout)
    assert figures.keys() == {"mono", "poly"}
    assert all((figure["n_ok"], figure["n_ng"]) == (8, 9) for figure in figures.values())  # of all of them, as ever
    written = {path.name for path in (tmp_path / "out").iterdir()}
    pages = {f"{page}.{kind}" for page in ("first", "mono", "poly") for kind in ("html", "csv")}
    assert written == pages | {"mono.okng", "poly.okng"}


def test_what_the_first_look_tests_it_has_not_learnt() -> None:
    few = demo._few(cells("elpv/mono", 0))
    learnt = {sample.image.tobytes() for sample in few.train if isinstance(sample.image, np.ndarray)}
    assert len(few.train) == 30 and [sample.label for sample in few.test] == [OK] * 8 + [NG] * 9
    assert not any(sample.image.tobytes() in learnt for sample in few.test if isinstance(sample.image, np.ndarray))


def test_both_extras_are_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert one_line(okng("demo")).endswith("run: pip install '.[train,demo]'")
