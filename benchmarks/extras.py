"""Every extra installed for real, into an environment of its own: what it is for is imported, `okng doctor` asked.

    python benchmarks/extras.py [--only NAME …]

Builds the wheel, and for each extra of pyproject.toml makes an environment, installs `okng[EXTRA]` with what it is said
to go with, imports what it is for, and runs `okng doctor`, which may call nothing broken. Those that need PyTorch (the
usual build, with CUDA's libraries) share one environment, one after another. Writes results/extras.csv: seconds of pip,
and MB on disk, of a light one all of its environment, of one with PyTorch what it adds to those above it. Half an hour
and 7 GB, which are deleted.
"""

from __future__ import annotations

import argparse
import csv
import datetime
import os
import platform
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path
from typing import Any

import okng

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "results" / "extras.csv"
COLUMNS = ("extra", "imports", "seconds", "mb", "command", "seed", "versions", "machine", "date")
LIGHT = {  # what is installed, and what it is for as a name that is imported then
    "": "okng.inspection",
    "onnx": "onnxruntime",
    "openvino": "openvino",
    "serve": "okng.serve.app",
    "serve,video": "cv2",
    "serve,mqtt": "paho.mqtt.client",
    "serve,opcua": "asyncua",
    "serve,postgres": "psycopg",
    "serve,parquet": "pyarrow.parquet",
    "demo": "elpv_dataset",
    "cloud": "s3fs",
    "ray": "ray",
    "heif": "pi_heif",
    "dist": "twine",
    "mutants": "mutmut",
}
WITH_TORCH = {
    "train": "okng.training.fit",
    "train,export": "okng.exporting",
    "train,clip": "open_clip",
    "train,serve,docs": "mkdocstrings_handlers.python",
    "train,demo,dev": "pytest",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=[*LIGHT, *WITH_TORCH], default=[*LIGHT, *WITH_TORCH])
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", place, ROOT)
        (wheel,) = place.glob("okng-*.whl")
        for extras, imported in LIGHT.items():
            if extras in asked.only:
                with tempfile.TemporaryDirectory() as fresh:
                    keep(extras, imported, *installed(wheel, extras, imported, Path(fresh)))
        for extras, imported in WITH_TORCH.items():
            if extras in asked.only:
                keep(extras, imported, *installed(wheel, extras, imported, place / "torch"))


def installed(wheel: Path, extras: str, imported: str, where: Path) -> tuple[float, float]:
    """Seconds and MB that it takes to install them, into the environment `where`, where they then work."""
    python = where / "bin" / "python"
    begun = time.monotonic()
    if not python.exists():
        venv.create(where, with_pip=False)
    before = size(where)
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet"]
    run(*pip, f"{wheel}[{extras}]" if extras else wheel)
    seconds, added = time.monotonic() - begun, size(where) - before
    run(python, "-c", f"import importlib; importlib.import_module('{imported}')")
    run(python, "-m", "okng", "doctor")  # ends with 1 where something is broken
    return seconds, added


def run(*command: str | Path) -> None:
    """`command` in a folder that has nothing of okng, without what this process was told of where Python looks."""
    told = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    with tempfile.TemporaryDirectory() as elsewhere:
        done = subprocess.run(list(map(str, command)), cwd=elsewhere, env=told, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}\n{done.stdout[-2000:]}{done.stderr[-2000:]}")


def size(where: Path) -> float:
    """MB on disk, as `du -sm` counts."""
    return sum(file.lstat().st_blocks * 512 for file in where.rglob("*")) / 2**20


def keep(extras: str, imported: str, seconds: float, megabytes: float) -> None:
    """Its row of the table of results, in place of an older one."""
    print(f"{seconds:6.0f} s {megabytes:6.0f} MB  {extras or 'base'}", flush=True)
    row: dict[str, Any] = {
        "extra": extras,
        "imports": imported,
        "seconds": f"{seconds:.0f}",
        "mb": f"{megabytes:.0f}",
        "command": "python benchmarks/extras.py",
        "seed": "",
        "versions": f"okng {okng.__version__}, Python {platform.python_version()}",
        "machine": f"{os.cpu_count()} cores, {platform.machine()}",
        "date": datetime.date.today().isoformat(),
    }
    rows = {extras: row}
    if RESULTS.exists():
        with RESULTS.open(newline="", encoding="utf-8") as file:
            rows = {old["extra"]: old for old in csv.DictReader(file)} | rows
    with RESULTS.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows[one] for one in (*LIGHT, *WITH_TORCH) if one in rows)


if __name__ == "__main__":
    main()
