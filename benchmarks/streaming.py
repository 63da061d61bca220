"""Which detectors learn from a stream: how many bytes of each image they still hold when a pass is over.

    python benchmarks/streaming.py [--methods NAME ...]

Each detector that makes a pass over the images (`Collect`) is fitted with the small arguments of its contract to FEW
and to MANY made-up images, decoded ones and frozen features kept on disk; before each pass is concluded, and at the
end, the bytes of all of PyTorch's tensors are counted. The slope is what one more image adds. "bounded": less than
ONE_EACH bytes, such as its score; "up to `memory`": patches, as many as the argument says; "all": what is gathered
grows. Those that only train hold "a batch": images are read for it, and what a frozen part made of them lies on disk
past 2 GB; of them nothing is counted, and "bytes an image" is empty. Writes results/streaming.csv.
"""

from __future__ import annotations

import argparse
import datetime
import gc
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from okng.benchmark.code import code_digest
from okng.benchmark.reproduce import machine, versions
from okng.benchmark.rows import read_rows, write_rows
from okng.detectors.base import Collect, Detector, Phase
from okng.detectors.cards import cards
from okng.detectors.catalogue import create, detector_class, parameters
from okng.errors import OkngError
from okng.inspection.reading.images import Preprocess
from okng.training.images.data import TrainingImages
from okng.training.loop.phases import run_phases

RESULTS = Path(__file__).parents[1] / "results" / "streaming.csv"
FIELDS = ("detector", "holds", "bytes an image", "passes", "code", "command", "versions", "machine", "date")
FEW, MANY, SIDE = 12, 36, 64
ONE_EACH = 256  # bytes
ANY = {"epochs": 1, "batch_size": 4, "image_size": (SIDE, SIDE), "channels": 3}


def held() -> int:
    """Bytes of all tensors there are."""
    gc.collect()
    tensors = [each for each in gc.get_objects() if issubclass(type(each), torch.Tensor)]
    return sum({t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}.values())


def at_the_ends(name: str, count: int) -> list[int]:
    """Bytes that are held before each pass is concluded, and at the end, beside what was held before."""
    known = parameters(name)
    arguments = {**{key: value for key, value in ANY.items() if key in known}, **cards()[name].arguments["contract"]}
    torch.manual_seed(0)
    detector = create(name, **arguments)
    rng = np.random.default_rng(0)
    pixels = [rng.integers(0, 255, (SIDE, SIDE, 3)).astype(np.uint8) for _ in range(count)]
    labels = [int(detector.needs_ng and i % 3 == 0) for i in range(count)]
    images = TrainingImages(pixels, Preprocess("RGB", (SIDE, SIDE), detector.multiple), 0, labels)
    before, found, plain = held(), [], detector.phases

    def phases() -> Iterator[Phase]:
        for phase in plain():
            yield replace(phase, finish=measured(phase.finish)) if isinstance(phase, Collect) else phase

    def measured(finish: Any) -> Any:
        def first() -> Any:
            found.append(held() - before)
            return finish()

        return first

    detector.phases = phases  # type: ignore[method-assign]
    run_phases(detector, images, device="cpu")
    return [*found, held() - before] if found else []


def passes_over(name: str) -> bool:
    """Whether anything in the modules of the detector's class, or of what that derives from, names a pass."""
    modules = {sys.modules[each.__module__] for each in detector_class(name).__mro__ if each is not Detector}
    return any(hasattr(module, "Collect") for module in modules if module.__name__.startswith("okng."))


def main() -> None:
    """A row for each method."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", choices=cards(), default=list(cards()))
    asked = parser.parse_args()
    for name in asked.methods:
        try:
            few = at_the_ends(name, FEW) if passes_over(name) else []
            many = at_the_ends(name, MANY) if few else []
        except OkngError as error:
            print(name, "left out:", error, flush=True)
            continue
        slope = max((b - a) / (MANY - FEW) for a, b in zip(few, many, strict=True)) if few else 0
        holds = "bounded" if slope < ONE_EACH else "up to `memory`" if "memory" in parameters(name) else "all"
        row = {
            "detector": name, "holds": holds if few else "a batch", "bytes an image": round(slope) if few else "",
            "passes": max(0, len(few) - 1), "code": code_digest(name), "command": "python benchmarks/streaming.py",
            "versions": versions(), "machine": machine("cpu"), "date": datetime.date.today().isoformat(),
        }  # fmt: skip
        print(name, row["holds"], row["bytes an image"], flush=True)
        others = [known for known in read_rows(RESULTS) if known["detector"] != name] if RESULTS.exists() else []
        write_rows(RESULTS, FIELDS, sorted([*others, row], key=lambda each: str(each["detector"])))


if __name__ == "__main__":
    main()
