"""`okng.compare`: which method finds most on these images, what it costs, which differences are more than chance."""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from okng.benchmark.figures import headlines
from okng.benchmark.rows import json_ready, write_rows
from okng.checks import check_rate, plain, seconds_of
from okng.comparing.page import as_text, write_page, write_ranks
from okng.comparing.runs import Method, Result, Run, check_detectors, without_images
from okng.comparing.sets import Comparable, auxiliary_for, comparable, digest_of
from okng.comparing.statistics import Ranks, ranked
from okng.comparing.table import COMPARED, COSTS, FIGURES, Row, rows_of
from okng.datasets import Dataset
from okng.datasets.detect import opened
from okng.detectors.base import Detector
from okng.detectors.budgets import BUDGETS
from okng.detectors.cards import cards
from okng.detectors.catalogue import detector_class, find, name_of
from okng.errors import OkngError, nearest_names
from okng.inspection.inspector import Images
from okng.inspection.model_file import write_atomically
from okng.inspection.reading.images import Source
from okng.inspection.storage.locks import alone
from okng.report.language import translator
from okng.training.images.input import on_budget
from okng.training.images.reading import with_header
from okng.training.loop.ranks import check_device
from okng.training.progress import Narrator, narrated

Asked = str | type[Detector] | tuple[str | type[Detector], dict[str, Any]]
NO_TIME = "no time left"


@dataclass
class Compared:
    """The methods on one data set, in the order asked; `left` names the fits that there was no time to begin."""

    name: str
    protocol: str
    held_back: bool
    rows: list[Row]
    counts: dict[str, int]
    shown: tuple[str, ...]
    false_alarm_rate: float
    left: list[str] = field(default_factory=list)
    page: Path = Path()


@dataclass(repr=False)
class Comparison:
    """What `okng.compare` found: a `Compared` per data set, and where several have figures of all methods, their ranks.

    `ranked` are the methods that `ranks` is about, in its order.
    """

    sets: list[Compared]
    ranked: list[str]
    ranks: Ranks | None
    command: str

    def __repr__(self) -> str:
        return "\n\n".join("\n".join(as_text(compared)) for compared in self.sets)

    @property
    def left(self) -> list[str]:
        """The fits that were not begun for lack of time; the same call goes on with them."""
        return [name for compared in self.sets for name in compared.left]

    def to_json(self) -> dict[str, Any]:
        """All figures, seed by seed too, as JSON values; NaN is None."""
        content: dict[str, Any] = {"command": self.command, "sets": [_as_json(compared) for compared in self.sets]}
        if self.ranks is not None:
            content["ranks"] = {
                "methods": self.ranked, "average": self.ranks.average.tolist(),
                "of_each_set": self.ranks.ranks.tolist(),
                "friedman_chi2": self.ranks.chi2, "iman_davenport_f": self.ranks.f, "p": self.ranks.p,
                "critical_difference": self.ranks.difference,
            }  # fmt: skip
        ready: dict[str, Any] = json_ready(content)
        return ready


