from __future__ import annotations

import copy
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.contract.conftest import pictures

import okng
from okng.benchmark.evaluation import evaluate_inspector
from okng.datasets import NG, OK, Dataset, Sample
from okng.detectors.base import Detector, Scores
from okng.detectors.engine import TorchEngine
from okng.errors import OkngError, OkngWarning
from okng.exporting import export_onnx, precision, recalibrate
from okng.exporting.onnx import TOLERANCE, Parity, compare, differences, examples
from okng.inspection.inspector import Inspector
from okng.inspection.reading.images import Preprocess, fingerprint


@cache
def fitted(name: str) -> Inspector:
    return okng.fit(pictures(8, seed=1), name, weights="none", size=32, holdout=0.4, device="cpu")


@pytest.fixture
def inspector() -> Inspector:
    """One of a test's own."""
    return copy.deepcopy(fitted("padim"))


def detector_of(inspector: Inspector) -> Detector:
    assert isinstance(inspector.engine, TorchEngine)
    return inspector.engine.detector


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_model_of_no_numbers_is_neither_exported_nor_saved(
    inspector: Inspector, value: float, tmp_path: Path
) -> None:
    detector_of(inspector).get_parameter("backbone.net.conv_stem.weight").data.fill_(value)
    with pytest.raises(OkngError, match=r"no numbers.*fit again"):
        export_onnx(inspector, tmp_path / "parts.onnx")
    with pytest.raises(OkngError, match=r"backbone.net.conv_stem.weight.*no numbers"):
        inspector.save(tmp_path / "parts.okng")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "part"),  # with a map and without one, for one shape of images and for several
    [
        *((name, "image") for name in ("padim", "patch_memory", "ecod", "mahalanobis")),
        ("padim", "map"),
        ("patch_memory", "map"),
    ],
)
def test_a_graph_that_is_not_the_detector_is_not_written(name: str, part: str, tmp_path: Path) -> None:
    """What Python decides by the batch's size is a constant in the graph: the comparison has to notice."""
    inspector = copy.deepcopy(fitted(name))
    detector = detector_of(inspector)

    class Odd(type(detector)):  # type: ignore[misc]
        def forward(self, images: torch.Tensor) -> Scores:
            scores = super().forward(images)
            setattr(scores, part, getattr(scores, part) * float(images.mean()))
            return scores

    detector.__class__ = Odd
    with pytest.raises(OkngError, match="not the fitted one"):
        export_onnx(inspector, tmp_path / "odd.onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_map_of_no_numbers_is_seen_though_all_scores_are_fine(inspector: Inspector, tmp_path: Path) -> None:
    detector = detector_of(inspector)

    class Odd(type(detector)):  # type: ignore[misc]
        def forward(self, images: torch.Tensor) -> Scores:
            scores = super().forward(images)
            assert scores.map is not None
            return Scores(scores.image, scores.map / 0 * 0)

    detector.__class__ = Odd
    with pytest.raises(OkngError, match="scores or maps are no numbers"):
        export_onnx(inspector, tmp_path / "parts.onnx")


def test_a_graph_that_rounds_otherwise_is_the_detector_though_an_image_has_a_score_and_a_map_near_zero() -> None:
    """Relative to an image's own ones a signed score, a difference of large numbers, would be off by any factor."""
    signed = np.array([1e-9, -0.5, 0.2, 0.1], np.float32)
    seen = np.array([1e-9, 0.25, -0.2, 0.1], np.float32)[:, None, None] * np.array([[1, 0.5], [0, -1]], np.float32)

    class Off:
        """Scores and maps that are off by so much in two of the images, as either engine is called."""

        def __init__(self, score: float, place: float):
            self.by = np.array([score, 0, score, 0], np.float32), np.array([place, 0, place, 0], np.float32)

        def run(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            return signed + self.by[0], seen + self.by[1][:, None, None]

        __call__ = run

    def apart(score: float, place: float) -> Parity:
        return compare(Off(0, 0), Off(score, place), [(8, 8)], 3)  # type: ignore[arg-type]

    rounding = apart(1e-6, 1e-6)
    assert rounding.score == pytest.approx(2e-6, rel=0.1) and rounding.map == pytest.approx(4e-6, rel=0.1)
    assert apart(1e-3, 0).score == pytest.approx(2e-3, rel=0.01) and apart(0, 1e-3).map == pytest.approx(4e-3, rel=0.01)


def test_a_signed_score_that_is_near_zero_for_an_image_is_exported(inspector: Inspector, tmp_path: Path) -> None:
    detector = detector_of(inspector)
    usual = float(TorchEngine(detector)(examples(4, (32, 32, 3), seed=1))[0][0])

    class Signed(type(detector)):  # type: ignore[misc]
        def forward(self, images: torch.Tensor) -> Scores:
            scores = super().forward(images)
            return Scores(scores.image - usual, scores.map)

    detector.__class__ = Signed
    assert export_onnx(inspector, tmp_path / "parts.onnx").score <= TOLERANCE


def test_differences() -> None:
    found, wanted = np.array([1.1, 0.0, -2.0]), np.array([1.0, 0.0, -4.0])
    np.testing.assert_allclose(differences(found, wanted, np.abs(wanted)), [0.1, 0, 0.5])
    for bad in (np.nan, np.inf):
        for pair in ((np.array([1, bad]), np.ones(2)), (np.ones(2), np.array([1, bad])), (np.array([bad]),) * 2):
            with pytest.raises(OkngError, match="no numbers"):
                differences(*pair, np.ones(1))


def test_what_a_model_has_learnt_does_not_calibrate_it(
    inspector: Inspector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 8 images the fit held out 3; of 5 new ones one comes twice, and 2 are NG."""
    export_onnx(inspector, tmp_path / "parts.onnx")

    def brightness(graph: bytes, engine: str, kind: str) -> object:
        return lambda pixels: (pixels.mean((1, 2, 3), dtype=np.float64), None)

    monkeypatch.setattr(precision, "make_engine", brightness)
    learnt, new = pictures(8, seed=1), pictures(5, seed=2)
    given = [Sample(image, OK) for image in [*learnt, *new, new[0]]]
    dataset = Dataset("all", "folder", "", (), (*given, *(Sample(image, NG) for image in pictures(2, seed=3))))
    with pytest.warns(OkngWarning, match="5 images are left out, because the model has learnt them"):
        calibrated, drift = recalibrate(tmp_path / "parts.onnx", "bf16", dataset)
    assert drift.ok == len(calibrated.calibration.scores) == 8 and drift.images == 10
    taken = [image for image in learnt if fingerprint(image) in inspector.manifest["unlearnt"]] + [*new]
    expected = sorted(Preprocess("RGB", (32, 32)).load(image)[0].mean() for image in taken)
    np.testing.assert_allclose(calibrated.calibration.scores, expected, rtol=1e-6)
    held = {fingerprint(image) for image in taken}
    assert set(calibrated.manifest["unlearnt"]) == held  # and so the set's own test leaves them out
    assert set(calibrated.manifest["calibrating"]) == held
    assert evaluate_inspector(calibrated, dataset)["n_ok"] == 0
    foreign = [Sample(np.full((32, 32, 3), 255, np.uint8), OK), *given]
    with pytest.warns(OkngWarning, match="image 0 score far above the others"):
        recalibrate(tmp_path / "parts.onnx", "bf16", Dataset("some", "folder", "", (), tuple(foreign)))
    known = Dataset("known", "folder", "", tuple(Sample(i, OK) for i in learnt if fingerprint(i) not in held), ())
    with pytest.raises(OkngError, match="has learnt all of these images"):
        recalibrate(tmp_path / "parts.onnx", "bf16", known)


def test_a_promise_about_groups_is_not_made_one_about_images(inspector: Inspector, tmp_path: Path) -> None:
    grouped = replace(inspector.calibration, unit="group")
    export_onnx(inspector.calibrated(grouped, inspector.manifest), tmp_path / "parts.onnx")
    new = Dataset("new", "folder", "", tuple(Sample(image, OK) for image in pictures(4, seed=2)), ())
    with pytest.raises(OkngError, match=r"promise is about groups.*export it at f32"):
        recalibrate(tmp_path / "parts.onnx", "bf16", new)


def test_a_score_of_zero_has_a_drift(inspector: Inspector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What PatchCore says of an image it has learnt whole: 0 / 0 is no drift."""
    export_onnx(inspector, tmp_path / "parts.onnx")

    def exact(graph: bytes, engine: str, kind: str) -> object:
        return lambda pixels: (np.arange(len(pixels), dtype=np.float32), None)

    monkeypatch.setattr(precision, "make_engine", exact)
    images = Dataset("new", "folder", "", tuple(Sample(image, OK) for image in pictures(4, seed=2)), ())
    drift = recalibrate(tmp_path / "parts.onnx", "bf16", images)[1]
    assert drift.typical == drift.worst == 0


def test_a_signed_score_near_zero_drifts_as_far_as_the_others(
    inspector: Inspector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Relative to itself alone one of 1e-6 would be off by any factor; an NG image's is larger than any OK one's."""
    export_onnx(inspector, tmp_path / "parts.onnx")
    f32 = np.array([1e-6, -2.0, 0.5, 1.0, 40.0], np.float32)

    def rounded(graph: bytes, engine: str, kind: str) -> object:
        moved = 0 if kind == "f32" else np.array([0.01, 0.02, 0.01, 0.01, 0.4], np.float32)
        return lambda pixels: (f32 + moved, None)

    monkeypatch.setattr(precision, "make_engine", rounded)
    samples = [Sample(image, OK) for image in pictures(4, seed=2)] + [Sample(pictures(1, seed=3)[0], NG)]
    drift = recalibrate(tmp_path / "parts.onnx", "bf16", Dataset("new", "folder", "", (), tuple(samples)))[1]
    assert drift.typical == pytest.approx(0.005, rel=1e-3) and drift.worst == pytest.approx(0.01, rel=1e-3)
