from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.detectors.scenes import SIDE, crosses, rings, source, tensor

from okng.detectors.base import Batch
from okng.detectors.catalogue import create
from okng.detectors.one_class.deep_sad import DeepSAD
from okng.detectors.one_class.deep_svdd import DeepSVDD
from okng.errors import OkngError
from okng.metrics import auroc
from okng.training.loop.phases import run_phases

SMALL: dict[str, Any] = {"image_size": (SIDE, SIDE), "channels": 1, "widths": (8, 4), "code": 32, "batch_size": 32}
QUICK: dict[str, Any] = {"pretraining_epochs": 4, "epochs": 8, "pretraining_rate": 3e-3, "learning_rate": 1e-3}


def built(**arguments: Any) -> DeepSAD:
    torch.manual_seed(0)
    detector = create("deep_sad", **{**SMALL, **QUICK, **arguments})
    assert isinstance(detector, DeepSAD)
    return detector


def test_without_labels_the_loss_is_deep_svdds(monkeypatch: pytest.MonkeyPatch) -> None:
    detector, other = built(), create("deep_svdd", **SMALL)
    assert isinstance(other, DeepSVDD)
    other.load_tensors(detector.state_dict())
    monkeypatch.setattr(other, "normalised", lambda images: images)  # what a [0, 1] range would make of them
    batch = Batch(tensor(rings(8)), torch.arange(8))
    with torch.no_grad():
        assert torch.equal(detector.loss(batch), other.loss(batch))
        assert torch.equal(detector(batch.images).image, other(batch.images).image)


def test_an_ng_image_counts_by_one_over_its_distance(monkeypatch: pytest.MonkeyPatch) -> None:
    detector = built(eta=2.0)
    distances = torch.tensor([0.5, 4.0, 0.0], requires_grad=True)
    monkeypatch.setattr(detector, "distances", lambda images: distances)
    loss = detector.loss(Batch(torch.rand(3, 1, SIDE, SIDE), torch.arange(3), labels=torch.tensor([0, 1, 1])))
    torch.testing.assert_close(loss, torch.tensor((0.5 + 2 / (4 + 1e-6) + 2 / 1e-6) / 3))
    (slope,) = torch.autograd.grad(loss, distances)
    assert slope.isfinite().all() and slope[0] > 0 > slope[1] > slope[2]  # towards the centre, and away from it


def test_a_few_labelled_ng_images_are_worth_more_than_none() -> None:
    """5 % of them; with their labels the other way round they would be learnt as OK."""
    labelled = {}
    for name, ng in (("none", None), ("some", crosses(10))):
        detector = built()
        run_phases(detector, source(rings(190), ng), device="cpu")
        with torch.no_grad():
            scores = detector(torch.cat([tensor(rings(100, seed=1)), tensor(crosses(100, seed=1))])).image
        labelled[name] = auroc([0] * 100 + [1] * 100, scores.numpy())
        assert scores.std() / scores.mean() > 0.1
    assert labelled["some"] > max(0.95, labelled["none"])


def test_values_are_taken_as_they_are_and_the_centre_is_that_of_all_images() -> None:
    detector = built()
    images = torch.rand(2, 1, SIDE, SIDE)
    assert torch.equal(detector.normalised(images), images)
    assert [phase.name for phase in detector.phases()] == ["autoencoder", "centre", "one-class"]


def test_ranges() -> None:
    with pytest.raises(OkngError, match="deep_sad: eta is above 0, not 0"):
        built(eta=0)