@narrated
def compare(
    data: Dataset | str | Path | Sequence[Dataset | str | Path],
    detectors: Asked | Sequence[Asked] | None = None,
    *,
    seeds: int = 1,
    time_limit: float | str | None = None,
    budget: str = "cpu",
    auxiliary: Images | None = None,
    output: str | Path = "comparison",
    false_alarm_rate: float = 0.05,
    normal: str | int | None = None,
    protocol: str | None = None,
    abnormal: str | int | None = None,
    device: str = "auto",
    ray: str | None = None,
    command: str = "",
    language: str = "en",
    progress: bool = False,
    tell: Narrator | None = None,
) -> Comparison:
    """Fit and judge several detectors on the same images, and write one page per data set that says how they differ.

    `data`: a folder in any layout of `okng list datasets`, an opened `Dataset`, or several of them; `normal`,
    `protocol` and `abnormal` divide it as in `okng.datasets.open_dataset`. A folder of OK images alone will do: a fifth
    of them is held back, and says what false alarms and costs are. `detectors`: names of `okng list`, your own classes,
    or either with arguments, ("patchcore", {"coreset": 0.1}); all of the catalogue by default, the quickest first.
    Those that need NG images are run where the data set has labelled ones for training. `seeds`: how many fits of each,
    with the seeds 0, 1, ...; figures are their means. `budget`: "cpu" or "paper", as in `okng.fit`. `auxiliary`: images
    of anything else, such as textures, for those of the detectors that can use them. `time_limit`: begin no fit after
    so many minutes, or "90s", "60m", "2h". `false_alarm_rate`: the share of OK images that may be called NG.
    `language` of the pages: "en" or "ko".

    `output` is a folder: NAME.html, NAME.csv and NAME.json for each data set, rewritten after every fit, and for
    several ranks.html. What is measured is kept in its folder runs/, each fit under its images, arguments, seed and
    code, so that the same call goes on where it was stopped, in the middle of a fit too, and measures again only what
    has changed. Every fit has a process of its own, which tells its memory and time; one that fails leaves a row that
    says why, and is tried again by the next call: from its beginning, or where memory, a disk's room or a file was
    missing, from where it was. `device`: where PyTorch fits; judging is on the CPU. `ray`: the address of a Ray cluster
    that makes the fits, one on each of its cores or GPUs; all its machines have to see the images and `output`.

    Raises `OkngError` for data that can't be read, names that don't exist, and a folder that can't be written or that
    another comparison writes to.
    """
    started = time.monotonic()
    tell = tell or Narrator(quiet=True)
    false_alarm_rate, seeds = plain("false_alarm_rate", false_alarm_rate), plain("seeds", seeds)
    check_rate(false_alarm_rate)
    translator(language)
    if budget not in BUDGETS:
        raise OkngError(f"a budget is {' or '.join(BUDGETS)}, not {budget!r}")
    if not isinstance(seeds, int) or seeds < 1:
        raise OkngError(f"seeds is how many fits each method gets, 1 or more, not {seeds!r}")
    if ray is None:  # the machines of a cluster have devices of their own
        check_device(device, "f32")
    seconds = seconds_of(time_limit)
    methods = _methods(detectors)
    folder = Path(output).expanduser()
    folder = folder if ray is None else folder.absolute()  # the workers are elsewhere
    given = [data] if isinstance(data, Dataset | str | Path) else list(data)
    if not given:
        raise OkngError("there is no data set to compare on; give at least one")
    datasets = [opened(one, normal, 0, protocol, abnormal) for one in given]
    beside = auxiliary_for([method.detector for method in methods], auxiliary)
    sets = [
        _Set(comparable(dataset, tell), name, methods, budget, folder, false_alarm_rate, beside)
        for dataset, name in zip(datasets, _names(datasets), strict=True)
    ]
    command = command or "okng.compare(...)"
    runs = [(of, run) for seed in range(seeds) for of in sets for run in of.runs(seed, device)]

    def waiting() -> Iterator[tuple[_Set, Run]]:
        """The runs that are still to be measured, as long as there is time."""
        for number, (of, run) in enumerate(runs):
            name = f"{of.name}: {run.method.name}, seed {run.seed}"
            result = run.result()
            if result is not None:
                of.take(replace(result, run=without_images(run)))
            elif seconds is not None and time.monotonic() - started > seconds:
                of.left.append(name)
            else:
                tell.say(f"fit {number + 1} of {len(runs)}: {name}")
                yield of, run

    with alone(folder / ".lock", f"another comparison is at work in {folder}; wait for it, or choose another folder"):
        for (of, run), result in _measured(waiting(), ray, device, tell):
            if result.failure:
                tell.say(f"{run.method.name} failed: {result.failure}")
            of.take(replace(result, run=without_images(run)))
            _write(sets, command, folder, language)
        return _write(sets, command, folder, language)


def _measured(
    waiting: Iterable[tuple[_Set, Run]], ray: str | None, device: str, tell: Narrator
) -> Iterator[tuple[tuple[_Set, Run], Result]]:
    """The runs with their results: here one after the other, or on the cluster `ray` as they end."""
    if ray is None:
        for of, run in waiting:
            yield (of, run), run.measure(tell)
        return
    from okng.cluster.fits import spread

    for (of, run), result, reason in spread(_elsewhere, (((of, run), run) for of, run in waiting), ray, device, tell):
        yield (of, run), result or Result(run, {"failure": reason}, {})


def _elsewhere(run: Run) -> Result:
    """Measure `run` in a process that knows nothing yet."""
    if run.method.kind is not None:
        name_of(run.method.kind)  # makes it known there
    return replace(run.measure(Narrator(quiet=True)), run=without_images(run))


