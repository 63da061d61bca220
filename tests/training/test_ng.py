"""Labelled NG images: all are learnt, none calibrates, and detectors that can't use them refuse."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tests.contract.conftest import pictures

import okng
from okng.benchmark.evaluation import evaluate_inspector
from okng.datasets import NG, OK, Dataset, Sample
from okng.detectors.base import Batch
from okng.detectors.catalogue import create
from okng.errors import OkngError
from okng.inspection.reading.images import Preprocess
from okng.training import fit as fitting
from okng.training.images.data import TrainingImages
from okng.training.loop.phases import run_phases

QUICK: dict[str, Any] = {"width": 2, "epochs": 1, "batch_size": 8, "size": 32, "device": "cpu"}


@pytest.fixture(scope="module")
def ok() -> np.ndarray:
    return pictures(12, seed=1)


@pytest.fixture(scope="module")
def ng() -> np.ndarray:
    return pictures(5, seed=3, defect=True)


class Watched:
    """What `okng.fit` hands to the runner and to the calibration."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.learnt: list[TrainingImages] = []
        self.judged: list[list[Any]] = []
        run, judge = fitting.run_phases, fitting.judge

        def watched_run(detector: Any, images: TrainingImages, **settings: Any) -> None:
            self.learnt.append(images)
            run(detector, images, **settings)

        def watched_judge(detector: Any, images: TrainingImages, index: np.ndarray, *rest: Any) -> Any:
            self.judged.append([images.sources[i] for i in index])
            return judge(detector, images, index, *rest)

        monkeypatch.setattr(fitting, "run_phases", watched_run)
        monkeypatch.setattr(fitting, "judge", watched_judge)


def is_one_of(image: np.ndarray, images: np.ndarray) -> bool:
    return any(np.array_equal(image, other) for other in images)


@pytest.mark.parametrize(("holdout", "runs"), [(0.25, 1), (0.0, 6)])
def test_all_are_learnt_and_none_calibrates(
    ok: np.ndarray, ng: np.ndarray, monkeypatch: pytest.MonkeyPatch, holdout: float, runs: int
) -> None:
    watched = Watched(monkeypatch)
    inspector = okng.fit(ok, "vgg11", ng=ng, holdout=holdout, **QUICK)
    assert len(watched.learnt) == runs
    for images in watched.learnt:
        assert images.labels.count(1) == 5
        assert all(is_one_of(s, ng) == bool(label) for s, label in zip(images.sources, images.labels, strict=True))
    judged = [image for images in watched.judged for image in images]
    assert all(is_one_of(image, ok) for image in judged)
    assert len(judged) == len(inspector.calibration.scores) == (3 if holdout else 12)
    provenance = inspector.manifest["provenance"]
    assert (provenance["images"], provenance["ng_images"]) == (12, 5)
    assert provenance["learnt_from"] == (9 if holdout else 12)


def test_batches_carry_the_labels_of_their_images(ok: np.ndarray, ng: np.ndarray) -> None:
    """Whatever the shuffling: the blue defect is what NG pictures have."""
    detector = create("vgg11", image_size=(64, 64), width=2, epochs=2, batch_size=4)
    seen: list[Batch] = []
    learn = detector.loss
    detector.loss = lambda batch: seen.append(batch) or learn(batch)  # type: ignore[assignment, func-returns-value, operator]
    images = TrainingImages([*ok, *ng], Preprocess("RGB", (64, 64)), labels=[0] * 12 + [1] * 5)
    run_phases(detector, images, device="cpu")
    assert sum(len(batch.images) for batch in seen) == 2 * 17
    for batch in seen:
        blue = (batch.images[:, 2] - batch.images[:, 0] > 0.5).flatten(1).any(1)  # (B,)
        assert batch.labels.dtype == torch.int64 and torch.equal(batch.labels.bool(), blue)
    part = images.subset([16, 0, 12])
    assert part.labels == [1, 0, 1] and images.subset(range(3)).labels == [0, 0, 0]
    assert Batch(torch.rand(2, 3, 8, 8), torch.arange(2)).labels.tolist() == [0, 0]


def test_what_was_learnt_is_not_tested_on(ok: np.ndarray, ng: np.ndarray, tmp_path: Path) -> None:
    """Known by its bytes under any name, as a file and as an array, and through a saved model."""
    test = [Sample(image, NG) for image in ng] + [Sample(image, OK) for image in ok[8:]]
    inspector = okng.fit(ok[:8], "vgg11", ng=ng[:2], **QUICK)
    inspector.save(tmp_path / "parts.okng")
    for judge in (inspector, okng.load(tmp_path / "parts.okng")):
        figures = evaluate_inspector(judge, Dataset("bolts", "arrays", "none", (), tuple(test)))
        assert (figures["n_ok"], figures["n_ng"], figures["left_out"]) == (4, 3, 2)

    folder, other = tmp_path / "ng", tmp_path / "other"
    for place, images in ((folder, ng[:2]), (other, ng)):
        place.mkdir()
        for i, image in enumerate(images):
            Image.fromarray(image).save(place / f"{place.name}{i}.png")
    (other / "broken.png").write_bytes(b"no image")
    inspector = okng.fit(ok[:8], "vgg11", ng=folder, **QUICK)
    files = [Sample(path, NG) for path in sorted(other.iterdir())] + test[5:]
    figures = evaluate_inspector(inspector, Dataset("bolts", "files", "none", (), tuple(files)))
    assert (figures["n_ok"], figures["n_ng"], figures["left_out"], len(figures["skipped"])) == (4, 3, 2, 1)


def test_a_checkpoint_belongs_to_its_labels(ok: np.ndarray, tmp_path: Path) -> None:
    def run(labels: list[int], resume: bool) -> None:
        detector = create("vgg11", width=2, epochs=1)
        images = TrainingImages(list(ok), Preprocess("RGB", (32, 32)), labels=labels)
        run_phases(detector, images, device="cpu", checkpoint=tmp_path / "a.partial", resume=resume)

    run([0] * 6 + [1] * 6, resume=False)
    run([0] * 6 + [1] * 6, resume=True)
    with pytest.raises(OkngError, match="other images"):
        run([0] * 7 + [1] * 5, resume=True)


def test_mistakes(ok: np.ndarray, ng: np.ndarray, tmp_path: Path) -> None:
    with pytest.raises(OkngError, match="vgg11 learns from some NG images too; give them with ng=IMAGES"):
        okng.fit(ok, "vgg11", **QUICK)
    with pytest.raises(OkngError, match="autoencoder learns from OK images only"):
        okng.fit(ok, "autoencoder", ng=ng, device="cpu")
    (tmp_path / "broken.png").write_bytes(b"no image")
    with pytest.raises(OkngError, match="at least one NG image"):
        okng.fit(ok, "vgg11", ng=tmp_path, **QUICK)
    Image.fromarray(ng[0]).save(tmp_path / "broken.png")
    (tmp_path / "broken.png").write_bytes((tmp_path / "broken.png").read_bytes()[:900])
    with pytest.raises(OkngError, match="none of the NG images is readable"):
        okng.fit(ok, "vgg11", ng=tmp_path, **QUICK)
