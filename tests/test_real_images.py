"""The main job on real images, small enough for every run: the default detector finds real defects, and where."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import okng
from okng.benchmark.evaluation import evaluate_inspector
from okng.datasets import open_dataset

pytestmark = pytest.mark.real_data


def test_transistor_at_half_size(okng_data: Path) -> None:
    dataset = open_dataset(okng_data / "mvtec_ad" / "transistor")
    inspector = okng.fit([s.image for s in dataset.train[:70]], size=160, device="cpu")
    figures = evaluate_inspector(inspector, replace(dataset, test=dataset.test[::2]))
    assert figures["image_auroc"] > 0.93
    assert figures["pixel_auroc"] > 0.95
    assert figures["aupro"] > 0.8
    assert figures["measured_false_alarm_rate"] < 0.2  # of 30 images: the rate of a draw varies


def test_solar_cells_from_their_package() -> None:
    pytest.importorskip("elpv_dataset")
    dataset = open_dataset("elpv/mono")
    inspector = okng.fit([s.image for s in dataset.train[:80]], size=128, device="cpu")
    defective = [s.image for s in dataset.test if s.label == 1][:40]
    fine = [s.image for s in dataset.test if s.label == 0][:40]
    caught = sum(i.is_ng for i in inspector.inspect(defective))
    alarms = sum(i.is_ng for i in inspector.inspect(fine))
    assert caught > 28 and alarms < 10
