"""What a fit takes beside one pass of its backbone, and how much of it the greedy coresets are.

    python benchmarks/fit_passes.py FOLDER_OF_OK_IMAGES [--before SRC] [--images 20 213] [--runs 1]

Seconds of the processor, one thread, each in a process of its own that has imported everything and fitted once: the
fit, and its pieces, of which one that calls another does not count it. "pass": reading all images and running the
backbone, by PyTorch in batches of 16, and compiled by OpenVINO, one by one. `--before`: the same fits by an older
checkout, whose `src` is SRC. Medians of runs in turns. Writes results/fit_passes.csv.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import statistics
import subprocess
import sys
import time
import types
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

RESULTS = Path(__file__).parents[1] / "results" / "fit_passes.csv"
FIELDS = ("detector", "images", "figure", "value", "runs", "command", "versions", "machine", "date")
ARGUMENTS: dict[str, dict[str, Any]] = {"patch_memory": {}, "fastflow": {"epochs": 1}}
FEW = 50


class Pieces:
    """Seconds of the processor by piece; what one piece calls of another is that one's."""

    def __init__(self) -> None:
        self.spent: dict[str, float] = defaultdict(float)
        self._at, self._within = 0.0, ["the rest"]

    def turn(self, piece: str | None) -> None:
        """Begin a piece; None goes back to what was before it."""
        now = time.process_time()
        self.spent[self._within[-1]] += now - self._at
        self._at = now
        if piece is None:
            self._within.pop()
        else:
            self._within.append(piece)

    def of(self, place: Any, name: str, piece: str) -> None:
        """Count `place.name` as a `piece`, generators step by step; an older checkout may lack it."""
        plain = getattr(place, name, None)
        if plain is None:
            return

        def steps(generator: Iterator[Any]) -> Iterator[Any]:
            while True:
                self.turn(piece)
                try:
                    step = next(generator, self)
                finally:
                    self.turn(None)
                if step is self:
                    return
                yield step

        def counted(*given: Any, **named: Any) -> Any:
            self.turn(piece)
            try:
                made = plain(*given, **named)
            finally:
                self.turn(None)
            if name in ("compiled", "one_by_one"):  # what they make is the network
                network = SimpleNamespace(run=made)
                self.of(network, "run", "the backbone")
                return network.run
            return steps(made) if isinstance(made, types.GeneratorType) else made

        setattr(place, name, counted)


def fit(detector: str, files: list[Path]) -> dict[str, float]:
    """The fit's seconds, and those of its pieces."""
    import okng
    from okng.detectors.feature_matching import patch_memory
    from okng.nn.vectors import coreset
    from okng.training import fit as fitting
    from okng.training import held_out
    from okng.training.loop import frozen

    pieces, rounds = Pieces(), coreset.greedy_rounds
    pieces.of(coreset, "greedy_rounds", "coresets of the folds")
    pieces.of(patch_memory, "greedy_coreset", "coresets of each image")
    pieces.of(coreset.StreamingCoreset, "add", "gathering patches")
    pieces.of(patch_memory.PatchMemory, "described", "descriptors of patches")
    pieces.of(patch_memory.PatchMemory, "distances", "distances of judged images")
    pieces.of(frozen, "compiled", "compiling the backbone")
    pieces.of(frozen, "one_by_one", "the backbone")
    pieces.of(fitting, "whole", "reading and decoding")
    pieces.of(held_out, "near_copies", "near copies")
    pieces.of(fitting, "build", "building the detector")
    pieces.of(fitting.copy, "deepcopy", "copying the detector")
    for_each = patch_memory.greedy_coreset

    def of_an_image(*given: Any) -> Any:
        timed, coreset.greedy_rounds = coreset.greedy_rounds, rounds
        try:
            return for_each(*given)
        finally:
            coreset.greedy_rounds = timed

    patch_memory.greedy_coreset = of_an_image
    pieces._at = begun = time.process_time()
    okng.fit(files, detector, device="cpu", **ARGUMENTS[detector])
    seconds = time.process_time() - begun
    pieces.turn("the rest")
    coresets = {name: spent for name, spent in pieces.spent.items() if name.startswith("coresets")}
    of_them = {f"of them {name}": spent for name, spent in pieces.spent.items()}
    return {"seconds": seconds, "of them coresets": sum(coresets.values()), **of_them}


def one_pass(files: list[Path]) -> dict[str, float]:
    """Seconds of reading the images and running the default's backbone over them, both ways."""
    import torch

    from okng.detectors.catalogue import create
    from okng.inspection.reading.images import Preprocess
    from okng.training.images.data import TrainingImages
    from okng.training.loop.frozen import compiled

    detector = create("patch_memory")
    engine = compiled(detector.backbone)
    taken = {}
    for name, run, batch in (("PyTorch, batches of 16", detector.backbone, 16), ("compiled, one by one", engine, 1)):
        begun = time.process_time()
        images = TrainingImages(files, Preprocess("RGB", 320, detector.multiple))
        with torch.no_grad():
            for _, pixels in images.load(images.batches(batch, shuffle=False)):
                run(pixels.float() / 255)
        taken[f"one pass: {name}"] = time.process_time() - begun
    return taken


def child(what: str, folder: Path, count: int) -> None:
    """One measurement, after everything is imported and has been used."""
    import torch

    import okng
    from okng.inspection.reading.files import find_images

    torch.set_num_threads(1)
    files = find_images(folder)[:count]
    if what == "pass":
        one_pass(files[:2])
        print(json.dumps(one_pass(files)))
    else:
        okng.fit(files[:3], what, size=64, device="cpu", **ARGUMENTS[what])
        print(json.dumps(fit(what, files)))


def main() -> None:
    """Measure in turns, and write a row for each figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--before", type=Path, metavar="SRC")
    parser.add_argument("--images", type=int, nargs="+", default=[20, 213])
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.child:
        child(asked.child[0], asked.folder, int(asked.child[1]))
        return
    from okng.benchmark.reproduce import machine, versions
    from okng.benchmark.rows import read_rows, write_rows

    sources = {"": Path(__file__).parents[1] / "src"} | ({} if asked.before is None else {", before": asked.before})
    rows = [row for row in read_rows(RESULTS) if int(row["images"]) not in asked.images]
    for count in asked.images:
        fitted = [name for name in ARGUMENTS if count <= FEW or name == "patch_memory"]
        tasks = [("pass", ""), *((name, when) for name in fitted for when in sources)]
        taken: dict[tuple[str, str], list[float]] = defaultdict(list)
        for _ in range(asked.runs):
            for what, when in tasks:
                environment = {**os.environ, "PYTHONPATH": str(sources[when]), "OMP_NUM_THREADS": "1"}
                command = [sys.executable, __file__, str(asked.folder), "--child", what, str(count)]
                done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
                for figure, value in json.loads(done.stdout.splitlines()[-1]).items():
                    taken["patch_memory" if what == "pass" else what, figure + when].append(value)
        for (detector, figure), values in taken.items():
            print(count, detector, figure, round(statistics.median(values), 2), flush=True)
            rows.append({
                "detector": detector, "images": count, "figure": figure,
                "value": f"{statistics.median(values):.2f}", "runs": asked.runs,
                "command": "python benchmarks/fit_passes.py FOLDER --before SRC", "versions": versions(),
                "machine": machine("cpu"), "date": datetime.date.today().isoformat(),
            })  # fmt: skip
        write_rows(RESULTS, FIELDS, rows)


if __name__ == "__main__":
    main()
