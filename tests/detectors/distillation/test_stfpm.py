"""What tells STFPM from a toy: normalised features, a teacher that stays, a product over the pyramid."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from okng.detectors.base import Batch, Train
from okng.detectors.catalogue import create
from okng.detectors.distillation.stfpm import STFPM
from okng.errors import OkngError
from okng.inspection.reading.images import Preprocess
from okng.training.images.data import TrainingImages
from okng.training.loop.phases import run_phases


def built(**arguments: object) -> STFPM:
    torch.manual_seed(0)
    detector = create("stfpm", **arguments)
    assert isinstance(detector, STFPM)
    return detector


def images(count: int = 2, seed: int = 0) -> Tensor:
    return torch.rand(count, 3, 64, 64, generator=torch.Generator().manual_seed(seed))


def loss(detector: STFPM, batch: Tensor) -> dict[str, Tensor]:
    return detector.loss(Batch(batch, torch.arange(len(batch)), detector.teach(batch)))


def test_a_student_like_its_teacher_finds_nothing() -> None:
    detector = built()
    detector.student.load_state_dict(detector.teacher.state_dict())
    with torch.no_grad():
        scores = detector(images())
    assert scores.map is not None and not scores.map.any() and not scores.image.any()


def test_the_loss_is_one_bounded_number_per_stride() -> None:
    detector = built()
    with torch.no_grad():
        losses = loss(detector, images())
        assert list(losses) == ["stride 4", "stride 8", "stride 16"]
        assert all(0 < float(value) < 4 for value in losses.values())
        detector.student.load_state_dict(detector.teacher.state_dict())
        detector.teacher.register_forward_hook(lambda module, inputs, features: [-f for f in features])
        for value in loss(detector, images()).values():  # opposite everywhere: |t - s|² = 2²
            torch.testing.assert_close(value, torch.tensor(4.0))


def test_the_length_of_the_teachers_features_does_not_matter() -> None:
    detector = built()
    with torch.no_grad():
        before = detector(images()).map
        detector.teacher.register_forward_hook(lambda module, inputs, features: [7 * f for f in features])
        torch.testing.assert_close(detector(images()).map, before)


def test_the_map_is_the_root_of_the_product_over_strides() -> None:
    detector = built()
    with torch.no_grad():
        differences = detector.differences(detector.teach(images()), images())
        scores = detector(images())
    assert [d.shape for d in differences] == [(2, 1, 16, 16), (2, 1, 8, 8), (2, 1, 4, 4)]
    product = torch.ones(2, 1, 16, 16)
    for d in differences:
        product *= torch.nn.functional.interpolate(d, (16, 16), mode="bilinear", align_corners=False)
    assert scores.map is not None
    torch.testing.assert_close(scores.map, product[:, 0] ** (1 / 3))
    assert torch.equal(scores.image, scores.map.amax((1, 2)))


def test_small_differences_do_not_vanish(monkeypatch: pytest.MonkeyPatch) -> None:
    """The plain product of three distances of 1e-16 is no float32."""
    detector = built()
    monkeypatch.setattr(detector, "differences", lambda *_: [torch.full((2, 1, s, s), 1e-16) for s in (16, 8, 4)])
    with torch.no_grad():
        torch.testing.assert_close(detector(images()).image, torch.full((2,), 1e-16), rtol=1e-4, atol=0)


def test_training_moves_the_student_only_and_towards_the_teacher() -> None:
    detector = built(epochs=12, batch_size=4)
    pixels = np.random.default_rng(0).integers(0, 255, (8, 64, 64, 3), np.uint8)
    source = TrainingImages(list(pixels), Preprocess("RGB", (64, 64), detector.multiple))
    batch = torch.stack([source[i] for i in range(8)]).float() / 255
    teacher = {name: tensor.clone() for name, tensor in detector.teacher.state_dict().items()}
    with torch.no_grad():
        before = loss(detector, batch)
    run_phases(detector, source, device="cpu")
    with torch.no_grad():
        after = loss(detector, batch)
    for name, tensor in detector.teacher.state_dict().items():  # the running statistics of its norms included
        assert torch.equal(tensor, teacher[name]), name
    assert sum(after.values()) < 0.8 * sum(before.values())


def test_the_epoch_is_kept_whose_map_is_lowest_on_held_out_ok_images() -> None:
    """As the authors do; by the product of the strides' distances."""
    detector = built()
    (phase,) = detector.phases()
    assert isinstance(phase, Train) and phase.validate is not None
    with torch.no_grad():
        found = phase.validate(Batch(images(), torch.arange(2), detector.teach(images())))
        scores = detector(images())
    assert scores.map is not None
    torch.testing.assert_close(found, scores.map.pow(3).mean(), rtol=1e-4, atol=0)


def test_paper_size() -> None:
    """ResNet-18 at 256 px, one step of the paper's optimiser on a small batch."""
    detector = STFPM(backbone="resnet18", weights="none").eval()
    (phase,) = detector.phases()
    assert isinstance(phase, Train) and phase.prepare is not None
    assert (phase.epochs, phase.batch_size) == (100, 32)
    (update,) = phase.updates
    assert update.optimizer.defaults["lr"] == 0.4 and update.optimizer.defaults["momentum"] == 0.9
    batch = torch.rand(2, 3, 256, 256)
    with torch.no_grad():
        prepared = phase.prepare(batch)
    assert [p.shape[1] for p in prepared] == [64, 128, 256]
    detector.student.train()
    losses = update.loss(Batch(batch, torch.arange(2), tuple(prepared)))
    assert isinstance(losses, dict)
    sum(losses.values(), torch.zeros(())).backward()
    assert all(p.grad is None for p in detector.teacher.parameters())
    update.optimizer.step()
    detector.student.eval()
    with torch.no_grad():
        scores = detector(batch)
    assert scores.map is not None and scores.map.shape == (2, 64, 64) and torch.isfinite(scores.map).all()


@pytest.mark.parametrize(
    "arguments",
    [{"momentum": 1.0}],
)
def test_ranges(arguments: dict[str, object]) -> None:
    with pytest.raises(OkngError, match="stfpm: "):
        create("stfpm", weights="none", **arguments)
