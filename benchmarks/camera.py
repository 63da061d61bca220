"""A camera's image of 12 megapixels from the file to the verdict, read whole and at a reduced scale, in turns.

    python benchmarks/camera.py DATA [--accuracy]

DATA holds mvtec_ad/transistor/, whose photographs of 320 px are put side by side to 4000 × 3000 px with all their
detail. The models are exported and run by OpenVINO in float32 on one thread. Times are of the processor, medians of
rounds in which all take their turn: both ways of reading, libjpeg-turbo's scaled decode alone, the engine alone.
`--accuracy`: instead, what both ways find, on transistor as JPEG of quality 95, at its own 320 px and enlarged to 1280.
Writes results/camera.csv.
"""

from __future__ import annotations

import argparse
import math
import statistics
import tempfile
import time
import warnings
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from measure import FIELDS, METRICS, RESULTS, row
from PIL import Image

import okng
import okng.training.images.input
from okng.benchmark.evaluation import evaluate_inspector
from okng.benchmark.rows import read_rows, write_rows
from okng.datasets import open_dataset
from okng.exporting import export_onnx
from okng.inspection.inspector import Inspector
from okng.inspection.reading.images import Preprocess
from okng.training.progress import Narrator

MODELS: dict[str, dict[str, Any]] = {"patchcore": {"size": 256}, "patch_memory": {"size": 640}}
LEARNT = 20  # images: the default's memory is full of the four fifths that are learnt
ROUNDS = 5
WAYS = {"whole": None, "reduced": Preprocess("RGB", 8).gap}


def photograph(images: list[Path]) -> Image.Image:
    """4000 × 3000 px of photographs side by side."""
    canvas = Image.new("RGB", (4000, 3000))
    for place in range(13 * 10):
        with Image.open(images[place % len(images)]) as image:
            canvas.paste(image.convert("RGB"), (place % 13 * image.width, place // 13 * image.height))
    return canvas


def written(image: Image.Image, folder: Path) -> dict[str, Any]:
    """The image as every kind of source."""
    files = {
        "JPEG": ("a.jpg", {"quality": 95}), "progressive JPEG": ("p.jpg", {"quality": 95, "progressive": True}),
        "PNG": ("a.png", {}), "BMP": ("a.bmp", {}), "TIFF": ("a.tif", {}),
    }  # fmt: skip
    for name, options in files.values():
        image.save(folder / name, **options)
    sources: dict[str, Any] = {kind: folder / name for kind, (name, _) in files.items()}
    grey = np.asarray(image.convert("L"))
    return sources | {"array": np.array(image), "grey array": grey, "12-bit grey array": grey.astype(np.uint16) << 4}


def exported(detector: str, images: list[Any], folder: Path) -> Inspector:
    """The model, by OpenVINO on one thread."""
    with Narrator(quiet=True) as tell:
        inspector = okng.fit(images, detector, device="cpu", promise="strict", tell=tell, **MODELS[detector])
    export_onnx(inspector, folder / f"{detector}.onnx")
    return okng.load(folder / f"{detector}.onnx", engine="openvino", threads=1)


def scaled(path: Path, shape: tuple[int, int]) -> None:
    """libjpeg-turbo's smallest decode that is no smaller than the input (h, w), and nothing else."""
    with Image.open(path) as image:
        image.draft(None, shape[::-1])
        image.load()


def speed(data: Path) -> list[dict]:
    """A row for each model, source and way."""
    train = [sample.image for sample in open_dataset(str(data / "mvtec_ad" / "transistor")).train]
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        sources = written(photograph(train), folder)  # type: ignore[arg-type]
        for detector, arguments in MODELS.items():
            fitted = exported(detector, train[:LEARNT], folder)
            shape = fitted.preprocess.shape(3000, 4000)
            pixels = fitted.preprocess.load(sources["array"])[0][None]
            tasks: dict[str, Callable[[], Any]] = {
                "engine alone": partial(fitted.engine, pixels),
                "scaled decode alone, JPEG": partial(scaled, sources["JPEG"], shape),
                "scaled decode alone, progressive JPEG": partial(scaled, sources["progressive JPEG"], shape),
            }
            for way, gap in WAYS.items():
                preprocess = replace(fitted.preprocess, gap=gap)
                inspector = Inspector(fitted.engine, preprocess, fitted.calibration, fitted.manifest)
                for kind, source in sources.items():
                    tasks[f"{kind}, {way}"] = partial(verdict, inspector, source)
            taken: dict[str, list[float]] = defaultdict(list)
            for _ in range(ROUNDS + 1):
                for name, task in tasks.items():
                    begun = time.process_time()
                    task()
                    taken[name].append(1e3 * (time.process_time() - begun))
            size = f"4000x3000 px to {shape[1]}x{shape[0]}, OpenVINO, float32, one thread"
            rows += [
                row(
                    f"camera-{detector}", detector, "transistors side by side", size, f"{name}, ms",
                    statistics.median(values[1:]),
                    command="python benchmarks/camera.py DATA", arguments=arguments,
                )
                for name, values in taken.items()
            ]  # fmt: skip
    return rows


def verdict(inspector: Inspector, source: Any) -> None:
    """From a source to what is said of it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of an image unlike those learnt
        list(inspector.inspect(source))


def as_jpeg(source: Path, target: Path, side: int) -> None:
    """A copy of a data set with images as JPEG of quality 95 and of `side` px."""
    for path in source.rglob("*.png"):
        copy = target / path.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        with Image.open(path) as image:
            if "ground_truth" in path.parts:
                image.resize((side, side), Image.Resampling.NEAREST).save(copy)
            else:
                large = image if image.width == side else image.resize((side, side), Image.Resampling.BICUBIC)
                large.convert("RGB").save(copy.with_suffix(".jpg"), quality=95)


def accuracy(data: Path) -> list[dict]:
    """A row for each size, way and metric."""
    rows = []
    for side, size in ((1280, 128), (320, 64)):
        with tempfile.TemporaryDirectory() as temporary:
            as_jpeg(data / "mvtec_ad" / "transistor", Path(temporary) / "transistor", side)
            dataset = open_dataset(str(Path(temporary) / "transistor"))
            for way, gap in WAYS.items():
                okng.training.images.input.Preprocess = partial(Preprocess, gap=gap)  # type: ignore[misc,assignment]
                with Narrator(quiet=True) as tell:
                    train = [sample.image for sample in dataset.train]
                    inspector = okng.fit(train, "patchcore", device="cpu", promise="strict", size=size, tell=tell)
                    figures = evaluate_inspector(inspector, dataset, tell=tell)
                assert inspector.preprocess.gap == gap
                for metric in METRICS:
                    if not math.isnan(figures[metric]):
                        made = row(
                            f"camera-accuracy-{side}", "patchcore", "transistor as JPEG 95",
                            f"{side} px to {size} px", f"{metric}, {way}", figures[metric],
                            command="python benchmarks/camera.py DATA --accuracy", arguments={"size": size},
                        )  # fmt: skip
                        rows.append(made)
                        print(made["protocol"], made["metric"], made["value"], flush=True)
    return rows


def main() -> None:
    """Measure, and write a row for each figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--accuracy", action="store_true")
    asked = parser.parse_args()
    rows = (accuracy if asked.accuracy else speed)(asked.data.expanduser())
    path, made = RESULTS / "camera.csv", {each["experiment"] for each in rows}
    known = read_rows(path) if path.exists() else []
    write_rows(path, FIELDS, [*(each for each in known if each["experiment"] not in made), *rows])
    for each in rows:
        print(each["experiment"], each["metric"], each["value"])


if __name__ == "__main__":
    main()
