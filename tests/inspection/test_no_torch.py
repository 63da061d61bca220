"""The line runs where nothing but its own few dependencies is installed."""

import subprocess
import sys

PROGRAM = """
import importlib, pkgutil, sys
from pathlib import Path

ABSENT = {"torch", "torchvision", "timm", "scipy", "sklearn", "lightning_fabric", "hypothesis", "pandas"}

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ABSENT:
            raise ImportError(f"{name} is not part of the line")

sys.meta_path.insert(0, Refuse())
try:
    import torch
    raise SystemExit("the guard does not guard")
except ImportError:
    pass

import okng
import okng.inspection
for module in pkgutil.walk_packages(okng.inspection.__path__, "okng.inspection."):
    importlib.import_module(module.name)

import numpy as np
from PIL import Image
from okng.inspection.verdict.calibration import Calibration
from okng.inspection.reading.images import Preprocess
from okng.inspection.inspector import Inspector
from okng.inspection.model_file import read_model, write_model
from okng.inspection.overlay import heat_range, overlay

class Darkness:
    "Says how dark each of 8 by 8 places is."

    def __call__(self, pixels):
        n, h, w, channels = pixels.shape
        maps = 255 - pixels.reshape(n, 8, h // 8, 8, w // 8, channels).mean(axis=(2, 4, 5), dtype=np.float32)
        return maps.max(axis=(1, 2)), maps

    def write(self, path, manifest, arrays):
        write_model(path, manifest, arrays)

folder = Path(sys.argv[1])
held_out = np.linspace(20, 60, 99)
calibration = Calibration.fit(held_out, held_out, "split", 0.05)
inspector = Inspector(Darkness(), Preprocess("L", 64, 8), calibration, {"detector": "darkness"})
inspector.save(folder / "dark.okng")
inspector = Inspector.from_file(Darkness(), *read_model(folder / "dark.okng"))

good = np.full((80, 80, 3), 220, np.uint8)
bad = good.copy()
bad[20:40, 50:70] = 10
Image.fromarray(good).save(folder / "1.png")
Image.fromarray(bad).save(folder / "2.png")
ok, ng = inspector.inspect(folder)
assert (ok.verdict, ng.verdict) == ("OK", "NG"), (ok, ng)
assert (ok.regions, len(ng.regions), ng.size) == ((), 1, (80, 80))
left, top, right, bottom = ng.regions[0].box
assert abs(left - 50) < 6 and abs(top - 20) < 6 and abs(right - 70) < 6 and abs(bottom - 40) < 6, ng.regions
assert ng.p_value == 0.01
low, high = heat_range(inspector.calibration)
overlay(inspector.preprocess.decode(ng.path), ng, low, high).save(folder / "overlay.png")
assert not ABSENT & set(sys.modules)
"""


def test_the_line_needs_none_of_the_labs_packages(tmp_path):
    done = subprocess.run([sys.executable, "-c", PROGRAM, tmp_path], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "overlay.png").stat().st_size > 0
