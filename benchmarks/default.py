"""The default detector and its presets on the real sets, beside PatchCore at the same sizes: accuracy and time.

    python benchmarks/default.py DATA [--only SET …] [--heads NAME …] [--seeds 0 1 2]

DATA holds magnetic_tile/ and mvtec_ad/transistor/; ELPV comes from its PyPI package. Whole training sets. Each row of
results/default.csv says its command; a row that stands there by the present code is not measured again.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
from measure import FIELDS, METRICS, RESULTS, row

import okng
from okng.benchmark.code import is_older
from okng.benchmark.evaluation import evaluate_inspector
from okng.benchmark.rows import read_rows, write_rows
from okng.datasets import open_dataset
from okng.training.progress import Narrator

PATH = RESULTS / "default.csv"
SETS = {
    "transistor": "mvtec_ad/transistor", "tile": "magnetic_tile", "mono": "elpv/mono", "poly": "elpv/poly",
}  # fmt: skip
HEADS: dict[str, dict[str, Any]] = {
    "default": {},
    "fast": {"preset": "fast"},
    "best": {"preset": "best"},
    "patchcore": {"detector": "patchcore"},
    "patchcore-own-size": {"detector": "patchcore"},  # at the size that the default takes
}


def measured(name: str, head: str, source: str, seed: int) -> list[dict]:
    """One fit, its test, and what they took."""
    dataset, arguments = open_dataset(source), dict(HEADS[head])
    detector = arguments.get("detector", "patch_memory")
    images = [sample.image for sample in dataset.train]
    if head == "patchcore-own-size":
        arguments["size"] = OWN_SIZE[name]
    begun, worked = time.monotonic(), time.process_time()
    with Narrator() as tell:
        inspector = okng.fit(images, seed=seed, tell=tell, **arguments)
        fitted, fit_work = time.monotonic() - begun, time.process_time() - worked
        worked = time.process_time()
        figures = evaluate_inspector(inspector, dataset, tell=tell)
    figures["ms_per_image"] = 1e3 * (time.process_time() - worked) / len(dataset.test)
    figures["fit_seconds"] = fit_work
    given = {key: value for key, value in arguments.items() if key != "detector"}
    more = {
        "seed": seed, "seconds": f"{fitted:.1f}", "arguments": given or "defaults",
        "command": f"python benchmarks/default.py DATA --only {name} --heads {head} --seeds {seed}",
    }  # fmt: skip
    wanted = (*METRICS, "fit_seconds", "ms_per_image")
    place = (f"{name}-{head}", detector, dataset.name, dataset.protocol)
    return [row(*place, metric, figures[metric], **more) for metric in wanted if not np.isnan(figures[metric])]


OWN_SIZE = {"transistor": 320, "tile": 298, "mono": 300, "poly": 300}


def main() -> None:
    """Measure what is missing, row by row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--only", nargs="+", default=list(SETS), choices=SETS)
    parser.add_argument("--heads", nargs="+", default=["default"], choices=HEADS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    asked = parser.parse_args()
    for seed in asked.seeds:
        for head in asked.heads:
            for name in asked.only:
                key = (f"{name}-{head}", str(seed))
                standing = read_rows(PATH) if PATH.exists() else []
                same = [r for r in standing if (r["experiment"], r["seed"]) == key]
                if same and not any(is_older(r) for r in same):
                    continue
                source = SETS[name] if name in ("mono", "poly") else str(asked.data.expanduser() / SETS[name])
                rows = measured(name, head, source, seed)
                standing = read_rows(PATH) if PATH.exists() else []  # another process may have added to it
                write_rows(PATH, FIELDS, [*(r for r in standing if (r["experiment"], r["seed"]) != key), *rows])
                print(name, head, seed, *(f"{r['metric']} {r['value']}" for r in rows), flush=True)


if __name__ == "__main__":
    main()
