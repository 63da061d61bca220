"""The default detector and its presets on the real sets, beside PatchCore at the same sizes: accuracy and time.

    python benchmarks/default.py DATA [--only SET …] [--heads NAME …] [--seeds 0 1 2]
    python benchmarks/default.py DATA --cost
    python benchmarks/default.py DATA --planted

DATA holds magnetic_tile/ and mvtec_ad/transistor/; ELPV comes from its PyPI package. Whole training sets. Each row of
results/default.csv says its command; a row that stands there by the present code is not measured again.
"""

from __future__ import annotations

import argparse
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import torch
from measure import FIELDS, METRICS, RESULTS, row
from PIL import Image

import okng
from okng.benchmark.code import is_older
from okng.benchmark.evaluation import evaluate_inspector
from okng.benchmark.rows import read_rows, write_rows
from okng.datasets import OK, open_dataset
from okng.detectors.base import Detector
from okng.detectors.catalogue import DEFAULT, create
from okng.detectors.engine import TorchEngine
from okng.detectors.presets import preset_of
from okng.metrics.ranking import auroc
from okng.nn.graph import onnx_graph
from okng.planted.defects import plant
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
    detector = arguments.get("detector", DEFAULT)
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


COST_BANK = 2000


def costs() -> list[dict]:
    """What an image costs, in processor time of one thread and in turns, against PatchCore with as many memories."""
    torch.set_num_threads(1)
    rows = []
    kinds = {"patchcore": {}, "default": {}, "fast": preset_of("fast", DEFAULT), "best": preset_of("best", DEFAULT)}
    for side in (256, 320, 640):
        detectors, runs = {}, {}
        for name, arguments in kinds.items():
            given = {key: value for key, value in arguments.items() if key != "size"}
            built = create("patchcore" if name == "patchcore" else DEFAULT, **given)
            memories = min(COST_BANK, given.get("coreset_limit", COST_BANK))
            built.bank = torch.randn(memories, built.bank.shape[1])  # type: ignore[index,union-attr]
            detectors[name] = built
        image = np.random.default_rng(0).integers(0, 255, (1, side, side, 3), np.uint8)
        for name, built in detectors.items():
            graph = graph_of(built, side)
            runs["PyTorch", name] = partial(TorchEngine(built), image)
            settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1, "PERFORMANCE_HINT": "LATENCY"}
            core = openvino.Core()
            compiled = core.compile_model(core.read_model(graph), "CPU", settings)
            floats = torch.from_numpy(image).permute(0, 3, 1, 2).float().numpy() / 255
            runs["OpenVINO", name] = partial(compiled, floats)
        took: dict[tuple[str, str], list[float]] = {key: [] for key in runs}
        for _ in range(15):
            for key, run in runs.items():
                begun = time.process_time()
                run()
                took[key].append(time.process_time() - begun)
        medians = {key: float(np.median(times[3:])) for key, times in took.items()}
        for (engine, name), seconds in medians.items():
            more = {"arguments": kinds[name] or "defaults", "command": "python benchmarks/default.py DATA --cost"}
            place = (f"cost-{name}", "patchcore" if name == "patchcore" else DEFAULT, f"{side} px", "one thread")
            rows.append(row(*place, f"ms, {engine}", 1e3 * seconds, **more))
            rows.append(row(*place, f"times patchcore, {engine}", seconds / medians[engine, "patchcore"], **more))
    return rows


def graph_of(detector: Detector, side: int) -> bytes:
    """The graph of `detector` for images (B, 3, H, W) in [0, 1], all sizes open."""

    class Both(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
            scores = detector(images)
            return scores.image, scores.map

    open_axes = {"images": {0: "b", 2: "h", 3: "w"}, "image": {0: "b"}, "map": {0: "b", 1: "mh", 2: "mw"}}
    return onnx_graph(Both(), torch.zeros(1, 3, side, side), ["images", "image", "map"], open_axes)


def planted(source: str) -> list[dict]:
    """Images of 640 px, four transistors each, and the ones tested once more with a defect of 10 px.

    By PatchCore at its 256 px and by the default, which takes the images' own size.
    """
    dataset = open_dataset(source)
    parts = [sample.image for sample in (*dataset.train, *dataset.test) if sample.label == OK]
    parts = [parts[i] for i in np.random.default_rng(0).permutation(len(parts))]
    fours = []
    for i in range(0, len(parts) - 3, 4):
        a, b, c, d = (np.asarray(Image.open(part).convert("RGB").resize((320, 320))) for part in parts[i : i + 4])
        fours.append(np.concatenate([np.concatenate([a, b]), np.concatenate([c, d])], axis=1))  # (640, 640, 3)
    learnt, ok = fours[:-20], fours[-20:]
    ng = [plant(image, ("spot", "stain", "missing")[i % 3], 10, seed=i).pixels for i, image in enumerate(ok)]
    rows = []
    for name, detector in (("patchcore", "patchcore"), ("default", DEFAULT)):
        begun = time.monotonic()
        with Narrator() as tell:
            inspector = okng.fit(learnt, detector, tell=tell)
        seconds = f"{time.monotonic() - begun:.1f}"
        scores = inspector.score_samples([*ok, *ng])  # (60,)
        value = auroc([0] * len(ok) + [1] * len(ng), scores)
        caught = float(np.mean(scores[len(ok) :] > inspector.calibration.threshold))
        false_alarms = float(np.mean(scores[: len(ok)] > inspector.calibration.threshold))
        more = {"arguments": "defaults", "seconds": seconds, "command": "python benchmarks/default.py DATA --planted"}
        protocol = f"{len(learnt)} images of 640 px learnt, {len(ok)} tested, with and without a defect of 10 px"
        for metric, found in (
            ("image_auroc", value), ("caught", caught), ("measured_false_alarm_rate", false_alarms),
        ):  # fmt: skip
            rows.append(row(f"planted-{name}", detector, "four transistors", protocol, metric, found, **more))
    return rows


OWN_SIZE = {"transistor": 320, "tile": 298, "mono": 300, "poly": 300}


def main() -> None:
    """Measure what is missing, row by row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--only", nargs="+", default=list(SETS), choices=SETS)
    parser.add_argument("--heads", nargs="+", default=["default"], choices=HEADS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--cost", action="store_true", help="only what an image costs")
    parser.add_argument("--planted", action="store_true", help="only small defects in large images")
    asked = parser.parse_args()
    if asked.cost or asked.planted:
        rows = costs() if asked.cost else planted(str(asked.data.expanduser() / SETS["transistor"]))
        begin = "cost-" if asked.cost else "planted-"
        others = [r for r in read_rows(PATH) if not r["experiment"].startswith(begin)]
        write_rows(PATH, FIELDS, [*others, *rows])
        for r in rows:
            print(r["experiment"], r["dataset"], r["metric"], r["value"])
        return
    for seed in asked.seeds:
        for head in asked.heads:
            for name in asked.only:
                key = (f"{name}-{head}", str(seed))
                standing = read_rows(PATH)
                same = [r for r in standing if (r["experiment"], r["seed"]) == key]
                if same and not any(is_older(r) for r in same):
                    continue
                source = SETS[name] if name in ("mono", "poly") else str(asked.data.expanduser() / SETS[name])
                rows = measured(name, head, source, seed)
                standing = read_rows(PATH)  # another process may have added to it
                write_rows(PATH, FIELDS, [*(r for r in standing if (r["experiment"], r["seed"]) != key), *rows])
                print(name, head, seed, *(f"{r['metric']} {r['value']}" for r in rows), flush=True)


if __name__ == "__main__":
    main()
