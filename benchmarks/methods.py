"""Every method on the same real sets with its arguments for CPUs: accuracy, time to learn, time to judge.

    python benchmarks/methods.py DATA [--methods NAME …] [--only SET …] [--seeds 0 1 2] [--device cuda] [--rows FILE]

DATA holds magnetic_tile/ and mvtec_ad/transistor/; ELPV comes from its PyPI package. Whole training sets, of which a
fifth is held out for the threshold; the last epoch, or the one that held-back OK images choose where the method says
so. Times are of the processor, on one thread if OMP_NUM_THREADS=1. A row of results/methods.csv that stands there by
the present code and arguments is not measured again. On a GPU times are left out, as the table's are of a CPU's core.
Writes docs/methods.md, unless the rows go to another FILE.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
from measure import FIELDS, RESULTS, row, usual
from methods_page import COSTS, PAGE, page

import okng
from okng.benchmark.code import is_older
from okng.benchmark.evaluation import evaluate_inspector
from okng.benchmark.reproduce import machine
from okng.benchmark.rows import read_rows, write_rows
from okng.datasets import open_dataset
from okng.detectors.cards import cards
from okng.training.progress import Narrator

PATH = RESULTS / "methods.csv"
SETS = {
    "transistor": "mvtec_ad/transistor", "tile": "magnetic_tile", "mono": "elpv/mono", "poly": "elpv/poly",
}  # fmt: skip


def settings(detector: str) -> dict[str, Any]:
    """What `okng.fit` is given: the arguments for photographs on a CPU, and a fifth held out."""
    return {"promise": "strict", **usual(detector)}


def measured(detector: str, name: str, source: str, seed: int, device: str) -> list[dict]:
    """One fit, its test, and what they took."""
    dataset = open_dataset(source)
    arguments = settings(detector)
    begun, worked = time.monotonic(), time.process_time()
    with Narrator() as tell:
        images = [sample.image for sample in dataset.train]
        inspector = okng.fit(images, detector, seed=seed, device=device, tell=tell, **arguments)
        seconds, fit = time.monotonic() - begun, time.process_time() - worked
        worked = time.process_time()
        figures = evaluate_inspector(inspector, dataset, tell=tell)
    figures["ms_per_image"] = 1e3 * (time.process_time() - worked) / len(dataset.test)  # decoding and metrics too
    figures["fit_seconds"] = fit
    more = {
        "seed": seed, "seconds": f"{seconds:.1f}", "arguments": arguments, "machine": machine(device),
        "command": f"python benchmarks/methods.py DATA --methods {detector} --only {name} --seeds {seed}"
        + f" --device {device}" * (device != "cpu"),
    }  # fmt: skip
    costs = COSTS if device == "cpu" else ()
    wanted = ("image_auroc", "image_ap", "pixel_auroc", "aupro", "measured_false_alarm_rate", "caught", *costs)
    place = (f"{name}-{detector}", detector, dataset.name, dataset.protocol)
    return [row(*place, metric, figures[metric], **more) for metric in wanted if not np.isnan(figures[metric])]


def main() -> None:
    """Measure what is missing, row by row, and write the page."""
    usual = [name for name, card in cards().items() if "cpu-large" in card.arguments]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--methods", nargs="+", default=usual, choices=list(cards()))
    parser.add_argument("--only", nargs="+", default=list(SETS), choices=SETS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--rows", type=Path, default=PATH)
    asked = parser.parse_args()
    path = asked.rows
    for seed in asked.seeds:
        for name in asked.only:
            source = SETS[name] if name in ("mono", "poly") else str(asked.data.expanduser() / SETS[name])
            for detector in asked.methods:
                key = (f"{name}-{detector}", str(seed))
                wanted = str(settings(detector))
                same = [r for r in read_rows(path) if (r["experiment"], r["seed"]) == key]
                if same and not any(is_older(r) or r["arguments"] != wanted for r in same):
                    continue
                rows = measured(detector, name, source, seed, asked.device)
                others = [r for r in read_rows(path) if (r["experiment"], r["seed"]) != key]  # others may add to it
                write_rows(path, FIELDS, [*others, *rows])
                print(name, detector, seed, *(f"{r['metric']} {r['value']}" for r in rows), flush=True)
    if path != PATH:
        return
    PAGE.write_text(page(), encoding="utf-8")
    print(f"wrote {PAGE.relative_to(RESULTS.parent)}")


if __name__ == "__main__":
    main()
