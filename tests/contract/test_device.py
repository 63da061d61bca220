"""The rules on a GPU, where there is one: what is learnt and judged there is what the CPU learns and judges."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import okng
from okng.detectors.base import Detector
from okng.detectors.catalogue import create
from okng.detectors.engine import TorchEngine, best_device, load_torch
from okng.detectors.explanation import GradCAMEngine
from okng.inspection.inspector import Inspector
from okng.inspection.model_file import read_model, write_model
from okng.inspection.reading.images import Preprocess
from okng.inspection.verdict.calibration import Calibration
from okng.training.loop import checkpoint
from okng.training.loop.phases import run_phases

from .conftest import CARDS, SIDE, Fitted, arguments_of, odd_pictures, pictures, small, training_images
from .test_rules import Dies, brief

DEVICE = best_device()
if DEVICE == "cpu":
    pytest.skip("there is no GPU here", allow_module_level=True)  # eight tests of every method

ALIKE = 0.98  # the correlation of two maps; of DifferNet, whose map is a gradient, .987
CLOSE = 2e-3  # of how far the scores lie apart: convolutions on a GPU sum in another order


@dataclass
class There:
    """A detector that was fitted on the device, and images to judge: three OK ones, then odd ones."""

    name: str
    detector: Detector
    unseen: np.ndarray


@pytest.fixture(scope="session")
def there(fitted: Fitted, ok_images: np.ndarray) -> There:
    detector = small(fitted.name)
    run_phases(detector, training_images(detector, ok_images, odd_pictures(fitted.name, 6, seed=5)), device=DEVICE)
    unseen = np.concatenate([pictures(3, seed=2), odd_pictures(fitted.name, 3, seed=3)])
    return There(fitted.name, detector, unseen)


def assert_alike(one: Any, other: Any) -> None:
    """Scores (B,) of two engines for the same images, and maps where there are some.

    A map that follows a gradient is sharp: where a rectifier is close to its bend single places differ. So maps are
    compared as wholes.
    """
    (scores, maps), (wanted, wanted_maps) = one, other
    assert np.isfinite(scores).all()
    np.testing.assert_allclose(scores, wanted, atol=CLOSE * max(float(np.ptp(wanted)), 1e-9), rtol=CLOSE)
    assert (maps is None) == (wanted_maps is None)
    if maps is not None:
        assert np.isfinite(maps).all() and np.corrcoef(maps.ravel(), wanted_maps.ravel())[0, 1] > ALIKE


def test_the_device_judges_as_the_cpu_does(fitted: Fitted, there: There) -> None:
    engine = TorchEngine(copy.deepcopy(fitted.detector), DEVICE)
    assert_alike(engine(there.unseen), TorchEngine(fitted.detector)(there.unseen))


def test_what_was_fitted_there_finds_what_it_finds(there: There) -> None:
    scores = TorchEngine(there.detector, DEVICE)(there.unseen)[0]
    assert scores[3:].min() > scores[:3].max()


def test_saved_there_it_says_the_same_on_the_cpu(there: There, tmp_path: Path) -> None:
    calibration = Calibration.fit(np.arange(20.0), np.arange(20.0), "split", 0.05)
    manifest = {"detector": {"name": there.name, "arguments": there.detector.arguments}}
    preprocess = Preprocess("RGB", (SIDE, SIDE), there.detector.multiple)
    engine, path = TorchEngine(there.detector, DEVICE), tmp_path / "parts.okng"
    Inspector(engine, preprocess, calibration, manifest).save(path)
    said = engine(there.unseen)
    for device in ("cpu", DEVICE):
        assert_alike(load_torch(path, *read_model(path), device).engine(there.unseen), said)


def test_grad_cam_explains_it_there(there: There) -> None:
    if CARDS[there.name].unexplained:
        return
    scores, maps = GradCAMEngine(TorchEngine(there.detector, DEVICE).detector, None, DEVICE)(there.unseen[:2])
    assert np.isfinite(scores).all() and maps is not None and np.isfinite(maps).all()


def test_killed_there_it_goes_on(there: There, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To the end; not to the last digit, as a GPU adds in an order of its own."""
    images = training_images(there.detector, pictures(6, seed=6), pictures(2, seed=7, defect=True))

    def write_and_die(path: Path, *what: Any) -> None:
        write_model(path, *what)
        raise Dies

    for life in range(100):
        resumed = brief(there.name, seed=life)
        monkeypatch.setattr(checkpoint, "write_model", write_and_die if life < 3 else write_model)
        try:
            run_phases(resumed, images, device=DEVICE, checkpoint=tmp_path / "c", resume=True)
            break
        except Dies:
            continue
    assert np.isfinite(TorchEngine(resumed, DEVICE)(there.unseen)[0]).all()


def test_it_learns_more_there(there: There) -> None:
    if not CARDS[there.name].updates:
        return
    detector = copy.deepcopy(there.detector)
    run_phases(
        detector, training_images(detector, pictures(6, seed=6), pictures(2, seed=7)), device=DEVICE, update=True
    )
    assert np.isfinite(TorchEngine(detector, DEVICE)(there.unseen)[0]).all()


@pytest.mark.parametrize("precision", ["bf16", "f16"])
def test_at_half_precision_it_learns_there(there: There, precision: str) -> None:
    detector = brief(there.name)
    images = training_images(detector, pictures(6, seed=6), pictures(2, seed=7, defect=True))
    run_phases(detector, images, device=DEVICE, precision=precision)
    assert np.isfinite(TorchEngine(detector, DEVICE)(there.unseen)[0]).all()


@pytest.mark.parametrize("name", CARDS)
def test_paper_size_defaults_run_one_step_there(name: str) -> None:
    torch.manual_seed(0)
    shaped = {"channels": 3} if "channels" in arguments_of(name) else {}
    once = {key: 1 for key in create(name, **arguments_of(name)).arguments if key.endswith("epochs")}
    detector = create(name, **shaped, **once)
    side = detector.arguments.get("image_size", (256, 256))
    images = np.random.default_rng(0).integers(0, 255, (2, *side, 3), np.uint8)
    run_phases(detector, training_images(detector, images, images[:1], side), device=DEVICE)
    assert np.isfinite(TorchEngine(detector, DEVICE)(images[:1])[0]).all()


@pytest.mark.parametrize("name", ["patch_memory", "fastflow", "autoencoder"])
def test_the_whole_way_there(name: str, tmp_path: Path) -> None:
    """Fit, inspect, save, load on the CPU and there: the same verdicts."""
    arguments = {key: value for key, value in arguments_of(name).items() if key not in ("image_size", "channels")}
    ok = pictures(30, seed=1)
    inspector = okng.fit(ok, name, size=SIDE, device=DEVICE, holdout=0.3, **arguments)
    unseen = np.concatenate([pictures(5, seed=2), pictures(5, seed=3, defect=True)])
    said = [inspection.verdict for inspection in inspector.inspect(unseen)]
    assert set(said) == {"OK", "NG"}
    inspector.save(tmp_path / "parts.okng")
    for device in ("cpu", DEVICE):
        assert [i.verdict for i in okng.load(tmp_path / "parts.okng", device=device).inspect(unseen)] == said
