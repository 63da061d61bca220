"""How long methods take for an image, from the file to the verdict and in the engine alone, all in turns.

    python benchmarks/speed.py DATA [--methods NAME …]

DATA holds mvtec_ad/transistor/. Each method has its arguments for photographs on a CPU and learns the whole training
set for one epoch, or one step, as what it has learnt changes no time; memories are full. It is exported and run by
OpenVINO in float32 on one thread. Times are of the processor, the median of rounds in which every method takes its
turn. Writes results/speed.csv.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections import defaultdict
from pathlib import Path

from measure import FIELDS, RESULTS, row

import okng
from okng.benchmark.rows import read_rows, write_rows
from okng.datasets import open_dataset
from okng.detectors.budgets import arguments_for
from okng.detectors.catalogue import parameters
from okng.exporting import export_onnx
from okng.inspection.inspector import Inspector
from okng.training.progress import Narrator

METHODS = ("efficientad", "padim", "patch_memory", "patchcore", "stfpm", "autoencoder")
ROUNDS, IMAGES = 15, 4  # in each round each method judges so many


def exported(detector: str, images: list, folder: Path) -> Inspector:
    """The method after a brief fit, by OpenVINO on one thread."""
    arguments = dict(arguments_for("cpu", detector, small=False) or {})
    brief = {key: 1 for key in parameters(detector) if key.endswith("epochs")}
    brief |= {key: 1 for key in parameters(detector) if key in ("training_steps", "teacher_steps")}
    with Narrator(quiet=True) as tell:
        inspector = okng.fit(images, detector, device="cpu", promise="strict", tell=tell, **{**arguments, **brief})
    path = folder / f"{detector}.onnx"
    export_onnx(inspector, path)
    return okng.load(path, engine="openvino", threads=1)


def main() -> None:
    """Measure, and write a row for each figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--methods", nargs="+", default=list(METHODS))
    asked = parser.parse_args()
    dataset = open_dataset(str(asked.data.expanduser() / "mvtec_ad" / "transistor"))
    train, tests = [s.image for s in dataset.train], [s.image for s in dataset.test][:IMAGES]
    taken: dict[tuple[str, str], list[float]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        inspectors = {name: exported(name, train, Path(folder)) for name in asked.methods}
        for _ in range(ROUNDS):
            for name, inspector in inspectors.items():
                for image in tests:
                    begun = time.process_time()
                    list(inspector.inspect(image))
                    taken[name, "file_ms"].append(1e3 * (time.process_time() - begun))
                    pixels = inspector.preprocess.load(image)[0][None]
                    begun = time.process_time()
                    inspector.engine(pixels)
                    taken[name, "engine_ms"].append(1e3 * (time.process_time() - begun))
    rows = [
        row(
            f"speed-{name}", name, f"{dataset.name}, one by one", "OpenVINO, float32, one thread",
            figure, statistics.median(values),
            command=f"python benchmarks/speed.py DATA --methods {' '.join(asked.methods)}",
            arguments=arguments_for("cpu", name, small=False) or {},
        )
        for (name, figure), values in taken.items()
    ]  # fmt: skip
    path = RESULTS / "speed.csv"
    known = read_rows(path) if path.exists() else []
    write_rows(path, FIELDS, [*(r for r in known if r["detector"] not in asked.methods), *rows])
    for each in rows:
        print(each["detector"], each["metric"], each["value"])


if __name__ == "__main__":
    main()