class _Set:
    """A data set while methods are run on it."""

    def __init__(
        self, given: Comparable, name: str, methods: list[Method], budget: str, folder: Path, false_alarm_rate: float,
        auxiliary: tuple[Source, ...],
    ):  # fmt: skip
        self.given, self.name, self.folder, self.rate = given, name, folder, false_alarm_rate
        self.auxiliary, self.beside = auxiliary, digest_of(auxiliary)
        self.methods: list[Method] = []
        self.reasons: dict[str, str] = {}
        self.results: dict[str, list[Result]] = {}
        self.failures: dict[str, list[Result]] = {}
        self.left: list[str] = []
        try:
            sources, _ = with_header([sample.image for sample in given.dataset.train], False, Narrator(quiet=True))
        except OkngError as error:
            raise OkngError(f"{given.dataset.name}: {error}") from error
        for method in methods:
            try:
                if detector_class(method.detector).needs_ng and not given.dataset.ng:
                    raise OkngError("it learns from some NG images too, and this data set labels none for training")
                chosen = on_budget(budget, method.detector, sources, Narrator(quiet=True)) if _has_card(method) else {}
                self.methods.append(replace(method, arguments={**chosen, **method.arguments}))
            except OkngError as error:
                self.methods.append(method)
                self.reasons[method.name] = str(error)

    def runs(self, seed: int, device: str) -> list[Run]:
        """The runs of one seed, of all methods that can be run."""
        found = []
        for method in self.methods:
            if method.name not in self.reasons:
                dataset = self.given.dataset
                if not detector_class(method.detector).needs_ng:
                    dataset = replace(dataset, ng=())
                place = self.folder / "runs"
                given = self.given
                what = (method, dataset, given.data, given.shown, given.held_back)
                beside = self.auxiliary if detector_class(method.detector).takes_auxiliary else ()
                found.append(Run(*what, seed, self.rate, device, place, beside, self.beside))
        return found

    def take(self, result: Result) -> None:
        """One result more; a cluster has them in no order."""
        results = self.results if not result.failure else self.failures
        found = results.setdefault(result.run.method.name, [])
        found.append(result)
        found.sort(key=lambda one: one.run.seed)

    def compared(self) -> Compared:
        """The table so far."""
        dataset = self.given.dataset
        labels = [sample.label for sample in dataset.test if sample.label is not None]
        begun = self.results.keys() | self.failures.keys()
        reasons = {of.name: NO_TIME if self.left else "not yet" for of in self.methods if of.name not in begun}
        reasons |= self.reasons | {name: failed[-1].failure for name, failed in self.failures.items()}
        counts = {"train": len(dataset.train), "ok": labels.count(0), "ng": labels.count(1)}
        counts["masks"] = sum(sample.mask is not None for sample in dataset.test)
        rows = rows_of(self.methods, self.results, reasons)
        return Compared(
            dataset.name, dataset.protocol, self.given.held_back, rows, counts, self.given.shown, self.rate,
            list(self.left), self.folder / f"{self.name}.html",
        )  # fmt: skip


def _write(sets: list[_Set], command: str, folder: Path, language: str) -> Comparison:
    """All files, each whole or not at all."""
    compared = [of.compared() for of in sets]
    names, ranks = _ranks(compared)
    comparison = Comparison(compared, names, ranks, command)
    for one in compared:
        write_rows(one.page.with_suffix(".csv"), COLUMNS, [_csv_row(one, row) for row in one.rows])
        content = json.dumps(json_ready({"command": command, **_as_json(one)}), indent=1)
        write_atomically(one.page.with_suffix(".json"), content.encode())
        write_page(one, command, language)
    if len(compared) > 1:
        write_atomically(folder / "ranks.json", json.dumps(comparison.to_json(), indent=1).encode())
        write_ranks(folder / "ranks.html", comparison, language)
    return comparison


def _ranks(compared: list[Compared]) -> tuple[list[str], Ranks | None]:
    """Ranks by image AUROC of the methods that have one on every data set, where there are several sets that can."""
    compared = [one for one in compared if one.counts["ng"]]
    if len(compared) < 2:
        return [], None
    values = [{row.method.name: row.figures["image_auroc"].value for row in one.rows} for one in compared]
    names = [name for name in values[0] if all(not math.isnan(one[name]) for one in values)]
    if len(names) < 2:
        return names, None
    return names, ranked(np.array([[one[name] for name in names] for one in values]))


AGAINST = "_p_against_best"
BEHIND = ("", "_low", "_high")
COLUMNS = (
    "method", "detector", "arguments", "seeds", "n_ok", "n_ng", *(name + end for name in FIGURES for end in BEHIND),
    *(name + AGAINST for name in COMPARED), "planted_found", *COSTS, "reason", "code", "versions",
    "ran_on",
)  # fmt: skip


