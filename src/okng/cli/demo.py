"""`okng demo`: the whole trip on real solar cells that pip brings."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from okng.cli.common import DETECTOR

if TYPE_CHECKING:
    from okng.datasets import Dataset

FEW_OK, FEW_TESTED = 60, 20  # cells of a first look: OK ones to learn from, and tested ones of either kind


def demo(
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for models and reports.")] = Path("okng-demo"),
    detector: Annotated[str | None, typer.Option("-d", "--detector", help=DETECTOR)] = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")] = False,
) -> None:
    """Train on OK solar cells, inspect unseen OK and defective ones, write a report; offline, in about two minutes."""
    from importlib.util import find_spec

    from okng.cli.common import check_writable, print_json, say, show_dataset
    from okng.datasets import open_dataset
    from okng.detectors.catalogue import DEFAULT, name_of
    from okng.errors import missing_extra

    if missing := [package for package in ("torch", "elpv_dataset") if find_spec(package) is None]:
        raise missing_extra(missing[0], "train,demo")
    detector = name_of(detector or DEFAULT)
    check_writable(output / "mono.okng")
    time = "about two minutes on 2 CPU cores" if detector == DEFAULT else f"as long as {detector} takes to learn"
    say(f"{time}, a first look in a quarter of that; models and reports go to {output}/\n")
    sets = {kind: open_dataset(f"elpv/{kind}", seed=seed) for kind in ("mono", "poly")}

    import okng
    from okng.benchmark.evaluation import evaluate_inspector, metric_lines
    from okng.report import Report
    from okng.training.progress import Narrator

    few = _few(sets["mono"])
    with Narrator() as tell:
        first = okng.fit([sample.image for sample in few.train], detector, holdout=1 / 3, seed=seed, tell=tell)
        page = Report("Solar cells, a first look", first)
        figures = evaluate_inspector(first, few, page, tell)
    caught, called = (round(figures[share] * FEW_TESTED) for share in ("caught", "measured_false_alarm_rate"))
    learnt = first.manifest["provenance"]["learnt_from"]
    say(f"a first look, learnt from {learnt} OK cells: {caught} of {FEW_TESTED} NG cells are called NG,")
    say(f"and {called} of {FEW_TESTED} OK ones; report: {page.write(output / 'first.html').resolve()}")
    say("now from all of them:\n")

    results = {}
    for kind, dataset in sets.items():
        show_dataset(dataset)
        with Narrator() as tell:
            images = [sample.image for sample in dataset.train]
            inspector = okng.fit(images, detector, promise="strict", seed=seed, tell=tell)  # and the quicker fit
            inspector.manifest["provenance"]["source"] = dataset.name
            inspector.save(output / f"{kind}.okng")
            page = Report(f"Solar cells, {kind}crystalline", inspector)
            figures = evaluate_inspector(inspector, dataset, page, tell)
        metrics = {key: figures[key] for key in ("image_auroc", "image_ap", "f1_max")}
        figures["report"] = str(page.write(output / f"{kind}.html", metrics).resolve())
        figures["model"] = str((output / f"{kind}.okng").resolve())
        for line in metric_lines(figures):
            say(line)
        say(f"report: {figures['report']}\n")
        results[kind] = figures
    if as_json:
        print_json(results)


def _few(dataset: Dataset) -> Dataset:
    """A small part of `dataset`, drawn as it was: what is tested was not learnt."""
    from dataclasses import replace

    from okng.datasets import NG, OK

    tested = [[sample for sample in dataset.test if sample.label == label][:FEW_TESTED] for label in (OK, NG)]
    return replace(dataset, train=dataset.train[:FEW_OK], test=tuple(tested[0] + tested[1]))
