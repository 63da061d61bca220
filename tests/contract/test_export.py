"""An exported detector is the fitted one: both engines against torch on the same pixels."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from okng.detectors.catalogue import create
from okng.detectors.engine import TorchEngine
from okng.exporting import export_onnx
from okng.inspection import engines
from okng.inspection.engines import ENGINES, load_onnx, make_engine
from okng.inspection.inspector import Inspector
from okng.inspection.onnx_file import read_onnx
from okng.inspection.reading.images import Preprocess
from okng.inspection.verdict.calibration import Calibration
from okng.inspection.verdict.result import Inspection

from .conftest import SIDE, Fitted, pictures


def inspector_of(fitted: Fitted) -> Inspector:
    calibration = Calibration.fit(np.linspace(0.1, 3, 20), np.linspace(0.1, 3, 20), "split", 0.05)
    shaped = fitted.detector.fixed_size
    preprocess = Preprocess("RGB", (SIDE, SIDE) if shaped else SIDE, fitted.detector.multiple)
    manifest = {"detector": {"name": fitted.name, "arguments": fitted.detector.arguments}}
    return Inspector(TorchEngine(fitted.detector), preprocess, calibration, manifest)


@pytest.fixture(scope="session")
def exported(fitted: Fitted, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not fitted.detector.exportable:
        pytest.skip(f"{fitted.name} says it is not exportable")
    path = tmp_path_factory.mktemp("export") / f"{fitted.name}.onnx"
    parity = export_onnx(inspector_of(fitted), path)
    print(f"{fitted.name}: scores within {parity.score:.1e}, maps within {parity.map or 0:.1e}")
    return path


def assert_same(ours: tuple[np.ndarray, np.ndarray | None], torchs: tuple[np.ndarray, np.ndarray | None]) -> None:
    np.testing.assert_allclose(ours[0], torchs[0], rtol=1e-4)
    assert (ours[1] is None) == (torchs[1] is None)
    if ours[1] is not None and torchs[1] is not None:
        assert ours[1].shape == torchs[1].shape
        largest = np.abs(torchs[1]).max((1, 2), keepdims=True)
        assert (np.abs(ours[1] - torchs[1]) / largest).max() < 1e-4


@pytest.fixture(scope="session", params=ENGINES)
def loaded(request: pytest.FixtureRequest, exported: Path) -> Iterator[Inspector]:
    """With two compiled models for a shape of their own, the least to tell them apart; all other shapes share one."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(engines, "SHAPES", 2)
        yield load_onnx(exported, request.param, threads=1)


def test_engines_agree_with_torch(fitted: Fitted, loaded: Inspector) -> None:
    engine, reference = loaded.engine, TorchEngine(fitted.detector)
    images = np.concatenate([pictures(2, seed=2), pictures(1, seed=3, defect=True)])
    wanted = reference(images)
    assert_same(engine(images), wanted)
    score, *maps = engine.run(images)  # type: ignore[attr-defined]
    assert_same((score, maps[0] if maps else None), wanted)
    if not fitted.detector.fixed_size:
        wide = np.concatenate([images[:, : SIDE // 2], images[:, SIDE // 2 :]], axis=2)  # (3, 32, 128, 3)
        assert_same(engine(wide), reference(wide))
        tiny = images[:1, : fitted.detector.multiple, : fitted.detector.multiple]
        assert_same(engine(tiny), reference(tiny))


@pytest.fixture(scope="session")
def told_by_torch(
    fitted: Fitted, exported: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, float, list[Inspection]]:
    """A folder of camera images of several shapes, a threshold that lies among their scores, and what torch says."""
    folder = tmp_path_factory.mktemp("camera")
    for i, image in enumerate([*pictures(3, seed=2), *pictures(3, seed=3, defect=True)]):
        Image.fromarray(image).resize((90 + 30 * (i % 2), 90)).save(folder / f"{i}.png")
    inspector = inspector_of(fitted)
    scores = np.sort(inspector.score_samples(folder))
    middle = float(scores[2] + scores[3]) / 2
    return folder, middle, list(inspector.with_threshold(middle).inspect(folder))


def test_verdicts_of_files_are_the_same(loaded: Inspector, told_by_torch: tuple[Path, float, list[Inspection]]) -> None:
    """From camera images to verdict and regions."""
    folder, middle, torchs = told_by_torch
    ours = list(loaded.with_threshold(middle).inspect(folder))
    assert [one.verdict for one in ours] == [one.verdict for one in torchs]
    assert {one.verdict for one in ours} == {"OK", "NG"}
    for mine, theirs in zip(ours, torchs, strict=True):
        assert mine.score == pytest.approx(theirs.score, rel=1e-4) and mine.size == theirs.size
        assert len(mine.regions) == len(theirs.regions)


@pytest.mark.parametrize(("score", "sigma"), [("max", 4.0), ("top1%", 40.0), ("reweighted", 40.0)])
def test_patchcore_with_other_arguments(score: str, sigma: float, tmp_path: Path) -> None:
    """A blur wider than the map, and the image's score from the neighbours' neighbours."""
    torch.manual_seed(0)
    detector = create("patchcore", weights="none", score=score, sigma=sigma)
    fitted = Fitted("patchcore", detector, {})
    with torch.no_grad():
        patches = detector.patches(torch.rand(4, 3, SIDE, SIDE)).flatten(0, 2)  # type: ignore[operator]
    detector.bank, detector.centre = patches - patches.mean(0), patches.mean(0)
    parity = export_onnx(inspector_of(fitted), tmp_path / "parts.onnx")
    assert parity.score < 1e-4 and len(parity.shapes) == 3
    images = pictures(2, seed=4)[:, :32]
    for name in ENGINES:
        assert_same(
            make_engine(read_onnx(tmp_path / "parts.onnx")[2], name, threads=1)(images), TorchEngine(detector)(images)
        )


def test_padim_with_strides_of_which_no_channel_was_drawn(tmp_path: Path) -> None:
    """The finest one too: its grid counts none the less."""
    torch.manual_seed(0)
    detector = create("padim", weights="none", dimensions=1)
    fitted = Fitted("padim", detector, {})
    detector.subset = torch.tensor([100])  # type: ignore[assignment]  # of stride 16
    positions = (SIDE // 4) ** 2
    detector.mean, detector.whitening = torch.zeros(positions, 1), torch.ones(positions, 1, 1)
    assert export_onnx(inspector_of(fitted), tmp_path / "parts.onnx").score < 1e-4
    images = pictures(2, seed=4)
    for name in ENGINES:
        assert_same(
            make_engine(read_onnx(tmp_path / "parts.onnx")[2], name, threads=1)(images), TorchEngine(detector)(images)
        )