def _csv_row(compared: Compared, row: Row) -> dict[str, str]:
    numbers = {name + AGAINST: row.figures[name].p for name in COMPARED}
    for name, figure in row.figures.items():
        numbers |= dict(zip((name + end for end in BEHIND), (figure.value, figure.low, figure.high), strict=True))
    figures = {name: "" if math.isnan(number) else f"{number:.4f}" for name, number in numbers.items()}
    costs = {name: "" if value is None else f"{value:.6g}" for name, value in row.costs.items()}
    return {
        "method": row.method.name, "detector": row.method.detector,
        "arguments": json.dumps(row.method.arguments, sort_keys=True, default=str), "seeds": str(len(row.each)),
        "n_ok": str(row.n_ok), "n_ng": str(row.n_ng), **figures,
        "planted_found": f"{row.planted['found']:.4f}" if "found" in row.planted else "", **costs, "reason": row.reason,
        "code": row.method.code, "versions": row.versions, "ran_on": "; ".join(row.ran_on),
    }  # fmt: skip


def _as_json(compared: Compared) -> dict[str, Any]:
    return {
        "data": compared.name, "protocol": compared.protocol, "images": compared.counts,
        "asked_false_alarm_rate": compared.false_alarm_rate, "left": compared.left,
        "methods": [
            {
                "method": row.method.name, "detector": row.method.detector, "arguments": row.method.arguments,
                "reason": row.reason, "learnt_from": row.learnt, "code": row.method.code, "versions": row.versions,
                "ran_on": row.ran_on,
                "figures": {
                    name: {
                        "value": figure.value, "low": figure.low, "high": figure.high, "p_against_best": figure.p,
                        "best": figure.best, "not_distinguishable_from_best": figure.alike,
                    }
                    for name, figure in row.figures.items()
                },
                "costs": row.costs, "notes": row.notes, "stopped_and_gone_on": row.stops, "each_seed": row.each,
                "planted": row.planted,
            }
            for row in compared.rows
        ],
    }  # fmt: skip


def _methods(detectors: Asked | Sequence[Asked] | None) -> list[Method]:
    """What was asked for as methods with names of their own; all of the catalogue, the quickest first, for None."""
    if detectors is None:
        several: list[Any] = _quickest_first(cards())
    elif isinstance(detectors, str | type) or (isinstance(detectors, tuple) and isinstance(detectors[-1], dict)):
        several = [detectors]
    else:
        several = list(detectors)
    found: list[Method] = []
    for asked in several:
        detector, arguments = asked if isinstance(asked, tuple) else (asked, {})
        name = name_of(detector)
        kind = detector_class(name) if name not in cards() else None
        words = ", ".join(f"{key}={value}" for key, value in arguments.items())
        called = name.rpartition(":")[2]  # of a class from outside, its own name
        given = {key: plain(key, value) for key, value in arguments.items()}
        method = Method(f"{called} ({words})" if words else called, name, given, kind)
        twin = next((other for other in found if other.name == method.name), None)
        if twin is not None and twin.detector != method.detector:
            method = replace(method, name=f"{name} ({words})" if words else name)
        if method.name not in [other.name for other in found]:
            found.append(method)
    if not found:
        raise OkngError("there is no detector to compare; give some of `okng list`")
    check_detectors([method.detector for method in found])
    return found


def of_family(family: str) -> list[str]:
    """The catalogue's detectors of a family, the quickest first; the error names the nearest families."""
    families = {card.family for card in cards().values()}
    wanted = family.lower().replace("_", " ").replace("-", " ")
    if wanted not in families:
        raise OkngError(f"there is no family {family!r}; {nearest_names(wanted, families)}")
    return _quickest_first(name for name, card in cards().items() if card.family == wanted)


def _quickest_first(detectors: Iterable[str]) -> list[str]:
    """What trains nothing first, then by the time that `okng list` prints; what has none yet comes last."""
    times = {name: row["seconds"] for name, row in headlines().items() if row["seconds"] is not None}
    return sorted(detectors, key=lambda name: (not detector_class(name).collects_only, times.get(name, math.inf)))


def _has_card(method: Method) -> bool:
    """Whether budgets know it; a detector from outside keeps its own defaults."""
    return find(method.detector).family != "from outside"


def _names(datasets: Sequence[Dataset]) -> list[str]:
    """A file's name for each data set."""
    names: list[str] = []
    for dataset in datasets:
        plain_name = re.sub(r"[^\w.]+", "-", dataset.name).strip("-.") or "data"
        while plain_name in (*names, "ranks"):
            plain_name += "-2"
        names.append(plain_name)
    return names
